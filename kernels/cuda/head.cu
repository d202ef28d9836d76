/* head.cu - the vocabulary's logits and their cross entropy, a chunk of rows at a time. */
#include "kernels/cuda/values.h"

static constexpr int THREADS = 512;
static constexpr int64_t CHUNK_BYTES = 128 << 20 /* of f32 logits */, CHUNK_LEAST = 64;

/* Lines of logits are whole 64 values, so that they begin aligned whatever the vocabulary. */
static int64_t line_of(int64_t vocab) {
    return (vocab + 63) / 64 * 64;
}
static int64_t chunk_of(const mx_head *h) {
    int64_t fits = CHUNK_BYTES / (int64_t)sizeof(float) / line_of(h->vocab) / CHUNK_LEAST * CHUNK_LEAST;
    int64_t chunk = fits < CHUNK_LEAST ? CHUNK_LEAST : fits;

    return h->rows < chunk ? h->rows : chunk;
}
static float *take(mx_cuda_scratch *s, const mx_head *h) {
    return mx_cuda_take_of<float>(s, chunk_of(h) * line_of(h->vocab));
}

size_t mx_cuda_head_scratch_bytes(const mx_backend *q, const mx_head *h) {
    mx_cuda_scratch s = {};

    (void)q;
    take(&s, h);
    return s.most;
}

/* ------------------------------------------------------------------ cross entropy */

/* Largest value and sum of e^(z - largest) so far. A NaN is no largest value, but the sum keeps it. */
struct running {
    float top, sum;
};

MX_DEVICE void run_on(running *r, const float z[8], int64_t count) {
    float top = r->top;

#pragma unroll
    for (int j = 0; j < 8; j++) {
        top = j < count ? fmaxf(top, z[j]) : top;
    }
    if (top > r->top) {
        r->sum *= expf(r->top - top);
        r->top = top;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        r->sum += j < count ? expf(z[j] - top) : 0.0f;
    }
}

/* softmax - onehot of the row as act, over the row itself from its beginning: each step's values are read by all before any is
 * written, and what is narrowed never overtakes what is still to be read. */
template <class T>
static __device__ void put_bracket(float *z, int64_t vocab, int64_t target, float top, double sum) {
    T *to = reinterpret_cast<T *>(z);
    float factor = (float)(1.0 / sum), v[8];

    for (int64_t begin = 0; begin < vocab; begin += (int64_t)THREADS * 8) {
        int64_t i = begin + (int64_t)threadIdx.x * 8;

        mx_load8(v, z + i, vocab - i, true);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            v[j] = i + j == target ? (float)((double)expf(v[j] - top) / sum) - 1.0f : expf(v[j] - top) * factor;
        }
        __syncthreads();
        mx_store8(to + i, v, vocab - i, true);
    }
}

/* A block to a row of logits (lines of `line` values, 16-byte aligned). */
template <class T>
static __global__ void __launch_bounds__(THREADS) cross_entropy_kernel(float *logits, int64_t line, int64_t vocab, const int32_t *target,
                                                                      float *nll, bool wanted) {
    __shared__ float tops[32];
    __shared__ double sums[32];
    float *z = logits + blockIdx.x * line, at_target = z[target[blockIdx.x]];
    running r = { -FLT_MAX, 0 };

    for (int64_t i = (int64_t)threadIdx.x * 8; i < vocab; i += (int64_t)THREADS * 8) {
        float v[8];

        mx_load8(v, z + i, vocab - i, true);
        run_on(&r, v, vocab - i);
    }

    float top = mx_block_max(r.top, tops);
    double sum = mx_block_sum(r.sum != 0 ? (double)(r.sum * expf(r.top - top)) : 0.0, sums);

    if (threadIdx.x == 0) {
        nll[blockIdx.x] = (float)(log(sum) + (double)top - (double)at_target);
    }
    if (wanted) {
        put_bracket<T>(z, vocab, target[blockIdx.x], top, sum);
    }
}

template <class T> static void chunk_loss(mx_cuda *c, const mx_head *h, const T *weights, float *logits, int64_t begin, int64_t count) {
    int64_t width = h->x.dim[1], line = line_of(h->vocab), ld = h->w->group->ld;
    mx_dtype act = h->x.dtype;
    mx_matrix x = mx_matrix_of(static_cast<const T *>(h->x.data) + begin * width, act, width);

    mx_cuda_gemm(c, count, h->vocab, width, x, mx_matrix_transposed(weights, act, ld), mx_matrix_of(logits, MX_F32, line), 1.0f, false);
    mx_launch(c, "cross entropy", cross_entropy_kernel<T>, dim3((unsigned)count), dim3(THREADS), 0, logits, line, h->vocab,
              h->target + begin, h->nll + begin, h->g.data != NULL);
    if (h->g.data) {
        int64_t act_line = line * (int64_t)(sizeof(float) / sizeof(T)); /* rows of act lie where the rows of f32 did */
        T *g = static_cast<T *>(h->g.data) + begin * width;

        mx_cuda_gemm(c, count, width, h->vocab, mx_matrix_of(logits, act, act_line), mx_matrix_of(weights, act, ld),
                     mx_matrix_of(g, act, width), 1.0f, false);
    }
}

/* The head's own rows of its group. */
template <class T> static const T *weights_of(mx_cuda *c, const mx_weight *w) {
    return static_cast<const T *>(mx_cuda_weights_dense(c, w->group)) + w->first_row * w->group->ld;
}

template <class T> static void loss(mx_cuda *c, const mx_head *h, float *logits) {
    const T *weights = weights_of<T>(c, h->w);
    int64_t chunk = chunk_of(h);

    for (int64_t begin = 0; begin < h->rows; begin += chunk) {
        chunk_loss<T>(c, h, weights, logits, begin, h->rows - begin < chunk ? h->rows - begin : chunk);
    }
}

void mx_cuda_head_loss(mx_backend *q, const mx_head *h) {
    mx_cuda *c = mx_cuda_of(q);
    size_t mark = c->scratch.used;
    float *logits = take(&c->scratch, h);

    assert(h->w->out == h->vocab && h->w->in == h->x.dim[1] && h->x.dtype == h->w->group->dtype);
    h->x.dtype == MX_BF16 ? loss<mx_bf16>(c, h, logits) : loss<float>(c, h, logits);
    mx_cuda_reset(&c->scratch, mark);
}

void mx_cuda_head_logits(mx_backend *q, float *logits, const mx_weight *w, mx_tensor x) {
    mx_cuda *c = mx_cuda_of(q);
    const void *weights = x.dtype == MX_BF16 ? static_cast<const void *>(weights_of<mx_bf16>(c, w)) : weights_of<float>(c, w);

    mx_cuda_gemm(c, x.dim[0], w->out, w->in, mx_matrix_of(x.data, x.dtype, w->in), mx_matrix_transposed(weights, x.dtype, w->group->ld),
                 mx_matrix_of(logits, MX_F32, w->out), 1.0f, false);
}
