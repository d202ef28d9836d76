/* embed.c - rows looked up, picked and put back. */
#include "kernels/cpu/cpu.h"

void mx_cpu_embed(mx_backend *q, mx_tensor y, const mx_weight *table, const mx_rows *rows) {
    size_t bytes = (size_t)table->in * mx_dtype_bytes(table->dtype);

    (void)q;
    assert(y.dtype == table->dtype && y.dim[1] == table->in);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows->rows; t++) {
        if (t < rows->live) {
            int64_t token = rows->token[t];

            assert(token >= 0 && token < table->out);
            memcpy(mx_row_of(&y, t), (const char *)table->rows + (size_t)token * bytes, bytes);
        } else {
            memset(mx_row_of(&y, t), 0, bytes);
        }
    }
}

void mx_cpu_gather_rows(mx_backend *q, mx_tensor y, mx_tensor x, const int32_t *row, int64_t n) {
    size_t bytes = (size_t)x.dim[1] * mx_dtype_bytes(x.dtype);

    (void)q;
    assert(y.dtype == x.dtype && y.dim[1] == x.dim[1]);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        memcpy(mx_row_of(&y, i), mx_row_of(&x, row[i]), bytes);
    }
}

enum { PIECE = 256 };

MX_CLONES static void add_scaled(float *sum, const void *g, mx_dtype dtype, int64_t begin, int64_t count, float scale) {
    if (dtype == MX_BF16) {
        for (int64_t j = 0; j < count; j++) {
            sum[j] += scale * mx_get(g, MX_BF16, begin + j);
        }
    } else {
        for (int64_t j = 0; j < count; j++) {
            sum[j] += scale * mx_get(g, MX_F32, begin + j);
        }
    }
}

MX_CLONES static bool named_before(const int32_t *row, int64_t i) {
    int32_t wanted = row[i], found = 0;

    for (int64_t m = 0; m < i; m++) {
        found |= row[m] == wanted;
    }
    return found != 0;
}

MX_CLONES static bool named_after(const int32_t *row, int64_t i, int64_t n) {
    int32_t wanted = row[i], found = 0;

    for (int64_t m = i + 1; m < n; m++) {
        found |= row[m] == wanted;
    }
    return found != 0;
}

/* All that goes to row[first], summed in f32 in the order of n and rounded once. */
static void put_row(mx_tensor *dx, const mx_tensor *g, const float *scale, const int32_t *row, int64_t first, int64_t n) {
    int64_t columns = dx->dim[1], end = named_after(row, first, n) ? n : first + 1;

    for (int64_t j = 0; j < columns; j += PIECE) {
        int64_t count = columns - j < PIECE ? columns - j : PIECE;
        char *to = (char *)mx_row_of(dx, row[first]) + (size_t)j * mx_dtype_bytes(dx->dtype);
        float sum[PIECE] = { 0 };

        for (int64_t i = first; i < end; i++) {
            if (row[i] == row[first]) {
                add_scaled(sum, mx_row_of(g, i), g->dtype, j, count, scale[i]);
            }
        }
        mx_values_convert(to, dx->dtype, sum, MX_F32, count);
    }
}

/* A row that several loss rows name (the last of a context that a question's choices share) is put by the first of
 * them. Looking for it is n^2 / 2 comparisons, far below the n V C products that made g. */
void mx_cpu_scatter_rows(mx_backend *q, mx_tensor dx, mx_tensor g, const float *scale, const int32_t *row, int64_t n) {
    size_t bytes = (size_t)dx.dim[1] * mx_dtype_bytes(dx.dtype);

    (void)q;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < dx.dim[0]; t++) {
        memset(mx_row_of(&dx, t), 0, bytes);
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        assert(row[i] >= 0 && row[i] < dx.dim[0]);
        if (!named_before(row, i)) {
            put_row(&dx, &g, scale, row, i, n);
        }
    }
}
