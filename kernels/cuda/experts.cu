/* experts.cu - the routed feed-forward block: its memory, and its products in their order (experts.h tells the rest).
 *
 * No expert has a product of its own (PERFORMANCE 2.2): A x of all experts is one, (T, C) x (C, E (R1 + R3)), from which slots
 * take their expert's columns; B2 of all experts stands behind W2's columns, so that y = [hidden | zc][W2 | B2]^T with
 * zc = gate s z in its expert's columns, zeros elsewhere, and [g | v] = dout [W2 | B2]; A of all experts stands under W1 and W3,
 * so that dx = [dG | dU | du][W1; W3; A]. Where a group of weights has no such room, or dropout lies between, the parts are
 * products of their own, added up in f32 and rounded once. */
#include "kernels/cuda/experts_tiles.h"
#include "kernels/cuda/memory.h"

/* ------------------------------------------------------------------ sizes */
static mx_experts_term term_of(const mx_expert_linear *l) {
    mx_experts_term t = {};

    assert(!l->a == !l->b);
    t.a = l->a;
    t.b = l->b;
    t.c = l->c;
    t.bias = l->bias;
    t.da = l->da;
    t.db = l->db;
    t.dc = l->dc;
    t.scale = l->scale;
    t.rank = l->a ? (int)l->rank : 0;
    t.wide = (int)mx_experts_up(t.rank, MX_EXPERTS_TILE);
    return t;
}

/* Parts of the columns of I whose sums are kept apart, and how many rows of all parts there are at most, for any number of tokens
 * up to `tokens`. */
static int64_t parts_of(const mx_experts_work *w) {
    return w->plain ? mx_blocks(w->v.inner, MX_EXPERTS_STRIP) : mx_tile_parts(w->v.tokens, w->v.inner);
}
static int64_t part_rows(const mx_experts_work *w, int64_t tokens) {
    int64_t rows = w->plain ? mx_blocks(w->v.inner, MX_EXPERTS_STRIP) * tokens : mx_tile_part_tokens(tokens, w->v.inner);

    return rows * w->v.k;
}

/* What of a block in bf16 the tensor-core kernels are not made for, or NULL. */
static const char *too_much(const mx_experts_work *w) {
    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        if (w->v.term[i].rank > MX_EXPERTS_RANK) {
            return "experts of ranks past 128 do not fit the tensor-core kernels";
        }
    }
    return mx_tile_factors_shared(&w->v) > (size_t)w->c->shared_bytes
               ? "experts of these ranks do not fit the tensor-core kernels in this GPU's shared memory" : NULL;
}

/* Follows no pointer to data: also asked with what is not there yet. */
static mx_experts_work start(mx_cuda *c, const mx_experts *x, int64_t tokens) {
    mx_experts_work w = {};
    mx_experts_view *v = &w.v;

    w.c = c;
    w.x = x;
    w.act = mx_activation_type(&c->base);
    w.act_bytes = mx_dtype_bytes(w.act);
    v->tokens = tokens;
    v->k = (int)x->slots;
    v->slots = tokens * x->slots;
    v->experts = (int)x->experts;
    v->hidden_size = x->hidden;
    v->inner = x->inner;
    v->slots_in = x->form == MX_EXPERTS_NAIVE;
    v->slots_out = x->form != MX_EXPERTS_FACTORED;
    v->dropout = x->training && x->dropout.rate > 0;
    v->keep = x->dropout.rate < 1 ? 1.0f / (1.0f - x->dropout.rate) : 0.0f;
    v->term[MX_EXPERTS_GATE] = term_of(&x->gate_proj);
    v->term[MX_EXPERTS_UP] = term_of(&x->up_proj);
    v->term[MX_EXPERTS_DOWN] = term_of(&x->down_proj);
    v->adorned = x->gate_proj.c || x->gate_proj.bias || x->up_proj.c || x->up_proj.bias;
    v->chosen = x->chosen;
    v->gate = x->gate;
    v->tiles = mx_experts_up(tokens, MX_EXPERTS_TILE) / MX_EXPERTS_TILE;
    v->tile_most = x->experts < MX_EXPERTS_TILE * x->slots ? x->experts : MX_EXPERTS_TILE * x->slots;
    v->up_at = mx_experts_up(x->inner, 8);
    v->in_ld = 2 * v->up_at;
    v->u_ld = v->term[MX_EXPERTS_GATE].wide + v->term[MX_EXPERTS_UP].wide;
    v->kept_ld = mx_experts_up(x->inner, 128) / 8;
    w.low_in = x->experts * (v->term[MX_EXPERTS_GATE].rank + v->term[MX_EXPERTS_UP].rank);
    w.low_out = x->experts * v->term[MX_EXPERTS_DOWN].rank;
    v->hidden_ld = v->g_ld = mx_experts_up(x->inner + w.low_out, 8);
    v->din_ld = v->in_ld + mx_experts_up(w.low_in, 8);
    w.a_ld = mx_experts_up(x->hidden, 8);
    w.u_all_ld = mx_experts_up(w.low_in, 8);
    w.b2_ld = w.zc_ld = mx_experts_up(w.low_out, 8);
    w.rows_in = v->slots_in ? v->slots : tokens;
    w.rows_out = v->slots_out ? v->slots : tokens;
    w.plain = w.act == MX_F32 || too_much(&w);
    v->parts = parts_of(&w);
    assert(x->slots >= 1 && x->slots <= x->experts && x->experts <= MX_EXPERTS_MOST && v->slots < INT32_MAX);
    return w;
}

