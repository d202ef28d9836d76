/* METHODS.md 9 a-h, as `mixrun selftest` runs them. */
#include "model/gates.h"
#include "tests/support/device.h"

#include <criterion/criterion.h>

typedef struct told {
    int count;
} told;

static void count(void *context, const mx_gate_result *r) {
    ((told *)context)->count++;
    cr_expect(r->ok, "%s: %g of %g", r->name, r->error, r->tolerance);
}

Test(gates, hold_in_f32_and_in_bf16) {
    for (int p = MX_PRECISION_F32; p <= MX_PRECISION_BF16; p++) {
        mx_backend_options o = { .device = KIT_DEVICE, .threads = 1, .precision = (mx_precision)p };
        mx_status st = { 0 };
        told t = { 0 };

        cr_expect_eq(mx_gates_run(&o, count, &t, &st), MX_OK, "%s", st.text);
        cr_expect_eq(t.count, 9, "all of them report");
    }
}
