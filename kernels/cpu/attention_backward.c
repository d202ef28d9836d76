/* attention_backward.c - gradients of attention.
 *
 *   P = exp(S - lse), dP = dO V^T, dS = P . (dP - rowsum(dO . O)) / sqrt(D)
 *   dQ = dS K, dK = dS^T Q, dV = P^T dO
 *
 * A prefix and the segments that read it are one family. One thread works on one family and one key/value head, readers
 * in their order, so that the prefix's dK and dV are summed in f32, always in the same order, and rounded once. */
#include "kernels/cpu/attention.h"

#include "kernels/cpu/backend.h"

typedef struct work {
    float *k, *k_t, *v_t; /* (padded keys, width), and (width, padded keys) */
    float *dk, *dv;       /* (padded keys, width) of the segment at hand */
    float *owner_dk, *owner_dv; /* (padded rows of the family's owner, width) */
    float *q, *d_o, *dq;  /* (block, width) */
    float *p, *ds;        /* (block, padded keys) */
} work;

static work take(mx_scratch *s, const mx_attention *a) {
    int64_t width = mx_block_up(a->head_dim, MX_BLOCK_COLUMNS), keys = mx_block_up(a->rows->rows, MX_BLOCK_COLUMNS);
    work w = { 0 };
    float **whole[] = { &w.k, &w.k_t, &w.v_t, &w.dk, &w.dv, &w.owner_dk, &w.owner_dv };
    float **block[] = { &w.q, &w.d_o, &w.dq };

    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        *whole[i] = MX_SCRATCH(s, float, keys * width);
    }
    for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) {
        *block[i] = MX_SCRATCH(s, float, MX_QUERY_BLOCK * width);
    }
    w.p = MX_SCRATCH(s, float, MX_QUERY_BLOCK * keys);
    w.ds = MX_SCRATCH(s, float, MX_QUERY_BLOCK * keys);
    return w;
}

size_t mx_attention_backward_bytes(const mx_cpu *cpu, const mx_attention *a) {
    mx_scratch s = { 0 };

    for (int i = 0; i < cpu->threads; i++) {
        take(&s, a);
    }
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

/* score (already scaled) -> p in place; dp -> ds in place; zero beyond what is seen. */
MX_CLONES static void differentiate(float *p, float *ds, float lse, float delta, int64_t seen, int64_t padded) {
    for (int64_t i = 0; i < seen; i++) {
        p[i] = mx_exp(p[i] - lse);
        ds[i] = p[i] * (ds[i] - delta);
    }
    for (int64_t i = seen; i < padded; i++) {
        p[i] = ds[i] = 0;
    }
}

MX_CLONES static void scale_values(float *x, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        x[i] *= scale;
    }
}

MX_CLONES static void add_values(float *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        to[i] += from[i];
    }
}

static void put_head_row(const mx_tensor *x, int64_t row, int64_t head, int64_t head_dim, const float *from) {
    mx_values_convert((char *)mx_row_of(x, row) + (size_t)(head * head_dim) * mx_dtype_bytes(x->dtype), x->dtype, from,
                      MX_F32, head_dim);
}

/* `count` queries of one head: writes their dq, adds to the segment's dk and dv. q carries 1 / sqrt(D), and with it dk;
 * dq gets it at the end. */
static void query_block(const mx_attention *a, const work *w, const mx_key_run *run, int64_t head, int64_t first,
                        int64_t count) {
    int64_t width = mx_block_up(a->head_dim, MX_BLOCK_COLUMNS), rows = mx_block_up(count, MX_BLOCK_ROWS);
    int64_t seen_most = run->prefix + first + count, columns = mx_block_up(seen_most, MX_BLOCK_COLUMNS);
    int64_t row = run->segment->begin + first;
    float scale = 1.0f / sqrtf((float)a->head_dim), *o = w->dq; /* o is needed before dq is there */

    mx_head_rows(w->q, width, &a->q, head, a->head_dim, row, count, rows, scale);
    mx_head_rows(w->d_o, width, &a->d_o, head, a->head_dim, row, count, rows, 1.0f);
    mx_head_rows(o, width, &a->o, head, a->head_dim, row, count, rows, 1.0f);
    mx_block_product(w->p, columns, w->q, width, 1, w->k_t, run->padded, rows, columns, width, false);
    mx_block_product(w->ds, columns, w->d_o, width, 1, w->v_t, run->padded, rows, columns, width, false);
    for (int64_t i = 0; i < rows; i++) {
        bool real = i < count;
        float delta = real ? dot(w->d_o + i * width, o + i * width, width) : 0;
        float lse = real ? a->lse[(row + i) * a->heads + head] : 0;

        differentiate(w->p + i * columns, w->ds + i * columns, lse, delta, real ? run->prefix + first + i + 1 : 0,
                      columns);
    }
    mx_block_product(w->dq, width, w->ds, columns, 1, w->k, width, rows, width, seen_most, false);
    mx_block_product(w->dk, width, w->ds, 1, columns, w->q, width, columns, width, count, true);
    mx_block_product(w->dv, width, w->p, 1, columns, w->d_o, width, columns, width, count, true);
    scale_values(w->dq, scale, count * width);
    for (int64_t i = 0; i < count; i++) {
        put_head_row(&a->dq, row + i, head, a->head_dim, w->dq + i * width);
    }
}