/* ------------------------------------------------------------------ memory: for `tokens` rows, live or not */
static void *take_act(const mx_experts_work *w, mx_cuda_scratch *s, int64_t count) {
    return mx_cuda_take(s, w->act_bytes * (size_t)count);
}

static void take_saved(mx_experts_work *w, mx_cuda_scratch *s, int64_t tokens) {
    mx_experts_view *v = &w->v;
    int64_t slots = tokens * v->k, tiles = mx_experts_up(tokens, MX_EXPERTS_TILE) / MX_EXPERTS_TILE;

    v->order = mx_cuda_take_of<int32_t>(s, tokens);
    v->tile_count = mx_cuda_take_of<int32_t>(s, tiles);
    v->tile_expert = mx_cuda_take_of<int32_t>(s, tiles * v->tile_most);
    v->tile_place = mx_cuda_take_of<int16_t>(s, tiles * v->tile_most * MX_EXPERTS_TILE);
    v->expert_slot = mx_cuda_take_of<int32_t>(s, slots);
    v->expert_begin = mx_cuda_take_of<int32_t>(s, v->experts + 1);
    v->in = take_act(w, s, (v->slots_in ? slots : tokens) * v->in_ld);
    v->u = take_act(w, s, slots * v->u_ld);
    v->z = mx_cuda_take_of<float>(s, slots * v->term[MX_EXPERTS_DOWN].rank);
    w->out = w->x->down_proj.c ? take_act(w, s, slots * v->hidden_size) : NULL;
}

static void take_common(mx_experts_work *w, mx_cuda_scratch *s, int64_t tokens, int copies) {
    mx_experts_view *v = &w->v;
    int64_t pieces = copies * (mx_tile_pieces(v, MX_EXPERTS_GATE) + mx_tile_pieces(v, MX_EXPERTS_UP)) + mx_tile_pieces(v, MX_EXPERTS_DOWN);

    v->kept = v->dropout ? mx_cuda_take_of<uint8_t>(s, tokens * v->k * v->kept_ld) : NULL;
    w->x_dropped = v->dropout ? take_act(w, s, tokens * v->hidden_size) : NULL;
    w->a_all = take_act(w, s, w->low_in * w->a_ld);
    w->b2 = take_act(w, s, v->hidden_size * w->b2_ld);
    w->pack = w->plain ? NULL : mx_cuda_take_of<uint4>(s, pieces);
}

