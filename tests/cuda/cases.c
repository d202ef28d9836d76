/* cases.c - drawing problems, and the ops whose problems are short. */
#include "tests/cuda/cases.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void give_up(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    abort();
}

/* ------------------------------------------------------------------ drawing */

int64_t case_between(case_run *r, int64_t least, int64_t most) {
    return least + (int64_t)mx_rng_below(&r->rng, (uint64_t)(most - least + 1));
}
bool case_chance(case_run *r, double probability) {
    return mx_rng_uniform(&r->rng) < probability;
}
int64_t case_one_of(case_run *r, int count, const int64_t *of) {
    return of[mx_rng_below(&r->rng, (uint64_t)count)];
}
void case_says(case_run *r, const char *fmt, ...) {
    size_t used = strlen(r->shape);
    va_list args;

    va_start(args, fmt);
    vsnprintf(r->shape + used, sizeof r->shape - used, fmt, args);
    va_end(args);
}

static void hold(case_run *r, void *memory, mx_weight *weight, int purpose) {
    r->held = realloc(r->held, sizeof *r->held * (size_t)(r->held_count + 1));
    if (!r->held) {
        give_up("case", "no memory");
    }
    r->held[r->held_count++] = (case_held){ memory, weight, purpose };
}

void *case_host(case_run *r, size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p) {
        give_up("case", "no memory");
    }
    hold(r, p, NULL, -1);
    return p;
}

float *case_values(case_run *r, int64_t n, double size) {
    float *p = case_host(r, sizeof *p * (size_t)n);

    for (int64_t i = 0; i < n; i++) {
        float f = (float)(size * (2 * mx_rng_uniform(&r->rng) - 1));
        uint32_t bits;

        memcpy(&bits, &f, sizeof bits);
        bits &= 0xffff0000u;
        memcpy(&p[i], &bits, sizeof bits);
    }
    return p;
}

/* ------------------------------------------------------------------ device memory */

void *case_memory(case_run *r, mx_memory purpose, const void *from, size_t bytes) {
    void *p = NULL, *poison = from ? NULL : case_host(r, bytes);
    mx_status st = { 0 };

    if (r->b->alloc(r->b, purpose, bytes ? bytes : 1, &p, &st) != MX_OK) {
        give_up("alloc", st.text);
    }
    hold(r, p, NULL, (int)purpose);
    if (poison) {
        memset(poison, 0xff, bytes);
    }
    r->b->write(r->b, p, from ? from : poison, bytes);
    return p;
}

float *case_floats(case_run *r, const float *from, int64_t n) {
    return case_memory(r, MX_MEMORY_TRAINED, from, sizeof *from * (size_t)n);
}
float *case_drawn(case_run *r, int64_t n, double size) {
    return case_floats(r, case_values(r, n, size), n);
}

mx_tensor case_act(case_run *r, const float *from, int64_t rows, int64_t columns, int64_t live) {
    mx_dtype act = mx_activation_type(r->b);
    size_t width = mx_dtype_bytes(act), bytes = (size_t)(rows * columns) * width;
    unsigned char *p = case_host(r, bytes);

    memset(p, 0xff, bytes);
    for (int64_t i = 0; from && i < live * columns; i++) {
        memcpy(p + (size_t)i * width, (const unsigned char *)&from[i] + 4 - width, width); /* the upper bytes */
    }
    return mx_tensor_2d(case_memory(r, MX_MEMORY_SAVED, p, bytes), act, rows, columns);
}
mx_tensor case_drawn_act(case_run *r, int64_t rows, int64_t columns, int64_t live, double size) {
    return case_act(r, case_values(r, rows * columns, size), rows, columns, live);
}
void case_scratch(case_run *r, size_t bytes) {
    r->b->ops->scratch(r->b, case_memory(r, MX_MEMORY_SCRATCH, NULL, bytes), bytes);
}

