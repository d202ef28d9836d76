/* block.c - four rows by up to 64 columns of C stay in registers while k runs. */
#include "kernels/cpu/block.h"
#include "kernels/cpu/cpu.h"

typedef float lanes __attribute__((vector_size(MX_BLOCK_COLUMNS * sizeof(float))));

/* W vectors wide, a constant at every call. */
MX_INLINE void tile(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_column, const float *b, int64_t ldb,
                    int64_t k, bool add, const int W) {
    lanes sum[MX_BLOCK_ROWS][4] = { 0 };

    for (int64_t p = 0; p < k; p++) {
        lanes right[4];

        for (int w = 0; w < W; w++) {
            memcpy(&right[w], b + p * ldb + w * MX_BLOCK_COLUMNS, sizeof right[w]);
        }
        for (int r = 0; r < MX_BLOCK_ROWS; r++) {
            float left = a[r * a_row + p * a_column];

            for (int w = 0; w < W; w++) {
                sum[r][w] += left * right[w];
            }
        }
    }
    for (int r = 0; r < MX_BLOCK_ROWS; r++) {
        for (int w = 0; w < W; w++) {
            float *to = c + r * ldc + w * MX_BLOCK_COLUMNS;
            lanes old;

            if (add) {
                memcpy(&old, to, sizeof old);
                sum[r][w] += old;
            }
            memcpy(to, &sum[r][w], sizeof old);
        }
    }
}

MX_CLONES void mx_block_product(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_column, const float *b,
                                int64_t ldb, int64_t m, int64_t n, int64_t k, bool add) {
    for (int64_t j = 0; j < n; j += 4 * MX_BLOCK_COLUMNS) {
        for (int64_t i = 0; i < m; i += MX_BLOCK_ROWS) {
            float *to = c + i * ldc + j;
            const float *left = a + i * a_row;

            switch ((n - j) / MX_BLOCK_COLUMNS) {
            case 1:
                tile(to, ldc, left, a_row, a_column, b + j, ldb, k, add, 1);
                break;
            case 2:
                tile(to, ldc, left, a_row, a_column, b + j, ldb, k, add, 2);
                break;
            case 3:
                tile(to, ldc, left, a_row, a_column, b + j, ldb, k, add, 3);
                break;
            default:
                tile(to, ldc, left, a_row, a_column, b + j, ldb, k, add, 4);
                break;
            }
        }
    }
}