static void take_forward(mx_experts_work *w, mx_cuda_scratch *s, int64_t tokens, bool training) {
    mx_experts_view *v = &w->v;
    int64_t rows_out = tokens * (v->slots_out ? v->k : 1);

    take_common(w, s, tokens, 1);
    if (!training) {
        take_saved(w, s, tokens);
    }
    w->sort_key = mx_cuda_take_of<int32_t>(s, tokens);
    w->sort_key2 = mx_cuda_take_of<int32_t>(s, tokens);
    w->sort_order = mx_cuda_take_of<int32_t>(s, tokens);
    w->sort_count = mx_cuda_take_of<int32_t>(s, MX_EXPERTS_MOST + 1);
    w->u_all = take_act(w, s, tokens * w->u_all_ld);
    w->x_slots = v->slots_in ? take_act(w, s, tokens * v->k * v->hidden_size) : NULL;
    v->record = v->term[MX_EXPERTS_DOWN].wide;
    v->part = mx_cuda_take_of<float>(s, part_rows(w, tokens) * v->record);
    v->hidden = take_act(w, s, rows_out * v->hidden_ld);
    w->product = mx_cuda_take_of<float>(s, rows_out * v->hidden_size);
}

/* The adapters' part of dx is not just added to the base's: it has its mask, or the base's is by slot. */
static bool dx_apart(const mx_experts_work *w) {
    return w->low_in && (w->v.dropout || w->v.slots_in);
}

static void take_backward(mx_experts_work *w, mx_cuda_scratch *s, int64_t tokens) {
    mx_experts_view *v = &w->v;
    int64_t slots = tokens * v->k, rows_in = v->slots_in ? slots : tokens, rows_out = v->slots_out ? slots : tokens;

    take_common(w, s, tokens, 2);
    v->g = take_act(w, s, rows_out * v->g_ld);
    v->w = take_act(w, s, slots * v->term[MX_EXPERTS_DOWN].wide);
    v->din = take_act(w, s, rows_in * v->din_ld);
    v->record = v->u_ld + 8;
    v->part = mx_cuda_take_of<float>(s, part_rows(w, tokens) * v->record);
    w->dout = v->slots_out ? take_act(w, s, slots * v->hidden_size) : NULL;
    w->zc = take_act(w, s, rows_out * w->zc_ld);
    w->db2 = mx_cuda_take_of<float>(s, v->hidden_size * w->low_out);
    w->low_dot = mx_cuda_take_of<float>(s, slots);
    w->product = mx_cuda_take_of<float>(s, rows_in * v->hidden_size);
    w->dx_low = dx_apart(w) ? mx_cuda_take_of<float>(s, tokens * v->hidden_size) : NULL;
}

size_t mx_cuda_experts_saved_bytes(const mx_backend *q, const mx_experts *x) {
    mx_experts_work w = start(const_cast<mx_cuda *>(mx_cuda_of(q)), x, x->rows->rows);
    mx_cuda_scratch s = {};

    take_saved(&w, &s, x->rows->rows);
    return s.most;
}

const char *mx_cuda_experts_slow(const mx_backend *q, const mx_experts *x) {
    mx_experts_work w = start(const_cast<mx_cuda *>(mx_cuda_of(q)), x, x->rows->rows);

    return w.act == MX_BF16 ? too_much(&w) : NULL;
}

/* Of the hungriest call: with and without training, forward and backward. */
size_t mx_cuda_experts_scratch_bytes(const mx_backend *q, const mx_experts *x) {
    mx_experts_work w = start(const_cast<mx_cuda *>(mx_cuda_of(q)), x, x->rows->rows);
    mx_cuda_scratch forward = {}, backward = {};

    take_forward(&w, &forward, x->rows->rows, false);
    if (x->training) {
        take_backward(&w, &backward, x->rows->rows);
    }
    return forward.most > backward.most ? forward.most : backward.most;
}

static void find_saved(mx_experts_work *w) {
    mx_cuda_scratch s = {};

    assert(w->x->saved);
    s.memory = static_cast<unsigned char *>(w->x->saved);
    s.bytes = SIZE_MAX;
    take_saved(w, &s, w->x->rows->rows);
}

/* ------------------------------------------------------------------ weights and products */
static void *at(const mx_experts_work *w, const void *base, int64_t index) {
    return const_cast<char *>(static_cast<const char *>(base)) + (size_t)index * w->act_bytes;
}
static mx_matrix matrix(const mx_experts_work *w, const void *data, int64_t ld) {
    return mx_matrix_of(data, w->act, ld);
}
static mx_matrix transposed(const mx_experts_work *w, const void *data, int64_t ld) {
    return mx_matrix_transposed(data, w->act, ld);
}

