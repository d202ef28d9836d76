/* gpu_blocks.c - linears with their low-rank terms, the router and the routed feed-forward block, each against the products
 * it must do. The floor of every form of the experts is that of the factored one: what the others do besides is their cost. */
#include "tests/perf/gpu.h"

#include "base/rng.h"
#include "model/site.h"

#include <assert.h>
#include <stdlib.h>

static mx_file_type file_type(const perf *p) {
    return p->act == MX_BF16 ? MX_FILE_BF16 : MX_FILE_F32;
}

/* ------------------------------------------------------------------ linears */

typedef struct linears_case {
    const char *name;
    mx_site first;
    int count;
    int64_t rank;
    float rate;
    bool quantised;
} linears_case;

static const linears_case LINEARS[] = {
    { "q,k,v frozen", MX_SITE_Q, 3, 0, 0, false },
    { "q,k,v r16", MX_SITE_Q, 3, 16, 0, false },
    { "q,k,v r16 dropout", MX_SITE_Q, 3, 16, 0.05f, false },
    { "q,k,v r80", MX_SITE_Q, 3, 80, 0, false },
    { "q,k,v r80 dropout", MX_SITE_Q, 3, 80, 0.05f, false },
    { "o frozen", MX_SITE_O, 1, 0, 0, false },
    { "o r16", MX_SITE_O, 1, 16, 0, false },
    { "gate,up frozen", MX_SITE_GATE, 2, 0, 0, false },
    { "gate,up r80", MX_SITE_GATE, 2, 80, 0, false },
    { "gate,up Q4_0 frozen", MX_SITE_GATE, 2, 0, 0, true },
    { "down frozen", MX_SITE_DOWN, 1, 0, 0, false },
    { "down r80", MX_SITE_DOWN, 1, 80, 0, false },
};

static void linears_forward(perf *p, void *what) {
    p->b->ops->linears_forward(p->b, what);
}
static void linears_backward(perf *p, void *what) {
    p->b->ops->linears_backward(p->b, what);
}

static void measure_linears(perf *p, const linears_case *c, int64_t rows) {
    const perf_shape *s = &p->shape[0];
    const mx_shape shape = { .hidden = s->hidden, .inner = s->inner, .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim };
    int64_t rank = p->quick && c->rank ? c->rank / 8 + 1 : c->rank, out[MX_WEIGHT_GROUP], in = 0;
    int count = c->count;
    mx_linear linear[MX_WEIGHT_GROUP] = { 0 };
    mx_low_rank term[MX_WEIGHT_GROUP] = { 0 };
    mx_weight *w[MX_WEIGHT_GROUP];
    double base = 0, low = 0;
    char name[100];

    snprintf(name, sizeof name, "linears %s T %lld, forward", c->name, (long long)rows);
    if (!perf_wants(p, "blocks", name)) {
        return;
    }
    for (int j = 0; j < count; j++) {
        mx_site_size(&shape, (mx_site)(c->first + j), &out[j], &in);
    }
    perf_weights(p, c->quantised ? MX_FILE_Q4_0 : file_type(p), out, count, in, (mx_weight_room){ count * rank, count * rank }, MX_USE_LINEAR, w);

    mx_rows packed = perf_rows(p, rows, rows < 256 ? rows : 256, s->vocab);
    mx_linears l = { .rows = &packed, .x = perf_tensor(p, rows, in, 1), .in = in, .linear = linear, .linears = count,
                     .dropout = { .seed = 1, .step = 1, .site = 1, .rate = c->rate }, .training = true, .dx = perf_tensor(p, rows, in, 0) };

    for (int j = 0; j < count; j++) {
        linear[j] = (mx_linear){ .w = w[j], .out = out[j], .term = &term[j], .terms = rank > 0, .y = perf_tensor(p, rows, out[j], 0),
                                 .dy = perf_tensor(p, rows, out[j], 1) };
        if (rank) {
            term[j] = (mx_low_rank){ .a = perf_floats(p, rank * in, 0.02), .b = perf_floats(p, rank * out[j], 0.02), .rank = rank, .scale = 2,
                                     .end = -1, .da = perf_floats(p, rank * in, 0), .db = perf_floats(p, rank * out[j], 0) };
        }
        base += 2.0 * (double)(rows * in * out[j]);
        low += 2.0 * (double)(rows * rank * (in + out[j]));
    }
    l.saved = perf_memory(p, p->b->ops->linears_saved_bytes(p->b, &l));
    perf_scratch(p, p->b->ops->linears_scratch_bytes(p->b, &l));
    perf_tell(p, "blocks", name, linears_forward, &l, base + low, 0);
    snprintf(strstr(name, ", forward"), 20, ", backward");
    perf_tell(p, "blocks", name, linears_backward, &l, base + 2 * low, 0);
    perf_release(p);
}

