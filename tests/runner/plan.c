/* What the plan says is what the run then uses. */
#include "model/hub.h"
#include "tests/runner/support.h"

#ifdef __SANITIZE_ADDRESS__
static const bool sanitized = true; /* the sanitizer's own memory would be counted */
#else
static const bool sanitized = false;
#endif

Test(plan, memory_on_the_default_base_is_within_5_percent, .timeout = 600) {
    static const char *const method[] = { "lora", "mixlora" };
    scratch x = scratch_open();
    mx_hub_base base;
    mx_status st = { 0 };

    if (sanitized) {
        cr_skip_test("under AddressSanitizer memory is not the program's own");
    }
    if (mx_hub_resolve("smollm2-135m-instruct", MX_NOWHERE, &x.arena, &base, &st)) {
        cr_skip_test("the default base is not in the Hugging Face cache (./setup.sh fetches it)");
    }
    for (size_t i = 0; i < 2; i++) {
        double used, planned;

        program(&x, 0, "%s/configs/quickstart.yaml --quiet base_model=%s adapter.method=%s train.max_steps=1 train.batch_size=100"
                       " eval.tasks=[sample_piqa] eval.limit=1 eval.before_training=false", getenv("MIXRUN_HOME"), base.path, method[i]);
        used = atof(rows(&x, "mixrun.db", "SELECT printf('%.0f', value) FROM metrics WHERE name = 'memory_bytes' ORDER BY run_id DESC"));
        planned = atof(rows(&x, "mixrun.db", "SELECT printf('%.0f', value) FROM metrics WHERE name = 'memory_planned_bytes' ORDER BY run_id DESC"));
        fprintf(stderr, "%s: used %.0f, planned %.0f bytes\n", method[i], used, planned);
        cr_assert(used > 0.95 * planned && used < 1.05 * planned, "%s: used %.0f, planned %.0f bytes", method[i], used, planned);
    }
    scratch_close(&x);
}

/* The bytes of a purpose, as `plan` prints them. */
static double planned_mib(const char *out, const char *purpose) {
    const char *at = strstr(out, purpose), *line = at;
    double value;

    cr_assert(at, "no '%s' in: %s", purpose, out);
    while (line > out && line[-1] != '\n') {
        line--;
    }
    value = atof(line);
    return strstr(line, "KiB") && strstr(line, "KiB") < at ? value / 1024 : strstr(line, "GiB") && strstr(line, "GiB") < at ? value * 1024 : value;
}

Test(plan, gradient_checkpointing_saves_activations_and_says_what_it_costs) {
    scratch x = scratch_open();
    double whole;
    char *out;

    tiny_recipe(&x, "r.yaml", "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n");
    program(&x, 0, "plan r.yaml");
    out = output(&x, "out.txt");
    whole = planned_mib(out, "saved activations");
    cr_assert_null(strstr(out, "computed twice"), "%s", out);
    program(&x, 0, "plan r.yaml train.gradient_checkpointing=true");
    out = output(&x, "out.txt");
    /* of two layers one share is left, and the stream between layers stays */
    cr_assert(planned_mib(out, "saved activations") < 0.6 * whole && planned_mib(out, "saved activations") > 0.4 * whole, "%g of %g",
              planned_mib(out, "saved activations"), whole);
    cr_assert(strstr(out, "gradient_checkpointing: every forward pass is computed twice, 4"), "somewhat below 50 %%: %s", out);
    scratch_close(&x);
}

/* Of a table in CSV the number in a line (0: its head) and column, none of whose cells hold commas. */
static double cell(const char *out, int line, int column) {
    for (; line > 0; line--) {
        out = strchr(out, '\n') + 1;
    }
    for (; column > 0; column--) {
        out = strchr(out, ',') + 1;
    }
    return atof(out);
}
enum { MEMORY = 8, TIME = 9 };

Test(plan, a_sweep_plans_each_variant_as_it_checkpoints) {
    scratch x = scratch_open();
    char *out;

    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 4\n");
    program(&x, 0, "plan r.yaml train.gradient_checkpointing=false,true train.logging_steps=1 --format csv");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "tokens,memory,time"), "%s", out);
    cr_assert(strstr(out, "the same run as"), "it changes no value, so it is no other run: %s", out);
    cr_assert(cell(out, 2, MEMORY) > 0 && cell(out, 1, MEMORY) > cell(out, 2, MEMORY), "%s", out);
    scratch_close(&x);
}

static void change(scratch *x, const char *sql) {
    sqlite3 *handle;

    cr_assert_eq(sqlite3_open(scratch_path(x, "mixrun.db"), &handle), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(handle));
    sqlite3_close(handle);
}

static double planned_time(scratch *x, const char *checkpointing) {
    program(x, 0, "plan r.yaml seed=3,4 train.gradient_checkpointing=%s --format csv", checkpointing);
    return cell(output(x, "out.txt"), 1, TIME);
}

/* A run that took a second for a token tells of one that checkpoints as of one that does not, each by its work. */
Test(plan, a_stored_run_tells_the_time_of_others_by_whether_they_checkpoint) {
    scratch x = scratch_open();
    double plain, twice;

    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 4\n");
    program(&x, 0, "r.yaml --quiet");
    change(&x, "UPDATE metrics SET value = 1 WHERE name = 'tokens_per_second'");
    plain = planned_time(&x, "false");
    twice = planned_time(&x, "true");
    cr_assert(plain > 100 && twice > 1.4 * plain && twice < 1.5 * plain, "%g s, %g s", plain, twice);
    change(&x, "UPDATE runs SET recipe = replace(recipe, 'gradient_checkpointing: false', 'gradient_checkpointing: true')");
    cr_assert_float_eq(planned_time(&x, "true"), plain, 0.2, "as that run");
    cr_assert_float_eq(planned_time(&x, "false"), plain * plain / twice, 0.2, "less than that run");
    scratch_close(&x);
}

Test(plan, counts_what_a_person_can_count) {
    scratch x = scratch_open();
    char *out;

    tiny_recipe(&x, "r.yaml", "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n");
    program(&x, 0, "plan r.yaml");
    out = output(&x, "out.txt");
    /* attention: 4 (2 x (32 + 32) + 2 x (32 + 16)); experts: 4 x 4 x 3 x (32 + 48); router 4 x 32; 2 layers */
    cr_assert(strstr(out, mx_text_count(2 * (4 * (2 * 64 + 2 * 48) + 4 * 4 * 3 * 80 + 4 * 32))), "%s", out);
    cr_assert(strstr(out, " trained values"), "%s", out);
    cr_assert(strstr(out, "256 of them router"), "%s", out);
    cr_assert(strstr(out, "22 questions, 2 epochs, 12 steps"), "%s", out);
    cr_assert(strstr(out, "limited"), "%s", out);
    scratch_close(&x);
}
