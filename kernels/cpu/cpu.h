/* cpu.h - what the CPU's ops share: the backend, its scratch, its GEMM, its frozen weights, its noise.
 *
 * For kernels/cpu only. Every op file implements a few entries of mx_ops as mx_cpu_<op> and is
 * listed in backend.c's table. Rules of the house:
 *   - parallel loops split over rows or outputs statically, and no sum depends on who computed what:
 *     the same inputs and thread count give the same bits;
 *   - an op takes its scratch from cpu->scratch and puts it back (mark, reset); its *_scratch_bytes runs
 *     the same takes on a scratch without memory, so the two cannot drift apart;
 *   - element loops are plain C in small functions marked MX_CLONES, called from inside parallel regions. */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include "kernels/ops.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Compiled three times, chosen at load time: AVX-512, AVX2, plain x86-64. Put it on the function that holds the
 * element loop, not on one that opens a parallel region (outlined regions are not cloned). */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MX_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MX_CLONES
#endif

/* ------------------------------------------------------------------ scratch */
/* A stack on borrowed memory. Without memory it only counts: take returns NULL and `most` grows. */
typedef struct mx_scratch {
    unsigned char *memory;
    size_t bytes, used, most;
} mx_scratch;

/* 64-byte aligned, not zeroed. Taking more than there is is a programmer's error (assert). */
void *mx_scratch_take(mx_scratch *s, size_t bytes);
#define MX_SCRATCH(s, type, count) ((type *)mx_scratch_take((s), sizeof(type) * (size_t)(count)))
/* size_t mark = s->used; ... mx_scratch_reset(s, mark): gives back everything taken since. */
static inline void mx_scratch_reset(mx_scratch *s, size_t mark) {
    s->used = mark;
}

/* ------------------------------------------------------------------ the backend */
typedef struct mx_gemm_engine mx_gemm_engine; /* oneDNN's engine, stream, primitives; gemm.c */
typedef struct mx_rope_table mx_rope_table;   /* cosines and sines; rope.c */

typedef struct mx_cpu {
    mx_backend base; /* first: an mx_backend * from this backend is an mx_cpu * */
    int threads;
    bool plain_gemm; /* every product by gemm_plain.c: asked for, or bf16 without the processor's help */
    mx_scratch scratch;
    size_t used[MX_MEMORY_PURPOSES];
    mx_gemm_engine *gemm;
    mx_rope_table *rope;
    uint64_t marks;
    mx_code lost; /* something failed inside an op; told at the next sync */
    char lost_text[160];
} mx_cpu;

mx_code mx_cpu_open(const mx_backend_options *o, mx_backend **ret, mx_status *st);

/* Ops return nothing: the first failure inside one is kept and told at the next sync. */
void mx_cpu_lose(mx_cpu *cpu, mx_code code, const char *fmt, ...) MX_PRINTF(3, 4);
void mx_rope_table_close(mx_rope_table *table);

static inline mx_cpu *mx_cpu_of(mx_backend *b) {
    return (mx_cpu *)b;
}
static inline const mx_cpu *mx_cpu_of_const(const mx_backend *b) {
    return (const mx_cpu *)b;
}

/* ------------------------------------------------------------------ products */
/* A factor or a product: row-major with `ld` values from row to row. `transposed`: the matrix meant is the
 * transpose of what is stored. */
typedef struct mx_factor {
    const void *data;
    mx_dtype dtype; /* MX_F32 or MX_BF16 */
    int64_t ld;
    bool transposed;
} mx_factor;
typedef struct mx_product {
    void *data;
    mx_dtype dtype;
    int64_t ld;
} mx_product;

static inline mx_factor mx_factor_of(const void *data, mx_dtype dtype, int64_t ld) {
    return (mx_factor){ .data = data, .dtype = dtype, .ld = ld };
}
static inline mx_factor mx_factor_transposed(const void *data, mx_dtype dtype, int64_t ld) {
    return (mx_factor){ .data = data, .dtype = dtype, .ld = ld, .transposed = true };
}
static inline mx_product mx_product_of(void *data, mx_dtype dtype, int64_t ld) {
    return (mx_product){ .data = data, .dtype = dtype, .ld = ld };
}

/* C (m,n) = A (m,k) B (k,n), or C += with `add`. Both factors f32 (C f32), or both bf16 (C f32 or bf16, rounded once).
 * Sums in f32, same bits every time. Any m, n, k >= 0 (k = 0: zero). C overlaps neither factor.
 * Uses all threads: never call it from a parallel region.
 *
 * m may vary from call to call (rows): it is cut into a multiple of 64 and a padded rest, so that few oneDNN
 * primitives are made; so may k when A is transposed and B is not (a gradient's sum over rows). */
