/* norms.c - the ops on single rows and values: RMSNorm, rotary embedding, SwiGLU, sums, look-ups.
 *
 * Tolerances of the largest value: f32 2e-6; bf16 one rounding, 2^-8 (inputs are exact). */
#include "tests/kernels/kit.h"

static double tolerance_of(mx_precision p) {
    return p == MX_PRECISION_BF16 ? 0x1p-8 : 2e-6;
}

/* ------------------------------------------------------------------ RMSNorm */

static double norm_row(double *y, const double *x, const double *w, int64_t n, double eps) {
    double sum = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    double rstd = 1 / sqrt(sum / (double)n + eps);

    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * rstd * w[i];
    }
    return rstd;
}

static void check_rmsnorm(mx_precision precision, int64_t rows, int64_t n) {
    mx_backend *b = kit_open(precision, 2, false);
    const double eps = 0.0009765625;
    mx_rng r;

    mx_rng_init(&r, (uint64_t)n, "rmsnorm");
    double *x = kit_values(&r, rows * n, 2), *w = kit_values(&r, n, 1), *dy = kit_values(&r, rows * n, 1), *old = kit_values(&r, rows * n, 1);
    double *y = kit_array(rows * n), *rstd = kit_array(rows), *dx = kit_array(rows * n), *row = kit_array(n);
    mx_tensor tx = kit_tensor(b, x, rows, n), ty = kit_tensor(b, NULL, rows, n), tdy = kit_tensor(b, dy, rows, n), tdx = kit_tensor(b, old, rows, n);
    float *tw = kit_floats(b, w, n), *trstd = kit_floats(b, NULL, rows);

    for (int64_t t = 0; t < rows; t++) {
        rstd[t] = norm_row(y + t * n, x + t * n, w, n, eps);
        for (int64_t i = 0; i < n; i++) { /* d (y . dy) / d x_i by differences */
            double *at = &x[t * n + i], kept = *at, size = 1e-5, slope = 0;

            for (int side = -1; side <= 1; side += 2) {
                *at = kept + side * size;
                norm_row(row, x + t * n, w, n, eps);
                for (int64_t k = 0; k < n; k++) {
                    slope += side * row[k] * dy[t * n + k];
                }
            }
            *at = kept;
            dx[t * n + i] = old[t * n + i] + slope / (2 * size);
        }
    }
    b->ops->rmsnorm_forward(b, ty, trstd, tx, tw, (float)eps);
    b->ops->rmsnorm_backward(b, tdx, tdy, tx, trstd, tw);
    kit_near_tensor("y", y, ty, rows * n, tolerance_of(precision));
    kit_near_floats("rstd", rstd, trstd, rows, 1e-6);
    kit_near_tensor("dx", dx, tdx, rows * n, tolerance_of(precision));
    b->close(b);
}

Test(norms, rmsnorm_agrees_with_the_definition_and_its_differences) {
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        check_rmsnorm(p, 1, 1);
        check_rmsnorm(p, 5, 7);
        check_rmsnorm(p, 33, 64);
        check_rmsnorm(p, 3, 300);
    }
}

/* ------------------------------------------------------------------ rotary embedding */

static void check_rope(mx_precision precision, int64_t heads, int64_t d, int32_t farthest) {
    enum { ROWS = 19, LIVE = 17 };
    mx_backend *b = kit_open(precision, 2, false);
    kit_rows batch = kit_batch(b, ROWS, LIVE);
    int64_t n = heads * d;
    mx_rng r;

    mx_rng_init(&r, (uint64_t)d, "rope");
    double *x = kit_values(&r, ROWS * n, 1), *y = kit_array(ROWS * n), *back = kit_array(ROWS * n);
    mx_tensor forward = kit_tensor(b, x, ROWS, n), backward = kit_tensor(b, x, ROWS, n);
    float *inverse = kit_memory(b, sizeof(float) * (size_t)(d / 2));

    batch.position[5] = farthest;
    for (int64_t j = 0; j < d / 2; j++) {
        inverse[j] = (float)pow(10000, -2.0 * (double)j / (double)d);
    }
    for (int64_t t = 0; t < LIVE; t++) {
        for (int64_t i = 0; i < n; i++) {
            int64_t j = i % d, pair = j < d / 2 ? j : j - d / 2;
            double angle = batch.position[t] * (double)inverse[pair], c = cos(angle), s = sin(angle);
            double self = x[t * n + i], other = j < d / 2 ? -x[t * n + i + d / 2] : x[t * n + i - d / 2];

            y[t * n + i] = self * c + other * s;    /* rotated by +angle */
            back[t * n + i] = self * c - other * s; /* its transpose */
        }
    }
    b->ops->rope(b, forward, heads, d, &batch.rows, inverse, false);
    b->ops->rope(b, backward, heads, d, &batch.rows, inverse, true);
    kit_near_tensor("rotated", y, forward, LIVE * n, tolerance_of(precision));
    kit_near_tensor("rotated back", back, backward, LIVE * n, tolerance_of(precision));
    kit_sync(b);
    b->close(b);
}

Test(norms, rope_rotates_halves_of_heads_and_back) {
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        check_rope(p, 3, 8, 4);
        check_rope(p, 1, 2, 100);
        check_rope(p, 2, 64, 9000); /* the table of cosines grows */
    }
}

Test(norms, rope_follows_other_frequencies_on_the_same_backend) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    kit_rows batch = kit_batch(b, 3, 3);
    float first[] = { 1.0f }, second[] = { 0.5f };

    for (int i = 0; i < 2; i++) {
        mx_tensor x = kit_tensor(b, (double[]){ 1, 0, 1, 0, 1, 0 }, 3, 2);

        b->ops->rope(b, x, 1, 2, &batch.rows, i ? second : first, false);
        for (int t = 0; t < 3; t++) {
            cr_assert_float_eq(kit_at(&x, 2 * t), cos(t * (i ? 0.5 : 1.0)), 1e-6);
        }
    }
    b->close(b);
}

