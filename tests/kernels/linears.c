/* linears.c - frozen linears with low-rank terms against their definition in double, and its differences.
 *
 * The reference computes y from the formula in ops.h, term by term. What backward must give is the derivative of
 * L = sum y . dy, which is at most quadratic in any one number, so central differences in double are exact but for
 * rounding (1e-9). Tolerances: f32 sums of a few dozen terms, 1e-5; bf16 rounds q, u, B, A, p and the results to 2^-8,
 * five of them in a chain: 2e-2. */
#include "tests/kernels/kit.h"

enum { LINEARS = 3, TERMS = 2 };

/* How the weights are opened: one by one, without room for terms; as one group with room for all terms; with room too little in
 * columns or in rows; as one group in another order than the linears'. */
typedef enum opening { SINGLY, TOGETHER, FEW_COLUMNS, FEW_ROWS, IN_REVERSE } opening;

typedef struct shape {
    const char *name;
    int64_t rows, live, in, linears, out[LINEARS], terms, rank[TERMS], begin[TERMS], end[TERMS];
    bool vectors, row_weights, c, bias, dx_adds, no_dx, frozen;
    float rate;
    opening open;
    mx_file_type type; /* blocks: of 32 inputs */
} shape;

static const shape SHAPES[] = {
    { .name = "frozen alone", .rows = 9, .live = 9, .in = 12, .linears = 1, .out = { 7 } },
    { .name = "frozen alone, dx adds", .rows = 9, .live = 9, .in = 12, .linears = 2, .out = { 7, 5 }, .dx_adds = true },
    { .name = "one term", .rows = 21, .live = 21, .in = 16, .linears = 1, .out = { 24 }, .terms = 1, .rank = { 4 }, .end = { -1 } },
    { .name = "q, k, v", .rows = 70, .live = 66, .in = 24, .linears = 3, .out = { 24, 8, 8 }, .terms = 1, .rank = { 4 }, .end = { -1 } },
    { .name = "dropout", .rows = 33, .live = 30, .in = 20, .linears = 2, .out = { 12, 16 }, .terms = 1, .rank = { 3 }, .end = { -1 }, .rate = 0.3f },
    { .name = "dropout, dx adds", .rows = 33, .live = 30, .in = 20, .linears = 1, .out = { 12 }, .terms = 1, .rank = { 3 }, .end = { -1 }, .rate = 0.3f, .dx_adds = true },
    { .name = "DoRA", .rows = 18, .live = 16, .in = 12, .linears = 2, .out = { 9, 10 }, .terms = 1, .rank = { 2 }, .end = { -1 }, .c = true, .rate = 0.3f },
    { .name = "DoRA with bias", .rows = 18, .live = 18, .in = 12, .linears = 1, .out = { 9 }, .terms = 1, .rank = { 2 }, .end = { -1 }, .c = true, .bias = true },
    { .name = "c alone", .rows = 18, .live = 18, .in = 12, .linears = 1, .out = { 9 }, .c = true },
    { .name = "bias alone", .rows = 18, .live = 18, .in = 12, .linears = 1, .out = { 9 }, .bias = true },
    { .name = "VeRA's vectors", .rows = 20, .live = 17, .in = 10, .linears = 2, .out = { 8, 6 }, .terms = 1, .rank = { 5 }, .end = { -1 }, .vectors = true, .rate = 0.3f },
    { .name = "row weights", .rows = 20, .live = 20, .in = 10, .linears = 1, .out = { 8 }, .terms = 1, .rank = { 5 }, .end = { -1 }, .row_weights = true },
    { .name = "two adapters on ranges", .rows = 40, .live = 36, .in = 11, .linears = 2, .out = { 8, 7 }, .terms = 2, .rank = { 3, 5 }, .begin = { 2, 17 }, .end = { 17, 40 }, .vectors = true, .row_weights = true, .rate = 0.3f },
    { .name = "two adapters on ranges, no dropout", .rows = 40, .live = 36, .in = 11, .linears = 2, .out = { 8, 7 }, .terms = 2, .rank = { 3, 5 }, .begin = { 2, 17 }, .end = { 17, 40 } },
    { .name = "overlapping ranges", .rows = 30, .live = 30, .in = 9, .linears = 1, .out = { 8 }, .terms = 2, .rank = { 2, 3 }, .begin = { 0, 5 }, .end = { -1, 20 }, .rate = 0.3f, .c = true },
    { .name = "an empty range, and one in the padding", .rows = 30, .live = 20, .in = 9, .linears = 1, .out = { 8 }, .terms = 2, .rank = { 2, 3 }, .begin = { 7, 22 }, .end = { 7, 30 }, .rate = 0.3f },
    { .name = "first layer wants no dx", .rows = 12, .live = 12, .in = 9, .linears = 2, .out = { 8, 4 }, .terms = 1, .rank = { 2 }, .end = { -1 }, .no_dx = true, .rate = 0.3f },
    { .name = "one token", .rows = 1, .live = 1, .in = 8, .linears = 2, .out = { 8, 3 }, .terms = 1, .rank = { 2 }, .end = { -1 }, .open = TOGETHER, .rate = 0.3f },
    { .name = "frozen group", .rows = 35, .live = 33, .in = 32, .linears = 3, .out = { 32, 8, 8 }, .open = TOGETHER },
    { .name = "frozen group, dx adds", .rows = 35, .live = 33, .in = 12, .linears = 2, .out = { 9, 7 }, .open = TOGETHER, .dx_adds = true },
    { .name = "group", .rows = 70, .live = 66, .in = 32, .linears = 3, .out = { 32, 8, 16 }, .terms = 1, .rank = { 8 }, .end = { -1 }, .open = TOGETHER },
    { .name = "group, dx adds", .rows = 40, .live = 40, .in = 24, .linears = 2, .out = { 16, 40 }, .terms = 1, .rank = { 5 }, .end = { -1 }, .open = TOGETHER, .dx_adds = true },
    { .name = "group, dropout", .rows = 70, .live = 66, .in = 32, .linears = 3, .out = { 32, 8, 16 }, .terms = 1, .rank = { 8 }, .end = { -1 }, .rate = 0.3f, .open = TOGETHER },
    { .name = "group of odd sizes, ranges", .rows = 67, .live = 50, .in = 13, .linears = 3, .out = { 11, 3, 7 }, .terms = 2, .rank = { 3, 5 }, .begin = { 2, 17 }, .end = { 17, 60 }, .open = TOGETHER },
    { .name = "group with everything", .rows = 40, .live = 36, .in = 11, .linears = 2, .out = { 8, 7 }, .terms = 2, .rank = { 3, 5 }, .begin = { 0, 10 }, .end = { -1, 40 }, .vectors = true, .row_weights = true, .c = true, .bias = true, .rate = 0.3f, .open = TOGETHER },
    { .name = "group with everything but dropout, dx adds", .rows = 40, .live = 36, .in = 16, .linears = 2, .out = { 8, 24 }, .terms = 2, .rank = { 4, 8 }, .begin = { 0, 10 }, .end = { -1, 40 }, .vectors = true, .row_weights = true, .c = true, .bias = true, .open = TOGETHER, .dx_adds = true },
    { .name = "group, DoRA on rows of several stretches", .rows = 110, .live = 101, .in = 8, .linears = 2, .out = { 16, 9 }, .terms = 1, .rank = { 2 }, .end = { -1 }, .c = true, .open = TOGETHER },
    { .name = "group without dx", .rows = 33, .live = 33, .in = 16, .linears = 2, .out = { 8, 24 }, .terms = 1, .rank = { 4 }, .end = { -1 }, .no_dx = true, .open = TOGETHER },
    { .name = "too few columns", .rows = 21, .live = 20, .in = 16, .linears = 2, .out = { 24, 8 }, .terms = 1, .rank = { 65 }, .end = { -1 }, .open = FEW_COLUMNS, .bias = true },
    { .name = "too few rows", .rows = 21, .live = 20, .in = 16, .linears = 2, .out = { 24, 8 }, .terms = 1, .rank = { 33 }, .end = { -1 }, .open = FEW_ROWS },
    { .name = "group in reverse", .rows = 21, .live = 20, .in = 16, .linears = 3, .out = { 24, 8, 16 }, .terms = 1, .rank = { 4 }, .end = { -1 }, .open = IN_REVERSE },
    { .name = "terms that are not trained", .rows = 21, .live = 20, .in = 16, .linears = 2, .out = { 24, 8 }, .terms = 2, .rank = { 4, 3 }, .end = { -1, -1 }, .vectors = true, .open = TOGETHER, .frozen = true },
    { .name = "Q4_0 group", .rows = 40, .live = 37, .in = 64, .linears = 3, .out = { 32, 8, 16 }, .terms = 1, .rank = { 8 }, .end = { -1 }, .open = TOGETHER, .type = MX_FILE_Q4_0 },
    { .name = "Q8_0 group, dropout", .rows = 40, .live = 37, .in = 32, .linears = 2, .out = { 32, 7 }, .terms = 1, .rank = { 3 }, .end = { -1 }, .rate = 0.3f, .open = TOGETHER, .type = MX_FILE_Q8_0 },
    { .name = "Q4_1, one by one", .rows = 20, .live = 20, .in = 32, .linears = 2, .out = { 8, 7 }, .terms = 1, .rank = { 3 }, .end = { -1 }, .open = SINGLY, .type = MX_FILE_Q4_1 },
    { .name = "Q5_1, one frozen", .rows = 20, .live = 20, .in = 32, .linears = 1, .out = { 8 }, .open = SINGLY, .type = MX_FILE_Q5_1 },
    { .name = "dropout over several tiles, dx adds", .rows = 70, .live = 69, .in = 136, .linears = 1, .out = { 8 }, .terms = 1, .rank = { 35 }, .end = { -1 }, .rate = 0.3f, .dx_adds = true },
    { .name = "wider than a vector", .rows = 75, .live = 71, .in = 40, .linears = 1, .out = { 36 }, .terms = 1, .rank = { 33 }, .end = { -1 }, .rate = 0.3f },
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof SHAPES[0] };


