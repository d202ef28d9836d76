/* cases_blocks.c - linears with low-rank terms, attention, router and the routed block as problems drawn from a seed. */
#include "tests/cuda/cases.h"

#include <math.h>
#include <stdio.h>

static int64_t width(case_run *r) {
    static const int64_t SMALL[] = { 1, 9, 16, 32, 40 }, WIDE[] = { 1, 24, 33, 64, 136, 288 };

    return r->small ? case_one_of(r, 5, SMALL) : case_one_of(r, 6, WIDE);
}
static int64_t most_rows(const case_run *r) {
    return r->small ? 30 : 260;
}
static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* ------------------------------------------------------------------ linears */

enum { TERMS = 2 };

static mx_low_rank term_of(case_run *r, const mx_rows *rows, int64_t in, int64_t out) {
    int64_t most = r->small ? 9 : 40, rank = case_between(r, 1, most), begin = case_between(r, 0, rows->rows);
    bool ranged = case_chance(r, 0.3), vectors = case_chance(r, 0.2), weighted = case_chance(r, 0.2), trained = !case_chance(r, 0.1);
    mx_low_rank t = { .rank = rank, .scale = 0.75f, .begin = ranged ? begin : 0, .end = ranged ? case_between(r, begin, rows->rows) : -1,
                      .a = case_drawn(r, rank * in, 1 / sqrt((double)in)), .b = case_drawn(r, out * rank, 0.5) };

    case_says(r, " rank %ld%s", (long)rank, ranged ? " (ranged)" : "");
    t.rank_scale = vectors ? case_drawn(r, rank, 1) : NULL;
    t.out_scale = vectors ? case_drawn(r, out, 1) : NULL;
    t.row_weight = weighted ? case_drawn(r, rows->rows, 1) : NULL;
    if (trained) {
        t.da = case_drawn(r, rank * in, 0.1);
        t.db = case_drawn(r, out * rank, 0.1);
        t.drank_scale = vectors ? case_drawn(r, rank, 0.1) : NULL;
        t.dout_scale = vectors ? case_drawn(r, out, 0.1) : NULL;
        t.drow_weight = weighted ? case_drawn(r, rows->rows, 0.1) : NULL;
    }
    return t;
}

static void out_term(case_run *r, const mx_rows *rows, const mx_low_rank *t, int64_t in, int64_t out) {
    if (t->da) {
        case_out(r, "da", t->da, MX_F32, t->rank * in);
        case_out(r, "db", t->db, MX_F32, out * t->rank);
    }
    if (t->drank_scale) {
        case_out(r, "drank_scale", t->drank_scale, MX_F32, t->rank);
        case_out(r, "dout_scale", t->dout_scale, MX_F32, out);
    }
    if (t->drow_weight) {
        case_out(r, "drow_weight", t->drow_weight, MX_F32, rows->live);
    }
}

