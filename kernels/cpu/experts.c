/* experts.c - the routed feed-forward block: sizes, passes, sorting. The mathematics is in the stages (experts.h). */
#include "kernels/cpu/experts.h"

/* Slots of one pass: bounds scratch, and keeps a strip of 64 columns of all rows in the second cache. */
enum { PASS_SLOTS = 8192, PASS_TOKENS_LEAST = 64 };

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static mx_experts_work start(const mx_cpu *cpu, const mx_experts *x) {
    mx_experts_work w = { .x = x, .cpu = (mx_cpu *)cpu };
    const mx_expert_linear *linear[] = { &x->gate_proj, &x->up_proj, &x->down_proj };
    int64_t least = PASS_SLOTS / x->slots;

    assert(x->slots >= 1 && x->slots <= x->experts);
    w.act = mx_activation_type(&cpu->base);
    w.act_bytes = mx_dtype_bytes(w.act);
    w.kind = mx_tile_choose(w.act, cpu->plain_gemm);
    w.slots_in = x->form == MX_EXPERTS_NAIVE;
    w.slots_out = x->form != MX_EXPERTS_FACTORED;
    w.dropout = x->training && x->dropout.rate > 0;
    w.strips = (x->inner + MX_TILE_COLUMNS - 1) / MX_TILE_COLUMNS;
    w.parts = smaller(cpu->threads, w.strips);
    w.tokens_most = smaller(x->rows->rows, least > PASS_TOKENS_LEAST ? least : PASS_TOKENS_LEAST);
    w.slots_most = w.tokens_most * x->slots;
    w.blocks_most = w.slots_most / MX_TILE_ROWS + smaller(x->experts, w.slots_most);
    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        mx_experts_term *t = &w.term[i];

        t->linear = linear[i];
        t->rank = linear[i]->a ? linear[i]->rank : 0;
        t->deep = mx_tile_depth(w.act, linear[i]->rank);
        t->wide = mx_tile_up(linear[i]->rank, MX_TILE_STEP);
    }
    return w;
}

/* ------------------------------------------------------------------ memory */

static void *take_act(const mx_experts_work *w, mx_scratch *s, int64_t count) {
    return mx_scratch_take(s, w->act_bytes * (size_t)count);
}

/* Ranks as declared, adapter or not: sizes must not depend on pointers. */
static mx_experts_saved take_saved(const mx_experts_work *w, mx_scratch *s, int64_t tokens) {
    const mx_experts *x = w->x;
    int64_t slots = tokens * x->slots, rows_in = w->slots_in ? slots : tokens;
    mx_experts_saved saved;

    saved.gate = take_act(w, s, rows_in * x->inner);
    saved.up = take_act(w, s, rows_in * x->inner);
    saved.gate_u = take_act(w, s, slots * x->gate_proj.rank);
    saved.up_u = take_act(w, s, slots * x->up_proj.rank);
    saved.z = MX_SCRATCH(s, float, slots * x->down_proj.rank);
    saved.out = take_act(w, s, w->slots_out ? slots * x->hidden : 0);
    return saved;
}