/* ------------------------------------------------------------------ routed */

typedef struct routed {
    mx_rows rows;
    mx_experts x;
    mx_router r;
} routed;

static void experts_forward(perf *p, void *what) {
    p->b->ops->experts_forward(p->b, &((routed *)what)->x);
}
static void experts_backward(perf *p, void *what) {
    p->b->ops->experts_backward(p->b, &((routed *)what)->x);
}
static void router_forward(perf *p, void *what) {
    p->b->ops->router_forward(p->b, &((routed *)what)->r);
}
static void router_backward(perf *p, void *what) {
    p->b->ops->router_backward(p->b, &((routed *)what)->r);
}

static mx_expert_linear adapted(perf *p, const mx_weight *w, int64_t experts, int64_t rank, int64_t out, int64_t in) {
    return (mx_expert_linear){
        .w = w, .rank = rank, .scale = 2, .a = perf_floats(p, experts * rank * in, 0.02), .b = perf_floats(p, experts * rank * out, 0.02),
        .da = perf_floats(p, experts * rank * in, 0), .db = perf_floats(p, experts * rank * out, 0),
    };
}

/* Two experts a token: uniform, as a balanced router has it. */
static void choose(perf *p, routed *t, int64_t rows, int64_t experts) {
    int32_t *chosen = malloc(sizeof *chosen * (size_t)(2 * rows));
    float *gate = malloc(sizeof *gate * (size_t)(2 * rows));
    mx_rng rng;

    assert(chosen && gate && experts >= 2);
    mx_rng_init(&rng, 1, "experts");
    for (int64_t i = 0; i < rows; i++) {
        chosen[2 * i] = (int32_t)mx_rng_below(&rng, (uint64_t)experts);
        chosen[2 * i + 1] = (int32_t)((chosen[2 * i] + 1 + (int32_t)mx_rng_below(&rng, (uint64_t)experts - 1)) % experts);
        gate[2 * i] = 0.6f;
        gate[2 * i + 1] = 0.4f;
    }
    t->x.chosen = perf_copy(p, chosen, sizeof *chosen * (size_t)(2 * rows));
    t->x.gate = perf_copy(p, gate, sizeof *gate * (size_t)(2 * rows));
    free(gate);
    free(chosen);
}

static void measure_experts(perf *p, const char *name, mx_experts_form form, int64_t experts, float rate) {
    const perf_shape *s = &p->shape[0];
    int64_t rows = p->rows[0], rank = p->quick ? 3 : 16, in = s->hidden, inner = s->inner, wide[2] = { inner, inner };
    double base = 6.0 * (double)(rows * in * inner), low = 2.0 * 3 * 2 * (double)(rows * rank * (in + inner));
    routed t = { 0 };
    mx_weight *w[2], *down;
    char whole[100];

    snprintf(whole, sizeof whole, "experts %s E%lld, forward", name, (long long)experts);
    if (!perf_wants(p, "blocks", whole)) {
        return;
    }
    t.rows = perf_rows(p, rows, rows < 256 ? rows : 256, s->vocab);
    perf_weights(p, file_type(p), wide, 2, in, (mx_weight_room){ .rows = 2 * experts * rank }, MX_USE_LINEAR, w);
    perf_weights(p, file_type(p), &in, 1, inner, (mx_weight_room){ .columns = experts * rank }, MX_USE_LINEAR, &down);
    t.x = (mx_experts){
        .rows = &t.rows, .form = form, .experts = experts, .slots = 2, .hidden = in, .inner = inner,
        .gate_proj = adapted(p, w[0], experts, rank, inner, in), .up_proj = adapted(p, w[1], experts, rank, inner, in),
        .down_proj = adapted(p, down, experts, rank, in, inner), .dropout = { .seed = 1, .step = 1, .site = 0, .rate = rate },
        .x = perf_tensor(p, rows, in, 1), .y = perf_tensor(p, rows, in, 0), .training = true, .dy = perf_tensor(p, rows, in, 1),
        .dx = perf_tensor(p, rows, in, 0), .dgate = perf_floats(p, 2 * rows, 0), .dpassed = perf_floats(p, rows, 0),
    };
    choose(p, &t, rows, experts);
    t.x.saved = perf_memory(p, p->b->ops->experts_saved_bytes(p->b, &t.x));
    perf_scratch(p, p->b->ops->experts_scratch_bytes(p->b, &t.x));
    perf_tell(p, "blocks", whole, experts_forward, &t, base + low, 0);
    snprintf(strstr(whole, ", forward"), 20, ", backward");
    perf_tell(p, "blocks", whole, experts_backward, &t, base + 2 * low, 0);
    perf_release(p);
}

