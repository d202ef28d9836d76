/* experts.c - the routed block against its definition in double: every expert's whole feed-forward block on every token
 * that uses it, and the gradients of that, written from the equations and themselves checked by differences.
 *
 * Inputs and frozen weights are values bf16 can hold, so both precisions are compared with the same numbers. Errors are
 * relative to the largest value of the tensor. f32: sums of up to a few thousand terms, 1e-5 (measured 2.4e-6). bf16:
 * what passes between the stages (W1 x, W3 x, h, W2^T dy, da, db, the factors) is rounded to 8 bits, 2^-9 each, and a
 * dozen roundings meet: 1.5e-2 (measured 7e-3). */
#include "tests/kernels/kit.h"

typedef enum pattern { SPREAD, ONE_EXPERT, FEW_EXPERTS, VARYING, OVERFLOWING, NOBODY } pattern;

typedef struct shape {
    const char *name;
    int64_t rows, live, hidden, inner, experts, slots;
    int64_t rank[3];    /* gate, up, down; 0: no adapter */
    bool scaled[3];     /* DoRA's c */
    bool bias;
    float rate;
    pattern pattern;
} shape;

enum { GATE, UP, DOWN };

static const shape SHAPES[] = {
    { "plain", 70, 70, 24, 80, 4, 2, { 4, 4, 4 }, { 0 }, false, 0, SPREAD },
    { "one token", 1, 1, 16, 64, 4, 2, { 4, 4, 4 }, { 0 }, false, 0, SPREAD },
    { "all tokens on one expert", 50, 50, 16, 64, 8, 1, { 8, 8, 8 }, { 0 }, false, 0, ONE_EXPERT },
    { "experts nobody uses", 40, 40, 16, 40, 8, 2, { 4, 4, 4 }, { 0 }, false, 0, FEW_EXPERTS },
    { "every expert used by all", 37, 37, 16, 72, 3, 3, { 4, 4, 4 }, { 0 }, false, 0, SPREAD },
    { "a group and a half of columns", 131, 131, 32, 48, 4, 2, { 8, 8, 8 }, { 0 }, false, 0, SPREAD },
    { "one expert", 9, 9, 16, 72, 1, 1, { 4, 4, 4 }, { 0 }, false, 0, SPREAD },
    { "odd ranks and widths", 67, 61, 19, 131, 5, 2, { 3, 5, 7 }, { 0 }, false, 0, SPREAD },
    { "ranks past a tile", 45, 45, 24, 70, 3, 2, { 33, 17, 40 }, { 0 }, false, 0, SPREAD },
    { "rank one", 21, 21, 8, 16, 3, 2, { 1, 1, 1 }, { 0 }, false, 0, SPREAD },
    { "adapter on gate alone", 33, 33, 16, 64, 4, 2, { 4, 0, 0 }, { 0 }, false, 0, SPREAD },
    { "adapter on up alone", 33, 33, 16, 64, 4, 2, { 0, 4, 0 }, { 0 }, false, 0, SPREAD },
    { "adapter on down alone", 33, 33, 16, 64, 4, 2, { 0, 0, 4 }, { 0 }, false, 0.3f, SPREAD },
    { "no adapters", 33, 33, 16, 64, 4, 2, { 0, 0, 0 }, { 0 }, false, 0.3f, SPREAD },
    { "biases", 40, 40, 16, 90, 4, 2, { 4, 4, 4 }, { 0 }, true, 0, SPREAD },
    { "dropout", 70, 64, 24, 144, 4, 2, { 4, 4, 4 }, { 0 }, false, 0.3f, SPREAD },
    { "DoRA on gate and up", 40, 40, 16, 90, 4, 2, { 4, 4, 4 }, { true, true, false }, true, 0.3f, SPREAD },
    { "DoRA on up alone", 40, 40, 16, 64, 4, 2, { 4, 4, 4 }, { false, true, false }, false, 0, SPREAD },
    { "DoRA on all", 45, 41, 16, 90, 4, 2, { 4, 4, 4 }, { true, true, true }, true, 0.3f, SPREAD },
    { "DoRA on down, adapter absent", 20, 20, 16, 64, 4, 2, { 4, 4, 0 }, { false, false, true }, false, 0, SPREAD },
    { "top-p keeps some", 55, 50, 16, 64, 5, 5, { 4, 4, 4 }, { 0 }, true, 0.3f, VARYING },
    { "switch overflows", 60, 57, 16, 64, 4, 1, { 4, 4, 4 }, { 0 }, true, 0.3f, OVERFLOWING },
    { "nobody is served", 12, 12, 16, 64, 4, 1, { 4, 4, 4 }, { 0 }, true, 0.3f, NOBODY },
    { "padding alone", 6, 0, 16, 64, 4, 2, { 4, 4, 4 }, { 0 }, false, 0.3f, SPREAD },
    { "more slots than a pass holds", 4200, 4160, 8, 16, 3, 2, { 2, 2, 2 }, { 0 }, true, 0.3f, SPREAD },
    { "a pass of few tokens", 1100, 1090, 8, 16, 8, 8, { 2, 2, 2 }, { true, true, false }, true, 0.3f, VARYING },
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof SHAPES[0] };

