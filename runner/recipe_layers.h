/* recipe_layers.h - a recipe's files and arguments, laid on each other; what recipe.c keeps to
 * itself. */
#ifndef RUNNER_RECIPE_LAYERS_H
#define RUNNER_RECIPE_LAYERS_H

#include "base/option.h"

/* The top level: the recipe's own words and the rooms' tables under them. */
extern const mx_option_table mx_recipe_table;

enum {
    MX_EXTENDS_MAX = 8, /* files that extend each other */
    MX_LAYER_ARGUMENTS =
        MX_EXTENDS_MAX + 1 /* all arguments are one layer; the file named is the one below */
};

/* The files from the deepest `extends` up to `path`, merged, without their `extends` words.
 * Problems are added and what can be read is; NULL in *ret when a file's syntax is broken or it is
 * not there. MX_E_USAGE when `path` itself is not. */
MX_MUST_CHECK mx_code mx_layers_read(const char *path, mx_arena *arena, mx_node **ret,
                                     mx_problems *problems, mx_status *st);

/* a.b=c, +a.b=c, ~a.b over `root`, which is not changed. Argument i is called "argument (first+i)".
 */
mx_node *mx_layers_override(const mx_node *root, const char *const *argument, int count, int first,
                            mx_arena *arena, mx_problems *problems);

#endif
