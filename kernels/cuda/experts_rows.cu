/* experts_rows.cu - the routed block's small kernels: what is sorted, gathered, spread, added up and combined between its
 * products and its middle. All of it is bound by memory or by its launch. */
#include "kernels/cuda/experts.h"

static constexpr int THREADS = 128;

/* ------------------------------------------------------------------ sorting */

/* A token's lowest expert and the one above it, E where there is none: as two keys, or, `second` being NULL, as one. */
static __global__ void keys_kernel(mx_experts_view v, int32_t *lowest, int32_t *second) {
    int64_t t = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int32_t a = v.experts, b = v.experts;

    if (t >= v.tokens) {
        return;
    }
    for (int k = 0; k < v.k; k++) {
        int32_t e = v.chosen[t * v.k + k];

        if (e >= 0 && e < a) {
            b = a;
            a = e;
        } else if (e >= 0 && e < b) {
            b = e;
        }
    }
    lowest[t] = second ? a : a * (v.experts + 1) + b;
    if (second) {
        second[t] = b;
    }
}

/* The list of a tile's experts, ascending, by one warp: a bit for each expert, its rank among the set ones its entry. */
static __global__ void tiles_kernel(mx_experts_view v) {
    __shared__ uint32_t bits[MX_EXPERTS_MOST / 32];
    __shared__ int32_t before[MX_EXPERTS_MOST / 32 + 1];
    int64_t tile = blockIdx.x;
    int lane = (int)threadIdx.x, words = (v.experts + 31) / 32;
    int32_t *expert = v.tile_expert + tile * v.tile_most;
    int16_t *place = v.tile_place + tile * v.tile_most * MX_EXPERTS_TILE;

    for (int i = lane; i < words; i += 32) {
        bits[i] = 0;
    }
    __syncwarp();
    for (int i = lane; i < MX_EXPERTS_TILE * v.k; i += 32) {
        int64_t at = tile * MX_EXPERTS_TILE + i / v.k;
        int32_t e = at < v.tokens ? v.chosen[(int64_t)v.order[at] * v.k + i % v.k] : -1;

        if (e >= 0) {
            atomicOr(&bits[e / 32], 1u << e % 32);
        }
    }
    __syncwarp();
    if (lane == 0) {
        before[0] = 0;
        for (int i = 0; i < words; i++) {
            before[i + 1] = before[i] + __popc(bits[i]);
        }
        v.tile_count[tile] = before[words];
    }
    __syncwarp();
    for (int i = lane; i < before[words] * MX_EXPERTS_TILE; i += 32) {
        place[i] = -1;
        if (i % MX_EXPERTS_TILE == 0) {
            expert[i / MX_EXPERTS_TILE] = 0;
        }
    }
    __syncwarp();
    for (int i = lane; i < MX_EXPERTS_TILE * v.k; i += 32) {
        int64_t at = tile * MX_EXPERTS_TILE + i / v.k;
        int32_t e = at < v.tokens ? v.chosen[(int64_t)v.order[at] * v.k + i % v.k] : -1;

        if (e >= 0) {
            int entry = before[e / 32] + __popc(bits[e / 32] & ((1u << e % 32) - 1));

            atomicOr(&expert[entry], 4 * e + (i / v.k < MX_EXPERTS_TILE / 2 ? 1 : 2));
            place[entry * MX_EXPERTS_TILE + i / v.k] = (int16_t)(i % v.k);
        }
    }
}

void mx_experts_sort(mx_experts_work *w) {
    const mx_experts_view *v = &w->v;

    mx_cuda_sort(w->c, v->slots, v->experts, v->chosen, NULL, v->expert_slot, v->expert_begin, w->sort_count);
    if (w->plain) {
        return;
    }
    int64_t bins = v->experts + 1;
    bool once = bins * bins <= MX_EXPERTS_MOST;

    mx_launch(w->c, "experts, keys", keys_kernel, dim3(mx_blocks(v->tokens, THREADS)), dim3(THREADS), 0, *v, w->sort_key,
              once ? NULL : w->sort_key2);
    if (once) {
        mx_cuda_sort(w->c, v->tokens, bins * bins, w->sort_key, NULL, v->order, NULL, w->sort_count);
    } else {
        mx_cuda_sort(w->c, v->tokens, bins, w->sort_key2, NULL, w->sort_order, NULL, w->sort_count);
        mx_cuda_sort(w->c, v->tokens, bins, w->sort_key, w->sort_order, v->order, NULL, w->sort_count);
    }
    mx_launch(w->c, "experts, tiles", tiles_kernel, dim3((unsigned)v->tiles), dim3(32), 0, *v);
}

