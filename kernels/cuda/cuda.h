/* cuda.h - what the CUDA ops share: the backend, its scratch, launches, its GEMM, its frozen weights, its noise.
 *
 * For kernels/cuda only, C++. Every op file implements a few entries of mx_ops as mx_cuda_<op>, listed at the end and in
 * backend.cu's table. Rules of the house:
 *   - T, the activations' type, is float or mx_bf16: kernels are templates of it, both are instantiated, the f32 one being
 *     plain FMA with the same indexing (the golden vectors judge it). Values are rounded where the CPU rounds them: when an
 *     act tensor is written. Sums are f32 or wider;
 *   - nothing reads a device value on the host, waits, or allocates: grids are sized by shapes alone, counts stay on the
 *     device. Launches are queued on c->stream in order;
 *   - the same input gives the same bits: no floating-point atomics; sums across blocks go through scratch and are added in
 *     a fixed order (integer atomics are fine);
 *   - an op takes its scratch from c->scratch and puts it back (mark, reset); its *_scratch_bytes runs the same takes on a
 *     scratch without memory, so the two cannot drift apart. Scratch and saved memory is not zeroed;
 *   - indices into tensors are int64_t: sizes past 2^31 elements are in use;
 *   - rows past rows->live are padding: they may be computed, but nothing they hold reaches a live row, a gradient, a tally. */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include "kernels/cuda/portable.h"

#include <cassert>

extern "C" {
#include "base/rng.h"
#include "kernels/ops.h"
}

/* ------------------------------------------------------------------ scratch */
/* A stack on borrowed device memory. Without memory it only counts: take returns NULL and `most` grows. */
struct mx_cuda_scratch {
    unsigned char *memory;
    size_t bytes, used, most;
};
enum { MX_CUDA_ALIGNMENT = 256, MX_CUDA_PARTIALS = 8192 };

/* 256-byte aligned. Taking more than there is is a programmer's error (assert). */
static inline void *mx_cuda_take(mx_cuda_scratch *s, size_t bytes) {
    size_t at = s->used;

    s->used += (bytes + MX_CUDA_ALIGNMENT - 1) / MX_CUDA_ALIGNMENT * MX_CUDA_ALIGNMENT;
    s->most = s->used > s->most ? s->used : s->most;
    if (!s->memory) {
        assert(s->bytes == 0); /* counting; an op that runs has been given memory */
        return NULL;
    }
    assert(s->used <= s->bytes);
    return s->memory + at;
}
template <class V> static inline V *mx_cuda_take_of(mx_cuda_scratch *s, int64_t count) {
    return static_cast<V *>(mx_cuda_take(s, sizeof(V) * (size_t)count));
}
static inline void mx_cuda_reset(mx_cuda_scratch *s, size_t mark) {
    s->used = mark;
}

/* ------------------------------------------------------------------ the backend */
struct mx_cuda_gemm_state;  /* cuBLASLt's handle, plans, workspace; gemm.cu */
struct mx_cuda_write_ring;  /* page-locked staging; memory.cu */
struct mx_cuda_memory;      /* blocks and the regions they lie in; memory.cu */

struct mx_cuda {
    mx_backend base; /* first: an mx_backend * from this backend is an mx_cuda * */
    int device;
    int architecture;    /* 80, 90, 100 ... */
    int multiprocessors;
    int shared_bytes;    /* most dynamic shared memory of a block (opt-in): 166,912 on sm_80, 232,448 on sm_90 */
    bool host_visible;
    cudaStream_t stream;
    mx_cuda_scratch scratch;
    size_t used[MX_MEMORY_PURPOSES];
    mx_cuda_gemm_state *gemm;
    mx_cuda_write_ring *ring;
    mx_cuda_memory *memory;
    cudaEvent_t event[MX_MARKS];
    uint64_t marks;
    /* where quantised groups are expanded to, one at a time; grows only while weights are opened (weight.cu) */
    void *expanded;
    size_t expanded_bytes;
    int expanding; /* groups that are */
    double *partials; /* MX_CUDA_PARTIALS doubles of device memory, for ops that have no scratch of their own */
    mx_code lost; /* something failed inside an op; told at the next sync, read or wait */
    char lost_text[200];
};

