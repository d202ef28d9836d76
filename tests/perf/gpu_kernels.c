/* gpu_kernels.c - the ops that move, attention, the head and the optimizer, each against its floor: bytes that must be read
 * or written once over this run's copy, or products over this run's best. Sizes are of the largest shape, at its larger
 * number of rows, so that no tensor stays in a cache. */
#include "tests/perf/gpu.h"

#include <assert.h>
#include <stdlib.h>

/* ------------------------------------------------------------------ movers */

typedef struct movers {
    mx_rows rows;
    int64_t n;
    mx_tensor a, b, c, g, u, h, dg, du;
    float *w, *rstd, *inverse, *scale;
    int32_t *row;
    int64_t heads, head_dim;
    mx_weight *table;
    mx_noise noise;
} movers;

static void embed(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->embed(p->b, m->a, m->table, &m->rows);
}
static void norm_forward(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->rmsnorm_forward(p->b, m->b, m->rstd, m->a, m->w, 1e-5f);
}
static void norm_backward(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->rmsnorm_backward(p->b, m->c, m->b, m->a, m->rstd, m->w);
}
static void rope(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->rope(p->b, m->b, m->heads, m->head_dim, &m->rows, m->inverse, false);
}
static void swiglu_forward(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->swiglu_forward(p->b, m->h, m->g, m->u);
}
static void swiglu_backward(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->swiglu_backward(p->b, m->dg, m->du, m->h, m->g, m->u);
}
static void add(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->add(p->b, m->c, m->a, m->b);
}
static void jitter(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->jitter_forward(p->b, m->b, m->a, &m->rows, m->noise);
}
static void gather(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->gather_rows(p->b, m->b, m->a, m->row, m->n);
}
static void scatter(perf *p, void *what) {
    const movers *m = what;

    p->b->ops->scatter_rows(p->b, m->c, m->b, m->scale, m->row, m->n);
}

static void measure_movers(perf *p) {
    const perf_shape *s = &p->shape[0];
    int64_t n = p->rows[0];
    double narrow = (double)(n * s->hidden) * (double)mx_dtype_bytes(p->act), wide = (double)(n * s->inner) * (double)mx_dtype_bytes(p->act);
    movers m = { .n = n, .heads = s->heads, .head_dim = s->head_dim, .noise = { .seed = 1, .step = 1, .site = 1, .rate = 0.05f } };
    const struct {
        const char *name;
        perf_work work;
        double bytes;
    } all[] = {
        { "embed", embed, 2 * narrow },
        { "rmsnorm, forward", norm_forward, 2 * narrow },
        { "rmsnorm, backward", norm_backward, 4 * narrow },
        { "rope of q", rope, 2 * narrow * (double)(s->heads * s->head_dim) / (double)s->hidden },
        { "swiglu, forward", swiglu_forward, 3 * wide },
        { "swiglu, backward", swiglu_backward, 5 * wide },
        { "add", add, 3 * narrow },
        { "jitter, forward", jitter, 2 * narrow },
        { "gather rows", gather, 2 * narrow },
        { "scatter rows", scatter, 2 * narrow },
    };
    int32_t *row;

    if (!perf_wants(p, "kernels", "movers")) {
        return;
    }
    assert(s->heads * s->head_dim == s->hidden); /* m.b is q too */
    row = malloc(sizeof *row * (size_t)n);
    assert(row);
    for (int64_t i = 0; i < n; i++) {
        row[i] = (int32_t)(n - 1 - i);
    }
    m.rows = perf_rows(p, n, n < 256 ? n : 256, s->vocab);
    m.row = perf_copy(p, row, sizeof *row * (size_t)n);
    m.a = perf_tensor(p, n, s->hidden, 1), m.b = perf_tensor(p, n, s->hidden, 1), m.c = perf_tensor(p, n, s->hidden, 1);
    m.g = perf_tensor(p, n, s->inner, 1), m.u = perf_tensor(p, n, s->inner, 1), m.h = perf_tensor(p, n, s->inner, 1);
    m.dg = perf_tensor(p, n, s->inner, 1), m.du = perf_tensor(p, n, s->inner, 1);
    m.w = perf_floats(p, s->hidden, 1), m.rstd = perf_floats(p, n, 1), m.scale = perf_floats(p, n, 1);
    m.inverse = perf_floats(p, s->head_dim / 2, 1);
    perf_weights(p, p->act == MX_BF16 ? MX_FILE_BF16 : MX_FILE_F32, &s->vocab, 1, s->hidden, (mx_weight_room){ 0 }, MX_USE_EMBEDDING, &m.table);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        perf_tell(p, "kernels", all[i].name, all[i].work, &m, 0, all[i].bytes);
    }
    free(row);
    perf_release(p);
}