/* ------------------------------------------------------------------ dropout of down's input */
/* The noise's site is that of k = 0; each k has the next. */
static __global__ void draw_kernel(mx_experts_view v, mx_noise_key noise, const int32_t *question, const int32_t *position,
                                   unsigned chunks) {
    int64_t slot = (int64_t)(blockIdx.x / chunks), block = (int64_t)(blockIdx.x % chunks) * THREADS + threadIdx.x;

    if (block * 8 >= v.inner || v.chosen[slot] < 0) {
        return;
    }
    noise.site += (uint32_t)(slot % v.k);
    v.kept[slot * v.kept_ld + block] = (uint8_t)mx_noise_kept8(noise, (uint32_t)block, position[slot / v.k], question[slot / v.k]);
}

void mx_experts_draw(mx_experts_work *w) {
    const mx_rows *rows = w->x->rows;
    unsigned chunks = mx_blocks((w->v.inner + 7) / 8, THREADS);

    mx_launch(w->c, "experts, masks", draw_kernel, dim3((unsigned)w->v.slots * chunks), dim3(THREADS), 0, w->v,
              mx_noise_of(&w->x->dropout, 1), rows->question, rows->position, chunks);
}

/* ------------------------------------------------------------------ gathering */
/* to (slots, C) = scale of the slot's expert . from of the slot's token; zeros for unused slots. */
template <class T>
static __global__ void gather_kernel(mx_experts_view v, T *to, const T *from, const float *scale, unsigned chunks, bool wide) {
    int64_t slot = mx_plane_row(chunks), column = mx_plane_column(chunks), left = v.hidden_size - column;
    float value[8] = { 0 };

    if (slot >= v.slots || left <= 0) {
        return;
    }
    int32_t expert = v.chosen[slot];

    if (expert >= 0) {
        mx_load8(value, from + (int32_t)slot / v.k * v.hidden_size + column, left, wide);
    }
    if (expert >= 0 && scale) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            value[j] *= j < left ? scale[expert * v.hidden_size + column + j] : 0.0f;
        }
    }
    mx_store8(to + slot * v.hidden_size + column, value, left, wide);
}

template <class T> static void gather(mx_experts_work *w, void *to, const void *from, const float *scale) {
    T *out = static_cast<T *>(to);
    const T *in = static_cast<const T *>(from);
    mx_plane p = mx_plane_of(w->v.slots, w->v.hidden_size);

    mx_launch(w->c, "experts, gather", gather_kernel<T>, p.grid, p.block, 0, w->v, out, in, scale, p.chunks,
              mx_wide(out, w->v.hidden_size) && mx_wide(in, w->v.hidden_size));
}

void mx_experts_gather_x(mx_experts_work *w) {
    w->act == MX_BF16 ? gather<mx_bf16>(w, w->x_slots, w->x->x.data, NULL) : gather<float>(w, w->x_slots, w->x->x.data, NULL);
}
void mx_experts_gather_dout(mx_experts_work *w) {
    const float *c2 = w->x->down_proj.c;

    w->act == MX_BF16 ? gather<mx_bf16>(w, w->dout, w->x->dy.data, c2) : gather<float>(w, w->dout, w->x->dy.data, c2);
}

template <class T> static __global__ void gather_u_kernel(mx_experts_view v, const T *u_all, int64_t ld, unsigned chunks) {
    int64_t slot = mx_plane_row(chunks), column = mx_plane_column(chunks);
    const mx_experts_term &gate = v.term[MX_EXPERTS_GATE], &up = v.term[MX_EXPERTS_UP];
    float value[8];

    if (slot >= v.slots || column >= v.u_ld) {
        return;
    }
    int expert = v.chosen[slot];
    const mx_experts_term &t = column < gate.wide ? gate : up;
    int r = (int)column - (column < gate.wide ? 0 : gate.wide);
    int64_t at = (int32_t)slot / v.k * ld + (column < gate.wide ? 0 : (int64_t)v.experts * gate.rank) + (int64_t)expert * t.rank + r;

#pragma unroll
    for (int j = 0; j < 8; j++) {
        value[j] = expert >= 0 && r + j < t.rank ? mx_float(u_all[at + j]) : 0.0f;
    }
    mx_store8(static_cast<T *>(v.u) + slot * v.u_ld + column, value, 8, true);
}

