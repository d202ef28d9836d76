/* experts_plain.cu - the routed block's middle in plain arithmetic, a thread for each column of a strip: any type, any rank.
 *
 * The definition on the device of what the tensor-core kernels compute in bf16; slow, and meant for f32. Factors and what is
 * multiplied by them are rounded to the activations' type, as the CPU does. */
#include "kernels/cuda/experts.h"

static constexpr int STRIP = MX_EXPERTS_STRIP, RANKS = 8; /* ranks whose gradients a thread keeps at a time */

/* sum_r (s B)[column, r] u[r] */
template <class T> MX_DEVICE float widen(const mx_experts_term &t, int64_t expert, int64_t column, int64_t inner, const T *u) {
    const float *b = t.b + (expert * inner + column) * t.rank;
    float sum = 0;

    for (int r = 0; r < t.rank; r++) {
        sum += mx_float(mx_rounded<T>(t.scale * b[r])) * mx_float(u[r]);
    }
    return sum;
}

template <class T> MX_DEVICE float down_factor(const mx_experts_view &v, int64_t expert, int r, int64_t column) {
    return mx_float(mx_rounded<T>(v.term[MX_EXPERTS_DOWN].a[(expert * v.term[MX_EXPERTS_DOWN].rank + r) * v.inner + column]));
}

MX_DEVICE float mask_of(const mx_experts_view &v, int64_t slot, int64_t column) {
    if (!v.dropout) {
        return 1.0f;
    }
    return v.kept[slot * v.kept_ld + column / 8] >> (column % 8) & 1 ? v.keep : 0.0f;
}

/* One slot's values in one column. */
struct values {
    float a0, b0, sigmoid, silu, b, h; /* a0, b0: before c and bias */
};
template <class T> MX_DEVICE values values_of(const mx_experts_view &v, int64_t slot, int64_t expert, int64_t column) {
    const mx_experts_term &gate = v.term[MX_EXPERTS_GATE], &up = v.term[MX_EXPERTS_UP];
    const T *in = static_cast<const T *>(v.in) + mx_experts_row_in(v, slot) * v.in_ld + column;
    const T *u = static_cast<const T *>(v.u) + slot * v.u_ld;
    int64_t at = expert * v.inner + column;
    values e;
    float a;

    e.a0 = mx_float(in[0]) + widen(gate, expert, column, v.inner, u);
    e.b0 = mx_float(in[v.up_at]) + widen(up, expert, column, v.inner, u + gate.wide);
    a = (gate.c ? gate.c[at] * e.a0 : e.a0) + (gate.bias ? gate.bias[column] : 0.0f);
    e.b = (up.c ? up.c[at] * e.b0 : e.b0) + (up.bias ? up.bias[column] : 0.0f);
    e.sigmoid = mx_experts_sigmoid(a);
    e.silu = a * e.sigmoid;
    e.h = e.silu * e.b;
    return e;
}

/* ------------------------------------------------------------------ forward: a block is a token and a strip */
template <class T> static __global__ void plain_forward_kernel(mx_experts_view v) {
    __shared__ float dropped[STRIP];
    int64_t token = blockIdx.x, column = (int64_t)blockIdx.y * STRIP + threadIdx.x;
    int rank = v.term[MX_EXPERTS_DOWN].rank, width = (int)(v.inner - (int64_t)blockIdx.y * STRIP);
    T *hidden = static_cast<T *>(v.hidden);
    float sum = 0;

    width = width < STRIP ? width : STRIP;
    for (int k = 0; k < v.k; k++) {
        int64_t slot = token * v.k + k;
        int expert = v.chosen[slot];

        if (expert < 0) {
            continue;
        }
        if (column < v.inner) {
            float h = values_of<T>(v, slot, expert, column).h;

            sum += v.gate[slot] * h;
            dropped[threadIdx.x] = mx_float(mx_rounded<T>(mask_of(v, slot, column) * h));
            if (v.slots_out) {
                hidden[slot * v.hidden_ld + column] = mx_rounded<T>(h);
            }
        }
        __syncthreads();
        for (int r = (int)threadIdx.x; r < rank; r += STRIP) {
            float z = 0;

            for (int j = 0; j < width; j++) {
                z += down_factor<T>(v, expert, r, (int64_t)blockIdx.y * STRIP + j) * dropped[j];
            }
            v.part[((int64_t)blockIdx.y * v.slots + slot) * v.record + r] = z;
        }
        __syncthreads();
    }
    if (!v.slots_out && column < v.inner) {
        hidden[token * v.hidden_ld + column] = mx_rounded<T>(sum);
    }
}