/* ------------------------------------------------------------------ attention */

static void attend(perf *p, void *what) {
    p->b->ops->attention_forward(p->b, what);
}
static void attend_backward(perf *p, void *what) {
    p->b->ops->attention_backward(p->b, what);
}

/* Counted are the scores that the causal mask leaves: 4 D FLOP each forward, 10 D backward. */
static void measure_attention(perf *p, const perf_shape *s, int64_t length) {
    int64_t n = p->rows[0], wide = s->heads * s->head_dim, narrow = s->kv_heads * s->head_dim;
    double scores = 0, q = (double)(n * wide) * (double)mx_dtype_bytes(p->act), k = (double)(n * narrow) * (double)mx_dtype_bytes(p->act);
    char name[100];

    snprintf(name, sizeof name, "attention %lldx%lldx%lld, S %lld", (long long)s->heads, (long long)s->kv_heads, (long long)s->head_dim,
             (long long)length);
    if (!perf_wants(p, "kernels", name)) {
        return;
    }
    mx_rows rows = perf_rows(p, n, length, s->vocab);
    mx_attention a = { .rows = &rows, .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
                       .q = perf_tensor(p, n, wide, 1), .k = perf_tensor(p, n, narrow, 1), .v = perf_tensor(p, n, narrow, 1),
                       .o = perf_tensor(p, n, wide, 1), .d_o = perf_tensor(p, n, wide, 1), .dq = perf_tensor(p, n, wide, 1),
                       .dk = perf_tensor(p, n, narrow, 1), .dv = perf_tensor(p, n, narrow, 1), .lse = perf_floats(p, n * s->heads, 1) };

    for (int64_t begin = 0; begin < n; begin += length) {
        double count = (double)(n - begin < length ? n - begin : length);

        scores += 0.5 * count * (count + 1) * (double)s->heads;
    }
    perf_scratch(p, p->b->ops->attention_scratch_bytes(p->b, &a));
    strcat(name, ", forward");
    perf_tell(p, "kernels", name, attend, &a, scores * 4 * (double)s->head_dim, 2 * q + 2 * k);
    snprintf(strstr(name, ", forward"), 20, ", backward");
    perf_tell(p, "kernels", name, attend_backward, &a, scores * 10 * (double)s->head_dim, 4 * q + 4 * k);
    perf_release(p);
}

/* ------------------------------------------------------------------ head */

static void head_loss(perf *p, void *what) {
    p->b->ops->head_loss(p->b, what);
}

static void measure_head(perf *p, int64_t n) {
    const perf_shape *s = &p->shape[0];
    double product = 2.0 * (double)n * (double)s->vocab * (double)s->hidden,
           weight = (double)(s->vocab * s->hidden) * (double)mx_dtype_bytes(p->act);
    char name[100];
    int32_t *target;

    snprintf(name, sizeof name, "head, %lld rows, loss and gradient", (long long)n);
    if (!perf_wants(p, "kernels", name)) {
        return;
    }
    target = malloc(sizeof *target * (size_t)n);
    assert(target);
    for (int64_t i = 0; i < n; i++) {
        target[i] = (int32_t)(i * 7919 % s->vocab);
    }
    mx_head h = { .vocab = s->vocab, .rows = n, .x = perf_tensor(p, n, s->hidden, 1), .nll = perf_floats(p, n, 0),
                  .target = perf_copy(p, target, sizeof *target * (size_t)n), .g = perf_tensor(p, n, s->hidden, 0) };
    mx_weight *w;

    perf_weights(p, p->act == MX_BF16 ? MX_FILE_BF16 : MX_FILE_F32, &s->vocab, 1, s->hidden, (mx_weight_room){ 0 }, MX_USE_LINEAR, &w);
    h.w = w;
    perf_scratch(p, p->b->ops->head_scratch_bytes(p->b, &h));
    perf_tell(p, "kernels", name, head_loss, &h, 2 * product, 2 * weight);
    h.g.data = NULL;
    snprintf(name, sizeof name, "head, %lld rows, loss alone", (long long)n);
    perf_tell(p, "kernels", name, head_loss, &h, product, weight);
    free(target);
    perf_release(p);
}

/* ------------------------------------------------------------------ once a step */

static void adamw(perf *p, void *what) {
    mx_adamw *a = what;

    a->step++;
    p->b->ops->adamw(p->b, a);
}