template <class T> static void gather_u(mx_experts_work *w) {
    mx_plane p = mx_plane_of(w->v.slots, w->v.u_ld);

    mx_launch(w->c, "experts, u", gather_u_kernel<T>, p.grid, p.block, 0, w->v, static_cast<T *>(w->u_all), w->u_all_ld, p.chunks);
}
void mx_experts_gather_u(mx_experts_work *w) {
    w->act == MX_BF16 ? gather_u<mx_bf16>(w) : gather_u<float>(w);
}

/* w = gate s v for the slot's expert, zeros in the padding and in unused slots; low_dot = s <v, z>. A warp is a slot. */
template <class T> static __global__ void gather_v_kernel(mx_experts_view v, float *low_dot) {
    const mx_experts_term &down = v.term[MX_EXPERTS_DOWN];
    int64_t slot = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    bool there = slot < v.slots;
    int expert = there ? v.chosen[slot] : -1;
    T *to = static_cast<T *>(v.w) + slot * down.wide;
    float dot = 0;

    for (int r = (int)threadIdx.x % 32; there && r < down.wide; r += 32) {
        float value = 0;

        if (expert >= 0 && r < down.rank) {
            value = mx_float(static_cast<const T *>(v.g)[mx_experts_row_out(v, slot) * v.g_ld + v.inner + (int64_t)expert * down.rank + r]);
            dot += value * v.z[slot * down.rank + r];
            value *= down.scale * v.gate[slot];
        }
        to[r] = mx_rounded<T>(value);
    }
    dot = mx_warp_sum(dot);
    if (there && threadIdx.x % 32 == 0) {
        low_dot[slot] = down.scale * dot;
    }
}

void mx_experts_gather_v(mx_experts_work *w) {
    dim3 grid(mx_blocks(w->v.slots, THREADS / 32));

    if (w->act == MX_BF16) {
        mx_launch(w->c, "experts, v", gather_v_kernel<mx_bf16>, grid, dim3(THREADS), 0, w->v, w->low_dot);
    } else {
        mx_launch(w->c, "experts, v", gather_v_kernel<float>, grid, dim3(THREADS), 0, w->v, w->low_dot);
    }
}

/* ------------------------------------------------------------------ all experts side by side */
/* to[o][e R + r] = B2[e][o][r] */
template <class T> static __global__ void write_b2_kernel(mx_experts_view v, T *to, int64_t ld) {
    const mx_experts_term &down = v.term[MX_EXPERTS_DOWN];
    int64_t columns = (int64_t)v.experts * down.rank, i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t o = i / columns, e = i % columns / down.rank, r = i % down.rank; /* columns are whole ranks */

    if (o < v.hidden_size) {
        to[o * ld + i % columns] = mx_rounded<T>(down.b[(e * v.hidden_size + o) * down.rank + r]);
    }
}

void mx_experts_write_b2(mx_experts_work *w, void *to, int64_t ld) {
    dim3 grid(mx_blocks(w->v.hidden_size * w->low_out, THREADS));

    if (w->act == MX_BF16) {
        mx_launch(w->c, "experts, B2", write_b2_kernel<mx_bf16>, grid, dim3(THREADS), 0, w->v, static_cast<mx_bf16 *>(to), ld);
    } else {
        mx_launch(w->c, "experts, B2", write_b2_kernel<float>, grid, dim3(THREADS), 0, w->v, static_cast<float *>(to), ld);
    }
}

MX_DEVICE float add_parts(const mx_experts_view &v, int64_t slot, int64_t at) {
    const float *part = v.part + slot * v.record + at;
    float sum = 0;

    for (int64_t p = 0; p < v.parts; p++) {
        sum += part[p * v.slots * v.record];
    }
    return sum;
}

/* The token's slot for the expert, or -1. */
MX_DEVICE int64_t slot_of(const mx_experts_view &v, int64_t token, int64_t expert) {
    for (int k = 0; k < v.k; k++) {
        if (v.chosen[token * v.k + k] == expert) {
            return token * v.k + k;
        }
    }
    return -1;
}

