/* option.c - words into structs and back; what is told when they are wrong, to the column. */
#include "base/option.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- a small recipe of our own --- */

typedef struct item {
    const char *task;
    double weight;
    int64_t limit;
} item;
typedef struct train {
    mx_list tasks;
    int scheduler;
    int64_t warmup_steps;
    double rate;
    bool add_eos;
    uint64_t parts;
    mx_texts names;
} train;
typedef struct routed {
    int64_t rank, experts;
    double dropout;
    int strategy;
    int64_t top_k;
    double capacity;
    double z_loss;
} routed;
typedef struct plain {
    int64_t rank;
    double dropout;
} plain;
typedef struct root {
    const char *name, *dir;
    int64_t steps;
    double share;
    int precision;
    mx_chosen adapter;
    train train;
} root;

static const char *const schedulers[] = { "constant", "linear", "cosine", NULL };
static const char *const strategies[] = { "top_k", "switch", "top_p", NULL };
static const char *const parts[] = { "q_proj", "k_proj", "v_proj", NULL };
static const char *const precisions[] = { "f32", "bf16", NULL };

/* clang-format off */
static const mx_option item_words[] = {
    { "task", MX_TEXT, offsetof(item, task), MX_RESULT | MX_REQUIRED, NULL, 0, 0, NULL, NULL, NULL, "a task" },
    { "weight", MX_REAL, offsetof(item, weight), MX_RESULT | MX_OPEN_MIN, "1", 0, INFINITY, NULL, NULL, NULL, "passes" },
    { "limit", MX_INT, offsetof(item, limit), MX_RESULT, "0", 0, 1e9, NULL, NULL, NULL, "questions" },
    { 0 },
};
static const mx_option_table item_table = { .name = "train.tasks", .option = item_words, .size = sizeof(item), .bare = "task" };

static const mx_option train_words[] = {
    { "tasks", MX_LIST, offsetof(train, tasks), MX_RESULT | MX_REQUIRED, NULL, 1, 100, NULL, &item_table, NULL, "tasks" },
    { "lr_scheduler", MX_ENUM, offsetof(train, scheduler), MX_RESULT, "constant", 0, 0, schedulers, NULL, NULL, "shape" },
    { "warmup_steps", MX_INT, offsetof(train, warmup_steps), MX_RESULT, "0", 0, 1e9, NULL, NULL, "lr_scheduler: linear | cosine", "steps" },
    { "learning_rate", MX_REAL, offsetof(train, rate), MX_RESULT | MX_OPEN_MIN, "2e-4", 0, 10, NULL, NULL, NULL, "peak" },
    { "add_eos", MX_BOOL, offsetof(train, add_eos), MX_RESULT, "false", 0, 0, NULL, NULL, NULL, "close" },
    { "parts", MX_SET, offsetof(train, parts), MX_RESULT, "[q_proj, v_proj]", 1, 3, parts, NULL, NULL, "parts" },
    { "names", MX_TEXTS, offsetof(train, names), 0, "[a, 'b c']", 0, 0, NULL, NULL, NULL, "names" },
    { "packing_list", MX_TEXT, 0, MX_UNBUILT, NULL, 0, 0, NULL, NULL, NULL, "later" },
    { 0 },
};
static const mx_synonym train_synonyms[] = { { "per_device_train_batch_size", "batch_size" }, { "lr", "learning_rate" }, { 0 } };
static const mx_option_table train_table = { .name = "train", .option = train_words, .synonym = train_synonyms, .size = sizeof(train) };

