/* attention.cu - attention's entries: which kernels take a head width, and what backward needs beforehand. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/values.h"

/* ------------------------------------------------------------------ what backward needs */
enum { PREPARE_THREADS = 256, STAT_LANES = 8 };

/* What each row sees, and for every 32 of them (a warp) the smallest runs that hold all of it. */
static __global__ void __launch_bounds__(PREPARE_THREADS) seen_kernel(mx_attention_view a) {
    int64_t row = (int64_t)blockIdx.x * PREPARE_THREADS + threadIdx.x;
    mx_seen s = { 0, 0, 0, 0 };

    if (row < a.rows) {
        s = mx_seen_by(a, (int32_t)row);
        a.seen[row] = s;
    }
    bool own = s.own < s.own_end, prefix = s.prefix < s.prefix_end;
    mx_seen block = { prefix ? s.prefix : INT32_MAX, prefix ? s.prefix_end : 0, own ? s.own : INT32_MAX, own ? s.own_end : 0 };

    for (int o = 16; o > 0; o >>= 1) {
        block.prefix = mx_least(block.prefix, __shfl_xor_sync(MX_WARP, block.prefix, o));
        block.prefix_end = mx_greatest(block.prefix_end, __shfl_xor_sync(MX_WARP, block.prefix_end, o));
        block.own = mx_least(block.own, __shfl_xor_sync(MX_WARP, block.own, o));
        block.own_end = mx_greatest(block.own_end, __shfl_xor_sync(MX_WARP, block.own_end, o));
    }
    if (row < a.rows && row % MX_SEEN_BLOCK == 0) {
        a.seen_block[row / MX_SEEN_BLOCK] = block;
    }
}

/* lse and delta = rowsum(dO . O) of each row and head, heads first; eight lanes to each. */
template <class T> static __global__ void __launch_bounds__(PREPARE_THREADS) stat_kernel(mx_attention_view a) {
    int64_t item = (int64_t)blockIdx.x * (PREPARE_THREADS / STAT_LANES) + (int)threadIdx.x / STAT_LANES;
    int64_t row = item / a.heads, head = item % a.heads;
    float delta = 0;

    if (row < a.live) {
        const T *o = static_cast<const T *>(a.o) + item * a.head_dim, *d_o = static_cast<const T *>(a.d_o) + item * a.head_dim;

        for (int i = (int)threadIdx.x % STAT_LANES * MX_PIECE; i < a.head_dim; i += STAT_LANES * MX_PIECE) {
            float x[MX_PIECE], y[MX_PIECE];

            mx_load8(x, o + i, a.head_dim - i, a.aligned);
            mx_load8(y, d_o + i, a.head_dim - i, a.aligned);
            for (int j = 0; j < MX_PIECE; j++) {
                delta += x[j] * y[j];
            }
        }
    }
    for (int l = STAT_LANES / 2; l > 0; l >>= 1) {
        delta += __shfl_xor_sync(MX_WARP, delta, l);
    }
    if (row < a.rows && threadIdx.x % STAT_LANES == 0) {
        mx_query_stat stat = { row < a.live ? a.lse[item] : INFINITY, delta };

        a.stat[head * a.rows + row] = stat;
    }
}

/* ------------------------------------------------------------------ the ops */
static void take(mx_cuda_scratch *s, const mx_attention *a, mx_attention_view *ret) {
    ret->seen = mx_cuda_take_of<mx_seen>(s, a->rows->rows);
    ret->seen_block = mx_cuda_take_of<mx_seen>(s, (a->rows->rows + MX_SEEN_BLOCK - 1) / MX_SEEN_BLOCK);
    ret->stat = mx_cuda_take_of<mx_query_stat>(s, a->rows->rows * a->heads);
}

size_t mx_cuda_attention_scratch_bytes(const mx_backend *, const mx_attention *a) {
    mx_cuda_scratch s = {};
    mx_attention_view view;

    take(&s, a, &view);
    return s.most;
}

static bool aligned(const mx_attention *a, bool backward) {
    const mx_tensor *all[] = { &a->q, &a->k, &a->v, &a->o, &a->dq, &a->dk, &a->dv, &a->d_o };
    bool yes = a->head_dim % 8 == 0;

    for (int i = 0; i < (backward ? 8 : 4); i++) {
        yes = yes && reinterpret_cast<uintptr_t>(all[i]->data) % 16 == 0;
    }
    return yes;
}

static mx_attention_view view_of(const mx_attention *a, bool backward) {
    mx_attention_view v = {};
    const mx_rows *r = a->rows;

    assert(r->rows <= MX_ATTENTION_ROWS_MOST && r->live <= r->rows && a->heads % a->kv_heads == 0);
    assert(a->heads < 65536 && a->head_dim <= 512 && a->q.dim[1] == a->heads * a->head_dim);
    v.q = a->q.data;
    v.k = a->k.data;
    v.v = a->v.data;
    v.o = a->o.data;
    v.lse = a->lse;
    if (backward) {
        v.d_o = a->d_o.data;
        v.dq = a->dq.data;
        v.dk = a->dk.data;
        v.dv = a->dv.data;
    }
    v.row_segment = r->row_segment;
    v.segment = r->segment;
    v.rows = (int32_t)r->rows;
    v.live = (int32_t)r->live;
    v.heads = (int32_t)a->heads;
    v.kv_heads = (int32_t)a->kv_heads;
    v.head_dim = (int32_t)a->head_dim;
    v.scale = 1.0f / sqrtf((float)a->head_dim);
    v.aligned = aligned(a, backward);
    return v;
}

static bool on_tensor_cores(const mx_cuda *c, const mx_attention *a) {
    return mx_cuda_bf16(c) && a->head_dim <= MX_ATTENTION_BF16_WIDEST;
}

void mx_cuda_attention_forward(mx_backend *q, const mx_attention *a) {
    mx_cuda *c = mx_cuda_of(q);
    mx_attention_view v = view_of(a, false);

    on_tensor_cores(c, a) ? mx_cuda_attention_bf16_forward(c, v) : mx_cuda_attention_plain_forward(c, v);
}

void mx_cuda_attention_backward(mx_backend *q, const mx_attention *a) {
    mx_cuda *c = mx_cuda_of(q);
    size_t mark = c->scratch.used;
    mx_attention_view v = view_of(a, true);
    int64_t items = a->rows->rows * a->heads;

    take(&c->scratch, a, &v);
    assert(items / (PREPARE_THREADS / STAT_LANES) < INT32_MAX);
    mx_launch(c, "attention seen", seen_kernel, dim3(mx_blocks(a->rows->rows, PREPARE_THREADS)), dim3(PREPARE_THREADS), 0, v);
    mx_launch(c, "attention delta", mx_cuda_bf16(c) ? stat_kernel<mx_bf16> : stat_kernel<float>,
              dim3(mx_blocks(items, PREPARE_THREADS / STAT_LANES)), dim3(PREPARE_THREADS), 0, v);
    on_tensor_cores(c, a) ? mx_cuda_attention_bf16_backward(c, v) : mx_cuda_attention_plain_backward(c, v);
    mx_cuda_reset(&c->scratch, mark);
}
