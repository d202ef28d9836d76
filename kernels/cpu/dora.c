/* dora.c - row norms of frozen weights, and DoRA's scale c = m / n (arXiv:2402.09353 eq. 5).
 *
 * n is a constant for the gradient (section 4.3), so backward is dm += dc / n and nothing else. */
#include "kernels/cpu/cpu.h"

/* A row of zeros has m = 0 from the start: its scale is to be 0, not 0/0. */
static const double NORM_MIN = 1e-30;

typedef struct work {
    void *a;     /* (E*R, in) of the weight's type */
    float *wa;   /* (out, E*R) = W A^T */
    float *gram; /* (E, R, R) = A_e A_e^T */
    float *norm; /* (out) ||W|| */
} work;

static work take(mx_scratch *s, const mx_dora *d) {
    int64_t er = d->experts * d->rank;
    work w = { 0 };

    w.a = mx_scratch_take(s, sizeof(float) * (size_t)(er * d->in));
    w.wa = MX_SCRATCH(s, float, d->out * er);
    w.gram = MX_SCRATCH(s, float, er * d->rank);
    w.norm = MX_SCRATCH(s, float, d->out);
    return w;
}

size_t mx_cpu_dora_scratch_bytes(const mx_backend *q, const mx_dora *d) {
    mx_scratch s = { 0 };

    (void)q;
    take(&s, d);
    return s.most;
}

MX_CLONES static float dot(const float *x, const float *y, int64_t n) {
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

MX_CLONES static float square_sum_bf16(const uint16_t *x, int64_t n) {
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float v = mx_bf16_widen(x[i]);

        sum += v * v;
    }
    return sum;
}

void mx_cpu_row_norms(mx_backend *q, float *norm, const mx_weight *w) {
#pragma omp parallel for schedule(static) num_threads(mx_cpu_of(q)->threads)
    for (int64_t o = 0; o < w->out; o++) {
        if (w->dtype == MX_BF16) {
            norm[o] = sqrtf(square_sum_bf16((const uint16_t *)w->rows + o * w->in, w->in));
        } else {
            const float *row = (const float *)w->rows + o * w->in;

            norm[o] = sqrtf(dot(row, row, w->in));
        }
    }
}

/* ||W + sBA||^2 of one row: ||W||^2 + 2 s sum_r (W A^T)_r B_r + s^2 sum_rq B_r (A A^T)_rq B_q (METHODS 2.4). */
static double row_norm(const mx_dora *d, const work *w, int64_t e, int64_t o) {
    int64_t rank = d->rank;
    const float *b = d->b + (e * d->out + o) * rank;
    const float *wa = w->wa + (o * d->experts + e) * rank, *gram = w->gram + e * rank * rank;
    double s = d->scale, cross = 0, square = 0, n2;

    for (int64_t r = 0; r < rank; r++) {
        double sum = 0;

        for (int64_t p = 0; p < rank; p++) {
            sum += (double)gram[r * rank + p] * b[p];
        }
        square += sum * b[r];
        cross += (double)wa[r] * b[r];
    }
    n2 = (double)w->norm[o] * w->norm[o] + 2 * s * cross + s * s * square;
    return sqrt(n2 > NORM_MIN * NORM_MIN ? n2 : NORM_MIN * NORM_MIN);
}

void mx_cpu_dora_forward(mx_backend *q, const mx_dora *d) {
    mx_cpu *cpu = mx_cpu_of(q);
    size_t mark = cpu->scratch.used;
    work w = take(&cpu->scratch, d);
    int64_t rank = d->rank, er = d->experts * rank;

    assert(d->w->out == d->out && d->w->in == d->in);
    mx_cpu_row_norms(q, w.norm, d->w);
    mx_values_convert_all(w.a, d->w->dtype, d->a, MX_F32, er * d->in);
    mx_gemm(cpu, d->out, er, d->in, mx_factor_of(d->w->rows, d->w->dtype, d->in),
            mx_factor_transposed(w.a, d->w->dtype, d->in), mx_product_of(w.wa, MX_F32, er), false);
#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t i = 0; i < er; i++) {
        int64_t e = i / rank;

        for (int64_t p = 0; p < rank; p++) {
            w.gram[i * rank + p] = dot(d->a + i * d->in, d->a + (e * rank + p) * d->in, d->in);
        }
    }
#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t i = 0; i < d->experts * d->out; i++) {
        double n = row_norm(d, &w, i / d->out, i % d->out);

        d->n[i] = (float)n;
        d->c[i] = d->n[i] > 0 ? d->m[i] / d->n[i] : 0; /* by the rounded n: exactly 1 while m is n */
    }
    mx_scratch_reset(&cpu->scratch, mark);
}

void mx_cpu_dora_backward(mx_backend *q, const mx_dora *d) {
#pragma omp parallel for schedule(static) num_threads(mx_cpu_of(q)->threads)
    for (int64_t i = 0; i < d->experts * d->out; i++) {
        d->dm[i] += d->dc[i] / d->n[i];
    }
}