/* The matrix, valid until the next such call. */
static void *dense(const mx_experts_work *w, const mx_weight *m) {
    return at(w, mx_cuda_weights_dense(w->c, m->group), m->first_row * m->group->ld);
}

/* W1 and W3 lie one under the other and G and U side by side: one product instead of two. */
static bool joined(const mx_experts_work *w) {
    const mx_weight *gate = w->x->gate_proj.w, *up = w->x->up_proj.w;

    return gate->group == up->group && up->first_row == gate->first_row + w->v.inner && w->v.up_at == w->v.inner;
}
/* Room under them for A of all experts, right behind W3. */
static bool room_in(const mx_experts_work *w) {
    const mx_weight *up = w->x->up_proj.w;

    return joined(w) && up->first_row + w->v.inner == up->group->out && up->group->room.rows >= w->low_in;
}
/* Room behind W2's columns for B2 of all experts. */
static bool room_out(const mx_experts_work *w) {
    return w->low_out && w->x->down_proj.w->group->room.columns >= w->low_out;
}

/* A1 and A3 of all experts, one under the other. */
static void write_a(const mx_experts_work *w, void *to, int64_t ld) {
    int64_t c = w->v.hidden_size, row = 0;

    for (int i = MX_EXPERTS_GATE; i <= MX_EXPERTS_UP; i++) {
        int64_t rows = (int64_t)w->v.experts * w->v.term[i].rank;

        mx_cuda_convert(w->c, at(w, to, row * ld), w->act, ld, w->v.term[i].a, MX_F32, c, rows, c, 1.0f);
        row += rows;
    }
}

/* What the adapters read. */
static const void *low_input(const mx_experts_work *w) {
    const mx_experts *x = w->x;

    if (!w->v.dropout) {
        return x->x.data;
    }
    mx_cuda_dropout(w->c, &x->dropout, 0, x->rows, w->v.hidden_size, x->x.data, w->v.hidden_size, w->x_dropped, w->v.hidden_size, w->v.keep);
    return w->x_dropped;
}

/* Rows past the live ones belong to nobody; zeros keep what is added to them later finite. */
static void clear_padding(const mx_experts_work *w, const mx_tensor *t) {
    const mx_rows *rows = w->x->rows;

    if (t->data && rows->rows > rows->live) {
        mx_cuda_check(w->c, cudaMemsetAsync(at(w, t->data, rows->live * w->v.hidden_size), 0,
                                            w->act_bytes * (size_t)((rows->rows - rows->live) * w->v.hidden_size), w->c->stream), "experts");
        mx_cuda_follow(w->c, "experts");
    }
}

static void check(const mx_experts_work *w) {
    const mx_experts *x = w->x;

    assert(x->form != MX_EXPERTS_FACTORED || !x->down_proj.c);
    assert(x->x.dtype == w->act && x->x.dim[1] == x->hidden);
    assert(x->gate_proj.w->in == x->hidden && x->gate_proj.w->out == x->inner);
    assert(x->up_proj.w->in == x->hidden && x->up_proj.w->out == x->inner);
    assert(x->down_proj.w->in == x->inner && x->down_proj.w->out == x->hidden);
    (void)x;
}

/* ------------------------------------------------------------------ forward */
static void multiply_in(mx_experts_work *w) {
    const mx_experts *x = w->x;
    const mx_experts_view *v = &w->v;
    const mx_weight *weight[] = { x->gate_proj.w, x->up_proj.w };
    mx_matrix from = matrix(w, v->slots_in ? w->x_slots : x->x.data, v->hidden_size);
    int products = joined(w) ? 1 : 2;

    if (v->slots_in) {
        mx_experts_gather_x(w);
    }
    for (int i = 0; i < products; i++) {
        void *m = dense(w, weight[i]);

        mx_cuda_gemm(w->c, w->rows_in, products == 1 ? 2 * v->inner : v->inner, v->hidden_size, from, transposed(w, m, weight[i]->group->ld),
                     matrix(w, at(w, v->in, i * v->up_at), v->in_ld), 1.0f, false);
    }
    if (w->low_in) {
        write_a(w, w->a_all, w->a_ld);
        mx_cuda_gemm(w->c, v->tokens, w->low_in, v->hidden_size, matrix(w, low_input(w), v->hidden_size), transposed(w, w->a_all, w->a_ld),
                     matrix(w, w->u_all, w->u_all_ld), 1.0f, false);
        mx_experts_gather_u(w);
    }
}

