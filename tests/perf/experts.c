/* experts.c - what the routed block costs beside the dense one it is made of: forward and backward of one layer in every
 * form, over the frozen feed-forward block's (two linears, SwiGLU, one linear; gradients of the input alone).
 *
 *   experts [tokens] [threads] [precision] [repeats]
 *
 * Smallest of the repeats, in milliseconds of wall clock and of processor time (all threads): on a busy machine only
 * the second means much. Shapes are SmolLM2-135M's with 8 experts of rank 16, two a token. */
#include "base/rng.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { C = 576, I = 1536, E = 8, K = 2, R = 16 };

typedef struct bench {
    mx_backend *b;
    mx_rng rng;
    mx_rows rows;
    int64_t tokens, repeats;
    mx_weight *gate, *up, *down;
    mx_tensor x, y, dy, dx;
} bench;

typedef struct cost {
    double wall_ms, cpu_ms;
} cost;

static void die(const char *what, const mx_status *st) {
    fprintf(stderr, "experts: %s: %s\n", what, st->text);
    exit(1);
}

static void *memory(bench *t, size_t bytes) {
    mx_status st = { 0 };
    void *p;

    if (t->b->alloc(t->b, MX_MEMORY_SAVED, bytes ? bytes : 1, &p, &st)) {
        die("memory", &st);
    }
    return p;
}

static float *values(bench *t, int64_t n, double size) {
    float *p = memory(t, sizeof *p * (size_t)n);

    for (int64_t i = 0; i < n; i++) {
        p[i] = (float)(size * (2 * mx_rng_uniform(&t->rng) - 1));
    }
    return p;
}

static mx_weight *weight(bench *t, int64_t out, int64_t in) {
    mx_weight_source source = { .type = MX_FILE_F32, .bytes = values(t, out * in, 0.05), .out = out, .in = in };
    mx_weight *w;
    mx_status st = { 0 };

    if (mx_weight_open(t->b, &source, MX_USE_LINEAR, &w, &st)) {
        die("weight", &st);
    }
    return w;
}

static mx_tensor activations(bench *t, int64_t columns) {
    mx_dtype act = mx_activation_type(t->b);
    mx_tensor a = mx_tensor_2d(memory(t, (size_t)(t->tokens * columns) * mx_dtype_bytes(act)), act, t->tokens, columns);

    for (int64_t i = 0; i < t->tokens * columns; i++) {
        float f = (float)(2 * mx_rng_uniform(&t->rng) - 1);
        uint32_t bits;

        memcpy(&bits, &f, sizeof bits);
        if (act == MX_BF16) {
            ((uint16_t *)a.data)[i] = (uint16_t)(bits >> 16);
        } else {
            ((float *)a.data)[i] = f;
        }
    }
    return a;
}

