/* recipe.c - layers, overrides, what falls away; every shipped recipe reads, prints, and reads back to the same run. */
#include "runner/recipe.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fixture {
    mx_arena arena;
    mx_problems problems;
    mx_status st;
    mx_code code;
    mx_recipe *recipe;
} fixture;

static void read_with(fixture *f, const char *path, const char *const *argument, int count) {
    *f = (fixture){ 0 };
    mx_arena_init(&f->arena, 64 << 20);
    mx_problems_init(&f->problems);
    f->code = mx_recipe_read(path, argument, count, 2, &f->arena, &f->recipe, &f->problems, &f->st);
}

static void finish(fixture *f) {
    mx_problems_finish(&f->problems);
    mx_arena_finish(&f->arena);
}

static const char *home(fixture *f) {
    return mx_path_home(&f->arena);
}

/* A folder of our own with a few files; the current directory of the test (each has a process of its own). */
static void write_file(const char *name, const char *text) {
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(name, text, strlen(text), &st), MX_OK, "%s", st.text);
}

static void enter_folder(void) {
    char folder[] = "/tmp/mixrun-recipe-XXXXXX";

    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
}

static void leave_folder(void) {
    char folder[4096];
    mx_status st = { 0 };

    cr_assert(getcwd(folder, sizeof folder) && chdir("/") == 0);
    cr_assert_eq(mx_folder_remove(folder, &st), MX_OK);
}

#define SMALL                                                                                                          \
    "base_model: m\nadapter:\n  method: mixlora\n  lora_r: 4\n  num_experts: 4\n  top_k: 3\ntrain:\n  tasks: [a, b]\n"

static void each_shipped(void (*visit)(const char *path)) {
    static const char *const folder[] = { "configs", "configs/paper" };
    mx_arena arena;
    int count = 0;

    mx_arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < 2; i++) {
        const char *path = mx_arena_text(&arena, "%s/%s", mx_path_home(&arena), folder[i]);
        DIR *dir = opendir(path);
        struct dirent *entry;

        cr_assert_not_null(dir, "%s", path);
        while ((entry = readdir(dir))) {
            if (strstr(entry->d_name, ".yaml")) {
                visit(mx_arena_text(&arena, "%s/%s", path, entry->d_name));
                count++;
            }
        }
        closedir(dir);
    }
    cr_assert_geq(count, 10);
    mx_arena_finish(&arena);
}

static void print_and_read_back(const char *path) {
    fixture f, again = { 0 };
    mx_text text, twice;
    char hash[MX_SHA256_TEXT], hash_again[MX_SHA256_TEXT];

    read_with(&f, path, NULL, 0);
    if (f.code) {
        mx_problems_print(&f.problems, stderr);
    }
    cr_assert_eq(f.code, MX_OK, "%s: %s", path, f.st.text);
    mx_text_init(&text, 1 << 20);
    mx_recipe_print(f.recipe, &text);

    mx_arena_init(&again.arena, 64 << 20);
    mx_problems_init(&again.problems);
    again.code = mx_recipe_parse(text.data, "again.yaml", &again.arena, &again.recipe, &again.problems, &again.st);
    if (again.code) {
        mx_problems_print(&again.problems, stderr);
    }
    cr_assert_eq(again.code, MX_OK, "%s", text.data);
    again.recipe->fallen = f.recipe->fallen; /* the one thing that is only in the comments */
    mx_text_init(&twice, 1 << 20);
    mx_recipe_print(again.recipe, &twice);
    cr_assert_str_eq(text.data, twice.data);
    mx_recipe_hash(f.recipe, hash);
    mx_recipe_hash(again.recipe, hash_again);
    cr_assert_str_eq(hash, hash_again);
    cr_assert_str_eq(f.recipe->name, again.recipe->name);
    mx_text_finish(&text);
    mx_text_finish(&twice);
    finish(&f);
    finish(&again);
}

Test(recipe, every_shipped_recipe_prints_and_reads_back_to_the_same_run) {
    each_shipped(print_and_read_back);
}