static const mx_option routed_words[] = {
    { "lora_r", MX_INT, offsetof(routed, rank), MX_RESULT, "8", 1, 1024, NULL, NULL, NULL, "rank" },
    { "lora_dropout", MX_REAL, offsetof(routed, dropout), MX_RESULT | MX_OPEN_MAX, "0", 0, 1, NULL, NULL, NULL, "dropout" },
    { "num_experts", MX_INT, offsetof(routed, experts), MX_RESULT, "8", 1, 64, NULL, NULL, NULL, "experts" },
    { "routing_strategy", MX_ENUM, offsetof(routed, strategy), MX_RESULT, "top_k", 0, 0, strategies, NULL, NULL, "router" },
    { "top_k", MX_INT, offsetof(routed, top_k), MX_RESULT, "2", 1, 64, NULL, NULL, "routing_strategy: top_k", "slots" },
    { "capacity_factor", MX_REAL, offsetof(routed, capacity), MX_RESULT | MX_AUTO, "auto", 0, 100, NULL, NULL, "routing_strategy: switch", "capacity" },
    { "z_loss", MX_REAL, offsetof(routed, z_loss), MX_RESULT, "1e-3", 0, 1, NULL, NULL, "routing_strategy: switch", "z" },
    { 0 },
};
static void check_routed(const void *config, const mx_node *map, mx_problems *problems) {
    const routed *r = config;
    mx_mark at = mx_option_place(map, "top_k");

    if (r->strategy == 0 && r->top_k > r->experts) {
        mx_problem(problems, at, NULL, "top_k is %d, but num_experts (%s) is %d", (int)r->top_k,
                   mx_option_said(map, "num_experts", at), (int)r->experts);
    }
}
static const mx_synonym routed_synonyms[] = { { "num_local_experts", "num_experts" }, { "lora_rank", "lora_r" }, { 0 } };
static const mx_option_table routed_table = { .name = "mixlora", .option = routed_words, .synonym = routed_synonyms, .size = sizeof(routed), .check = check_routed };

static const mx_option plain_words[] = {
    { "lora_r", MX_INT, offsetof(plain, rank), MX_RESULT, "8", 1, 1024, NULL, NULL, NULL, "rank" },
    { "lora_dropout", MX_REAL, offsetof(plain, dropout), MX_RESULT | MX_OPEN_MAX, "0", 0, 1, NULL, NULL, NULL, "dropout" },
    { 0 },
};
static const mx_option_table plain_table = { .name = "lora", .option = plain_words, .size = sizeof(plain) };

static const char *const methods[] = { "lora", "mixlora", NULL };
static const mx_option_table *choose(const char *text) {
    return strcmp(text, "lora") == 0 ? &plain_table : strcmp(text, "mixlora") == 0 ? &routed_table : NULL;
}
static const char *const *choosers(void) {
    return methods;
}
static const mx_option_table adapter_table = { .name = "adapter", .size = sizeof(mx_chosen), .chooser = "method", .choose = choose, .choosers = choosers };

static const mx_option root_words[] = {
    { "name", MX_TEXT, offsetof(root, name), MX_REQUIRED, NULL, 0, 0, NULL, NULL, NULL, "how it is called" },
    { "dir", MX_TEXT, offsetof(root, dir), 0, NULL, 0, 0, NULL, NULL, NULL, "where" },
    { "steps", MX_INT, offsetof(root, steps), MX_RESULT | MX_AUTO, "auto", 1, 1e6, NULL, NULL, NULL, "how long" },
    { "share", MX_REAL, offsetof(root, share), MX_RESULT, "0.1", 0, 0, NULL, NULL, NULL, "any number" },
    { "precision", MX_ENUM, offsetof(root, precision), MX_RESULT | MX_AUTO, "auto", 0, 0, precisions, NULL, NULL, "how exact" },
    { "adapter", MX_TABLE, offsetof(root, adapter), 0, NULL, 0, 0, NULL, &adapter_table, NULL, "what is trained" },
    { "train", MX_TABLE, offsetof(root, train), 0, NULL, 0, 0, NULL, &train_table, NULL, "how" },
    { 0 },
};
/* clang-format on */
static const mx_option_table root_table = { .name = "the recipe", .option = root_words, .size = sizeof(root) };

typedef struct fixture {
    mx_arena arena;
    mx_problems problems;
    mx_fallen *fallen;
    mx_node *map;
    root config;
} fixture;