/* Threads over (rows, columns), one value each. */
static mx_plane values_of(int64_t rows, int64_t columns) {
    return mx_plane_of(rows, columns * MX_PIECE);
}
MX_DEVICE int64_t value_column(unsigned chunks) {
    return mx_plane_column(chunks) / MX_PIECE;
}

template <class T>
static __global__ void spread_z_kernel(mx_experts_view v, bool add_up, bool gated, T *to, int64_t ld, int64_t rows, unsigned chunks) {
    const mx_experts_term &down = v.term[MX_EXPERTS_DOWN];
    int64_t row = mx_plane_row(chunks), column = value_column(chunks), expert = column / down.rank, r = column % down.rank, slot;
    float value = 0;

    if (row >= rows || expert >= v.experts) {
        return;
    }
    slot = !v.slots_out ? slot_of(v, row, expert) : v.chosen[row] == expert ? row : -1;
    if (slot >= 0) {
        float *z = v.z + slot * down.rank + r;

        value = add_up ? add_parts(v, slot, r) : *z;
        if (add_up) {
            *z = value;
        }
        value *= down.scale * (gated ? v.gate[slot] : 1.0f);
    }
    to[row * ld + column] = mx_rounded<T>(value);
}

template <class T> static void spread_z(mx_experts_work *w, bool add_up, bool gated, void *to, int64_t ld) {
    mx_plane p = values_of(w->rows_out, w->low_out);

    mx_launch(w->c, "experts, z", spread_z_kernel<T>, p.grid, p.block, 0, w->v, add_up, gated, static_cast<T *>(to), ld, w->rows_out, p.chunks);
}
void mx_experts_spread_z(mx_experts_work *w, bool add_up, bool gated, void *to, int64_t ld) {
    w->act == MX_BF16 ? spread_z<mx_bf16>(w, add_up, gated, to, ld) : spread_z<float>(w, add_up, gated, to, ld);
}

template <class T> static __global__ void spread_du_kernel(mx_experts_view v, T *to, int64_t ld, unsigned chunks) {
    const mx_experts_term &gate = v.term[MX_EXPERTS_GATE], &up = v.term[MX_EXPERTS_UP];
    int64_t token = mx_plane_row(chunks), column = value_column(chunks), split = (int64_t)v.experts * gate.rank;
    int64_t columns = split + (int64_t)v.experts * up.rank, at = column < split ? column : column - split;
    int64_t rank = column < split ? gate.rank : up.rank, slot;

    if (token >= v.tokens || column >= columns) {
        return;
    }
    slot = slot_of(v, token, at / rank);
    to[token * ld + column] = mx_rounded<T>(slot >= 0 ? add_parts(v, slot, (column < split ? 0 : gate.wide) + at % rank) : 0.0f);
}

template <class T> static void spread_du(mx_experts_work *w, void *to, int64_t ld) {
    mx_plane p = values_of(w->v.tokens, w->low_in);

    mx_launch(w->c, "experts, du", spread_du_kernel<T>, p.grid, p.block, 0, w->v, static_cast<T *>(to), ld, p.chunks);
}
void mx_experts_spread_du(mx_experts_work *w, void *to, int64_t ld) {
    w->act == MX_BF16 ? spread_du<mx_bf16>(w, to, ld) : spread_du<float>(w, to, ld);
}

/* ------------------------------------------------------------------ ends */
template <class T>
static __global__ void combine_kernel(mx_experts_view v, const float *product, const float *c2, const float *bias, const float *passed,
                                      const T *x, T *y, T *out, unsigned chunks, bool wide) {
    int64_t t = mx_plane_row(chunks), column = mx_plane_column(chunks), size = v.hidden_size, left = size - column;
    float sum[8] = { 0 }, value[8], gates = 0;

    if (t >= v.tokens || left <= 0) {
        return;
    }
    if (!v.slots_out) {
        mx_load8(sum, product + t * size + column, left, wide);
    }
    for (int k = 0; k < v.k; k++) {
        int64_t slot = t * v.k + k;
        int expert = v.chosen[slot];
        float gate = v.gate[slot];

        if (expert < 0) {
            continue;
        }
        gates += gate;
        if (v.slots_out) {
            mx_load8(value, product + slot * size + column, left, wide);
            if (out) {
                mx_store8(out + slot * size + column, value, left, wide);
            }
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sum[j] += gate * (c2 && j < left ? c2[expert * size + column + j] * value[j] : value[j]);
            }
        }
    }
    if (bias) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum[j] += j < left ? gates * bias[column + j] : 0.0f;
        }
    }
    if (passed && passed[t] != 0) {
        mx_load8(value, x + t * size + column, left, wide);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum[j] += passed[t] * value[j];
        }
    }
    mx_store8(y + t * size + column, sum, left, wide);
}