void case_linears(case_run *r) {
    mx_rows rows = case_rows(r, most_rows(r));
    int64_t in = width(r), n = case_between(r, 1, MX_WEIGHT_GROUP), out[MX_WEIGHT_GROUP], terms[MX_WEIGHT_GROUP], ranks = 0;
    mx_low_rank term[MX_WEIGHT_GROUP][TERMS];
    mx_linear linear[MX_WEIGHT_GROUP] = { 0 };
    mx_weight *w[MX_WEIGHT_GROUP];
    mx_weight_room room = { 0, 0 };
    bool grouped = case_chance(r, 0.6), roomy = case_chance(r, 0.7), wants_dx = case_chance(r, 0.85);
    mx_linears l = { .rows = &rows, .in = in, .linear = linear, .linears = n, .training = true };

    case_says(r, " in %ld, %ld linears,", (long)in, (long)n);
    for (int64_t j = 0; j < n; j++) {
        out[j] = width(r);
        terms[j] = case_between(r, 0, TERMS);
        case_says(r, " (%ld", (long)out[j]);
        for (int64_t i = 0; i < terms[j]; i++) {
            term[j][i] = term_of(r, &rows, in, out[j]);
            ranks += term[j][i].rank;
        }
        case_says(r, ")");
    }
    room = roomy ? (mx_weight_room){ ranks, ranks } : room;
    if (grouped) {
        case_weights(r, (int)n, out, in, room, MX_USE_LINEAR, w);
    }
    for (int64_t j = 0; j < n; j++) {
        bool scaled = case_chance(r, 0.3);

        if (!grouped) {
            case_weights(r, 1, &out[j], in, room, MX_USE_LINEAR, &w[j]);
        }
        linear[j] = (mx_linear){ .w = w[j], .out = out[j], .term = term[j], .terms = terms[j],
                                 .bias = case_chance(r, 0.3) ? case_drawn(r, out[j], 1) : NULL,
                                 .c = scaled ? case_drawn(r, out[j], 2) : NULL, .dc = scaled ? case_drawn(r, out[j], 0.1) : NULL,
                                 .y = case_act(r, NULL, rows.rows, out[j], 0), .dy = case_drawn_act(r, rows.rows, out[j], rows.live, 1) };
    }
    l.dropout = (mx_noise){ .seed = 3, .step = 5, .site = 17, .rate = case_chance(r, 0.5) ? 0.3f : 0 };
    l.x = case_drawn_act(r, rows.rows, in, rows.live, 1);
    l.dx_adds = wants_dx && case_chance(r, 0.5);
    l.dx = !wants_dx ? (mx_tensor){ 0 } : l.dx_adds ? case_drawn_act(r, rows.rows, in, rows.live, 1) : case_act(r, NULL, rows.rows, in, 0);
    l.saved = case_memory(r, MX_MEMORY_SAVED, NULL, r->b->ops->linears_saved_bytes(r->b, &l));
    case_scratch(r, r->b->ops->linears_scratch_bytes(r->b, &l));
    case_says(r, "%s%s dropout %g%s", grouped ? " grouped" : "", roomy ? " roomy" : "", (double)l.dropout.rate, wants_dx ? "" : " no dx");
    case_ops_begin(r);
    r->b->ops->linears_forward(r->b, &l);
    r->b->ops->linears_backward(r->b, &l);
    case_ops_end(r);
    for (int64_t j = 0; j < n; j++) {
        case_out_act(r, "y", linear[j].y, rows.live);
        if (linear[j].dc) {
            case_out(r, "dc", linear[j].dc, MX_F32, out[j]);
            r->output[r->outputs - 1].least = 0.5; /* a sum over rows, whose terms are of this size and may cancel */
        }
        for (int64_t i = 0; i < terms[j]; i++) {
            out_term(r, &rows, &term[j][i], in, out[j]);
        }
    }
    if (wants_dx) {
        case_out_act(r, "dx", l.dx, rows.live);
    }
}

/* ------------------------------------------------------------------ attention */

void case_attention(case_run *r) {
    static const int64_t SMALL[] = { 8, 16, 64, 80 }, WIDE[] = { 64, 80, 96, 128, 256, 40 };
    mx_rows rows = case_rows(r, r->small ? 24 : 150);
    int64_t kv = case_between(r, 1, 2), heads = kv * case_between(r, 1, 3), d = r->small ? case_one_of(r, 4, SMALL) : case_one_of(r, 6, WIDE);
    int64_t t = rows.rows, live = rows.live;
    mx_attention a = { .rows = &rows, .heads = heads, .kv_heads = kv, .head_dim = d };

    a.q = case_drawn_act(r, t, heads * d, live, 2);
    a.k = case_drawn_act(r, t, kv * d, live, 2);
    a.v = case_drawn_act(r, t, kv * d, live, 1);
    a.o = case_act(r, NULL, t, heads * d, 0);
    a.lse = case_floats(r, NULL, t * heads);
    a.d_o = case_drawn_act(r, t, heads * d, live, 1);
    a.dq = case_act(r, NULL, t, heads * d, 0);
    a.dk = case_act(r, NULL, t, kv * d, 0);
    a.dv = case_act(r, NULL, t, kv * d, 0);
    case_scratch(r, r->b->ops->attention_scratch_bytes(r->b, &a));
    case_says(r, " %ld heads on %ld of %ld", (long)heads, (long)kv, (long)d);
    case_ops_begin(r);
    r->b->ops->attention_forward(r->b, &a);
    r->b->ops->attention_backward(r->b, &a);
    case_ops_end(r);
    case_out_act(r, "o", a.o, live);
    case_out(r, "lse", a.lse, MX_F32, live * heads);
    case_out_act(r, "dq", a.dq, live);
    case_out_act(r, "dk", a.dk, live);
    r->output[r->outputs - 2].least = r->output[r->outputs - 1].least = 0.1; /* a row that sees itself alone: 0 but for rounding */
    case_out_act(r, "dv", a.dv, live);
}

