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
    double summed = 1e-9 * (double)n; /* on a processor that sums four at a time, n/4 roundings follow one another */
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
    kit_sync(b);
    kit_near_tensor("y", y, ty, rows * n, tolerance_of(precision) + summed);
    kit_near_floats("rstd", rstd, trstd, rows, 1e-6 + summed);
    kit_near_tensor("dx", dx, tdx, rows * n, tolerance_of(precision) + summed);
    b->close(b);
}

Test(norms, rmsnorm_agrees_with_the_definition_and_its_differences) {
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        check_rmsnorm(p, 1, 1);
        check_rmsnorm(p, 5, 7);
        check_rmsnorm(p, 33, 64);
        check_rmsnorm(p, 3, 300);
        check_rmsnorm(p, 2, 1021);
        check_rmsnorm(p, 2, 4096);
        check_rmsnorm(p, 1, 8205); /* wider than a block of threads keeps */
    }
}

/* ------------------------------------------------------------------ rotary embedding */

/* The rows from `live` on. */
static mx_tensor padding_of(const mx_tensor *t, int64_t live) {
    char *at = (char *)t->data + (size_t)(live * t->dim[1]) * mx_dtype_bytes(t->dtype);

    return mx_tensor_2d(at, t->dtype, t->dim[0] - live, t->dim[1]);
}

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
    kit_sync(b);
    kit_near_tensor("rotated", y, forward, LIVE * n, tolerance_of(precision));
    kit_near_tensor("rotated back", back, backward, LIVE * n, tolerance_of(precision));
    mx_tensor rest = padding_of(&forward, LIVE);

    kit_near_tensor("padding", x + LIVE * n, rest, (ROWS - LIVE) * n, 0);
    b->close(b);
}

Test(norms, rope_rotates_halves_of_heads_and_back) {
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        check_rope(p, 3, 8, 4);
        check_rope(p, 1, 2, 100);
        check_rope(p, 2, 64, 9000); /* the table of cosines grows */
        check_rope(p, 5, 6, 77);
        check_rope(p, 3, 80, 8191);
        check_rope(p, 1, 96, 40000);
        check_rope(p, 7, 128, 12);
        check_rope(p, 1, 256, 3);
        check_rope(p, 2, 512, 1);
    }
}

/* Where f32's product of position and frequency would be off by a hundredth of a turn. */
Test(norms, rope_is_exact_at_positions_far_out) {
    static const int32_t positions[] = { 131071, 1000003, 16777215 };
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    kit_rows batch = kit_batch(b, 3, 3);
    double ones[] = { 1, 0, 1, 0, 1, 0 };
    float *inverse = kit_memory(b, sizeof *inverse);
    mx_tensor x = kit_tensor(b, ones, 3, 2);

    *inverse = 0.7320508f;
    if (strcmp(KIT_DEVICE, "cpu") == 0) {
        batch.rows.live = 2; /* its table of sixteen million positions is no test's business */
    }
    memcpy(batch.position, positions, sizeof positions);
    b->ops->rope(b, x, 1, 2, &batch.rows, inverse, false);
    kit_sync(b);
    for (int t = 0; t < batch.rows.live; t++) {
        double angle = positions[t] * (double)*inverse;

        cr_assert_float_eq(kit_at(&x, 2 * t), cos(angle), 1e-6);
        cr_assert_float_eq(kit_at(&x, 2 * t + 1), sin(angle), 1e-6);
    }
    b->close(b);
}

Test(norms, rope_follows_other_frequencies_on_the_same_backend) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    kit_rows batch = kit_batch(b, 3, 3);
    float *inverse[] = { kit_floats(b, (double[]){ 1.0 }, 1), kit_floats(b, (double[]){ 0.5 }, 1) };

    for (int i = 0; i < 2; i++) {
        mx_tensor x = kit_tensor(b, (double[]){ 1, 0, 1, 0, 1, 0 }, 3, 2);

        b->ops->rope(b, x, 1, 2, &batch.rows, inverse[i], false);
        kit_sync(b);
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
        kit_sync(b);
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
        kit_sync(b);
        kit_near_tensor("sum", sum, tx, ROWS * N, p == MX_PRECISION_BF16 ? 0x1p-8 : 1e-7);
        b->close(b);
    }
}

/* The same tensor, beginning where nothing but a single value is aligned. */
static mx_tensor shifted(mx_backend *b, const double *from, int64_t rows, int64_t n) {
    double *more = kit_array(rows * n + 1);

    if (from) {
        memcpy(more + 1, from, sizeof *more * (size_t)(rows * n));
    }
    mx_tensor t = kit_tensor(b, from ? more : NULL, 1, rows * n + 1);

    return mx_tensor_2d((char *)t.data + mx_dtype_bytes(t.dtype), t.dtype, rows, n);
}

