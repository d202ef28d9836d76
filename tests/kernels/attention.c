/* attention.c - attention over packed segments against its definition in double.
 *
 * The reference's gradients are written from the equations and themselves checked by central differences. Tolerances, of
 * the largest value: f32 2e-5 (sums of up to a few hundred products, e^x within 2 ulp); bf16 inputs are exact, so the
 * results are rounded once, 2^-8, and backward reads an o that was rounded: 1e-2. */
#include "tests/kernels/kit.h"

enum { SEGMENTS = 12 };

typedef struct shape {
    const char *name;
    int64_t heads, kv_heads, head_dim, padding, segments;
    mx_segment segment[SEGMENTS];
} shape;

/* Segments in the batch's order; a prefix lies before its readers. */
static const shape SHAPES[] = {
    { "one token", 1, 1, 4, 0, 1, { { 0, 1, 0, 0 } } },
    { "one sequence", 2, 2, 8, 0, 1, { { 0, 20, 0, 0 } } },
    { "sequences of many lengths", 4, 2, 16, 5, 5, { { 0, 3, 0, 0 }, { 3, 33, 0, 0 }, { 36, 1, 0, 0 }, { 37, 64, 0, 0 }, { 101, 17, 0, 0 } } },
    { "a context shared by four choices", 6, 2, 8, 3, 5, { { 0, 19, 0, 0 }, { 19, 4, 0, 19 }, { 23, 1, 0, 19 }, { 24, 40, 0, 19 }, { 64, 7, 0, 19 } } },
    { "two families and a loner", 3, 1, 20, 0, 7,
      { { 0, 5, 0, 0 }, { 5, 3, 0, 5 }, { 8, 2, 0, 5 }, { 10, 9, 0, 0 }, { 19, 40, 0, 0 }, { 59, 3, 19, 40 }, { 62, 34, 19, 40 } } },
    { "a prefix that is part of a sequence", 2, 1, 8, 0, 3, { { 0, 12, 0, 0 }, { 12, 4, 3, 6 }, { 16, 5, 0, 12 } } },
    { "a width of no vector", 2, 2, 10, 1, 2, { { 0, 37, 0, 0 }, { 37, 4, 0, 37 } } },
    { "wide heads", 2, 1, 80, 0, 2, { { 0, 18, 0, 0 }, { 18, 5, 0, 18 } } },
    { "longer than a task's chunk", 2, 1, 8, 0, 2, { { 0, 290, 0, 0 }, { 290, 270, 0, 290 } } },
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof SHAPES[0] };

typedef struct problem {
    const shape *s;
    int64_t rows, live;
    double *q, *k, *v, *o, *d_o, *dq, *dk, *dv, *lse;
} problem;

static problem make(const shape *s) {
    problem p = { .s = s };
    const mx_segment *last = &s->segment[s->segments - 1];
    mx_rng r;

    p.live = last->begin + last->count;
    p.rows = p.live + s->padding;
    int64_t wide = p.rows * s->heads * s->head_dim, thin = p.rows * s->kv_heads * s->head_dim;

    mx_rng_init(&r, 2, s->name);
    p.q = kit_values(&r, wide, 3);
    p.k = kit_values(&r, thin, 1);
    p.v = kit_values(&r, thin, 1);
    p.d_o = kit_values(&r, wide, 1);
    p.o = kit_array(wide);
    p.dq = kit_array(wide);
    p.dk = kit_array(thin);
    p.dv = kit_array(thin);
    p.lse = kit_array(p.rows * s->heads);
    return p;
}

static void drop(problem *p) {
    double *all[] = { p->q, p->k, p->v, p->o, p->d_o, p->dq, p->dk, p->dv, p->lse };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
}