/* ------------------------------------------------------------------ router */

/* Multiples of 1/8 within two: products and sums are exact in f32, so that no choice hangs on the order of a sum; ties are ties. */
static float *eighths(case_run *r, int64_t n) {
    float *p = case_host(r, sizeof *p * (size_t)n);

    for (int64_t i = 0; i < n; i++) {
        p[i] = (float)case_between(r, -8, 8) / 8;
    }
    return p;
}
static void *zeros(case_run *r, size_t bytes) {
    return case_memory(r, MX_MEMORY_BATCH, case_host(r, bytes), bytes);
}

void case_router(case_run *r) {
    static const int64_t EXPERTS[] = { 1, 2, 5, 8, 33, 64 };
    mx_rows rows = case_rows(r, most_rows(r));
    int64_t e = case_one_of(r, r->small ? 4 : 6, EXPERTS), c = width(r), t = rows.rows, live = rows.live;
    mx_routing routing = (mx_routing)case_between(r, 0, 2);
    int64_t k = routing == MX_ROUTE_TOP_P ? e : routing == MX_ROUTE_SWITCH ? 1 : case_between(r, 1, e);
    bool losses = case_chance(r, 0.7), tallied = case_chance(r, 0.7);
    mx_numbers none = { 0 }, *numbers = case_memory(r, MX_MEMORY_BATCH, &none, sizeof none);
    mx_router o = {
        .rows = &rows, .routing = routing, .experts = e, .slots = k, .top_p = 0.63, .temperature = case_chance(r, 0.3) ? 1.7 : 0,
        .capacity = case_between(r, 1, 6), .x = case_act(r, eighths(r, t * c), t, c, live), .w = case_floats(r, eighths(r, e * c), e * c),
        .logits = case_floats(r, NULL, t * e), .prob = case_floats(r, NULL, t * e),
        .chosen = case_memory(r, MX_MEMORY_BATCH, NULL, sizeof(int32_t) * (size_t)(t * k)), .gate = case_floats(r, NULL, t * k),
        .dgate = case_drawn(r, t * k, 1), .balance_coef = losses ? 0.3 : 0, .z_coef = losses ? 0.2 : 0, .share = 0.6,
        .rows_all = 2.0 * (double)live, .dw = case_drawn(r, e * c, 0.1), .dw_losses = losses ? case_drawn(r, e * c, 0.1) : NULL,
        .dx = case_drawn_act(r, t, c, live, 0.01),
    };

    if (routing == MX_ROUTE_SWITCH) {
        o.passed = case_floats(r, NULL, t);
        o.dpassed = case_drawn(r, t, 1);
    }
    if (tallied) {
        o.tally = (mx_router_tally){ .tasks = CASE_TASKS, .tokens = zeros(r, sizeof(int64_t) * CASE_TASKS * (size_t)e),
                                     .dropped = zeros(r, sizeof(int64_t) * CASE_TASKS * (size_t)e), .rows = zeros(r, sizeof(int64_t) * CASE_TASKS),
                                     .pairs = case_chance(r, 0.7) ? zeros(r, sizeof(int64_t) * CASE_TASKS * (size_t)(e * e)) : NULL,
                                     .probability = zeros(r, sizeof(double) * CASE_TASKS * (size_t)e),
                                     .entropy = zeros(r, sizeof(double) * CASE_TASKS) };
    }
    if (losses) {
        o.sums = (mx_router_sums){ zeros(r, sizeof(double) * (size_t)e), zeros(r, sizeof(double) * (size_t)e), zeros(r, sizeof(double)) };
    }
    case_scratch(r, r->b->ops->router_scratch_bytes(r->b, &o));
    case_says(r, " %s, %ld of %ld experts, width %ld%s%s",
              routing == MX_ROUTE_TOP_K ? "top-k" : routing == MX_ROUTE_TOP_P ? "top-p" : "switch", (long)k, (long)e, (long)c,
              losses ? ", losses" : "", tallied ? ", tally" : "");
    case_ops_begin(r);
    r->b->ops->router_forward(r->b, &o);
    if (losses) {
        r->b->ops->router_losses(r->b, &o, numbers);
    }
    r->b->ops->router_backward(r->b, &o);
    case_ops_end(r);
    case_out(r, "logits", o.logits, MX_F32, live * e);
    case_out(r, "prob", o.prob, MX_F32, live * e);
    case_out(r, "chosen", o.chosen, MX_I32, live * k);
    case_out(r, "gate", o.gate, MX_F32, live * k);
    case_out(r, "dw", o.dw, MX_F32, e * c);
    case_out_act(r, "dx", o.dx, live);
    if (o.passed) {
        case_out(r, "passed", o.passed, MX_F32, live);
    }
    if (tallied) {
        case_out(r, "tokens", o.tally.tokens, MX_I64, CASE_TASKS * e);
        case_out(r, "dropped", o.tally.dropped, MX_I64, CASE_TASKS * e);
        case_out(r, "rows", o.tally.rows, MX_I64, CASE_TASKS);
        case_out(r, "probability", o.tally.probability, MX_F64, CASE_TASKS * e);
        case_out(r, "entropy", o.tally.entropy, MX_F64, CASE_TASKS);
    }
    if (o.tally.pairs) {
        case_out(r, "pairs", o.tally.pairs, MX_I64, CASE_TASKS * e * e);
    }
    if (losses) {
        case_out(r, "sums.chosen", o.sums.chosen, MX_F64, e);
        case_out(r, "sums.probability", o.sums.probability, MX_F64, e);
        case_out(r, "sums.z", o.sums.z, MX_F64, 1);
        case_out(r, "balance", &numbers->balance, MX_F64, 1);
        case_out(r, "z", &numbers->z, MX_F64, 1);
        case_out(r, "dw_losses", o.dw_losses, MX_F32, e * c);
    }
}