Test(norms, no_op_needs_more_alignment_than_a_value_has) {
    enum { ROWS = 3, N = 72 };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        mx_backend *b = kit_open(p, 2, false);
        const int32_t *row = kit_copy(b, (int32_t[]){ 2, 0, 1 }, 3 * sizeof(int32_t));
        mx_rng r;

        mx_rng_init(&r, 8, "shifted");
        double *x = kit_values(&r, ROWS * N, 1), *y = kit_values(&r, ROWS * N, 1), *w = kit_values(&r, N + 1, 1);
        double *sum = kit_array(ROWS * N), *h = kit_array(ROWS * N), *normed = kit_array(ROWS * N), *picked = kit_array(ROWS * N);
        mx_tensor tx = shifted(b, x, ROWS, N), ty = shifted(b, y, ROWS, N), tsum = shifted(b, NULL, ROWS, N), th = shifted(b, NULL, ROWS, N);
        mx_tensor tnormed = shifted(b, NULL, ROWS, N), tpicked = shifted(b, NULL, ROWS, N);
        const float *tw = kit_floats(b, w, N + 1) + 1, *rstd = kit_floats(b, NULL, ROWS);

        for (int i = 0; i < ROWS * N; i++) {
            sum[i] = x[i] + y[i];
            h[i] = swiglu(x[i], y[i]);
            picked[i] = x[row[i / N] * N + i % N];
        }
        for (int t = 0; t < ROWS; t++) {
            norm_row(normed + t * N, x + t * N, w + 1, N, 0.0009765625);
        }
        b->ops->add(b, tsum, tx, ty);
        b->ops->swiglu_forward(b, th, tx, ty);
        b->ops->rmsnorm_forward(b, tnormed, (float *)(uintptr_t)rstd, tx, tw, 0.0009765625f);
        b->ops->gather_rows(b, tpicked, tx, row, ROWS);
        kit_sync(b);
        kit_near_tensor("sum", sum, tsum, ROWS * N, tolerance_of(p));
        kit_near_tensor("h", h, th, ROWS * N, tolerance_of(p));
        kit_near_tensor("normed", normed, tnormed, ROWS * N, tolerance_of(p));
        kit_near_tensor("picked", picked, tpicked, ROWS * N, 0);
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
        kit_sync(b);
        kit_near_tensor("y", y, ty, ROWS * C, 0);
        b->weight_close(b, w);
        b->close(b);
    }
}

static void check_scatter(mx_precision precision, int64_t rows, int64_t columns, const int32_t *row, int64_t n) {
    mx_backend *b = kit_open(precision, 2, false);
    const int32_t *trow = kit_copy(b, row, sizeof *row * (size_t)n);
    mx_rng r;

    mx_rng_init(&r, 6, "scatter");
    double *x = kit_values(&r, rows * columns, 1), *g = kit_values(&r, n * columns, 1), *scale = kit_values(&r, n, 1);
    double *y = kit_array(n * columns), *dx = kit_array(rows * columns);
    mx_tensor tx = kit_tensor(b, x, rows, columns), ty = kit_tensor(b, NULL, n, columns), tg = kit_tensor(b, g, n, columns);
    mx_tensor tdx = kit_tensor(b, NULL, rows, columns);

    for (int64_t i = 0; i < n * columns; i++) {
        y[i] = x[row[i / columns] * columns + i % columns];
        dx[row[i / columns] * columns + i % columns] += scale[i / columns] * g[i];
    }
    b->ops->gather_rows(b, ty, tx, trow, n);
    b->ops->scatter_rows(b, tdx, tg, kit_floats(b, scale, n), trow, n);
    kit_sync(b);
    kit_near_tensor("gathered", y, ty, n * columns, 0);
    kit_near_tensor("scattered", dx, tdx, rows * columns, precision == MX_PRECISION_BF16 ? 0x1p-8 : 1e-6);
    b->close(b);
}

Test(norms, scatter_is_gathers_transpose_also_when_rows_repeat) {
    static const int32_t few[] = { 3, 29, 3, 7, 0, 3, 7, 12, 13, 14, 29, 3 };
    enum { MANY = 400 };
    int32_t many[MANY];
    mx_precision p;
    mx_rng r;

    mx_rng_init(&r, 6, "rows");
    for (int i = 0; i < MANY; i++) { /* falling, rising, repeated near and far, first and last */
        many[i] = i < 50 ? 8999 - i : i < 100 ? 4 * i : (int32_t)mx_rng_below(&r, 9000) / 300 * 300;
    }
    many[0] = many[MANY - 1] = many[MANY / 2] = 0;
    KIT_EACH_PRECISION(p) {
        check_scatter(p, 30, 300, few, 12);
        check_scatter(p, 1, 1, few, 0);
        check_scatter(p, 9000, 3, many, MANY);
        check_scatter(p, 30, 9, (int32_t[100]){ 0 }, 100);
    }
}
