/* tile.c - every kind of small product this machine has, against double.
 *
 * Operands are exact in bf16 and sums f32: 1e-5. The instructions may add in pairs, so bits differ between kinds. */
#include "kernels/cpu/tile.h"
#include "kernels/cpu/tile_x86.h"
#include "tests/kernels/kit.h"

static bool has(mx_tile_kind kind) {
    return kind == MX_TILE_F32 || kind == MX_TILE_BF16 || (kind == MX_TILE_BF16_AVX512 && mx_tile_has_avx512_bf16()) ||
           (kind == MX_TILE_BF16_AMX && mx_tile_has_amx());
}

static void *operand(mx_dtype dtype, const double *from, int64_t n) {
    void *p = calloc((size_t)n, mx_dtype_bytes(dtype));

    for (int64_t i = 0; i < n; i++) {
        float f = (float)from[i];

        mx_values_convert((char *)p + (size_t)i * mx_dtype_bytes(dtype), dtype, &f, MX_F32, 1);
    }
    return p;
}

/* C = A (m,k) B (k,n), twice over with `add`; B packed from rows or from columns, or as a block of the type. */
static void check(mx_tile_kind kind, int64_t m, int64_t n, int64_t k, int64_t k_used, int64_t n_used, bool by_columns) {
    mx_dtype dtype = kind == MX_TILE_F32 ? MX_F32 : MX_BF16;
    double *a, *b, *expected = kit_array(m * n);
    float *source = calloc((size_t)(k_used * n_used), sizeof *source), *c = calloc((size_t)(m * n), sizeof *c);
    void *packed = calloc(1, mx_tile_packed_bytes(dtype, k, n)), *rows;
    mx_rng r;

    mx_rng_init(&r, (uint64_t)(m * n + k), "tile");
    a = kit_values(&r, m * k, 1);
    b = kit_values(&r, k_used * n_used, 1);
    for (int64_t i = 0; i < k_used; i++) {
        for (int64_t j = 0; j < n_used; j++) {
            source[by_columns ? j * k_used + i : i * n_used + j] = (float)b[i * n_used + j];
            for (int64_t t = 0; t < m; t++) {
                expected[t * n + j] += 2 * 0.5 * a[t * k + i] * b[i * n_used + j];
            }
        }
    }
    rows = operand(dtype, a, m * k);
    mx_tile_pack(dtype, packed, k, n, source, k_used, n_used, by_columns ? 1 : n_used, by_columns ? k_used : 1, 0.5f);
    mx_tile_begin(kind);
    mx_tile_product(kind, c, n, rows, k, packed, m, n, k, false);
    mx_tile_product(kind, c, n, rows, k, packed, m, n, k, true);
    mx_tile_end(kind);
    kit_near_floats("product", expected, c, m * n, 1e-5);
    if (k_used == k && n_used == n && !by_columns) {
        void *block = operand(dtype, b, k * n), *again = calloc(1, mx_tile_packed_bytes(dtype, k, n));

        mx_tile_pack(dtype, packed, k, n, source, k, n, n, 1, 1.0f);
        mx_tile_pack_rows(dtype, again, block, k, n);
        cr_assert_arr_eq(again, packed, mx_tile_packed_bytes(dtype, k, n), "a block packs as its values do");
        free(block), free(again);
    }
    free(a), free(b), free(expected), free(source), free(c), free(packed), free(rows);
}

Test(tile, products_of_every_kind_are_products) {
    static const int64_t SIZES[][5] = { /* m, n, k, and what of k and n is not padding */
        { 32, 64, 32, 32, 64 }, { 16, 64, 32, 16, 64 }, { 32, 16, 64, 64, 16 }, { 16, 16, 32, 7, 5 },
        { 48, 48, 96, 65, 33 }, { 32, 32, 64, 40, 17 }, { 16, 80, 32, 32, 80 }, { 64, 112, 32, 1, 112 },
    };

    for (mx_tile_kind kind = MX_TILE_F32; kind <= MX_TILE_BF16_AMX; kind++) {
        for (size_t i = 0; has(kind) && i < sizeof SIZES / sizeof SIZES[0]; i++) {
            check(kind, SIZES[i][0], SIZES[i][1], SIZES[i][2], SIZES[i][3], SIZES[i][4], false);
            check(kind, SIZES[i][0], SIZES[i][1], SIZES[i][2], SIZES[i][3], SIZES[i][4], true);
        }
    }
}
