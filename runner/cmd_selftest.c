/* cmd_selftest.c - mixrun selftest [--vectors DIR]: is this build right on this machine? */
#include "model/gates.h"
#include "model/vectors.h"
#include "runner/command.h"
#include "runner/device.h"
#include "runner/verbs.h"

#include <string.h>

static const mx_flag flags[] = {
    { "vectors", 0, "DIR", "compare every case of a folder of golden vectors" },
    { "precision", 0, "P", "f32 (default) or bf16, whose errors are reported" },
    { "device", 0, "D", "cpu (default), cuda, cuda:N, or auto" },
    { "threads", 0, "N", "threads; default all" },
    { "verbose", 'v', NULL, "every way of running a case, with the worst tensor of each quantity" },
    { 0 },
};

static const char *const verdict_text[] = { "ok", "BEYOND TOLERANCE", "not built" };

static void report_case(void *context, const mx_vectors_result *r) {
    bool verbose = *(const bool *)context;

    printf(" %-22s %-24s", r->name, r->way);
    for (int i = 0; i < r->errors; i++) {
        printf("  %s %.1e", r->error[i].quantity, r->error[i].error);
    }
    printf("  %s%s%s\n", verdict_text[r->verdict], r->why[0] ? ": " : "", r->why);
    for (int i = 0; verbose && i < r->errors; i++) {
        printf("     %-16s %.3e  tolerance %.1e  %s\n", r->error[i].quantity, r->error[i].error, r->error[i].tolerance,
               r->error[i].worst);
    }
}

static void report_gate(void *context, const mx_gate_result *r) {
    (void)context;
    printf(" %-64s %.1e  (tolerance %.0e)  %s\n", r->name, r->error, r->tolerance, r->ok ? "ok" : "DOES NOT HOLD");
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *folder = mx_call_flag(call, "vectors"), *precision = mx_call_flag(call, "precision"),
               *device = mx_call_flag(call, "device");
    bool verbose = mx_call_flag(call, "verbose") != NULL, bf16 = precision && strcmp(precision, "bf16") == 0;
    mx_backend_options options = { .device = mx_device_of(device ? device : "cpu", NULL) };
    mx_vectors_summary sum = { 0 };
    int64_t threads = 0;
    mx_code code;

    if (precision && !bf16 && strcmp(precision, "f32") != 0) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--precision is f32 or bf16, not '%s'", precision);
    }
    if (verbose && !folder) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--verbose tells more about --vectors DIR; without it there is nothing more to tell");
    }
    MX_TRY(mx_call_number(call, "threads", false, &threads, st));
    if (threads > 1024) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--threads is %lld, but must be at most 1024", (long long)threads);
    }
    options.threads = (int)threads;
    options.precision = bf16 ? MX_PRECISION_BF16 : MX_PRECISION_F32;
    if (!folder) {
        return mx_gates_run(&options, report_gate, NULL, st);
    }
    code = mx_vectors_run(folder, &options, report_case, &verbose, &sum, st);
    if (code == MX_OK || code == MX_E_CHECK) {
        printf(" %lld cases in %lld ways, %lld beyond tolerance; %lld cases not built (%s)\n", (long long)sum.built,
               (long long)sum.runs, (long long)sum.failed, (long long)sum.not_built, bf16 ? "bf16" : "f32");
    }
    return code;
}

const mx_command mx_verb_selftest = {
    .name = "selftest",
    .usage = "selftest [--vectors DIR] [--device cuda] [--precision bf16]",
    .summary = "check the engine on this machine",
    .help = "Without a folder: equivalences that must hold (one expert equals LoRA, shared equals unshared, ...). With --vectors:\n"
            "logits, losses, gradients and optimizer steps of every method against the files of independent implementations;\n"
            "the largest error of each quantity is printed. Exit codes: 0 all hold, 3 one does not.",
    .flag = flags, .least = 0, .most = 0, .run = run,
};
