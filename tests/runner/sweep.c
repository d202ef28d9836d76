/* A sweep's file: what becomes of it, where it is wrong, and what is solved in it. Running is tests/runner/sweep_run.c. */
#include "runner/sweep.h"
#include "tests/runner/support.h"

#include <dirent.h>
#include <math.h>

typedef struct fixture {
    scratch x;
    mx_problems problems;
    mx_call call;
    mx_status st;
    mx_code code;
    mx_sweep *sweep;
} fixture;

/* In a folder of its own, which is the current one: each test is a process. */
static void enter(fixture *f) {
    memset(f, 0, sizeof *f);
    f->x = scratch_open();
    mx_problems_init(&f->problems);
    cr_assert_eq(chdir(f->x.folder), 0);
}

static void leave(fixture *f) {
    cr_assert_eq(chdir("/"), 0);
    mx_problems_finish(&f->problems);
    scratch_close(&f->x);
}

static void put(const char *name, const char *text) {
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(name, text, strlen(text), &st), MX_OK, "%s", st.text);
}

/* Words of the command line, parted by spaces; the file first. */
static mx_code read_words(fixture *f, const char *words) {
    char *save = NULL, *copy = mx_arena_copy(&f->x.arena, words, strlen(words));

    mx_problems_finish(&f->problems);
    f->st = (mx_status){ 0 };
    f->call = (mx_call){ .arena = &f->x.arena, .problems = &f->problems };
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        f->call.word_number[f->call.words] = f->call.words + 2;
        f->call.word[f->call.words++] = w;
    }
    return f->code = mx_sweep_read(&f->call, &f->sweep, &f->st);
}

static void must_read(fixture *f, const char *words) {
    if (read_words(f, words)) {
        mx_problems_print(&f->problems, stderr);
    }
    cr_assert_eq(f->code, MX_OK, "%s: %s", words, f->st.text);
}

static void must_measure(fixture *f) {
    cr_assert_eq(mx_sweep_measure(f->sweep, 0, false, &f->x.arena, NULL, &f->st), MX_OK, "%s", f->st.text);
}

static mx_sweep_variant *variant(fixture *f, const char *name) {
    for (int32_t i = 0; i < f->sweep->variants; i++) {
        if (strcmp(f->sweep->variant[i].name, name) == 0) {
            return &f->sweep->variant[i];
        }
    }
    cr_assert_fail("there is no variant '%s'", name);
    return NULL;
}

static int64_t rank(fixture *f, const char *name) {
    const mx_recipe *r = variant(f, name)->recipe;

    return *(int64_t *)mx_method_word(r->method, r->adapter.config, "lora_r");
}

static double alpha(fixture *f, const char *name) {
    const mx_recipe *r = variant(f, name)->recipe;

    return *(double *)mx_method_word(r->method, r->adapter.config, "lora_alpha");
}

/* All names, parted by |. */
static const char *names(fixture *f) {
    mx_text all;
    const char *text;

    mx_text_init(&all, 1 << 20);
    for (int32_t i = 0; i < f->sweep->variants; i++) {
        mx_text_print(&all, "%s%s", i ? "|" : "", f->sweep->variant[i].name);
    }
    text = mx_arena_copy(&f->x.arena, all.data ? all.data : "", all.length);
    mx_text_finish(&all);
    return text;
}

static const char base_text[] = "base_model: ./tiny\nprecision: f32\nthreads: 1\nseed: 5\ndb: here.db\nadapter:\n  method: mixlora\n"
                                "  lora_r: 4\n  num_experts: 4\n  top_k: 2\ntrain:\n  tasks: [{task: sample_arc, limit: 8}]\n"
                                "  batch_size: 4\n  micro_batch_tokens: 512\neval:\n  limit: 4\n";

/* -------------------------------------------------------------------- the shipped ones */

Test(sweep, every_shipped_sweep_reads) {
    fixture f;
    DIR *dir;
    struct dirent *entry;
    int count = 0;

    enter(&f);
    dir = opendir(mx_arena_text(&f.x.arena, "%s/configs/sweeps", mx_path_home(&f.x.arena)));
    cr_assert_not_null(dir);
    while ((entry = readdir(dir))) {
        if (strstr(entry->d_name, ".yaml")) {
            must_read(&f, mx_arena_text(&f.x.arena, "%s/configs/sweeps/%s", mx_path_home(&f.x.arena), entry->d_name));
            cr_assert(f.sweep->variants >= 3 && f.sweep->members >= f.sweep->variants, "%s", entry->d_name);
            cr_assert(strcmp(entry->d_name, "methods_lr.yaml") == 0 || (f.sweep->seeds >= 3 && f.sweep->baseline[0]), "%s", entry->d_name);
            count++;
        }
    }
    closedir(dir);
    cr_assert_geq(count, 8);
    leave(&f);
}

/* A variant's recipe as text, evened out where the two files may differ: rates, what is held out, and where it is judged. */
static const char *meaning(fixture *f, const mx_sweep_variant *v) {
    mx_recipe r = *v->recipe;
    mx_task_item *item = MX_TAKE(&f->x.arena, mx_task_item, r.train.data.tasks.count);
    const char *text;
    mx_text out;

    memcpy(item, r.train.data.tasks.item, r.train.data.tasks.count * sizeof *item);
    for (size_t i = 0; i < r.train.data.tasks.count; i++) {
        item[i].hold_out = 0;
    }
    r.train.data.tasks.item = item;
    r.train.optimizer.learning_rate = 1;
    r.eval.split = MX_EVAL_VALIDATION;
    r.name = "any";
    r.seed = 0;
    mx_text_init(&out, 1 << 20);
    mx_recipe_print(&r, &out);
    text = mx_arena_copy(&f->x.arena, out.data, out.length);
    mx_text_finish(&out);
    return text;
}

