/* commands.c - the verbs, alphabetically, and their command lines taken apart. */
#include "runner/commands.h"

#include "base/text.h"
#include "runner/verbs.h"

#include <ctype.h>
#include <string.h>

#define ENTRY(verb) &mx_verb_##verb,
const mx_command *const mx_commands[] = { MX_VERBS(ENTRY) NULL };

volatile int mx_stop;

const mx_command *mx_command_find(const char *name) {
    for (const mx_command *const *c = mx_commands; *c; c++) {
        if (strcmp((*c)->name, name) == 0) {
            return *c;
        }
    }
    return NULL;
}

static bool same_name(const char *given, size_t length, const char *name) {
    if (strlen(name) != length) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if ((given[i] == '_' ? '-' : given[i]) != (name[i] == '_' ? '-' : name[i])) {
            return false;
        }
    }
    return true;
}

static mx_code unknown_flag(const mx_command *c, const char *given, mx_status *st) {
    const char *names[MX_FLAGS_MAX + 1];
    size_t count = 0;
    const char *near;
    mx_code code = mx_fail(st, MX_E_USAGE, MX_NOWHERE, "unknown flag '%s' for mixrun %s", given, c->name);

    for (const mx_flag *f = c->flag; f && f->name; f++) {
        names[count++] = f->name;
    }
    names[count++] = "help";
    near = mx_text_nearest(given + strspn(given, "-"), names, count);
    if (near) {
        mx_hint(st, "did you mean '--%s'?", near);
    } else {
        mx_hint(st, "mixrun %s --help lists its flags", c->name);
    }
    return code;
}

static mx_code add_word(mx_call *call, const char *word, int number, mx_status *st) {
    if (call->words == MX_WORDS_MAX) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "more than %d words on the command line", MX_WORDS_MAX);
    }
    call->word[call->words] = word;
    call->word_number[call->words++] = number;
    return MX_OK;
}

/* --name VALUE or --name=VALUE of a verb that knows no flag of that name but takes any: the word name=VALUE. */
static mx_code take_loose(mx_call *call, int argc, char **argv, int *i, mx_status *st) {
    const char *name = argv[*i] + 2;

    if (strchr(name, '=')) {
        return add_word(call, name, *i, st);
    }
    if (*i + 1 == argc) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--%s needs a value: --%s VALUE", name, name);
    }
    ++*i;
    return add_word(call, mx_arena_text(call->arena, "%s=%s", name, argv[*i]), *i, st);
}

/* argv[*i] is a flag: its index, or -1 when there is none such. Takes its value, which may be the next word. */
static mx_code take_flag(mx_call *call, int argc, char **argv, int *i, mx_status *st) {
    const char *given = argv[*i], *equals = strchr(given, '=');
    bool is_long = given[1] == '-';
    size_t length = is_long ? (equals ? (size_t)(equals - given - 2) : strlen(given + 2)) : 1;
    int n = 0;

    for (const mx_flag *f = call->command->flag; f && f->name; f++, n++) {
        bool hit = is_long ? same_name(given + 2, length, f->name) : f->letter == given[1] && given[2] == '\0';

        if (!hit) {
            continue;
        }
        if (!f->value) {
            if (is_long && equals) {
                return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--%s takes no value", f->name);
            }
            call->value[n] = "";
        } else if (is_long && equals) {
            call->value[n] = equals + 1;
        } else if (*i + 1 < argc) {
            call->value[n] = argv[++*i];
        } else {
            return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--%s needs a value: --%s %s", f->name, f->name, f->value);
        }
        return MX_OK;
    }
    if (call->command->loose && is_long && length > 0) {
        return take_loose(call, argc, argv, i, st);
    }
    return unknown_flag(call->command, given, st);
}

mx_code mx_call_read(mx_call *call, int argc, char **argv, int first, mx_status *st) {
    bool flags_over = false;

    for (int i = first; i < argc; i++) {
        if (!flags_over && strcmp(argv[i], "--") == 0) {
            flags_over = true;
        } else if (!flags_over && argv[i][0] == '-' && argv[i][1]) {
            MX_TRY(take_flag(call, argc, argv, &i, st));
        } else {
            MX_TRY(add_word(call, argv[i], i, st));
        }
    }
    if (call->words < call->command->least) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "usage: mixrun %s", call->command->usage);
        mx_hint(st, "mixrun %s --help tells more", call->command->name);
        return MX_E_USAGE;
    }
    if (call->command->most >= 0 && call->words > call->command->most) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "'%s' is one word too many; usage: mixrun %s",
                       call->word[call->command->most], call->command->usage);
    }
    return MX_OK;
}

const char *mx_call_flag(const mx_call *call, const char *name) {
    int n = 0;

    for (const mx_flag *f = call->command->flag; f && f->name; f++, n++) {
        if (strcmp(f->name, name) == 0) {
            return call->value[n];
        }
    }
    return NULL;
}

mx_code mx_call_number(const mx_call *call, const char *name, bool bytes, int64_t *ret, mx_status *st) {
    static const struct {
        const char *unit;
        int64_t factor;
    } units[] = { { "", 1 }, { "B", 1 }, { "KiB", 1024 }, { "MiB", 1 << 20 }, { "GiB", 1 << 30 },
                  { "K", 1000 }, { "M", 1000000 }, { "G", 1000000000 } };
    const char *text = mx_call_flag(call, name);
    char digits[32] = "";
    size_t n = 0;
    int64_t value;

    if (!text) {
        return MX_OK;
    }
    while (isdigit((unsigned char)text[n]) && n < 15) {
        digits[n] = text[n];
        n++;
    }
    for (size_t u = 0; u < (bytes ? sizeof units / sizeof units[0] : 1); u++) {
        if (n > 0 && strcmp(text + n, units[u].unit) == 0 && mx_text_to_int64(digits, &value)) {
            *ret = value * units[u].factor;
            return MX_OK;
        }
    }
    return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--%s: '%s' is not a %s", name, text, bytes ? "size such as 1500MiB or 4GiB" : "whole number");
}

void mx_command_help(const mx_command *c, FILE *out) {
    fprintf(out, "usage: mixrun %s\n\n%s\n", c->usage, c->help);
    if (c->flag && c->flag->name) {
        fprintf(out, "\nflags:\n");
    }
    for (const mx_flag *f = c->flag; f && f->name; f++) {
        char left[64];

        snprintf(left, sizeof left, "%c%c%s --%s%s%s", f->letter ? '-' : ' ', f->letter ? f->letter : ' ', f->letter ? "," : " ",
                 f->name, f->value ? " " : "", f->value ? f->value : "");
        fprintf(out, "  %-26s %s\n", left, f->help);
    }
}
