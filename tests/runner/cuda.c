/* The whole program with `device: cuda`, as a person starts it: MIXRUN_SHIM, built with the shim, whose GPU is the processor, beside
 * MIXRUN_PROGRAM on the processor itself. Where a GPU is, MIXRUN_SHIM may name an ordinary mixrun: what needs the shim's own
 * switches is then left out. */
#include "tests/runner/support.h"

#include <math.h>

static const char mixlora[] = "  method: mixlora\n  lora_r: 4\n  lora_alpha: 8\n  num_experts: 4\n  lora_dropout: 0.1\n";
static const char lora[] = "  method: lora\n  lora_r: 4\n  lora_dropout: 0.1\n";
static const char dora[] = "  method: dora\n  lora_r: 4\n";

/* Little enough for a GPU that is simulated: some 200 tokens a step. */
#define SMALL "--quiet train.batch_size=1 eval.limit=1 eval.protocols=[loglikelihood] eval.before_training=false train.save_steps=1"

/* The programs started from here on. The environment's MIXRUN_PROGRAM is told before it is overwritten. */
static const char *processor_program(void) {
    static char kept[4096];

    if (!kept[0]) {
        snprintf(kept, sizeof kept, "%s", getenv("MIXRUN_PROGRAM"));
    }
    return kept;
}

static void on_processor(void) {
    setenv("MIXRUN_PROGRAM", processor_program(), 1);
    unsetenv("MIXRUN_TEST_GPU");
}

static void on_gpu(void) {
    const char *shim = getenv("MIXRUN_SHIM");

    cr_assert(shim && processor_program()[0], "MIXRUN_SHIM names the program under test");
    setenv("MIXRUN_PROGRAM", shim, 1);
    setenv("MIXRUN_TEST_GPU", "1", 1);
}

static void needs_shim(scratch *x) {
    on_gpu();
    program(x, 0, "env");
    if (!strstr(output(x, "out.txt"), "CUDA shim on the CPU")) {
        cr_skip_test("MIXRUN_SHIM is not built with the shim");
    }
}

static void fail_with(const char *how) {
    if (how) {
        setenv("MIXRUN_SHIM_FAIL", how, 1);
    } else {
        unsetenv("MIXRUN_SHIM_FAIL");
    }
}

/* -------------------------------------------------------------------- results */

/* The largest difference of two queries' numbers, over 1 plus their size. */
static double difference(scratch *x, const char *db, const char *other, const char *sql) {
    char *a = rows(x, db, sql), *b = rows(x, other, sql), *p = a, *q = b;
    double most = 0;

    cr_assert(*a && strlen(a) > 4, "%s has nothing of %s", db, sql);
    while (*p && *q) {
        char *end_p, *end_q;
        double u = strtod(p, &end_p), v = strtod(q, &end_q);

        cr_assert(end_p > p && end_q > q, "not numbers: '%.20s' and '%.20s'", p, q);
        cr_assert(isfinite(u) && isfinite(v));
        most = fmax(most, fabs(u - v) / (1 + fabs(u)));
        p = end_p + (*end_p != '\0');
        q = end_q + (*end_q != '\0');
    }
    cr_assert(!*p && !*q, "%s and %s: not as many numbers", a, b);
    free(a);
    free(b);
    return most;
}

/* The same recipe on the processor and twice on the GPU: near, and equal to the byte. Measured on the shim over these three steps:
 * 8e-8, 2e-7 and 7e-8 in f32, where only the order of sums differs; 1.3e-3, 1.1e-2 and 6e-3 in bf16, where that rounds some
 * activations to the neighbour, 2^-8 away. */
