/* tokenizer_split.c - a text falls into pieces by regular expressions, before any merging.
 *
 * Each step cuts the pieces of the step before it, seeing one piece at a time: what its expression matches
 * becomes a piece (or is thrown away), and so does what lies between. PCRE2 with Unicode's properties, JIT where
 * the processor has it. The expressions in tokenizer.json are written for Oniguruma and Rust's regex; where
 * PCRE2 reads the same letters differently, they are rewritten or refused here. */
#include "model/tokenizer_parts.h"

#include <string.h>

/* GPT-2's encoder.py, which HF's ByteLevel has built in. */
const char mx_split_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/* LLaMA-3's tokenizer.json and Meta's tokenizer.py. */
static const char llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                             " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* \s is Unicode's White_Space for the authors; PCRE2's has U+180E too, which Unicode dropped in 6.3. What else the
 * two read differently is refused: \h (a hexadecimal digit there), \w and \b (other categories), ^ and $ (at every
 * line there), {n}+ (not possessive there), (*VERBS), classes within classes and && (set arithmetic there). */
static mx_code translate(const char *pattern, mx_text *out, mx_mark at, mx_status *st) {
    static const char white[] = "\\t-\\r\\x{85}\\p{Z}";
    const char *class = NULL; /* where the class we are in begins, just after [ or [^ */
    char odd[4] = "";

    for (const char *p = pattern; *p && !*odd; p++) {
        if (*p == '\\' && p[1] == 's') {
            mx_text_print(out, class ? "%s" : "[%s]", white);
            p++;
        } else if (*p == '\\' && p[1] == 'S' && !class) {
            mx_text_print(out, "[^%s]", white);
            p++;
        } else if (*p == '\\') {
            if (p[1] == '\0' || strchr("ShHwWbBRXKGNQEC", p[1])) {
                memcpy(odd, p, 2);
                break;
            }
            if (p[2] == '{' && strchr("pPx", p[1]) && strchr(p, '}')) { /* \p{L}: its braces count nothing */
                const char *end = strchr(p, '}');

                mx_text_add(out, p, (size_t)(end + 1 - p));
                p = end;
            } else {
                mx_text_add(out, p++, 2);
            }
        } else {
            if (class ? *p == '[' || (*p == ']' && p == class) : *p == '^' || *p == '$') {
                odd[0] = *p;
            } else if (strncmp(p, class ? "&&" : "}+", 2) == 0 || (!class && strncmp(p, "(*", 2) == 0)) {
                memcpy(odd, p, 2);
            } else if (!class && strncmp(p, "(?m", 3) == 0) {
                memcpy(odd, p, 3);
            }
            mx_text_add(out, p, 1);
            if (class) {
                class = *p == ']' ? NULL : class;
            } else if (*p == '[') {
                class = p + 1 + (p[1] == '^');
                mx_text_add(out, "^", (size_t)(p[1] == '^'));
                p += p[1] == '^';
            }
        }
    }
    if (*odd) {
        return mx_fail(st, MX_E_DATA, at, "the pre-tokenizer's expression '%.300s' uses %s%s, which is not supported",
                       pattern, odd, class ? " within [ ]" : "");
    }
    return MX_OK;
}

mx_code mx_splitter_add(mx_splitter *s, mx_arena *arena, const char *pattern, bool literal, bool removed, mx_mark at,
                        mx_status *st) {
    mx_split_step *step = &s->step[s->count];
    mx_text rewritten;
    mx_code code = MX_OK;
    int error;
    PCRE2_SIZE where;

    if (s->count == MX_SPLIT_STEPS_MAX) {
        return mx_fail(st, MX_E_DATA, at, "the pre-tokenizer has more than %d steps", MX_SPLIT_STEPS_MAX);
    }
    if (!*pattern || strlen(pattern) > 4096) {
        return mx_fail(st, MX_E_DATA, at, "the pre-tokenizer has an expression of %zu bytes", strlen(pattern));
    }
    mx_text_init(&rewritten, (size_t)1 << 20);
    if (literal) {
        mx_text_add(&rewritten, pattern, strlen(pattern));
    } else {
        code = translate(pattern, &rewritten, at, st);
    }
    if (code) {
        goto done;
    }
    *step = (mx_split_step){ .removed = removed, .literal = literal };
    step->pattern = mx_arena_copy(arena, pattern, strlen(pattern));
    step->code = pcre2_compile((PCRE2_SPTR)rewritten.data, rewritten.length,
                               PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C), &error,
                               &where, NULL);
    if (!step->code) {
        PCRE2_UCHAR words[256] = { 0 };

        pcre2_get_error_message(error, words, sizeof words);
        code =
            mx_fail(st, MX_E_DATA, at, "the pre-tokenizer's expression '%.300s' is wrong: %s", pattern, (char *)words);
        goto done;
    }
    (void)pcre2_jit_compile(step->code, PCRE2_JIT_COMPLETE); /* without JIT the same matches are found, slower */
    s->count++;
