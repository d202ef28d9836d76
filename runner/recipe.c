/* recipe.c - the few words of the top level, and the rooms' tables nested under them. */
#include "runner/recipe.h"

#include "runner/device.h"
#include "runner/recipe_layers.h"

#include <math.h>
#include <string.h>

static const char *const precision_names[] = { "auto", "f32", "bf16", NULL };

static const mx_option_table adapter_table = {
    .name = "adapter",
    .size = sizeof(mx_chosen),
    .chooser = "method",
    .choose = mx_method_options,
    .choosers = mx_method_names,
};

/* clang-format off */
static const mx_option train_words[] = {
    MX_STREAM_WORDS(mx_train_options, data),
    MX_OPTIMIZER_WORDS(mx_train_options, optimizer),
    { "save_steps", MX_INT, offsetof(mx_train_options, save_steps), 0, "200", 0, 1e12, NULL, NULL, NULL,
      "optimizer steps between checkpoints, besides those at evaluations; 0: only those" },
    { "logging_steps", MX_INT, offsetof(mx_train_options, logging_steps), 0, "1", 1, 1e12, NULL, NULL, NULL,
      "optimizer steps between stored losses" },
    { "router_log_steps", MX_INT, offsetof(mx_train_options, router_log_steps), 0, "0", 0, 1e12, NULL, NULL, NULL,
      "optimizer steps whose router load is stored as one window; 0: a twentieth of the run" },
    { "gradient_checkpointing", MX_BOOL, offsetof(mx_train_options, gradient_checkpointing), 0, "false", 0, 0, NULL, NULL, NULL,
      "keep only what enters each layer and compute the rest again in the backward pass (arXiv:1604.06174): less memory, half as"
      " much work again, equal values" },
    { 0 },
};
static const mx_synonym train_synonyms[] = {
    MX_STREAM_SYNONYMS, MX_OPTIMIZER_SYNONYMS,
    { "log_every_n_steps", "logging_steps" }, { "save_interval", "save_steps" }, { "save_step", "save_steps" },
    { "activation_checkpointing", "gradient_checkpointing" }, { "recompute", "gradient_checkpointing" },
    { "use_gradient_checkpointing", "gradient_checkpointing" },
    { 0 },
};
/* clang-format on */

static void check_train(const void *config, const mx_node *map, mx_problems *problems) {
    const mx_train_options *t = config;

    mx_optimizer_options_check(&t->optimizer, map, problems);
}

static const mx_option_table train_table = {
    .name = "train",
    .option = train_words,
    .synonym = train_synonyms,
    .size = sizeof(mx_train_options),
    .check = check_train,
};

/* clang-format off */
static const mx_option words[] = {
    { "name", MX_TEXT, offsetof(mx_recipe, name), 0, NULL, 0, 0, NULL, NULL, NULL,
      "how runs of this recipe are called; default: the file's name" },
    { "base_model", MX_TEXT, offsetof(mx_recipe, base_model), MX_REQUIRED, NULL, 0, 0, NULL, NULL, NULL,
      "a name in configs/models, or a path to a folder (Hugging Face layout) or a .gguf file" },
    { "device", MX_TEXT, offsetof(mx_recipe, device), 0, "auto", 0, 0, NULL, NULL, NULL,
      "auto | cpu | cuda | cuda:N; auto: the GPU where there is one that can be used, else the processor" },
    { "precision", MX_ENUM, offsetof(mx_recipe, precision), MX_RESULT, "auto", 0, 0, precision_names, NULL, NULL,
      "frozen weights and activations; auto: bf16 on a GPU and where the processor has it. Adapters stay f32" },
    { "threads", MX_INT, offsetof(mx_recipe, threads), 0, "0", 0, 1024, NULL, NULL, NULL,
      "processor threads; 0: all" },
    { "seed", MX_INT, offsetof(mx_recipe, seed), 0, "42", 0, INFINITY, NULL, NULL, NULL,
      "starting values, order of questions, dropout; stands beside the recipe's hash, not in it" },
    { "db", MX_TEXT, offsetof(mx_recipe, db), 0, "mixrun.db", 0, 0, NULL, NULL, NULL,
      "the SQLite file everything measured goes to" },
    { "output_dir", MX_TEXT, offsetof(mx_recipe, output_dir), 0, "runs", 0, 0, NULL, NULL, NULL,
      "folder of adapters and checkpoints, one folder a run" },
    { "data_dir", MX_TEXT, offsetof(mx_recipe, data_dir), 0, NULL, 0, 0, NULL, NULL, NULL,
      "folder looked into for data before $MIXRUN_DATA and the cache" },
    { "adapter", MX_TABLE, offsetof(mx_recipe, adapter), 0, NULL, 0, 0, NULL, &adapter_table, NULL,
      "what is trained on the frozen base (mixrun methods)" },
    { "train", MX_TABLE, offsetof(mx_recipe, train), 0, NULL, 0, 0, NULL, &train_table, NULL,
      "on what, in which form, how long and how fast" },
    { "eval", MX_TABLE, offsetof(mx_recipe, eval), 0, NULL, 0, 0, NULL, &mx_eval_table, NULL,
      "what is scored, when, and by which protocols" },
    { 0 },
};
static const mx_synonym synonyms[] = {
    { "model_name_or_path", "base_model" }, { "model", "base_model" }, { "checkpoint_dir", "base_model" },
    { "dtype", "precision" }, { "bf16", "precision" }, { "fp16", "precision" }, { "random_seed", "seed" },
    { "out_dir", "output_dir" }, { "num_threads", "threads" }, { "database", "db" }, { "datasets", "train.tasks" },
    { "finetuning_type", "adapter.method" }, { "training_type", "adapter.method" },
    { 0 },
};
/* clang-format on */

