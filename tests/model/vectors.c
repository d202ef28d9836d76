/* The golden vectors of independent float64 implementations (MIXRUN_VECTORS/tiny-a), in f32 and in bf16. */
#include "model/vectors.h"
#include "tests/support/device.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void print(void *context, const mx_vectors_result *r) {
    static const char *const verdict[] = { "ok", "BEYOND", "not built" };

    fprintf(context, "%-24s %-22s %s %s\n", r->name, r->way, verdict[r->verdict], r->why);
    for (int i = 0; i < r->errors; i++) {
        fprintf(context, "    %-20s %.2e  of %.0e   %s\n", r->error[i].quantity, r->error[i].error,
                r->error[i].tolerance, r->error[i].worst);
    }
}

static const char *folder(char room[512]) {
    const char *root = getenv("MIXRUN_VECTORS");

    if (!root) {
        cr_skip_test("MIXRUN_VECTORS is not set");
    }
    snprintf(room, 512, "%s/tiny-a", root);
    return room;
}

static void examine(mx_backend_options options, mx_vectors_summary *sum, mx_status *st) {
    char room[512];
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    mx_code code = mx_vectors_run(folder(room), &options, print, out, sum, st);

    fclose(out);
    if (code || getenv("MIXRUN_SHOW")) {
        fputs(text, stderr);
    }
    free(text);
    cr_assert_eq(code, MX_OK, "%s", st->text);
}

Test(vectors, every_built_case_agrees_in_f32_in_every_way) {
    mx_vectors_summary sum;
    mx_status st = { 0 };

    examine((mx_backend_options){ .device = KIT_DEVICE, .threads = 1, .precision = MX_PRECISION_F32 }, &sum, &st);
    cr_expect_eq(sum.built, 13, "%lld built", (long long)sum.built);
    cr_expect_eq(sum.not_built, 3, "vera, loha and adalora, not %lld", (long long)sum.not_built);
    cr_expect_eq(sum.failed, 0);
}

Test(vectors, agree_by_the_plain_gemm) {
    mx_vectors_summary sum;
    mx_status st = { 0 };

    if (strcmp(KIT_DEVICE, "cpu") != 0) {
        cr_skip_test("the plain product is the CPU's");
    }
    examine((mx_backend_options){ .device = KIT_DEVICE, .threads = 1, .precision = MX_PRECISION_F32, .plain_gemm = true }, &sum, &st);
    cr_expect_eq(sum.failed, 0);
}

Test(vectors, are_finite_and_near_in_bf16) {
    mx_vectors_summary sum;
    mx_status st = { 0 };

    examine((mx_backend_options){ .device = KIT_DEVICE, .threads = 1, .precision = MX_PRECISION_BF16 }, &sum, &st);
    cr_expect_eq(sum.built, 13);
}
