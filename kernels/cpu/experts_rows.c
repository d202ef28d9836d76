/* experts_rows.c - the routed block's element loops in plain C: the definition of those in experts_avx512.c.
 *
 *   a = c1 . (G + s B1 u1) + bias1,   b = c3 . (U + s B3 u3) + bias3,   h = silu(a) * b
 *   da = dh b silu'(a),   db = dh silu(a),   silu'(a) = q + silu(a) (1 - q),   q = 1 / (1 + e^-a) */
#include "kernels/cpu/experts.h"

enum { COLUMNS = MX_TILE_COLUMNS };

#define INLINE static inline __attribute__((always_inline))

/* To about 1e-7 relative: exp(x) = 2^n exp(r), |r| <= ln 2 / 2, the polynomial of Cephes' expf. */
INLINE float quick_exp(float x) {
    const float round_to_integer = 12582912.0f; /* 1.5 * 2^23: adding it leaves n in the low bits */
    float y, n, r, p;
    uint32_t bits, scale;

    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    n = x * 1.44269504088896341f + round_to_integer;
    memcpy(&scale, &n, sizeof scale);
    n -= round_to_integer;
    r = x - n * 0.693359375f;
    r -= n * -2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    y = p * r * r + r + 1.0f;
    memcpy(&bits, &y, sizeof bits);
    bits += scale << 23;
    memcpy(&y, &bits, sizeof y);
    return y;
}

INLINE float load(const void *row, int64_t j, bool bf16) {
    return bf16 ? mx_bf16_widen(((const uint16_t *)row)[j]) : ((const float *)row)[j];
}
INLINE void store(void *row, int64_t j, float v, bool bf16) {
    if (bf16) {
        ((uint16_t *)row)[j] = mx_bf16_round(v);
    } else {
        ((float *)row)[j] = v;
    }
}
INLINE void *row_of(const void *block, int64_t i, bool bf16) {
    return (char *)block + (size_t)(i * COLUMNS) * (bf16 ? 2 : 4);
}
INLINE float kept(const uint64_t *mask, int64_t j, float keep) {
    uint32_t half = (uint32_t)(j < 32 ? *mask : *mask >> 32);

    return (float)((half >> (j & 31)) & 1u) * keep;
}

INLINE void forward_row(const mx_expert_rows *e, int64_t i, int64_t width, bool bf16, bool adorned, bool dropped) {
    const void *gate = e->gate[i], *up = e->up[i];
    const float *p1 = e->p1 + i * COLUMNS, *p3 = e->p3 + i * COLUMNS;
    void *h_row = row_of(e->h, i, bf16);
    float *sum = e->sum[i], weight = e->weight[i];

#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        float a = load(gate, j, bf16) + p1[j], b = load(up, j, bf16) + p3[j], h;

        if (adorned) {
            a = (e->c1 ? e->c1[j] * a : a) + (e->bias1 ? e->bias1[j] : 0);
            b = (e->c3 ? e->c3[j] * b : b) + (e->bias3 ? e->bias3[j] : 0);
        }
        h = a / (1.0f + quick_exp(-a)) * b;
        sum[j] += weight * h;
        store(h_row, j, dropped ? kept(e->mask[i], j, e->keep) * h : h, bf16);
    }
}

INLINE void backward_row(const mx_expert_rows *e, int64_t i, int64_t width, bool bf16, bool adorned, bool dropped) {
    const void *gate = e->gate[i], *up = e->up[i], *g_row = e->g[i];
    const float *p1 = e->p1 + i * COLUMNS, *p3 = e->p3 + i * COLUMNS, *d = e->d + i * COLUMNS;
    void *h_row = row_of(e->h, i, bf16), *da_row = row_of(e->da, i, bf16), *db_row = row_of(e->db, i, bf16);
    float *dgate = e->dgate_sum[i], *dup = e->dup_sum[i], weight = e->weight[i], dot = 0;

#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < width; j++) {
        float a0 = load(gate, j, bf16) + p1[j], b0 = load(up, j, bf16) + p3[j], a = a0, b = b0;
        float sigmoid, silu, h, g, dh, da, db, mask = 1;

        if (adorned) {
            a = (e->c1 ? e->c1[j] * a0 : a0) + (e->bias1 ? e->bias1[j] : 0);
            b = (e->c3 ? e->c3[j] * b0 : b0) + (e->bias3 ? e->bias3[j] : 0);
        }
        sigmoid = 1.0f / (1.0f + quick_exp(-a));
        silu = a * sigmoid;
        h = silu * b;
        g = load(g_row, j, bf16);
        dot += g * h;
        if (dropped) {
            mask = kept(e->mask[i], j, e->keep);
        }
        dh = weight * g + mask * d[j];
        da = dh * b * (sigmoid + silu * (1.0f - sigmoid));
        db = dh * silu;
        if (adorned) {
            if (e->dc1) {
                e->dc1[j] += da * a0;
            }
            if (e->dc3) {
                e->dc3[j] += db * b0;
            }
            da = e->c1 ? e->c1[j] * da : da;
            db = e->c3 ? e->c3[j] * db : db;
        }
        dgate[j] += da;
        dup[j] += db;
        store(da_row, j, da, bf16);
        store(db_row, j, db, bf16);
        store(h_row, j, mask * h, bf16);
    }
    e->dot[i] = dot;
}

INLINE void all_rows(const mx_expert_rows *e, bool backward, int64_t width, bool bf16, bool adorned, bool dropped) {
    for (int64_t i = 0; i < e->count; i++) {
        if (backward) {
            backward_row(e, i, width, bf16, adorned, dropped);
        } else {
            forward_row(e, i, width, bf16, adorned, dropped);
        }
    }
}

/* Whole strips of the common kinds get loops of their own, in which every condition is settled. */
INLINE void rows_of_kind(const mx_expert_rows *e, bool backward, bool bf16) {
    bool adorned = e->c1 || e->c3 || e->bias1 || e->bias3, dropped = e->keep > 0;

    if (e->width != COLUMNS) {
        all_rows(e, backward, e->width, bf16, true, dropped);
    } else if (adorned) {
        all_rows(e, backward, COLUMNS, bf16, true, dropped);
    } else if (dropped) {
        all_rows(e, backward, COLUMNS, bf16, false, true);
    } else {
        all_rows(e, backward, COLUMNS, bf16, false, false);
    }
}

MX_CLONES void mx_expert_rows_forward_f32(const mx_expert_rows *e) {
    rows_of_kind(e, false, false);
}
MX_CLONES void mx_expert_rows_forward_bf16(const mx_expert_rows *e) {
    rows_of_kind(e, false, true);
}
MX_CLONES void mx_expert_rows_backward_f32(const mx_expert_rows *e) {
    rows_of_kind(e, true, false);
}
MX_CLONES void mx_expert_rows_backward_bf16(const mx_expert_rows *e) {
    rows_of_kind(e, true, true);
}