/* Ops return nothing: the first failure inside one is kept and told at the next sync. */
void mx_cuda_lose(mx_cuda *c, mx_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Loses with `what` and CUDA's words when e is not cudaSuccess. */
void mx_cuda_check(mx_cuda *c, cudaError_t e, const char *what);
/* MX_OK, or what was lost, with a hint. */
mx_code mx_cuda_tell_lost(const mx_cuda *c, mx_status *st);

static inline mx_cuda *mx_cuda_of(mx_backend *b) {
    return reinterpret_cast<mx_cuda *>(b);
}
static inline const mx_cuda *mx_cuda_of(const mx_backend *b) {
    return reinterpret_cast<const mx_cuda *>(b);
}
static inline bool mx_cuda_bf16(const mx_cuda *c) {
    return c->base.precision == MX_PRECISION_BF16;
}
static inline size_t mx_cuda_act_bytes(const mx_cuda *c) {
    return mx_cuda_bf16(c) ? 2 : 4;
}

/* Queues a kernel: mx_launch(c, "rmsnorm", rmsnorm_kernel<T>, dim3(rows), dim3(256), shared_bytes, arguments...). An empty grid
 * is no launch. Arguments are converted to the kernel's parameter types. */
template <class... P, class... A>
static void mx_launch(mx_cuda *c, const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... argument) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || c->lost) {
        return;
    }
    assert(shared <= (size_t)c->shared_bytes && block.x * block.y * block.z <= 1024 && grid.y < 65536 && grid.z < 65536);
    if (shared > 48 * 1024) {
        mx_cuda_check(c, cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              (int)shared), name);
    }
#ifdef __CUDACC__
    kernel<<<grid, block, shared, c->stream>>>(static_cast<P>(argument)...);
    mx_cuda_check(c, cudaGetLastError(), name);
    if (c->host_visible) { /* tests look at memory as soon as an op has returned */
        mx_cuda_check(c, cudaStreamSynchronize(c->stream), name);
    }
#else
    auto check = [name](auto value) {
        __builtin_clear_padding(&value); /* what lies there is nobody's address */
        shim::check_argument(name, &value, sizeof value);
    };

    (check(static_cast<P>(argument)), ...);
    shim::launch(name, grid, block, shared, [=] { kernel(static_cast<P>(argument)...); });
#endif
}

static inline unsigned mx_blocks(int64_t items, int64_t per_block) {
    return (unsigned)((items + per_block - 1) / per_block);
}

/* ------------------------------------------------------------------ products (gemm.cu) */
/* Row-major with `ld` values from row to row. `transposed`: the matrix meant is the transpose of what is stored. */
struct mx_matrix {
    const void *data;
    mx_dtype dtype; /* MX_F32 or MX_BF16 */
    int64_t ld;
    bool transposed;
};
static inline mx_matrix mx_matrix_of(const void *data, mx_dtype dtype, int64_t ld) {
    return mx_matrix{ data, dtype, ld, false };
}
static inline mx_matrix mx_matrix_transposed(const void *data, mx_dtype dtype, int64_t ld) {
    return mx_matrix{ data, dtype, ld, true };
}

/* C (m,n) = alpha A (m,k) B (k,n), or C += with `add`; y.transposed is false. Both factors f32 (C f32, no TF32), or both bf16
 * (C f32 or bf16, rounded once). Sums in f32, same bits every time (no split-K through atomics). Any m, n, k >= 0 (k = 0:
 * zero), any ld and alignment of the type, though multiples of 8 values and 16 bytes are what is fast. C overlaps neither
 * factor's elements (it may lie between them: other columns of the same rows). No allocation, no wait: plans are cached by
 * shape, m in steps. */
void mx_cuda_gemm(mx_cuda *c, int64_t m, int64_t n, int64_t k, mx_matrix a, mx_matrix b, mx_matrix y, float alpha, bool add);

mx_code mx_cuda_gemm_open(mx_cuda *c, mx_status *st);
void mx_cuda_gemm_close(mx_cuda *c);
/* Whether cuBLASLt can be opened, without a device: its version and where it is ("13.1.0, /usr/..."), or why not and where was
 * looked (env, device: auto). Opens it. */
