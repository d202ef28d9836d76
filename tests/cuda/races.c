/* races.c - every op of the table on the CUDA backend under a checker, against the CPU backend:  races [seeds [first seed]]
 *
 * Built with the .cu files compiled for ThreadSanitizer, for AddressSanitizer, or plainly. The checkers watch the kernels; the
 * host's own code is not compiled for them and runs on one thread. Exit status 0: equal within the tolerances, both runs of a
 * problem the same bytes under different schedules, and (the checker sees to that itself) no report. */
#include "tests/cuda/cases.h"

#include <stdio.h>
#include <stdlib.h>

static mx_backend *open_backend(const char *device, mx_precision precision) {
    mx_backend_options o = { .device = device, .precision = precision, .threads = 1, .host_visible = true };
    mx_backend *b = NULL;
    mx_status st = { 0 };

    if (mx_backend_open(&o, &b, &st) != MX_OK) {
        fprintf(stderr, "%s: %s\n", device, st.text);
        exit(1);
    }
    return b;
}

static int check(const op_case *c, mx_backend *cpu, mx_backend *cuda, uint64_t seed) {
    double allowed = cuda->precision == MX_PRECISION_BF16 ? c->bf16 : c->f32, far;
    const char *precision = cuda->precision == MX_PRECISION_BF16 ? "bf16" : "f32", *which, *other;
    case_run expected, got, again;
    int wrong = 0;

    case_run_on(c, cpu, seed, true, &expected);
    case_run_on(c, cuda, seed, true, &got);
    case_run_on(c, cuda, seed, true, &again); /* another schedule, when MIXRUN_SHIM_SEED shuffles them */
    far = case_far(&expected, &got, &which);
    if (!(far <= allowed)) {
        printf("%s %s: %s is off by %.3g of the largest, allowed %.3g\n", precision, got.shape, which, far, allowed);
        wrong = 1;
    }
    other = case_other_bytes(&got, &again);
    if (other) {
        printf("%s %s: %s is not the same twice\n", precision, got.shape, other);
        wrong = 1;
    }
    case_free(&expected);
    case_free(&got);
    case_free(&again);
    return wrong;
}

int main(int argc, char **argv) {
    uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 0) : 2, first = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    int wrong = 0, runs = 0;

    for (int p = 0; p < 2; p++) {
        mx_precision precision = p ? MX_PRECISION_BF16 : MX_PRECISION_F32;
        mx_backend *cpu = open_backend("cpu", precision), *cuda = open_backend("cuda", precision);

        for (const op_case *c = OP_CASES; c->name; c++) {
            for (uint64_t s = 0; s < seeds; s++, runs++) {
                wrong += check(c, cpu, cuda, first + s);
            }
        }
        cuda->close(cuda);
        cpu->close(cpu);
    }
    printf("%d problems, %d wrong\n", runs, wrong);
    return wrong != 0;
}