/* One query of one head: probabilities of the rows it sees. */
typedef struct view {
    int64_t count, row[1024];
    double p[1024];
    double lse;
} view;

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void look(const problem *p, const mx_segment *seg, int64_t i, int64_t h, view *v) {
    const shape *s = p->s;
    int64_t d = s->head_dim, g = h / (s->heads / s->kv_heads), t = seg->begin + i;
    double top = -INFINITY, sum = 0;

    v->count = 0;
    for (int64_t k = 0; k < seg->prefix_count; k++) {
        v->row[v->count++] = seg->prefix_begin + k;
    }
    for (int64_t k = 0; k <= i; k++) {
        v->row[v->count++] = seg->begin + k;
    }
    for (int64_t k = 0; k < v->count; k++) {
        v->p[k] = dot(p->q + (t * s->heads + h) * d, p->k + (v->row[k] * s->kv_heads + g) * d, d) / sqrt((double)d);
        top = v->p[k] > top ? v->p[k] : top;
    }
    for (int64_t k = 0; k < v->count; k++) {
        sum += exp(v->p[k] - top);
    }
    v->lse = top + log(sum);
    for (int64_t k = 0; k < v->count; k++) {
        v->p[k] = exp(v->p[k] - v->lse);
    }
}

static void forward_query(problem *p, const mx_segment *seg, int64_t i, int64_t h) {
    static view v;
    const shape *s = p->s;
    int64_t d = s->head_dim, g = h / (s->heads / s->kv_heads), t = seg->begin + i;
    double *o = p->o + (t * s->heads + h) * d;

    look(p, seg, i, h, &v);
    p->lse[t * s->heads + h] = v.lse;
    for (int64_t j = 0; j < d; j++) {
        o[j] = 0;
        for (int64_t k = 0; k < v.count; k++) {
            o[j] += v.p[k] * p->v[(v.row[k] * s->kv_heads + g) * d + j];
        }
    }
}

static void backward_query(problem *p, const mx_segment *seg, int64_t i, int64_t h) {
    static view v;
    const shape *s = p->s;
    int64_t d = s->head_dim, g = h / (s->heads / s->kv_heads), at = ((seg->begin + i) * s->heads + h) * d;
    double delta = dot(p->o + at, p->d_o + at, d), scale = 1 / sqrt((double)d);

    look(p, seg, i, h, &v);
    for (int64_t k = 0; k < v.count; k++) {
        int64_t key = (v.row[k] * s->kv_heads + g) * d;
        double ds = v.p[k] * (dot(p->d_o + at, p->v + key, d) - delta) * scale;

        for (int64_t j = 0; j < d; j++) {
            p->dq[at + j] += ds * p->k[key + j];
            p->dk[key + j] += ds * p->q[at + j];
            p->dv[key + j] += v.p[k] * p->d_o[at + j];
        }
    }
}

static void each_query(problem *p, void (*visit)(problem *, const mx_segment *, int64_t, int64_t)) {
    for (int64_t i = 0; i < p->s->segments; i++) {
        for (int64_t t = 0; t < p->s->segment[i].count; t++) {
            for (int64_t h = 0; h < p->s->heads; h++) {
                visit(p, &p->s->segment[i], t, h);
            }
        }
    }
}

static double loss(problem *p) {
    each_query(p, forward_query);
    return dot(p->o, p->d_o, p->live * p->s->heads * p->s->head_dim);
}

static void check_reference(problem *p, double *value, const double *gradient, int64_t n, int64_t step) {
    for (int64_t i = 0; i < n; i += step) {
        double old = value[i], size = 1e-5, slope;

        value[i] = old + size;
        slope = loss(p);
        value[i] = old - size;
        slope = (slope - loss(p)) / (2 * size);
        value[i] = old;
        cr_assert_float_eq(slope, gradient[i], 1e-7, "%s: %.9g, differences say %.9g", p->s->name, gradient[i], slope);
    }
}

Test(attention, the_references_gradients_are_those_of_differences) {
    for (int i = 0; i < SHAPE_COUNT - 1; i++) {
        problem p = make(&SHAPES[i]);
        int64_t wide = p.live * p.s->heads * p.s->head_dim, thin = p.live * p.s->kv_heads * p.s->head_dim;

        loss(&p);
        each_query(&p, backward_query);
        check_reference(&p, p.q, p.dq, wide, wide / 20 + 1);
        check_reference(&p, p.k, p.dk, thin, thin / 20 + 1);
        check_reference(&p, p.v, p.dv, thin, thin / 20 + 1);
        drop(&p);
    }
}

