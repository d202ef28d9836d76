/* cmd_env.c - mixrun env: this program and this machine. */
#include "runner/command.h"
#include "runner/environment.h"
#include "runner/verbs.h"

static mx_code run(const mx_call *call, mx_status *st) {
    mx_backend_options o = { .device = "cpu", .precision = mx_cpu_has_bf16() ? MX_PRECISION_BF16 : MX_PRECISION_F32 };
    mx_backend *b;
    mx_text out;

    (void)call;
    MX_TRY(mx_backend_open(&o, &b, st));
    mx_text_init(&out, 1 << 16);
    mx_environment_print(b, &out);
    fputs(out.data, stdout);
    mx_text_finish(&out);
    b->close(b);
    return MX_OK;
}

const mx_command mx_verb_env = {
    .name = "env",
    .usage = "env",
    .summary = "what this program and this machine are",
    .help = "Version, processor, memory, GPUs with driver and cuBLASLt, what device: auto and precision: auto are here, libraries,\n"
            "and the folders that are looked into. Starts and ends well where there is no GPU or driver.",
    .least = 0, .most = 0, .run = run,
};