template <class T> static void combine(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t size = w->v.hidden_size;
    mx_plane p = mx_plane_of(w->v.tokens, size);
    const T *from = static_cast<const T *>(x->x.data);
    T *to = static_cast<T *>(x->y.data), *out = static_cast<T *>(w->out);

    mx_launch(w->c, "experts, combine", combine_kernel<T>, p.grid, p.block, 0, w->v, w->product, x->down_proj.c, x->down_proj.bias,
              x->passed, from, to, out, p.chunks, mx_wide(from, size) && mx_wide(to, size) && mx_wide(w->product, size));
}
void mx_experts_combine(mx_experts_work *w) {
    w->act == MX_BF16 ? combine<mx_bf16>(w) : combine<float>(w);
}

static __global__ void add_db2_kernel(mx_experts_view v, const float *db2) {
    const mx_experts_term &down = v.term[MX_EXPERTS_DOWN];
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = i % down.rank, o = i / down.rank % v.hidden_size;
    int64_t e = i / down.rank / v.hidden_size;

    if (e < v.experts) {
        down.db[i] += db2[(o * v.experts + e) * down.rank + r];
    }
}

void mx_experts_add_db2(mx_experts_work *w) {
    mx_launch(w->c, "experts, dB2", add_db2_kernel, dim3(mx_blocks(w->v.hidden_size * w->low_out, THREADS)), dim3(THREADS), 0, w->v,
              static_cast<const float *>(w->db2));
}

/* dc2[e,o] += sum over e's slots of gate dy[o] (W2 h + s B2 z)[o]: a block is 32 columns of an expert, eight threads to a column
 * taking turns at its slots. */
static constexpr int TURNS = 8;
template <class T> static __global__ void scale_gradient_kernel(mx_experts_view v, const T *dy, const T *out, float *dc) {
    __shared__ float sum[TURNS][32];
    int64_t column = (int64_t)blockIdx.x * 32 + threadIdx.x, expert = blockIdx.y;
    float mine = 0;

    for (int32_t n = v.expert_begin[expert] + (int32_t)threadIdx.y; column < v.hidden_size && n < v.expert_begin[expert + 1]; n += TURNS) {
        int64_t slot = v.expert_slot[n];

        mine += v.gate[slot] * mx_float(dy[slot / v.k * v.hidden_size + column]) * mx_float(out[slot * v.hidden_size + column]);
    }
    sum[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.y == 0 && column < v.hidden_size) {
        for (int i = 1; i < TURNS; i++) {
            mine += sum[i][threadIdx.x];
        }
        dc[expert * v.hidden_size + column] += mine;
    }
}

void mx_experts_scale_gradient(mx_experts_work *w) {
    dim3 grid(mx_blocks(w->v.hidden_size, 32), (unsigned)w->v.experts), block(32, TURNS);

    if (w->act == MX_BF16) {
        mx_launch(w->c, "experts, dc2", scale_gradient_kernel<mx_bf16>, grid, block, 0, w->v, static_cast<const mx_bf16 *>(w->x->dy.data),
                  static_cast<const mx_bf16 *>(w->out), w->x->down_proj.dc);
    } else {
        mx_launch(w->c, "experts, dc2", scale_gradient_kernel<float>, grid, block, 0, w->v, static_cast<const float *>(w->x->dy.data),
                  static_cast<const float *>(w->out), w->x->down_proj.dc);
    }
}