/* `under` may be NULL; it is the layer below `text`. */
static void read_layers(fixture *f, const char *under, const char *text) {
    mx_node *below;

    *f = (fixture){ 0 };
    mx_arena_init(&f->arena, 16 << 20);
    mx_problems_init(&f->problems);
    cr_assert_eq(mx_yaml_parse(text, "x.yaml", 1, &f->arena, &f->map, &f->problems, NULL), MX_OK, "%s", text);
    if (under) {
        cr_assert_eq(mx_yaml_parse(under, "under.yaml", 0, &f->arena, &below, &f->problems, NULL), MX_OK);
        f->map = mx_node_merge(&f->arena, below, f->map);
    }
    mx_option_bind(&root_table, f->map, &f->config, &f->arena, &f->problems, &f->fallen);
}

static void finish(fixture *f) {
    mx_problems_finish(&f->problems);
    mx_arena_finish(&f->arena);
}

#define REST "adapter: {method: mixlora}\ntrain: {tasks: [a]}\n"
#define GOOD "name: x\n" REST

Test(option, fills_in_every_default) {
    fixture f;
    const routed *r;

    read_layers(&f, NULL, GOOD);
    cr_assert_eq(f.problems.count, 0);
    r = f.config.adapter.config;
    cr_assert_eq(f.config.adapter.table, &routed_table);
    cr_assert(r->rank == 8 && r->experts == 8 && r->strategy == 0 && r->top_k == 2 && isnan(r->capacity));
    cr_assert(f.config.steps == MX_AUTO_INT && f.config.precision == -1 && f.config.share == 0.1 && !f.config.dir);
    cr_assert_eq(f.config.train.rate, 2e-4);
    cr_assert_eq(f.config.train.parts, 5);
    cr_assert_eq(f.config.train.names.count, 2);
    cr_assert_str_eq(f.config.train.names.item[1], "b c");
    finish(&f);
}

Test(option, reads_every_type) {
    fixture f;
    const item *tasks;

    read_layers(&f, NULL,
                "name: 'a: b'\ndir: 007\nsteps: 1e3\nshare: -.5\nprecision: bf16\nadapter: {method: lora, lora_r: +4}\n"
                "train:\n  tasks:\n  - a\n  - {task: b, weight: 1e-1}\n  lr_scheduler: cosine\n  warmup_steps: 10\n"
                "  learning_rate: 1e-4\n  add_eos: true\n  parts: [k_proj]\n  names: []\n");
    cr_assert_eq(f.problems.count, 0);
    cr_assert_str_eq(f.config.name, "a: b");
    cr_assert_str_eq(f.config.dir, "007");
    cr_assert(f.config.steps == 1000 && f.config.share == -0.5 && f.config.precision == 1);
    cr_assert_eq(((const plain *)f.config.adapter.config)->rank, 4);
    tasks = f.config.train.tasks.item;
    cr_assert_eq(f.config.train.tasks.count, 2);
    cr_assert_str_eq(tasks[0].task, "a");
    cr_assert(tasks[0].weight == 1 && tasks[1].weight == 0.1);
    cr_assert_eq(f.config.train.tasks.at[1].line, 10);
    cr_assert(f.config.train.scheduler == 2 && f.config.train.warmup_steps == 10 && f.config.train.add_eos);
    cr_assert(f.config.train.parts == 2 && f.config.train.names.count == 0);
    finish(&f);
}