static void trains_alike(const char *adapter, const char *precision, const char *more) {
    static const char losses[] = "SELECT value FROM metrics WHERE name = 'loss' ORDER BY step";
    static const char norms[] = "SELECT value FROM metrics WHERE name = 'grad_norm' ORDER BY step";
    static const char scores[] = "SELECT j.value FROM predictions p JOIN evaluations e USING (evaluation_id), json_each(p.choices) j"
                                 " ORDER BY e.task, p.number, j.key";
    double tolerance = strcmp(precision, "f32") == 0 ? 1e-5 : 3e-2;
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", adapter);
    on_processor();
    program(&x, 0, "r.yaml " SMALL " device=cpu db=c.db output_dir=c precision=%s train.max_steps=3", precision);
    on_gpu();
    program(&x, 0, "r.yaml " SMALL " device=cuda db=a.db output_dir=a precision=%s train.max_steps=3", precision);
    program(&x, 0, "r.yaml " SMALL " db=b.db output_dir=b precision=%s train.max_steps=3 %s", precision, more);
    fprintf(stderr, "%.20s %s: losses %.1e, gradient norms %.1e, scores %.1e\n", adapter + 10, precision,
            difference(&x, "c.db", "a.db", losses), difference(&x, "c.db", "a.db", norms), difference(&x, "c.db", "a.db", scores));
    cr_assert_lt(difference(&x, "c.db", "a.db", losses), tolerance);
    cr_assert_lt(difference(&x, "c.db", "a.db", norms), tolerance);
    cr_assert_lt(difference(&x, "c.db", "a.db", scores), tolerance);
    cr_assert_str_eq(rows(&x, "a.db", "SELECT state, step, recipe_hash FROM runs"), rows(&x, "c.db", "SELECT state, step, recipe_hash FROM runs"),
                     "the device is not in the recipe's hash");
    cr_assert_str_eq(measured(&x, "a.db"), measured(&x, "b.db"), "twice the same");
    equal_adapters(&x);
    scratch_close(&x);
}

Test(cuda, mixlora_in_f32_is_as_on_the_processor_and_the_same_twice) {
    trains_alike(mixlora, "f32", "");
}

Test(cuda, mixlora_in_bf16_is_as_on_the_processor_and_checkpointing_changes_no_bit) {
    trains_alike(mixlora, "bf16", "train.gradient_checkpointing=true");
}

Test(cuda, lora_in_bf16_is_as_on_the_processor_and_the_same_twice) {
    trains_alike(lora, "bf16", "");
}

Test(cuda, dora_in_f32_is_as_on_the_processor_and_checkpointing_changes_no_bit) {
    trains_alike(dora, "f32", "train.gradient_checkpointing=true");
}

Test(cuda, dora_in_bf16_is_as_on_the_processor_and_the_same_twice) {
    trains_alike(dora, "bf16", "");
}

Test(cuda, a_run_tells_and_stores_its_device_and_a_saved_adapter_scores_there) {
    scratch x = scratch_open();
    char *err, *out;

    tiny_recipe(&x, "r.yaml", mixlora);
    on_gpu();
    program(&x, 0, "r.yaml train.batch_size=1 eval.limit=1 eval.protocols=[loglikelihood,label_logits] train.max_steps=2");
    err = output(&x, "err.txt");
    out = output(&x, "out.txt");
    cr_assert(strstr(err, "  device   cuda: "), "auto takes the GPU: %s", err);
    cr_assert_null(strstr(err, "(auto"), "%s", err);
    cr_assert(strstr(err, " on the GPU (of "), "%s", err);
    cr_assert(strstr(err, " free): weights "), "%s", err);
    cr_assert(strstr(out, "router load, share of tokens, training"), "%s", out);
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT json_extract(text, '$.device'), json_extract(text, '$.backend') LIKE '%, sm_%GiB, cuBLASLt %',"
                                           " json_extract(text, '$.precision') FROM environments"),
                     "cuda|1|f32\n");
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT recipe LIKE '%\ndevice: auto\n%', state FROM runs"), "1|finished\n", "as it was written");
    program(&x, 0, "eval r.yaml --adapter runs/1-r/adapter --quiet eval.limit=1 eval.protocols=[loglikelihood]");
    cr_assert_str_eq(rows(&x, "mixrun.db",
                          "SELECT COUNT(*) > 4, SUM(ABS(j.value - i.value) > 1e-3) FROM evaluations e JOIN predictions p USING (evaluation_id),"
                          " json_each(p.choices) j JOIN evaluations f ON f.run_id = 1 AND f.step = 2 AND f.task = e.task AND f.protocol = e.protocol"
                          " JOIN predictions q ON q.evaluation_id = f.evaluation_id AND q.number = p.number, json_each(q.choices) i"
                          " WHERE e.run_id = 2 AND i.key = j.key"),
                     "1|0\n");
    scratch_close(&x);
}

