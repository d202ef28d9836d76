/* attention.c - softmax(q k^T / sqrt(D)) v over packed segments with shared prefixes, forward. */
#include "kernels/cpu/attention.h"

#include "kernels/cpu/backend.h"

enum { CHUNK = 256 }; /* queries to a task: long segments are shared out, short ones convert their keys once */

MX_CLONES static void widen_scaled(float *to, const void *from, mx_dtype dtype, int64_t n, float scale) {
    if (dtype == MX_BF16) {
        for (int64_t i = 0; i < n; i++) {
            to[i] = scale * mx_get(from, MX_BF16, i);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            to[i] = scale * mx_get(from, MX_F32, i);
        }
    }
}

static const void *head_of(const mx_tensor *x, int64_t row, int64_t head, int64_t head_dim) {
    return (const char *)mx_row_of(x, row) + (size_t)(head * head_dim) * mx_dtype_bytes(x->dtype);
}

void mx_head_rows(float *to, int64_t width, const mx_tensor *x, int64_t head, int64_t head_dim, int64_t from,
                  int64_t count, int64_t padded, float scale) {
    if (width > head_dim || padded > count) {
        memset(to, 0, sizeof *to * (size_t)(padded * width));
    }
    for (int64_t i = 0; i < count; i++) {
        widen_scaled(to + i * width, head_of(x, from + i, head, head_dim), x->dtype, head_dim, scale);
    }
}

/* 16 rows of `width` become `width` lines of 16, lines `ld` apart. */
MX_CLONES static void transpose_sixteen(float *to, int64_t ld, const float *from, int64_t width) {
    for (int64_t d = 0; d < width; d++) {
        for (int64_t i = 0; i < MX_BLOCK_COLUMNS; i++) {
            to[d * ld + i] = from[i * width + d];
        }
    }
}

void mx_head_keys(float *to, float *to_transposed, int64_t width, const mx_tensor *x, int64_t head, int64_t head_dim,
                  const mx_key_run *run) {
    enum { WIDTH_MOST = 512 };
    float sixteen[MX_BLOCK_COLUMNS * WIDTH_MOST];

    assert(width <= WIDTH_MOST);
    for (int64_t first = 0; first < run->padded; first += MX_BLOCK_COLUMNS) {
        float *rows = to ? to + first * width : sixteen;

        for (int64_t i = 0; i < MX_BLOCK_COLUMNS; i++) {
            float *row = rows + i * width;

            if (first + i < run->keys) {
                widen_scaled(row, head_of(x, mx_key_row(run, first + i), head, head_dim), x->dtype, head_dim, 1.0f);
                memset(row + head_dim, 0, sizeof *row * (size_t)(width - head_dim));
            } else {
                memset(row, 0, sizeof *row * (size_t)width);
            }
        }
        if (to_transposed) {
            transpose_sixteen(to_transposed + first, run->padded, rows, width);
        }
    }
}

void mx_rows_clear_padding(const mx_tensor *x, const mx_rows *rows) {
    if (rows->rows > rows->live) {
        memset(mx_row_of(x, rows->live), 0,
               (size_t)((rows->rows - rows->live) * x->dim[1]) * mx_dtype_bytes(x->dtype));
    }
}

/* ------------------------------------------------------------------ forward */

/* One thread's room. */
typedef struct work {
    float *keys;   /* transposed (width, padded keys) */
    float *values; /* (padded keys, width) */
    float *q, *o;  /* (block, width) */
    float *scores; /* (block, padded keys) */
} work;

static work take(mx_scratch *s, const mx_attention *a) {
    int64_t width = mx_block_up(a->head_dim, MX_BLOCK_COLUMNS);
    int64_t keys = mx_block_up(a->rows->rows, MX_BLOCK_COLUMNS); /* the most a segment and its prefix can be */
    work w = { 0 };

    w.keys = MX_SCRATCH(s, float, keys * width);
    w.values = MX_SCRATCH(s, float, keys * width);
    w.q = MX_SCRATCH(s, float, MX_QUERY_BLOCK * width);
    w.o = MX_SCRATCH(s, float, MX_QUERY_BLOCK * width);
    w.scores = MX_SCRATCH(s, float, MX_QUERY_BLOCK * keys);
    return w;
}

static size_t forward_bytes(const mx_cpu *cpu, const mx_attention *a) {
    mx_scratch s = { 0 };

    for (int i = 0; i < cpu->threads; i++) {
        take(&s, a);
    }
    return s.most;
}

size_t mx_cpu_attention_scratch_bytes(const mx_backend *q, const mx_attention *a) {
    const mx_cpu *cpu = mx_cpu_of_const(q);
    size_t forward = forward_bytes(cpu, a), backward = mx_attention_backward_bytes(cpu, a);

    return forward > backward ? forward : backward;
}