/* ------------------------------------------------------------------ a problem in double */

typedef struct adapter {
    double *w, *bias;        /* (out, in), (out) */
    double *a, *b, *c;       /* (E, R, in), (E, out, R), (E, out) */
    double *da, *db, *dc;
    int64_t in, out, rank;
    double scale;
} adapter;

typedef struct problem {
    shape s;
    adapter of[3];
    double *x, *dy, *gate, *passed, *y, *dx, *dgate, *dpassed;
    int32_t *chosen, *position, *question;
} problem;

static void choose(problem *p, mx_rng *r) {
    const shape *s = &p->s;

    for (int64_t t = 0; t < s->live; t++) {
        int64_t pool = s->pattern == FEW_EXPERTS ? s->slots + 1 : s->experts, kept = s->slots;
        int64_t order[64];

        for (int64_t e = 0; e < pool; e++) {
            order[e] = e;
        }
        mx_rng_shuffle(r, order, pool);
        if (s->pattern == VARYING) {
            kept = 1 + (int64_t)mx_rng_below(r, (uint64_t)s->slots);
        } else if (s->pattern == NOBODY || (s->pattern == OVERFLOWING && mx_rng_below(r, 3) == 0)) {
            kept = 0;
            p->passed[t] = kit_coarse(0.25 + 0.75 * mx_rng_uniform(r));
        }
        for (int64_t k = 0; k < kept; k++) {
            p->chosen[t * s->slots + k] = (int32_t)(s->pattern == ONE_EXPERT ? s->experts - 1 : order[k]);
            p->gate[t * s->slots + k] = kit_coarse(0.05 + mx_rng_uniform(r));
        }
    }
}