static void multiply_out(mx_experts_work *w) {
    const mx_experts *x = w->x;
    const mx_experts_view *v = &w->v;
    int64_t c = v->hidden_size, ld = x->down_proj.w->group->ld;
    bool room = room_out(w), whole = !v->slots_out && !x->passed && !x->down_proj.bias && (room || !w->low_out);
    void *m = dense(w, x->down_proj.w), *zc = at(w, v->hidden, v->inner);
    mx_matrix y = whole ? matrix(w, x->y.data, c) : mx_matrix_of(w->product, MX_F32, c);

    if (w->low_out) {
        mx_experts_spread_z(w, true, !v->slots_out, zc, v->hidden_ld);
        mx_experts_write_b2(w, room ? at(w, m, v->inner) : w->b2, room ? ld : w->b2_ld);
    }
    mx_cuda_gemm(w->c, w->rows_out, c, v->inner + (room ? w->low_out : 0), matrix(w, v->hidden, v->hidden_ld), transposed(w, m, ld), y,
                 1.0f, false);
    if (w->low_out && !room) {
        mx_cuda_gemm(w->c, w->rows_out, c, w->low_out, matrix(w, zc, v->hidden_ld), transposed(w, w->b2, w->b2_ld), y, 1.0f, true);
    }
    if (!whole) {
        mx_experts_combine(w);
    }
}

void mx_cuda_experts_forward(mx_backend *q, const mx_experts *x) {
    mx_cuda *c = mx_cuda_of(q);
    mx_experts_work w = start(c, x, x->rows->live);
    size_t mark = c->scratch.used;

    check(&w);
    take_forward(&w, &c->scratch, x->rows->rows, x->training);
    if (x->training) {
        find_saved(&w);
    }
    mx_experts_sort(&w);
    multiply_in(&w);
    if (w.v.dropout && w.low_out) {
        mx_experts_draw(&w);
    }
    w.plain ? mx_experts_plain_forward(&w) : mx_tile_forward(&w);
    multiply_out(&w);
    clear_padding(&w, &x->y);
    mx_cuda_reset(&c->scratch, mark);
}

/* ------------------------------------------------------------------ backward */

/* g = W2^T dout and v = B2^T dout, side by side; dB2 and dc2. */
static void backward_out(mx_experts_work *w) {
    const mx_experts *x = w->x;
    const mx_experts_view *v = &w->v;
    int64_t c = v->hidden_size, ld = x->down_proj.w->group->ld;
    bool room = room_out(w);
    mx_matrix dout = matrix(w, v->slots_out ? w->dout : x->dy.data, c);
    void *m = dense(w, x->down_proj.w);

    if (v->slots_out) {
        mx_experts_gather_dout(w);
    }
    if (x->down_proj.c && x->down_proj.dc) {
        mx_experts_scale_gradient(w);
    }
    if (w->low_out) {
        mx_experts_write_b2(w, room ? at(w, m, v->inner) : w->b2, room ? ld : w->b2_ld);
    }
    mx_cuda_gemm(w->c, w->rows_out, v->inner + (room ? w->low_out : 0), c, dout, matrix(w, m, ld), matrix(w, v->g, v->g_ld), 1.0f, false);
    if (!w->low_out) {
        return;
    }
    if (!room) {
        mx_cuda_gemm(w->c, w->rows_out, w->low_out, c, dout, matrix(w, w->b2, w->b2_ld), matrix(w, at(w, v->g, v->inner), v->g_ld), 1.0f,
                     false);
    }
    if (x->down_proj.db) {
        mx_experts_spread_z(w, false, true, w->zc, w->zc_ld);
        mx_cuda_gemm(w->c, c, w->low_out, w->rows_out, transposed(w, dout.data, c), matrix(w, w->zc, w->zc_ld),
                     mx_matrix_of(w->db2, MX_F32, w->low_out), 1.0f, false);
        mx_experts_add_db2(w);
    }
    mx_experts_gather_v(w);
}