static mx_attention prepare(mx_backend *b, const problem *p, kit_rows *batch) {
    const shape *s = p->s;
    int64_t wide = s->heads * s->head_dim, thin = s->kv_heads * s->head_dim;

    *batch = kit_batch(b, p->rows, p->live);
    batch->rows.segment = s->segment;
    batch->rows.segments = s->segments;
    for (int64_t i = 0; i < s->segments; i++) {
        for (int64_t t = 0; t < s->segment[i].count; t++) {
            batch->row_segment[s->segment[i].begin + t] = (int32_t)i;
        }
    }
    mx_attention a = { .rows = &batch->rows, .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
                       .q = kit_tensor(b, p->q, p->rows, wide), .k = kit_tensor(b, p->k, p->rows, thin),
                       .v = kit_tensor(b, p->v, p->rows, thin), .o = kit_tensor(b, NULL, p->rows, wide),
                       .d_o = kit_tensor(b, p->d_o, p->rows, wide), .dq = kit_tensor(b, NULL, p->rows, wide),
                       .dk = kit_tensor(b, NULL, p->rows, thin), .dv = kit_tensor(b, NULL, p->rows, thin),
                       .lse = kit_floats(b, NULL, p->rows * s->heads) };

    kit_scratch(b, b->ops->attention_scratch_bytes(b, &a));
    return a;
}

static void check(const shape *s, mx_precision precision, int threads) {
    mx_backend *b = kit_open(precision, threads, false);
    problem p = make(s);
    kit_rows batch;
    mx_attention a = prepare(b, &p, &batch);
    int64_t wide = p.live * s->heads * s->head_dim, thin = p.live * s->kv_heads * s->head_dim;
    double tolerance = precision == MX_PRECISION_BF16 ? 1e-2 : 2e-5;

    each_query(&p, forward_query);
    each_query(&p, backward_query);
    b->ops->attention_forward(b, &a);
    kit_near_tensor(s->name, p.o, a.o, wide, tolerance);
    kit_near_floats(s->name, p.lse, a.lse, p.live * s->heads, 2e-6);
    b->ops->attention_backward(b, &a);
    kit_near_tensor(s->name, p.dq, a.dq, wide, tolerance);
    kit_near_tensor(s->name, p.dk, a.dk, thin, tolerance);
    kit_near_tensor(s->name, p.dv, a.dv, thin, tolerance);
    for (int64_t i = wide; i < p.rows * s->heads * s->head_dim; i++) {
        cr_assert_eq(kit_at(&a.o, i), 0.0, "padding is left clean");
        cr_assert_eq(kit_at(&a.dq, i), 0.0);
    }
    b->close(b);
    drop(&p);
}

Test(attention, f32_and_bf16_agree_with_the_definition) {
    for (int i = 0; i < SHAPE_COUNT; i++) {
        check(&SHAPES[i], MX_PRECISION_F32, 2);
        check(&SHAPES[i], MX_PRECISION_F32, 1);
        check(&SHAPES[i], MX_PRECISION_BF16, 2);
    }
}