void mx_gemm(mx_cpu *cpu, int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add);
/* The same contract in plain C, multi-threaded. Its sums run in another order. */
void mx_gemm_plain(int64_t m, int64_t n, int64_t k, mx_factor a, mx_factor b, mx_product c, bool add);

mx_code mx_gemm_open(mx_cpu *cpu, mx_status *st);
void mx_gemm_close(mx_cpu *cpu);

/* ------------------------------------------------------------------ frozen weights */
struct mx_weight {
    int64_t out, in;
    mx_dtype dtype; /* the precision's activation type */
    void *rows;     /* (out, in), row-major */
    size_t bytes;
};

/* forward: y (rows, out) = x (rows, in) W^T; backward: y (rows, in) = x (rows, out) W. x of the weight's type, `x.transposed`
 * false; y as mx_gemm allows. */
void mx_weight_gemm(mx_cpu *cpu, const mx_weight *w, bool backward, int64_t rows, mx_factor x, mx_product y, bool add);

/* ------------------------------------------------------------------ bf16 */
static inline float mx_bf16_widen(uint16_t v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}
/* To nearest, ties to even; a NaN stays one. */
static inline uint16_t mx_bf16_round(float f) {
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;

    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}
/* n values from one type (f32 or bf16) to the other or the same; single thread. */
void mx_values_convert(void *to, mx_dtype to_type, const void *from, mx_dtype from_type, int64_t n);
/* The same on all threads. */
void mx_values_convert_all(void *to, mx_dtype to_type, const void *from, mx_dtype from_type, int64_t n);

/* ------------------------------------------------------------------ element loops
 * Bodies are written once with the type as an argument, inlined always, and called from MX_CLONES functions with
 * the type a constant, one function for each. */
#define MX_INLINE static inline __attribute__((always_inline))

MX_INLINE float mx_get(const void *values, mx_dtype dtype, int64_t i) {
    return dtype == MX_BF16 ? mx_bf16_widen(((const uint16_t *)values)[i]) : ((const float *)values)[i];
}
MX_INLINE void mx_put(void *values, mx_dtype dtype, int64_t i, float v) {
    if (dtype == MX_BF16) {
        ((uint16_t *)values)[i] = mx_bf16_round(v);
    } else {
        ((float *)values)[i] = v;
    }
}
/* Line i of a matrix. */
static inline void *mx_row_of(const mx_tensor *x, int64_t i) {
    return (char *)x->data + (size_t)(i * x->dim[1]) * mx_dtype_bytes(x->dtype);
}

/* e^x within 2 ulp, in a form that compilers vectorise: x = n ln 2 + r, |r| <= ln 2 / 2, e^r by its Taylor polynomial of
 * degree 7 (remainder 4e-9). Below the smallest normal number: 0; above the largest: infinity; NaN stays. */
MX_INLINE float mx_exp(float x) {
    const float to_integer = 12582912.0f; /* 1.5 2^23: adding it rounds to a whole number */
    float bounded = x > 88.7f ? 88.7f : x < -87.3f ? -87.3f : x;
    float n = (bounded * 1.44269504f + to_integer) - to_integer;
    float r = bounded - n * 0.693359375f; /* ln 2 in two pieces, the first exact times any n */
    uint32_t bits;
    float power, p;

    r = r + n * 2.12194440e-4f;
    p = 1.0f + r * (1.0f + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))))));
    bits = (uint32_t)((int32_t)n + 127) << 23;
    memcpy(&power, &bits, sizeof power);
    p = p * power;
    p = x < -87.3f ? 0.0f : p;
    return x > 88.7f ? INFINITY : p;
}

/* ------------------------------------------------------------------ noise (base/rng.h's scheme) */
/* Bytes of one row of dropout bits: bit j (of byte j / 8) is 1 when column j is kept; rows are whole 64-bit words. */
static inline int64_t mx_dropout_row_bytes(int64_t columns) {
    return (columns + 63) / 64 * 8;
}
/* Bits of n rows; row i's mask is named by question[row[i]] and position[row[i]] (row NULL: i itself), noise->site and
 * `site_offset` added to it. Multi-threaded. noise->rate > 0. */
void mx_dropout_draw(const mx_noise *noise, uint32_t site_offset, const mx_rows *rows, const int32_t *row, int64_t n,
                     int64_t columns, uint8_t *ret_bits);
/* One row, for use inside a parallel region: y = x where kept, else 0, without the factor 1 / (1 - rate), so exact
 * in bf16 too (the factor then belongs on the product that follows); y may be x. */