void case_out(case_run *r, const char *name, const void *device, mx_dtype type, int64_t count) {
    case_output *o = &r->output[r->outputs++];

    if (r->outputs > CASE_OUTPUTS) {
        give_up(name, "one output too many");
    }
    snprintf(o->name, sizeof o->name, "%s", name);
    o->type = type;
    o->count = count;
    o->least = 1e-6; /* what is zero but for rounding */
    o->device = (void *)device;
}
void case_out_act(case_run *r, const char *name, mx_tensor t, int64_t live) {
    case_out(r, name, t.data, t.dtype, live * t.dim[1]);
}

static void sync(case_run *r) {
    mx_status st = { 0 };

    if (r->b->sync(r->b, &st) != MX_OK) {
        give_up(r->shape, st.text);
    }
}

void case_ops_begin(case_run *r) {
    sync(r);
    r->waits = r->b->waits;
    r->allocations = r->b->allocations;
}
void case_ops_end(case_run *r) {
    r->waits = r->b->waits - r->waits;
    r->allocations = r->b->allocations - r->allocations;
}

/* ------------------------------------------------------------------ running and comparing */

void case_begin(case_run *r, mx_backend *b, const char *name, uint64_t seed, bool small) {
    *r = (case_run){ .b = b, .small = small };
    mx_rng_init(&r->rng, seed, name);
    case_says(r, "%s, seed %lu:", name, (unsigned long)seed);
}

void case_end(case_run *r) {
    mx_backend *b = r->b;

    sync(r);
    for (int i = 0; i < r->outputs; i++) {
        case_output *o = &r->output[i];
        size_t bytes = mx_dtype_bytes(o->type) * (size_t)o->count;

        o->host = malloc(bytes ? bytes : 1);
        if (!o->host) {
            give_up("case", "no memory");
        }
        b->read(b, o->host, o->device, bytes);
    }
    for (int64_t i = r->held_count - 1; i >= 0; i--) {
        case_held *h = &r->held[i];

        if (h->weight) {
            b->weight_close(b, h->weight);
        } else if (h->purpose < 0) {
            free(h->memory);
        } else {
            b->release(b, (mx_memory)h->purpose, h->memory);
        }
    }
    free(r->held);
    r->held = NULL;
}

void case_run_on(const op_case *c, mx_backend *b, uint64_t seed, bool small, case_run *r) {
    case_begin(r, b, c->name, seed, small);
    c->run(r);
    case_end(r);
}

void case_free(case_run *r) {
    for (int i = 0; i < r->outputs; i++) {
        free(r->output[i].host);
    }
    r->outputs = 0;
}

