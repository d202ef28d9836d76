/* gemm.c - the matrix product, by oneDNN and in plain C, against sums in double. */
#include "kernels/cpu/cpu.h"
#include "tests/kernels/kit.h"

typedef struct form {
    bool a_transposed, b_transposed, add;
    mx_dtype in, out;
} form;

static const int64_t SIZES[][3] = {
    { 1, 1, 1 },    { 1, 7, 5 },     { 16, 16, 16 },  { 3, 64, 33 },    { 65, 17, 129 }, { 64, 64, 64 },
    { 100, 3, 70 }, { 130, 48, 64 }, { 5, 100, 200 }, { 127, 65, 1 },   { 8, 576, 100 }, { 40, 16, 576 },
    { 7, 9, 0 },    { 0, 5, 3 },     { 32, 40, 31 },  { 300, 24, 40 },
};
enum { SIZE_COUNT = sizeof SIZES / sizeof SIZES[0], GAP = 3 /* unused values between lines */ };

typedef struct matrix {
    void *data;
    double *value; /* as stored, lines `ld` long */
    int64_t lines, ld;
    mx_dtype dtype;
} matrix;

static matrix make(mx_rng *r, int64_t lines, int64_t width, mx_dtype dtype) {
    matrix m = { .lines = lines, .ld = width + GAP, .dtype = dtype };
    int64_t n = lines * m.ld + 1;

    m.value = kit_values(r, n, 1);
    m.data = calloc((size_t)n, mx_dtype_bytes(dtype));
    cr_assert(m.data);
    for (int64_t i = 0; i < n; i++) {
        mx_put(m.data, dtype, i, (float)m.value[i]);
    }
    return m;
}

static void drop(matrix *m) {
    free(m->data);
    free(m->value);
}

static double element(const matrix *m, bool transposed, int64_t i, int64_t j) {
    return m->value[transposed ? j * m->ld + i : i * m->ld + j];
}

static void check(mx_cpu *cpu, const form *f, const int64_t *size, bool plain) {
    int64_t m = size[0], n = size[1], k = size[2];
    mx_rng r;

    mx_rng_init(&r, 7, "gemm");
    matrix a = make(&r, f->a_transposed ? k : m, f->a_transposed ? m : k, f->in);
    matrix b = make(&r, f->b_transposed ? n : k, f->b_transposed ? k : n, f->in);
    matrix c = make(&r, m, n, f->out);
    mx_factor left = { .data = a.data, .dtype = f->in, .ld = a.ld, .transposed = f->a_transposed };
    mx_factor right = { .data = b.data, .dtype = f->in, .ld = b.ld, .transposed = f->b_transposed };
    /* k roundings of sums of values below 1; a bf16 result has 7 bits after the first, so it is off by up to 2^-8 of itself. */
    double tolerance = 1e-6 * sqrt((double)k + 1), rounding = f->out == MX_BF16 ? 0x1p-8 : 0;

    if (plain) {
        mx_gemm_plain(m, n, k, left, right, mx_product_of(c.data, f->out, c.ld), f->add);
    } else {
        mx_gemm(cpu, m, n, k, left, right, mx_product_of(c.data, f->out, c.ld), f->add);
    }
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < c.ld; j++) {
            double old = c.value[i * c.ld + j], got = mx_get(c.data, f->out, i * c.ld + j), sum = f->add ? old : 0;

            for (int64_t p = 0; p < k && j < n; p++) {
                sum += element(&a, f->a_transposed, i, p) * element(&b, f->b_transposed, p, j);
            }
            sum = j < n ? sum : old; /* what lies between the lines is not touched */
            cr_assert(fabs(got - sum) <= tolerance + rounding * fabs(sum), "%s %lldx%lldx%lld %s%s%s in %d out %d, (%lld,%lld): %.9g, not %.9g",
                      plain ? "plain" : "oneDNN", (long long)m, (long long)n, (long long)k, f->a_transposed ? "T" : "N",
                      f->b_transposed ? "T" : "N", f->add ? " +=" : "", f->in, f->out, (long long)i, (long long)j, got, sum);
        }
    }
    drop(&a);
    drop(&b);
    drop(&c);
}

