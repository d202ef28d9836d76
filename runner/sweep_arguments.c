/* sweep_arguments.c - what a command line says to a sweep: lists that become axes, seeds, a name; the rest is every variant's. */
#include "runner/sweep_parts.h"

#include <assert.h>
#include <string.h>

/* -------------------------------------------------------------------- seeds */

void mx_sweep_seed(mx_sweep_reader *r, const char *text, mx_mark at) {
    mx_sweep *w = r->sweep;
    int64_t seed;

    if (!mx_text_to_int64(text, &seed) || seed < 0) {
        mx_problem(r->problems, at, NULL, "seed '%.100s' must be a whole number, at least 0", text);
        return;
    }
    for (int32_t i = 0; i < w->seeds; i++) {
        if (w->seed[i] == seed) {
            mx_problem(r->problems, at, NULL, "seed %lld is listed twice", (long long)seed);
            return;
        }
    }
    assert(w->seeds < MX_MEMBERS_MAX); /* the file's list and the command line's are both counted before */
    w->seed[w->seeds++] = seed;
}

/* -------------------------------------------------------------------- lists */

/* The end of the value at `from`: a comma outside brackets and quotes, or the end of the text. */
static const char *value_end(const char *from) {
    char quote = 0;
    int depth = 0;

    for (; *from; from++) {
        if (quote) {
            from += *from == '\\' && quote == '"' && from[1];
            quote = *from == quote ? 0 : quote;
        } else if (*from == '"' || *from == '\'') {
            quote = *from;
        } else if (*from == '[' || *from == '{') {
            depth++;
        } else if (*from == ']' || *from == '}') {
            depth--;
        } else if (*from == ',' && depth <= 0) {
            break;
        }
    }
    return from;
}

const char *mx_sweep_list(const char *argument) {
    const char *equals = strchr(argument, '=');

    return equals && argument[0] != '~' && *value_end(equals + 1) == ',' ? equals + 1 : NULL;
}

static void whole_text(mx_node *node, const char *text) {
    node->at.text = text;
    node->key_at.text = text;
    for (mx_node *n = node->child; n; n = n->next) {
        whole_text(n, text);
    }
}

/* How many values an argument has, found before they are read: each costs a copy of the text before it. */
static int64_t count_values(const char *text) {
    int64_t count = 1;

    for (const char *end = value_end(strchr(text, '=') + 1); *end; end = value_end(end + 1)) {
        count++;
    }
    return count;
}

/* The values of an argument as a list's items, each with its place; NULL with a problem. */
static mx_node *argument_values(mx_sweep_reader *r, const char *text, const char *name, mx_mark whole) {
    const char *from = strchr(text, '=') + 1;
    mx_node *list = MX_TAKE(r->arena, mx_node, 1);

    *list = (mx_node){ .kind = MX_NODE_LIST, .at = whole, .layer = MX_LAYER_ARGUMENTS };
    for (;;) {
        const char *end = value_end(from);
        mx_node *value;

        if (from + strspn(from, " ") == end) {
            mx_mark at = whole;

            at.column = (uint32_t)(from - text) + 1;
            at.length = 1;
            mx_problem(r->problems, at, "quote a value that holds a comma", "a value is missing here");
            return NULL;
        }
        /* the text up to here: columns are those of the whole */
        if (mx_yaml_parse_value(mx_arena_copy(r->arena, text, (size_t)(end - text)), (size_t)(from - text), name,
                                MX_LAYER_ARGUMENTS, r->arena, &value, r->problems, NULL)) {
            return NULL;
        }
        whole_text(value, text);
        *mx_node_append(r->arena, list) = *value;
        if (!*end) {
            return list;
        }
        from = end + 1;
    }
}

/* The axis that walks this word alone; `*ret_zip`: it is walked with others. */
static mx_axis *axis_of(mx_sweep_reader *r, const char *word, bool *ret_zip) {
    for (int a = 0; a < r->axes; a++) {
        for (int w = 0; w < r->axis[a].words; w++) {
            if (strcmp(r->axis[a].word[w], word) == 0) {
                *ret_zip = r->axis[a].words > 1;
                return &r->axis[a];
            }
        }
    }
    return NULL;
}