/* The learning rates are each variant's own; everything else of a variant must be the same in both files. */
Test(sweep, the_tuning_sweep_tunes_the_variants_of_methods) {
    fixture f;
    const mx_sweep *methods, *rates;
    int found[7] = { 0 };

    enter(&f);
    must_read(&f, mx_arena_text(&f.x.arena, "%s/configs/sweeps/methods.yaml", mx_path_home(&f.x.arena)));
    methods = f.sweep;
    cr_assert(methods->variants == 7 && methods->members == 21);
    cr_assert_str_eq(methods->baseline, "lora matched");
    must_read(&f, mx_arena_text(&f.x.arena, "%s/configs/sweeps/methods_lr.yaml", mx_path_home(&f.x.arena)));
    rates = f.sweep;
    cr_assert_eq(rates->variants, 7 * 3);
    for (int32_t i = 0; i < rates->variants; i++) { /* the rate walks inside */
        const mx_sweep_variant *tried = &rates->variant[i], *v = &methods->variant[i / 3];

        cr_assert_str_eq(tried->name, mx_arena_text(&f.x.arena, "%s learning_rate %s", v->name, (const char *[]){ "1e-4", "3e-4", "1e-3" }[i % 3]));
        cr_assert_str_eq(meaning(&f, tried), meaning(&f, v), "%s", tried->name);
        cr_assert_eq(tried->match, v->match, "%s", tried->name);
        cr_assert_eq(tried->match_to, v->match_to < 0 ? -1 : 3 * v->match_to + i % 3, "%s", tried->name);
        cr_assert(tried->recipe->eval.split == MX_EVAL_HELD_OUT && v->recipe->eval.split == MX_EVAL_VALIDATION);
        found[i / 3] += tried->recipe->train.optimizer.learning_rate == v->recipe->train.optimizer.learning_rate;
    }
    for (int i = 0; i < 7; i++) {
        cr_assert_eq(found[i], 1, "the rate of '%s' is one of those tried", methods->variant[i].name);
    }
    leave(&f);
}

/* -------------------------------------------------------------------- what becomes of a file */

Test(sweep, variants_times_axes_times_seeds) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    put("s.yaml", "recipe: base.yaml\nvariants:\n  - name: mix\n  - {name: lora, set: {adapter.method: lora}}\n"
                  "grid:\n  adapter: {lora_r: [2, 8]}\n  train.learning_rate: [1e-4, 1e-3]\n"
                  "zip: {adapter.lora_alpha: [4, 16], train.num_epochs: [1, 2]}\n"
                  "include:\n  - {name: big, set: {adapter.num_experts: 16}}\nseeds: [3, 1]\nbaseline: big\n");
    must_read(&f, "s.yaml");
    cr_assert_str_eq(f.sweep->name, "s");
    cr_assert_str_eq(f.sweep->db, "here.db");
    cr_assert_str_eq(f.sweep->protocol, "loglikelihood");
    cr_assert_str_eq(f.sweep->metric, "acc_norm");
    cr_assert_eq(f.sweep->variants, 2 * 2 * 2 * 2 + 1);
    cr_assert_eq(f.sweep->members, 17 * 2);
    cr_assert_eq(strncmp(names(&f),
                         "mix lora_r 2 learning_rate 1e-4 lora_alpha 4 num_epochs 1|mix lora_r 2 learning_rate 1e-4 lora_alpha 16 num_epochs 2|"
                         "mix lora_r 2 learning_rate 1e-3 lora_alpha 4 num_epochs 1|", 150), 0, "%s", names(&f));
    cr_assert(rank(&f, "lora lora_r 8 learning_rate 1e-4 lora_alpha 16 num_epochs 2") == 8);
    cr_assert_eq(variant(&f, "lora lora_r 8 learning_rate 1e-4 lora_alpha 16 num_epochs 2")->recipe->train.data.num_epochs, 2);
    cr_assert_eq(rank(&f, "big"), 4, "the file's axes do not multiply what is included");
    /* seeds outside, variants inside: a sweep that is stopped has whole comparisons */
    for (int64_t m = 0; m < f.sweep->members; m++) {
        cr_assert_eq(f.sweep->member[m].position, m + 1);
        cr_assert_eq(f.sweep->member[m].variant, m % 17);
        cr_assert_eq(f.sweep->member[m].seed, m < 17 ? 3 : 1);
    }
    leave(&f);
}