/* All query heads of one segment that read kv_head: dq written, dk and dv left in the thread's room. */
static mx_key_run segment_backward(const mx_attention *a, const work *w, const mx_segment *s, int64_t kv_head) {
    int64_t width = mx_block_up(a->head_dim, MX_BLOCK_COLUMNS), group = a->heads / a->kv_heads;
    mx_key_run run = mx_key_run_of(s, s->count);

    mx_head_keys(w->k, w->k_t, width, &a->k, kv_head, a->head_dim, &run);
    mx_head_keys(NULL, w->v_t, width, &a->v, kv_head, a->head_dim, &run);
    memset(w->dk, 0, sizeof *w->dk * (size_t)(run.padded * width));
    memset(w->dv, 0, sizeof *w->dv * (size_t)(run.padded * width));
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        for (int64_t first = 0; first < s->count; first += MX_QUERY_BLOCK) {
            query_block(a, w, &run, h, first, s->count - first < MX_QUERY_BLOCK ? s->count - first : MX_QUERY_BLOCK);
        }
    }
    return run;
}

static void put_rows(const mx_attention *a, int64_t kv_head, int64_t begin, int64_t count, const float *dk,
                     const float *dv, int64_t width) {
    for (int64_t i = 0; i < count; i++) {
        put_head_row(&a->dk, begin + i, kv_head, a->head_dim, dk + i * width);
        put_head_row(&a->dv, begin + i, kv_head, a->head_dim, dv + i * width);
    }
}

static void family_backward(const mx_attention *a, const work *w, int64_t owner, int64_t kv_head) {
    const mx_segment *self = &a->rows->segment[owner];
    int64_t width = mx_block_up(a->head_dim, MX_BLOCK_COLUMNS), values = self->count * width;

    memset(w->owner_dk, 0, sizeof(float) * (size_t)values);
    memset(w->owner_dv, 0, sizeof(float) * (size_t)values);
    for (int64_t i = 0; i < a->rows->segments; i++) {
        const mx_segment *s = &a->rows->segment[i];

        if (s->prefix_count == 0 || a->rows->row_segment[s->prefix_begin] != owner) {
            continue;
        }
        mx_key_run run = segment_backward(a, w, s, kv_head);
        int64_t offset = (s->prefix_begin - self->begin) * width, own = run.prefix * width;

        assert(s->prefix_begin + s->prefix_count <= self->begin + self->count);
        add_values(w->owner_dk + offset, w->dk, own);
        add_values(w->owner_dv + offset, w->dv, own);
        put_rows(a, kv_head, s->begin, s->count, w->dk + own, w->dv + own, width);
    }
    segment_backward(a, w, self, kv_head);
    add_values(w->owner_dk, w->dk, values);
    add_values(w->owner_dv, w->dv, values);
    put_rows(a, kv_head, self->begin, self->count, w->owner_dk, w->owner_dv, width);
}

void mx_cpu_attention_backward(mx_backend *q, const mx_attention *a) {
    mx_cpu *cpu = mx_cpu_of(q);
    size_t mark = cpu->scratch.used, each = mx_attention_backward_bytes(cpu, a) / (size_t)cpu->threads;
    char *room = mx_scratch_take(&cpu->scratch, each * (size_t)cpu->threads);

#pragma omp parallel
    {
        mx_scratch s = { .memory = (unsigned char *)room + each * (size_t)mx_cpu_thread(), .bytes = each };
        work w = take(&s, a);

#pragma omp for schedule(dynamic) collapse(2)
        for (int64_t i = 0; i < a->rows->segments; i++) {
            for (int64_t g = 0; g < a->kv_heads; g++) {
                if (a->rows->segment[i].prefix_count == 0) {
                    family_backward(a, &w, i, g);
                }
            }
        }
    }
    mx_rows_clear_padding(&a->dq, a->rows);
    mx_rows_clear_padding(&a->dk, a->rows);
    mx_rows_clear_padding(&a->dv, a->rows);
    mx_scratch_reset(&cpu->scratch, mark);
}
