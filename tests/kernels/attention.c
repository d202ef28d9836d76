/* attention.c - attention over packed segments against its definition in double.
 *
 * The reference's gradients are written from the equations and themselves checked by central differences. Tolerances, of
 * the largest value: f32 2e-5 (sums of up to a few hundred products, e^x within 2 ulp); bf16 inputs are exact, so the
 * results are rounded once, 2^-8, and backward reads an o that was rounded: 1e-2. CUDA's tensor-core kernels round P and dS to
 * bf16 as well before they multiply them, where the CPU keeps f32; worst over the shapes below, CUDA / CPU: o 3.0e-3 / 2.1e-3,
 * dq 5.5e-3 / 4.2e-3, dk 5.0e-3 / 5.0e-3, dv 4.2e-3 / 3.6e-3. lse is f32 in both: 1.2e-7. */
#include "tests/kernels/kit.h"

enum { SEGMENTS = 40 };

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

/* What tiles of 16, 32 and 64 rows make mistakes with, at one head width after another: segments that straddle tiles, runs of
 * one row, a context right before its readers, one far away, one that begins inside a sequence. */
#define STRADDLING                                                                                                      \
    8, { { 0, 37, 0, 0 }, { 37, 1, 0, 0 }, { 38, 29, 0, 0 }, { 67, 5, 38, 29 }, { 72, 12, 38, 29 }, { 84, 48, 0, 0 },    \
         { 132, 6, 0, 37 }, { 138, 3, 50, 11 } }
static const shape HARD_SHAPES[] = {
    { "width 1", 2, 2, 1, 1, STRADDLING },
    { "width 33", 2, 1, 33, 0, STRADDLING },
    { "width 64", 6, 2, 64, 19, STRADDLING },
    { "width 72", 2, 1, 72, 3, STRADDLING },
    { "width 80", 2, 2, 80, 0, STRADDLING },
    { "width 96", 2, 1, 96, 51, STRADDLING },
    { "width 100", 1, 1, 100, 2, STRADDLING },
    { "width 128", 4, 2, 128, 0, STRADDLING },
    { "width 130", 1, 1, 130, 1, STRADDLING },
    { "width 256", 2, 1, 256, 7, STRADDLING },
    { "width 257", 1, 1, 257, 0, STRADDLING },
    { "width 512", 1, 1, 512, 1, STRADDLING },
    { "a context far from its readers", 2, 1, 64, 0, 4, { { 0, 40, 0, 0 }, { 40, 190, 0, 0 }, { 230, 9, 0, 40 }, { 239, 5, 7, 20 } } },
    { "a context behind its readers", 2, 1, 32, 2, 3, { { 0, 70, 75, 35 }, { 70, 5, 75, 10 }, { 75, 35, 0, 0 } } },
    { "a tile to the row", 1, 1, 64, 0, 3, { { 0, 64, 0, 0 }, { 64, 64, 0, 64 }, { 128, 32, 0, 64 } } },
    { "many families", 4, 1, 64, 9, 40,
      { { 0, 9, 0, 0 }, { 9, 1, 0, 9 }, { 10, 2, 0, 9 }, { 12, 3, 0, 9 }, { 15, 4, 0, 9 },
        { 19, 17, 0, 0 }, { 36, 5, 19, 17 }, { 41, 5, 19, 17 }, { 46, 5, 19, 17 }, { 51, 5, 19, 17 },
        { 56, 1, 0, 0 }, { 57, 1, 56, 1 }, { 58, 1, 56, 1 }, { 59, 1, 56, 1 }, { 60, 1, 56, 1 },
        { 61, 30, 0, 0 }, { 91, 7, 61, 30 }, { 98, 6, 61, 30 }, { 104, 8, 61, 30 }, { 112, 2, 61, 30 },
        { 114, 12, 0, 0 }, { 126, 2, 114, 12 }, { 128, 1, 114, 12 }, { 129, 2, 114, 12 }, { 131, 3, 114, 12 },
        { 134, 44, 0, 0 }, { 178, 9, 134, 44 }, { 187, 9, 134, 44 }, { 196, 9, 134, 44 }, { 205, 9, 134, 44 },
        { 214, 3, 0, 0 }, { 217, 3, 0, 0 }, { 220, 3, 0, 0 }, { 223, 3, 0, 0 }, { 226, 3, 0, 0 },
        { 229, 3, 0, 0 }, { 232, 3, 0, 0 }, { 235, 3, 0, 0 }, { 238, 3, 0, 0 }, { 241, 3, 0, 0 } } },
};
enum { HARD_SHAPE_COUNT = sizeof HARD_SHAPES / sizeof HARD_SHAPES[0] };

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