double case_value(const case_output *o, int64_t i) {
    uint32_t bits;
    float f;

    switch (o->type) {
    case MX_F32: return ((const float *)o->host)[i];
    case MX_F64: return ((const double *)o->host)[i];
    case MX_I32: return ((const int32_t *)o->host)[i];
    case MX_I64: return (double)((const int64_t *)o->host)[i];
    case MX_BF16: break;
    }
    bits = (uint32_t)((const uint16_t *)o->host)[i] << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static double output_far(const case_output *expected, const case_output *got) {
    bool whole = got->type == MX_I32 || got->type == MX_I64;
    double worst = 0, largest = got->least;

    for (int64_t i = 0; i < got->count; i++) {
        double e = case_value(expected, i), far = fabs(case_value(got, i) - e);

        if (isnan(far) || (whole && far > 0)) {
            return INFINITY;
        }
        worst = fmax(worst, far);
        largest = fmax(largest, fabs(e));
    }
    return worst / largest;
}

double case_far(const case_run *expected, const case_run *got, const char **which) {
    double worst = 0;

    *which = "nothing";
    for (int i = 0; i < got->outputs; i++) {
        double far = output_far(&expected->output[i], &got->output[i]);

        if (far > worst) {
            worst = far;
            *which = got->output[i].name;
        }
    }
    return worst;
}

const char *case_other_bytes(const case_run *a, const case_run *b) {
    for (int i = 0; i < a->outputs; i++) {
        const case_output *o = &a->output[i];

        if (memcmp(o->host, b->output[i].host, mx_dtype_bytes(o->type) * (size_t)o->count) != 0) {
            return o->name;
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ rows and weights */

mx_rows case_rows(case_run *r, int64_t most) {
    enum { SEGMENTS = 8 };
    mx_segment segment[SEGMENTS];
    int64_t live = 0, rows, segments = 0, prefix = -1, wanted = case_between(r, 1, SEGMENTS);
    int32_t *token, *position, *question, *task, *row_segment;

    while (segments < wanted && live < most) {
        int64_t count = case_between(r, 1, segments + 1 == wanted || case_chance(r, 0.3) ? most - live : 1 + (most - live) / 4);
        bool leads = segments + 1 < wanted && case_chance(r, 0.3), follows = !leads && prefix >= 0 && case_chance(r, 0.8);

        segment[segments] = (mx_segment){ .begin = (int32_t)live, .count = (int32_t)count,
                                          .prefix_begin = follows ? segment[prefix].begin : 0,
                                          .prefix_count = follows ? segment[prefix].count : 0 };
        prefix = leads ? segments : prefix;
        live += count;
        segments++;
    }
    rows = live + (case_chance(r, 0.5) ? case_between(r, 0, 9) : 0);
    token = case_host(r, sizeof *token * (size_t)rows);
    position = case_host(r, sizeof *position * (size_t)rows);
    question = case_host(r, sizeof *question * (size_t)rows);
    task = case_host(r, sizeof *task * (size_t)rows);
    row_segment = case_host(r, sizeof *row_segment * (size_t)rows);
    for (int64_t s = 0; s < segments; s++) {
        for (int32_t i = 0; i < segment[s].count; i++) {
            int32_t t = segment[s].begin + i;

            token[t] = (int32_t)case_between(r, 0, CASE_VOCAB - 1);
            position[t] = segment[s].prefix_count + i;
            question[t] = (int32_t)(1000 + s);
            task[t] = (int32_t)(s % CASE_TASKS);
            row_segment[t] = (int32_t)s;
        }
    }
    case_says(r, " %ld rows, %ld live, %ld segments;", (long)rows, (long)live, (long)segments);

    size_t bytes = sizeof(int32_t) * (size_t)rows;

    return (mx_rows){ .rows = rows, .live = live, .segments = segments,
                      .token = case_memory(r, MX_MEMORY_BATCH, token, bytes), .position = case_memory(r, MX_MEMORY_BATCH, position, bytes),
                      .question = case_memory(r, MX_MEMORY_BATCH, question, bytes), .task = case_memory(r, MX_MEMORY_BATCH, task, bytes),
                      .segment = case_memory(r, MX_MEMORY_BATCH, segment, sizeof *segment * (size_t)segments),
                      .row_segment = case_memory(r, MX_MEMORY_BATCH, row_segment, bytes) };
}

/* W (out, in) as bytes of a file: f32 values, or blocks of any bits whose scales and minima are near 2^-6. */
static void *weight_bytes(case_run *r, mx_file_type type, int64_t out, int64_t in) {
    size_t row = mx_file_type_row_bytes(type, in), block = mx_file_type_row_bytes(type, 32), bytes = row * (size_t)out;
    uint8_t *p;

    if (type == MX_FILE_F32) {
        return case_values(r, out * in, 1.2 / sqrt((double)in));
    }
    p = case_host(r, bytes);
    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t)mx_rng_u32(&r->rng);
    }
    for (size_t i = 0; i < bytes; i += block) {
        p[i + 1] = (uint8_t)(0x20 | (p[i + 1] & 0x83));
        p[i + 3] = type == MX_FILE_Q4_1 ? (uint8_t)(0x20 | (p[i + 3] & 0x83)) : p[i + 3];
    }
    return p;
}

void case_weights(case_run *r, int count, const int64_t *out, int64_t in, mx_weight_room room, unsigned use, mx_weight **ret) {
    static const int64_t TYPES[] = { MX_FILE_F32, MX_FILE_F32, MX_FILE_Q8_0, MX_FILE_Q4_0, MX_FILE_Q4_1 };
    mx_file_type type = in % 32 == 0 ? (mx_file_type)case_one_of(r, 5, TYPES) : MX_FILE_F32;
    mx_weight_source from[MX_WEIGHT_GROUP];
    mx_status st = { 0 };

    for (int i = 0; i < count; i++) {
        from[i] = (mx_weight_source){ .type = type, .bytes = weight_bytes(r, type, out[i], in), .out = out[i], .in = in };
    }
    case_says(r, " %s", mx_file_type_name(type));
    if (r->b->weights_open(r->b, from, count, room, use, ret, &st) != MX_OK) {
        give_up("weights_open", st.text);
    }
    for (int i = 0; i < count; i++) {
        hold(r, NULL, ret[i], -1);
    }
}

static mx_weight *weight(case_run *r, int64_t out, int64_t in, unsigned use) {
    mx_weight_room none = { 0, 0 };
    mx_weight *w;

    case_weights(r, 1, &out, in, none, use, &w);
    return w;
}

static int64_t width(case_run *r) {
    static const int64_t SMALL[] = { 1, 7, 16, 33, 64 }, WIDE[] = { 1, 24, 64, 131, 257, 576 };

    return r->small ? case_one_of(r, 5, SMALL) : case_one_of(r, 6, WIDE);
}
static int64_t most_rows(const case_run *r) {
    return r->small ? 30 : 300;
}

/* ------------------------------------------------------------------ ops with short problems */

static void case_embed(case_run *r) {
    int64_t c = width(r);
    mx_rows rows = case_rows(r, most_rows(r));
    mx_weight *table = weight(r, CASE_VOCAB, c, MX_USE_EMBEDDING);
    mx_tensor y = case_act(r, NULL, rows.rows, c, 0);

    case_says(r, " width %ld", (long)c);
    case_ops_begin(r);
    r->b->ops->embed(r->b, y, table, &rows);
    case_ops_end(r);
    case_out_act(r, "y", y, rows.live);
}

static void case_rmsnorm(case_run *r) {
    int64_t t = case_between(r, 1, most_rows(r)), c = width(r);
    mx_tensor x = case_drawn_act(r, t, c, t, 3), y = case_act(r, NULL, t, c, 0), dy = case_drawn_act(r, t, c, t, 1);
    mx_tensor dx = case_drawn_act(r, t, c, t, 1);
    float *w = case_drawn(r, c, 2), *rstd = case_floats(r, NULL, t);

    case_says(r, " %ld x %ld", (long)t, (long)c);
    case_ops_begin(r);
    r->b->ops->rmsnorm_forward(r->b, y, rstd, x, w, 1e-5f);
    r->b->ops->rmsnorm_backward(r->b, dx, dy, x, rstd, w);
    case_ops_end(r);
    case_out_act(r, "y", y, t);
    case_out(r, "rstd", rstd, MX_F32, t);
    case_out_act(r, "dx", dx, t);
}

static void case_rope(case_run *r) {
    static const int64_t WIDTHS[] = { 2, 6, 64, 80, 128 };
    int64_t heads = case_between(r, 1, 5), d = case_one_of(r, 5, WIDTHS);
    mx_rows rows = case_rows(r, most_rows(r));
    mx_tensor x = case_drawn_act(r, rows.rows, heads * d, rows.live, 1), dx = case_drawn_act(r, rows.rows, heads * d, rows.live, 1);
    float *inverse = case_host(r, sizeof *inverse * (size_t)(d / 2));

    for (int64_t i = 0; i < d / 2; i++) {
        inverse[i] = (float)pow(10000, -2 * (double)i / (double)d);
    }
    inverse = case_floats(r, inverse, d / 2);
    case_says(r, " %ld heads of %ld", (long)heads, (long)d);
    case_ops_begin(r);
    r->b->ops->rope(r->b, x, heads, d, &rows, inverse, false);
    r->b->ops->rope(r->b, dx, heads, d, &rows, inverse, true);
    case_ops_end(r);
    case_out_act(r, "x", x, rows.live);
    case_out_act(r, "dx", dx, rows.live);
}

static void case_elements(case_run *r) {
    int64_t c = width(r);
    mx_rows rows = case_rows(r, most_rows(r));
    int64_t t = rows.rows, live = rows.live;
    mx_tensor g = case_drawn_act(r, t, c, live, 3), u = case_drawn_act(r, t, c, live, 2), dh = case_drawn_act(r, t, c, live, 1);
    mx_tensor h = case_act(r, NULL, t, c, 0), dg = case_act(r, NULL, t, c, 0), du = case_act(r, NULL, t, c, 0);
    mx_tensor sum = case_act(r, NULL, t, c, 0), xr = case_act(r, NULL, t, c, 0), dx = case_drawn_act(r, t, c, live, 1);
    mx_noise noise = { .seed = 11, .step = (uint64_t)case_between(r, 0, 1000), .site = 5, .rate = 0.1f };

    case_says(r, " width %ld", (long)c);
    case_ops_begin(r);
    r->b->ops->swiglu_forward(r->b, h, g, u);
    r->b->ops->swiglu_backward(r->b, dg, du, dh, g, u);
    r->b->ops->add(r->b, sum, g, u);
    r->b->ops->jitter_forward(r->b, xr, g, &rows, noise);
    r->b->ops->jitter_backward(r->b, dx, dh, &rows, noise);
    case_ops_end(r);
    case_out_act(r, "h", h, live);
    case_out_act(r, "dg", dg, live);
    case_out_act(r, "du", du, live);
    case_out_act(r, "sum", sum, live);
    case_out_act(r, "xr", xr, live);
    case_out_act(r, "dx", dx, live);
}

static void case_gather(case_run *r) {
    int64_t c = width(r), t = case_between(r, 1, most_rows(r)), n = case_between(r, 1, 2 * t);
    mx_tensor x = case_drawn_act(r, t, c, t, 1), y = case_act(r, NULL, n, c, 0), g = case_drawn_act(r, n, c, n, 1);
    mx_tensor dx = case_act(r, NULL, t, c, 0);
    float *scale = case_drawn(r, n, 1);
    int32_t *row = case_host(r, sizeof *row * (size_t)n);

    for (int64_t i = 0; i < n; i++) { /* rows repeat */
        row[i] = (int32_t)case_between(r, 0, case_chance(r, 0.5) ? (t - 1) / 3 : t - 1);
    }
    row = case_memory(r, MX_MEMORY_BATCH, row, sizeof *row * (size_t)n);
    case_says(r, " %ld of %ld rows, width %ld", (long)n, (long)t, (long)c);
    case_ops_begin(r);
    r->b->ops->gather_rows(r->b, y, x, row, n);
    r->b->ops->scatter_rows(r->b, dx, g, scale, row, n);
    case_ops_end(r);
    case_out_act(r, "y", y, n);
    case_out_act(r, "dx", dx, t);
}

static void case_head(case_run *r) {
    int64_t c = width(r), v = case_between(r, 2, r->small ? 90 : 700), n = case_between(r, 1, most_rows(r) / 2);
    mx_weight *w = weight(r, v, c, MX_USE_LINEAR | MX_USE_EMBEDDING);
    mx_tensor x = case_drawn_act(r, n, c, n, 3), g = case_act(r, NULL, n, c, 0);
    int32_t *target = case_host(r, sizeof *target * (size_t)n);
    float *nll = case_floats(r, NULL, n), *logits = case_floats(r, NULL, n * v);
    mx_head h = { .w = w, .vocab = v, .rows = n, .x = x, .nll = nll, .g = g };

    for (int64_t i = 0; i < n; i++) {
        target[i] = (int32_t)case_between(r, 0, v - 1);
    }
    h.target = case_memory(r, MX_MEMORY_BATCH, target, sizeof *target * (size_t)n);
    case_scratch(r, r->b->ops->head_scratch_bytes(r->b, &h));
    case_says(r, " %ld rows, vocabulary %ld, width %ld", (long)n, (long)v, (long)c);
    case_ops_begin(r);
    r->b->ops->head_loss(r->b, &h);
    r->b->ops->head_logits(r->b, logits, w, x);
    case_ops_end(r);
    case_out(r, "nll", nll, MX_F32, n);
    case_out_act(r, "g", g, n);
    case_out(r, "logits", logits, MX_F32, n * v);
}

static void case_objective(case_run *r) {
    enum { QUESTIONS = 9 };
    bool choice = case_chance(r, 0.6);
    int64_t questions = case_between(r, 1, QUESTIONS), spans = 0, n = 0;
    mx_span span[QUESTIONS * 5];
    int32_t gold[QUESTIONS], first[QUESTIONS + 1];
    mx_numbers numbers = { 0 };

    for (int64_t q = 0; q < questions; q++) {
        int64_t choices = case_between(r, 1, 5);

        first[q] = (int32_t)spans;
        gold[q] = (int32_t)case_between(r, 0, choices - 1);
        for (int64_t i = 0; i < choices; i++) {
            span[spans++] = (mx_span){ (int32_t)n, (int32_t)case_between(r, 1, r->small ? 5 : 60), (int32_t)q, (int32_t)i };
            n += span[spans - 1].count;
        }
    }
    first[questions] = (int32_t)spans;

    float *nll = case_values(r, n, 4);

    for (int64_t i = 0; i < n; i++) {
        nll[i] = fabsf(nll[i]);
    }
    mx_objective o = { .choice = choice, .nll = case_floats(r, nll, n), .rows = n,
                       .span = case_memory(r, MX_MEMORY_BATCH, span, sizeof *span * (size_t)spans), .spans = spans,
                       .gold = case_memory(r, MX_MEMORY_BATCH, gold, sizeof *gold * (size_t)questions),
                       .first_span = case_memory(r, MX_MEMORY_BATCH, first, sizeof *first * (size_t)(questions + 1)),
                       .questions = questions, .step_tokens = (double)n + 3, .step_questions = (double)questions + 2,
                       .scale = case_floats(r, NULL, n), .numbers = case_memory(r, MX_MEMORY_BATCH, &numbers, sizeof numbers) };

    case_says(r, " %s, %ld questions, %ld rows", choice ? "choice" : "language model", (long)questions, (long)n);
    case_ops_begin(r);
    r->b->ops->objective(r->b, &o);
    r->b->ops->objective(r->b, &o); /* numbers add up */
    case_ops_end(r);
    case_out(r, "scale", o.scale, MX_F32, n);
    case_out(r, "loss", &o.numbers->loss, MX_F64, 1);
    case_out(r, "nll", &o.numbers->nll, MX_F64, 1);
}

static void case_adamw(case_run *r) {
    int64_t n = case_between(r, 1, r->small ? 900 : 30000), cut = case_between(r, 0, n);
    float *p = case_values(r, n, 1), *m = case_values(r, n, 0.1), *v = case_values(r, n, 0.01), *g = case_values(r, n, 1);
    mx_numbers numbers = { .loss = 1 };
    mx_adamw_group group[2] = { { 0, cut, 1, 0.01 }, { cut, n - cut, 4, 0 } };

    for (int64_t i = 0; i < n; i++) {
        v[i] = fabsf(v[i]);
    }
    numbers.loss = case_chance(r, 0.2) ? NAN : 1;
    numbers.skipped = case_chance(r, 0.1);
    mx_adamw a = { .p = case_floats(r, p, n), .m = case_floats(r, m, n), .v = case_floats(r, v, n), .g = case_floats(r, g, n),
                   .count = n, .group = group, .groups = 2, .step = case_between(r, 1, 100), .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.999,
                   .eps = 1e-8, .max_norm = case_chance(r, 0.5) ? 1 : 0,
                   .numbers = case_memory(r, MX_MEMORY_BATCH, &numbers, sizeof numbers) };

    case_says(r, " %ld values, loss %g, skipped %g, largest norm %g", (long)n, numbers.loss, numbers.skipped, a.max_norm);
    case_ops_begin(r);
    r->b->ops->adamw(r->b, &a);
    case_ops_end(r);
    case_out(r, "p", a.p, MX_F32, n);
    case_out(r, "m", a.m, MX_F32, n);
    case_out(r, "v", a.v, MX_F32, n);
    case_out(r, "grad_norm", &a.numbers->grad_norm, MX_F64, 1);
    case_out(r, "skipped", &a.numbers->skipped, MX_F64, 1);
}

static void case_dora(case_run *r) {
    int64_t out = width(r), in = width(r), rank = case_between(r, 1, r->small ? 9 : 40), e = case_between(r, 1, 5);
    mx_weight *w = weight(r, out, in, MX_USE_LINEAR);
    mx_dora d = { .w = w, .out = out, .in = in, .rank = rank, .experts = e, .scale = 0.5f,
                  .a = case_drawn(r, e * rank * in, 0.5), .b = case_drawn(r, e * out * rank, 0.5), .m = case_drawn(r, e * out, 2),
                  .n = case_floats(r, NULL, e * out), .c = case_floats(r, NULL, e * out), .dc = case_drawn(r, e * out, 1),
                  .dm = case_drawn(r, e * out, 1) };
    float *norms = case_floats(r, NULL, out);

    case_scratch(r, r->b->ops->dora_scratch_bytes(r->b, &d));
    case_says(r, " (%ld, %ld), rank %ld, %ld experts", (long)out, (long)in, (long)rank, (long)e);
    case_ops_begin(r);
    r->b->ops->row_norms(r->b, norms, w);
    r->b->ops->dora_forward(r->b, &d);
    r->b->ops->dora_backward(r->b, &d);
    case_ops_end(r);
    case_out(r, "norms", norms, MX_F32, out);
    case_out(r, "n", d.n, MX_F32, e * out);
    case_out(r, "c", d.c, MX_F32, e * out);
    case_out(r, "dm", d.dm, MX_F32, e * out);
}

/* f32: sums in another order, 1e-5 (over 100 problems of each op at most 5e-6); head's logits reach hundreds over quantised
 * weights, whose rounding the softmax shows: 1.5e-5. bf16: a value next to a rounding's edge may fall on its other side, which is at most
 * 2^-7 = 7.8e-3 of the largest where one rounding stands between input and output (measured up to 5.9e-3), and more where several
 * do: linears 2.4e-3, attention 7.7e-3, the routed block 2.4e-2 (races 1 1055: four rows, a dA of 0.26 at most; there CUDA and CPU lie on
 * either side of f32, equally far). */
const op_case OP_CASES[] = {
    { "embed", case_embed, 0, 0 },
    { "rmsnorm", case_rmsnorm, 1e-5, 8e-3 },
    { "rope", case_rope, 1e-5, 8e-3 },
    { "linears", case_linears, 1e-5, 1e-2 },
    { "attention", case_attention, 1e-5, 2e-2 },
    { "elements", case_elements, 1e-5, 8e-3 },
    { "router", case_router, 1e-5, 8e-3 },
    { "experts", case_experts, 1e-5, 4e-2 },
    { "gather", case_gather, 1e-5, 8e-3 },
    { "head", case_head, 5e-5, 1e-2 },
    { "objective", case_objective, 1e-5, 1e-5 },
    { "adamw", case_adamw, 1e-5, 1e-5 },
    { "dora", case_dora, 1e-5, 1e-5 },
    { NULL, NULL, 0, 0 },
};