/* A word that is walked, by its list here or by the file: then what is said here takes the file's place. */
static void walk_argument(mx_sweep_reader *r, const char *word, mx_mark at, const mx_node *values) {
    bool zip = false;
    mx_axis *axis = axis_of(r, word, &zip);

    if (axis && (zip || axis->layer == MX_LAYER_ARGUMENTS)) {
        mx_problem(r->problems, at, NULL, zip ? "'%s' is walked by the file's zip, together with others" : "'%s' was already given", word);
    } else if (axis) {
        *axis = (mx_axis){ .layer = MX_LAYER_ARGUMENTS };
        mx_sweep_axis_word(r, axis, word, at, values);
    } else if ((axis = mx_sweep_axis(r, at, MX_LAYER_ARGUMENTS))) {
        mx_sweep_axis_word(r, axis, word, at, values);
        r->axes += axis->words > 0;
    }
}

static void read_argument(mx_sweep_reader *r, int i) {
    const char *text = mx_arena_copy(r->arena, r->argument[i], strlen(r->argument[i])), *equals = strchr(text, '=');
    const char *name = mx_arena_text(r->arena, "argument %d", r->first + i), *word;
    mx_mark at = { .file = name, .text = text, .line = 1, .column = 1 };
    bool zip, seeds, lists = mx_sweep_list(text) != NULL;
    mx_node *values;

    if (!equals || text[0] == '~') {
        return;
    }
    at.length = (uint32_t)(equals - text);
    word = mx_arena_copy(r->arena, text, at.length);
    seeds = strcmp(word, "seed") == 0 || strcmp(word, "seeds") == 0;
    if (!seeds && strcmp(word, "name") != 0 && !lists && !axis_of(r, word, &zip)) {
        return; /* laid on every variant */
    }
    r->argument[i] = NULL;
    if (text[0] == '+') {
        mx_problem(r->problems, at, "leave the + out", "a list of values walks a word, new or not");
        return;
    }
    if (count_values(text) > MX_MEMBERS_MAX) {
        mx_problem(r->problems, at, NULL, "more than %d %s", MX_MEMBERS_MAX, seeds ? "seeds" : "values");
        return;
    }
    values = argument_values(r, text, name, at);
    if (!values) {
        return;
    }
    if (seeds) { /* in place of the file's */
        r->sweep->seeds = 0;
        for (mx_node *n = values->child; n; n = n->next) {
            mx_sweep_seed(r, n->kind == MX_NODE_TEXT ? n->text : "", n->at);
        }
    } else if (strcmp(word, "name") == 0) {
        if (lists || values->child->kind != MX_NODE_TEXT) {
            mx_problem(r->problems, at, NULL, "a sweep has one name");
        } else if (!mx_sweep_name_good(values->child->text)) {
            mx_problem(r->problems, values->child->at, NULL, "a sweep's name must be 1 to %d letters on one line, without '/'",
                       MX_SWEEP_NAME_MAX);
        } else {
            r->sweep->name = values->child->text;
        }
    } else if (mx_sweep_may_set(r, word, at, false)) {
        walk_argument(r, word, at, values);
    }
}

/* What the arguments say of the sweep itself; the others stay, for every variant. */
void mx_sweep_arguments(mx_sweep_reader *r, const mx_call *call) {
    mx_text all;

    mx_text_init(&all, 1 << 20);
    r->arguments = call->words - 1;
    r->first = call->words > 1 ? call->word_number[1] : 0;
    for (int i = 0; i < r->arguments; i++) {
        r->argument[i] = call->word[i + 1];
        mx_text_print(&all, "%s%s", i ? "\n" : "", r->argument[i]);
    }
    r->sweep->arguments = mx_arena_copy(r->arena, all.data ? all.data : "", all.length);
    mx_text_finish(&all);
    for (int i = 0; i < r->arguments; i++) {
        read_argument(r, i);
    }
}
