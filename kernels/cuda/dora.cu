/* dora.cu - row norms of frozen weights, and DoRA's scale c = m / n (arXiv:2402.09353 eq. 5).
 *
 * n[o]^2 = ||W[o]||^2 + 2 s sum_r (W A^T)[o,r] B[o,r] + s^2 sum_rq B[o,r] (A A^T)[r,q] B[o,q] (METHODS 2.4): W A^T and A A^T are
 * products, BA is never built. n is a constant for the gradient (section 4.3), so backward is dm += dc / n and nothing else. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/values.h"

enum { ROW_THREADS = 128, THREADS = 256, GRAM_ROWS = 256 };

struct dora_work {
    void *a;     /* act (E*R, in) */
    float *wa;   /* (out, E*R) = W A^T */
    float *gram; /* (E, R, R) = A_e A_e^T, by `together` experts at a time: (together*R, together*R) of them */
    float *norm; /* (out) ||W|| */
    int64_t together;
};

static dora_work take(mx_cuda_scratch *s, const mx_dora *d) {
    int64_t er = d->experts * d->rank, together = d->rank < GRAM_ROWS ? GRAM_ROWS / (d->rank > 0 ? d->rank : 1) : 1;
    dora_work w = {};

    w.together = together < d->experts ? together : d->experts;
    w.a = mx_cuda_take_of<float>(s, er * d->in);
    w.wa = mx_cuda_take_of<float>(s, d->out * er);
    w.gram = mx_cuda_take_of<float>(s, (d->experts + w.together - 1) / w.together * w.together * d->rank * w.together * d->rank);
    w.norm = mx_cuda_take_of<float>(s, d->out);
    return w;
}

size_t mx_cuda_dora_scratch_bytes(const mx_backend *q, const mx_dora *d) {
    mx_cuda_scratch s = {};

    (void)q;
    take(&s, d);
    return s.most;
}

/* ------------------------------------------------------------------ row norms */

/* A block for each row. */
template <class T> static __global__ void row_norms_kernel(float *norm, const T *w, int64_t ld, int64_t in) {
    __shared__ float shared[32];
    const T *row = w + (int64_t)blockIdx.x * ld;
    float sum = 0, v[8];

    for (int64_t i = (int64_t)threadIdx.x * MX_PIECE; i < in; i += ROW_THREADS * MX_PIECE) {
        mx_load8(v, row + i, in - i, true); /* its lines are aligned */
        for (int j = 0; j < 8; j++) {
            sum += v[j] * v[j];
        }
    }
    sum = mx_block_sum(sum, shared);
    if (threadIdx.x == 0) {
        norm[blockIdx.x] = sqrtf(sum);
    }
}

template <class T> static void row_norms(mx_cuda *c, float *norm, const mx_weight *w, const void *dense) {
    const T *rows = static_cast<const T *>(dense) + w->first_row * w->group->ld;

    mx_launch(c, "row norms", row_norms_kernel<T>, dim3((unsigned)w->out), dim3(ROW_THREADS), 0, norm, rows, w->group->ld, w->in);
}

static void norms_of(mx_cuda *c, float *norm, const mx_weight *w, const void *dense) {
    if (mx_cuda_bf16(c)) {
        row_norms<mx_bf16>(c, norm, w, dense);
    } else {
        row_norms<float>(c, norm, w, dense);
    }
}

void mx_cuda_row_norms(mx_backend *q, float *norm, const mx_weight *w) {
    mx_cuda *c = mx_cuda_of(q);

    norms_of(c, norm, w, mx_cuda_weights_dense(c, w->group));
}

/* ------------------------------------------------------------------ forward */

struct dora_values {
    const float *b, *wa, *gram, *norm, *m;
    float *n, *c;
    int64_t out, rank, experts, together;
    double scale;
};

