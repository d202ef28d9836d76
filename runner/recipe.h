/* recipe.h - one YAML file and its layers become one struct.
 *
 * Layers: what `extends` names (deepest first), the file, then command-line overrides a.b=c, +a.b=c, ~a.b. Every problem of
 * every layer is told in one pass with its place. The recipe owns no words but the few of its own level: it nests the
 * rooms' tables. */
#ifndef RUNNER_RECIPE_H
#define RUNNER_RECIPE_H

#include "base/file.h"
#include "base/option.h"
#include "datasets/options.h"
#include "eval/options.h"
#include "kernels/backend.h"
#include "model/methods/method.h"
#include "model/train_options.h"

/* Raised by hand whenever the same words mean other results. */
enum { MX_RESULT_VERSION = 1 };

typedef struct mx_train_options {
    mx_stream_words data;
    mx_optimizer_options optimizer;
    int64_t save_steps, logging_steps, router_log_steps; /* 0: see their help */
    bool gradient_checkpointing;
} mx_train_options;

typedef enum mx_precision_word { MX_PRECISION_WORD_AUTO, MX_PRECISION_WORD_F32, MX_PRECISION_WORD_BF16 } mx_precision_word;

typedef struct mx_recipe {
    const char *name;
    const char *base_model;
    const char *device; /* auto | cpu | cuda | cuda:n */
    int precision; /* mx_precision_word; never auto once it is read */
    int64_t threads, seed;
    const char *db, *output_dir, *data_dir;
    mx_chosen adapter; /* table: the method's; config: its words */
    mx_train_options train;
    mx_eval_options eval;

    /* not words */
    const char *path;        /* as given */
    const mx_node *root;     /* merged map, for places */
    const mx_method *method; /* adapter.table's */
    mx_fallen *fallen;
} mx_recipe;

/* Reads path with its layers and `count` arguments (argument i is called "argument N" by its number in argv: `first`+i).
 * On MX_E_RECIPE the problems are in `problems`. Everything lives in `arena`. Task names are not checked here
 * (cmd validate reads the tasks). */
MX_MUST_CHECK mx_code mx_recipe_read(const char *path, const char *const *argument, int count, int first, mx_arena *arena,
                                     mx_recipe **ret, mx_problems *problems, mx_status *st);
/* From text: what a stored run was (mx_run_row.recipe). */
MX_MUST_CHECK mx_code mx_recipe_parse(const char *text, const char *name, mx_arena *arena, mx_recipe **ret,
                                      mx_problems *problems, mx_status *st);
/* From a merged map, which is kept. *ret is what could be bound, even with MX_E_RECIPE. */
MX_MUST_CHECK mx_code mx_recipe_bind(const mx_node *root, const char *path, mx_arena *arena, mx_recipe **ret, mx_problems *problems,
                                     mx_status *st);
/* The place of train.x, adapter.x, ... for errors found later. */
mx_mark mx_recipe_place(const mx_recipe *r, const char *dotted_word);

/* YAML with every default spelled out; reading it back gives the same recipe. What fell away stands on top as comments. */
void mx_recipe_print(const mx_recipe *r, mx_text *out);
void mx_recipe_schema(mx_text *out);
/* "path.word=value" lines of result-bearing words that differ from their defaults. */
void mx_recipe_results(const mx_recipe *r, mx_text *out);
/* sha256 over those lines and MX_RESULT_VERSION. Not in it: seed, base, data and task definitions stand beside it. */
void mx_recipe_hash(const mx_recipe *r, char ret_hex[MX_SHA256_TEXT]);

#endif