Test(sweep, a_member_runs_under_its_variants_name_with_its_seed) {
    fixture f;
    mx_recipe *r, *again;
    mx_text text;
    char hash[MX_SHA256_TEXT];
    mx_problems problems;

    enter(&f);
    put("base.yaml", base_text);
    tiny_base("tiny");
    put("s.yaml", "recipe: base.yaml\nset: {db: other.db}\nvariants: [{name: a}, {name: b, set: {adapter.lora_r: 2}}]\nseeds: [7, 9]\n");
    must_read(&f, "s.yaml");
    must_measure(&f);
    r = mx_sweep_recipe(f.sweep, &f.sweep->member[3], &f.x.arena);
    cr_assert(strcmp(r->name, "b") == 0 && r->seed == 9 && strcmp(r->db, "other.db") == 0);
    mx_text_init(&text, 1 << 20);
    mx_recipe_print(r, &text);
    mx_problems_init(&problems);
    cr_assert_eq(mx_recipe_parse(text.data, "again", &f.x.arena, &again, &problems, &f.st), MX_OK);
    mx_recipe_hash(again, hash);
    cr_assert_str_eq(hash, variant(&f, "b")->recipe_hash, "printed, the recipe is still the member");
    mx_text_finish(&text);
    mx_problems_finish(&problems);
    leave(&f);
}

Test(sweep, layers_lie_as_they_are_named) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    put("other.yaml", "extends: base.yaml\nadapter: {lora_r: 5, lora_alpha: 50}\n");
    put("s.yaml", "recipe: base.yaml\nset: {adapter.lora_r: 6, train.num_epochs: 2}\nvariants:\n  - {name: plain}\n"
                  "  - {name: own, set: {adapter: {lora_r: 7}, adapter.lora_alpha: 9}}\n  - {recipe: other.yaml}\n");
    must_read(&f, "s.yaml");
    cr_assert_str_eq(names(&f), "plain|own|other", "a recipe gives its name");
    cr_assert(rank(&f, "plain") == 6 && rank(&f, "own") == 7 && alpha(&f, "own") == 9);
    cr_assert(rank(&f, "other") == 6 && alpha(&f, "other") == 50, "set lies on every variant's recipe");
    cr_assert_eq(f.sweep->seed[0], 5, "the recipe's own seed");
    must_read(&f, "s.yaml adapter.lora_r=11 seed=8,9");
    cr_assert(rank(&f, "plain") == 11 && rank(&f, "own") == 11 && f.sweep->seeds == 2 && f.sweep->seed[1] == 9);
    cr_assert_str_eq(f.sweep->arguments, "adapter.lora_r=11\nseed=8,9");
    /* a later layer that changes a governing word lets older dependents fall away; the same layer must not contradict itself */
    put("s.yaml", "recipe: base.yaml\nvariants: [{name: dense, set: {adapter.method: lora}}, {name: switch, set: {adapter.routing_strategy: switch}}]\n");
    must_read(&f, "s.yaml");
    cr_assert_str_eq(variant(&f, "dense")->recipe->fallen->word->key, "num_experts");
    cr_assert_str_eq(variant(&f, "switch")->recipe->fallen->word->key, "top_k");
    must_read(&f, "s.yaml adapter.method=lora");
    leave(&f);
}

Test(sweep, exclude_leaves_out_what_agrees_by_meaning) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    put("s.yaml", "recipe: base.yaml\ngrid: {adapter.num_experts: [1, 2, 4], adapter.top_k: [1, 2, 4]}\nexclude:\n"
                  "  - {adapter.num_experts: 1, adapter.top_k: 2}\n  - {adapter: {num_experts: 1, top_k: 4}}\n"
                  "  - {adapter.num_experts: 2.0, adapter.top_k: 4}\n  - {adapter.num_experts: 4, adapter.top_k: 1, adapter.lora_dropout: 0.050}\n");
    must_read(&f, "s.yaml");
    cr_assert_str_eq(names(&f), "num_experts 1 top_k 1|num_experts 2 top_k 1|num_experts 2 top_k 2|num_experts 4 top_k 2|num_experts 4 top_k 4",
                     "impossible ones are no error when they are left out; defaults count as said: %s", names(&f));
    put("s.yaml", "recipe: base.yaml\nvariants: [{name: a}, {name: b}]\ngrid: {train.tasks: [[sample_arc], [sample_piqa], [sample_arc, sample_piqa]]}\n"
                  "exclude: [{name: a, train.tasks: [sample_piqa, sample_arc]}, {name: b, train.tasks: [sample_arc]}]\n");
    must_read(&f, "s.yaml");
    cr_assert_str_eq(names(&f), "a tasks sample_arc|a tasks sample_piqa|b tasks sample_piqa|b tasks sample_arc+sample_piqa");
    put("s.yaml", "recipe: base.yaml\ngrid: {adapter.top_k: [1, 2]}\nexclude: [{adapter.top_k: 1}, {adapter.tpo_k: 1}]\n");
    cr_assert_eq(read_words(&f, "s.yaml"), MX_E_RECIPE);
    cr_assert(f.problems.kept == 1 && f.problems.item[0].at.line == 3 && f.problems.item[0].at.column == 31, "%s", f.problems.item[0].text);
    put("s.yaml", "recipe: base.yaml\ngrid: {adapter.top_k: [1, 2]}\nexclude: [{adapter.top_k: 1}, {adapter.top_k: 2}]\n");
    cr_assert_eq(read_words(&f, "s.yaml"), MX_E_RECIPE);
    cr_assert_str_eq(f.problems.item[0].text, "exclude leaves no variant");
    leave(&f);
}