Test(option, refuses_with_the_exact_place_words_and_hint) {
    static const struct {
        const char *text;
        uint32_t line, column, length;
        const char *words, *hint;
    } wrong[] = {
        { "name: x\nnmae: y\n" REST, 2, 1, 4, "unknown word 'nmae' in the recipe", "did you mean 'name'?" },
        { "name: x\nadapter:\n  method: mixlora\n  lora_rnak: 16\ntrain: {tasks: [a]}\n", 4, 3, 9, "unknown word 'lora_rnak' in adapter", "did you mean 'lora_r'?" },
        { "name: x\nadapter:\n  method: mixlora\n  routing_strategy: topk\ntrain: {tasks: [a]}\n", 4, 21, 4, "routing_strategy 'topk' is none of: top_k, switch, top_p", "did you mean 'top_k'?" },
        { "name: x\nadapter:\n  method: mixlora\n  num_experts: 8\n  top_k: 9\ntrain: {tasks: [a]}\n", 5, 10, 1, "top_k is 9, but num_experts (line 4) is 8", "" },
        { "name: x\nadapter:\n  method: mixlora\n  top_k: 9\ntrain: {tasks: [a]}\n", 4, 10, 1, "top_k is 9, but num_experts (the default) is 8", "" },
        { "name: x\nadapter: {method: lora}\ntrain:\n  tasks: [a]\n  warmup_steps: 5\n  lr_scheduler: constant\n", 5, 3, 12, "'warmup_steps' has no effect with lr_scheduler: constant (line 6)", "it is for lr_scheduler: linear | cosine" },
        { "name: x\nadapter: {method: lora}\ntrain:\n  tasks: [a]\n  warmup_steps: 5\n", 5, 3, 12, "'warmup_steps' has no effect with lr_scheduler: constant (the default)", "it is for lr_scheduler: linear | cosine" },
        { "name: x\nadapter: {method: lora, top_k: 2}\ntrain: {tasks: [a]}\n", 2, 25, 5, "'top_k' has no effect with method: lora (line 2)", "it belongs to method: mixlora" },
        { "name: x\nadapter: {method: lroa}\ntrain: {tasks: [a]}\n", 2, 19, 4, "method 'lroa' is none of: lora, mixlora", "did you mean 'lora'?" },
        { "name: x\nadapter: {lora_r: 4}\ntrain: {tasks: [a]}\n", 2, 1, 7, "method is missing in adapter", "one of: lora, mixlora" },
        { "adapter: {method: lora}\ntrain: {tasks: [a]}\n", 0, 0, 0, "name is missing in the recipe", "how it is called" },
        { "name: x\nadapter: {method: lora}\n", 0, 0, 0, "tasks is missing in train", "tasks" },
        { "name: x\nadapter: {method: lora}\ntrain: {lr: 1, tasks: [a]}\n", 3, 9, 2, "'lr' is called learning_rate here", "" },
        { "name: x\nadapter: {method: mixlora, num_local_experts: 4}\ntrain: {tasks: [a]}\n", 2, 28, 17, "'num_local_experts' is called num_experts here", "" },
        { "lora_r: 4\n" GOOD, 1, 1, 6, "unknown word 'lora_r' in the recipe", "it is a word of adapter" },
        { "lr: 4\n" GOOD, 1, 1, 2, "unknown word 'lr' in the recipe", "it is called learning_rate in train" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], steps: 3}\n", 3, 21, 5, "unknown word 'steps' in train", "it is a word of the recipe" },
        { "zzzzzz: 4\n" GOOD, 1, 1, 6, "unknown word 'zzzzzz' in the recipe", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], packing_list: 3}\n", 3, 21, 12, "'packing_list' is not built yet", "" },
        { "name: ''\n" REST, 1, 7, 2, "name is empty", "" },
        { "name:\n" REST, 1, 1, 4, "name has no value; it must be a text", "" },
        { "name: null\n" REST, 1, 7, 4, "name has no value; it must be a text", "" },
        { "name: [x]\n" REST, 1, 7, 1, "name is a list, but must be a text", "" },
        { "name: x\nadapter:\ntrain: {tasks: [a]}\n", 2, 1, 7, "adapter has no value; it must be words of its own, one on each line below it", "" },
        { "name: x\nadapter: lora\ntrain: {tasks: [a]}\n", 2, 10, 4, "adapter is 'lora', but must be words of its own, one on each line below it", "" },
        { "name: x\nadapter: {method: lora, lora_dropout: 1.2}\ntrain: {tasks: [a]}\n", 2, 39, 3, "lora_dropout is 1.2, but must be at least 0 and below 1", "" },
        { "name: x\nadapter: {method: lora, lora_dropout: 1}\ntrain: {tasks: [a]}\n", 2, 39, 1, "lora_dropout is 1, but must be at least 0 and below 1", "" },
        { "name: x\nadapter: {method: lora, lora_r: 0}\ntrain: {tasks: [a]}\n", 2, 33, 1, "lora_r is 0, but must be at least 1 and at most 1024", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [{task: a, weight: 0}]}\n", 3, 35, 1, "weight is 0, but must be above 0", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [{weight: 2}]}\n", 3, 17, 1, "task is missing in train.tasks", "a task" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [{task: a, wieght: 2}]}\n", 3, 27, 6, "unknown word 'wieght' in train.tasks", "did you mean 'weight'?" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [[a]]}\n", 3, 17, 1, "an item of tasks must be a name or {word: value, ...}", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: a}\n", 3, 16, 1, "tasks is 'a', but must be a list, like [a, b]", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: []}\n", 3, 16, 1, "tasks is an empty list", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], parts: [q_proj, q_proj]}\n", 3, 37, 6, "parts names 'q_proj' twice", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], parts: [w_proj]}\n", 3, 29, 6, "parts 'w_proj' is none of: q_proj, k_proj, v_proj", "did you mean 'q_proj'?" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], names: [{a: b}]}\n", 3, 29, 1, "an item of names must be a single text", "" },
        { "steps: 10.5\n" GOOD, 1, 8, 4, "steps is 10.5, but must be a whole number", "" },
        { "steps: '10'\n" GOOD, 1, 8, 4, "steps is a quoted text, but must be a whole number: take the quotes away", "" },
        { "share: \"1\"\n" GOOD, 1, 8, 3, "share is a quoted text, but must be a number: take the quotes away", "" },
        { "steps: 0x10\n" GOOD, 1, 8, 4, "steps is 0x10: write it as a decimal number", "" },
        { "steps: 010\n" GOOD, 1, 8, 3, "steps is 010: some read a number with a leading 0 as octal; write it without", "" },
        { "steps: 1_000\n" GOOD, 1, 8, 5, "steps is 1_000: write it without '_'", "" },
        { "steps: 1,000\n" GOOD, 1, 8, 5, "steps is 1,000: write it without ','", "" },
        { "share: .inf\n" GOOD, 1, 8, 4, "share is .inf: it must be a finite number", "" },
        { "share: -inf\n" GOOD, 1, 8, 4, "share is -inf: it must be a finite number", "" },
        { "share: nan\n" GOOD, 1, 8, 3, "share is nan: it must be a finite number", "" },
        { "share: 1e999\n" GOOD, 1, 8, 5, "share is '1e999', but must be a number", "" },
        { "steps: 99999999999999999999\n" GOOD, 1, 8, 20, "steps is 99999999999999999999, which is too large", "" },
        { "steps: many\n" GOOD, 1, 8, 4, "steps is 'many', but must be a whole number, or auto", "" },
        { "precision: fp16\n" GOOD, 1, 12, 4, "precision 'fp16' is none of: f32, bf16, auto", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], add_eos: yes}\n", 3, 30, 3, "add_eos is yes: write true or false", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], add_eos: Off}\n", 3, 30, 3, "add_eos is Off: write true or false", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], add_eos: 'true'}\n", 3, 30, 6, "add_eos is true in quotes: write true or false", "" },
        { "name: x\nadapter: {method: lora}\ntrain: {tasks: [a], add_eos: maybe}\n", 3, 30, 5, "add_eos is 'maybe', but must be true or false", "" },
    };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        fixture f;
        const mx_status *p;

        read_layers(&f, NULL, wrong[i].text);
        cr_assert_eq(f.problems.count, 1, "case %zu (%s) has %zu problems", i, wrong[i].words, f.problems.count);
        p = &f.problems.item[0];
        cr_expect_str_eq(p->text, wrong[i].words);
        cr_expect_str_eq(p->hint, wrong[i].hint, "case %zu (%s): hint '%s'", i, p->text, p->hint);
        cr_expect(p->at.line == wrong[i].line && p->at.column == wrong[i].column && p->at.length == wrong[i].length,
                  "case %zu: at %u:%u+%u, expected %u:%u+%u: %s", i, p->at.line, p->at.column, p->at.length, wrong[i].line,
                  wrong[i].column, wrong[i].length, p->text);
        finish(&f);
    }
}

