/* experts_shapes.c - the routed block on a second device against the CPU's f32 op, which experts.c holds to the definition: weights
 * opened as groups with room for the low-rank terms, quantised ones, shapes that leave nothing a multiple of anything, and
 * that what a token gets does not depend on its neighbours.
 *
 * Errors are relative to the largest value of the tensor. f32: two orders of summing the same terms, 1e-5. bf16 against f32: as
 * in experts.c, 1.5e-2. */
#include "tests/kernels/kit.h"

typedef enum pattern { SPREAD, LAST_EXPERT, FEW_EXPERTS, VARYING, OVERFLOWING, SKEWED } pattern;
typedef enum grouping { SINGLE, GROUPED, GROUPED_WITHOUT_ROOM, GROUPED_QUANTISED } grouping;

typedef struct shape {
    const char *name;
    int64_t rows, live, hidden, inner, experts, slots;
    int64_t rank[3]; /* gate, up, down; 0: no adapter */
    bool scaled[3];  /* DoRA's c */
    bool bias;
    float rate;
    pattern pattern;
    grouping grouping;
} shape;

enum { GATE, UP, DOWN, LINEARS };

static const shape SHAPES[] = {
    { "group", 70, 67, 64, 96, 4, 2, { 16, 16, 16 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "group, one token", 1, 1, 32, 64, 4, 2, { 4, 4, 4 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "group, nothing even", 37, 33, 19, 131, 5, 2, { 3, 5, 7 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "group, dropout", 70, 67, 64, 96, 4, 2, { 8, 8, 8 }, { 0 }, false, 0.05f, SPREAD, GROUPED },
    { "group, biases and passing on", 50, 47, 24, 72, 4, 1, { 8, 4, 8 }, { 0 }, true, 0, OVERFLOWING, GROUPED },
    { "group, passing on and dropout", 50, 47, 24, 72, 4, 1, { 8, 4, 8 }, { 0 }, false, 0.2f, OVERFLOWING, GROUPED },
    { "group, DoRA on all", 45, 41, 40, 90, 4, 2, { 4, 6, 4 }, { true, true, true }, true, 0.1f, SPREAD, GROUPED },
    { "group, adapters on up alone", 33, 33, 16, 64, 4, 2, { 0, 4, 0 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "group, adapters on down alone", 33, 33, 16, 64, 4, 2, { 0, 0, 4 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "group, no adapters", 33, 33, 16, 64, 4, 2, { 0, 0, 0 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "group without room", 40, 39, 32, 80, 4, 2, { 4, 4, 4 }, { 0 }, false, 0, SPREAD, GROUPED_WITHOUT_ROOM },
    { "group of Q8_0", 40, 39, 64, 96, 4, 2, { 4, 4, 4 }, { 0 }, false, 0, SPREAD, GROUPED_QUANTISED },
    { "group of Q8_0, dropout", 40, 39, 64, 96, 4, 2, { 4, 4, 4 }, { 0 }, false, 0.1f, SPREAD, GROUPED_QUANTISED },
    { "a column", 20, 20, 8, 1, 3, 2, { 2, 2, 2 }, { 0 }, true, 0.1f, SPREAD, GROUPED },
    { "just past a strip", 40, 40, 24, 257, 3, 2, { 9, 9, 9 }, { true, true, false }, true, 0.1f, SPREAD, SINGLE },
    { "a group and a half of columns", 131, 131, 32, 48, 4, 2, { 16, 16, 16 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "the same, dropout", 131, 129, 32, 48, 4, 2, { 8, 8, 8 }, { true, true, false }, true, 0.1f, SPREAD, GROUPED },
    { "many columns", 35, 35, 16, 1100, 3, 2, { 8, 8, 8 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "ranks of two steps", 50, 50, 24, 70, 3, 2, { 32, 17, 31 }, { 0 }, false, 0.1f, SPREAD, GROUPED },
    { "the largest ranks", 40, 40, 16, 150, 2, 2, { 128, 127, 128 }, { true, false, false }, false, 0, SPREAD, GROUPED },
    { "ranks past the largest", 24, 24, 16, 70, 2, 2, { 4, 130, 16 }, { 0 }, false, 0.1f, SPREAD, GROUPED },
    { "256 experts", 64, 64, 16, 40, 256, 2, { 2, 2, 2 }, { 0 }, false, 0, SPREAD, GROUPED },
    { "70 experts, all of them", 20, 19, 16, 40, 70, 70, { 3, 2, 1 }, { 0 }, true, 0, VARYING, GROUPED },
    { "all tokens on the last expert", 150, 150, 16, 64, 8, 1, { 8, 8, 8 }, { 0 }, false, 0, LAST_EXPERT, GROUPED },
    { "experts nobody uses", 70, 70, 16, 64, 9, 3, { 8, 8, 8 }, { 0 }, false, 0, FEW_EXPERTS, GROUPED },
    { "one expert for most", 200, 190, 16, 64, 6, 2, { 4, 4, 4 }, { 0 }, false, 0.1f, SKEWED, GROUPED },
    { "more sums than shared memory holds", 18, 18, 16, 48, 12, 12, { 128, 100, 128 }, { 0 }, false, 0, VARYING, GROUPED },
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof SHAPES[0] };

/* ------------------------------------------------------------------ a problem */

typedef struct matrix {
    int64_t out, in;
    double *values;
    unsigned char *blocks; /* Q8_0, or NULL */
} matrix;

typedef struct problem {
    shape s;
    matrix w[LINEARS];
    double *bias[LINEARS], *a[LINEARS], *b[LINEARS], *c[LINEARS];
    double *x, *dy, *gate, *passed;
    int32_t *chosen, *position, *question;
} problem;

enum { BLOCK = 32, BLOCK_BYTES = 34, HALF_2_TO_MINUS_9 = 0x1800 };

/* Whole numbers times 2^-9, which bf16 holds. */
static void quantise(matrix *w, mx_rng *r) {
    int64_t blocks = w->out * w->in / BLOCK;

    cr_assert(blocks > 0 && blocks < 1 << 20);
    w->blocks = kit_hold(malloc((size_t)blocks * BLOCK_BYTES));
    for (int64_t i = 0; i < w->out * w->in; i++) {
        unsigned char *block = w->blocks + i / BLOCK * BLOCK_BYTES;
        int q = (int)mx_rng_below(r, 255) - 127;

        block[0] = HALF_2_TO_MINUS_9 & 0xff;
        block[1] = HALF_2_TO_MINUS_9 >> 8;
        block[2 + i % BLOCK] = (unsigned char)q;
        w->values[i] = q / 512.0;
    }
}

static void choose(problem *p, mx_rng *r) {
    const shape *s = &p->s;
    int64_t order[256];

    for (int64_t t = 0; t < s->live; t++) {
        int64_t pool = s->pattern == FEW_EXPERTS ? s->slots + 1 : s->experts, kept = s->slots;

        for (int64_t e = 0; e < pool; e++) {
            order[e] = e;
        }
        mx_rng_shuffle(r, order, pool);
        if (s->pattern == VARYING) {
            kept = (int64_t)mx_rng_below(r, (uint64_t)s->slots + 1);
        } else if (s->pattern == OVERFLOWING && mx_rng_below(r, 3) == 0) {
            kept = 0;
            p->passed[t] = kit_coarse(0.25 + 0.75 * mx_rng_uniform(r));
        } else if (s->pattern == LAST_EXPERT) {
            order[0] = s->experts - 1;
        } else if (s->pattern == SKEWED && t % 8 != 0) {
            order[0] = 2;
            order[1] = 3 + (t % 2);
        }
        for (int64_t k = 0; k < kept; k++) {
            p->chosen[t * s->slots + k] = (int32_t)order[k];
            p->gate[t * s->slots + k] = kit_coarse(0.05 + mx_rng_uniform(r));
        }
    }
}

static problem make(const shape *s) {
    problem p = { .s = *s };
    mx_rng r;

    mx_rng_init(&r, 11, s->name);
    for (int i = 0; i < LINEARS; i++) {
        matrix *w = &p.w[i];

        w->in = i == DOWN ? s->inner : s->hidden;
        w->out = i == DOWN ? s->hidden : s->inner;
        w->values = kit_values(&r, w->in * w->out, 1.5 / sqrt((double)w->in));
        if (s->grouping == GROUPED_QUANTISED) {
            quantise(w, &r);
        }
        p.bias[i] = s->bias ? kit_values(&r, w->out, 0.5) : NULL;
        if (s->rank[i]) {
            p.a[i] = kit_values(&r, s->experts * s->rank[i] * w->in, 1.5 / sqrt((double)w->in));
            p.b[i] = kit_values(&r, s->experts * s->rank[i] * w->out, 0.6 / sqrt((double)s->rank[i]));
        }
        p.c[i] = s->scaled[i] ? kit_values(&r, s->experts * w->out, 0.5) : NULL;
        for (int64_t o = 0; p.c[i] && o < s->experts * w->out; o++) {
            p.c[i][o] = kit_coarse(p.c[i][o] + 1);
        }
    }
    p.x = kit_values(&r, s->rows * s->hidden, 2);
    p.dy = kit_values(&r, s->rows * s->hidden, 1);
    p.gate = kit_array(s->rows * s->slots);
    p.passed = kit_array(s->rows);
    p.chosen = kit_hold(calloc((size_t)(s->rows * s->slots), sizeof *p.chosen));
    p.position = kit_hold(calloc((size_t)s->rows, sizeof *p.position));
    p.question = kit_hold(calloc((size_t)s->rows, sizeof *p.question));
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

/* ------------------------------------------------------------------ a run */

enum { TENSORS = 13 };
static const char *NAMES[TENSORS] = { "y", "dx", "dgate", "dpassed", "dA1", "dB1", "dc1", "dA3", "dB3", "dc3", "dA2", "dB2", "dc2" };

typedef struct result {
    double *value[TENSORS];
    int64_t count[TENSORS];
} result;

static void open_weights(mx_backend *b, const problem *p, mx_weight *ret[LINEARS]) {
    const shape *s = &p->s;
    bool room = s->grouping == GROUPED || s->grouping == GROUPED_QUANTISED, single = s->grouping == SINGLE;
    mx_weight_room in = { .rows = room ? s->experts * (s->rank[GATE] + s->rank[UP]) : 0 };
    mx_weight_room out = { .columns = room ? s->experts * s->rank[DOWN] : 0 };
    mx_weight_source from[LINEARS];
    mx_status st = { 0 };
    float *values[LINEARS];

    for (int i = 0; i < LINEARS; i++) {
        const matrix *w = &p->w[i];

        values[i] = malloc(sizeof(float) * (size_t)(w->out * w->in));
        cr_assert(values[i]);
        for (int64_t j = 0; j < w->out * w->in; j++) {
            values[i][j] = (float)w->values[j];
        }
        from[i] = (mx_weight_source){ .type = w->blocks ? MX_FILE_Q8_0 : MX_FILE_F32, .out = w->out, .in = w->in,
                                      .bytes = w->blocks ? (const void *)w->blocks : values[i] };
    }
    for (int i = 0; i < LINEARS; i += i == GATE && !single ? 2 : 1) {
        int count = i == GATE && !single ? 2 : 1;

        cr_assert_eq(b->weights_open(b, from + i, count, i == DOWN ? out : in, MX_USE_LINEAR, ret + i, &st), MX_OK, "%s", st.text);
    }
    for (int i = 0; i < LINEARS; i++) {
        free(values[i]);
    }
}

/* Rows past `live` are NaN. */
static mx_tensor activations(mx_backend *b, const double *from, int64_t live, int64_t rows, int64_t columns) {
    double *all = malloc(sizeof *all * (size_t)(rows * columns));
    mx_tensor t;

    cr_assert(all);
    for (int64_t i = 0; i < rows * columns; i++) {
        all[i] = i < live * columns ? from[i] : NAN;
    }
    t = kit_tensor(b, all, rows, columns);
    free(all);
    return t;
}

static void keep_floats(result *to, int i, const float *from, int64_t n) {
    to->count[i] = n;
    to->value[i] = kit_array(n);
    for (int64_t j = 0; j < n; j++) {
        to->value[i][j] = from[j];
    }
}
static void keep_tensor(result *to, int i, const mx_tensor *from, int64_t n) {
    to->count[i] = n;
    to->value[i] = kit_array(n);
    for (int64_t j = 0; j < n; j++) {
        to->value[i][j] = kit_at(from, j);
    }
}

static int32_t *numbers(mx_backend *b, const int32_t *from, int64_t n) {
    int32_t *to = kit_memory(b, sizeof *to * (size_t)n);

    memcpy(to, from, sizeof *to * (size_t)n);
    return to;
}

static mx_expert_linear linear_of(mx_backend *b, const problem *p, int i, mx_weight *w) {
    int64_t e = p->s.experts, rank = p->s.rank[i], in = p->w[i].in, out = p->w[i].out;
    mx_expert_linear l = { .w = w, .rank = rank, .scale = 2 };

    l.bias = p->bias[i] ? kit_floats(b, p->bias[i], out) : NULL;
    l.c = p->c[i] ? kit_floats(b, p->c[i], e * out) : NULL;
    l.dc = p->c[i] ? kit_floats(b, p->c[i], e * out) : NULL; /* something to add to */
    if (rank) {
        l.a = kit_floats(b, p->a[i], e * rank * in);
        l.b = kit_floats(b, p->b[i], e * rank * out);
        l.da = kit_floats(b, p->a[i], e * rank * in);
        l.db = kit_floats(b, p->b[i], e * rank * out);
    }
    return l;
}

static void run(mx_backend *b, const problem *p, mx_experts_form form, result *ret) {
    const shape *s = &p->s;
    mx_rows rows = { .rows = s->rows, .live = s->live, .position = numbers(b, p->position, s->rows),
                     .question = numbers(b, p->question, s->rows) };
    mx_weight *w[LINEARS];
    mx_experts x = {
        .rows = &rows, .form = form, .experts = s->experts, .slots = s->slots, .hidden = s->hidden, .inner = s->inner,
        .dropout = { .seed = 5, .step = 2, .site = 30, .rate = s->rate }, .training = true,
        .chosen = numbers(b, p->chosen, s->rows * s->slots),
    };
    bool passes = s->pattern == OVERFLOWING;

    open_weights(b, p, w);
    x.gate_proj = linear_of(b, p, GATE, w[GATE]);
    x.up_proj = linear_of(b, p, UP, w[UP]);
    x.down_proj = linear_of(b, p, DOWN, w[DOWN]);
    x.gate = kit_floats(b, p->gate, s->rows * s->slots);
    x.passed = passes ? kit_floats(b, p->passed, s->rows) : NULL;
    x.x = activations(b, p->x, s->live, s->rows, s->hidden);
    x.dy = activations(b, p->dy, s->live, s->rows, s->hidden);
    x.y = kit_tensor(b, NULL, s->rows, s->hidden);
    x.dx = kit_tensor(b, NULL, s->rows, s->hidden);
    x.dgate = kit_floats(b, NULL, s->rows * s->slots);
    x.dpassed = passes ? kit_floats(b, NULL, s->rows) : NULL;
    x.saved = kit_memory(b, b->ops->experts_saved_bytes(b, &x));
    memset(x.saved, 0xff, b->ops->experts_saved_bytes(b, &x));
    kit_scratch(b, b->ops->experts_scratch_bytes(b, &x));
    b->ops->experts_forward(b, &x);
    b->ops->experts_backward(b, &x);
    kit_sync(b);

    memset(ret, 0, sizeof *ret);
    keep_tensor(ret, 0, &x.y, s->rows * s->hidden);
    keep_tensor(ret, 1, &x.dx, s->rows * s->hidden);
    keep_floats(ret, 2, x.dgate, s->rows * s->slots);
    if (passes) {
        keep_floats(ret, 3, x.dpassed, s->rows);
    }
    for (int i = 0; i < LINEARS; i++) {
        const mx_expert_linear *l = i == GATE ? &x.gate_proj : i == UP ? &x.up_proj : &x.down_proj;

        if (l->da) {
            keep_floats(ret, 4 + 3 * i, l->da, s->experts * l->rank * p->w[i].in);
            keep_floats(ret, 5 + 3 * i, l->db, s->experts * l->rank * p->w[i].out);
        }
        if (l->dc) {
            keep_floats(ret, 6 + 3 * i, l->dc, s->experts * p->w[i].out);
        }
        b->weight_close(b, w[i]);
    }
}

static mx_backend *open_cpu(void) {
    mx_backend_options o = { .device = "cpu", .precision = MX_PRECISION_F32, .threads = 1 };
    mx_backend *b = NULL;
    mx_status st = { 0 };

    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_OK, "%s", st.text);
    return b;
}

static const char *FORM_NAMES[] = { "factored", "shared", "naive" };

static double compare(const problem *p, mx_experts_form form, const result *expected, const result *got, double tolerance) {
    double worst = 0;

    for (int i = 0; i < TENSORS; i++) {
        double size = 1e-3, far = 0;
        int64_t where = 0;

        cr_assert_eq(expected->count[i], got->count[i]);
        if (got->count[i] == 0) {
            continue;
        }
        for (int64_t j = 0; j < got->count[i]; j++) {
            double error = fabs(expected->value[i][j] - got->value[i][j]);

            size = fmax(size, fabs(expected->value[i][j]));
            if (!(error <= far)) {
                far = isnan(error) ? INFINITY : error;
                where = j;
            }
        }
        cr_assert(far / size <= tolerance, "%s, %s: %s[%ld] is %.7g, not %.7g (largest %.3g)", p->s.name, FORM_NAMES[form], NAMES[i],
                  (long)where, got->value[i][where], expected->value[i][where], size);
        worst = fmax(worst, far / size);
    }
    return worst;
}

static void check_shapes(mx_precision precision, double tolerance) {
    mx_backend *cpu = open_cpu(), *b = NULL;
    double worst = 0;

    if (strcmp(KIT_DEVICE, "cpu") != 0) { /* of the CPU's there can be one at a time */
        b = kit_open(precision, 0, false);
    }
    for (int i = 0; i < SHAPE_COUNT; i++) {
        problem p = make(&SHAPES[i]);

        for (mx_experts_form form = MX_EXPERTS_FACTORED; form <= MX_EXPERTS_NAIVE; form++) {
            result expected, got;

            if (form == MX_EXPERTS_FACTORED && p.s.scaled[DOWN]) {
                continue;
            }
            run(cpu, &p, form, &expected);
            run(b ? b : cpu, &p, form, &got);
            worst = fmax(worst, compare(&p, form, &expected, &got, tolerance));
        }
    }
    cr_log_info("largest error %.3g of %.3g", worst, tolerance);
    cpu->close(cpu);
    if (b) {
        b->close(b);
    }
}

Test(experts_shapes, all_forms_are_the_cpu_s_in_f32) {
    check_shapes(MX_PRECISION_F32, 1e-5);
}

Test(experts_shapes, all_forms_are_near_the_cpu_s_in_bf16) {
    check_shapes(MX_PRECISION_BF16, 1.5e-2);
}

/* ------------------------------------------------------------------ order */

/* Tokens in another order, each with what names its masks: rows must come out the same to the bit, wherever a tile puts them. */
Test(experts_shapes, a_token_s_results_do_not_depend_on_its_neighbours) {
    static const shape S = { "neighbours", 75, 75, 32, 160, 6, 2, { 8, 8, 8 }, { 0 }, false, 0.1f, VARYING, GROUPED };
    mx_backend *b = kit_open(MX_PRECISION_BF16, 1, false);
    problem p = make(&S), q = make(&S);
    result one, two;

    for (int64_t t = 0; t < S.rows; t++) {
        int64_t from = t * 31 % S.rows; /* 31 and 75 share no factor */

        memcpy(q.x + t * S.hidden, p.x + from * S.hidden, sizeof *q.x * (size_t)S.hidden);
        memcpy(q.dy + t * S.hidden, p.dy + from * S.hidden, sizeof *q.dy * (size_t)S.hidden);
        memcpy(q.gate + t * S.slots, p.gate + from * S.slots, sizeof *q.gate * (size_t)S.slots);
        memcpy(q.chosen + t * S.slots, p.chosen + from * S.slots, sizeof *q.chosen * (size_t)S.slots);
        q.position[t] = p.position[from];
        q.question[t] = p.question[from];
    }
    for (mx_experts_form form = MX_EXPERTS_FACTORED; form <= MX_EXPERTS_NAIVE; form++) {
        run(b, &p, form, &one);
        run(b, &q, form, &two);
        for (int i = 0; i < 3; i++) { /* y, dx, dgate */
            int64_t columns = one.count[i] / S.rows;

            for (int64_t t = 0; t < S.rows; t++) {
                int64_t from = t * 31 % S.rows;

                cr_assert_arr_eq(two.value[i] + t * columns, one.value[i] + from * columns, sizeof(double) * (size_t)columns,
                                 "%s, %s: row %ld is not what row %ld was", FORM_NAMES[form], NAMES[i], (long)t, (long)from);
            }
        }
    }
    b->close(b);
}

Test(experts_shapes, the_same_call_gives_the_same_bits) {
    mx_backend *b = kit_open(MX_PRECISION_BF16, 1, false);

    for (int i = 0; i < SHAPE_COUNT; i += 3) {
        problem p = make(&SHAPES[i]);
        mx_experts_form form = p.s.scaled[DOWN] ? MX_EXPERTS_SHARED : MX_EXPERTS_FACTORED;
        result one, two;

        run(b, &p, form, &one);
        run(b, &p, form, &two);
        for (int j = 0; j < TENSORS; j++) {
            cr_assert_eq(one.count[j], two.count[j]);
            for (int64_t n = 0; n < one.count[j]; n++) {
                cr_assert(one.value[j][n] == two.value[j][n], "%s: %s[%ld] is %.9g, then %.9g", p.s.name, NAMES[j], (long)n,
                          one.value[j][n], two.value[j][n]);
            }
        }
    }
    b->close(b);
}