/* ------------------------------------------------------------------ SwiGLU and sums */

static double swiglu(double g, double u) {
    return g / (1 + exp(-g)) * u;
}

Test(norms, swiglu_agrees_with_the_definition_and_its_differences) {
    enum { ROWS = 41, N = 60 };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        mx_backend *b = kit_open(p, 2, false);
        mx_rng r;

        mx_rng_init(&r, 6, "swiglu");
        double *g = kit_values(&r, ROWS * N, 8), *u = kit_values(&r, ROWS * N, 1), *dh = kit_values(&r, ROWS * N, 1);
        double *h = kit_array(ROWS * N), *dg = kit_array(ROWS * N), *du = kit_array(ROWS * N);

        g[0] = -200; /* e^200 is no f32 */
        g[1] = 200;
        g[2] = 0;
        for (int i = 0; i < ROWS * N; i++) {
            h[i] = swiglu(g[i], u[i]);
            dg[i] = dh[i] * (swiglu(g[i] + 1e-5, u[i]) - swiglu(g[i] - 1e-5, u[i])) / 2e-5;
            du[i] = dh[i] * swiglu(g[i], 1);
        }
        mx_tensor tg = kit_tensor(b, g, ROWS, N), tu = kit_tensor(b, u, ROWS, N), tdh = kit_tensor(b, dh, ROWS, N), th = kit_tensor(b, NULL, ROWS, N);

        b->ops->swiglu_forward(b, th, tg, tu);
        b->ops->swiglu_backward(b, tg, tu, tdh, tg, tu); /* in place, as allowed */
        kit_near_tensor("h", h, th, ROWS * N, tolerance_of(p));
        kit_near_tensor("dg", dg, tg, ROWS * N, tolerance_of(p));
        kit_near_tensor("du", du, tu, ROWS * N, tolerance_of(p));
        b->close(b);
    }
}

Test(norms, add_rounds_once_and_works_in_place) {
    enum { ROWS = 7, N = 301 };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        mx_backend *b = kit_open(p, 2, false);
        mx_rng r;

        mx_rng_init(&r, 6, "add");
        double *x = kit_values(&r, ROWS * N, 1), *y = kit_values(&r, ROWS * N, 1), *sum = kit_array(ROWS * N);
        mx_tensor tx = kit_tensor(b, x, ROWS, N), ty = kit_tensor(b, y, ROWS, N);

        for (int i = 0; i < ROWS * N; i++) {
            sum[i] = x[i] + y[i];
        }
        b->ops->add(b, tx, tx, ty);
        kit_near_tensor("sum", sum, tx, ROWS * N, p == MX_PRECISION_BF16 ? 0x1p-8 : 1e-7);
        b->close(b);
    }
}

/* ------------------------------------------------------------------ look-ups */

Test(norms, embed_looks_rows_up_and_leaves_padding_zero) {
    enum { V = 11, C = 20, ROWS = 9, LIVE = 7 };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        mx_backend *b = kit_open(p, 2, false);
        kit_rows batch = kit_batch(b, ROWS, LIVE);
        mx_rng r;

        mx_rng_init(&r, 6, "embed");
        double *table = kit_values(&r, V * C, 1), *y = kit_array(ROWS * C);
        mx_weight *w = kit_weight(b, table, V, C);
        mx_tensor ty = kit_tensor(b, NULL, ROWS, C);

        for (int t = 0; t < ROWS; t++) {
            batch.token[t] = t < LIVE ? (t * 5 + 10) % V : 1 << 30; /* nobody reads a padding row's token */
            memcpy(y + t * C, t < LIVE ? table + batch.token[t] * C : y + t * C, sizeof *y * C);
        }
        b->ops->embed(b, ty, w, &batch.rows);
        kit_near_tensor("y", y, ty, ROWS * C, 0);
        b->weight_close(b, w);
        b->close(b);
    }
}

Test(norms, scatter_is_gathers_transpose_also_when_rows_repeat) {
    enum { ROWS = 30, C = 300, N = 12 };
    static const int32_t row[N] = { 3, 29, 3, 7, 0, 3, 7, 12, 13, 14, 29, 3 };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        mx_backend *b = kit_open(p, 2, false);
        mx_rng r;

        mx_rng_init(&r, 6, "scatter");
        double *x = kit_values(&r, ROWS * C, 1), *g = kit_values(&r, N * C, 1), *scale = kit_values(&r, N, 1);
        double *y = kit_array(N * C), *dx = kit_array(ROWS * C);
        mx_tensor tx = kit_tensor(b, x, ROWS, C), ty = kit_tensor(b, NULL, N, C), tg = kit_tensor(b, g, N, C), tdx = kit_tensor(b, NULL, ROWS, C);

        for (int i = 0; i < N * C; i++) {
            y[i] = x[row[i / C] * C + i % C];
            dx[row[i / C] * C + i % C] += scale[i / C] * g[i];
        }
        b->ops->gather_rows(b, ty, tx, row, N);
        b->ops->scatter_rows(b, tdx, tg, kit_floats(b, scale, N), row, N);
        kit_near_tensor("gathered", y, ty, N * C, 0);
        kit_near_tensor("scattered", dx, tdx, ROWS * C, p == MX_PRECISION_BF16 ? 0x1p-8 : 1e-6);
        b->close(b);
    }
}