/* With a base and data that are here: not a word of its own but those. */
Test(cuda, the_shipped_recipe_runs_as_it_is) {
    scratch x = scratch_open();

    on_gpu();
    tiny_base(scratch_path(&x, "tiny"));
    program(&x, 0, "%s/configs/arc_obqa.yaml base_model=./tiny train.tasks=[sample_arc,sample_obqa] eval.tasks=[sample_obqa] eval.limit=1"
                   " train.batch_size=1 train.max_steps=2", getenv("MIXRUN_HOME"));
    cr_assert(strstr(output(&x, "err.txt"), "computed in bf16\n"), "%s", output(&x, "err.txt"));
    cr_assert(strstr(output(&x, "err.txt"), "mixlora r16 E8 top-2 on q k v o gate up down"), "%s", output(&x, "err.txt"));
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT state, step, json_extract(text, '$.device'), json_extract(text, '$.precision'),"
                                           " (SELECT COUNT(*) FROM router_load) > 0, (SELECT COUNT(*) FROM scores) > 0"
                                           " FROM runs JOIN environments USING (environment_id)"),
                     "finished|2|cuda|bf16|1|1\n");
    cr_assert(mx_file_exists(scratch_path(&x, "runs/1-arc_obqa/adapter/adapter_model.safetensors")));
    scratch_close(&x);
}

/* -------------------------------------------------------------------- stopping and going on */

Test(cuda, a_stopped_run_goes_on_to_the_bit_and_only_on_its_kind_of_device) {
    scratch x = scratch_open();
    char *err;
    pid_t child;
    int code;

    tiny_recipe(&x, "r.yaml", mixlora);
    on_gpu();
    program(&x, 0, "r.yaml " SMALL " db=a.db output_dir=a train.max_steps=6 train.router_log_steps=4");
    child = start(&x, "r.yaml " SMALL " db=b.db output_dir=b train.max_steps=6 train.router_log_steps=4");
    signal_at(&x, "b.db", child, 2, SIGINT);
    code = finish(child);
    cr_assert_eq(code, 75, "exit %d: %s", code, output(&x, "err.txt"));
    on_processor(); /* its `device: auto` would be the processor here, where there is no GPU */
    program(&x, 1, "resume 1 --db b.db --quiet");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "recipe of run 1:"), "%s", err);
    cr_assert(strstr(err, "error: device 'cuda': "), "%s", err);
    cr_assert(strstr(err, "run 1 was begun on "), "%s", err);
    cr_assert_str_eq(rows(&x, "b.db", "SELECT state FROM runs"), "stopped\n", "left as it was");
    on_gpu();
    program(&x, 0, "resume 1 --db b.db --quiet");
    cr_assert_str_eq(measured(&x, "a.db"), measured(&x, "b.db"));
    equal_adapters(&x);
    scratch_close(&x);
}

Test(cuda, a_run_begun_on_the_processor_stays_there) {
    scratch x = scratch_open();
    pid_t child;
    int code;

    tiny_recipe(&x, "r.yaml", mixlora);
    on_processor();
    program(&x, 0, "r.yaml --quiet db=a.db output_dir=a");
    child = start(&x, "r.yaml --quiet db=b.db output_dir=b");
    signal_at(&x, "b.db", child, 2, SIGINT);
    code = finish(child);
    on_gpu(); /* where `device: auto` would be the GPU */
    if (code != 0) { /* it may have been quicker than the signal */
        cr_assert_eq(code, 75, "exit %d: %s", code, output(&x, "err.txt"));
        program(&x, 0, "resume 1 --db b.db");
        cr_assert(strstr(output(&x, "err.txt"), "  device   cpu: "), "%s", output(&x, "err.txt"));
    }
    cr_assert_str_eq(measured(&x, "a.db"), measured(&x, "b.db"));
    cr_assert_str_eq(rows(&x, "b.db", "SELECT json_extract(text, '$.device') FROM environments"), "cpu\n");
    scratch_close(&x);
}