static void take_common(mx_experts_work *w, mx_scratch *s) {
    const mx_experts *x = w->x;
    int64_t both = x->gate_proj.rank + x->up_proj.rank, r2 = x->down_proj.rank, e = x->experts;

    w->begin = MX_SCRATCH(s, int64_t, e + 1);
    w->token = MX_SCRATCH(s, int32_t, w->slots_most);
    w->place = MX_SCRATCH(s, int32_t, w->slots_most);
    w->sorted = MX_SCRATCH(s, int32_t, w->slots_most);
    w->gate = MX_SCRATCH(s, float, w->slots_most);
    w->block = MX_SCRATCH(s, mx_expert_block, w->blocks_most);
    w->batch_row = MX_SCRATCH(s, int32_t, w->slots_most);
    w->mask_row = MX_SCRATCH(s, int32_t, w->slots_most);
    w->input_bits = mx_scratch_take(s, (size_t)(w->tokens_most * mx_dropout_row_bytes(x->hidden)));
    w->hidden_bits = mx_scratch_take(s, (size_t)(w->slots_most * mx_dropout_row_bytes(x->inner)));
    w->x_dropped = take_act(w, s, w->tokens_most * x->hidden);
    w->x_slots = take_act(w, s, w->slots_in ? w->slots_most * x->hidden : 0);
    w->a_all = take_act(w, s, e * both * x->hidden);
    w->u_all = take_act(w, s, w->tokens_most * e * both);
    w->b2 = take_act(w, s, e * r2 * x->hidden);
    w->z_all = take_act(w, s, w->slots_out ? w->slots_most * r2 : w->tokens_most * e * r2);
    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        mx_experts_term *t = &w->term[i];

        t->rows = take_act(w, s, w->blocks_most * MX_TILE_ROWS * t->deep);
        t->to_wide = take_act(w, s, e * w->strips * t->deep * MX_TILE_COLUMNS);
        t->to_rank = take_act(w, s, e * w->strips * t->wide * MX_TILE_COLUMNS);
        t->part = MX_SCRATCH(s, float, w->parts * w->blocks_most * MX_TILE_ROWS * t->wide);
    }
}

static void take_forward(mx_experts_work *w, mx_scratch *s, bool training) {
    const mx_experts *x = w->x;
    int64_t rows_out = w->slots_out ? w->slots_most : w->tokens_most;

    take_common(w, s);
    if (!training) {
        w->saved = take_saved(w, s, w->tokens_most);
    }
    w->hidden = take_act(w, s, rows_out * x->inner);
    w->out = MX_SCRATCH(s, float, rows_out * x->hidden);
    w->row = MX_SCRATCH(s, float, w->slots_out ? w->tokens_most * x->hidden : 0);
    w->strip_count = mx_experts_strip_count(w, false);
    w->strip = MX_SCRATCH(s, float, w->parts * w->strip_count);
}

static void take_backward(mx_experts_work *w, mx_scratch *s) {
    const mx_experts *x = w->x;
    int64_t rows_in = w->slots_in ? w->slots_most : w->tokens_most, r2 = x->down_proj.rank;
    int64_t rows_out = w->slots_out ? w->slots_most : w->tokens_most;

    take_common(w, s);
    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        w->term[i].rows_t = take_act(w, s, w->blocks_most * w->term[i].wide * MX_TILE_ROWS);
    }
    w->dhidden = take_act(w, s, rows_out * x->inner);
    w->dout = take_act(w, s, w->slots_out ? w->slots_most * x->hidden : 0);
    w->v = MX_SCRATCH(s, float, w->slots_out ? w->slots_most * r2 : w->tokens_most * x->experts * r2);
    w->dgate_part = MX_SCRATCH(s, float, w->parts * w->slots_most);
    w->dgate = take_act(w, s, rows_in * x->inner);
    w->dup = take_act(w, s, rows_in * x->inner);
    w->dx = MX_SCRATCH(s, float, rows_in * x->hidden);
    w->dx_low = MX_SCRATCH(s, float, w->tokens_most * x->hidden);
    w->db2 = MX_SCRATCH(s, float, x->experts * r2 * x->hidden);
    w->strip_count = mx_experts_strip_count(w, true);
    w->strip = MX_SCRATCH(s, float, w->parts * w->strip_count);
}

size_t mx_cpu_experts_saved_bytes(const mx_backend *q, const mx_experts *x) {
    mx_experts_work w = start(mx_cpu_of_const(q), x);
    mx_scratch s = { 0 };

    take_saved(&w, &s, x->rows->rows);
    return s.most;
}

/* Of the hungriest call: with and without training, forward and backward. */
size_t mx_cpu_experts_scratch_bytes(const mx_backend *q, const mx_experts *x) {
    mx_experts_work w = start(mx_cpu_of_const(q), x);
    mx_scratch forward = { 0 }, backward = { 0 };

    take_forward(&w, &forward, false);
    take_backward(&w, &backward);
    return forward.most > backward.most ? forward.most : backward.most;
}

