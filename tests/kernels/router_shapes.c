/* router_shapes.c - routing over shapes that hurt: one row, one expert, more experts than lanes, all of them chosen, thousands
 * of rows, ragged sequences with prefixes, all tokens to one expert. The formulas in double, whose gradients router.c holds
 * against differences; what is chosen is held against the definition, what depends on the choice against that choice.
 *
 * Tolerances: logits of some dozen products in f32 1e-5; gradients of the largest 1e-4, in bf16 dx is rounded once, 2^-8. */
#include "tests/kernels/kit.h"

typedef struct shape {
    mx_routing routing;
    int64_t rows, live, width, experts, slots, tasks;
    bool one; /* all tokens want expert 0 most */
} shape;

typedef struct problem {
    const shape *s;
    kit_rows batch;
    double *x, *w, *dgate, *dpassed, *dx, *dw;
    double *z, *p, *lse; /* (T, E), (T, E), (T): by definition */
    int64_t *wanted;     /* (T) the likeliest */
    mx_router r;
} problem;

/* Sequences of all lengths up to 64; every third is the prefix of the next. */
static void lay_segments(problem *q, mx_backend *b) {
    static const int32_t lengths[] = { 5, 1, 40, 33, 64, 2, 31 };
    int64_t live = q->s->live, count = 0, begin = 0;
    mx_segment *segment = kit_memory(b, sizeof *segment * (size_t)(live + 1));

    while (begin < live) {
        int32_t length = lengths[count % 7];
        mx_segment *at = &segment[count];

        *at = (mx_segment){ .begin = (int32_t)begin, .count = begin + length > live ? (int32_t)(live - begin) : length };
        if (count % 3 == 1) {
            at->prefix_begin = at[-1].begin;
            at->prefix_count = at[-1].count;
        }
        begin += at->count;
        count++;
    }
    q->batch.rows.segment = segment;
    q->batch.rows.segments = count;
}

static void define(problem *q) {
    int64_t e = q->s->experts, c = q->s->width;

    for (int64_t t = 0; t < q->s->live; t++) {
        double *z = q->z + t * e, *p = q->p + t * e, sum = 0;
        int64_t best = 0;

        for (int64_t i = 0; i < e; i++) {
            for (int64_t k = 0; k < c; k++) {
                z[i] += q->w[i * c + k] * q->x[t * c + k];
            }
            sum += exp(z[i]);
            best = z[i] > z[best] ? i : best;
        }
        for (int64_t i = 0; i < e; i++) {
            p[i] = exp(z[i]) / sum;
        }
        q->lse[t] = log(sum);
        q->wanted[t] = best;
    }
}

static problem *make(mx_backend *b, const shape *s) {
    problem *q = kit_hold(calloc(1, sizeof *q));
    int64_t t = s->rows, e = s->experts, k = s->slots, c = s->width;
    size_t cells = (size_t)(s->tasks * e);
    mx_rng rng;

    mx_rng_init(&rng, (uint64_t)(t * 31 + e), "routes");
    q->s = s;
    q->batch = kit_batch(b, t, s->live);
    lay_segments(q, b);
    q->x = kit_values(&rng, t * c, 1);
    q->w = kit_values(&rng, e * c, c > 64 ? 0.2 : 0.6);
    for (int64_t i = 0; i < t && s->one; i++) {
        q->x[i * c] = 1;
        q->w[0] = 32;
    }
    for (int64_t i = 0; i < t; i++) {
        q->batch.task[i] = (int32_t)(i / 7 % s->tasks);
    }
    q->dgate = kit_values(&rng, t * k, 1);
    q->dpassed = kit_values(&rng, t, 1);
    q->dx = kit_values(&rng, t * c, 0.01);
    q->dw = kit_values(&rng, e * c, 1);
    q->z = kit_array(t * e);
    q->p = kit_array(t * e);
    q->lse = kit_array(t);
    q->wanted = kit_hold(calloc((size_t)t, sizeof *q->wanted));
    define(q);
    q->r = (mx_router){
        .rows = &q->batch.rows, .routing = s->routing, .experts = e, .slots = k, .top_p = 0.8, .capacity = 3,
        .x = kit_tensor(b, q->x, t, c), .w = kit_floats(b, q->w, e * c), .logits = kit_floats(b, NULL, t * e),
        .prob = kit_floats(b, NULL, t * e), .chosen = kit_memory(b, sizeof(int32_t) * (size_t)(t * k)), .gate = kit_floats(b, NULL, t * k),
        .passed = s->routing == MX_ROUTE_SWITCH ? kit_floats(b, NULL, t) : NULL,
        .tally = { .tokens = kit_memory(b, 8 * cells), .dropped = kit_memory(b, 8 * cells), .rows = kit_memory(b, 8 * (size_t)s->tasks),
                   .pairs = kit_memory(b, 8 * cells * (size_t)e), .probability = kit_memory(b, 8 * cells),
                   .entropy = kit_memory(b, 8 * (size_t)s->tasks), .tasks = s->tasks },
        .sums = { kit_memory(b, 8 * (size_t)e), kit_memory(b, 8 * (size_t)e), kit_memory(b, 8) },
        .dgate = kit_floats(b, q->dgate, t * k), .dpassed = s->routing == MX_ROUTE_SWITCH ? kit_floats(b, q->dpassed, t) : NULL,
        .balance_coef = 0.3, .z_coef = 0.2, .share = 0.6, .rows_all = (double)s->live,
        .dw = kit_floats(b, q->dw, e * c), .dw_losses = kit_floats(b, NULL, e * c), .dx = kit_tensor(b, q->dx, t, c),
    };
    return q;
}

