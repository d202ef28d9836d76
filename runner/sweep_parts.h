/* sweep_parts.h - what the files of the sweep's reader share; nothing here is for other files. */
#ifndef RUNNER_SWEEP_PARTS_H
#define RUNNER_SWEEP_PARTS_H

#include "runner/recipe_layers.h"
#include "runner/sweep.h"

enum { MX_AXES_MAX = 32, MX_SWEEP_NAME_MAX = 120 };

/* A variant as it is written, before axes multiply it. */
typedef struct mx_draft {
    const char *name; /* NULL: nameless */
    mx_mark at;
    bool included;       /* the file's axes do not multiply it */
    const mx_node *root; /* recipe, set, its own set; NULL: could not be read */
    mx_match match;
    const char *match_to;
    mx_mark match_at;
} mx_draft;

/* Words that walk together: value[w * count + i] is word w at position i. One word is a plain axis. */
typedef struct mx_axis {
    const char **word; /* dotted */
    mx_mark *at;
    const mx_node **value;
    int words;
    int64_t count;
    int layer; /* MX_LAYER_AXES, or MX_LAYER_ARGUMENTS for lists of the command line */
} mx_axis;

/* What `exclude` says, one item. */
typedef struct mx_exclusion {
    const char *name; /* of a variant; NULL: any */
    const mx_node *words; /* an overlay */
    mx_mark at;
    bool used;
} mx_exclusion;

typedef struct mx_sweep_reader {
    mx_arena *arena;
    mx_problems *problems;
    mx_sweep *sweep;
    const char *path;

    /* of the file */
    const char *recipe;   /* path of the base recipe */
    mx_recipe *base;      /* with set and arguments, read quietly: its db, seed, name */
    mx_draft *draft;
    int drafts;
    mx_axis axis[MX_AXES_MAX];
    int axes;
    mx_exclusion *exclusion;
    int exclusions;
    const char *baseline;
    mx_mark baseline_at, protocol_at, metric_at;
    int protocol, metric; /* -1: not said */

    /* of the command line; NULL where an argument is an axis, the seeds or the name */
    const char *argument[MX_WORDS_MAX];
    int arguments, first;
} mx_sweep_reader;

/* A problem that was told before is not told again. */
void mx_sweep_tell(mx_problems *to, const mx_problems *from);

/* sweep_words.c: the file's words and the arguments into the reader. MX_E_RECIPE when nothing can be expanded. */
MX_MUST_CHECK mx_code mx_sweep_words(mx_sweep_reader *r, const mx_call *call, mx_status *st);
/* Lays `value` at the dotted `word` into the map, in that layer. */
void mx_sweep_lay(mx_arena *arena, mx_problems *problems, mx_node *map, const char *word, mx_mark at, const mx_node *value,
                  int layer);
/* Is the word the recipe's, and not the sweep's own business (name, seed, db, extends)? Else a problem. `in_set`: of the map that
 * holds for every variant. */
bool mx_sweep_may_set(mx_sweep_reader *r, const char *word, mx_mark at, bool in_set);
/* May a sweep or a variant be called so? Tables, folders and command lines name them. */
bool mx_sweep_name_good(const char *name);
/* A new axis, which counts once r->axes does; NULL with a problem. One more word of an axis, with its values. */
mx_axis *mx_sweep_axis(mx_sweep_reader *r, mx_mark at, int layer);
void mx_sweep_axis_word(mx_sweep_reader *r, mx_axis *axis, const char *word, mx_mark at, const mx_node *list);

/* sweep_arguments.c: what the arguments say of the sweep itself, after the file's axes and seeds; the others stay, for every
 * variant. */
void mx_sweep_arguments(mx_sweep_reader *r, const mx_call *call);
/* One more seed; a problem when it is wrong or there already. */
void mx_sweep_seed(mx_sweep_reader *r, const char *text, mx_mark at);
/* "word=a,b": where its values begin; NULL: it lists nothing. */
const char *mx_sweep_list(const char *argument);

#endif