Test(sweep, lists_on_the_command_line_make_a_sweep_of_a_recipe) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    must_read(&f, "base.yaml adapter.lora_r=8,16 train.tasks=[sample_arc],[sample_piqa,sample_arc] seed=1,2,3 train.num_epochs=2");
    cr_assert_str_eq(f.sweep->name, "base");
    cr_assert_eq(f.sweep->members, 12);
    cr_assert_str_eq(names(&f), "lora_r 8 tasks sample_arc|lora_r 8 tasks sample_piqa+sample_arc|lora_r 16 tasks sample_arc|"
                                "lora_r 16 tasks sample_piqa+sample_arc");
    cr_assert_eq(variant(&f, "lora_r 16 tasks sample_arc")->recipe->train.data.num_epochs, 2);
    must_read(&f, "base.yaml seed=1,2,3 name=three");
    cr_assert(f.sweep->variants == 1 && f.sweep->members == 3);
    cr_assert_str_eq(f.sweep->name, "three");
    cr_assert_str_eq(names(&f), "base");
    must_read(&f, "base.yaml adapter.method=lora,mixlora");
    cr_assert_eq(f.sweep->variants, 2);
    must_read(&f, "base.yaml data_dir='a,b','c' seed=4");
    cr_assert_str_eq(variant(&f, "data_dir a,b")->recipe->data_dir, "a,b");
    cr_assert_eq(read_words(&f, "base.yaml data_dir='a,b' adapter.lora_r=8"), MX_E_USAGE);
    cr_assert_not_null(strstr(f.st.text, "no argument lists values"));
    cr_assert_eq(read_words(&f, "base.yaml adapter.lora_r=8,x,"), MX_E_RECIPE);
    cr_assert_str_eq(f.problems.item[0].at.file, "argument 3");
    cr_assert_eq(f.problems.item[0].at.column, 20);
    cr_assert_eq(read_words(&f, "base.yaml adapter.lora_r=8,x"), MX_E_RECIPE);
    cr_assert_eq(f.problems.item[0].at.column, 18);
    cr_assert_str_eq(f.problems.item[0].at.text, "adapter.lora_r=8,x");
    /* over a file: a walked word is walked otherwise, not laid over */
    put("s.yaml", "recipe: base.yaml\ngrid: {adapter.lora_r: [2, 4], adapter.top_k: [1, 2]}\n");
    must_read(&f, "s.yaml adapter.lora_r=3");
    cr_assert_str_eq(names(&f), "lora_r 3 top_k 1|lora_r 3 top_k 2");
    leave(&f);
}

/* "base.yaml WORD=0,1,2,...": so many values. */
static const char *long_list(fixture *f, const char *word, int count) {
    const char *kept;
    mx_text text;

    mx_text_init(&text, 1 << 20);
    mx_text_print(&text, "base.yaml %s=0", word);
    for (int i = 1; i < count; i++) {
        mx_text_print(&text, ",%d", i);
    }
    kept = mx_arena_copy(&f->x.arena, text.data, text.length);
    mx_text_finish(&text);
    return kept;
}

Test(sweep, more_seeds_or_values_than_a_sweep_has_runs_are_refused) {
    static const struct {
        const char *word, *says;
    } wrong[] = {
        { "seed", "more than 10000 seeds" }, { "seeds", "more than 10000 seeds" }, { "train.num_epochs", "more than 10000 values" },
    };
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cr_assert_eq(read_words(&f, long_list(&f, wrong[i].word, MX_MEMBERS_MAX + 5000)), MX_E_RECIPE);
        cr_assert_eq(f.problems.count, 1, "%s", wrong[i].word);
        cr_assert_str_eq(f.problems.item[0].text, wrong[i].says);
        cr_assert_eq(f.problems.item[0].at.length, strlen(wrong[i].word));
    }
    leave(&f);
}

Test(sweep, what_is_a_sweep) {
    fixture f;
    static const char *const list[] = { "seed=1,2" }, *const one[] = { "train.tasks=[a, b]", "name='a,b'", "~seed" };

    enter(&f);
    put("base.yaml", base_text);
    put("s.yaml", "recipe: base.yaml\n");
    cr_assert(mx_sweep_is("s.yaml", NULL, 0, &f.x.arena));
    cr_assert_not(mx_sweep_is("base.yaml", NULL, 0, &f.x.arena));
    cr_assert_not(mx_sweep_is("absent.yaml", NULL, 0, &f.x.arena));
    put("x.yaml", "variants: [{name: a}]\n"); /* its recipe is missing, which is told */
    cr_assert(mx_sweep_is("x.yaml", NULL, 0, &f.x.arena));
    cr_assert_eq(read_words(&f, "x.yaml"), MX_E_RECIPE);
    cr_assert_not_null(strstr(f.problems.item[0].text, "recipe"), "%s", f.problems.item[0].text);
    for (int i = 0; i < 3; i++) { /* a recipe with a strange word */
        put("x.yaml", mx_arena_text(&f.x.arena, "%s%s", base_text, (const char *[]){ "seeds: [1]\n", "grid: {a: [1]}\n", "metric: acc\n" }[i]));
        cr_assert_not(mx_sweep_is("x.yaml", NULL, 0, &f.x.arena));
    }
    cr_assert(mx_sweep_is("base.yaml", list, 1, &f.x.arena));
    cr_assert_not(mx_sweep_is("base.yaml", one, 3, &f.x.arena));
    leave(&f);
}

/* -------------------------------------------------------------------- what is wrong */

/* Must hold a problem at this place whose text has these words; NULL file: anywhere. */
static void must_tell(fixture *f, uint32_t line, uint32_t column, const char *says) {
    for (size_t i = 0; i < f->problems.kept; i++) {
        const mx_status *p = &f->problems.item[i];

        if (p->at.line == line && p->at.column == column && strstr(p->text, says)) {
            return;
        }
    }
    mx_problems_print(&f->problems, stderr);
    cr_assert_fail("nothing at %u:%u says '%s'", line, column, says);
}

