/* head.c - the vocabulary's logits and their cross entropy, a chunk of rows at a time. */
#include "kernels/cpu/cpu.h"

enum {
    CHUNK_BYTES = 48 << 20, /* of f32 logits; larger chunks read W less often: 256 rows of 49,152 take 1.5 times 128's */
    CHUNK_LEAST = 64,
    CHUNK_MOST = 256
};

typedef struct work {
    int64_t chunk;
    float *logits; /* (chunk, V) */
    void *x;       /* act (chunk, C) */
    float *g;      /* (chunk, C) */
} work;

/* The row counts that the GEMM takes without copying: 16, 32, or a multiple of 64. */
static int64_t padded_rows(int64_t n) {
    return n <= 16 ? 16 : n <= 32 ? 32 : (n + 63) / 64 * 64;
}

static work take(mx_scratch *s, const mx_head *h, mx_dtype act) {
    int64_t fits = CHUNK_BYTES / (int64_t)sizeof(float) / h->vocab / 64 * 64, rows = padded_rows(h->rows);
    work w = { .chunk = fits < CHUNK_LEAST ? CHUNK_LEAST : fits > CHUNK_MOST ? CHUNK_MOST : fits };

    w.chunk = rows < w.chunk ? rows : w.chunk;
    w.logits = MX_SCRATCH(s, float, w.chunk * h->vocab);
    w.x = mx_scratch_take(s, (size_t)(w.chunk * h->x.dim[1]) * mx_dtype_bytes(act));
    w.g = MX_SCRATCH(s, float, w.chunk * h->x.dim[1]);
    return w;
}

size_t mx_cpu_head_scratch_bytes(const mx_backend *q, const mx_head *h) {
    mx_scratch s = { 0 };

    take(&s, h, mx_activation_type(q));
    return s.most;
}

MX_CLONES static float largest(const float *z, int64_t n) {
    float top = z[0];

#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; i++) {
        top = z[i] > top ? z[i] : top;
    }
    return top;
}

/* z becomes e^(z - top); the sum, in pieces of f32 added up in f64. */
MX_CLONES static double exponentiate(float *z, int64_t n, float top) {
    enum { PIECE = 1024 };
    double total = 0;

    for (int64_t begin = 0; begin < n; begin += PIECE) {
        int64_t end = n - begin < PIECE ? n : begin + PIECE;
        float sum = 0;

#pragma omp simd reduction(+ : sum)
        for (int64_t i = begin; i < end; i++) {
            z[i] = mx_exp(z[i] - top);
            sum += z[i];
        }
        total += (double)sum;
    }
    return total;
}

MX_CLONES static void scale_values(float *to, const float *from, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        to[i] = from[i] * scale;
    }
}

/* The row, n values of f32, becomes itself times `scale` as act, from its beginning: what is narrowed never overtakes what
 * is still to be read. */
static void scale_row(float *row, mx_dtype act, float scale, int64_t n) {
    enum { PIECE = 1024 };

    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t count = n - i < PIECE ? n - i : PIECE;
        float piece[PIECE];

        scale_values(piece, row + i, scale, count);
        mx_values_convert((char *)row + (size_t)i * mx_dtype_bytes(act), act, piece, MX_F32, count);
    }
}

/* One row's nll; if wanted, z becomes softmax - onehot as act. A row with a NaN yields one. */
static float cross_entropy(float *z, int64_t vocab, int64_t target, bool wanted, mx_dtype act) {
    float top = largest(z, vocab), at_target = z[target];
    double sum = exponentiate(z, vocab, top);

    if (wanted) {
        float p = (float)(z[target] / sum) - 1.0f;

        scale_row(z, act, (float)(1.0 / sum), vocab);
        mx_put(z, act, target, p);
    }
    return (float)(log(sum) + (double)top - (double)at_target);
}

static void chunk_loss(mx_cpu *cpu, const mx_head *h, const work *w, int64_t begin, int64_t count) {
    mx_dtype act = h->x.dtype;
    int64_t width = h->x.dim[1], padded = padded_rows(count);
    size_t line = (size_t)width * mx_dtype_bytes(act);
    int64_t line_values = act == MX_BF16 ? 2 * h->vocab : h->vocab; /* rows of act lie where the rows of f32 did */
    bool wanted = h->g.data != NULL;

    memcpy(w->x, mx_row_of(&h->x, begin), (size_t)count * line);
    memset((char *)w->x + (size_t)count * line, 0, (size_t)(padded - count) * line);
    mx_weight_gemm(cpu, h->w, false, padded, mx_factor_of(w->x, act, width), mx_product_of(w->logits, MX_F32, h->vocab),
                   false);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < padded; i++) {
        float *z = w->logits + i * h->vocab;

        if (i < count) {
            assert(h->target[begin + i] >= 0 && h->target[begin + i] < h->vocab);
            h->nll[begin + i] = cross_entropy(z, h->vocab, h->target[begin + i], wanted, act);
        } else if (wanted) {
            memset(z, 0, (size_t)h->vocab * sizeof *z);
        }
    }
    if (wanted) {
        mx_weight_gemm(cpu, h->w, true, padded, mx_factor_of(w->logits, act, line_values),
                       mx_product_of(w->g, MX_F32, width), false);
        mx_values_convert_all(mx_row_of(&h->g, begin), act, w->g, MX_F32, count * width);
    }
}

void mx_cpu_head_loss(mx_backend *q, const mx_head *h) {
    mx_cpu *cpu = mx_cpu_of(q);
    size_t mark = cpu->scratch.used;
    work w = take(&cpu->scratch, h, mx_activation_type(q));

    assert(h->w->out == h->vocab && h->w->in == h->x.dim[1]);
    for (int64_t begin = 0; begin < h->rows; begin += w.chunk) {
        chunk_loss(cpu, h, &w, begin, h->rows - begin < w.chunk ? h->rows - begin : w.chunk);
    }
    mx_scratch_reset(&cpu->scratch, mark);
}

void mx_cpu_head_logits(mx_backend *q, float *logits, const mx_weight *w, mx_tensor x) {
    mx_weight_gemm(mx_cpu_of(q), w, false, x.dim[0], mx_factor_of(x.data, x.dtype, w->in),
                   mx_product_of(logits, MX_F32, w->out), false);
}