typedef struct problem {
    const shape *s;
    mx_noise noise;
    kit_rows batch;
    void *file[LINEARS]; /* W as a file of the shape's type has it */
    double *x, *w[LINEARS], *bias[LINEARS], *c[LINEARS], *dy[LINEARS], *y[LINEARS];
    double *a[LINEARS][TERMS], *b[LINEARS][TERMS], *d[LINEARS][TERMS], *e[LINEARS][TERMS], *weight[LINEARS][TERMS];
    double *kept; /* (rows, in): dropout's factor */
    double *old_dx;
} problem;

static const double SCALE = 0.75;

static int64_t end_of(const shape *s, int64_t term) {
    return s->end[term] < 0 ? s->rows : s->end[term];
}

/* W (out, in) and its bytes in a file: values of f32, or blocks of any bits whose scales and minima are near 2^-6. */
static void make_weight(problem *p, int64_t j, mx_rng *r) {
    const shape *s = p->s;
    int64_t n = s->out[j] * s->in;
    size_t row = mx_file_type_row_bytes(s->type, s->in), block = s->type == MX_FILE_F32 ? 0 : mx_file_type_row_bytes(s->type, 32);
    float *values = kit_hold(calloc((size_t)n, sizeof *values));

    p->file[j] = values;
    p->w[j] = s->type == MX_FILE_F32 ? kit_values(r, n, 0.5) : kit_array(n);
    if (s->type == MX_FILE_F32) {
        for (int64_t i = 0; i < n; i++) {
            values[i] = (float)p->w[j][i];
        }
        return;
    }
    uint8_t *bytes = kit_hold(calloc((size_t)s->out[j], row));

    p->file[j] = bytes;
    for (size_t i = 0; i < row * (size_t)s->out[j]; i++) {
        bytes[i] = (uint8_t)mx_rng_u32(r);
    }
    for (size_t i = 0; i < row * (size_t)s->out[j]; i += block) {
        bytes[i + 1] = (uint8_t)(0x24 | (bytes[i + 1] & 0x80));
        bytes[i + 3] = (uint8_t)(0x24 | (bytes[i + 3] & 0x80));
    }
    for (int64_t o = 0; o < s->out[j]; o++) {
        mx_file_type_decode(s->type, bytes + (size_t)o * row, s->in, values + o * s->in);
    }
    for (int64_t i = 0; i < n; i++) {
        p->w[j][i] = values[i];
    }
}