/* ------------------------------------------------------------------ the choice */

/* Each place holds the likeliest of those that no place before it holds (or one as good as it, to f32). */
static void check_places(const problem *q, int64_t t) {
    const mx_router *r = &q->r;
    const double *p = q->p + t * r->experts;
    bool *seen = calloc((size_t)r->experts, sizeof *seen);
    double before = 0;

    for (int64_t k = 0; k < r->slots; k++) {
        int32_t e = r->chosen[t * r->slots + k];
        double best = 0;

        for (int64_t i = 0; i < r->experts; i++) {
            best = !seen[i] && p[i] > best ? p[i] : best;
        }
        if (r->routing == MX_ROUTE_TOP_P && before > r->top_p) {
            cr_assert(e == -1 && r->gate[t * r->slots + k] == 0, "row %ld: place %ld is one too many", (long)t, (long)k);
            continue;
        }
        cr_assert(e >= 0 && e < r->experts && !seen[e], "row %ld, place %ld: %d", (long)t, (long)k, e);
        cr_assert(p[e] >= best * (1 - 2e-5), "row %ld, place %ld: expert %d with %.9g, there is %.9g", (long)t, (long)k, e, p[e], best);
        seen[e] = true;
        before += p[e];
    }
    free(seen);
}

static void check_gates(const problem *q, int64_t t) {
    const mx_router *r = &q->r;
    double sum = 0;

    for (int64_t k = 0; k < r->slots; k++) {
        sum += r->chosen[t * r->slots + k] >= 0 ? q->p[t * r->experts + r->chosen[t * r->slots + k]] : 0;
    }
    for (int64_t k = 0; k < r->slots; k++) {
        int32_t e = r->chosen[t * r->slots + k];
        double gate = e < 0 ? 0 : q->p[t * r->experts + e] / (r->routing == MX_ROUTE_TOP_K ? sum : 1);

        cr_assert_float_eq((double)r->gate[t * r->slots + k], gate, 1e-5);
    }
}

/* The queue of each sequence, its prefix's rows first. */
static void check_queues(const problem *q) {
    const mx_rows *rows = q->r.rows;
    int64_t *queue = calloc((size_t)q->r.experts, sizeof *queue);

    for (int64_t s = 0; s < rows->segments; s++) {
        const mx_segment *at = &rows->segment[s];

        memset(queue, 0, sizeof *queue * (size_t)q->r.experts);
        for (int64_t i = 0; i < at->prefix_count; i++) {
            queue[q->wanted[at->prefix_begin + i]]++;
        }
        for (int64_t t = at->begin; t < at->begin + at->count; t++) {
            int64_t e = q->wanted[t];
            bool served = queue[e]++ < q->r.capacity;

            cr_assert_eq(q->r.chosen[t], served ? e : -1, "row %ld of segment %ld", (long)t, (long)s);
            cr_assert_float_eq((double)q->r.gate[t], served ? q->p[t * q->r.experts + e] : 0, 1e-5);
            cr_assert_float_eq((double)q->r.passed[t], served ? 0 : q->p[t * q->r.experts + e], 1e-5);
        }
    }
    free(queue);
}