Test(recipe, the_storyboards_recipe_reads) {
    static const char text[] =
        "name: arc_obqa\nbase_model: smollm2-135m-instruct    # a file\nprecision: bf16\nseed: 42\n\nadapter:\n"
        "  method: mixlora                    # base | lora\n  lora_r: 16\n  lora_alpha: 32\n  lora_dropout: 0.05\n"
        "  target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]\n  num_experts: 8\n"
        "  routing_strategy: top_k            # top_k | switch | top_p\n  top_k: 2\n  router_aux_loss_coef: 1e-3\n\n"
        "train:\n  tasks: [arc_easy, arc_challenge, openbookqa]\n  num_epochs: 2\n  batch_size: 16\n"
        "  micro_batch_tokens: 2048\n  sequence_len: 512\n  learning_rate: 2e-4\n  lr_scheduler: constant\n"
        "  weight_decay: 0.01\n  max_grad_norm: 1.0\n  prompt: loglikelihood\n  objective: choice\n\n"
        "eval:\n  tasks: [arc_easy, arc_challenge, openbookqa]\n  split: validation\n"
        "  protocols: [loglikelihood, label_logits]\n  every_epochs: 1\n";
    fixture f = { 0 };

    mx_arena_init(&f.arena, 64 << 20);
    mx_problems_init(&f.problems);
    f.code = mx_recipe_parse(text, "storyboard", &f.arena, &f.recipe, &f.problems, &f.st);
    if (f.code) {
        mx_problems_print(&f.problems, stderr);
    }
    cr_assert_eq(f.code, MX_OK);
    cr_assert_str_eq(f.recipe->name, "arc_obqa");
    cr_assert_eq(f.recipe->train.optimizer.learning_rate, 2e-4);
    cr_assert_eq(f.recipe->train.data.tasks.count, 3);
    cr_assert_eq(f.recipe->eval.protocols, 3);
    cr_assert_eq(f.recipe->precision, MX_PRECISION_WORD_BF16);
    finish(&f);
}

Test(recipe, extends_merge_maps_and_replace_the_rest) {
    fixture f;
    const mx_task_item *task;

    enter_folder();
    cr_assert_eq(mx_folder_make("deep/er", &(mx_status){ 0 }), MX_OK);
    write_file("deep/base.yaml", SMALL "  num_epochs: 5\n  batch_size: 4\n");
    write_file("deep/er/mid.yaml", "extends: ../base.yaml\ntrain:\n  num_epochs: 3\n  tasks: [c]\n");
    write_file("top.yaml", "extends: deep/er/mid.yaml\nseed: 7\ntrain: {batch_size: 8}\n");
    read_with(&f, "top.yaml", NULL, 0);
    cr_assert_eq(f.code, MX_OK, "%s", f.problems.kept ? f.problems.item[0].text : f.st.text);
    cr_assert_str_eq(f.recipe->name, "top");
    cr_assert(f.recipe->seed == 7 && f.recipe->train.data.num_epochs == 3 && f.recipe->train.data.batch_size == 8);
    cr_assert_eq(f.recipe->train.data.tasks.count, 1);
    task = f.recipe->train.data.tasks.item;
    cr_assert_str_eq(task[0].task, "c");
    cr_assert_str_eq(mx_recipe_place(f.recipe, "train.num_epochs").file, "deep/er/mid.yaml");
    cr_assert_eq(mx_recipe_place(f.recipe, "train.num_epochs").line, 3);
    cr_assert_eq(mx_recipe_place(f.recipe, "train.batch_size").column, 21);
    cr_assert_eq(mx_recipe_place(f.recipe, "eval.split").line, 0, "not said anywhere: the file as a whole");
    finish(&f);
    leave_folder();
}

