/* option_parts.h - what the files of option share; nothing here is for other files. */
#ifndef BASE_OPTION_PARTS_H
#define BASE_OPTION_PARTS_H

#include "base/option.h"

/* One reading of a tree. `problems` NULL: nothing is told (presets are being filled in). */
typedef struct mx_binder {
    const mx_option_table *root;
    mx_arena *arena;
    mx_problems *problems;
    mx_fallen **fallen; /* where the next one goes; NULL: nobody asks */
} mx_binder;

/* NULL when the table has no such word. */
const mx_option *mx_option_find(const mx_option_table *table, const char *word);

static inline void *mx_option_slot(const mx_option *o, const void *config) {
    return (char *)(uintptr_t)config + o->offset;
}

/* Reads one value; false when a problem was added, and the slot is as it was. `name` is the word or
 * "word[2]". */
bool mx_option_read(mx_binder *b, const mx_option *o, const mx_node *node, void *slot);
/* The value a word has when nobody gives it. */
void mx_option_preset(mx_binder *b, const mx_option *o, void *slot);
/* A map into its struct; `where` is the place of what is missing from a map that is not there. */
void mx_option_bind_map(mx_binder *b, const mx_option_table *table, const mx_node *map,
                        mx_mark where, void *config);

/* The governing word that keeps `o` from applying, NULL when it applies. Of several one is
 * preferred that was decided after `layer`; `map` may be NULL. Words whose bit is set in `bad` have
 * no value to go by and hinder nothing. */
const mx_option *mx_option_hindrance(const mx_option_table *table, const mx_option *o,
                                     const void *config, const mx_node *map, int layer,
                                     uint64_t bad);
/* Does any bound apply to this number? Both ends 0 mean none. */
static inline bool mx_option_bounded(const mx_option *o) {
    return o->min != 0 || o->max != 0;
}
/* What a value must be: "a whole number", "one of: a, b". */
void mx_option_describe(const mx_option *o, mx_text *out);
/* "at least 0 and below 1". */
void mx_option_range(const mx_option *o, mx_text *out);
/* A value as YAML on one line: scalars, sets, texts. Numbers in the fewest digits that read back to
 * the bit. */
void mx_option_value(const mx_option *o, const void *slot, mx_text *out);
/* A text as a YAML scalar that reads back to it, quoted where it must be. */
void mx_option_quote(const char *text, bool auto_is_a_word, mx_text *out);

/* Words of one table; asserted while a table is used. */
enum { MX_OPTION_WORDS_MAX = 64 };

#endif