static void measure_router(perf *p, int64_t experts) {
    const perf_shape *s = &p->shape[0];
    int64_t rows = p->rows[0];
    double x = (double)(rows * s->hidden) * (double)mx_dtype_bytes(p->act), kept = 8.0 * (double)(rows * experts);
    routed t = { 0 };
    char name[100];

    snprintf(name, sizeof name, "router E%lld, forward", (long long)experts);
    if (!perf_wants(p, "blocks", name)) {
        return;
    }
    t.rows = perf_rows(p, rows, rows < 256 ? rows : 256, s->vocab);
    t.r = (mx_router){
        .rows = &t.rows, .routing = MX_ROUTE_TOP_K, .experts = experts, .slots = 2, .x = perf_tensor(p, rows, s->hidden, 1),
        .w = perf_floats(p, experts * s->hidden, 0.02), .logits = perf_floats(p, rows * experts, 0), .prob = perf_floats(p, rows * experts, 0),
        .chosen = perf_memory(p, sizeof(int32_t) * (size_t)(2 * rows)), .gate = perf_floats(p, 2 * rows, 0),
        .sums = { perf_memory(p, sizeof(double) * (size_t)experts), perf_memory(p, sizeof(double) * (size_t)experts),
                  perf_memory(p, sizeof(double)) },
        .dgate = perf_floats(p, 2 * rows, 1), .balance_coef = 0.01, .share = 1, .rows_all = (double)rows,
        .dw = perf_floats(p, experts * s->hidden, 0), .dx = perf_tensor(p, rows, s->hidden, 0),
    };
    perf_scratch(p, p->b->ops->router_scratch_bytes(p->b, &t.r));
    perf_tell(p, "blocks", name, router_forward, &t, 0, x + kept);
    snprintf(strstr(name, ", forward"), 20, ", backward");
    perf_tell(p, "blocks", name, router_backward, &t, 0, 3 * x + kept);
    perf_release(p);
}

void perf_blocks(perf *p) {
    static const int64_t MANY[] = { 8, 16, 32, 64 };

    perf_title("linears, router, experts");
    for (size_t i = 0; i < sizeof LINEARS / sizeof LINEARS[0]; i++) {
        for (int r = 0; r < 2; r++) {
            measure_linears(p, &LINEARS[i], p->rows[r]);
        }
    }
    for (size_t i = 0; i < sizeof MANY / sizeof MANY[0]; i++) {
        measure_router(p, MANY[i]);
    }
    measure_experts(p, "factored", MX_EXPERTS_FACTORED, 8, 0);
    measure_experts(p, "factored, dropout", MX_EXPERTS_FACTORED, 8, 0.05f);
    measure_experts(p, "shared", MX_EXPERTS_SHARED, 8, 0);
    measure_experts(p, "naive", MX_EXPERTS_NAIVE, 8, 0);
    for (size_t i = 1; i < sizeof MANY / sizeof MANY[0]; i++) {
        measure_experts(p, "factored", MX_EXPERTS_FACTORED, MANY[i], 0);
    }
    perf_save(p);
}