static problem make(const shape *s) {
    problem p = { .s = s, .noise = { .seed = 3, .step = 5, .site = 17, .rate = s->rate } };
    mx_rng r;

    mx_rng_init(&r, 1, s->name);
    p.x = kit_values(&r, s->rows * s->in, 1);
    p.kept = kit_array(s->rows * s->in);
    p.old_dx = kit_values(&r, s->rows * s->in, 1);
    for (int64_t j = 0; j < s->linears; j++) {
        make_weight(&p, j, &r);
        p.bias[j] = s->bias ? kit_values(&r, s->out[j], 1) : NULL;
        p.c[j] = s->c ? kit_values(&r, s->out[j], 2) : NULL;
        p.dy[j] = kit_values(&r, s->rows * s->out[j], 1);
        p.y[j] = kit_array(s->rows * s->out[j]);
        for (int64_t i = 0; i < s->terms; i++) {
            p.a[j][i] = kit_values(&r, s->rank[i] * s->in, 0.5);
            p.b[j][i] = kit_values(&r, s->out[j] * s->rank[i], 0.5);
            p.d[j][i] = s->vectors ? kit_values(&r, s->rank[i], 1) : NULL;
            p.e[j][i] = s->vectors ? kit_values(&r, s->out[j], 1) : NULL;
            p.weight[j][i] = s->row_weights ? kit_values(&r, s->rows, 1) : NULL;
        }
    }
    return p;
}