static double now_ms(clockid_t clock) {
    struct timespec t;

    clock_gettime(clock, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static cost smallest(bench *t, void (*work)(bench *t, void *what), void *what) {
    cost best = { 1e30, 1e30 };

    for (int64_t i = 0; i < t->repeats + 1; i++) { /* the first also makes the GEMM's primitives: not counted */
        double wall = now_ms(CLOCK_MONOTONIC), cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID);

        work(t, what);
        wall = now_ms(CLOCK_MONOTONIC) - wall;
        cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        if (i > 0) {
            best.wall_ms = wall < best.wall_ms ? wall : best.wall_ms;
            best.cpu_ms = cpu < best.cpu_ms ? cpu : best.cpu_ms;
        }
    }
    return best;
}

static void scratch(bench *t, size_t bytes) {
    t->b->ops->scratch(t->b, memory(t, bytes), bytes);
}

/* ------------------------------------------------------------------ dense */

typedef struct dense {
    mx_linear in[2], out[1];
    mx_linears first, second;
    mx_tensor g, u, h, dg, du, dh;
} dense;

static void dense_forward(bench *t, void *what) {
    dense *d = what;

    t->b->ops->linears_forward(t->b, &d->first);
    t->b->ops->swiglu_forward(t->b, d->h, d->g, d->u);
    t->b->ops->linears_forward(t->b, &d->second);
}

static void dense_backward(bench *t, void *what) {
    dense *d = what;

    t->b->ops->linears_backward(t->b, &d->second);
    t->b->ops->swiglu_backward(t->b, d->dg, d->du, d->dh, d->g, d->u);
    t->b->ops->linears_backward(t->b, &d->first);
}

static dense *make_dense(bench *t) {
    dense *d = memory(t, sizeof *d);
    size_t a, b;

    d->g = activations(t, I), d->u = activations(t, I), d->h = activations(t, I);
    d->dg = activations(t, I), d->du = activations(t, I), d->dh = activations(t, I);
    d->in[0] = (mx_linear){ .w = t->gate, .out = I, .y = d->g, .dy = d->dg };
    d->in[1] = (mx_linear){ .w = t->up, .out = I, .y = d->u, .dy = d->du };
    d->out[0] = (mx_linear){ .w = t->down, .out = C, .y = t->y, .dy = t->dy };
    d->first = (mx_linears){ .rows = &t->rows, .x = t->x, .in = C, .linear = d->in, .linears = 2, .training = true, .dx = t->dx };
    d->second = (mx_linears){ .rows = &t->rows, .x = d->h, .in = I, .linear = d->out, .linears = 1, .training = true, .dx = d->dh };
    d->first.saved = memory(t, t->b->ops->linears_saved_bytes(t->b, &d->first));
    d->second.saved = memory(t, t->b->ops->linears_saved_bytes(t->b, &d->second));
    a = t->b->ops->linears_scratch_bytes(t->b, &d->first);
    b = t->b->ops->linears_scratch_bytes(t->b, &d->second);
    scratch(t, a > b ? a : b);
    return d;
}

/* ------------------------------------------------------------------ routed */

static void experts_forward(bench *t, void *what) {
    t->b->ops->experts_forward(t->b, what);
}

static void experts_backward(bench *t, void *what) {
    t->b->ops->experts_backward(t->b, what);
}

static mx_expert_linear adapted(bench *t, const mx_weight *w, int64_t out, int64_t in) {
    return (mx_expert_linear){
        .w = w, .rank = R, .scale = 2,
        .a = values(t, E * R * in, 0.05), .b = values(t, E * R * out, 0.05),
        .da = values(t, E * R * in, 0), .db = values(t, E * R * out, 0),
    };
}

static mx_experts *make_experts(bench *t, mx_experts_form form, float rate) {
    mx_experts *x = memory(t, sizeof *x);
    int32_t *chosen = memory(t, sizeof *chosen * (size_t)(t->tokens * K));
    float *gate = values(t, t->tokens * K, 0);

    for (int64_t i = 0; i < t->tokens; i++) {
        chosen[K * i] = (int32_t)mx_rng_below(&t->rng, E);
        chosen[K * i + 1] = (int32_t)((chosen[K * i] + 1 + (int32_t)mx_rng_below(&t->rng, E - 1)) % E);
        gate[K * i] = 0.6f;
        gate[K * i + 1] = 0.4f;
    }
    *x = (mx_experts){
        .rows = &t->rows, .form = form, .experts = E, .slots = K, .hidden = C, .inner = I,
        .gate_proj = adapted(t, t->gate, I, C), .up_proj = adapted(t, t->up, I, C), .down_proj = adapted(t, t->down, C, I),
        .dropout = { .seed = 1, .step = 1, .site = 0, .rate = rate },
        .chosen = chosen, .gate = gate, .x = t->x, .y = t->y, .training = true, .dy = t->dy, .dx = t->dx,
        .dgate = values(t, t->tokens * K, 0),
    };
    x->saved = memory(t, t->b->ops->experts_saved_bytes(t->b, x));
    scratch(t, t->b->ops->experts_scratch_bytes(t->b, x));
    return x;
}

/* ------------------------------------------------------------------ router */

static void router_forward(bench *t, void *what) {
    t->b->ops->router_forward(t->b, what);
}

static void router_backward(bench *t, void *what) {
    t->b->ops->router_backward(t->b, what);
}

static mx_router *make_router(bench *t) {
    mx_router *r = memory(t, sizeof *r);

    *r = (mx_router){
        .rows = &t->rows, .routing = MX_ROUTE_TOP_K, .experts = E, .slots = K, .x = t->x, .w = values(t, E * C, 0.02),
        .logits = values(t, t->tokens * E, 0), .prob = values(t, t->tokens * E, 0),
        .chosen = memory(t, sizeof(int32_t) * (size_t)(t->tokens * K)), .gate = values(t, t->tokens * K, 0),
        .sums = { memory(t, sizeof(double) * E), memory(t, sizeof(double) * E), memory(t, sizeof(double)) },
        .dgate = values(t, t->tokens * K, 1), .balance_coef = 0.01, .share = 1, .rows_all = (double)t->tokens,
        .dw = values(t, E * C, 0), .dx = t->dx,
    };
    scratch(t, t->b->ops->router_scratch_bytes(t->b, r));
    return r;
}

static void print(const char *name, cost forward, cost backward, cost base) {
    cost sum = { forward.wall_ms + backward.wall_ms, forward.cpu_ms + backward.cpu_ms };

    printf("%-24s %8.2f %8.2f %8.2f %8.2f %7.2f %7.2f\n", name, forward.wall_ms, backward.wall_ms, forward.cpu_ms,
           backward.cpu_ms, sum.wall_ms / base.wall_ms, sum.cpu_ms / base.cpu_ms);
    fflush(stdout);
}

int main(int argc, char **argv) {
    bench t = { .tokens = argc > 1 ? atoll(argv[1]) : 2048, .repeats = argc > 4 ? atoll(argv[4]) : 7 };
    mx_backend_options o = { .device = "cpu", .threads = argc > 2 ? atoi(argv[2]) : 0,
                             .precision = argc > 3 && !strcmp(argv[3], "f32") ? MX_PRECISION_F32 : MX_PRECISION_BF16 };
    static const char *NAMES[] = { "factored", "shared", "naive" };
    mx_status st = { 0 };
    cost forward, backward, base;
    int32_t *number;

    if (mx_backend_open(&o, &t.b, &st)) {
        die("backend", &st);
    }
    mx_rng_init(&t.rng, 1, "perf");
    number = memory(&t, sizeof *number * (size_t)t.tokens);
    for (int64_t i = 0; i < t.tokens; i++) {
        number[i] = (int32_t)i;
    }
    t.rows = (mx_rows){ .rows = t.tokens, .live = t.tokens, .position = number, .question = number };
    t.gate = weight(&t, I, C), t.up = weight(&t, I, C), t.down = weight(&t, C, I);
    t.x = activations(&t, C), t.y = activations(&t, C), t.dy = activations(&t, C), t.dx = activations(&t, C);
    printf("%s, %ld tokens\n%-24s %8s %8s %8s %8s %7s %7s\n", t.b->description, (long)t.tokens, "ms", "forward", "backward",
           "cpu fwd", "cpu bwd", "ratio", "cpu");

    dense *d = make_dense(&t);

    forward = smallest(&t, dense_forward, d);
    backward = smallest(&t, dense_backward, d);
    base = (cost){ forward.wall_ms + backward.wall_ms, forward.cpu_ms + backward.cpu_ms };
    print("frozen dense block", forward, backward, base);
    for (mx_experts_form form = MX_EXPERTS_FACTORED; form <= MX_EXPERTS_NAIVE; form++) {
        mx_experts *x = make_experts(&t, form, 0);

        forward = smallest(&t, experts_forward, x);
        print(NAMES[form], forward, smallest(&t, experts_backward, x), base);
    }

    mx_experts *dropped = make_experts(&t, MX_EXPERTS_FACTORED, 0.05f);
    mx_router *r;

    forward = smallest(&t, experts_forward, dropped);
    print("factored, dropout 0.05", forward, smallest(&t, experts_backward, dropped), base);
    r = make_router(&t);
    forward = smallest(&t, router_forward, r);
    print("router", forward, smallest(&t, router_backward, r), base);
    return 0;
}