static problem make(const shape *s, uint64_t seed) {
    problem p = { .s = *s };
    mx_rng r;

    mx_rng_init(&r, seed, s->name);
    for (int i = 0; i < 3; i++) {
        adapter *a = &p.of[i];
        int64_t rank = s->rank[i];

        a->in = i == DOWN ? s->inner : s->hidden;
        a->out = i == DOWN ? s->hidden : s->inner;
        a->rank = rank;
        a->scale = 2;
        a->w = kit_values(&r, a->in * a->out, 1.5 / sqrt((double)a->in));
        a->bias = s->bias ? kit_values(&r, a->out, 0.5) : NULL;
        if (rank) {
            a->a = kit_values(&r, s->experts * rank * a->in, 1.5 / sqrt((double)a->in));
            a->b = kit_values(&r, s->experts * a->out * rank, 0.6 / sqrt((double)rank));
        }
        if (s->scaled[i]) {
            a->c = kit_values(&r, s->experts * a->out, 0.5);
            for (int64_t o = 0; o < s->experts * a->out; o++) {
                a->c[o] = kit_coarse(a->c[o] + 1);
            }
        }
        a->da = kit_array(s->experts * rank * a->in);
        a->db = kit_array(s->experts * rank * a->out);
        a->dc = kit_array(s->experts * a->out);
    }
    p.x = kit_values(&r, s->rows * s->hidden, 2);
    p.dy = kit_values(&r, s->rows * s->hidden, 1);
    p.gate = kit_array(s->rows * s->slots);
    p.passed = kit_array(s->rows);
    p.y = kit_array(s->rows * s->hidden);
    p.dx = kit_array(s->rows * s->hidden);
    p.dgate = kit_array(s->rows * s->slots);
    p.dpassed = kit_array(s->rows);
    p.chosen = calloc((size_t)(s->rows * s->slots), sizeof *p.chosen);
    p.position = calloc((size_t)s->rows, sizeof *p.position);
    p.question = calloc((size_t)s->rows, sizeof *p.question);
    for (int64_t i = 0; i < s->rows * s->slots; i++) {
        p.chosen[i] = -1;
    }
    for (int64_t t = 0; t < s->rows; t++) {
        p.position[t] = (int32_t)(t % 11);
        p.question[t] = (int32_t)(t / 11);
    }
    choose(&p, &r);
    return p;
}

static void drop(problem *p) {
    for (int i = 0; i < 3; i++) {
        adapter *a = &p->of[i];
        double *all[] = { a->w, a->bias, a->a, a->b, a->c, a->da, a->db, a->dc };

        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++) {
            free(all[j]);
        }
    }
    free(p->x), free(p->dy), free(p->gate), free(p->passed), free(p->y), free(p->dx), free(p->dgate), free(p->dpassed);
    free(p->chosen), free(p->position), free(p->question);
}

/* ------------------------------------------------------------------ the definition */

enum { SITE = 40, SEED = 7, STEP = 3 };

static double mask_of(const problem *p, int64_t t, uint32_t input, int64_t column) {
    mx_noise noise = { .seed = SEED, .step = STEP, .site = SITE, .rate = p->s.rate };

    return kit_dropout(&noise, input, p->question[t], p->position[t], column);
}

/* y = c . (W u + s B A (mask . u)) + bias; keeps A (mask u) in `low`, the bracket in `z`. */
static void linear(const adapter *a, int64_t e, const double *u, const double *mask, double *low, double *z, double *y) {
    for (int64_t r = 0; r < a->rank; r++) {
        low[r] = 0;
        for (int64_t i = 0; i < a->in; i++) {
            low[r] += a->a[(e * a->rank + r) * a->in + i] * mask[i] * u[i];
        }
    }
    for (int64_t o = 0; o < a->out; o++) {
        z[o] = 0;
        for (int64_t i = 0; i < a->in; i++) {
            z[o] += a->w[o * a->in + i] * u[i];
        }
        for (int64_t r = 0; r < a->rank; r++) {
            z[o] += a->scale * a->b[(e * a->out + o) * a->rank + r] * low[r];
        }
        y[o] = (a->c ? a->c[e * a->out + o] : 1) * z[o] + (a->bias ? a->bias[o] : 0);
    }
}

/* du += of that, and the adapter's gradients. */
static void linear_back(adapter *a, int64_t e, const double *u, const double *mask, const double *low, const double *z,
                        const double *dy, double *du) {
    double dlow[64] = { 0 };

    for (int64_t o = 0; o < a->out; o++) {
        double dz = (a->c ? a->c[e * a->out + o] : 1) * dy[o];

        a->dc[e * a->out + o] += dy[o] * z[o];
        for (int64_t i = 0; i < a->in; i++) {
            du[i] += a->w[o * a->in + i] * dz;
        }
        for (int64_t r = 0; r < a->rank; r++) {
            dlow[r] += a->scale * a->b[(e * a->out + o) * a->rank + r] * dz;
            a->db[(e * a->out + o) * a->rank + r] += a->scale * dz * low[r];
        }
    }
    for (int64_t r = 0; r < a->rank; r++) {
        for (int64_t i = 0; i < a->in; i++) {
            a->da[(e * a->rank + r) * a->in + i] += dlow[r] * mask[i] * u[i];
            du[i] += dlow[r] * a->a[(e * a->rank + r) * a->in + i] * mask[i];
        }
    }
}