/* ------------------------------------------------------------------ the routed block */

static mx_expert_linear expert_linear(case_run *r, int64_t e, int64_t in, int64_t out, bool may_scale) {
    int64_t rank = case_chance(r, 0.85) ? case_between(r, 1, r->small ? 7 : 24) : 0;
    bool scaled = may_scale && case_chance(r, 0.4);
    mx_expert_linear l = { .rank = rank, .scale = 2 };

    case_says(r, " rank %ld%s", (long)rank, scaled ? " scaled" : "");
    l.bias = case_chance(r, 0.3) ? case_drawn(r, out, 0.5) : NULL;
    if (rank) {
        l.a = case_drawn(r, e * rank * in, 1.5 / sqrt((double)in));
        l.b = case_drawn(r, e * out * rank, 0.6 / sqrt((double)rank));
        l.da = case_drawn(r, e * rank * in, 0.1);
        l.db = case_drawn(r, e * out * rank, 0.1);
    }
    if (scaled) {
        l.c = case_drawn(r, e * out, 1.5);
        l.dc = case_drawn(r, e * out, 0.1);
    }
    return l;
}

static void out_expert_linear(case_run *r, const char *name, const mx_expert_linear *l, int64_t e, int64_t in, int64_t out) {
    char text[16];

    if (l->da) {
        snprintf(text, sizeof text, "dA %s", name);
        case_out(r, text, l->da, MX_F32, e * l->rank * in);
        r->output[r->outputs - 1].least = 0.5; /* as for dc: few rows to an expert */
        snprintf(text, sizeof text, "dB %s", name);
        case_out(r, text, l->db, MX_F32, e * out * l->rank);
    }
    if (l->dc) {
        snprintf(text, sizeof text, "dc %s", name);
        case_out(r, text, l->dc, MX_F32, e * out);
    }
}

