/* refusals.c - one table: a recipe or an argument, and the place, words and hint of what is told about it. */
#include "runner/recipe.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct refusal {
    const char *recipe;      /* x.yaml; good.yaml and a few others stand beside it */
    const char *argument[3]; /* from argument 2 on */
    const char *file;
    uint32_t line, column;
    const char *words, *hint;
} refusal;

#define HEAD "base_model: m\nadapter:\n  method: mixlora\n"
#define TAIL "train:\n  tasks: [a]\n"
#define GOOD HEAD TAIL

/* clang-format off */
static const refusal table[] = {
    /* files */
    { HEAD "  lora_rnak: 16\n" TAIL, { 0 }, "x.yaml", 4, 3, "unknown word 'lora_rnak' in adapter", "did you mean 'lora_r'?" },
    { HEAD "  routing_strategy: topk\n" TAIL, { 0 }, "x.yaml", 4, 21, "routing_strategy 'topk' is none of: top_k, switch, top_p", "did you mean 'top_k'?" },
    { HEAD "  lora_dropout: 1.2\n" TAIL, { 0 }, "x.yaml", 4, 17, "lora_dropout is 1.2, but must be at least 0 and below 1", "" },
    { GOOD "  warmup_steps: 5\n  lr_scheduler: constant\n", { 0 }, "x.yaml", 6, 3, "'warmup_steps' has no effect with lr_scheduler: constant (line 7)", "it is for lr_scheduler: linear | cosine" },
    { GOOD "  per_device_train_batch_size: 5\n", { 0 }, "x.yaml", 6, 3, "'per_device_train_batch_size' is called batch_size here", "" },
    { "seed: 1\n" GOOD "seed: 2\n", { 0 }, "x.yaml", 7, 1, "'seed' was already given at line 1", "" },
    { GOOD "  loss_on: all\n  objective: choice\n", { 0 }, "x.yaml", 6, 3, "'loss_on' has no effect with objective: choice (line 7)", "it is for objective: language_model" },
    { "model_name_or_path: m\n" GOOD, { 0 }, "x.yaml", 1, 1, "'model_name_or_path' is called base_model here", "" },
    { "load_in_4bit: true\n" GOOD, { 0 }, "x.yaml", 1, 1, "unknown word 'load_in_4bit' in the recipe", "" },
    { "lora_alpha: 4\n" GOOD, { 0 }, "x.yaml", 1, 1, "unknown word 'lora_alpha' in the recipe", "it is a word of adapter" },
    { "adapter: {method: lora}\n" TAIL, { 0 }, "x.yaml", 0, 0, "base_model is missing in the recipe", "a name in configs/models, or a path to a folder (Hugging Face layout) or a .gguf file" },
    { "base_model: m\n" TAIL, { 0 }, "x.yaml", 0, 0, "method is missing in adapter", "one of: base, lora, dora, mixlora, mixdora" },
    { HEAD "train: {num_epochs: 2}\n", { 0 }, "x.yaml", 4, 1, "tasks is missing in train", "what to train on: names of configs/tasks, or maps {task: piqa, weight: 2, limit: 1000}" },
    { "device: gpu\n" GOOD, { 0 }, "x.yaml", 1, 9, "device 'gpu' is none of: auto, cpu, cuda, cuda:N", "" },
    { "device: cuda:x\n" GOOD, { 0 }, "x.yaml", 1, 9, "device 'cuda:x' is none of: auto, cpu, cuda, cuda:N", "" },
    { GOOD "  activation_checkpointing: true\n", { 0 }, "x.yaml", 6, 3, "'activation_checkpointing' is called gradient_checkpointing here", "" },
    { GOOD "  gradient_checkpointing: 1\n", { 0 }, "x.yaml", 6, 27, "gradient_checkpointing is 1: write true or false", "" },
    { "seed: -1\n" GOOD, { 0 }, "x.yaml", 1, 7, "seed is -1, but must be at least 0", "" },
    { "db: ''\n" GOOD, { 0 }, "x.yaml", 1, 5, "db is empty", "" },
    { "name: a/b\n" GOOD, { 0 }, "x.yaml", 1, 7, "name 'a/b' must not hold a '/'", "" },
    { "base_model: m\nadapter: {method: lroa}\n" TAIL, { 0 }, "x.yaml", 2, 19, "method 'lroa' is none of: base, lora, dora, mixlora, mixdora", "did you mean 'lora'?" },
    { "base_model: m\nadapter: {method: lora, top_k: 2}\n" TAIL, { 0 }, "x.yaml", 2, 25, "'top_k' has no effect with method: lora (line 2)", "it belongs to method: mixlora, mixdora" },
    { GOOD "  add_eos: yes\n", { 0 }, "x.yaml", 6, 12, "add_eos is yes: write true or false", "" },
    { GOOD "  learning_rate: \"1e-4\"\n", { 0 }, "x.yaml", 6, 18, "learning_rate is a quoted text, but must be a number: take the quotes away", "" },
    { GOOD "\tnum_epochs: 2\n", { 0 }, "x.yaml", 6, 1, "a tab: YAML is indented with spaces", "" },
    /* extends */
    { "extends: [good.yaml]\n", { 0 }, "x.yaml", 1, 1, "extends must be the name of one file", "" },
    { "extends: goood.yaml\n", { 0 }, "x.yaml", 1, 10, "extends 'goood.yaml': cannot open: No such file or directory", "did you mean 'good.yaml'?" },
    { "extends: x.yaml\n", { 0 }, "x.yaml", 1, 10, "extends comes back to 'x.yaml'", "" },
    { "extends: loop.yaml\n", { 0 }, "loop.yaml", 1, 10, "extends comes back to './x.yaml'", "" },
    { "extends: good.yaml\nadapter: {top_k: 9}\n", { 0 }, "x.yaml", 2, 18, NULL, "" },
    { "extends: broken.yaml\n", { 0 }, "broken.yaml", 2, 1, "a ':' is missing: this is neither 'word: value' nor '- item'", "" },
    { "extends: plain.yaml\nadapter: {top_k: 2}\n", { 0 }, "x.yaml", 2, 11, "'top_k' has no effect with method: lora (line 2 of plain.yaml)", "it belongs to method: mixlora, mixdora" },
    /* arguments */
    { GOOD, { "adapter.lora_rnak=4" }, "argument 2", 1, 9, "unknown word 'lora_rnak' in adapter", "did you mean 'lora_r'?" },
    { GOOD, { "seed=1", "adapter.lora_r=0" }, "argument 3", 1, 16, "lora_r is 0, but must be at least 1 and at most 4096", "" },
    { GOOD, { "train.tasks=[a, {task: b, wieght: 2}]" }, "argument 2", 1, 27, "unknown word 'wieght' in train.tasks", "did you mean 'weight'?" },
    { GOOD, { "train.tasks=[a" }, "argument 2", 1, 15, "a ',' or ']' is missing (the '[' is at line 1)", "" },
    { GOOD, { "train.tasks[0].limit=3" }, "argument 2", 1, 7, "a list is replaced whole: word=[a, b]", "" },
    { GOOD, { "quick" }, "argument 2", 1, 1, "neither word=value, +word=value nor ~word", "" },
    { GOOD, { "=4" }, "argument 2", 1, 1, "a word is missing here", "" },
    { GOOD, { "adapter.=4" }, "argument 2", 1, 9, "a word is missing here", "" },
    { GOOD, { "seed=" }, "argument 2", 1, 1, "seed has no value; it must be a whole number", "" },
    { GOOD, { "seed.x=4" }, "argument 2", 1, 1, "seed is a map, but must be a whole number", "" },
    { GOOD, { "seed=1", "seed=2" }, "argument 3", 1, 1, "'seed' was already given in argument 2", "" },
    { GOOD, { "train={tasks: [b]}", "train=3" }, "argument 3", 1, 1, "'train' was already given in argument 2", "" },
    { GOOD, { "+adapter.method=lora" }, "argument 2", 1, 2, "'adapter.method' is already in the recipe (line 3 of x.yaml)", "leave the + out to change it" },
    { GOOD, { "~adapter.lora_r" }, "argument 2", 1, 2, "'adapter.lora_r' is not in the recipe", "" },
    { GOOD, { "~adapter.method=lora" }, "argument 2", 1, 16, "~word takes a word away and has no value", "" },
    { GOOD, { "~base_model" }, "x.yaml", 0, 0, "base_model is missing in the recipe", "a name in configs/models, or a path to a folder (Hugging Face layout) or a .gguf file" },
    { GOOD, { "extends=good.yaml" }, "argument 2", 1, 1, "extends is a file's word, not an argument's", "" },
    { GOOD, { "adapter.method=lora", "adapter.top_k=2" }, "argument 3", 1, 9, "'top_k' has no effect with method: lora (argument 2)", "it belongs to method: mixlora, mixdora" },
    { GOOD, { "seed=&a 1" }, "argument 2", 1, 6, "anchors (&a) are not read here: write the value out", "" },
};
/* clang-format on */