/* dA1, dA3 from du of all experts, du (T, low_in; ld). */
static void low_gradients(mx_experts_work *w, const void *du, int64_t ld) {
    const mx_experts_view *v = &w->v;
    const void *input = NULL;
    int64_t column = 0;

    for (int i = MX_EXPERTS_GATE; i <= MX_EXPERTS_UP; i++) {
        int64_t rows = (int64_t)v->experts * v->term[i].rank;

        if (rows && v->term[i].da) {
            input = input ? input : low_input(w);
            mx_cuda_gemm(w->c, rows, v->hidden_size, v->tokens, transposed(w, at(w, du, column), ld), matrix(w, input, v->hidden_size),
                         mx_matrix_of(v->term[i].da, MX_F32, v->hidden_size), 1.0f, true);
        }
        column += rows;
    }
}

/* dx in one product: nothing but [dG | dU | du][W1; W3; A] goes into it. */
static bool dx_whole(const mx_experts_work *w) {
    return joined(w) && !w->v.slots_in && !w->x->passed && (!w->low_in || (room_in(w) && !w->v.dropout));
}

static void multiply_dx(mx_experts_work *w) {
    const mx_experts *x = w->x;
    const mx_experts_view *v = &w->v;
    const mx_weight *weight[] = { x->gate_proj.w, x->up_proj.w };
    int64_t c = v->hidden_size, ld = x->gate_proj.w->group->ld;
    bool apart = dx_apart(w);
    mx_matrix base = mx_matrix_of(w->product, MX_F32, c);
    int products = joined(w) ? 1 : 2;

    if (dx_whole(w)) {
        void *m = dense(w, x->gate_proj.w);

        if (w->low_in) {
            write_a(w, at(w, m, 2 * v->inner * ld), ld);
        }
        mx_cuda_gemm(w->c, v->tokens, c, 2 * v->inner + w->low_in, matrix(w, v->din, v->din_ld), matrix(w, m, ld), matrix(w, x->dx.data, c),
                     1.0f, false);
        return;
    }
    for (int i = 0; i < products; i++) {
        void *m = dense(w, weight[i]);

        mx_cuda_gemm(w->c, w->rows_in, c, products == 1 ? 2 * v->inner : v->inner, matrix(w, at(w, v->din, i * v->up_at), v->din_ld),
                     matrix(w, m, weight[i]->group->ld), base, 1.0f, i > 0);
    }
    if (w->low_in) {
        write_a(w, w->a_all, w->a_ld);
        mx_cuda_gemm(w->c, v->tokens, c, w->low_in, matrix(w, at(w, v->din, v->in_ld), v->din_ld), matrix(w, w->a_all, w->a_ld),
                     apart ? mx_matrix_of(w->dx_low, MX_F32, c) : base, 1.0f, !apart);
    }
    mx_experts_finish_dx(w, apart);
}

void mx_cuda_experts_backward(mx_backend *q, const mx_experts *x) {
    mx_cuda *c = mx_cuda_of(q);
    mx_experts_work w = start(c, x, x->rows->live);
    size_t mark = c->scratch.used;
    void *du;

    check(&w);
    assert(x->training);
    take_backward(&w, &c->scratch, x->rows->rows);
    find_saved(&w);
    backward_out(&w);
    if (w.v.dropout && w.low_out) {
        mx_experts_draw(&w);
    }
    if (w.plain) {
        mx_experts_plain_backward(&w);
    } else {
        mx_tile_backward(&w);
        mx_tile_factors(&w);
    }
    mx_experts_finish_gates(&w);
    du = at(&w, w.v.din, w.v.in_ld);
    if (w.low_in) {
        mx_experts_spread_du(&w, du, w.v.din_ld);
        low_gradients(&w, du, w.v.din_ld);
    }
    if (x->dx.data) {
        multiply_dx(&w);
    }
    clear_padding(&w, &x->dx);
    mx_cuda_reset(&c->scratch, mark);
}