Test(sweep, every_problem_of_every_variant_is_told_once_with_its_place) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    put("bad.yaml", "recipe: base.yaml\n"
                    "variants:\n"
                    "  - name: a\n"
                    "    set: {adapter.lora_rnak: 4, adapter: {top_k: 9}}\n"
                    "  - {name: b, set: {adapter.method: lora, adapter.num_experts: 4}}\n"
                    "  - {name: b, set: {train.tasks: [sample_arx], seed: 3}}\n"
                    "  - {name: c, recipe: bsae.yaml}\n"
                    "  - {set: {}, macth: {flops: b}}\n"
                    "  - {name: d, match: {params: e, flops: e}}\n"
                    "  - {name: x/y, set: {adapter.lora_r: 1, adapter: {lora_r: 2}}}\n"
                    "grid:\n"
                    "  adapter.lora_alpha: [8, x]\n"
                    "  train.batch_size: 4\n"
                    "seeds: [1, 1, x]\n"
                    "baseline: aa\n"
                    "protcol: x\n");
    cr_assert_eq(read_words(&f, "bad.yaml"), MX_E_RECIPE);
    must_tell(&f, 4, 19, "unknown word 'lora_rnak' in adapter");
    must_tell(&f, 4, 50, "top_k is 9, but num_experts");
    must_tell(&f, 5, 51, "'num_experts' has no effect with method: lora (line 5)");
    must_tell(&f, 6, 12, "variant 'b' was already named at line 5");
    must_tell(&f, 6, 35, "task 'sample_arx' is none of");
    must_tell(&f, 6, 48, "'seed' cannot be set here");
    must_tell(&f, 7, 23, "recipe 'bsae.yaml'");
    must_tell(&f, 8, 5, "a variant needs a name");
    must_tell(&f, 8, 15, "unknown word 'macth' in a variant");
    must_tell(&f, 9, 15, "match must name one of params and flops");
    must_tell(&f, 10, 12, "without '/'");
    must_tell(&f, 10, 52, "'lora_r' was already given at line 10");
    must_tell(&f, 12, 27, "lora_alpha is 'x'");
    must_tell(&f, 13, 21, "must be a list of values to walk");
    must_tell(&f, 14, 12, "seed 1 is listed twice");
    must_tell(&f, 14, 15, "seed 'x' must be a whole number");
    must_tell(&f, 16, 1, "unknown word 'protcol' in the sweep");
    for (size_t i = 0; i < f.problems.kept; i++) {
        for (size_t j = 0; j < i; j++) {
            const mx_status *a = &f.problems.item[i], *b = &f.problems.item[j];

            cr_assert(a->at.line != b->at.line || a->at.column != b->at.column || strcmp(a->text, b->text) != 0, "told twice: %s", a->text);
        }
    }
    leave(&f);
}

Test(sweep, what_the_base_recipe_says_wrong_is_told_once_in_its_own_file) {
    fixture f;

    enter(&f);
    put("base.yaml", mx_arena_text(&f.x.arena, "%s  limti: 3\n", base_text));
    put("s.yaml", "recipe: base.yaml\ngrid: {adapter.lora_r: [1, 2, 3]}\nseeds: [1, 2]\n");
    cr_assert_eq(read_words(&f, "s.yaml"), MX_E_RECIPE);
    cr_assert(f.problems.count == 1 && strstr(f.problems.item[0].at.file, "base.yaml"));
    leave(&f);
}