/* One slot's expert from end to end and back: adds to y, dx, dgate and the adapters' gradients. */
static void expert_slot(problem *p, int64_t t, int64_t k, double *room) {
    const shape *s = &p->s;
    int64_t c = s->hidden, i = s->inner, e = p->chosen[t * s->slots + k];
    double *a = room, *b = a + i, *h = b + i, *za = h + i, *zb = za + i, *da = zb + i, *db = da + i, *dh = db + i;
    double *mh = dh + i, *mx = mh + i, *out = mx + c, *zo = out + c, *dout = zo + c;
    double low[3][64], g = p->gate[t * s->slots + k], *x = p->x + t * c;

    for (int64_t j = 0; j < c; j++) {
        mx[j] = mask_of(p, t, 0, j);
    }
    for (int64_t j = 0; j < i; j++) {
        mh[j] = mask_of(p, t, (uint32_t)(1 + k), j);
    }
    linear(&p->of[GATE], e, x, mx, low[GATE], za, a);
    linear(&p->of[UP], e, x, mx, low[UP], zb, b);
    for (int64_t j = 0; j < i; j++) {
        h[j] = a[j] / (1 + exp(-a[j])) * b[j];
        dh[j] = 0;
    }
    linear(&p->of[DOWN], e, h, mh, low[DOWN], zo, out);
    for (int64_t j = 0; j < c; j++) {
        p->y[t * c + j] += g * out[j];
        p->dgate[t * s->slots + k] += p->dy[t * c + j] * out[j];
        dout[j] = g * p->dy[t * c + j];
    }
    linear_back(&p->of[DOWN], e, h, mh, low[DOWN], zo, dout, dh);
    for (int64_t j = 0; j < i; j++) {
        double q = 1 / (1 + exp(-a[j]));

        da[j] = dh[j] * b[j] * q * (1 + a[j] * (1 - q));
        db[j] = dh[j] * a[j] * q;
    }
    linear_back(&p->of[GATE], e, x, mx, low[GATE], za, da, p->dx + t * c);
    linear_back(&p->of[UP], e, x, mx, low[UP], zb, db, p->dx + t * c);
}

static void define(problem *p) {
    const shape *s = &p->s;
    double *room = kit_array(9 * s->inner + 4 * s->hidden);

    for (int64_t t = 0; t < s->live; t++) {
        for (int64_t k = 0; k < s->slots; k++) {
            if (p->chosen[t * s->slots + k] >= 0) {
                expert_slot(p, t, k, room);
            }
        }
        for (int64_t j = 0; p->passed[t] != 0 && j < s->hidden; j++) {
            p->y[t * s->hidden + j] += p->passed[t] * p->x[t * s->hidden + j];
            p->dx[t * s->hidden + j] += p->passed[t] * p->dy[t * s->hidden + j];
            p->dpassed[t] += p->x[t * s->hidden + j] * p->dy[t * s->hidden + j];
        }
    }
    free(room);
}

static double objective(problem *p) {
    double sum = 0;

    memset(p->y, 0, sizeof *p->y * (size_t)(p->s.rows * p->s.hidden));
    define(p);
    for (int64_t i = 0; i < p->s.live * p->s.hidden; i++) {
        sum += p->y[i] * p->dy[i];
    }
    return sum;
}

static void check_differences(problem *p, const char *what, double *value, const double *gradient, int64_t n) {
    for (int64_t i = 0; value && i < n; i += 1 + n / 40) {
        double kept = value[i], step = 1e-5, up, down, expected = gradient[i];

        value[i] = kept + step;
        up = objective(p);
        value[i] = kept - step;
        down = objective(p);
        value[i] = kept;
        cr_assert_float_eq((up - down) / (2 * step), expected, 1e-6 * (1 + fabs(expected)), "%s, %s [%ld]: %.9g, not %.9g",
                           p->s.name, what, (long)i, (up - down) / (2 * step), expected);
    }
}