/* A stopped member of a sweep is no beginning for one on another kind of device. */
Test(cuda, a_sweep_begins_anew_what_stopped_on_another_kind_of_device) {
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", lora);
    on_gpu();
    program(&x, 0, "sweep r.yaml seed=5,6 " SMALL " train.max_steps=1 device=cuda");
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT COUNT(*), MIN(state), MAX(state) FROM runs"), "2|finished|finished\n");
    {
        sqlite3 *handle; /* as if it had been stopped */

        cr_assert(sqlite3_open(scratch_path(&x, "mixrun.db"), &handle) == SQLITE_OK);
        cr_assert(sqlite3_exec(handle, "UPDATE runs SET state = 'stopped', step = 0 WHERE seed = 6", NULL, NULL, NULL) == SQLITE_OK);
        sqlite3_close(handle);
    }
    on_processor();
    program(&x, 0, "sweep r.yaml seed=5,6 " SMALL " train.max_steps=1 device=cpu");
    cr_assert_str_eq(rows(&x, "mixrun.db",
                          "SELECT seed, state, json_extract(text, '$.device') FROM runs JOIN environments USING (environment_id) ORDER BY run_id"),
                     "5|finished|cuda\n6|stopped|cuda\n6|finished|cpu\n", "a finished one answers, whatever computed it");
    scratch_close(&x);
}

/* -------------------------------------------------------------------- what is refused */

Test(cuda, what_is_wrong_with_a_gpu_is_said_at_its_place_and_auto_does_without) {
    static const struct {
        const char *fail, *device, *says, *hint;
    } wrong[] = {
        { "no driver", "cuda", "no NVIDIA driver here", "install the driver of the GPU, or use device: cpu" },
        { "old driver", "cuda", "the NVIDIA driver knows CUDA up to 11.4, this mixrun needs 13.0", "update the driver, or use device: cpu" },
        { "no device", "cuda", "the driver shows no GPU", "CUDA_VISIBLE_DEVICES" },
        { "sm_75", "cuda", "CUDA shim on the CPU is sm_75; sm_80", "use another GPU, or device: cpu" },
        { NULL, "cuda:1", "there is 1 GPU here", "use device: cuda" },
    };
    scratch x = scratch_open();
    mx_status st = { 0 };
    char *err, *out;

    needs_shim(&x);
    tiny_recipe(&x, "r.yaml", lora);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const char *text = mx_arena_text(&x.arena, "extends: r.yaml\ndevice: %s\n", wrong[i].device);

        cr_assert_eq(mx_file_write(scratch_path(&x, "g.yaml"), text, strlen(text), &st), MX_OK);
        fail_with(wrong[i].fail);
        program(&x, 0, "validate g.yaml");
        for (int verb = 0; verb < 3; verb++) {
            program(&x, 1, "%s g.yaml%s", verb == 0 ? "plan" : verb == 1 ? "run" : "sweep", verb == 2 ? " seed=1,2" : "");
            err = output(&x, "err.txt");
            cr_assert(strstr(err, mx_arena_text(&x.arena, "g.yaml:2:9: error: device '%s': ", wrong[i].device)), "%s", err);
            cr_assert(strstr(err, mx_arena_text(&x.arena, "    2 | device: %s\n      |         ^", wrong[i].device)), "%s", err);
            cr_assert(strstr(err, wrong[i].says), "%s", err);
            cr_assert(strstr(err, wrong[i].hint), "%s", err);
        }
        program(&x, 1, "selftest --device %s", wrong[i].device);
        cr_assert(strstr(output(&x, "err.txt"), wrong[i].says), "%s", output(&x, "err.txt"));
        program(&x, 0, "env");
        if (wrong[i].fail) {
            out = output(&x, "out.txt");
            cr_assert(strstr(out, "  device     auto is cpu ("), "%s", out);
            program(&x, 0, "plan r.yaml");
            out = output(&x, "out.txt");
            cr_assert(strstr(out, "  device   cpu: ") && strstr(out, " (auto: "), "%s", out);
        }
    }
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")), "refused before anything was made");
    scratch_close(&x);
}

Test(cuda, without_cublaslt_a_gpu_is_refused_and_auto_says_so) {
    scratch x = scratch_open();
    char *err;

    on_gpu();
    tiny_recipe(&x, "r.yaml", lora);
    setenv("MIXRUN_CUBLASLT", "/nowhere", 1);
    program(&x, 1, "plan r.yaml device=cuda");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "argument 3:1:8: error: no cuBLASLt at $MIXRUN_CUBLASLT, '/nowhere'"), "%s", err);
    program(&x, 0, "plan r.yaml");
    cr_assert(strstr(output(&x, "out.txt"), " (auto: no cuBLASLt at $MIXRUN_CUBLASLT, '/nowhere'"), "%s", output(&x, "out.txt"));
    program(&x, 0, "env");
    cr_assert(strstr(output(&x, "out.txt"), "  cublasLt   no cuBLASLt at "), "%s", output(&x, "out.txt"));
    scratch_close(&x);
}