/* The first `seen` scores become e^(score - max), those beyond up to `padded` 0. Gives their sum. */
MX_CLONES static float exponentiate(float *score, int64_t seen, int64_t padded, float *ret_top) {
    float top = score[0], sum = 0;

#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < seen; i++) {
        top = score[i] > top ? score[i] : top;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < seen; i++) {
        score[i] = mx_exp(score[i] - top);
        sum += score[i];
    }
    for (int64_t i = seen; i < padded; i++) {
        score[i] = 0;
    }
    *ret_top = top;
    return sum;
}

MX_CLONES static void put_scaled(void *to, mx_dtype dtype, const float *from, float scale, int64_t n) {
    if (dtype == MX_BF16) {
        for (int64_t i = 0; i < n; i++) {
            mx_put(to, MX_BF16, i, from[i] * scale);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            mx_put(to, MX_F32, i, from[i] * scale);
        }
    }
}

/* `count` queries of one head from the segment's row `first` on. */
static void query_block(const mx_attention *a, const work *w, const mx_key_run *run, int64_t head, int64_t first,
                        int64_t count) {
    int64_t width = mx_block_up(a->head_dim, MX_BLOCK_COLUMNS), rows = mx_block_up(count, MX_BLOCK_ROWS);
    int64_t seen_most = run->prefix + first + count; /* by the block's last query */
    int64_t columns = mx_block_up(seen_most, MX_BLOCK_COLUMNS), row = run->segment->begin + first;
    float sum[MX_QUERY_BLOCK];

    mx_head_rows(w->q, width, &a->q, head, a->head_dim, row, count, rows, 1.0f / sqrtf((float)a->head_dim));
    mx_block_product(w->scores, columns, w->q, width, 1, w->keys, run->padded, rows, columns, width, false);
    for (int64_t i = 0; i < count; i++) {
        float top;

        sum[i] = exponentiate(w->scores + i * columns, run->prefix + first + i + 1, columns, &top);
        a->lse[(row + i) * a->heads + head] = top + logf(sum[i]);
    }
    mx_block_product(w->o, width, w->scores, columns, 1, w->values, width, rows, width, seen_most, false);
    for (int64_t i = 0; i < count; i++) {
        char *to = (char *)mx_row_of(&a->o, row + i) + (size_t)(head * a->head_dim) * mx_dtype_bytes(a->o.dtype);

        put_scaled(to, a->o.dtype, w->o + i * width, 1.0f / sum[i], a->head_dim);
    }
}

static void chunk_forward(const mx_attention *a, const work *w, const mx_segment *s, int64_t kv_head, int64_t chunk) {
    int64_t begin = chunk * CHUNK, end = begin + CHUNK < s->count ? begin + CHUNK : s->count;
    int64_t width = mx_block_up(a->head_dim, MX_BLOCK_COLUMNS), group = a->heads / a->kv_heads;
    mx_key_run run = mx_key_run_of(s, end);

    if (begin >= end) {
        return;
    }
    mx_head_keys(NULL, w->keys, width, &a->k, kv_head, a->head_dim, &run);
    mx_head_keys(w->values, NULL, width, &a->v, kv_head, a->head_dim, &run);
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        for (int64_t first = begin; first < end; first += MX_QUERY_BLOCK) {
            query_block(a, w, &run, h, first, end - first < MX_QUERY_BLOCK ? end - first : MX_QUERY_BLOCK);
        }
    }
}

void mx_cpu_attention_forward(mx_backend *q, const mx_attention *a) {
    mx_cpu *cpu = mx_cpu_of(q);
    size_t mark = cpu->scratch.used, each = forward_bytes(cpu, a) / (size_t)cpu->threads;
    char *room = mx_scratch_take(&cpu->scratch, each * (size_t)cpu->threads);
    int64_t longest = 0;

    assert(a->heads % a->kv_heads == 0 && a->q.dim[1] == a->heads * a->head_dim);
    for (int64_t i = 0; i < a->rows->segments; i++) {
        longest = a->rows->segment[i].count > longest ? a->rows->segment[i].count : longest;
    }

    int64_t chunks = (longest + CHUNK - 1) / CHUNK;

    /* Who computes a task changes nothing in it, so they may be handed out as threads become free. */
#pragma omp parallel
    {
        mx_scratch s = { .memory = (unsigned char *)room + each * (size_t)mx_cpu_thread(), .bytes = each };
        work w = take(&s, a);

#pragma omp for schedule(dynamic) collapse(3)
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            for (int64_t i = 0; i < a->rows->segments; i++) {
                for (int64_t g = 0; g < a->kv_heads; g++) {
                    chunk_forward(a, &w, &a->rows->segment[i], g, chunks - 1 - chunk);
                }
            }
        }
    }
    mx_rows_clear_padding(&a->o, a->rows);
    mx_scratch_reset(&cpu->scratch, mark);
}