Test(sweep, axes_that_cannot_be_walked_are_refused) {
    static const struct {
        const char *text;
        uint32_t line, column;
        const char *says;
    } wrong[] = {
        { "zip: {adapter.lora_r: [1, 2], adapter.top_k: [1]}", 2, 46, "'adapter.top_k' has 1 values and 'adapter.lora_r' (line 2) 2" },
        { "grid: {adapter.lora_r: []}", 2, 24, "has no values to walk" },
        { "grid: {adapter.lora_r: [1, 2]}\nzip: {adapter: {lora_r: [1]}}", 3, 17, "'adapter.lora_r' is walked twice" },
        { "grid: [1]", 2, 7, "grid must be a map" },
        { "grid: {seed: [1, 2]}", 2, 8, "'seed' cannot be set here" },
        { "grid: {name: [a, b]}", 2, 8, "'name' cannot be set here" },
        { "set: {extends: x.yaml}", 2, 7, "'extends' cannot be set here" },
        { "set: {adapter..lora_r: 3}", 2, 7, "a word is missing" },
        { "exclude: {adapter.lora_r: 1}", 2, 10, "exclude must be a list of maps" },
        { "variants: [{name: a, match: {params: b}}, {name: b, match: {params: a}}]", 2, 38, "in a circle" },
        { "variants: [{name: a, match: {params: a}}]", 2, 38, "matched with itself" },
        { "variants: [{name: abcd, match: {params: abce}}, {name: abcx}]", 2, 41, "there is no variant 'abce' here" },
        { "variants: [{name: a, set: {adapter.method: base}, match: {params: b}}, {name: b}]", 2, 67, "method base does not have" },
        { "variants: [{name: a, match: {flops: b}}, {name: b, set: {adapter.routing_strategy: top_p}}]", 2, 37, "with top_p the experts" },
        { "protocol: label_logits", 2, 11, "the comparison is by label_logits" },
        { "protocol: logits", 2, 11, "none of" },
        { "baseline: abc", 2, 11, "is none of the variants" },
        { "grid: {.lora_r: [1, 2], lora_r: [1, 2]}", 2, 8, "a word is missing in '.lora_r'" },
        { "grid: {adapter: {.lora_r: [1, 2], lora_r: [1, 2]}}", 2, 18, "a word is missing in '.lora_r'" },
        { "grid: {'': {lora_r: [1, 2]}}", 2, 8, "a word is missing in ''" },
        { "zip: {adapter.: [1, 2]}", 2, 7, "a word is missing in 'adapter.'" },
        { "exclude: [{adapter..lora_r: 1}]", 2, 12, "a word is missing in 'adapter..lora_r'" },
        { "seeds: []", 2, 8, "empty list" },
    };
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        put("s.yaml", mx_arena_text(&f.x.arena, "recipe: base.yaml\n%s\n", wrong[i].text));
        cr_assert_eq(read_words(&f, "s.yaml"), MX_E_RECIPE, "%s", wrong[i].text);
        must_tell(&f, wrong[i].line, wrong[i].column, wrong[i].says);
    }
    cr_assert_eq(read_words(&f, "base.yaml .lora_r=1,2 lora_r=1,2"), MX_E_RECIPE);
    must_tell(&f, 1, 1, "a word is missing in '.lora_r'");
    put("s.yaml", "recipe: base.yaml\ngrid: {adapter.lora_r: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], adapter.lora_alpha: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],"
                  " adapter.top_k: [1, 2, 3, 4], train.num_epochs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}\nseeds: [1, 2, 3]\n");
    cr_assert_eq(read_words(&f, "s.yaml"), MX_E_USAGE, "12,000 runs");
    leave(&f);
}

/* "a.b" and "x.a.b": names grow until the one that is whole has no more parts. */
Test(sweep, a_walked_word_that_ends_another_keeps_its_own_name) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    put("s.yaml", "recipe: base.yaml\ngrid: {lora_r: [1], adapter.lora_r: [2]}\n");
    cr_assert_eq(read_words(&f, "s.yaml"), MX_E_RECIPE);
    must_tell(&f, 2, 8, "unknown word 'lora_r'");
    cr_assert_str_eq(names(&f), "lora_r 1 adapter.lora_r 2");
    leave(&f);
}

Test(sweep, the_hint_for_a_baseline_is_a_whole_name) {
    static const struct {
        const char *baseline, *hint;
    } list[] = {
        { "mix", "did you mean 'mix lora_r 2'?" }, /* what axes multiplied: the first of them */
        { "lora lora_r 3", "did you mean 'lora lora_r 2'?" },
        { "lorra", "" }, /* near to 'lora' alone, which is no variant */
    };
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        put("s.yaml", mx_arena_text(&f.x.arena, "recipe: base.yaml\nvariants: [{name: mix}, {name: lora, set: {adapter.method: lora}}]\n"
                                                "grid: {adapter.lora_r: [2, 4]}\nbaseline: %s\n", list[i].baseline));
        cr_assert_eq(read_words(&f, "s.yaml"), MX_E_RECIPE);
        cr_assert_eq(f.problems.kept, 1);
        cr_assert_str_eq(f.problems.item[0].hint, list[i].hint, "%s: %s", list[i].baseline, f.problems.item[0].hint);
    }
    leave(&f);
}

Test(sweep, a_name_on_the_command_line_is_checked) {
    fixture f;
    char wide[128];

    enter(&f);
    put("base.yaml", base_text);
    snprintf(wide, sizeof wide, "%0121d", 0);
    for (int i = 0; i < 3; i++) {
        const char *wrong = i == 0 ? "a/b" : i == 1 ? "''" : wide;

        cr_assert_eq(read_words(&f, mx_arena_text(&f.x.arena, "base.yaml seed=1,2 name=%s", wrong)), MX_E_RECIPE, "%s", wrong);
        must_tell(&f, 1, 6, "a sweep's name must be 1 to 120 letters on one line, without '/'");
    }
    must_read(&f, mx_arena_text(&f.x.arena, "base.yaml seed=1,2 name=%s", wide + 1));
    cr_assert_str_eq(f.sweep->name, wide + 1);
    leave(&f);
}

/* -------------------------------------------------------------------- equal budgets */

/* The tiny base: hidden 32, inner 48, key/value width 16, two layers. Values of a LoRA of rank 1 on all linears:
 * 2 ((32+32) + (32+16) + (32+16) + (32+32) + 3 (32+48)) = 928, of them attention 448 and feed-forward 480. */
enum { ALL = 928, ATTENTION = 448, FFN = 480, ROUTER = 2 * 4 * 32 };

static const char matches[] = "recipe: base.yaml\nvariants:\n"
                              "  - {name: mix}\n"
                              "  - {name: lora, set: {adapter.method: lora, adapter.lora_alpha: 6}, match: {params: mix}}\n"
                              "  - {name: rs, set: {adapter.method: lora, adapter.use_rslora: true, adapter.lora_alpha: 6}, match: {params: mix}}\n"
                              "  - {name: dora, set: {adapter.method: dora}, match: {params: lora}}\n"
                              "  - {name: cost, set: {adapter.method: lora}, match: {flops: mix}}\n"
                              "  - {name: up, set: {adapter.num_experts: 2}, match: {params: mix}}\n"
                              "  - {name: own, set: {adapter.num_experts: 2, adapter.expert_lora: {lora_r: 3, lora_alpha: 5}}, match: {params: mix}}\n";