/* ------------------------------------------------------------------ backward */
struct gradients {
    float h, da, db; /* h: dropped; da, db: before c */
    float dot;       /* g h */
};
template <class T>
MX_DEVICE gradients gradients_of(const mx_experts_view &v, const values &e, int64_t slot, int64_t expert, int64_t column) {
    const T *w = static_cast<const T *>(v.w) + slot * v.term[MX_EXPERTS_DOWN].wide;
    float g = mx_float(static_cast<const T *>(v.g)[mx_experts_row_out(v, slot) * v.g_ld + column]), d = 0;
    float mask = mask_of(v, slot, column), dh;
    gradients r;

    for (int i = 0; i < v.term[MX_EXPERTS_DOWN].rank; i++) {
        d += down_factor<T>(v, expert, i, column) * mx_float(w[i]);
    }
    dh = v.gate[slot] * g + mask * d;
    r.h = mask * e.h;
    r.da = dh * e.b * (e.sigmoid + e.silu * (1.0f - e.sigmoid));
    r.db = dh * e.silu;
    r.dot = g * e.h;
    return r;
}

MX_DEVICE float scale_of(const mx_experts_view &v, int term, int64_t expert, int64_t column) {
    const float *c = v.term[term].c;

    return c ? c[expert * v.inner + column] : 1.0f;
}

/* sum over the strip's columns of (s B)[column, r] d[column] */
template <class T>
MX_DEVICE float narrow(const mx_experts_view &v, const mx_experts_term &t, int64_t expert, int r, int64_t first, int width, const float *d) {
    float sum = 0;

    for (int j = 0; j < width; j++) {
        sum += mx_float(mx_rounded<T>(t.scale * t.b[(expert * v.inner + first + j) * t.rank + r])) * d[j];
    }
    return sum;
}

/* dG, dU, and the strip's part of du and dgate: a block is a token and a strip. */
template <class T> static __global__ void plain_backward_kernel(mx_experts_view v) {
    __shared__ float da[STRIP], db[STRIP], dot[STRIP];
    int64_t token = blockIdx.x, first = (int64_t)blockIdx.y * STRIP, column = first + threadIdx.x;
    const mx_experts_term &gate = v.term[MX_EXPERTS_GATE], &up = v.term[MX_EXPERTS_UP];
    int width = v.inner - first < STRIP ? (int)(v.inner - first) : STRIP;
    T *din = static_cast<T *>(v.din);
    float dg = 0, du = 0;

    for (int k = 0; k < v.k; k++) {
        int64_t slot = token * v.k + k;
        int expert = v.chosen[slot];
        float *part = v.part + ((int64_t)blockIdx.y * v.slots + slot) * v.record;

        if (expert < 0) {
            continue;
        }
        if (column < v.inner) {
            gradients r = gradients_of<T>(v, values_of<T>(v, slot, expert, column), slot, expert, column);
            float to_g = scale_of(v, MX_EXPERTS_GATE, expert, column) * r.da, to_u = scale_of(v, MX_EXPERTS_UP, expert, column) * r.db;

            dg += to_g;
            du += to_u;
            da[threadIdx.x] = mx_float(mx_rounded<T>(to_g));
            db[threadIdx.x] = mx_float(mx_rounded<T>(to_u));
            dot[threadIdx.x] = r.dot;
            if (v.slots_in) {
                din[slot * v.din_ld + column] = mx_rounded<T>(to_g);
                din[slot * v.din_ld + v.up_at + column] = mx_rounded<T>(to_u);
            }
        }
        __syncthreads();
        for (int r = (int)threadIdx.x; r < gate.rank; r += STRIP) {
            part[r] = narrow<T>(v, gate, expert, r, first, width, da);
        }
        for (int r = (int)threadIdx.x; r < up.rank; r += STRIP) {
            part[gate.wide + r] = narrow<T>(v, up, expert, r, first, width, db);
        }
        if (threadIdx.x < 8) {
            float sum = 0;

            for (int j = (int)threadIdx.x; j < width; j += 8) {
                sum += dot[j];
            }
            part[gate.wide + up.wide + threadIdx.x] = sum;
        }
        __syncthreads();
    }
    if (!v.slots_in && column < v.inner) {
        din[token * v.din_ld + column] = mx_rounded<T>(dg);
        din[token * v.din_ld + v.up_at + column] = mx_rounded<T>(du);
    }
}