bool mx_cuda_cublaslt_look(char *text, size_t size);
/* "cuBLASLt 13.1.0 (/usr/lib/...)", for description and env. Never fails. */
void mx_cuda_gemm_describe(const mx_cuda *c, char *text, size_t size);

/* ------------------------------------------------------------------ frozen weights (weight.cu) */
/* A group as the products see it: act (rows + room.rows, ld), row-major,
 *     [[W_0 | room], [W_1 | room], .., [room]]
 * `ld` is in + room.columns padded to 64 values, and zero in the padding; room.rows is padded to 64 as well. Room is
 * scratch of whoever multiplies: written by linears.cu and experts*.cu before each use, never assumed to persist. */
struct mx_cuda_weights {
    int64_t in, out;           /* out: all matrices' together */
    mx_weight_room room;       /* padded to 64 */
    int64_t ld, rows;          /* rows = out + room.rows */
    mx_dtype dtype;
    void *dense;               /* or NULL: quantised, see mx_cuda_weights_dense */
    /* quantised, as in the file (device memory): */
    mx_file_type type[MX_WEIGHT_GROUP];
    void *raw[MX_WEIGHT_GROUP];
    int64_t part_out[MX_WEIGHT_GROUP];
    int64_t unpermute_heads[MX_WEIGHT_GROUP];
    int parts, open;           /* how many of them are still open */
    bool expands;              /* quantised and multiplied */
    size_t bytes;              /* held */
};
struct mx_weight {
    mx_cuda_weights *group;
    int part;
    int64_t first_row, out, in;
};

/* The group's matrix in device memory: its own, or, of a quantised group, the backend's one expansion buffer, which it is
 * expanded into now (queued) and which the next such call takes over. */
void *mx_cuda_weights_dense(mx_cuda *c, const mx_cuda_weights *g);
mx_code mx_cuda_weights_open(mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use,
                             mx_weight **ret, mx_status *st);
void mx_cuda_weight_close(mx_backend *b, mx_weight *w);
size_t mx_cuda_weights_bytes(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use);
/* What a group needs of the expansion buffer, 0 for a dense one. All groups share it, so a plan adds the largest, once, to
 * MX_MEMORY_WEIGHTS; it lies in none of the arenas. */
size_t mx_cuda_weights_shared_bytes(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use);
/* y (n, in) of type act = rows row[i] of w, whatever it is stored as (embed). row is a device pointer. */
void mx_cuda_weight_rows(mx_cuda *c, const mx_weight *w, const int32_t *row, int64_t n, void *y);

/* ------------------------------------------------------------------ noise */
static inline mx_noise_key mx_noise_of(const mx_noise *n, uint32_t site_offset) {
    mx_rng_key k = mx_rng_make_key(n->seed, n->step);
    mx_noise_key key;

    key.key[0] = k.k[0];
    key.key[1] = k.k[1];
    key.site = n->site + site_offset;
    key.threshold = (uint32_t)lround((double)n->rate * 65536.0);
    key.rate = n->rate;
    key.keep = n->rate < 1.0f ? 1.0f / (1.0f - n->rate) : 0.0f;
    return key;
}
/* y (n, columns) = x where kept, times `scale`, else 0 (elements.cu). Row i's mask is named by question[i] and position[i]. Types:
 * x and y act. rate 0: a copy. Rows of x and y are x_ld and y_ld values apart. */
void mx_cuda_dropout(mx_cuda *c, const mx_noise *noise, uint32_t site_offset, const mx_rows *rows, int64_t columns, const void *x,
                     int64_t x_ld, void *y, int64_t y_ld, float scale);

/* ------------------------------------------------------------------ sizes of a live launch */
/* dst (rows, columns; dst_ld) of type act or f32 = src likewise: the conversions every op needs (elements.cu). */
void mx_cuda_convert(mx_cuda *c, void *dst, mx_dtype dst_type, int64_t dst_ld, const void *src, mx_dtype src_type, int64_t src_ld,
                     int64_t rows, int64_t columns, float scale);