const char *mx_cpu_experts_slow(const mx_backend *q, const mx_experts *x) {
    (void)q;
    (void)x;
    return NULL; /* one way for all shapes */
}

/* ------------------------------------------------------------------ a pass */

/* Slots by expert, then token, then place: a counting sort. */
static void sort_slots(mx_experts_work *w) {
    const mx_experts *x = w->x;
    const int32_t *chosen = x->chosen + w->first * x->slots;
    const float *gate = x->gate + w->first * x->slots;
    int64_t count = w->tokens * x->slots;

    memset(w->begin, 0, sizeof *w->begin * (size_t)(x->experts + 1));
    for (int64_t i = 0; i < count; i++) {
        assert(chosen[i] < x->experts);
        if (chosen[i] >= 0) {
            w->begin[chosen[i] + 1]++;
        }
    }
    for (int64_t e = 0; e < x->experts; e++) {
        w->begin[e + 1] += w->begin[e];
    }
    w->slots = w->begin[x->experts];
    for (int64_t i = 0; i < count; i++) { /* begin[e] moves on to where e ends, which is where e + 1 began */
        int64_t n = chosen[i] >= 0 ? w->begin[chosen[i]]++ : -1;

        w->sorted[i] = (int32_t)n;
        if (n >= 0) {
            w->token[n] = (int32_t)(i / x->slots);
            w->place[n] = (int32_t)(i % x->slots);
            w->gate[n] = gate[i];
        }
    }
    memmove(w->begin + 1, w->begin, sizeof *w->begin * (size_t)x->experts);
    w->begin[0] = 0;
}

static void cut_blocks(mx_experts_work *w) {
    w->blocks = 0;
    for (int64_t e = 0; e < w->x->experts; e++) {
        for (int64_t n = w->begin[e]; n < w->begin[e + 1]; n += MX_TILE_ROWS) {
            w->block[w->blocks++] = (mx_expert_block){
                .expert = (int32_t)e,
                .begin = (int32_t)n,
                .count = (int32_t)smaller(MX_TILE_ROWS, w->begin[e + 1] - n),
            };
        }
    }
    assert(w->blocks <= w->blocks_most);
}

/* Masks of the block's input (one per token) and of down's input (one per slot; place k has a site of its own). */
static void draw_masks(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t drawn = 0;

    for (int64_t t = 0; t < w->tokens; t++) {
        w->batch_row[t] = (int32_t)(w->first + t);
    }
    mx_dropout_draw(&x->dropout, 0, x->rows, w->batch_row, w->tokens, x->hidden, w->input_bits);
    for (int64_t k = 0; k < x->slots; k++) {
        int64_t count = 0;

        for (int64_t t = 0; t < w->tokens; t++) {
            int32_t n = w->sorted[t * x->slots + k];

            if (n >= 0) {
                w->mask_row[n] = (int32_t)(drawn + count);
                w->batch_row[count++] = (int32_t)(w->first + t);
            }
        }
        mx_dropout_draw(&x->dropout, (uint32_t)(1 + k), x->rows, w->batch_row, count, x->inner,
                        w->hidden_bits + drawn * mx_dropout_row_bytes(x->inner));
        drawn += count;
    }
}

/* Moves `saved` of the whole call to this pass's part of it. */
static mx_experts_saved saved_from(const mx_experts_work *w, mx_experts_saved all) {
    const mx_experts *x = w->x;
    int64_t slot = w->first * x->slots, row_in = w->slots_in ? slot : w->first;

    all.gate = mx_act_at(w, all.gate, row_in * x->inner);
    all.up = mx_act_at(w, all.up, row_in * x->inner);
    all.gate_u = mx_act_at(w, all.gate_u, slot * x->gate_proj.rank);
    all.up_u = mx_act_at(w, all.up_u, slot * x->up_proj.rank);
    all.z += slot * x->down_proj.rank;
    all.out = mx_act_at(w, all.out, w->slots_out ? slot * x->hidden : 0);
    return all;
}