/* dB1, dB3, dA2, dc1, dc3: a thread is one column of one expert and walks its slots; blockIdx.z picks the ranks it keeps. */
template <class T> static __global__ void plain_factors_kernel(mx_experts_view v) {
    int64_t column = (int64_t)blockIdx.x * STRIP + threadIdx.x, expert = blockIdx.y;
    int base = (int)blockIdx.z * RANKS;
    const mx_experts_term &gate = v.term[MX_EXPERTS_GATE], &up = v.term[MX_EXPERTS_UP], &down = v.term[MX_EXPERTS_DOWN];
    float b1[RANKS] = { 0 }, b3[RANKS] = { 0 }, a2[RANKS] = { 0 }, c1 = 0, c3 = 0;

    if (column >= v.inner) {
        return;
    }
    for (int32_t n = v.expert_begin[expert]; n < v.expert_begin[expert + 1]; n++) {
        int64_t slot = v.expert_slot[n];
        const T *u = static_cast<const T *>(v.u) + slot * v.u_ld, *w = static_cast<const T *>(v.w) + slot * down.wide;
        values e = values_of<T>(v, slot, expert, column);
        gradients r = gradients_of<T>(v, e, slot, expert, column);
        float da = mx_float(mx_rounded<T>(scale_of(v, MX_EXPERTS_GATE, expert, column) * r.da));
        float db = mx_float(mx_rounded<T>(scale_of(v, MX_EXPERTS_UP, expert, column) * r.db)), h = mx_float(mx_rounded<T>(r.h));

        c1 += r.da * e.a0;
        c3 += r.db * e.b0;
#pragma unroll
        for (int i = 0; i < RANKS; i++) {
            b1[i] += base + i < gate.rank ? da * mx_float(u[base + i]) : 0.0f;
            b3[i] += base + i < up.rank ? db * mx_float(u[gate.wide + base + i]) : 0.0f;
            a2[i] += base + i < down.rank ? h * mx_float(w[base + i]) : 0.0f;
        }
    }
#pragma unroll
    for (int i = 0; i < RANKS; i++) {
        int r = base + i;

        if (r < gate.rank && gate.db) {
            gate.db[(expert * v.inner + column) * gate.rank + r] += gate.scale * b1[i];
        }
        if (r < up.rank && up.db) {
            up.db[(expert * v.inner + column) * up.rank + r] += up.scale * b3[i];
        }
        if (r < down.rank && down.da) {
            down.da[(expert * down.rank + r) * v.inner + column] += a2[i];
        }
    }
    if (base == 0 && gate.c && gate.dc) {
        gate.dc[expert * v.inner + column] += c1;
    }
    if (base == 0 && up.c && up.dc) {
        up.dc[expert * v.inner + column] += c3;
    }
}

/* ------------------------------------------------------------------ */
template <class T> static void forward(mx_experts_work *w) {
    dim3 grid((unsigned)w->v.tokens, mx_blocks(w->v.inner, STRIP));

    mx_launch(w->c, "experts, plain", plain_forward_kernel<T>, grid, dim3(STRIP), 0, w->v);
}

template <class T> static void backward(mx_experts_work *w) {
    unsigned strips = mx_blocks(w->v.inner, STRIP);
    int most = 1;

    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        most = w->v.term[i].rank > most ? w->v.term[i].rank : most;
    }
    mx_launch(w->c, "experts backward, plain", plain_backward_kernel<T>, dim3((unsigned)w->v.tokens, strips), dim3(STRIP), 0, w->v);
    mx_launch(w->c, "experts' factors, plain", plain_factors_kernel<T>,
              dim3(strips, (unsigned)w->v.experts, mx_blocks(most, RANKS)), dim3(STRIP), 0, w->v);
}

void mx_experts_plain_forward(mx_experts_work *w) {
    w->act == MX_BF16 ? forward<mx_bf16>(w) : forward<float>(w);
}
void mx_experts_plain_backward(mx_experts_work *w) {
    w->act == MX_BF16 ? backward<mx_bf16>(w) : backward<float>(w);
}