static void write_file(const char *name, const char *text) {
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(name, text, strlen(text), &st), MX_OK, "%s", st.text);
}

static void enter_folder(void) {
    char folder[] = "/tmp/mixrun-refusals-XXXXXX";

    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
    write_file("good.yaml", GOOD);
    write_file("plain.yaml", "base_model: m\nadapter: {method: lora}\n" TAIL);
    write_file("loop.yaml", "extends: ./x.yaml\n");
    write_file("broken.yaml", "name: x\nno colon\nseed: 1\n");
}

static void leave_folder(void) {
    char folder[4096];
    mx_status st = { 0 };

    cr_assert(getcwd(folder, sizeof folder) && chdir("/") == 0);
    cr_assert_eq(mx_folder_remove(folder, &st), MX_OK);
}

Test(refusals, each_tells_its_place_words_and_hint) {
    enter_folder();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const refusal *r = &table[i];
        mx_arena arena;
        mx_problems problems;
        mx_status st = { 0 };
        mx_recipe *recipe;
        mx_code code;
        int count = 0;

        while (count < 3 && r->argument[count]) {
            count++;
        }
        mx_arena_init(&arena, 64 << 20);
        mx_problems_init(&problems);
        write_file("x.yaml", r->recipe);
        code = mx_recipe_read("x.yaml", r->argument, count, 2, &arena, &recipe, &problems, &st);
        cr_assert_eq(code, MX_E_RECIPE, "case %zu: code %d (%s)", i, code, r->words ? r->words : "");
        cr_expect_eq(problems.count, 1, "case %zu (%s) has %zu problems", i, r->words ? r->words : "", problems.count);
        if (problems.kept) {
            const mx_status *p = &problems.item[0];

            cr_expect(!r->words || strcmp(p->text, r->words) == 0, "case %zu: '%s', expected '%s'", i, p->text, r->words);
            cr_expect_str_eq(p->hint, r->hint, "case %zu: hint '%s', expected '%s'", i, p->hint, r->hint);
            cr_expect_str_eq(p->at.file, r->file, "case %zu: in %s", i, p->at.file);
            cr_expect(p->at.line == r->line && p->at.column == r->column, "case %zu: at %u:%u, expected %u:%u: %s", i,
                      p->at.line, p->at.column, r->line, r->column, p->text);
        }
        mx_problems_finish(&problems);
        mx_arena_finish(&arena);
    }
    leave_folder();
}