Test(option, judges_no_word_by_a_preset_that_stands_in_for_a_wrong_one) {
    fixture f;

    read_layers(&f, NULL, "name: x\nadapter: {method: mixlora, num_experts: 1_6, top_k: 9}\ntrain: {tasks: [a]}\n");
    cr_assert_eq(f.problems.count, 1); /* not also "top_k is 9, but num_experts is 8" */
    finish(&f);
    read_layers(&f, NULL, "name: x\nadapter: {method: mixlora, routing_strategy: swtch, top_k: 2, z_loss: 0.1}\ntrain: {tasks: [a]}\n");
    cr_assert_eq(f.problems.count, 1); /* which of top_k and z_loss applies is not known */
    finish(&f);
}

Test(option, lets_older_words_fall_away_when_a_later_layer_changes_the_governing_word) {
    static const char under[] = "name: x\nadapter:\n  method: mixlora\n  lora_r: 4\n  top_k: 3\n  num_experts: 4\n"
                                "train: {tasks: [a], lr_scheduler: cosine, warmup_steps: 3}\n";
    fixture f;

    read_layers(&f, under, "adapter: {method: lora}\n");
    cr_assert_eq(f.problems.count, 0);
    cr_assert_eq(((const plain *)f.config.adapter.config)->rank, 4);
    cr_assert_str_eq(f.fallen->word->key, "top_k");
    cr_assert_str_eq(f.fallen->because, "adapter.method: lora");
    cr_assert_str_eq(f.fallen->next->word->key, "num_experts");
    cr_assert_null(f.fallen->next->next);
    finish(&f);

    read_layers(&f, under, "adapter: {routing_strategy: switch}\ntrain: {lr_scheduler: constant}\n");
    cr_assert_eq(f.problems.count, 0);
    cr_assert_str_eq(f.fallen->word->key, "top_k");
    cr_assert_str_eq(f.fallen->next->because, "train.lr_scheduler: constant");
    cr_assert_eq(((const routed *)f.config.adapter.config)->top_k, 2, "a word that does not apply has its preset");
    cr_assert_eq(f.config.train.warmup_steps, 0);
    finish(&f);

    read_layers(&f, under, "adapter: {method: lora, top_k: 2}\n"); /* in the same layer it is an error */
    cr_assert_eq(f.problems.count, 1);
    cr_assert_str_eq(f.problems.item[0].text, "'top_k' has no effect with method: lora (line 1)");
    cr_assert_str_eq(f.problems.item[0].at.file, "x.yaml");
    finish(&f);

    read_layers(&f, "name: x\nadapter: {method: lora}\ntrain: {tasks: [a]}\n", "adapter: {top_k: 2}\n"); /* in a later one too */
    cr_assert_eq(f.problems.count, 1);
    cr_assert_str_eq(f.problems.item[0].text, "'top_k' has no effect with method: lora (line 2 of under.yaml)");
    finish(&f);

    read_layers(&f, "name: x\nadapter: {method: mixlora, lora_rnak: 2}\ntrain: {tasks: [a]}\n", "adapter: {method: lora}\n");
    cr_assert_eq(f.problems.count, 1, "a slip of the pen does not fall away");
    finish(&f);
}