static bool is_device(const char *text) {
    int64_t number;

    if (strcmp(text, "auto") == 0 || strcmp(text, "cpu") == 0 || strcmp(text, "cuda") == 0) {
        return true;
    }
    return strncmp(text, "cuda:", 5) == 0 && mx_text_to_int64(text + 5, &number) && number >= 0 && number < 64 &&
           text[5] != '+';
}

static void check_recipe(const void *config, const mx_node *map, mx_problems *problems) {
    const mx_recipe *r = config;
    const char *const not_empty[][2] = { { "db", r->db }, { "output_dir", r->output_dir }, { "name", r->name } };

    if (!is_device(r->device)) {
        mx_problem(problems, mx_option_place(map, "device"), NULL,
                   "device '%.100s' is none of: auto, cpu, cuda, cuda:N", r->device);
    }
    for (size_t i = 0; i < sizeof not_empty / sizeof not_empty[0]; i++) {
        if (not_empty[i][1] && !not_empty[i][1][0]) {
            mx_problem(problems, mx_option_place(map, not_empty[i][0]), NULL, "%s is empty", not_empty[i][0]);
        }
    }
    if (r->name && strchr(r->name, '/')) { /* it names the run's folder */
        mx_problem(problems, mx_option_place(map, "name"), NULL, "name '%.100s' must not hold a '/'", r->name);
    }
}

const mx_option_table mx_recipe_table = {
    .name = "the recipe",
    .option = words,
    .synonym = synonyms,
    .size = sizeof(mx_recipe),
    .check = check_recipe,
};

/* "configs/arc_obqa.yaml" -> "arc_obqa". */
static const char *name_of(const char *path, mx_arena *arena) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');

    return mx_arena_copy(arena, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
}

/* What `auto` means on this machine, so that it is hashed, printed and stored as that. */
static void resolve(mx_recipe *r) {
    if (r->precision == MX_PRECISION_WORD_AUTO) {
        bool has = mx_device_is_gpu(mx_device_of(r->device, NULL)) || mx_cpu_has_bf16();

        r->precision = has ? MX_PRECISION_WORD_BF16 : MX_PRECISION_WORD_F32;
    }
    mx_method_resolve(r->method, r->adapter.config);
}

mx_code mx_recipe_bind(const mx_node *root, const char *path, mx_arena *arena, mx_recipe **ret, mx_problems *problems,
                       mx_status *st) {
    mx_recipe *r = MX_TAKE(arena, mx_recipe, 1);

    mx_option_bind(&mx_recipe_table, root, r, arena, problems, &r->fallen);
    r->path = path;
    r->root = root;
    r->name = r->name ? r->name : name_of(path, arena);
    r->method = r->adapter.table ? mx_method_find(r->adapter.table->name) : NULL;
    *ret = r;
    if (problems->count) {
        return mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = path }, "the recipe is wrong");
    }
    resolve(r);
    return MX_OK;
}

mx_code mx_recipe_read(const char *path, const char *const *argument, int count, int first, mx_arena *arena,
                       mx_recipe **ret, mx_problems *problems, mx_status *st) {
    mx_node *root;

    *ret = NULL;
    path = mx_arena_copy(arena, path, strlen(path));
    MX_TRY(mx_layers_read(path, arena, &root, problems, st));
    if (!root) { /* broken syntax: what it leaves out cannot be told from what it says */
        return mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = path }, "the recipe cannot be read");
    }
    root = mx_layers_override(root, argument, count, first, arena, problems);
    return mx_recipe_bind(root, path, arena, ret, problems, st);
}

mx_code mx_recipe_parse(const char *text, const char *name, mx_arena *arena, mx_recipe **ret, mx_problems *problems,
                        mx_status *st) {
    mx_node *root;
    mx_code code = mx_yaml_parse(text, name, MX_EXTENDS_MAX, arena, &root, problems, st);

    *ret = NULL;
    if (!root) {
        return code;
    }
    return mx_recipe_bind(root, mx_arena_copy(arena, name, strlen(name)), arena, ret, problems, st);
}

mx_mark mx_recipe_place(const mx_recipe *r, const char *dotted_word) {
    const mx_node *map = r->root, *node = NULL;
    mx_mark at = { .file = r->path };

    while (map && *dotted_word) {
        size_t length = strcspn(dotted_word, ".");
        char word[64];

        snprintf(word, sizeof word, "%.*s", (int)length, dotted_word);
        node = mx_node_find(map, word);
        if (!node) {
            break;
        }
        dotted_word += length + (dotted_word[length] == '.');
        at = node->kind == MX_NODE_MAP && *dotted_word ? node->key_at : node->at;
        map = node;
    }
    return at;
}