/* The gradient is read twice, since its norm comes first. */
static void measure_adamw(perf *p) {
    const int64_t n = p->quick ? 10000 : 203000000; /* MixLoRA rank 16 with 8 experts on 7B */
    mx_adamw_group group = { 0, n, 1, 0.01 };

    if (!perf_wants(p, "kernels", "adamw")) {
        return;
    }
    mx_adamw a = { .p = perf_floats(p, n, 0.02), .m = perf_memory(p, sizeof(float) * (size_t)n), .v = perf_memory(p, sizeof(float) * (size_t)n),
                   .g = perf_floats(p, n, 1e-3), .count = n, .group = &group, .groups = 1, .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999,
                   .eps = 1e-8, .max_norm = 1, .numbers = perf_memory(p, sizeof(mx_numbers)) };

    perf_tell(p, "kernels", "adamw", adamw, &a, 0, 32.0 * (double)n);
    perf_release(p);
}

typedef struct norms {
    const mx_weight *w;
    float *norm;
    mx_dora d;
} norms;

static void row_norms(perf *p, void *what) {
    const norms *x = what;

    p->b->ops->row_norms(p->b, x->norm, x->w);
}
static void dora_forward(perf *p, void *what) {
    const norms *x = what;

    p->b->ops->dora_forward(p->b, &x->d);
}
static void dora_backward(perf *p, void *what) {
    const norms *x = what;

    p->b->ops->dora_backward(p->b, &x->d);
}

/* Of W A^T, A A^T, and B against both; W is read once for all experts. */
static void measure_dora(perf *p, int64_t rank, int64_t experts) {
    const perf_shape *s = &p->shape[0];
    int64_t out = s->inner, in = s->hidden;
    double weight = (double)(out * in) * (double)mx_dtype_bytes(p->act), factors = 4.0 * (double)(experts * rank * (in + out));
    double flops = 2.0 * (double)experts * (double)rank * ((double)out * (double)in + (double)rank * (double)in + (double)rank * (double)out);
    char name[100];
    mx_weight *w;

    snprintf(name, sizeof name, "dora r%lld E%lld, forward", (long long)rank, (long long)experts);
    if (!perf_wants(p, "kernels", name)) {
        return;
    }
    perf_weights(p, p->act == MX_BF16 ? MX_FILE_BF16 : MX_FILE_F32, &out, 1, in, (mx_weight_room){ 0 }, MX_USE_LINEAR, &w);

    norms x = { .w = w, .norm = perf_floats(p, out, 0),
                .d = { .w = w, .out = out, .in = in, .rank = rank, .experts = experts, .a = perf_floats(p, experts * rank * in, 0.02),
                       .b = perf_floats(p, experts * out * rank, 0.02), .scale = 2, .m = perf_floats(p, experts * out, 1),
                       .n = perf_floats(p, experts * out, 1), .c = perf_floats(p, experts * out, 1), .dc = perf_floats(p, experts * out, 1),
                       .dm = perf_floats(p, experts * out, 0) } };

    perf_scratch(p, p->b->ops->dora_scratch_bytes(p->b, &x.d));
    if (experts == 1) {
        perf_tell(p, "kernels", "row norms", row_norms, &x, 0, weight);
    }
    perf_tell(p, "kernels", name, dora_forward, &x, flops, weight + factors);
    snprintf(strstr(name, ", forward"), 20, ", backward");
    perf_tell(p, "kernels", name, dora_backward, &x, 0, 16.0 * (double)(experts * out));
    perf_release(p);
}

void perf_kernels(perf *p) {
    static const int64_t LENGTHS[] = { 64, 256, 512, 2048, 8192 };

    perf_title("ops, against the bytes they must move or the products they must do");
    measure_movers(p);
    for (size_t i = 0; i < sizeof LENGTHS / sizeof LENGTHS[0]; i++) {
        measure_attention(p, &p->shape[0], p->quick ? p->rows[0] >> i : LENGTHS[i]);
    }
    for (int i = 1; i < PERF_SHAPES; i++) { /* few key/value heads, narrower ones */
        measure_attention(p, &p->shape[i], p->quick ? p->rows[0] : 256);
    }
    measure_head(p, p->quick ? 20 : 256);
    measure_head(p, p->rows[0]);
    measure_adamw(p);
    measure_dora(p, p->quick ? 5 : 80, 1);
    measure_dora(p, p->quick ? 3 : 16, p->quick ? 3 : 8);
    perf_save(p);
}