/* dx of a token: its base part or its slots', the adapters' part under the mask (NULL: none apart), and passed dy. */
template <class T>
static __global__ void finish_dx_kernel(mx_experts_view v, mx_noise_key noise, const int32_t *question, const int32_t *position,
                                        const float *base, const float *low, const float *passed, const T *dy, T *dx, unsigned chunks,
                                        bool wide) {
    int64_t t = mx_plane_row(chunks), column = mx_plane_column(chunks), size = v.hidden_size, left = size - column;
    float sum[8] = { 0 }, value[8];

    if (t >= v.tokens || left <= 0) {
        return;
    }
    if (low) {
        uint32_t kept = v.dropout ? mx_noise_kept8(noise, (uint32_t)(column / 8), position[t], question[t]) : 0xffu;
        float keep = v.dropout ? noise.keep : 1.0f;

        mx_load8(value, low + t * size + column, left, wide);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum[j] = kept >> j & 1u ? keep * value[j] : 0.0f;
        }
    }
    for (int k = 0; k < (v.slots_in ? v.k : 1); k++) {
        int64_t row = v.slots_in ? t * v.k + k : t;

        if (!v.slots_in || v.chosen[row] >= 0) {
            mx_load8(value, base + row * size + column, left, wide);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sum[j] += value[j];
            }
        }
    }
    if (passed && passed[t] != 0) {
        mx_load8(value, dy + t * size + column, left, wide);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum[j] += passed[t] * value[j];
        }
    }
    mx_store8(dx + t * size + column, sum, left, wide);
}

template <class T> static void finish_dx(mx_experts_work *w, bool low) {
    const mx_experts *x = w->x;
    int64_t size = w->v.hidden_size;
    mx_plane p = mx_plane_of(w->v.tokens, size);
    const T *dy = static_cast<const T *>(x->dy.data);
    T *dx = static_cast<T *>(x->dx.data);

    mx_launch(w->c, "experts, dx", finish_dx_kernel<T>, p.grid, p.block, 0, w->v, mx_noise_of(&x->dropout, 0), x->rows->question,
              x->rows->position, static_cast<const float *>(w->product), low ? w->dx_low : NULL, x->passed, dy, dx, p.chunks,
              mx_wide(dy, size) && mx_wide(dx, size) && mx_wide(w->product, size));
}
void mx_experts_finish_dx(mx_experts_work *w, bool low) {
    w->act == MX_BF16 ? finish_dx<mx_bf16>(w, low) : finish_dx<float>(w, low);
}

/* dgate = <g, h> + s <v, z> + <dy, bias2> and dpassed = <x, dy>, zeros for padding rows. A warp is a token. */
template <class T>
static __global__ void finish_gates_kernel(mx_experts_view v, int64_t rows, const float *low_dot, const float *bias, const float *passed,
                                           const T *x, const T *dy, float *dgate, float *dpassed) {
    int64_t t = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    int lane = (int)threadIdx.x % 32;
    bool live = t < v.tokens, pass = live && passed && passed[t] != 0;
    float with_bias = 0, with_x = 0;

    for (int64_t j = lane; live && (bias || pass) && j < v.hidden_size; j += 32) {
        float d = mx_float(dy[t * v.hidden_size + j]);

        with_bias += bias ? d * bias[j] : 0.0f;
        with_x += pass ? d * mx_float(x[t * v.hidden_size + j]) : 0.0f;
    }
    with_bias = mx_warp_sum(with_bias);
    with_x = mx_warp_sum(with_x);
    for (int k = 0; dgate && t < rows && k < v.k; k++) {
        int64_t slot = t * v.k + k;
        bool used = live && v.chosen[slot] >= 0;
        double sum = 0;

        for (int64_t i = lane; used && i < v.parts * 8; i += 32) {
            sum += v.part[(i / 8 * v.slots + slot) * v.record + v.u_ld + i % 8];
        }
        sum = used ? mx_warp_sum(sum) + with_bias + (low_dot ? low_dot[slot] : 0.0f) : 0;
        if (lane == 0) {
            dgate[slot] = (float)sum;
        }
    }
    if (dpassed && t < rows && lane == 0) {
        dpassed[t] = with_x;
    }
}

template <class T> static void finish_gates(mx_experts_work *w) {
    const mx_experts *x = w->x;

    mx_launch(w->c, "experts, gates", finish_gates_kernel<T>, dim3(mx_blocks(x->rows->rows, THREADS / 32)), dim3(THREADS), 0, w->v,
              x->rows->rows, w->low_out ? w->low_dot : NULL, x->down_proj.bias, x->passed, static_cast<const T *>(x->x.data),
              static_cast<const T *>(x->dy.data), x->dgate, x->dpassed);
}
void mx_experts_finish_gates(mx_experts_work *w) {
    w->act == MX_BF16 ? finish_gates<mx_bf16>(w) : finish_gates<float>(w);
}
