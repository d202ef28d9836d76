/* prompt.h - texts with {names} in them, and what may be done to a field.
 *
 * A prompt's text is literal but for {name}; "{{" and "}}" are the braces themselves. Which names there are depends
 * on where the text stands (task.h says so). Nothing else is interpreted: a prompt is what one reads. */
#ifndef DATASETS_PROMPT_H
#define DATASETS_PROMPT_H

#include "base/arena.h"
#include "base/status.h"
#include "base/text.h"

/* A run of literal bytes, and after it the value of name `slot` (an index into the names given to the compiler),
 * or slot -1 at the end. */
typedef struct mx_prompt_part {
    const char *literal;
    size_t length;
    int slot;
} mx_prompt_part;
typedef struct mx_prompt_text {
    const mx_prompt_part *part;
    size_t parts;
} mx_prompt_text;

/* Texts live in the arena. An unknown name or a brace left alone is a problem at `at`, with the near name. */
void mx_prompt_compile(const char *text, mx_mark at, const char *const *names, size_t count, mx_arena *arena,
                       mx_prompt_text *ret, mx_problems *problems);
/* The names of a text, as written, in order; for texts whose names are looked up in each record. Not NULL-terminated. */
const char **mx_prompt_names(const char *text, mx_arena *arena, size_t *ret_count);
/* value[slot] for each name. */
void mx_prompt_fill(const mx_prompt_text *p, const char *const *value, mx_text *out);
bool mx_prompt_uses(const mx_prompt_text *p, int slot);

/* What a field's text goes through, in this order. */
typedef enum mx_edit {
    MX_EDIT_BEFORE_BLANK,  /* what stands before the first _ */
    MX_EDIT_AFTER_BLANK,   /* what stands after it */
    MX_EDIT_CAPITALIZE,    /* first letter upper, the rest lower case, as Python's str.capitalize */
    MX_EDIT_STRIP,         /* white space at both ends, as Python's str.strip */
    MX_EDIT_WIKIHOW_MARKS, /* HellaSwag's: " [title]" -> ". ", then [...] removed, then two spaces -> one */
    MX_EDITS
} mx_edit;
extern const char *const mx_edit_names[MX_EDITS + 1];

/* What Python's str.strip takes for white space. */
bool mx_prompt_is_space(int32_t character);

/* `edits`: bit i is edit i. MX_E_DATA (without a place: the caller knows it) when there is no blank to split at. The
 * result lives in the arena. */
MX_MUST_CHECK mx_code mx_edit_apply(uint64_t edits, const char *text, mx_arena *arena, const char **ret, mx_status *st);

#endif
