/* dora.c - DoRA's row norms against W + sBA built in full, in double.
 *
 * f32: 1e-6 is a few roundings of a sum of squares. bf16: A is rounded to 8 bits for one product, whose share of the
 * norm is small: 2e-3. */
#include "tests/kernels/kit.h"

typedef struct problem {
    int64_t out, in, rank, experts;
    double scale, *w, *a, *b, *m, *dc, *n, *norm;
} problem;

static problem make(int64_t out, int64_t in, int64_t rank, int64_t experts) {
    problem p = { .out = out, .in = in, .rank = rank, .experts = experts, .scale = 2 };
    mx_rng r;

    mx_rng_init(&r, 9, "dora");
    p.w = kit_values(&r, out * in, 1);
    p.a = kit_values(&r, experts * rank * in, 0.3);
    p.b = kit_values(&r, experts * out * rank, 0.3);
    p.m = kit_values(&r, experts * out, 2);
    p.dc = kit_values(&r, experts * out, 2);
    p.n = kit_array(experts * out);
    p.norm = kit_array(out);
    for (int64_t i = 0; i < experts * out; i++) {
        int64_t e = i / out, o = i % out;
        double sum = 0, plain = 0;

        for (int64_t j = 0; j < in; j++) {
            double v = p.w[o * in + j];

            plain += v * v;
            for (int64_t k = 0; k < rank; k++) {
                v += p.scale * p.b[i * rank + k] * p.a[(e * rank + k) * in + j];
            }
            sum += v * v;
        }
        p.n[i] = sqrt(sum);
        p.norm[o] = sqrt(plain);
    }
    return p;
}

static mx_dora prepare(mx_backend *b, const problem *p) {
    int64_t count = p->experts * p->out;
    mx_dora d = {
        .w = kit_weight(b, p->w, p->out, p->in), .out = p->out, .in = p->in, .rank = p->rank, .experts = p->experts,
        .a = kit_floats(b, p->a, p->experts * p->rank * p->in), .b = kit_floats(b, p->b, count * p->rank),
        .scale = (float)p->scale, .m = kit_floats(b, p->m, count), .n = kit_floats(b, NULL, count),
        .c = kit_floats(b, NULL, count), .dc = kit_floats(b, p->dc, count), .dm = kit_floats(b, p->m, count),
    };

    kit_scratch(b, b->ops->dora_scratch_bytes(b, &d));
    return d;
}

Test(dora, norms_scales_and_gradients_are_those_of_the_built_matrix) {
    static const int64_t SHAPES[][4] = { { 24, 16, 4, 1 }, { 19, 37, 3, 5 }, { 1, 8, 1, 2 }, { 70, 130, 16, 3 }, { 9, 24, 8, 40 }, { 5, 24, 260, 2 } };
    mx_precision precision;

    KIT_EACH_PRECISION(precision) {
        mx_backend *b = kit_open(precision, 1, false);
        double tolerance = precision == MX_PRECISION_F32 ? 1e-6 : 2e-3;

        for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++) {
            problem p = make(SHAPES[i][0], SHAPES[i][1], SHAPES[i][2], SHAPES[i][3]);
            mx_dora d = prepare(b, &p);
            int64_t count = p.experts * p.out;
            float *norm = kit_floats(b, NULL, p.out);
            double *c = kit_array(count), *dm = kit_array(count);

            for (int64_t j = 0; j < count; j++) {
                c[j] = p.m[j] / p.n[j];
                dm[j] = p.m[j] + p.dc[j] / p.n[j]; /* dm began as m: it is added to */
            }
            b->ops->row_norms(b, norm, d.w);
            b->ops->dora_forward(b, &d);
            b->ops->dora_backward(b, &d);
            kit_near_floats("row norms", p.norm, norm, p.out, 1e-6);
            kit_near_floats("n", p.n, d.n, count, tolerance);
            kit_near_floats("c", c, d.c, count, tolerance);
            kit_near_floats("dm", dm, d.dm, count, tolerance);
        }
        b->close(b);
    }
}

Test(dora, starts_as_the_base_and_a_row_of_zeros_stays_finite) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    problem p = make(6, 20, 4, 2);

    memset(p.b, 0, sizeof *p.b * (size_t)(p.experts * p.out * p.rank));
    memset(p.w, 0, sizeof *p.w * (size_t)p.in); /* row 0 */
    mx_dora d = prepare(b, &p);
    float *norm = kit_floats(b, NULL, p.out);

    b->ops->row_norms(b, norm, d.w);
    for (int64_t e = 0; e < p.experts; e++) {
        memcpy((float *)d.m + e * p.out, norm, sizeof *norm * (size_t)p.out);
    }
    b->ops->dora_forward(b, &d);
    for (int64_t i = 0; i < p.experts * p.out; i++) {
        double expected = i % p.out == 0 ? 0 : 1;

        cr_assert(fabs(d.c[i] - expected) <= 1e-6, "c[%ld] is %.9g, not %g", (long)i, d.c[i], expected);
    }
    b->close(b);
}

/* The norms are those of the matrix's own rows, wherever its group has them and whatever stands behind them. */
Test(dora, a_matrix_in_a_group_has_its_own_norms) {
    enum { OUT = 7, IN = 32 };
    static float values[3][OUT * IN];
    mx_precision precision;

    KIT_EACH_PRECISION(precision) {
        mx_backend *b = kit_open(precision, 1, false);
        problem p[3];
        mx_weight_source from[3];
        mx_weight *w[3];
        mx_status st = { 0 };

        for (int i = 0; i < 3; i++) {
            p[i] = make(OUT, IN, 4, 2);
            for (int k = 0; k < OUT * IN; k++) {
                p[i].w[k] *= 1 << i;
                values[i][k] = (float)p[i].w[k];
            }
            for (int o = 0; o < OUT; o++) {
                p[i].norm[o] *= 1 << i;
            }
            from[i] = (mx_weight_source){ .type = MX_FILE_F32, .bytes = values[i], .out = OUT, .in = IN };
        }
        cr_assert_eq(b->weights_open(b, from, 3, (mx_weight_room){ .columns = 8, .rows = 24 }, MX_USE_LINEAR, w, &st), MX_OK, "%s", st.text);
        for (int i = 0; i < 3; i++) {
            mx_dora d = prepare(b, &p[0]);
            float *norm = kit_floats(b, NULL, OUT);
            double *c = kit_array(2 * OUT);

            memset(p[0].b, 0, sizeof *p[0].b * 2 * OUT * 4);
            d.b = kit_floats(b, p[0].b, 2 * OUT * 4);
            d.w = kit_hold(w[i]);
            b->ops->row_norms(b, norm, d.w);
            b->ops->dora_forward(b, &d);
            for (int k = 0; k < 2 * OUT; k++) {
                c[k] = p[0].m[k] / p[i].norm[k % OUT];
            }
            kit_near_floats("row norms", p[i].norm, norm, OUT, 1e-6);
            kit_near_floats("c", c, d.c, 2 * OUT, 1e-6); /* B is zero: n is the norm */
        }
        b->close(b);
    }
}