void mx_mask_row(const uint8_t *bits, void *y, const void *x, mx_dtype dtype, int64_t columns);
/* One row, for use inside a parallel region: y = kept x / (1 - rate), or y += with `add`; y may be x. Types f32 or bf16 each. */
void mx_dropout_row(const uint8_t *bits, float rate, void *y, mx_dtype y_type, const void *x, mx_dtype x_type,
                    int64_t columns, bool add);

/* ------------------------------------------------------------------ the ops, by file */
/* embed.c */
void mx_cpu_embed(mx_backend *q, mx_tensor y, const mx_weight *table, const mx_rows *rows);
void mx_cpu_gather_rows(mx_backend *q, mx_tensor y, mx_tensor x, const int32_t *row, int64_t n);
void mx_cpu_scatter_rows(mx_backend *q, mx_tensor dx, mx_tensor g, const float *scale, const int32_t *row, int64_t n);
/* norms.c */
void mx_cpu_rmsnorm_forward(mx_backend *q, mx_tensor y, float *rstd, mx_tensor x, const float *w, float eps);
void mx_cpu_rmsnorm_backward(mx_backend *q, mx_tensor dx, mx_tensor dy, mx_tensor x, const float *rstd, const float *w);
/* rope.c */
void mx_cpu_rope(mx_backend *q, mx_tensor x, int64_t heads, int64_t head_dim, const mx_rows *rows, const float *inverse,
                 bool backward);
/* linears.c */
size_t mx_cpu_linears_saved_bytes(const mx_backend *q, const mx_linears *l);
size_t mx_cpu_linears_scratch_bytes(const mx_backend *q, const mx_linears *l);
void mx_cpu_linears_forward(mx_backend *q, const mx_linears *l);
void mx_cpu_linears_backward(mx_backend *q, const mx_linears *l);
/* attention.c */
size_t mx_cpu_attention_scratch_bytes(const mx_backend *q, const mx_attention *a);
void mx_cpu_attention_forward(mx_backend *q, const mx_attention *a);
void mx_cpu_attention_backward(mx_backend *q, const mx_attention *a);
/* elements.c */
void mx_cpu_swiglu_forward(mx_backend *q, mx_tensor h, mx_tensor g, mx_tensor u);
void mx_cpu_swiglu_backward(mx_backend *q, mx_tensor dg, mx_tensor du, mx_tensor dh, mx_tensor g, mx_tensor u);
void mx_cpu_add(mx_backend *q, mx_tensor y, mx_tensor a, mx_tensor b);
/* noise.c */
void mx_cpu_jitter_forward(mx_backend *q, mx_tensor xr, mx_tensor x, const mx_rows *rows, mx_noise noise);
void mx_cpu_jitter_backward(mx_backend *q, mx_tensor dx, mx_tensor dxr, const mx_rows *rows, mx_noise noise);
/* router.c */
size_t mx_cpu_router_scratch_bytes(const mx_backend *q, const mx_router *r);
void mx_cpu_router_forward(mx_backend *q, const mx_router *r);
void mx_cpu_router_backward(mx_backend *q, const mx_router *r);
void mx_cpu_router_losses(mx_backend *q, const mx_router *r, mx_numbers *numbers);
/* experts.c */
size_t mx_cpu_experts_saved_bytes(const mx_backend *q, const mx_experts *x);
size_t mx_cpu_experts_scratch_bytes(const mx_backend *q, const mx_experts *x);
const char *mx_cpu_experts_slow(const mx_backend *q, const mx_experts *x);
void mx_cpu_experts_forward(mx_backend *q, const mx_experts *x);
void mx_cpu_experts_backward(mx_backend *q, const mx_experts *x);
/* head.c */
size_t mx_cpu_head_scratch_bytes(const mx_backend *q, const mx_head *h);
void mx_cpu_head_loss(mx_backend *q, const mx_head *h);
void mx_cpu_head_logits(mx_backend *q, float *logits, const mx_weight *w, mx_tensor x);
/* objective.c */
void mx_cpu_objective(mx_backend *q, const mx_objective *o);
/* optimizer.c */
void mx_cpu_adamw(mx_backend *q, const mx_adamw *a);
/* dora.c */
void mx_cpu_row_norms(mx_backend *q, float *norm, const mx_weight *w);
size_t mx_cpu_dora_scratch_bytes(const mx_backend *q, const mx_dora *d);
void mx_cpu_dora_forward(mx_backend *q, const mx_dora *d);
void mx_cpu_dora_backward(mx_backend *q, const mx_dora *d);

#endif