done:
    mx_text_finish(&rewritten);
    return code;
}

mx_code mx_splitter_named(mx_splitter *s, mx_arena *arena, const char *name, mx_mark at, mx_status *st) {
    if (strcmp(name, "gpt-2") == 0) {
        return mx_splitter_add(s, arena, mx_split_gpt2, false, false, at, st);
    }
    if (strcmp(name, "llama-bpe") == 0 || strcmp(name, "llama3") == 0 || strcmp(name, "llama-v3") == 0) {
        return mx_splitter_add(s, arena, llama3, false, false, at, st);
    }
    if (strcmp(name, "smollm") == 0) {
        MX_TRY(mx_splitter_add(s, arena, "\\p{N}", false, false, at, st));
        return mx_splitter_add(s, arena, mx_split_gpt2, false, false, at, st);
    }
    return mx_fail(st, MX_E_DATA, at,
                   "the pre-tokenizer '%.100s' is not supported; known are gpt-2, llama-bpe and smollm", name);
}

void mx_splitter_finish(mx_splitter *s) {
    for (size_t i = 0; i < s->count; i++) {
        pcre2_code_free(s->step[i].code);
    }
    s->count = 0;
}

/* The next match that is not empty, from `from` on; *ret_end == 0: there is none. */
static mx_code find_match(mx_encoding *e, size_t depth, const char *text, size_t length, size_t from, size_t *ret_start,
                          size_t *ret_end) {
    const pcre2_code *code = e->t->splitter.step[depth].code;
    const uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    const PCRE2_SIZE *range;
    int rc = pcre2_match(code, (PCRE2_SPTR)text, length, from, options, e->match[depth], NULL);

    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) { /* the interpreter works on the heap */
        rc = pcre2_match(code, (PCRE2_SPTR)text, length, from, options | PCRE2_NO_JIT, e->match[depth], NULL);
    }
    *ret_start = *ret_end = 0;
    if (rc == PCRE2_ERROR_NOMATCH) {
        return MX_OK;
    }
    if (rc < 0) {
        PCRE2_UCHAR words[256] = { 0 };

        pcre2_get_error_message(rc, words, sizeof words);
        return mx_fail(e->st, rc == PCRE2_ERROR_NOMEMORY ? MX_E_MEMORY : MX_E_DATA, MX_NOWHERE,
                       "the tokenizer's expression '%.200s' gives up on a text of %zu bytes: %s",
                       e->t->splitter.step[depth].pattern, length, (char *)words);
    }
    range = pcre2_get_ovector_pointer(e->match[depth]);
    *ret_start = range[0];
    *ret_end = range[1] > range[0] ? range[1] : 0; /* \K is refused, so ends never precede starts */
    return MX_OK;
}

static mx_code split(mx_encoding *e, size_t depth, const char *text, size_t length) {
    size_t done = 0, start, end;

    if (depth == e->t->splitter.count) {
        return mx_bpe_encode_piece(e, text, length);
    }
    while (done < length) {
        MX_TRY(find_match(e, depth, text, length, done, &start, &end));
        if (end <= done) {
            break;
        }
        if (start > done) {
            MX_TRY(split(e, depth + 1, text + done, start - done));
        }
        if (!e->t->splitter.step[depth].removed) {
            MX_TRY(split(e, depth + 1, text + start, end - start));
        }
        done = end;
    }
    return done < length ? split(e, depth + 1, text + done, length - done) : MX_OK;
}

mx_code mx_split_encode(mx_encoding *e, const char *text, size_t length) {
    for (size_t i = 0; i < e->t->splitter.count; i++) {
        if (!e->match[i]) {
            e->match[i] = pcre2_match_data_create(1, NULL);
        }
        if (!e->match[i]) {
            return mx_fail(e->st, MX_E_MEMORY, MX_NOWHERE, "no memory to split a text into tokens");
        }
    }
    return split(e, 0, text, length);
}