/* No sum is split between threads, so even their number changes nothing. */
Test(attention, every_number_of_threads_gives_the_same_bits) {
    const shape *s = &SHAPES[4];
    problem p = make(s);
    mx_attention a[3];
    mx_backend *b[3];
    kit_rows batch[3];

    for (int i = 0; i < 3; i++) {
        b[i] = kit_open(MX_PRECISION_BF16, i + 1, false);
        a[i] = prepare(b[i], &p, &batch[i]);
        b[i]->ops->attention_forward(b[i], &a[i]);
        b[i]->ops->attention_backward(b[i], &a[i]);
        cr_assert_eq(memcmp(a[0].o.data, a[i].o.data, mx_tensor_bytes(&a[0].o)), 0);
        cr_assert_eq(memcmp(a[0].dq.data, a[i].dq.data, mx_tensor_bytes(&a[0].dq)), 0);
        cr_assert_eq(memcmp(a[0].dk.data, a[i].dk.data, mx_tensor_bytes(&a[0].dk)), 0);
        cr_assert_eq(memcmp(a[0].dv.data, a[i].dv.data, mx_tensor_bytes(&a[0].dv)), 0);
    }
    for (int i = 0; i < 3; i++) {
        b[i]->close(b[i]);
    }
    drop(&p);
}

/* A question's choices after a shared context, and each with a copy of it: same values, and the context's gradients
 * are the sums over its copies. */
Test(attention, a_shared_prefix_equals_its_copies) {
    enum { CONTEXT = 9, CHOICE = 4, CHOICES = 3, HEADS = 2, D = 8, WIDTH = HEADS * D };
    const shape shared = { "shared", HEADS, HEADS, D, 0, 4, { { 0, CONTEXT, 0, 0 }, { 9, 4, 0, 9 }, { 13, 4, 0, 9 }, { 17, 4, 0, 9 } } };
    const shape copies = { "copies", HEADS, HEADS, D, 0, 3, { { 0, 13, 0, 0 }, { 13, 13, 0, 0 }, { 26, 13, 0, 0 } } };
    mx_backend *b = kit_open(MX_PRECISION_F32, 2, false);
    problem p = make(&shared), c = make(&copies);
    double *from[] = { p.q, p.k, p.v, p.d_o }, *to[] = { c.q, c.k, c.v, c.d_o };
    kit_rows batch_p, batch_c;

    memset(p.d_o, 0, sizeof(double) * CONTEXT * WIDTH); /* the context itself bears no loss */
    for (int i = 0; i < 4; i++) {
        for (int64_t choice = 0; choice < CHOICES; choice++) {
            memcpy(to[i] + choice * 13 * WIDTH, from[i], sizeof(double) * CONTEXT * WIDTH);
            memcpy(to[i] + (choice * 13 + CONTEXT) * WIDTH, from[i] + (CONTEXT + choice * CHOICE) * WIDTH,
                   sizeof(double) * CHOICE * WIDTH);
        }
    }
    mx_attention one = prepare(b, &p, &batch_p), many = prepare(b, &c, &batch_c);

    kit_scratch(b, b->ops->attention_scratch_bytes(b, &many));
    b->ops->attention_forward(b, &one);
    b->ops->attention_backward(b, &one);
    b->ops->attention_forward(b, &many);
    b->ops->attention_backward(b, &many);
    for (int64_t i = 0; i < CONTEXT * WIDTH; i++) {
        double dk = 0, dv = 0;

        for (int64_t choice = 0; choice < CHOICES; choice++) {
            dk += kit_at(&many.dk, choice * 13 * WIDTH + i);
            dv += kit_at(&many.dv, choice * 13 * WIDTH + i);
        }
        cr_assert_float_eq(kit_at(&one.dk, i), dk, 1e-5);
        cr_assert_float_eq(kit_at(&one.dv, i), dv, 1e-5);
    }
    for (int64_t choice = 0; choice < CHOICES; choice++) {
        for (int64_t i = 0; i < CHOICE * WIDTH; i++) {
            int64_t a = (CONTEXT + choice * CHOICE) * WIDTH + i, m = (choice * 13 + CONTEXT) * WIDTH + i;

            cr_assert_float_eq(kit_at(&one.o, a), kit_at(&many.o, m), 1e-6);
            cr_assert_float_eq(kit_at(&one.dq, a), kit_at(&many.dq, m), 1e-6);
            cr_assert_float_eq(kit_at(&one.dk, a), kit_at(&many.dk, m), 1e-6);
        }
    }
    b->close(b);
    drop(&p);
    drop(&c);
}