static char *printed(const root *config) {
    mx_text text;

    mx_text_init(&text, 1 << 20);
    mx_option_print(&root_table, config, 0, &text);
    return text.data;
}

Test(option, prints_what_reads_back_to_the_same) {
    static const char *const text[] = {
        GOOD,
        "name: 'say \"hi\"\\ tab\t: #'\ndir: \"auto\\nnull\"\nsteps: 12\nshare: 0.30000000000000004\nprecision: f32\n"
        "adapter: {method: mixlora, routing_strategy: switch, capacity_factor: 1.25, z_loss: 1e-300}\n"
        "train: {tasks: [a, {task: 'no', weight: 0.1, limit: 7}], lr_scheduler: linear, warmup_steps: 3, add_eos: true, names: ['', '~', \"x, y\", '[z]']}\n",
        "name: 'null'\ndir: ~\nadapter: {method: lora, lora_dropout: 0.05}\ntrain: {tasks: [b], learning_rate: 3.3333333333333335e-05, parts: [v_proj, q_proj]}\n",
    };

    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        fixture f, again;
        char *once, *twice;

        read_layers(&f, NULL, text[i]);
        cr_assert_eq(f.problems.count, 0);
        once = printed(&f.config);
        read_layers(&again, NULL, once);
        cr_assert_eq(again.problems.count, 0, "%s", once);
        twice = printed(&again.config);
        cr_assert_str_eq(once, twice);
        cr_assert_str_eq(f.config.name, again.config.name);
        cr_assert_eq(f.config.share, again.config.share);
        cr_assert_eq(f.config.train.rate, again.config.train.rate);
        cr_assert_eq(f.config.train.parts, again.config.train.parts);
        cr_assert_eq(f.config.train.names.count, again.config.train.names.count);
        for (size_t n = 0; n < f.config.train.names.count; n++) {
            cr_assert_str_eq(f.config.train.names.item[n], again.config.train.names.item[n]);
        }
        free(once);
        free(twice);
        finish(&f);
        finish(&again);
    }
}

