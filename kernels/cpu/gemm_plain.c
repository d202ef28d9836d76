/* gemm_plain.c - the matrix product in plain C: what oneDNN is held against, and what computes bf16 products on a
 * processor that has no bf16.
 *
 * Tiles of 64 x 64 of C, one thread each; factors are widened to f32 and packed 128 deep, so that the inner
 * loop reads straight lines whatever the storage. */
#include "kernels/cpu/cpu.h"

enum { TILE = 64, DEPTH = 128, LANES = 16, ROWS = 4 };

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

typedef struct tile_memory {
    float a[TILE][DEPTH], b[DEPTH][TILE], c[TILE][TILE];
} tile_memory;

static float value(const mx_factor *f, int64_t row, int64_t column) {
    int64_t at = f->transposed ? column * f->ld + row : row * f->ld + column;

    return f->dtype == MX_BF16 ? mx_bf16_widen(((const uint16_t *)f->data)[at]) : ((const float *)f->data)[at];
}

/* to[rows][width] = f[row.., column..], zeros beyond. Runs along the storage's lines. */
static void pack(float *to, int64_t width, const mx_factor *f, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    if (f->transposed) {
        for (int64_t j = 0; j < columns; j++) {
            for (int64_t i = 0; i < rows; i++) {
                to[i * width + j] = value(f, row + i, column + j);
            }
        }
    } else {
        for (int64_t i = 0; i < rows; i++) {
            size_t at = (size_t)((row + i) * f->ld + column) * mx_dtype_bytes(f->dtype);

            mx_values_convert(to + i * width, MX_F32, (const char *)f->data + at, f->dtype, columns);
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = columns; j < width; j++) {
            to[i * width + j] = 0;
        }
    }
}

/* c[64][64] += a[64][depth] b[depth][64]: four rows by 64 columns stay in registers. */
MX_CLONES static void multiply(tile_memory *t, int64_t rows, int64_t depth) {
    for (int64_t i = 0; i < rows; i += ROWS) {
        for (int64_t j = 0; j < TILE; j += 2 * LANES) {
            lanes sum[ROWS][2];

            for (int r = 0; r < ROWS; r++) {
                memcpy(sum[r], &t->c[i + r][j], sizeof sum[r]);
            }
            for (int64_t p = 0; p < depth; p++) {
                lanes b[2];

                memcpy(b, &t->b[p][j], sizeof b);
                for (int r = 0; r < ROWS; r++) {
                    sum[r][0] += t->a[i + r][p] * b[0];
                    sum[r][1] += t->a[i + r][p] * b[1];
                }
            }
            for (int r = 0; r < ROWS; r++) {
                memcpy(&t->c[i + r][j], sum[r], sizeof sum[r]);
            }
        }
    }
}

static void put(const mx_product *c, int64_t row, int64_t rows, int64_t column, int64_t columns, tile_memory *t, bool add) {
    for (int64_t i = 0; i < rows; i++) {
        char *to = (char *)c->data + (size_t)((row + i) * c->ld + column) * mx_dtype_bytes(c->dtype);

        if (add) {
            float *old = t->a[0]; /* no longer needed */

            mx_values_convert(old, MX_F32, to, c->dtype, columns);
            for (int64_t j = 0; j < columns; j++) {
                t->c[i][j] += old[j];
            }
        }
        mx_values_convert(to, c->dtype, t->c[i], MX_F32, columns);
    }
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

void mx_gemm_plain(int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add) {
    int64_t row_tiles = (m + TILE - 1) / TILE, column_tiles = (n + TILE - 1) / TILE;

#pragma omp parallel
    {
        _Alignas(64) tile_memory t;

#pragma omp for schedule(static)
        for (int64_t tile = 0; tile < row_tiles * column_tiles; tile++) {
            int64_t row = tile / column_tiles * TILE, column = tile % column_tiles * TILE;
            int64_t rows = least(TILE, m - row), columns = least(TILE, n - column);

            memset(&t, 0, sizeof t);
            for (int64_t p = 0; p < k; p += DEPTH) {
                int64_t depth = least(DEPTH, k - p);

                pack(t.a[0], DEPTH, &a, row, rows, p, depth);
                pack(t.b[0], TILE, &b, p, depth, column, columns);
                multiply(&t, (rows + ROWS - 1) / ROWS * ROWS, depth);
            }
            put(&c, row, rows, column, columns, &t, add);
        }
    }
}