Test(sweep, match_solves_the_nearest_rank_and_keeps_the_scale) {
    fixture f;
    int64_t mix = 4 * ATTENTION + 4 * 4 * FFN + ROUTER; /* 9,728 */
    const mx_member_row *row;
    const mx_sweep_variant *own;
    double off;

    enter(&f);
    put("base.yaml", base_text);
    tiny_base("tiny");
    put("s.yaml", matches);
    must_read(&f, "s.yaml");
    must_measure(&f);
    cr_assert_eq(variant(&f, "mix")->trained, mix);
    cr_assert_eq(variant(&f, "mix")->trained_router, ROUTER);
    /* 9,728 / 928 = 10.48: rank 10 is 448 short, rank 11 480 over */
    cr_assert_eq(rank(&f, "lora"), 10);
    cr_assert_eq(variant(&f, "lora")->trained, 10 * ALL);
    cr_assert_float_eq(variant(&f, "lora")->match_off, 10.0 * ALL / (double)mix - 1, 1e-15, "one division");
    cr_assert_eq(alpha(&f, "lora"), 15, "6/4 = 15/10");
    cr_assert_float_eq(alpha(&f, "rs"), 6 * sqrt(10.0 / 4), 1e-14, "rsLoRA: alpha / sqrt(r) stays; two roots and a division");
    /* DoRA's magnitudes, 2 (32 + 16 + 16 + 32 + 48 + 48 + 32) = 448, leave 8,832 of 9,280: 9.52 */
    cr_assert_eq(rank(&f, "dora"), 10);
    cr_assert_eq(variant(&f, "dora")->trained, 10 * ALL + 448);
    /* mix: 6 (4 x 448 + 2 x 4 x 480 + 256) = 35,328; LoRA 5,568 for each rank: 6.34 */
    cr_assert_eq(variant(&f, "mix")->flops, 6.0 * (4 * ATTENTION + 2 * 4 * FFN + ROUTER));
    cr_assert_eq(rank(&f, "cost"), 6);
    cr_assert_eq(variant(&f, "cost")->flops, 6.0 * 6 * ALL);
    /* two experts of the same rank: r (448 + 960) + 128: 9,600 / 1,408 = 6.8 */
    cr_assert_eq(rank(&f, "up"), 7);
    /* experts with a rank of their own keep it, and their scale: attention alone follows: 448 r + 2 x 3 x 480 + 128 */
    cr_assert_eq(rank(&f, "own"), 15);
    own = variant(&f, "own");
    cr_assert_eq(((double *)mx_method_word(own->recipe->method, own->recipe->adapter.config, "expert_lora"))[1], 5);
    /* what tables say of it */
    row = mx_sweep_rows(f.sweep, &f.x.arena);
    off = 100 * (10.0 * ALL / (double)mix - 1);
    cr_assert_str_eq(row[1].matched, mx_arena_text(&f.x.arena, "params: mix, %+.1f %%", off));
    cr_assert_str_eq(row[0].matched, "");
    cr_assert(row[1].trained == 10 * ALL && row[1].flops == 6 * 10 * ALL && strcmp(row[1].method, "lora") == 0);
    cr_assert_str_eq(row[1].recipe_hash, variant(&f, "lora")->recipe_hash);
    leave(&f);
}

Test(sweep, a_match_finds_its_partner_at_the_same_place_of_the_axes) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    tiny_base("tiny");
    put("s.yaml", "recipe: base.yaml\nvariants: [{name: mix}, {name: lora, set: {adapter.method: lora}, match: {params: mix}}]\n"
                  "grid: {adapter.lora_r: [2, 4]}\n");
    must_read(&f, "s.yaml");
    must_measure(&f);
    /* rank 2: 2 x 448 + 8 x 480 + 256 = 4,992 = 5.38 x 928 */
    cr_assert_eq(rank(&f, "lora lora_r 2"), 5);
    cr_assert_eq(rank(&f, "lora lora_r 4"), 10);
    leave(&f);
}

Test(sweep, variants_that_mean_the_same_run_are_one) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    tiny_base("tiny");
    put("s.yaml", "recipe: base.yaml\nvariants:\n  - {name: a}\n  - {name: b, set: {adapter.lora_r: 4, train.save_steps: 7, output_dir: x}}\n"
                  "  - {name: c, set: {adapter.lora_r: 5}}\n  - {name: d, set: {adapter.top_k: 2}}\nseeds: [1, 2]\n");
    must_read(&f, "s.yaml");
    must_measure(&f);
    for (int64_t m = 0; m < f.sweep->members; m++) {
        const mx_sweep_variant *same = f.sweep->member[m].same_as;
        int32_t v = f.sweep->member[m].variant;

        cr_assert_eq(same, v == 1 || v == 3 ? &f.sweep->variant[0] : NULL, "member %lld", (long long)m);
    }
    leave(&f);
}