Test(cuda, a_plan_that_does_not_fit_into_the_gpu_is_refused_before_anything_is_loaded) {
    static const char large[] = "train.batch_size=22 train.micro_batch_tokens=4096";
    scratch x = scratch_open();
    char *err;

    needs_shim(&x);
    tiny_recipe(&x, "r.yaml", mixlora);
    setenv("MIXRUN_SHIM_BYTES", "70000000", 1);
    program(&x, 0, "plan r.yaml train.batch_size=1 eval.protocols=[] train.micro_batch_tokens=256");
    program(&x, 1, "plan r.yaml %s", large);
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "error: this run needs "), "%s", err);
    cr_assert(strstr(err, " more of the GPU's memory, and 66."), "%s", err);
    cr_assert(strstr(err, " of its 66.8 MiB are free (mixrun plan shows what for)"), "%s", err);
    cr_assert(strstr(err, "a smaller train.micro_batch_tokens (now 4096)"), "%s", err);
    cr_assert(strstr(err, "train.gradient_checkpointing: true"), "%s", err);
    program(&x, 1, "r.yaml %s", large);
    program(&x, 1, "sweep r.yaml seed=1,2 %s", large);
    cr_assert(strstr(output(&x, "err.txt"), "does not fit: this run needs "), "%s", output(&x, "err.txt"));
    unsetenv("MIXRUN_SHIM_BYTES");
    program(&x, 0, "plan r.yaml %s", large);
    program(&x, 1, "plan r.yaml %s --memory-limit 256MiB", large);
    cr_assert(strstr(output(&x, "err.txt"), " of the GPU's memory and --memory-limit is 256 MiB"), "%s", output(&x, "err.txt"));
    setenv("MIXRUN_SHIM_BYTES", "1000", 1); /* not even the backend's own */
    program(&x, 1, "plan r.yaml device=cuda");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "argument 3:1:8: error: "), "%s", err);
    cr_assert(strstr(err, "nvidia-smi tells who else uses the GPU; or use device: cpu"), "%s", err);
    cr_assert_null(strstr(err, "resume"), "nothing was begun: %s", err);
    setenv("MIXRUN_SHIM_BYTES", "30000000", 1); /* the plan itself would fit, but not what CUDA takes later */
    program(&x, 1, "plan r.yaml train.batch_size=1 eval.protocols=[] train.micro_batch_tokens=256");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "this run needs 6") && strstr(err, " MiB more of the GPU's memory, and 28."), "more than there is: %s", err);
    scratch_close(&x);
}

/* The driver's answer to everything after an illegal access, a failing card or a reset. */
Test(cuda, a_plan_says_what_the_gpu_is_slow_at) {
    static const char note[] = "note: experts of ranks past 128 do not fit the tensor-core kernels: each step will take many times as long";
    scratch x = scratch_open();

    needs_shim(&x);
    tiny_recipe(&x, "r.yaml", mixlora);
    program(&x, 0, "plan r.yaml precision=bf16 adapter.lora_r=144");
    cr_assert(strstr(output(&x, "out.txt"), note), "%s", output(&x, "out.txt"));
    program(&x, 0, "plan r.yaml precision=bf16 adapter.lora_r=128");
    cr_assert_null(strstr(output(&x, "out.txt"), note), "%s", output(&x, "out.txt"));
    program(&x, 0, "plan r.yaml precision=bf16 adapter.lora_r=144 device=cpu");
    cr_assert_null(strstr(output(&x, "out.txt"), note), "%s", output(&x, "out.txt"));
    scratch_close(&x);
}