/* Rows past `live` hold NaNs: what they reach shows. */
static void spoil_padding(mx_tensor *x, int64_t live) {
    int64_t width = x->dim[1];
    size_t each = mx_dtype_bytes(x->dtype);

    memset((char *)x->data + (size_t)(live * width) * each, 0xff, (size_t)((x->dim[0] - live) * width) * each);
}

static void check_padding(const char *name, const mx_tensor *x, int64_t live) {
    for (int64_t i = live * x->dim[1]; i < x->dim[0] * x->dim[1]; i++) {
        cr_assert_eq(kit_at(x, i), 0.0, "%s: padding is left clean", name);
    }
}

static mx_attention prepare(mx_backend *b, const problem *p, kit_rows *batch) {
    const shape *s = p->s;
    int64_t wide = s->heads * s->head_dim, thin = s->kv_heads * s->head_dim;

    *batch = kit_batch(b, p->rows, p->live);
    batch->segment = kit_memory(b, sizeof s->segment);
    memcpy(batch->segment, s->segment, sizeof s->segment);
    batch->rows.segment = batch->segment;
    batch->rows.segments = s->segments;
    for (int64_t i = 0; i < s->segments; i++) {
        for (int64_t t = 0; t < s->segment[i].count; t++) {
            batch->row_segment[s->segment[i].begin + t] = (int32_t)i;
        }
    }
    for (int64_t t = p->live; t < p->rows; t++) {
        batch->row_segment[t] = -1; /* nobody's: not to be followed */
    }
    mx_attention a = { .rows = &batch->rows, .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
                       .q = kit_tensor(b, p->q, p->rows, wide), .k = kit_tensor(b, p->k, p->rows, thin),
                       .v = kit_tensor(b, p->v, p->rows, thin), .o = kit_tensor(b, NULL, p->rows, wide),
                       .d_o = kit_tensor(b, p->d_o, p->rows, wide), .dq = kit_tensor(b, NULL, p->rows, wide),
                       .dk = kit_tensor(b, NULL, p->rows, thin), .dv = kit_tensor(b, NULL, p->rows, thin),
                       .lse = kit_floats(b, NULL, p->rows * s->heads) };

    spoil_padding(&a.q, p->live);
    spoil_padding(&a.k, p->live);
    spoil_padding(&a.v, p->live);
    spoil_padding(&a.d_o, p->live);
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
    kit_sync(b);
    kit_near_tensor(s->name, p.o, a.o, wide, tolerance);
    kit_near_floats(s->name, p.lse, a.lse, p.live * s->heads, 2e-6);
    b->ops->attention_backward(b, &a);
    kit_sync(b);
    kit_near_tensor(s->name, p.dq, a.dq, wide, tolerance);
    kit_near_tensor(s->name, p.dk, a.dk, thin, tolerance);
    kit_near_tensor(s->name, p.dv, a.dv, thin, tolerance);
    check_padding(s->name, &a.o, p.live);
    check_padding(s->name, &a.dq, p.live);
    check_padding(s->name, &a.dk, p.live);
    check_padding(s->name, &a.dv, p.live);
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

Test(attention, tiles_and_segments_that_do_not_fit_each_other) {
    for (int i = 0; i < HARD_SHAPE_COUNT; i++) {
        check(&HARD_SHAPES[i], MX_PRECISION_F32, 2);
        check(&HARD_SHAPES[i], MX_PRECISION_BF16, 2);
    }
}

/* Planning follows no pointer, so a batch that no test could hold can be planned: bytes are counted in 64 bits. */
Test(attention, scratch_grows_evenly_up_to_the_largest_batch) {
    mx_precision precision;

    KIT_EACH_PRECISION(precision) {
        mx_backend *b = kit_open(precision, 1, false);
        mx_rows rows = { 0 };
        mx_attention a = { .rows = &rows, .heads = 128, .kv_heads = 8, .head_dim = 128 };
        double bytes[2];

        for (int i = 0; i < 2; i++) {
            rows.rows = rows.live = i ? INT32_MAX - 1024 : 1 << 16;
            bytes[i] = (double)b->ops->attention_scratch_bytes(b, &a) / (double)rows.rows;
        }
        cr_assert_float_eq(bytes[1] / bytes[0], 1, 0.01, "%.3f bytes to a row, then %.3f", bytes[0], bytes[1]);
        b->close(b);
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