static double *copy_of(const double *from, int64_t n) {
    double *to = kit_array(n);

    memcpy(to, from, sizeof *to * (size_t)n);
    return to;
}

Test(experts, the_reference_is_differentiated_rightly) {
    static const shape SMALL[] = {
        { "differences", 5, 5, 6, 9, 3, 2, { 2, 3, 2 }, { true, true, true }, true, 0.3f, SPREAD },
        { "differences, switch", 6, 6, 6, 9, 3, 1, { 2, 2, 2 }, { 0 }, true, 0, OVERFLOWING },
    };

    for (size_t n = 0; n < sizeof SMALL / sizeof SMALL[0]; n++) {
        problem p = make(&SMALL[n], 5);
        const shape *s = &p.s;
        static const char *NAMES[] = { "gate", "up", "down" };
        double *dx, *dgate, *dpassed, *grad;

        define(&p);
        dx = copy_of(p.dx, s->rows * s->hidden);
        dgate = copy_of(p.dgate, s->rows * s->slots);
        dpassed = copy_of(p.dpassed, s->rows);
        for (int i = 0; i < 3; i++) {
            adapter *a = &p.of[i];
            struct {
                double *value, *gradient;
                int64_t count;
            } part[] = { { a->a, a->da, s->experts * a->rank * a->in },
                         { a->b, a->db, s->experts * a->rank * a->out },
                         { a->c, a->dc, s->experts * a->out } };

            for (int j = 0; j < 3; j++) {
                problem fresh = make(&SMALL[n], 5);

                define(&fresh);
                grad = copy_of(j == 0 ? fresh.of[i].da : j == 1 ? fresh.of[i].db : fresh.of[i].dc, part[j].count);
                check_differences(&p, NAMES[i], part[j].value, grad, part[j].count);
                free(grad);
                drop(&fresh);
            }
        }
        check_differences(&p, "x", p.x, dx, s->live * s->hidden);
        for (int64_t i = 0; i < s->live * s->slots; i++) {
            if (p.chosen[i] >= 0) {
                check_differences(&p, "gate", p.gate + i, dgate + i, 1);
            }
        }
        for (int64_t t = 0; t < s->live; t++) {
            if (p.passed[t] != 0) {
                check_differences(&p, "passed", p.passed + t, dpassed + t, 1);
            }
        }
        free(dx), free(dgate), free(dpassed);
        drop(&p);
    }
}

/* ------------------------------------------------------------------ the op */

typedef struct device {
    mx_backend *b;
    mx_dtype act;
} device;

static device open_device(mx_precision precision, int threads, bool plain) {
    mx_backend *b = kit_open(precision, threads, plain);

    return (device){ .b = b, .act = mx_activation_type(b) };
}

static void *memory(device *d, mx_memory purpose, size_t bytes, int fill) {
    mx_status st = { 0 };
    void *p = NULL;

    cr_assert_eq(d->b->alloc(d->b, purpose, bytes ? bytes : 1, &p, &st), MX_OK, "%s", st.text);
    memset(p, fill, bytes);
    return p;
}

static float *floats(device *d, const double *from, int64_t n, double plus) {
    float *to;

    if (!from) {
        return NULL;
    }
    to = memory(d, MX_MEMORY_TRAINED, sizeof *to * (size_t)n, 0);
    for (int64_t i = 0; i < n; i++) {
        to[i] = (float)(from[i] + plus);
    }
    return to;
}

static int32_t *integers(device *d, const int32_t *from, int64_t n) {
    int32_t *to = memory(d, MX_MEMORY_BATCH, sizeof *to * (size_t)n, 0);

    memcpy(to, from, sizeof *to * (size_t)n);
    return to;
}

static double widened(const void *p, mx_dtype type, int64_t i) {
    return type == MX_F32 ? ((const float *)p)[i] : kit_bf16(((const uint16_t *)p)[i]);
}

