/* recipe_layers.h - a recipe's files and arguments, laid on each other; what recipe.c keeps to
 * itself. */
#ifndef RUNNER_RECIPE_LAYERS_H
#define RUNNER_RECIPE_LAYERS_H

#include "base/option.h"

/* The top level: the recipe's own words and the rooms' tables under them. */
extern const mx_option_table mx_recipe_table;

enum {
    MX_EXTENDS_MAX = 8, /* files that extend each other */
    /* the file named is layer MX_EXTENDS_MAX; over it what a sweep lays */
    MX_LAYER_SET = MX_EXTENDS_MAX + 1, MX_LAYER_VARIANT, MX_LAYER_AXES, MX_LAYER_MATCH,
    MX_LAYER_ARGUMENTS /* all arguments are one layer */
};

/* The files from the deepest `extends` up to `path`, merged, without their `extends` words.
 * Problems are added and what can be read is; NULL in *ret when a file's syntax is broken or it is
 * not there. MX_E_USAGE when `path` itself is not. */
MX_MUST_CHECK mx_code mx_layers_read(const char *path, mx_arena *arena, mx_node **ret,
                                     mx_problems *problems, mx_status *st);

/* For a file that is not there: MX_E_USAGE with these words, and the near name beside it, in configs or in configs/sweeps. */
mx_code mx_layers_missing(const char *path, const char *why, mx_arena *arena, mx_status *st);
/* `name` as a word of the file `path`: beside it, unless it begins with '/'. */
const char *mx_layers_beside(const char *path, const char *name, mx_arena *arena);

/* a.b=c, +a.b=c, ~a.b over `root`, which is not changed. Argument i is called "argument (first+i)";
 * NULL among them is left out. */
mx_node *mx_layers_override(const mx_node *root, const char *const *argument, int count, int first,
                            mx_arena *arena, mx_problems *problems);

#endif