/* y of one row of one linear, by the definition. */
static void forward_row(const problem *p, int64_t j, int64_t t) {
    const shape *s = p->s;
    int64_t out = s->out[j];
    double *y = p->y[j] + t * out;

    for (int64_t o = 0; o < out; o++) {
        y[o] = 0;
        for (int64_t i = 0; i < s->in; i++) {
            y[o] += p->w[j][o * s->in + i] * p->x[t * s->in + i];
        }
    }
    for (int64_t k = 0; k < s->terms; k++) {
        if (t < s->begin[k] || t >= end_of(s, k)) {
            continue;
        }
        for (int64_t r = 0; r < s->rank[k]; r++) {
            double q = 0;

            for (int64_t i = 0; i < s->in; i++) {
                q += p->a[j][k][r * s->in + i] * p->x[t * s->in + i] * p->kept[t * s->in + i];
            }
            q *= SCALE * (p->weight[j][k] ? p->weight[j][k][t] : 1) * (p->d[j][k] ? p->d[j][k][r] : 1);
            for (int64_t o = 0; o < out; o++) {
                y[o] += (p->e[j][k] ? p->e[j][k][o] : 1) * p->b[j][k][o * s->rank[k] + r] * q;
            }
        }
    }
    for (int64_t o = 0; o < out; o++) {
        y[o] = (p->c[j] ? p->c[j][o] : 1) * y[o] + (p->bias[j] ? p->bias[j][o] : 0);
    }
}

/* L over the live rows; `row` >= 0: that row's part alone, enough when only its x or weight changes. */
static double loss(const problem *p, int64_t row) {
    double sum = 0;

    for (int64_t t = row < 0 ? 0 : row; t < (row < 0 ? p->s->live : row + 1); t++) {
        for (int64_t j = 0; j < p->s->linears; j++) {
            forward_row(p, j, t);
            for (int64_t o = 0; o < p->s->out[j]; o++) {
                sum += p->y[j][t * p->s->out[j] + o] * p->dy[j][t * p->s->out[j] + o];
            }
        }
    }
    return sum;
}

/* dL / d value; by_row > 0: `by_row` values belong to each row. Every `step`-th value is differentiated, the others are NaN
 * in *ret. */
