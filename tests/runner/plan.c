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