/* A warp for each row of each expert. */
static __global__ void dora_kernel(dora_values d) {
    int64_t i = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32, e = i / d.out, o = i % d.out;
    int64_t side = d.together * d.rank, within = e % d.together * d.rank;
    int lane = (int)threadIdx.x % 32;
    double cross = 0, square = 0, s = d.scale;

    if (e >= d.experts) { /* the whole warp */
        return;
    }
    const float *b = d.b + i * d.rank, *wa = d.wa + (o * d.experts + e) * d.rank;
    const float *gram = d.gram + e / d.together * side * side + within * side + within;

    for (int64_t r = lane; r < d.rank; r += 32) {
        cross += (double)wa[r] * b[r];
    }
    for (int64_t r = 0; r < d.rank; r++) {
        double sum = 0;

        for (int64_t p = lane; p < d.rank; p += 32) {
            sum += (double)gram[r * side + p] * b[p];
        }
        square += sum * b[r];
    }
    cross = mx_warp_sum(cross);
    square = mx_warp_sum(square);
    if (lane == 0) {
        const double least = 1e-60; /* a row of zeros has m = 0 from the start: its scale is to be 0, not 0/0 */
        double n2 = (double)d.norm[o] * d.norm[o] + 2 * s * cross + s * s * square;
        float n = (float)sqrt(n2 > least ? n2 : least);

        d.n[i] = n;
        d.c[i] = n > 0 ? d.m[i] / n : 0; /* by the rounded n: exactly 1 while m is n */
    }
}

void mx_cuda_dora_forward(mx_backend *q, const mx_dora *d) {
    mx_cuda *c = mx_cuda_of(q);
    size_t mark = c->scratch.used;
    dora_work w = take(&c->scratch, d);
    const mx_cuda_weights *g = d->w->group;
    mx_dtype act = mx_activation_type(q);
    int64_t er = d->experts * d->rank, side = w.together * d->rank;
    char *dense = static_cast<char *>(mx_cuda_weights_dense(c, g));

    assert(d->w->out == d->out && d->w->in == d->in);
    norms_of(c, w.norm, d->w, dense);
    mx_cuda_convert(c, w.a, act, d->in, d->a, MX_F32, d->in, er, d->in, 1.0f);
    mx_cuda_gemm(c, d->out, er, d->in, mx_matrix_of(dense + (size_t)(d->w->first_row * g->ld) * mx_dtype_bytes(act), act, g->ld),
                 mx_matrix_transposed(w.a, act, d->in), mx_matrix_of(w.wa, MX_F32, er), 1.0f, false);
    for (int64_t first = 0; first < d->experts; first += w.together) {
        int64_t count = (d->experts - first < w.together ? d->experts - first : w.together) * d->rank;
        const float *a = d->a + first * d->rank * d->in;

        mx_cuda_gemm(c, count, count, d->in, mx_matrix_of(a, MX_F32, d->in), mx_matrix_transposed(a, MX_F32, d->in),
                     mx_matrix_of(w.gram + first / w.together * side * side, MX_F32, side), 1.0f, false);
    }
    dora_values v = { d->b, w.wa, w.gram, w.norm, d->m, d->n, d->c, d->out, d->rank, d->experts, w.together, d->scale };

    mx_launch(c, "dora", dora_kernel, dim3(mx_blocks(d->experts * d->out, THREADS / 32)), dim3(THREADS), 0, v);
    mx_cuda_reset(&c->scratch, mark);
}

/* ------------------------------------------------------------------ backward */

static __global__ void dora_backward_kernel(float *dm, const float *dc, const float *n, int64_t count) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (i < count) {
        dm[i] += dc[i] / n[i];
    }
}

void mx_cuda_dora_backward(mx_backend *q, const mx_dora *d) {
    int64_t count = d->experts * d->out;

    mx_launch(mx_cuda_of(q), "dm", dora_backward_kernel, dim3(mx_blocks(count, THREADS)), dim3(THREADS), 0, d->dm, d->dc, d->n, count);
}