Test(refusals, come_all_at_once_by_place_with_line_caret_and_count) {
    static const char recipe[] = "base_model: m\nadapter:\n  method: mixlora\n  lora_rnak: 16\n  num_experts: 8\n"
                                 "  top_k: 9\ntrain:\n  tasks: [a]\nseed: yes\nseed: 3\n";
    static const char expected[] =
        "x.yaml:4:3: error: unknown word 'lora_rnak' in adapter\n    4 |   lora_rnak: 16\n      |   ^~~~~~~~~\n"
        "   did you mean 'lora_r'?\n"
        "x.yaml:6:10: error: top_k is 9, but num_experts (line 5) is 8\n    6 |   top_k: 9\n      |          ^\n"
        "x.yaml:9:7: error: seed is 'yes', but must be a whole number\n    9 | seed: yes\n      |       ^~~\n"
        "x.yaml:10:1: error: 'seed' was already given at line 9\n   10 | seed: 3\n      | ^~~~\n"
        "4 errors; nothing was started\n";
    mx_arena arena;
    mx_problems problems;
    mx_recipe *got;
    char *out = NULL;
    size_t size;
    FILE *file = open_memstream(&out, &size);

    enter_folder();
    mx_arena_init(&arena, 64 << 20);
    mx_problems_init(&problems);
    write_file("x.yaml", recipe);
    cr_assert_eq(mx_recipe_read("x.yaml", NULL, 0, 2, &arena, &got, &problems, NULL), MX_E_RECIPE);
    mx_problems_print(&problems, file);
    fclose(file);
    cr_assert_str_eq(out, expected);
    free(out);
    mx_problems_finish(&problems);
    mx_arena_finish(&arena);
    leave_folder();
}