static void check_all(mx_backend *backend, bool plain) {
    static const mx_dtype types[][2] = { { MX_F32, MX_F32 }, { MX_BF16, MX_F32 }, { MX_BF16, MX_BF16 } };

    for (int i = 0; i < SIZE_COUNT; i++) {
        for (int way = 0; way < 8; way++) {
            for (int t = 0; t < 3; t++) {
                form f = { .a_transposed = way & 1, .b_transposed = way & 2, .add = way & 4, .in = types[t][0],
                           .out = types[t][1] };

                if (f.in == MX_BF16 && !plain && !mx_cpu_has_bf16()) {
                    continue;
                }
                check(mx_cpu_of(backend), &f, SIZES[i], plain);
            }
        }
    }
    kit_sync(backend);
}

Test(gemm, onednn_gives_the_product_in_every_orientation_type_and_size) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 2, false);

    check_all(b, false);
    b->close(b);
}

Test(gemm, plain_gives_the_product_in_every_orientation_type_and_size) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 2, true);

    check_all(b, true);
    b->close(b);
}

Test(gemm, the_same_product_twice_has_the_same_bits) {
    enum { M = 333, N = 96, K = 777 };
    static float a[M * K], b[N * K], c[2][M * N];
    mx_backend *backend = kit_open(MX_PRECISION_F32, 2, false);
    mx_rng r;

    mx_rng_init(&r, 8, "twice");
    for (int i = 0; i < M * K; i++) {
        a[i] = (float)mx_rng_normal(&r);
    }
    for (int i = 0; i < N * K; i++) {
        b[i] = (float)mx_rng_normal(&r);
    }
    for (int i = 0; i < 2; i++) {
        mx_gemm(mx_cpu_of(backend), M, N, K, mx_factor_of(a, MX_F32, K), mx_factor_transposed(b, MX_F32, K),
                mx_product_of(c[i], MX_F32, N), false);
    }
    cr_assert_eq(memcmp(c[0], c[1], sizeof c[0]), 0);
    backend->close(backend);
}

Test(gemm, more_sizes_than_are_kept_still_come_out_right) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    form f = { .in = MX_F32, .out = MX_F32 };

    for (int64_t n = 1; n <= 400; n++) { /* 256 primitives are kept */
        check(mx_cpu_of(b), &f, (int64_t[]){ 2, n, 3 }, false);
    }
    check(mx_cpu_of(b), &f, (int64_t[]){ 2, 1, 3 }, false);
    kit_sync(b);
    b->close(b);
}

Test(gemm, a_weight_multiplies_in_both_directions) {
    enum { T = 70, OUT = 40, IN = 24 };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        mx_backend *b = kit_open(p, 2, false);
        mx_rng r;

        mx_rng_init(&r, 9, "weight");
        double *w = kit_values(&r, OUT * IN, 1), *x = kit_values(&r, T * IN, 1), *dy = kit_values(&r, T * OUT, 1);
        double *y = kit_array(T * OUT), *dx = kit_array(T * IN);
        mx_weight *weight = kit_weight(b, w, OUT, IN);
        mx_weight_source from = { .type = MX_FILE_F32, .out = OUT, .in = IN };
        mx_tensor tx = kit_tensor(b, x, T, IN), tdy = kit_tensor(b, dy, T, OUT);
        float *ty = kit_floats(b, NULL, T * OUT), *tdx = kit_floats(b, NULL, T * IN);

        for (int t = 0; t < T; t++) {
            for (int o = 0; o < OUT; o++) {
                for (int i = 0; i < IN; i++) {
                    y[t * OUT + o] += w[o * IN + i] * x[t * IN + i];
                    dx[t * IN + i] += w[o * IN + i] * dy[t * OUT + o];
                }
            }
        }
        mx_weight_gemm(mx_cpu_of(b), weight, false, T, mx_factor_of(tx.data, tx.dtype, IN), mx_product_of(ty, MX_F32, OUT), false);
        mx_weight_gemm(mx_cpu_of(b), weight, true, T, mx_factor_of(tdy.data, tdy.dtype, OUT), mx_product_of(tdx, MX_F32, IN), false);
        kit_near_floats("forward", y, ty, T * OUT, 1e-6); /* inputs are exact in both precisions, sums are f32 */
        kit_near_floats("backward", dx, tdx, T * IN, 1e-6);
        cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), b->weights_bytes(b, &from, 1, (mx_weight_room){ 0 }, MX_USE_LINEAR));
        b->weight_close(b, weight);
        cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), 0);
        b->close(b);
    }
}