/* Who goes where: spread, all to one, or some to nobody; some places empty. Padding chooses nobody. */
static void choose(case_run *r, mx_experts *x, bool overflowing) {
    int64_t t = x->rows->rows, k = x->slots, pool = case_chance(r, 0.3) ? k : x->experts, order[64];
    bool empty_places = case_chance(r, 0.4);
    int32_t *chosen = case_host(r, sizeof *chosen * (size_t)(t * k));
    float *gate = case_values(r, t * k, 1), *passed = case_values(r, t, 1);

    for (int64_t i = 0; i < t; i++) {
        int64_t kept = i >= x->rows->live || (overflowing && case_chance(r, 0.3)) ? 0 : empty_places ? case_between(r, 1, k) : k;

        for (int64_t j = 0; j < pool; j++) {
            order[j] = x->experts - 1 - j;
        }
        mx_rng_shuffle(&r->rng, order, pool);
        for (int64_t j = 0; j < k; j++) {
            chosen[i * k + j] = j < kept ? (int32_t)order[j] : -1;
            gate[i * k + j] = j < kept ? gate[i * k + j] : 0;
        }
        passed[i] = kept == 0 && i < x->rows->live ? passed[i] : 0;
    }
    x->chosen = case_memory(r, MX_MEMORY_BATCH, chosen, sizeof *chosen * (size_t)(t * k));
    x->gate = case_floats(r, gate, t * k);
    x->passed = overflowing ? case_floats(r, passed, t) : NULL;
    case_says(r, "%s%s%s", pool < x->experts ? " few experts" : "", empty_places ? " empty places" : "", overflowing ? " overflowing" : "");
}

void case_experts(case_run *r) {
    static const int64_t EXPERTS[] = { 1, 2, 3, 8, 17 };
    mx_rows rows = case_rows(r, most_rows(r));
    int64_t e = case_one_of(r, r->small ? 4 : 5, EXPERTS), c = width(r), i = width(r), t = rows.rows, live = rows.live;
    bool overflowing = case_chance(r, 0.3);
    mx_experts x = { .rows = &rows, .form = (mx_experts_form)case_between(r, 0, 2), .experts = e, .hidden = c, .inner = i, .training = true };
    int64_t up[2] = { i, i };
    mx_weight *w[2];

    x.slots = overflowing ? 1 : case_between(r, 1, e > 4 ? 4 : e);
    case_says(r, " %s, %ld of %ld experts, %ld to %ld;",
              x.form == MX_EXPERTS_FACTORED ? "factored" : x.form == MX_EXPERTS_SHARED ? "shared" : "naive", (long)x.slots, (long)e, (long)c, (long)i);
    x.gate_proj = expert_linear(r, e, c, i, true);
    x.up_proj = expert_linear(r, e, c, i, true);
    x.down_proj = expert_linear(r, e, i, c, x.form != MX_EXPERTS_FACTORED);

    bool roomy = case_chance(r, 0.7);
    mx_weight_room in_room = { 0, roomy ? e * (x.gate_proj.rank + x.up_proj.rank) : 0 }, down_room = { roomy ? e * x.down_proj.rank : 0, 0 };

    case_weights(r, 2, up, c, in_room, MX_USE_LINEAR, w);
    x.gate_proj.w = w[0];
    x.up_proj.w = w[1];
    case_weights(r, 1, &c, i, down_room, MX_USE_LINEAR, w);
    x.down_proj.w = w[0];
    choose(r, &x, overflowing);
    x.dropout = (mx_noise){ .seed = 7, .step = 3, .site = 40, .rate = case_chance(r, 0.5) ? 0.3f : 0 };
    x.x = case_drawn_act(r, t, c, live, 2);
    x.y = case_act(r, NULL, t, c, 0);
    x.dy = case_drawn_act(r, t, c, live, 1);
    x.dx = case_act(r, NULL, t, c, 0);
    x.dgate = case_floats(r, NULL, t * x.slots);
    x.dpassed = overflowing ? case_floats(r, NULL, t) : NULL;
    x.saved = case_memory(r, MX_MEMORY_SAVED, NULL, r->b->ops->experts_saved_bytes(r->b, &x));
    case_scratch(r, larger(r->b->ops->experts_scratch_bytes(r->b, &x), 1));
    case_says(r, "%s dropout %g", roomy ? " roomy" : "", (double)x.dropout.rate);
    case_ops_begin(r);
    r->b->ops->experts_forward(r->b, &x);
    r->b->ops->experts_backward(r->b, &x);
    case_ops_end(r);
    case_out_act(r, "y", x.y, live);
    case_out_act(r, "dx", x.dx, live);
    case_out(r, "dgate", x.dgate, MX_F32, live * x.slots);
    if (x.dpassed) {
        case_out(r, "dpassed", x.dpassed, MX_F32, live);
    }
    out_expert_linear(r, "gate", &x.gate_proj, e, c, i);
    out_expert_linear(r, "up", &x.up_proj, e, c, i);
    out_expert_linear(r, "down", &x.down_proj, e, i, c);
}