/* Rows past `live` are NaN: nothing of them may reach anything. */
static mx_tensor activations(device *d, const double *from, int64_t live, int64_t rows, int64_t columns) {
    size_t bytes = mx_dtype_bytes(d->act);
    unsigned char *p = memory(d, MX_MEMORY_SAVED, bytes * (size_t)(rows * columns), 0xff);

    for (int64_t i = 0; from && i < live * columns; i++) {
        float f = (float)from[i];
        uint32_t bits;

        memcpy(&bits, &f, sizeof bits);
        bits = d->act == MX_BF16 ? bits >> 16 : bits;
        memcpy(p + (size_t)i * bytes, &bits, bytes);
    }
    return mx_tensor_2d(p, d->act, rows, columns);
}

static const double START = 0.5; /* gradients of trained tensors are added to what is there */

typedef struct call {
    mx_experts x;
    mx_rows rows;
    void *scratch;
} call;

static mx_expert_linear linear_of(device *d, const problem *p, int i) {
    const adapter *a = &p->of[i];
    int64_t e = p->s.experts;
    mx_expert_linear l = { .w = kit_weight(d->b, a->w, a->out, a->in), .rank = a->rank, .scale = (float)a->scale };
    double *zeros = kit_array(e * (a->in + a->out) * (a->rank + 1));

    l.bias = floats(d, a->bias, a->out, 0);
    l.a = floats(d, a->a, e * a->rank * a->in, 0);
    l.b = floats(d, a->b, e * a->rank * a->out, 0);
    l.c = floats(d, a->c, e * a->out, 0);
    l.da = a->a ? floats(d, zeros, e * a->rank * a->in, START) : NULL;
    l.db = a->a ? floats(d, zeros, e * a->rank * a->out, START) : NULL;
    l.dc = a->c ? floats(d, zeros, e * a->out, START) : NULL;
    free(zeros);
    return l;
}

static void prepare(call *c, device *d, const problem *p, mx_experts_form form) {
    const shape *s = &p->s;
    size_t bytes;

    c->rows = (mx_rows){ .rows = s->rows, .live = s->live, .position = integers(d, p->position, s->rows),
                         .question = integers(d, p->question, s->rows) };
    c->x = (mx_experts){
        .form = form, .experts = s->experts, .slots = s->slots, .hidden = s->hidden, .inner = s->inner,
        .gate_proj = linear_of(d, p, GATE), .up_proj = linear_of(d, p, UP), .down_proj = linear_of(d, p, DOWN),
        .dropout = { .seed = SEED, .step = STEP, .site = SITE, .rate = s->rate },
        .chosen = integers(d, p->chosen, s->rows * s->slots), .training = true,
        .gate = floats(d, p->gate, s->rows * s->slots, 0),
        .passed = s->pattern == OVERFLOWING || s->pattern == NOBODY ? floats(d, p->passed, s->rows, 0) : NULL,
        .x = activations(d, p->x, s->live, s->rows, s->hidden),
        .y = activations(d, NULL, 0, s->rows, s->hidden),
        .dy = activations(d, p->dy, s->live, s->rows, s->hidden),
        .dx = activations(d, NULL, 0, s->rows, s->hidden),
        .dgate = memory(d, MX_MEMORY_BATCH, sizeof(float) * (size_t)(s->rows * s->slots), 0xff),
    };
    c->x.dpassed = c->x.passed ? memory(d, MX_MEMORY_BATCH, sizeof(float) * (size_t)s->rows, 0xff) : NULL;
    c->x.rows = &c->rows;
    c->x.saved = memory(d, MX_MEMORY_SAVED, d->b->ops->experts_saved_bytes(d->b, &c->x), 0xff);
    bytes = d->b->ops->experts_scratch_bytes(d->b, &c->x);
    c->scratch = memory(d, MX_MEMORY_SCRATCH, bytes, 0xff);
    d->b->ops->scratch(d->b, c->scratch, bytes);
}

static double worst; /* of a sweep, for the person who tunes a tolerance */