Test(option, prints_every_default_of_the_words_that_apply) {
    fixture f;
    char *text;

    read_layers(&f, NULL, GOOD);
    text = printed(&f.config);
    cr_assert_str_eq(text, "name: x\ndir: null\nsteps: auto\nshare: 0.1\nprecision: auto\n"
                           "adapter:\n  method: mixlora\n  lora_r: 8\n  lora_dropout: 0\n  num_experts: 8\n"
                           "  routing_strategy: top_k\n  top_k: 2\n"
                           "train:\n  tasks:\n    - task: a\n      weight: 1\n      limit: 0\n  lr_scheduler: constant\n"
                           "  learning_rate: 0.0002\n  add_eos: false\n  parts: [q_proj, v_proj]\n  names: [a, \"b c\"]\n");
    free(text);
    finish(&f);
}

Test(option, lists_only_result_words_that_differ) {
    fixture f;
    mx_text text;

    read_layers(&f, NULL, "name: x\nsteps: 5\nadapter: {method: mixlora, lora_r: 8, num_experts: 4}\n"
                          "train: {tasks: [a, {task: b, weight: 2}], learning_rate: 0.0002, names: [q], add_eos: true}\n");
    cr_assert_eq(f.problems.count, 0);
    mx_text_init(&text, 1 << 20);
    mx_option_results(&root_table, &f.config, "", &text);
    cr_assert_str_eq(text.data, "steps=5\nadapter.method=mixlora\nadapter.num_experts=4\ntrain.tasks[0].task=a\n"
                                "train.tasks[1].task=b\ntrain.tasks[1].weight=2\ntrain.add_eos=true\n");
    mx_text_finish(&text);
    finish(&f);
}

Test(option, explains_every_word_once) {
    mx_text text;

    mx_text_init(&text, 1 << 20);
    mx_option_schema(&root_table, 0, &text);
    cr_assert_not_null(strstr(text.data, "name: text; required\n    how it is called\n"));
    cr_assert_not_null(strstr(text.data, "  method: one of lora | mixlora; required; changes results\n"));
    cr_assert_not_null(strstr(text.data, "  lora_r: whole number at least 1 and at most 1024; default 8; changes results\n"
                                         "      rank\n      with method: lora | mixlora\n"));
    cr_assert_not_null(strstr(text.data, "  top_k: whole number at least 1 and at most 64; default 2; changes results\n      slots\n"
                                         "      with method: mixlora\n      only with routing_strategy: top_k\n"));
    cr_assert_not_null(strstr(text.data, "packing_list: text; not built yet"));
    cr_assert_not_null(strstr(text.data, "    weight: number above 0; default 1; changes results\n"));
    cr_assert_null(strstr(strstr(text.data, "lora_r:") + 1, "lora_r:"), "told once");
    mx_text_finish(&text);
}