Test(sweep, what_does_not_fit_is_marked_and_the_rest_is_measured) {
    fixture f;

    enter(&f);
    put("base.yaml", base_text);
    tiny_base("tiny");
    put("s.yaml", "recipe: base.yaml\nvariants: [{name: small}, {name: large, set: {adapter.lora_r: 4096, adapter.num_experts: 64}}]\n");
    must_read(&f, "s.yaml");
    cr_assert_eq(mx_sweep_measure(f.sweep, (size_t)512 << 20, false, &f.x.arena, NULL, &f.st), MX_OK, "%s", f.st.text);
    cr_assert_eq(variant(&f, "small")->memory_limit_hit, 0);
    cr_assert_eq(variant(&f, "large")->memory_limit_hit, 1);
    cr_assert_not_null(strstr(variant(&f, "large")->refusal.text, "--memory-limit is 512"));
    cr_assert_gt(variant(&f, "large")->trained, 1000 * variant(&f, "small")->trained);
    leave(&f);
}

/* -------------------------------------------------------------------- as a user sees it */

Test(sweep, plan_tells_budgets_times_and_what_is_done) {
    scratch x = scratch_open();
    char *out;

    tiny_recipe(&x, "r.yaml", "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n");
    cr_assert_eq(chdir(x.folder), 0);
    put("s.yaml", "recipe: r.yaml\nvariants:\n  - {name: mix}\n  - {name: lora, set: {adapter.method: lora}, match: {params: mix}}\n"
                  "  - {name: top-p, set: {adapter.routing_strategy: top_p}}\n  - {name: again, set: {adapter.lora_r: 4}}\nseeds: [1, 2]\n");
    cr_assert_eq(chdir("/"), 0);
    program(&x, 0, "plan s.yaml");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "9,728") && strstr(out, "256") && strstr(out, "35.3 k") && strstr(out, "at most 58.4 k"), "%s", out);
    cr_assert(strstr(out, "r10 for params of mix, -4.6 %"), "%s", out);
    cr_assert(strstr(out, "the same run as mix"), "%s", out);
    cr_assert(strstr(out, "times are estimated from a step of the method, just timed"), "%s", out);
    cr_assert(strstr(out, " 4 variants x 2 seeds = 8 runs, 2 of them the same as others, 0 done, 6 to do, about "), "%s", out);
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")), "plan makes nothing");

    program(&x, 0, "sweep s.yaml --member 1 --quiet");
    program(&x, 0, "plan s.yaml");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "1 done (run 1), 1 to do"), "%s", out);
    cr_assert(strstr(out, "runs of the same recipe in mixrun.db (2 variants); runs of the same method in mixrun.db (1 variant); "
                          "a step of the method, just timed (1 variant)"), "%s", out);
    cr_assert(strstr(out, "1 done, 5 to do"), "%s", out);
    cr_assert(atof(rows(&x, "mixrun.db", "SELECT flops FROM runs")) == 35328, "the run tells the same FLOPs");

    program(&x, 0, "plan s.yaml --format json");
    out = output(&x, "out.txt");
    cr_assert(out[0] == '[' && strstr(out, "\"trained\": 9728"), "%s", out);
    program(&x, 1, "plan s.yaml --memory-limit 1MiB");
    cr_assert(strstr(output(&x, "err.txt"), "s.yaml:3:12: error: variant 'mix' does not fit"), "%s", output(&x, "err.txt"));
    cr_assert(strstr(output(&x, "out.txt"), "does not fit"), "%s", output(&x, "out.txt"));
    program(&x, 2, "plan r.yaml --format json");
    scratch_close(&x);
}

Test(sweep, verbs_of_recipes_say_what_a_sweep_is) {
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", "  method: lora\n");
    cr_assert_eq(chdir(x.folder), 0);
    put("s.yaml", "recipe: r.yaml\ngrid: {adapter.lora_r: [1, 2]}\nseeds: [1, 2, 3]\n");
    cr_assert_eq(chdir("/"), 0);
    program(&x, 0, "validate s.yaml");
    cr_assert(strstr(output(&x, "out.txt"), "2 variants x 3 seeds = 6 runs"), "%s", output(&x, "out.txt"));
    put(scratch_path(&x, "seeds.yaml"), mx_arena_text(&x.arena, "extends: r.yaml\nseeds: [1]\n"));
    program(&x, 2, "validate seeds.yaml");
    cr_assert(strstr(output(&x, "err.txt"), "unknown word 'seeds' in the recipe") && !strstr(output(&x, "err.txt"), "sweep"), "%s",
              output(&x, "err.txt"));
    program(&x, 2, "validate s.yaml adapter.lora_rnak=3");
    cr_assert(strstr(output(&x, "err.txt"), "argument 3:1:9: error: unknown word 'lora_rnak'") && strstr(output(&x, "err.txt"), "1 error;"),
              "%s", output(&x, "err.txt"));
    program(&x, 2, "run s.yaml");
    cr_assert(strstr(output(&x, "err.txt"), "'s.yaml' is a sweep") && strstr(output(&x, "err.txt"), "mixrun sweep s.yaml"), "%s", output(&x, "err.txt"));
    program(&x, 2, "r.yaml adapter.lora_r=8,16");
    cr_assert(strstr(output(&x, "err.txt"), "mixrun sweep r.yaml"), "%s", output(&x, "err.txt"));
    program(&x, 2, "validate metods.yaml");
    cr_assert(strstr(output(&x, "err.txt"), "did you mean") && strstr(output(&x, "err.txt"), "configs/sweeps/methods.yaml"), "%s", output(&x, "err.txt"));
    scratch_close(&x);
}
