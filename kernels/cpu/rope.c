/* rope.c - rotary embedding (arXiv:2104.09864 eq. 34) in Hugging Face's layout: pairs (j, j + D/2).
 *
 * Cosines and sines of all positions seen so far are kept: computing them takes longer than the rotation. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>

struct mx_rope_table {
    int64_t half, positions;
    float *inverse; /* (half), what the table was made from */
    float *cosine, *sine; /* (positions, half) */
};

void mx_rope_table_close(mx_rope_table *table) {
    if (table) {
        free(table->inverse);
        free(table->cosine);
        free(table->sine);
        free(table);
    }
}

/* Angles in f64: at position 8,000 an f32 product is off by 5e-4 rad. */
static void fill(mx_rope_table *table) {
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < table->positions; p++) {
        for (int64_t j = 0; j < table->half; j++) {
            double angle = (double)p * (double)table->inverse[j];

            table->cosine[p * table->half + j] = (float)cos(angle);
            table->sine[p * table->half + j] = (float)sin(angle);
        }
    }
}

/* NULL when there is no memory. */
static mx_rope_table *make(int64_t half, int64_t positions, const float *inverse) {
    mx_rope_table *table = calloc(1, sizeof *table);

    if (!table) {
        return NULL;
    }
    table->half = half;
    table->positions = positions;
    table->inverse = malloc(sizeof *inverse * (size_t)half);
    table->cosine = malloc(sizeof *inverse * (size_t)(half * positions));
    table->sine = malloc(sizeof *inverse * (size_t)(half * positions));
    if (!table->inverse || !table->cosine || !table->sine) {
        mx_rope_table_close(table);
        return NULL;
    }
    memcpy(table->inverse, inverse, sizeof *inverse * (size_t)half);
    fill(table);
    return table;
}

static const mx_rope_table *table_for(mx_cpu *cpu, int64_t half, const mx_rows *rows, const float *inverse) {
    const mx_rope_table *old = cpu->rope;
    int64_t needed = 1;

    for (int64_t t = 0; t < rows->live; t++) {
        assert(rows->position[t] >= 0);
        needed = rows->position[t] >= needed ? rows->position[t] + 1 : needed;
    }
    if (old && old->half == half && old->positions >= needed &&
        memcmp(old->inverse, inverse, sizeof *inverse * (size_t)half) == 0) {
        return old;
    }
    mx_rope_table_close(cpu->rope);
    cpu->rope = make(half, needed > 512 ? 2 * needed : 512, inverse); /* room to grow, so that it rarely does */
    if (!cpu->rope) {
        mx_cpu_lose(cpu, MX_E_MEMORY, "no memory for the rotary table of %lld positions", (long long)needed);
    }
    return cpu->rope;
}

MX_INLINE void rotate_head(void *x, const float *cosine, const float *sine, int64_t half, float direction,
                           mx_dtype dtype) {
#pragma omp simd
    for (int64_t j = 0; j < half; j++) {
        float a = mx_get(x, dtype, j), b = mx_get(x, dtype, j + half), c = cosine[j], s = direction * sine[j];

        mx_put(x, dtype, j, a * c - b * s);
        mx_put(x, dtype, j + half, b * c + a * s);
    }
}

MX_CLONES static void rotate_f32(float *x, const float *cosine, const float *sine, int64_t heads, int64_t half,
                                 float direction) {
    for (int64_t h = 0; h < heads; h++) {
        rotate_head(x + h * 2 * half, cosine, sine, half, direction, MX_F32);
    }
}
MX_CLONES static void rotate_bf16(uint16_t *x, const float *cosine, const float *sine, int64_t heads, int64_t half,
                                  float direction) {
    for (int64_t h = 0; h < heads; h++) {
        rotate_head(x + h * 2 * half, cosine, sine, half, direction, MX_BF16);
    }
}

void mx_cpu_rope(mx_backend *q, mx_tensor x, int64_t heads, int64_t head_dim, const mx_rows *rows, const float *inverse,
                 bool backward) {
    int64_t half = head_dim / 2;
    const mx_rope_table *table = table_for(mx_cpu_of(q), half, rows, inverse);
    float direction = backward ? -1.0f : 1.0f;

    assert(x.dim[1] == heads * head_dim && head_dim % 2 == 0);
    if (!table) {
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows->live; t++) {
        const float *cosine = table->cosine + rows->position[t] * half, *sine = table->sine + rows->position[t] * half;

        if (x.dtype == MX_BF16) {
            rotate_bf16(mx_row_of(&x, t), cosine, sine, heads, half, direction);
        } else {
            rotate_f32(mx_row_of(&x, t), cosine, sine, heads, half, direction);
        }
    }
}