Test(recipe, arguments_override_add_and_remove) {
    static const char *const argument[] = { "adapter.lora_r=8", "+train.max_steps=9", "~adapter.top_k",
                                            "train.tasks=[x, {task: y, weight: 2}]", "seed=1", "name='a b'" };
    fixture f;
    mx_mark at;

    enter_folder();
    write_file("x.yaml", SMALL);
    read_with(&f, "x.yaml", argument, 6);
    cr_assert_eq(f.code, MX_OK, "%s", f.problems.kept ? f.problems.item[0].text : f.st.text);
    cr_assert(f.recipe->train.data.max_steps == 9 && f.recipe->seed == 1);
    cr_assert_str_eq(f.recipe->name, "a b");
    cr_assert_eq(((const mx_task_item *)f.recipe->train.data.tasks.item)[1].weight, 2);
    at = f.recipe->train.data.tasks.at[1];
    cr_assert_str_eq(at.file, "argument 5");
    cr_assert_eq(at.column, 17);
    finish(&f);
    leave_folder();
}

Test(recipe, words_of_another_method_fall_away_and_are_listed) {
    static const char *const argument[] = { "adapter.method=lora" };
    fixture f;
    mx_text text;

    enter_folder();
    write_file("x.yaml", SMALL);
    read_with(&f, "x.yaml", argument, 1);
    cr_assert_eq(f.code, MX_OK, "%s", f.problems.kept ? f.problems.item[0].text : f.st.text);
    cr_assert_str_eq(f.recipe->method->name, "lora");
    mx_text_init(&text, 1 << 20);
    mx_recipe_print(f.recipe, &text);
    cr_assert_eq(strncmp(text.data,
                         "# adapter.num_experts of x.yaml:5 fell away: it does not go with adapter.method: lora\n"
                         "# adapter.top_k of x.yaml:6 fell away: it does not go with adapter.method: lora\n"
                         "name: x\n",
                         strlen("# adapter.num_experts of x.yaml:5 fell away")),
                 0, "%s", text.data);
    cr_assert_not_null(strstr(text.data, "# adapter.top_k of x.yaml:6 fell away: it does not go with adapter.method: lora\n"));
    cr_assert_null(strstr(text.data, "  top_k:"));
    mx_text_finish(&text);
    finish(&f);
    leave_folder();
}

Test(recipe, taking_a_governing_word_away_frees_its_dependents_too) {
    static const char *const argument[] = { "~train.lr_scheduler" };
    fixture f;

    enter_folder();
    write_file("x.yaml", SMALL "  lr_scheduler: cosine\n  warmup_steps: 10\n");
    read_with(&f, "x.yaml", argument, 1); /* back to constant, which knows no warm-up */
    cr_assert_eq(f.code, MX_OK, "%s", f.problems.kept ? f.problems.item[0].text : f.st.text);
    cr_assert_str_eq(f.recipe->fallen->word->key, "warmup_steps");
    cr_assert_eq(f.recipe->train.optimizer.warmup_steps, 0);
    finish(&f);
    leave_folder();
}

Test(recipe, a_file_that_is_not_there_suggests_a_near_name) {
    fixture f;

    enter_folder();
    write_file("quick.yaml", SMALL);
    read_with(&f, "quikc.yaml", NULL, 0);
    cr_assert_eq(f.code, MX_E_USAGE);
    cr_assert_str_eq(f.st.hint, "did you mean 'quick.yaml'?");
    cr_assert_null(f.recipe);
    finish(&f);
    read_with(&f, "arc_obqa", NULL, 0);
    cr_assert_eq(f.code, MX_E_USAGE);
    cr_assert_str_eq(f.st.hint, mx_arena_text(&f.arena, "did you mean '%s/configs/arc_obqa.yaml'?", home(&f)));
    finish(&f);
    leave_folder();
}

Test(recipe, the_schema_tells_every_word_with_its_help) {
    mx_text text;

    mx_text_init(&text, 1 << 20);
    mx_recipe_schema(&text);
    for (const char *line = text.data; (line = strchr(line, '\n')); line++) {
        cr_assert_neq(line[1], '\n', "no word without help");
    }
    cr_assert_not_null(strstr(text.data, "\n  learning_rate: number above 0"));
    cr_assert_not_null(strstr(text.data, "\n  method: one of base | lora | dora | mixlora | mixdora; required"));
    mx_text_finish(&text);
}