static double *difference(const problem *p, double *value, int64_t n, int64_t by_row, int64_t step) {
    double *ret = kit_array(n), size = 0.25;

    for (int64_t i = 0; i < n; i++) {
        int64_t row = by_row ? i / by_row : -1;
        double old = value[i];

        ret[i] = NAN;
        if (i % step) {
            continue;
        }
        if (row >= p->s->live) {
            ret[i] = 0;
            continue;
        }
        value[i] = old + size;
        ret[i] = loss(p, row);
        value[i] = old - size;
        ret[i] = (ret[i] - loss(p, row)) / (2 * size);
        value[i] = old;
    }
    return ret;
}

typedef struct run {
    mx_linear linear[LINEARS];
    mx_low_rank term[LINEARS][TERMS];
    mx_linears l;
} run;

static const float START = 0.5f; /* gradients add to what is there */

static float *gradient(mx_backend *b, int64_t n) {
    float *g = kit_floats(b, NULL, n);

    for (int64_t i = 0; i < n; i++) {
        g[i] = START;
    }
    return g;
}

static void open_weights(mx_backend *b, const problem *p, mx_weight *ret[LINEARS]) {
    const shape *s = p->s;
    mx_weight_source from[LINEARS];
    mx_weight *opened[LINEARS];
    mx_status st = { 0 };
    int64_t ranks = 0;
    mx_weight_room room = { 0 };

    for (int64_t i = 0; i < s->terms; i++) {
        ranks += s->rank[i];
    }
    if (s->open != SINGLY) {
        room.columns = s->open == FEW_COLUMNS ? 1 : ranks;
        room.rows = s->open == FEW_ROWS ? 1 : s->linears * ranks;
    }
    for (int64_t j = 0; j < s->linears; j++) {
        int64_t at = s->open == IN_REVERSE ? s->linears - 1 - j : j;

        from[at] = (mx_weight_source){ .type = s->type, .bytes = p->file[j], .out = s->out[j], .in = s->in };
    }
    if (s->open == SINGLY) {
        for (int64_t j = 0; j < s->linears; j++) {
            cr_assert_eq(b->weights_open(b, &from[j], 1, room, MX_USE_LINEAR, &opened[j], &st), MX_OK, "%s", st.text);
        }
    } else {
        cr_assert_eq(b->weights_open(b, from, (int)s->linears, room, MX_USE_LINEAR, opened, &st), MX_OK, "%s", st.text);
    }
    for (int64_t j = 0; j < s->linears; j++) {
        ret[j] = kit_hold(opened[s->open == IN_REVERSE ? s->linears - 1 - j : j]);
    }
}

static run *prepare(mx_backend *b, problem *p, bool training) {
    const shape *s = p->s;
    run *r = kit_hold(calloc(1, sizeof *r));

    p->batch = kit_batch(b, s->rows, s->live);
    for (int64_t i = 0; i < s->rows * s->in; i++) {
        p->kept[i] = kit_dropout(&p->noise, 0, p->batch.question[i / s->in], p->batch.position[i / s->in], i % s->in);
    }
    r->l = (mx_linears){ .rows = &p->batch.rows, .x = kit_tensor(b, p->x, s->rows, s->in), .in = s->in,
                         .dropout = p->noise, .linear = r->linear, .linears = s->linears, .training = training,
                         .dx_adds = s->dx_adds };
    if (!s->no_dx) {
        r->l.dx = kit_tensor(b, s->dx_adds ? p->old_dx : NULL, s->rows, s->in);
    }
    for (int64_t j = 0; j < s->linears; j++) {
        int64_t out = s->out[j];

        r->linear[j] = (mx_linear){ .w = (const mx_weight *)p, .out = out, .term = r->term[j], .terms = s->terms,
                                    .bias = p->bias[j] ? kit_floats(b, p->bias[j], out) : NULL,
                                    .c = p->c[j] ? kit_floats(b, p->c[j], out) : NULL,
                                    .dc = p->c[j] ? gradient(b, out) : NULL,
                                    .y = kit_tensor(b, NULL, s->rows, out), .dy = kit_tensor(b, p->dy[j], s->rows, out) };
        for (int64_t i = 0; i < s->terms; i++) {
            int64_t rank = s->rank[i];

            r->term[j][i] = (mx_low_rank){
                .a = kit_floats(b, p->a[j][i], rank * s->in), .b = kit_floats(b, p->b[j][i], out * rank), .rank = rank,
                .scale = (float)SCALE, .begin = s->begin[i], .end = s->end[i], .da = s->frozen ? NULL : gradient(b, rank * s->in),
                .db = s->frozen ? NULL : gradient(b, out * rank),
            };
            if (s->vectors) {
                r->term[j][i].rank_scale = kit_floats(b, p->d[j][i], rank);
                r->term[j][i].out_scale = kit_floats(b, p->e[j][i], out);
                r->term[j][i].drank_scale = s->frozen ? NULL : gradient(b, rank);
                r->term[j][i].dout_scale = s->frozen ? NULL : gradient(b, out);
            }
            if (s->row_weights) {
                r->term[j][i].row_weight = kit_floats(b, p->weight[j][i], s->rows);
                r->term[j][i].drow_weight = gradient(b, s->rows);
            }
        }
    }
    /* sizes are asked for before there are weights: a plan's way, it knows shapes alone */
    r->l.saved = training ? kit_memory(b, b->ops->linears_saved_bytes(b, &r->l)) : NULL;
    kit_scratch(b, b->ops->linears_scratch_bytes(b, &r->l));

    mx_weight *w[LINEARS];

    open_weights(b, p, w);
    for (int64_t j = 0; j < s->linears; j++) {
        r->linear[j].w = w[j];
    }
    return r;
}