static void compare(const problem *p, const char *form, const char *what, const void *got, mx_dtype type,
                    const double *expected, double plus, int64_t n, double tolerance) {
    double size = 1e-3;

    for (int64_t i = 0; i < n; i++) {
        size = fmax(size, fabs(expected[i]));
    }
    for (int64_t i = 0; i < n; i++) {
        double value = widened(got, type, i) - plus, error = fabs(value - expected[i]) / size;

        cr_assert(error <= tolerance, "%s, %s: %s[%ld] is %.7g, not %.7g (largest %.3g)", p->s.name, form, what, (long)i,
                  value, expected[i], size);
        worst = fmax(worst, error);
    }
}

static const char *FORM_NAMES[] = { "factored", "shared", "naive" };

static void compare_all(device *d, const problem *p, const call *c, double tolerance) {
    const shape *s = &p->s;
    const char *form = FORM_NAMES[c->x.form];
    const mx_expert_linear *l[] = { &c->x.gate_proj, &c->x.up_proj, &c->x.down_proj };
    static const char *NAMES[][3] = { { "dA1", "dB1", "dc1" }, { "dA3", "dB3", "dc3" }, { "dA2", "dB2", "dc2" } };

    compare(p, form, "y", c->x.y.data, d->act, p->y, 0, s->rows * s->hidden, tolerance);
    compare(p, form, "dx", c->x.dx.data, d->act, p->dx, 0, s->rows * s->hidden, tolerance);
    compare(p, form, "dgate", c->x.dgate, MX_F32, p->dgate, 0, s->rows * s->slots, tolerance);
    if (c->x.dpassed) {
        compare(p, form, "dpassed", c->x.dpassed, MX_F32, p->dpassed, 0, s->rows, tolerance);
    }
    for (int i = 0; i < 3; i++) {
        const adapter *a = &p->of[i];

        if (l[i]->da) {
            compare(p, form, NAMES[i][0], l[i]->da, MX_F32, a->da, START, s->experts * a->rank * a->in, tolerance);
            compare(p, form, NAMES[i][1], l[i]->db, MX_F32, a->db, START, s->experts * a->rank * a->out, tolerance);
        }
        if (l[i]->dc) {
            compare(p, form, NAMES[i][2], l[i]->dc, MX_F32, a->dc, START, s->experts * a->out, tolerance);
        }
    }
}

static void release(device *d, call *c) {
    const mx_expert_linear *l[] = { &c->x.gate_proj, &c->x.up_proj, &c->x.down_proj };
    mx_backend *b = d->b;

    for (int i = 0; i < 3; i++) {
        const void *all[] = { l[i]->bias, l[i]->a, l[i]->b, l[i]->c, l[i]->da, l[i]->db, l[i]->dc };

        b->weight_close(b, (mx_weight *)l[i]->w);
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++) {
            b->release(b, MX_MEMORY_TRAINED, (void *)all[j]);
        }
    }
    b->release(b, MX_MEMORY_BATCH, (void *)c->rows.position);
    b->release(b, MX_MEMORY_BATCH, (void *)c->rows.question);
    b->release(b, MX_MEMORY_BATCH, (void *)c->x.chosen);
    b->release(b, MX_MEMORY_TRAINED, (void *)c->x.gate);
    b->release(b, MX_MEMORY_TRAINED, (void *)c->x.passed);
    b->release(b, MX_MEMORY_SAVED, c->x.x.data);
    b->release(b, MX_MEMORY_SAVED, c->x.y.data);
    b->release(b, MX_MEMORY_SAVED, c->x.dy.data);
    b->release(b, MX_MEMORY_SAVED, c->x.dx.data);
    b->release(b, MX_MEMORY_SAVED, c->x.saved);
    b->release(b, MX_MEMORY_BATCH, c->x.dgate);
    b->release(b, MX_MEMORY_BATCH, c->x.dpassed);
    b->release(b, MX_MEMORY_SCRATCH, c->scratch);
}