/* ------------------------------------------------------------------ the ops, by file */
extern "C" {
/* embed.cu */
void mx_cuda_embed(mx_backend *q, mx_tensor y, const mx_weight *table, const mx_rows *rows);
void mx_cuda_gather_rows(mx_backend *q, mx_tensor y, mx_tensor x, const int32_t *row, int64_t n);
void mx_cuda_scatter_rows(mx_backend *q, mx_tensor dx, mx_tensor g, const float *scale, const int32_t *row, int64_t n);
/* norms.cu */
void mx_cuda_rmsnorm_forward(mx_backend *q, mx_tensor y, float *rstd, mx_tensor x, const float *w, float eps);
void mx_cuda_rmsnorm_backward(mx_backend *q, mx_tensor dx, mx_tensor dy, mx_tensor x, const float *rstd, const float *w);
/* rope.cu */
void mx_cuda_rope(mx_backend *q, mx_tensor x, int64_t heads, int64_t head_dim, const mx_rows *rows, const float *inverse, bool backward);
/* linears.cu */
size_t mx_cuda_linears_saved_bytes(const mx_backend *q, const mx_linears *l);
size_t mx_cuda_linears_scratch_bytes(const mx_backend *q, const mx_linears *l);
void mx_cuda_linears_forward(mx_backend *q, const mx_linears *l);
void mx_cuda_linears_backward(mx_backend *q, const mx_linears *l);
/* attention.cu */
size_t mx_cuda_attention_scratch_bytes(const mx_backend *q, const mx_attention *a);
void mx_cuda_attention_forward(mx_backend *q, const mx_attention *a);
void mx_cuda_attention_backward(mx_backend *q, const mx_attention *a);
/* elements.cu */
void mx_cuda_swiglu_forward(mx_backend *q, mx_tensor h, mx_tensor g, mx_tensor u);
void mx_cuda_swiglu_backward(mx_backend *q, mx_tensor dg, mx_tensor du, mx_tensor dh, mx_tensor g, mx_tensor u);
void mx_cuda_add(mx_backend *q, mx_tensor y, mx_tensor a, mx_tensor b);
void mx_cuda_jitter_forward(mx_backend *q, mx_tensor xr, mx_tensor x, const mx_rows *rows, mx_noise noise);
void mx_cuda_jitter_backward(mx_backend *q, mx_tensor dx, mx_tensor dxr, const mx_rows *rows, mx_noise noise);
/* router.cu */
size_t mx_cuda_router_scratch_bytes(const mx_backend *q, const mx_router *r);
void mx_cuda_router_forward(mx_backend *q, const mx_router *r);
void mx_cuda_router_backward(mx_backend *q, const mx_router *r);
void mx_cuda_router_losses(mx_backend *q, const mx_router *r, mx_numbers *numbers);
/* experts.cu */
size_t mx_cuda_experts_saved_bytes(const mx_backend *q, const mx_experts *x);
size_t mx_cuda_experts_scratch_bytes(const mx_backend *q, const mx_experts *x);
const char *mx_cuda_experts_slow(const mx_backend *q, const mx_experts *x);
void mx_cuda_experts_forward(mx_backend *q, const mx_experts *x);
void mx_cuda_experts_backward(mx_backend *q, const mx_experts *x);
/* head.cu */
size_t mx_cuda_head_scratch_bytes(const mx_backend *q, const mx_head *h);
void mx_cuda_head_loss(mx_backend *q, const mx_head *h);
void mx_cuda_head_logits(mx_backend *q, float *logits, const mx_weight *w, mx_tensor x);
/* objective.cu */
void mx_cuda_objective(mx_backend *q, const mx_objective *o);
/* optimizer.cu */
void mx_cuda_adamw(mx_backend *q, const mx_adamw *a);
/* dora.cu */
void mx_cuda_row_norms(mx_backend *q, float *norm, const mx_weight *w);
size_t mx_cuda_dora_scratch_bytes(const mx_backend *q, const mx_dora *d);
void mx_cuda_dora_forward(mx_backend *q, const mx_dora *d);
void mx_cuda_dora_backward(mx_backend *q, const mx_dora *d);
}

#endif