/* What padding rows hold must reach nothing: after forward they become NaN. */
static void poison(const problem *p, run *r) {
    size_t size = mx_dtype_bytes(r->l.x.dtype);
    int64_t live = p->s->live, padding = p->s->rows - live;

    memset((char *)r->l.x.data + (size_t)(live * p->s->in) * size, 0xff, (size_t)(padding * p->s->in) * size);
    for (int64_t j = 0; j < p->s->linears; j++) {
        memset((char *)r->linear[j].dy.data + (size_t)(live * p->s->out[j]) * size, 0xff,
               (size_t)(padding * p->s->out[j]) * size);
    }
}

static void near_gradient(const problem *p, const char *what, double *value, int64_t n, int64_t by_row, const float *got,
                          double tolerance) {
    int64_t step = n > 120 ? n / 60 : 1;
    double *expected = difference(p, value, n, by_row, step), *sample = kit_array(n);
    float *picked = calloc((size_t)n + 1, sizeof *picked);
    int64_t count = 0;

    cr_assert(picked);
    for (int64_t i = 0; i < n; i += step) {
        sample[count] = expected[i];
        picked[count++] = got[i] - START;
    }
    double far = kit_far(sample, NULL, picked, count);

    /* START + g is rounded at START's size; a gradient that is zero must be it to that size */
    cr_assert(far <= tolerance || (far * 1e-30 < 1e-6 && far > 1e6), "%s: %s off by %.3g of the largest, allowed %.3g",
              p->s->name, what, far, tolerance);
    free(expected);
    free(sample);
    free(picked);
}

static void check_gradients(problem *p, run *r, double tolerance) {
    const shape *s = p->s;

    for (int64_t j = 0; j < s->linears; j++) {
        if (s->c) {
            near_gradient(p, "dc", p->c[j], s->out[j], 0, r->linear[j].dc, tolerance);
        }
        for (int64_t i = 0; i < s->terms && !s->frozen; i++) {
            const mx_low_rank *t = &r->term[j][i];

            near_gradient(p, "dA", p->a[j][i], s->rank[i] * s->in, 0, t->da, tolerance);
            near_gradient(p, "dB", p->b[j][i], s->rank[i] * s->out[j], 0, t->db, tolerance);
            if (s->vectors) {
                near_gradient(p, "dd", p->d[j][i], s->rank[i], 0, t->drank_scale, tolerance);
                near_gradient(p, "de", p->e[j][i], s->out[j], 0, t->dout_scale, tolerance);
            }
            if (s->row_weights) {
                near_gradient(p, "dw", p->weight[j][i], s->rows, 1, t->drow_weight, tolerance);
            }
        }
    }
    if (!s->no_dx) {
        double *expected = difference(p, p->x, s->live * s->in, s->in, 1);

        for (int64_t i = 0; i < s->live * s->in; i++) {
            expected[i] += s->dx_adds ? p->old_dx[i] : 0;
        }

        double far = kit_far(expected, &r->l.dx, NULL, s->live * s->in);

        cr_assert(far <= tolerance, "%s: dx off by %.3g of the largest, allowed %.3g", s->name, far, tolerance);
        free(expected);
    }
}

