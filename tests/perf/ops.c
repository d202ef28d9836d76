/* ops.c - every op of the CPU backend against its floor, at the shapes of the default base (135 M, 2,048 rows).
 *
 * Products are held against the fastest oneDNN product of this very run, everything else against this run's memcpy,
 * counting each byte that must be read or written once. The best of some repetitions counts on both sides: other
 * programs on the machine only ever slow things down.
 *
 *   ops [f32|bf16|both] [rows] [threads] [kind]     both precisions, 2,048 rows, all cores and every kind when not
 *                                                  said; kinds: linears, attention, head, movers, adamw
 *
 * With one thread the processor's time is taken instead of the clock's: on a busy machine only that means much. */
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { C = 576, HEADS = 9, KV = 3, D = 64, INNER = 1536, VOCAB = 49152, SEGMENT = 200, REPETITIONS = 7 };

typedef struct bench {
    mx_backend *b;
    mx_dtype act;
    int64_t rows;
    double peak;      /* FLOP/s of the best product */
    double bandwidth; /* bytes/s, read and written */
    mx_rows batch;
    mx_segment *segment;
} bench;

static clockid_t watch = CLOCK_MONOTONIC;

static double now(void) {
    struct timespec t;

    clock_gettime(watch, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void give_up(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}

static void *memory(bench *x, size_t bytes) {
    void *p;
    mx_status st = { 0 };

    if (x->b->alloc(x->b, MX_MEMORY_SAVED, bytes, &p, &st)) {
        give_up(st.text);
    }
    memset(p, 0, bytes); /* pages exist before anything is timed */
    return p;
}

/* Small values of both signs; zeros would be unlike anything real. */
static float *floats(bench *x, int64_t n) {
    float *p = memory(x, sizeof *p * (size_t)n);

    for (int64_t i = 0; i < n; i++) {
        p[i] = (float)((i * 2654435761u >> 8) % 1000) / 5000.0f - 0.1f;
    }
    return p;
}

static mx_tensor tensor(bench *x, int64_t rows, int64_t columns) {
    mx_tensor t = mx_tensor_2d(memory(x, (size_t)(rows * columns) * mx_dtype_bytes(x->act)), x->act, rows, columns);
    float *values = floats(x, rows * columns);

    mx_values_convert_all(t.data, x->act, values, MX_F32, rows * columns);
    x->b->release(x->b, MX_MEMORY_SAVED, values);
    return t;
}

static mx_weight *weight(bench *x, int64_t out, int64_t in) {
    float *values = floats(x, out * in);
    mx_weight_source from = { .type = MX_FILE_F32, .bytes = values, .out = out, .in = in };
    mx_weight *w;
    mx_status st = { 0 };

    if (mx_weight_open(x->b, &from, MX_USE_LINEAR, &w, &st)) {
        give_up(st.text);
    }
    x->b->release(x->b, MX_MEMORY_SAVED, values);
    return w;
}

static void scratch(bench *x, size_t bytes) {
    static void *held;
    static size_t size;

    if (bytes > size) {
        x->b->release(x->b, MX_MEMORY_SAVED, held);
        held = memory(x, bytes);
        size = bytes;
    }
    x->b->ops->scratch(x->b, held, size);
}

/* Best time of a few calls, the first (which makes primitives and tables) not among them. */
#define BEST(call)                                                                                                     \
    ({                                                                                                                 \
        double best_ = INFINITY;                                                                                       \
        for (int i_ = 0; i_ <= REPETITIONS; i_++) {                                                                    \
            double t_ = now();                                                                                         \
            call;                                                                                                      \
            t_ = now() - t_;                                                                                           \
            best_ = i_ > 0 && t_ < best_ ? t_ : best_;                                                                 \
        }                                                                                                              \
        best_;                                                                                                         \
    })

static void told(const bench *x, const char *name, double seconds, double flops, double bytes) {
    double floor = flops > 0 ? flops / x->peak : bytes / x->bandwidth;

    printf("  %-42s %9.3f ms  %8.1f %s  floor %8.3f ms  %5.1f %%\n", name, seconds * 1e3, (flops > 0 ? flops : bytes) / seconds / 1e9,
           flops > 0 ? "GFLOP/s" : "GB/s   ", floor * 1e3, 100 * floor / seconds);
    fflush(stdout);
}

/* ------------------------------------------------------------------ floors */

static void measure_bandwidth(bench *x) {
    const int64_t piece = 1 << 20, pieces = 48; /* past the second-level caches */
    char *from = memory(x, (size_t)(piece * pieces)), *to = memory(x, (size_t)(piece * pieces));
    double best = INFINITY;

    for (int i = 0; i < 20; i++) {
        double t = now();

#pragma omp parallel for schedule(static)
        for (int64_t k = 0; k < pieces; k++) {
            memcpy(to + k * piece, from + k * piece, (size_t)piece);
        }
        t = now() - t;
        best = t < best ? t : best;
    }
    x->bandwidth = 2.0 * (double)(piece * pieces) / best;
    x->b->release(x->b, MX_MEMORY_SAVED, from);
    x->b->release(x->b, MX_MEMORY_SAVED, to);
}

typedef struct product_shape {
    const char *name;
    int64_t out, in;
} product_shape;

static const product_shape PRODUCTS[] = {
    { "576 -> 576", C, C }, { "576 -> 192", KV * D, C }, { "576 -> 1536", INNER, C }, { "1536 -> 576", C, INNER },
};
enum { PRODUCT_COUNT = sizeof PRODUCTS / sizeof PRODUCTS[0] };

static void measure_products(bench *x) {
    double seconds[PRODUCT_COUNT][2], flops[PRODUCT_COUNT];

    for (int i = 0; i < PRODUCT_COUNT; i++) {
        const product_shape *s = &PRODUCTS[i];
        mx_weight *w = weight(x, s->out, s->in);
        mx_tensor in = tensor(x, x->rows, s->in), out = tensor(x, x->rows, s->out);
        mx_cpu *cpu = mx_cpu_of(x->b);

        flops[i] = 2.0 * (double)(x->rows * s->out * s->in);
        seconds[i][0] = BEST(mx_weight_gemm(cpu, w, false, x->rows, mx_factor_of(in.data, x->act, s->in),
                                            mx_product_of(out.data, x->act, s->out), false));
        seconds[i][1] = BEST(mx_weight_gemm(cpu, w, true, x->rows, mx_factor_of(out.data, x->act, s->out),
                                            mx_product_of(in.data, x->act, s->in), false));
        for (int way = 0; way < 2; way++) {
            x->peak = flops[i] / seconds[i][way] > x->peak ? flops[i] / seconds[i][way] : x->peak;
        }
        x->b->weight_close(x->b, w);
        x->b->release(x->b, MX_MEMORY_SAVED, in.data);
        x->b->release(x->b, MX_MEMORY_SAVED, out.data);
    }
    printf("%s, %s, %lld rows: oneDNN's best product %.0f GFLOP/s, memcpy %.1f GB/s (read + written)\n", x->b->description,
           x->act == MX_BF16 ? "bf16" : "f32", (long long)x->rows, x->peak / 1e9, x->bandwidth / 1e9);
    for (int i = 0; i < PRODUCT_COUNT; i++) {
        char name[64];

        snprintf(name, sizeof name, "product %s, forward", PRODUCTS[i].name);
        told(x, name, seconds[i][0], flops[i], 0);
        snprintf(name, sizeof name, "product %s, backward", PRODUCTS[i].name);
        told(x, name, seconds[i][1], flops[i], 0);
    }
}

/* ------------------------------------------------------------------ ops that multiply */

typedef struct linears_case {
    const char *name;
    int64_t in, linears, out[3], rank;
    float rate;
} linears_case;

static const linears_case LINEARS[] = {
    { "q, k, v frozen", C, 3, { C, KV * D, KV * D }, 0, 0 },
    { "q, k, v rank 16", C, 3, { C, KV * D, KV * D }, 16, 0 },
    { "q, k, v rank 16, dropout", C, 3, { C, KV * D, KV * D }, 16, 0.05f },
    { "q, k, v rank 80, dropout", C, 3, { C, KV * D, KV * D }, 80, 0.05f },
    { "o rank 16, dropout", C, 1, { C }, 16, 0.05f },
    { "gate, up frozen", C, 2, { INNER, INNER }, 0, 0 },
    { "gate, up rank 80, dropout", C, 2, { INNER, INNER }, 80, 0.05f },
    { "down frozen", INNER, 1, { C }, 0, 0 },
    { "down rank 80, dropout", INNER, 1, { C }, 80, 0.05f },
};

static void measure_linears(bench *x, const linears_case *s) {
    mx_linear linear[3] = { 0 };
    mx_low_rank term[3] = { 0 };
    mx_linears l = { .rows = &x->batch, .x = tensor(x, x->rows, s->in), .in = s->in, .linear = linear, .linears = s->linears,
                     .dropout = { .seed = 1, .step = 1, .site = 1, .rate = s->rate }, .training = true,
                     .dx = tensor(x, x->rows, s->in) };
    double forward = 0, backward = 0;
    char name[64];

    for (int64_t j = 0; j < s->linears; j++) {
        linear[j] = (mx_linear){ .w = weight(x, s->out[j], s->in), .out = s->out[j], .term = &term[j], .terms = s->rank > 0,
                                 .y = tensor(x, x->rows, s->out[j]), .dy = tensor(x, x->rows, s->out[j]) };
        term[j] = (mx_low_rank){ .a = floats(x, s->rank * s->in), .b = floats(x, s->rank * s->out[j]), .rank = s->rank, .scale = 2,
                                 .end = -1, .da = floats(x, s->rank * s->in), .db = floats(x, s->rank * s->out[j]) };
        double base = 2.0 * (double)(x->rows * s->in * s->out[j]), low = 2.0 * (double)(x->rows * s->rank * (s->in + s->out[j]));

        forward += base + low;
        backward += base + 2 * low;
    }
    l.saved = memory(x, x->b->ops->linears_saved_bytes(x->b, &l));
    scratch(x, x->b->ops->linears_scratch_bytes(x->b, &l));
    snprintf(name, sizeof name, "linears %s, forward", s->name);
    told(x, name, BEST(x->b->ops->linears_forward(x->b, &l)), forward, 0);
    snprintf(name, sizeof name, "linears %s, backward", s->name);
    told(x, name, BEST(x->b->ops->linears_backward(x->b, &l)), backward, 0);
    for (int64_t j = 0; j < s->linears; j++) {
        void *all[] = { linear[j].y.data, linear[j].dy.data, (void *)(uintptr_t)term[j].a, (void *)(uintptr_t)term[j].b, term[j].da, term[j].db };

        x->b->weight_close(x->b, (mx_weight *)(uintptr_t)linear[j].w);
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
            x->b->release(x->b, MX_MEMORY_SAVED, all[i]);
        }
    }
    x->b->release(x->b, MX_MEMORY_SAVED, l.saved);
    x->b->release(x->b, MX_MEMORY_SAVED, l.x.data);
    x->b->release(x->b, MX_MEMORY_SAVED, l.dx.data);
}

static void measure_all_linears(bench *x) {
    for (size_t i = 0; i < sizeof LINEARS / sizeof LINEARS[0]; i++) {
        measure_linears(x, &LINEARS[i]);
    }
}

/* Counted are the scores that the causal mask leaves: 4 D FLOP each forward, 10 D backward. Sums are f32 in both
 * precisions, so f32's peak would be the fairer floor of bf16's row too. */
static void measure_attention(bench *x) {
    mx_attention a = { .rows = &x->batch, .heads = HEADS, .kv_heads = KV, .head_dim = D,
                       .q = tensor(x, x->rows, C), .k = tensor(x, x->rows, KV * D), .v = tensor(x, x->rows, KV * D),
                       .o = tensor(x, x->rows, C), .d_o = tensor(x, x->rows, C), .dq = tensor(x, x->rows, C),
                       .dk = tensor(x, x->rows, KV * D), .dv = tensor(x, x->rows, KV * D), .lse = floats(x, x->rows * HEADS) };
    double scores = 0;

    for (int64_t i = 0; i < x->batch.segments; i++) {
        scores += 0.5 * (double)x->segment[i].count * (double)(x->segment[i].count + 1) * HEADS;
    }
    scratch(x, x->b->ops->attention_scratch_bytes(x->b, &a));
    told(x, "attention, segments of 200, forward", BEST(x->b->ops->attention_forward(x->b, &a)), scores * 4 * D, 0);
    told(x, "attention, segments of 200, backward", BEST(x->b->ops->attention_backward(x->b, &a)), scores * 10 * D, 0);
}

static void measure_head(bench *x) {
    enum { N = 256 };
    mx_head h = { .w = weight(x, VOCAB, C), .vocab = VOCAB, .rows = N, .x = tensor(x, N, C), .nll = floats(x, N),
                  .target = memory(x, N * sizeof(int32_t)), .g = tensor(x, N, C) };
    double product = 2.0 * N * VOCAB * C;

    scratch(x, x->b->ops->head_scratch_bytes(x->b, &h));
    told(x, "head, 256 rows, loss and gradient", BEST(x->b->ops->head_loss(x->b, &h)), 2 * product, 0);
    h.g.data = NULL;
    told(x, "head, 256 rows, loss alone", BEST(x->b->ops->head_loss(x->b, &h)), product, 0);
    x->b->weight_close(x->b, (mx_weight *)(uintptr_t)h.w);
}

/* ------------------------------------------------------------------ ops that move */

static void measure_movers(bench *x) {
    const mx_ops *ops = x->b->ops;
    int64_t rows = x->rows;
    double narrow = (double)(rows * C) * (double)mx_dtype_bytes(x->act), wide = (double)(rows * INNER) * (double)mx_dtype_bytes(x->act);
    mx_tensor a = tensor(x, rows, C), b = tensor(x, rows, C), c = tensor(x, rows, C), q = tensor(x, rows, C);
    mx_tensor g = tensor(x, rows, INNER), u = tensor(x, rows, INNER), h = tensor(x, rows, INNER), dg = tensor(x, rows, INNER), du = tensor(x, rows, INNER);
    float *w = floats(x, C), *rstd = floats(x, rows), *inverse = floats(x, D / 2), *scale = floats(x, rows);
    mx_noise noise = { .seed = 1, .step = 1, .site = 1, .rate = 0.05f };
    uint8_t *bits = memory(x, (size_t)(rows * mx_dropout_row_bytes(C)));
    int32_t *row = memory(x, sizeof *row * (size_t)rows);
    mx_weight *table = weight(x, VOCAB, C);

    for (int64_t i = 0; i < rows; i++) {
        row[i] = (int32_t)(rows - 1 - i);
    }
    told(x, "embed", BEST(ops->embed(x->b, a, table, &x->batch)), 0, 2 * narrow);
    told(x, "rmsnorm, forward", BEST(ops->rmsnorm_forward(x->b, b, rstd, a, w, 1e-5f)), 0, 2 * narrow);
    told(x, "rmsnorm, backward", BEST(ops->rmsnorm_backward(x->b, c, b, a, rstd, w)), 0, 4 * narrow);
    told(x, "rope of q", BEST(ops->rope(x->b, q, HEADS, D, &x->batch, inverse, false)), 0, 2 * narrow);
    told(x, "swiglu, forward", BEST(ops->swiglu_forward(x->b, h, g, u)), 0, 3 * wide);
    told(x, "swiglu, backward", BEST(ops->swiglu_backward(x->b, dg, du, h, g, u)), 0, 5 * wide);
    told(x, "add", BEST(ops->add(x->b, c, a, b)), 0, 3 * narrow);
    told(x, "dropout's bits", BEST(mx_dropout_draw(&noise, 0, &x->batch, NULL, rows, C, bits)), 0, (double)(rows * C) / 8);
    told(x, "jitter, forward", BEST(ops->jitter_forward(x->b, b, a, &x->batch, noise)), 0, 2 * narrow);
    told(x, "gather rows", BEST(ops->gather_rows(x->b, b, a, row, rows)), 0, 2 * narrow);
    told(x, "scatter rows", BEST(ops->scatter_rows(x->b, c, b, scale, row, rows)), 0, 2 * narrow);
    x->b->weight_close(x->b, table);
}

static void measure_adamw(bench *x) {
    const int64_t n = 26000000; /* MixLoRA rank 16 with 8 experts on the default base */
    mx_numbers numbers = { 0 };
    mx_adamw_group group = { 0, n, 1, 0.01 };
    mx_adamw a = { .p = floats(x, n), .m = floats(x, n), .v = memory(x, sizeof(float) * (size_t)n), .g = floats(x, n), .count = n,
                   .group = &group, .groups = 1, .step = 1, .lr = 1e-9, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .max_norm = 1,
                   .numbers = &numbers };

    /* g twice (the norm comes first), p, m, v read and written */
    told(x, "adamw, 26 M values", BEST(x->b->ops->adamw(x->b, &a)), 0, 8.0 * 4 * (double)n);
    x->b->release(x->b, MX_MEMORY_SAVED, a.p);
    x->b->release(x->b, MX_MEMORY_SAVED, a.m);
    x->b->release(x->b, MX_MEMORY_SAVED, a.v);
    x->b->release(x->b, MX_MEMORY_SAVED, (void *)(uintptr_t)a.g);
}

static void pack(bench *x) {
    int32_t *position = memory(x, sizeof *position * (size_t)x->rows), *question = memory(x, sizeof *question * (size_t)x->rows);
    int32_t *token = memory(x, sizeof *token * (size_t)x->rows), *owner = memory(x, sizeof *owner * (size_t)x->rows);
    int64_t count = (x->rows + SEGMENT - 1) / SEGMENT;

    x->segment = memory(x, sizeof *x->segment * (size_t)count);
    for (int64_t t = 0; t < x->rows; t++) {
        position[t] = (int32_t)(t % SEGMENT);
        question[t] = owner[t] = (int32_t)(t / SEGMENT);
        token[t] = (int32_t)(t * 7919 % VOCAB);
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t left = x->rows - i * SEGMENT;

        x->segment[i] = (mx_segment){ .begin = (int32_t)(i * SEGMENT), .count = (int32_t)(left < SEGMENT ? left : SEGMENT) };
    }
    x->batch = (mx_rows){ .rows = x->rows, .live = x->rows, .token = token, .position = position, .question = question,
                          .segment = x->segment, .segments = count, .row_segment = owner };
}

static const struct {
    const char *name;
    void (*measure)(bench *x);
} KINDS[] = {
    { "linears", measure_all_linears }, { "attention", measure_attention }, { "head", measure_head },
    { "movers", measure_movers },       { "adamw", measure_adamw },
};

static void measure(mx_precision precision, int64_t rows, int threads, const char *kind) {
    mx_backend_options o = { .device = "cpu", .precision = precision, .threads = threads };
    bench x = { .rows = rows, .act = precision == MX_PRECISION_BF16 ? MX_BF16 : MX_F32 };
    mx_status st = { 0 };

    if (mx_backend_open(&o, &x.b, &st)) {
        give_up(st.text);
    }
    pack(&x);
    measure_bandwidth(&x);
    measure_products(&x);
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (!kind || strcmp(kind, KINDS[i].name) == 0) {
            KINDS[i].measure(&x);
        }
    }
    if (x.b->sync(x.b, &st)) {
        give_up(st.text);
    }
    x.b->close(x.b);
    printf("\n");
}

int main(int argc, char **argv) {
    const char *which = argc > 1 ? argv[1] : "both";
    int64_t rows = argc > 2 ? atoll(argv[2]) : 2048;
    int threads = argc > 3 ? atoi(argv[3]) : 0;
    bool bf16 = strcmp(which, "bf16") == 0, f32 = strcmp(which, "f32") == 0;

    if ((!bf16 && !f32 && strcmp(which, "both") != 0) || rows < 1 || rows > 1 << 20 || threads < 0) {
        fprintf(stderr, "usage: ops [f32|bf16|both] [rows] [threads] [kind]\n");
        return 2;
    }
    watch = threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    if (!f32) {
        measure(MX_PRECISION_BF16, rows, threads, argc > 4 ? argv[4] : NULL);
    }
    if (!bf16) {
        measure(MX_PRECISION_F32, rows, threads, argc > 4 ? argv[4] : NULL);
    }
    return 0;
}