Test(cuda, a_gpu_that_is_lost_ends_the_run_in_words_and_resume_goes_on) {
    scratch x = scratch_open();
    char *err;

    needs_shim(&x);
    tiny_recipe(&x, "r.yaml", mixlora);
    program(&x, 0, "r.yaml " SMALL " db=a.db output_dir=a train.max_steps=5");
    fail_with("lost after 600 launches");
    program(&x, 1, "r.yaml " SMALL " db=b.db output_dir=b train.max_steps=5");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "error: the GPU failed in "), "%s", err);
    cr_assert(strstr(err, "cudaErrorIllegalAddress"), "%s", err);
    cr_assert(strstr(err, "go on from the last checkpoint with mixrun resume"), "%s", err);
    cr_assert_str_eq(rows(&x, "b.db", "SELECT state, reason LIKE 'the GPU failed in %', step > 0, step < 5 FROM runs"), "failed|1|1|1\n");
    fail_with(NULL);
    program(&x, 0, "resume 1 --db b.db --quiet");
    cr_assert_str_eq(measured(&x, "a.db"), measured(&x, "b.db"));
    equal_adapters(&x);
    scratch_close(&x);
}

/* -------------------------------------------------------------------- the other verbs */

Test(cuda, env_tells_driver_devices_and_cublaslt_in_columns) {
    scratch x = scratch_open();
    char *out;

    on_gpu();
    program(&x, 0, "env");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "\n  cuda       built in; the driver knows CUDA up to "), "%s", out);
    cr_assert(strstr(out, "\n  cuda:0     "), "%s", out);
    cr_assert(strstr(out, "\n  cublasLt   "), "%s", out);
    cr_assert(strstr(out, "\n  device     auto is cuda\n"), "%s", out);
    cr_assert(strstr(out, "\n  bf16       yes: precision auto is bf16\n"), "%s", out);
    scratch_close(&x);
}

Test(cuda, selftest_passes_on_the_device) {
    scratch x = scratch_open();
    const char *vectors = getenv("MIXRUN_VECTORS");

    on_gpu();
    program(&x, 0, "selftest --device cuda");
    cr_assert_null(strstr(output(&x, "out.txt"), "DOES NOT HOLD"), "%s", output(&x, "out.txt"));
    if (vectors) { /* one case here; cuda/vectors has them all */
        static const char *const part[] = { "config.json", "model.safetensors", "batch.json", "base.json", "base.safetensors" };

        cr_assert_eq(mx_folder_make(scratch_path(&x, "one"), &(mx_status){ 0 }), MX_OK);
        for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
            cr_assert_eq(symlink(mx_arena_text(&x.arena, "%s/tiny-a/%s", vectors, part[i]),
                                 scratch_path(&x, mx_arena_text(&x.arena, "one/%s", part[i]))), 0);
        }
        program(&x, 0, "selftest --device auto --vectors one");
        cr_assert(strstr(output(&x, "out.txt"), " 1 cases in "), "%s", output(&x, "out.txt"));
        cr_assert(strstr(output(&x, "out.txt"), " 0 beyond tolerance; 0 cases not built (f32)"), "%s", output(&x, "out.txt"));
    }
    scratch_close(&x);
}

Test(cuda, a_sweep_shares_the_gpu_as_far_as_it_holds) {
    scratch x = scratch_open();
    char *err, *out;

    needs_shim(&x);
    tiny_recipe(&x, "r.yaml", lora);
    setenv("MIXRUN_SHIM_BYTES", "900000000", 1);
    program(&x, 0, "plan r.yaml seed=1,2 train.batch_size=1 eval.limit=1 train.max_steps=1");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, " memory is the GPU's, of which 0.84 GiB are free: 1 run of the largest at once (--jobs)\n"), "%s", out);
    program(&x, 0, "sweep r.yaml seed=1,2 --jobs 2 train.batch_size=1 eval.limit=1 eval.before_training=false train.max_steps=1");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "2 at once need up to 1.0"), "%s", err);
    cr_assert(strstr(err, " of the GPU's memory, of which 0.84 GiB are free: fewer run at a time where they do not fit\n"), "%s", err);
    cr_assert(strstr(err, "run 1 finished in ") < strstr(err, "seed 2  started"), "one after the other: %s", err);
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT COUNT(*), MIN(state), MAX(state) FROM runs"), "2|finished|finished\n");
    program(&x, 0, "sweep r.yaml seed=3,4 --emit commands");
    cr_assert_null(strstr(output(&x, "out.txt"), "cuda"), "what auto is here is not said elsewhere: %s", output(&x, "out.txt"));
    scratch_close(&x);
}