/* ------------------------------------------------------------------ what is left behind */

static void check_tally(const problem *q) {
    const mx_router *r = &q->r;
    const mx_router_tally *y = &r->tally;
    int64_t e = r->experts, cells = y->tasks * e;
    int64_t *tokens = calloc((size_t)(cells * (2 + e)), sizeof *tokens), *dropped = tokens + cells, *pairs = dropped + cells;
    double *probability = kit_array(cells), *entropy = kit_array(y->tasks), *chosen = kit_array(e), *sums = kit_array(e), z = 0;

    for (int64_t t = 0; t < q->s->live; t++) {
        int64_t task = q->batch.task[t];

        for (int64_t i = 0; i < e; i++) {
            double p = q->p[t * e + i];

            probability[task * e + i] += p;
            sums[i] += p;
            entropy[task] -= p > 0 ? p * log(p) : 0;
        }
        z += q->lse[t] * q->lse[t];
        for (int64_t k = 0; k < r->slots; k++) {
            int64_t i = r->chosen[t * r->slots + k];

            if (i < 0 && r->routing == MX_ROUTE_SWITCH) {
                dropped[task * e + q->wanted[t]]++;
                chosen[q->wanted[t]]++;
            }
            if (i < 0) {
                continue;
            }
            tokens[task * e + i]++;
            chosen[i]++;
            for (int64_t j = 0; j < r->slots; j++) {
                int64_t other = r->chosen[t * r->slots + j];

                pairs[(task * e + i) * e + (other > i ? other : 0)] += other > i;
            }
        }
    }
    cr_assert_arr_eq(y->tokens, tokens, sizeof *tokens * (size_t)cells);
    cr_assert_arr_eq(y->dropped, dropped, sizeof *tokens * (size_t)cells);
    cr_assert_arr_eq(y->pairs, pairs, sizeof *tokens * (size_t)(cells * e));
    cr_assert_arr_eq(r->sums.chosen, chosen, sizeof *chosen * (size_t)e);
    for (int64_t i = 0; i < cells; i++) {
        cr_assert_float_eq(y->probability[i], probability[i], 1e-4);
    }
    for (int64_t i = 0; i < e; i++) {
        cr_assert_float_eq(r->sums.probability[i], sums[i], 1e-4);
    }
    for (int64_t i = 0; i < y->tasks; i++) {
        cr_assert_float_eq(y->entropy[i], entropy[i], 1e-3);
    }
    cr_assert_float_eq(*r->sums.z, z, 1e-5 * z + 1e-9);
    free(tokens);
}

/* ------------------------------------------------------------------ gradients */

/* dz of the gates and of what passed; dl of the losses. */
static void gradient_row(const problem *q, int64_t t, double *dz, double *dl) {
    const mx_router *r = &q->r;
    int64_t e = r->experts;
    const double *p = q->p + t * e;
    double sum = 0, mean = 0, loads = 0;

    for (int64_t k = 0; k < r->slots; k++) {
        sum += r->chosen[t * r->slots + k] >= 0 ? p[r->chosen[t * r->slots + k]] : 0;
    }
    for (int64_t i = 0; i < e; i++) {
        dz[i] = 0;
        loads += p[i] * r->sums.chosen[i];
    }
    for (int64_t k = 0; k < r->slots; k++) {
        int64_t i = r->chosen[t * r->slots + k];
        double d = q->dgate[t * r->slots + k];

        if (i < 0 && r->routing == MX_ROUTE_SWITCH) {
            i = q->wanted[t];
            d = q->dpassed[t];
        }
        if (i >= 0) {
            double gate = r->routing == MX_ROUTE_TOP_K ? p[i] / sum : p[i];

            dz[i] += gate * d;
            mean += gate * d;
        }
    }
    for (int64_t i = 0; i < e; i++) {
        bool in = r->routing != MX_ROUTE_TOP_K;

        for (int64_t k = 0; k < r->slots; k++) {
            in = in || r->chosen[t * r->slots + k] == i;
        }
        dz[i] -= in ? mean * (r->routing == MX_ROUTE_TOP_K ? p[i] / sum : p[i]) : 0;
        dl[i] = r->share * p[i] * (r->balance_coef * (double)e / (r->rows_all * r->rows_all) * (r->sums.chosen[i] - loads) +
                                   r->z_coef * 2 * q->lse[t] / r->rows_all);
    }
}

