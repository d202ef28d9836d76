/* The command line: verbs answer --help, mistakes are told with what to do, data goes to stdout and the rest to stderr. */
#include "tests/runner/support.h"

#include "runner/commands.h"

Test(cli, every_verb_answers_help) {
    scratch x = scratch_open();

    for (const mx_command *const *c = mx_commands; *c; c++) {
        program(&x, 0, "%s --help", (*c)->name);
        cr_assert(strstr(output(&x, "out.txt"), "usage: mixrun "), "%s --help says %s", (*c)->name, output(&x, "out.txt"));
        cr_assert_str_eq(output(&x, "err.txt"), "");
        for (const mx_flag *f = (*c)->flag; f && f->name; f++) {
            cr_assert(strstr(output(&x, "out.txt"), f->name), "%s --help does not tell --%s", (*c)->name, f->name);
        }
    }
    program(&x, 0, "--help");
    program(&x, 0, "help");
    program(&x, 0, "help run");
    program(&x, 0, "--version");
    cr_assert(strncmp(output(&x, "out.txt"), "mixrun 0.1.0", 12) == 0);
    scratch_close(&x);
}

Test(cli, verbs_are_sorted_and_told_apart) {
    for (const mx_command *const *c = mx_commands; c[0] && c[1]; c++) {
        cr_assert(strcmp(c[0]->name, c[1]->name) < 0, "%s stands before %s", c[0]->name, c[1]->name);
    }
}

Test(cli, mistakes_name_the_near_word_and_exit_with_2) {
    static const struct {
        const char *line, *says;
    } wrong[] = {
        { "pln r.yaml", "did you mean 'plan'?" },
        { "frobnicate", "mixrun help lists the verbs" },
        { "ls --metod lora", "did you mean '--method'?" },
        { "ls --method", "--method needs a value" },
        { "ls --json=1", "--json takes no value" },
        { "ls extra", "'extra' is one word too many" },
        { "show", "usage: mixrun show RUN" },
        { "ls -n many", "'many' is not a whole number" },
        { "help frob", "there is no verb 'frob'" },
        { "methods mixlra", "did you mean 'mixlora'?" },
        { "selftest --precision f16", "f32 or bf16" },
        { "config prnt x.yaml", "usage: mixrun config" },
        { "absent.yaml", "absent.yaml" },
    };
    scratch x = scratch_open();

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int code = finish(start(&x, wrong[i].line));

        cr_assert(code == 2 || (i == sizeof wrong / sizeof wrong[0] - 1 && code == 1), "mixrun %s exits with %d", wrong[i].line, code);
        cr_assert(strstr(output(&x, "err.txt"), wrong[i].says), "mixrun %s says: %s", wrong[i].line, output(&x, "err.txt"));
        cr_assert_str_eq(output(&x, "out.txt"), "", "data only on stdout");
    }
    scratch_close(&x);
}

Test(cli, a_wrong_recipe_tells_everything_at_once_and_makes_nothing) {
    static const char recipe[] = "base_model: ./tiny\nadapter:\n  method: mixlora\n  lora_rnak: 16\n  num_experts: 8\n  top_k: 9\n"
                                 "train:\n  tasks: [sample_arx]\n  warmup_steps: 5\n  per_device_train_batch_size: 3\nseed: 1\nseed: 2\n";
    scratch x = scratch_open();
    mx_status st = { 0 };
    char *err;

    tiny_base(scratch_path(&x, "tiny"));
    cr_assert_eq(mx_file_write(scratch_path(&x, "w.yaml"), recipe, strlen(recipe), &st), MX_OK);
    program(&x, 2, "w.yaml");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "w.yaml:4:3: error: unknown word 'lora_rnak' in adapter"), "%s", err);
    cr_assert(strstr(err, "did you mean 'lora_r'?"), "%s", err);
    cr_assert(strstr(err, "w.yaml:6:10: error: top_k is 9, but num_experts (line 5) is 8"), "%s", err);
    cr_assert(strstr(err, "w.yaml:8:11: error: "), "%s", err);
    cr_assert(strstr(err, "did you mean 'sample_arc'?"), "%s", err);
    cr_assert(strstr(err, "'warmup_steps' has no effect with lr_scheduler: constant"), "%s", err);
    cr_assert(strstr(err, "'per_device_train_batch_size' is called batch_size here"), "%s", err);
    cr_assert(strstr(err, "w.yaml:12:1: error: 'seed' was already given at line 11"), "%s", err);
    cr_assert(strstr(err, "6 errors; nothing was started"), "%s", err);
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")));
    cr_assert_not(mx_folder_exists(scratch_path(&x, "runs")));
    scratch_close(&x);
}

Test(cli, validate_needs_neither_data_nor_base) {
    static const char recipe[] = "base_model: ./nowhere\nadapter:\n  method: lora\ntrain:\n  tasks: [arc_easy]\n";
    scratch x = scratch_open();
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(scratch_path(&x, "v.yaml"), recipe, strlen(recipe), &st), MX_OK);
    program(&x, 0, "validate v.yaml");
    scratch_close(&x);
}