static bool allowed(const shape *s, mx_experts_form form) {
    return form != MX_EXPERTS_FACTORED || !s->scaled[DOWN];
}

/* One thread for the sweeps: on a busy machine every parallel region of a second one waits for its turn. */
static void check_shapes(mx_precision precision, int threads, bool plain, double tolerance, int step) {
    device d = open_device(precision, threads, plain);

    worst = 0;
    for (int i = 0; i < SHAPE_COUNT; i += step) {
        problem p = make(&SHAPES[i], 1);

        define(&p);
        for (mx_experts_form form = MX_EXPERTS_FACTORED; form <= MX_EXPERTS_NAIVE; form++) {
            if (allowed(&p.s, form)) {
                call c;

                prepare(&c, &d, &p, form);
                d.b->ops->experts_forward(d.b, &c.x);
                d.b->ops->experts_backward(d.b, &c.x);
                compare_all(&d, &p, &c, tolerance);
                release(&d, &c);
            }
        }
        drop(&p);
    }
    cr_log_info("largest error %.3g of %.3g", worst, tolerance);
    d.b->close(d.b);
}

Test(experts, all_forms_are_the_definition_in_f32) {
    check_shapes(MX_PRECISION_F32, 1, false, 1e-5, 1);
}

Test(experts, all_forms_are_the_definition_in_bf16) {
    check_shapes(MX_PRECISION_BF16, 1, false, 1.5e-2, 1);
}

Test(experts, two_threads_give_the_definition) {
    check_shapes(MX_PRECISION_F32, 2, false, 1e-5, 7);
    check_shapes(MX_PRECISION_BF16, 2, false, 1.5e-2, 7);
}

Test(experts, plain_c_gives_the_definition) {
    check_shapes(MX_PRECISION_F32, 1, true, 1e-5, 3);
    check_shapes(MX_PRECISION_BF16, 1, true, 1.5e-2, 3);
}

Test(experts, the_same_call_gives_the_same_bits) {
    device d = open_device(MX_PRECISION_BF16, 2, false);
    problem p = make(&SHAPES[0], 2);
    call one, two, *both[] = { &one, &two };

    for (int i = 0; i < 2; i++) {
        prepare(both[i], &d, &p, MX_EXPERTS_FACTORED);
        d.b->ops->experts_forward(d.b, &both[i]->x);
        d.b->ops->experts_backward(d.b, &both[i]->x);
    }
    cr_assert_arr_eq(one.x.y.data, two.x.y.data, mx_tensor_bytes(&one.x.y));
    cr_assert_arr_eq(one.x.dx.data, two.x.dx.data, mx_tensor_bytes(&one.x.dx));
    cr_assert_arr_eq(one.x.gate_proj.db, two.x.gate_proj.db, sizeof(float) * (size_t)(p.s.experts * p.s.rank[0] * p.s.inner));
    release(&d, &one);
    release(&d, &two);
    drop(&p);
    d.b->close(d.b);
}

Test(experts, without_training_nothing_is_dropped_and_nothing_kept) {
    device d = open_device(MX_PRECISION_F32, 1, false);

    for (int i = 0; i < SHAPE_COUNT; i++) {
        shape s = SHAPES[i];
        problem p;

        s.rate = 0;
        p = make(&s, 3);
        define(&p);
        p.s.rate = 0.3f; /* the op is told a rate, which is for training alone */
        for (mx_experts_form form = MX_EXPERTS_FACTORED; form <= MX_EXPERTS_NAIVE; form++) {
            if (allowed(&p.s, form)) {
                void *saved;
                call c;

                prepare(&c, &d, &p, form);
                saved = c.x.saved;
                c.x.saved = NULL;
                c.x.training = false;
                d.b->ops->experts_forward(d.b, &c.x);
                compare(&p, FORM_NAMES[form], "y", c.x.y.data, d.act, p.y, 0, s.rows * s.hidden, 1e-5);
                c.x.saved = saved;
                release(&d, &c);
            }
        }
        drop(&p);
    }
    d.b->close(d.b);
}
