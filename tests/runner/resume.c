/* A run that was stopped or killed and went on equals the uninterrupted one: rows, scores, loads, adapter. */
#include "tests/runner/support.h"

static const char *const methods[] = {
    "  method: lora\n  lora_r: 4\n  lora_dropout: 0.1\n",
    "  method: dora\n  lora_r: 4\n",
    "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n  lora_dropout: 0.1\n",
    "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n  routing_strategy: switch\n",
    "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n  routing_strategy: top_p\n",
    "  method: mixdora\n  lora_r: 4\n  num_experts: 4\n",
};

static void interrupted_equals_whole(const char *adapter, const char *precision, int number, int step) {
    scratch x = scratch_open();
    pid_t child;
    int code;

    tiny_recipe(&x, "r.yaml", adapter);
    /* windows of several steps, so that a signal falls inside one */
    program(&x, 0, "r.yaml --quiet db=a.db output_dir=a precision=%s train.router_log_steps=4", precision);
    child = start(&x, mx_arena_text(&x.arena, "r.yaml --quiet db=b.db output_dir=b precision=%s train.router_log_steps=4", precision));
    signal_at(&x, "b.db", child, step, number);
    code = finish(child);
    if (code != 0) { /* it may have been quicker than the signal: then there is nothing to resume */
        cr_assert_eq(code, number == SIGKILL ? 1000 + SIGKILL : 75, "exit %d: %s", code, output(&x, "err.txt"));
        program(&x, 0, "resume 1 --db b.db --quiet");
    }
    cr_assert_str_eq(measured(&x, "a.db"), measured(&x, "b.db"), "%s after signal %d at step %d, %s", adapter, number, step, precision);
    equal_adapters(&x);
    scratch_close(&x);
}

Test(resume, every_method_goes_on_to_the_bit_in_f32) {
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        interrupted_equals_whole(methods[i], "f32", i % 2 ? SIGTERM : SIGINT, 3 + (int)i);
    }
}

Test(resume, every_method_goes_on_to_the_bit_in_bf16) {
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        interrupted_equals_whole(methods[i], "bf16", SIGINT, 2 + (int)i);
    }
}

Test(resume, a_killed_run_goes_on_from_its_last_checkpoint) {
    interrupted_equals_whole(methods[2], "f32", SIGKILL, 0);
    interrupted_equals_whole(methods[2], "f32", SIGKILL, 5);
    interrupted_equals_whole(methods[2], "f32", SIGKILL, 8);
}

Test(resume, what_changed_meanwhile_is_refused_by_name) {
    scratch x = scratch_open();
    char *err;
    pid_t child;

    tiny_recipe(&x, "r.yaml", methods[0]);
    child = start(&x, "r.yaml --quiet train.num_epochs=200");
    signal_at(&x, "mixrun.db", child, 2, SIGINT);
    cr_assert_eq(finish(child), 75);
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "stopped at step "), "%s", err);
    cr_assert(strstr(err, "continue with: mixrun resume 1"), "%s", err);
    program(&x, 2, "resume 7");
    cr_assert_eq(rename(scratch_path(&x, "tiny/config.json"), scratch_path(&x, "old.json")), 0);
    char *config = output(&x, "old.json");
    mx_status st = { 0 };
    size_t at = (size_t)(strstr(config, "1e-05") - config);
    config[at + 4] = '6';
    cr_assert_eq(mx_file_write(scratch_path(&x, "tiny/config.json"), config, strlen(config), &st), MX_OK);
    program(&x, 1, "resume 1");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "the base's file changed since it began"), "%s", err);
    scratch_close(&x);
}

Test(resume, a_finished_run_has_nothing_to_go_on_with) {
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", methods[0]);
    program(&x, 0, "r.yaml --quiet train.max_steps=2");
    program(&x, 2, "resume 1");
    cr_assert(strstr(output(&x, "err.txt"), "run 1 is finished"), "%s", output(&x, "err.txt"));
    scratch_close(&x);
}
