/* prompt.c - texts with {names} in them, and what may be done to a field. */
#include "datasets/prompt.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* --- {names} --- */

/* The next piece of a text: literal bytes (braces undoubled into the arena), then a name or the end. */
typedef struct piece {
    const char *literal, *name; /* name NULL: the text is over */
    size_t length;
    const char *wrong; /* a brace left alone: what to say, else NULL */
} piece;

static piece next_piece(const char **text, mx_arena *arena)
{
    const char *s = *text;
    char *literal = mx_arena_take(arena, strlen(s) + 1);
    piece p = { .literal = literal };

    while (*s) {
        if ((s[0] == '{' && s[1] == '{') || (s[0] == '}' && s[1] == '}')) {
            literal[p.length++] = *s;
            s += 2;
        } else if (*s == '}') {
            p.wrong = "'}' without its '{' (the brace itself is written '}}')";
            break;
        } else if (*s == '{') {
            size_t length = strcspn(++s, "{}");

            if (s[length] != '}' || length == 0) {
                p.wrong = "'{' must open a {name} (the brace itself is written '{{')";
                break;
            }
            p.name = mx_arena_copy(arena, s, length);
            s += length + 1;
            break;
        } else {
            literal[p.length++] = *s++;
        }
    }
    *text = s;
    return p;
}

static size_t count_pieces(const char *text)
{
    size_t n = 1;

    for (; *text; text++) {
        n += *text == '{';
    }
    return n;
}

static int find_name(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

void mx_prompt_compile(const char *text, mx_mark at, const char *const *names, size_t count, mx_arena *arena,
                       mx_prompt_text *ret, mx_problems *problems)
{
    mx_prompt_part *part = MX_TAKE(arena, mx_prompt_part, count_pieces(text));
    size_t parts = 0;
    piece p;

    do {
        int slot = -1;

        p = next_piece(&text, arena);
        if (p.wrong) {
            mx_problem(problems, at, NULL, "%s", p.wrong);
            break;
        }
        if (p.name && (slot = find_name(p.name, names, count)) < 0) {
            const char *near = mx_text_nearest(p.name, names, count);

            mx_problem(problems, at, near ? mx_arena_text(arena, "did you mean '{%s}'?", near) : NULL,
                       "there is no field '{%s}' here", p.name);
        }
        part[parts++] = (mx_prompt_part){ p.literal, p.length, slot };
    } while (p.name);
    *ret = (mx_prompt_text){ part, parts };
}

const char **mx_prompt_names(const char *text, mx_arena *arena, size_t *ret_count)
{
    const char **name = MX_TAKE(arena, const char *, count_pieces(text));
    piece p;

    *ret_count = 0;
    do {
        p = next_piece(&text, arena);
        if (p.name && !p.wrong) {
            name[(*ret_count)++] = p.name;
        }
    } while (p.name && !p.wrong);
    return name;
}

void mx_prompt_fill(const mx_prompt_text *p, const char *const *value, mx_text *out)
{
    for (size_t i = 0; i < p->parts; i++) {
        mx_text_add(out, p->part[i].literal, p->part[i].length);
        if (p->part[i].slot >= 0) {
            const char *text = value[p->part[i].slot];

            mx_text_add(out, text, strlen(text));
        }
    }
}

bool mx_prompt_uses(const mx_prompt_text *p, int slot)
{
    for (size_t i = 0; i < p->parts; i++) {
        if (p->part[i].slot == slot) {
            return true;
        }
    }
    return false;
}

/* --- edits --- */

const char *const mx_edit_names[MX_EDITS + 1] = { "before_blank", "after_blank", "capitalize", "strip", "wikihow_marks", NULL };

/* Characters one by one: Python's capitalize has no rule that looks at neighbours but the final sigma, and the
 * few letters whose other case is several characters (as the German sharp s) keep their own. */
static const char *capitalize(const char *text, mx_arena *arena)
{
    size_t length = strlen(text), used = 0;
    utf8proc_uint8_t *out = mx_arena_take(arena, 2 * length + 4 + 1); /* the other case takes at most one byte more */
    bool first = true;

    for (size_t at = 0; at < length;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(length - at), &c);

        if (n <= 0) { /* not UTF-8: as it stands */
            out[used++] = (utf8proc_uint8_t)text[at++];
        } else {
            used += (size_t)utf8proc_encode_char(first ? utf8proc_totitle(c) : utf8proc_tolower(c), out + used);
            at += (size_t)n;
        }
        first = false;
    }
    return (const char *)out;
}

bool mx_prompt_is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static const char *strip(const char *text, mx_arena *arena)
{
    size_t length = strlen(text), begin = length, end = 0;

    for (size_t at = 0; at < length;) {
        utf8proc_int32_t c = -1;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(length - at), &c);
        size_t step = n > 0 ? (size_t)n : 1;

        if (n <= 0 || !mx_prompt_is_space(c)) {
            begin = begin < at ? begin : at;
            end = at + step;
        }
        at += step;
    }
    return begin < end ? mx_arena_copy(arena, text + begin, end - begin) : "";
}

static const char *replace(const char *text, const char *what, const char *with, mx_arena *arena)
{
    size_t from = strlen(what), to = strlen(with), used = 0;
    char *out;

    assert(to <= from);
    out = mx_arena_take(arena, strlen(text) + 1);
    while (*text) {
        if (strncmp(text, what, from) == 0) {
            memcpy(out + used, with, to);
            used += to;
            text += from;
        } else {
            out[used++] = *text++;
        }
    }
    return out;
}

/* As lm-evaluation-harness cleans HellaSwag: re.sub(r"\[.*?\]", "") takes from a bracket to the next closing one on
 * the same line. */
static const char *wikihow_marks(const char *text, mx_arena *arena)
{
    const char *marked = replace(text, " [title]", ". ", arena), *s = marked;
    char *out = mx_arena_take(arena, strlen(marked) + 1);
    size_t used = 0;

    while (*s) {
        size_t inside = *s == '[' ? strcspn(s, "]\n") : 0;

        if (inside && s[inside] == ']') {
            s += inside + 1;
        } else {
            out[used++] = *s++;
        }
    }
    return replace(out, "  ", " ", arena);
}

mx_code mx_edit_apply(uint64_t edits, const char *text, mx_arena *arena, const char **ret, mx_status *st)
{
    const char *blank = strchr(text, '_');

    if (edits & ((1u << MX_EDIT_BEFORE_BLANK) | (1u << MX_EDIT_AFTER_BLANK))) {
        if (!blank) {
            return mx_fail(st, MX_E_DATA, MX_NOWHERE, "there is no blank '_' in it");
        }
        text = edits & (1u << MX_EDIT_AFTER_BLANK) ? blank + 1 : mx_arena_copy(arena, text, (size_t)(blank - text));
    }
    if (edits & (1u << MX_EDIT_CAPITALIZE)) {
        text = capitalize(text, arena);
    }
    if (edits & (1u << MX_EDIT_STRIP)) {
        text = strip(text, arena);
    }
    if (edits & (1u << MX_EDIT_WIKIHOW_MARKS)) {
        text = wikihow_marks(text, arena);
    }
    *ret = text;
    return MX_OK;
}