Test(cli, every_shipped_recipe_is_good) {
    static const char *const name[] = { "quickstart", "arc_obqa", "arc_obqa_lora", "arc_obqa_dora", "arc_obqa_mixdora", "arc_obqa_switch",
                                        "arc_obqa_top_p", "arc_obqa_ffn_only", "paper/mixlora", "paper/lora", "paper/dora", "paper/mixdora" };
    scratch x = scratch_open();

    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        program(&x, 0, "validate %s/configs/%s.yaml", getenv("MIXRUN_HOME"), name[i]);
    }
    scratch_close(&x);
}

Test(cli, the_printed_recipe_reads_back_to_the_same_plan) {
    scratch x = scratch_open();
    char *first, *plan;
    mx_status st = { 0 };

    tiny_recipe(&x, "r.yaml", "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n");
    program(&x, 0, "config print r.yaml");
    first = output(&x, "out.txt");
    cr_assert_eq(mx_file_write(scratch_path(&x, "again.yaml"), first, strlen(first), &st), MX_OK);
    program(&x, 0, "config print again.yaml");
    cr_assert_str_eq(first, output(&x, "out.txt"));
    program(&x, 0, "plan r.yaml");
    plan = output(&x, "out.txt");
    cr_assert(strstr(plan, "saved activations"), "%s", plan);
    program(&x, 0, "plan again.yaml name=r");
    cr_assert_eq(strncmp(plan, output(&x, "out.txt"), 30), 0, "%s\n%s", plan, output(&x, "out.txt"));
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")), "plan makes nothing");
    scratch_close(&x);
}

/* The tests see no GPU (support.h), so mixrun refuses for one of two reasons: by how it was built. */
Test(cli, a_gpu_that_is_not_here_is_refused_at_its_place_before_anything_is_made) {
    static const char *const verb[] = { "plan", "run", "eval", "sweep" };
    scratch x = scratch_open();
    char *err;

    tiny_recipe(&x, "r.yaml", "  method: lora\n");
    program(&x, 0, "validate r.yaml device=cuda"); /* a recipe for another machine is good here */
    program(&x, 0, "config print r.yaml device=cuda:1");
    for (size_t i = 0; i < sizeof verb / sizeof verb[0]; i++) {
        program(&x, 1, "%s r.yaml %s device=cuda", verb[i], i == 3 ? "seed=1,2" : "seed=1");
        err = output(&x, "err.txt");
        cr_assert(strstr(err, "argument 4:1:8: error: device 'cuda': "), "%s", err);
        cr_assert(strstr(err, "    1 | device=cuda\n      |        ^~~~\n"), "%s", err);
        cr_assert(strstr(err, "use device: cpu"), "%s", err);
    }
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")));
    cr_assert_not(mx_folder_exists(scratch_path(&x, "runs")));
    scratch_close(&x);
}

Test(cli, auto_says_why_it_computes_on_the_processor) {
    scratch x = scratch_open();
    char *out, *why, *end;

    tiny_recipe(&x, "r.yaml", "  method: lora\n");
    program(&x, 0, "env");
    out = output(&x, "out.txt");
    why = strstr(out, "  device     auto is cpu (");
    end = why ? strstr(why, ")\n") : NULL;
    cr_assert(end, "%s", out);
    why = strchr(why, '(') + 1;
    *end = '\0';
    program(&x, 0, "plan r.yaml");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "  device   cpu: 1 thread"), "%s", out);
    cr_assert(strstr(out, mx_arena_text(&x.arena, " (auto: %s)\n", why)), "%s", out);
    program(&x, 0, "plan r.yaml device=cpu");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "  device   cpu: 1 thread"), "%s", out);
    cr_assert_null(strstr(out, "(auto"), "%s", out);
    program(&x, 0, "r.yaml train.max_steps=1 eval.before_training=false");
    cr_assert(strstr(output(&x, "err.txt"), mx_arena_text(&x.arena, " (auto: %s)\n", why)), "%s", output(&x, "err.txt"));
    scratch_close(&x);
}

/* --emit writes for machines that are not this one. */
Test(cli, a_sweep_for_gpus_elsewhere_is_emitted_here) {
    scratch x = scratch_open();
    char *out;

    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 4\n");
    program(&x, 0, "sweep r.yaml seed=1,2 device=cuda:1 precision=auto --emit slurm");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "\n#SBATCH --gres=gpu:1\n"), "%s", out);
    cr_assert(strstr(out, "#SBATCH --array=1-2\n"), "%s", out);
    program(&x, 0, "sweep r.yaml seed=1,2 --emit slurm");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "\n##SBATCH --gres=gpu:1\n"), "%s", out);
    program(&x, 0, "sweep r.yaml seed=1,2 device=cpu --emit slurm");
    cr_assert_null(strstr(output(&x, "out.txt"), "gres"), "%s", output(&x, "out.txt"));
    scratch_close(&x);
}