static void check(const shape *s, mx_precision precision, bool plain) {
    mx_backend *b = kit_open(precision, 2, plain);
    problem p = make(s);
    run *r = prepare(b, &p, true);
    double tolerance = precision == MX_PRECISION_BF16 ? 2e-2 : 1e-5;

    b->ops->linears_forward(b, &r->l);
    loss(&p, -1);
    for (int64_t j = 0; j < s->linears; j++) {
        double far = kit_far(p.y[j], &r->linear[j].y, NULL, s->live * s->out[j]);

        cr_assert(far <= tolerance, "%s, %s: y off by %.3g of the largest, allowed %.3g", s->name, kit_name(b), far, tolerance);
    }
    poison(&p, r);
    b->ops->linears_backward(b, &r->l);
    check_gradients(&p, r, tolerance);
    kit_sync(b);
    b->close(b);
}

Test(linears, f32_agrees_with_the_definition_and_its_differences) {
    for (int i = 0; i < SHAPE_COUNT; i++) {
        check(&SHAPES[i], MX_PRECISION_F32, false);
    }
}

Test(linears, bf16_agrees_with_the_definition_and_its_differences) {
    for (int i = 0; i < SHAPE_COUNT; i++) {
        check(&SHAPES[i], MX_PRECISION_BF16, false);
    }
}

Test(linears, plain_products_agree_too) {
    for (int i = 0; i < SHAPE_COUNT; i += 3) {
        check(&SHAPES[i], MX_PRECISION_F32, true);
        check(&SHAPES[i], MX_PRECISION_BF16, true);
    }
}

Test(linears, at_evaluation_nothing_is_kept_and_values_are_equal) {
    mx_precision precision;

    KIT_EACH_PRECISION(precision) {
        for (int i = 0; i < SHAPE_COUNT; i++) {
            mx_backend *b = kit_open(precision, 1, false);
            problem p = make(&SHAPES[i]);
            run *kept = prepare(b, &p, true);

            b->ops->linears_forward(b, &kept->l);

            run *r = prepare(b, &p, false);

            cr_assert_eq(b->ops->linears_saved_bytes(b, &r->l), 0);
            b->ops->linears_forward(b, &r->l);
            for (int64_t j = 0; j < p.s->linears; j++) {
                cr_assert_eq(memcmp(r->linear[j].y.data, kept->linear[j].y.data, mx_tensor_bytes(&r->linear[j].y)), 0, "%s",
                             p.s->name);
            }
            b->close(b);
        }
    }
}

Test(linears, the_same_call_twice_has_the_same_bits) {
    mx_precision precision;
    const shape *s = &SHAPES[SHAPE_COUNT - 1];

    KIT_EACH_PRECISION(precision) {
        run *r[2];
        mx_backend *b = kit_open(precision, 2, false);
        problem p = make(s);

        for (int i = 0; i < 2; i++) {
            r[i] = prepare(b, &p, true);
            b->ops->linears_forward(b, &r[i]->l);
            b->ops->linears_backward(b, &r[i]->l);
        }
        cr_assert_eq(memcmp(r[0]->linear[0].y.data, r[1]->linear[0].y.data, mx_tensor_bytes(&r[0]->linear[0].y)), 0);
        cr_assert_eq(memcmp(r[0]->l.dx.data, r[1]->l.dx.data, mx_tensor_bytes(&r[0]->l.dx)), 0);
        cr_assert_eq(memcmp(r[0]->term[0][0].da, r[1]->term[0][0].da, sizeof(float) * (size_t)(s->rank[0] * s->in)), 0);
        cr_assert_eq(memcmp(r[0]->term[0][0].db, r[1]->term[0][0].db, sizeof(float) * (size_t)(s->rank[0] * s->out[0])), 0);
        b->close(b);
    }
}