static void start_pass(mx_experts_work *w, int64_t first, const mx_experts_saved *all) {
    w->first = first;
    w->tokens = smaller(w->tokens_most, w->x->rows->live - first);
    sort_slots(w);
    cut_blocks(w);
    w->rows_in = w->slots_in ? w->slots : w->tokens;
    w->rows_out = w->slots_out ? w->slots : w->tokens;
    if (all) {
        w->saved = saved_from(w, *all);
    }
    if (w->dropout) {
        draw_masks(w);
    }
}

static void check(const mx_experts_work *w) {
    const mx_experts *x = w->x;

    assert(x->form != MX_EXPERTS_FACTORED || !x->down_proj.c);
    assert(x->x.dtype == w->act && x->x.dim[1] == x->hidden);
    assert(x->gate_proj.w->in == x->hidden && x->gate_proj.w->out == x->inner);
    assert(x->up_proj.w->in == x->hidden && x->up_proj.w->out == x->inner);
    assert(x->down_proj.w->in == x->inner && x->down_proj.w->out == x->hidden);
    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        assert(!w->term[i].linear->a == !w->term[i].linear->b);
    }
    (void)x;
}

/* Rows past the live ones belong to nobody; zeros keep what is added to them later finite. */
static void clear_padding(const mx_experts_work *w, const mx_tensor *t) {
    int64_t live = w->x->rows->live, rows = w->x->rows->rows;

    if (t->data) {
        memset(mx_act_at(w, t->data, live * w->x->hidden), 0, w->act_bytes * (size_t)((rows - live) * w->x->hidden));
    }
}

static mx_experts_saved saved_of(const mx_experts_work *w) {
    mx_scratch s = { .memory = w->x->saved, .bytes = SIZE_MAX };

    assert(w->x->saved);
    return take_saved(w, &s, w->x->rows->rows);
}

void mx_cpu_experts_forward(mx_backend *q, const mx_experts *x) {
    mx_cpu *cpu = mx_cpu_of(q);
    mx_experts_work w = start(cpu, x);
    mx_experts_saved all = { 0 };
    size_t mark = cpu->scratch.used;

    check(&w);
    take_forward(&w, &cpu->scratch, x->training);
    if (x->training) {
        all = saved_of(&w);
    }
    for (int64_t first = 0; first < x->rows->live; first += w.tokens_most) {
        start_pass(&w, first, x->training ? &all : NULL);
        mx_experts_gate_forward(&w);
        mx_experts_swiglu_forward(&w);
        mx_experts_down_forward(&w);
    }
    clear_padding(&w, &x->y);
    mx_scratch_reset(&cpu->scratch, mark);
}

void mx_cpu_experts_backward(mx_backend *q, const mx_experts *x) {
    mx_cpu *cpu = mx_cpu_of(q);
    mx_experts_work w = start(cpu, x);
    mx_experts_saved all = saved_of(&w);
    size_t mark = cpu->scratch.used;

    check(&w);
    assert(x->training);
    take_backward(&w, &cpu->scratch);
    for (int64_t first = 0; first < x->rows->live; first += w.tokens_most) {
        start_pass(&w, first, &all);
        mx_experts_down_backward(&w);
        mx_experts_swiglu_backward(&w);
        mx_experts_gates_backward(&w);
        mx_experts_gate_backward(&w);
    }
    clear_padding(&w, &x->dx);
    for (int64_t t = x->rows->live; t < x->rows->rows; t++) {
        for (int64_t k = 0; x->dgate && k < x->slots; k++) {
            x->dgate[t * x->slots + k] = 0;
        }
        if (x->dpassed) {
            x->dpassed[t] = 0;
        }
    }
    mx_scratch_reset(&cpu->scratch, mark);
}