static void check_gradients(const problem *q, double tolerance) {
    int64_t e = q->r.experts, c = q->s->width;
    double *dz = kit_array(e), *dl = kit_array(e), *losses = kit_array(e * c);

    for (int64_t t = 0; t < q->s->live; t++) {
        gradient_row(q, t, dz, dl);
        for (int64_t i = 0; i < e; i++) {
            for (int64_t k = 0; k < c; k++) {
                q->dx[t * c + k] += (dz[i] + dl[i]) * q->w[i * c + k];
                q->dw[i * c + k] += (dz[i] + dl[i]) * q->x[t * c + k];
                losses[i * c + k] += dl[i] * q->x[t * c + k];
            }
        }
    }
    kit_near_tensor("dx", q->dx, q->r.dx, q->s->rows * c, tolerance);
    kit_near_floats("dw", q->dw, q->r.dw, e * c, 1e-4);
    kit_near_floats("dw of the losses", losses, q->r.dw_losses, e * c, 1e-4);
}

static void check(const shape *s, mx_precision precision) {
    mx_backend *b = kit_open(precision, 2, false);
    problem *q = make(b, s);

    kit_scratch(b, b->ops->router_scratch_bytes(b, &q->r));
    b->ops->router_forward(b, &q->r);
    b->ops->router_backward(b, &q->r);
    kit_sync(b);
    kit_near_floats("logits", q->z, q->r.logits, s->rows * s->experts, 1e-5);
    kit_near_floats("p", q->p, q->r.prob, s->rows * s->experts, 1e-5);
    for (int64_t t = 0; t < s->live && s->routing != MX_ROUTE_SWITCH; t++) {
        check_places(q, t);
        check_gates(q, t);
    }
    for (int64_t i = s->live * s->slots; i < s->rows * s->slots; i++) {
        cr_assert(q->r.chosen[i] == -1 && q->r.gate[i] == 0, "padding chose an expert");
    }
    if (s->routing == MX_ROUTE_SWITCH) {
        check_queues(q);
    }
    check_tally(q);
    check_gradients(q, precision == MX_PRECISION_BF16 ? 0x1p-8 : 1e-4);
    b->close(b);
}

static void check_all(const shape *s, size_t count) {
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        for (size_t i = 0; i < count; i++) {
            check(&s[i], p);
        }
    }
}

Test(router_shapes, top_k) {
    static const shape shapes[] = {
        { MX_ROUTE_TOP_K, 1, 1, 1, 1, 1, 1, false },     { MX_ROUTE_TOP_K, 2, 1, 3, 2, 2, 1, false },
        { MX_ROUTE_TOP_K, 70, 66, 129, 64, 8, 2, false }, { MX_ROUTE_TOP_K, 20, 19, 9, 300, 300, 2, false },
        { MX_ROUTE_TOP_K, 300, 290, 31, 8, 2, 3, true },  { MX_ROUTE_TOP_K, 8300, 8290, 8, 4, 2, 3, false },
    };

    check_all(shapes, sizeof shapes / sizeof shapes[0]);
}

Test(router_shapes, top_p) {
    static const shape shapes[] = {
        { MX_ROUTE_TOP_P, 1, 1, 5, 3, 3, 1, false },
        { MX_ROUTE_TOP_P, 40, 33, 24, 33, 33, 5, false },
        { MX_ROUTE_TOP_P, 150, 150, 72, 70, 70, 2, true },
    };

    check_all(shapes, sizeof shapes / sizeof shapes[0]);
}

Test(router_shapes, switches) {
    static const shape shapes[] = {
        { MX_ROUTE_SWITCH, 1, 1, 5, 1, 1, 1, false },     { MX_ROUTE_SWITCH, 600, 590, 40, 7, 1, 2, false },
        { MX_ROUTE_SWITCH, 200, 200, 16, 70, 1, 3, false }, { MX_ROUTE_SWITCH, 300, 290, 31, 8, 1, 1, true },
    };

    check_all(shapes, sizeof shapes / sizeof shapes[0]);
}
