/* experts_avx512.c - the routed block's element loops for bf16, sixteen at a time.
 *
 * The compiler's own vectors of the loops in experts_rows.c, which are the definition, are five times slower: they
 * divide, round to bf16 in integers and keep to half registers. Here 1/(1 + e^-a) is an estimate of 14 bits and one
 * Newton step (about 2^-23), and rounding is one instruction (which takes denormals for zero). */
#include "kernels/cpu/experts_avx512.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
#define INLINE AVX512 static inline __attribute__((always_inline))

enum { LANES = 16 };

INLINE __m512 widened(const void *row, int64_t j, __mmask16 on) {
    __m256i v = _mm256_maskz_loadu_epi16(on, (const uint16_t *)row + j);

    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

INLINE void store(void *row, int64_t j, __m512 v, __mmask16 on) {
    _mm256_mask_storeu_epi16((uint16_t *)row + j, on, (__m256i)_mm512_cvtneps_pbh(v));
}

/* 1 / (1 + exp(-a)). Cephes' polynomial; arguments are cut where the result is 0 or 1 to f32 anyway. */
INLINE __m512 sigmoid(__m512 a) {
    const __m512 limit = _mm512_set1_ps(87.0f), one = _mm512_set1_ps(1.0f);
    __m512 x = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), limit), _mm512_sub_ps(_mm512_setzero_ps(), a));
    __m512 n, r, p, d, y;

    x = _mm512_min_ps(limit, x); /* the second operand comes back when it is a NaN */
    n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 8);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, one));
    d = _mm512_add_ps(one, _mm512_scalef_ps(p, n));
    y = _mm512_rcp14_ps(d);
    return _mm512_mul_ps(y, _mm512_fnmadd_ps(d, y, _mm512_set1_ps(2.0f)));
}

/* c . v + bias, each where there is one */
INLINE __m512 adorn(__m512 v, const float *c, const float *bias, int64_t j, __mmask16 on) {
    if (c) {
        v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(on, c + j));
    }
    return bias ? _mm512_add_ps(v, _mm512_maskz_loadu_ps(on, bias + j)) : v;
}

INLINE __m512 kept(const mx_expert_rows *e, int64_t i, int64_t j) {
    return _mm512_maskz_mov_ps((__mmask16)(*e->mask[i] >> j), _mm512_set1_ps(e->keep));
}

INLINE __m512 add_to(float *row, int64_t j, __m512 v, __mmask16 on) {
    v = _mm512_add_ps(_mm512_maskz_loadu_ps(on, row + j), v);
    _mm512_mask_storeu_ps(row + j, on, v);
    return v;
}

INLINE __mmask16 lanes(int64_t left) {
    return left >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
}

/* Rows of a strip lie a row of I apart: no prefetcher of the processor follows them. */
INLINE void fetch_next(const mx_expert_rows *e, int64_t i, bool back) {
    const mx_expert_rows *n = e->next;

    if (n && i < n->count) {
        _mm_prefetch((const char *)n->gate[i], _MM_HINT_T1);
        _mm_prefetch((const char *)n->gate[i] + 64, _MM_HINT_T1);
        _mm_prefetch((const char *)n->up[i], _MM_HINT_T1);
        _mm_prefetch((const char *)n->up[i] + 64, _MM_HINT_T1);
        if (back) {
            _mm_prefetch((const char *)n->g[i], _MM_HINT_T1);
            _mm_prefetch((const char *)n->g[i] + 64, _MM_HINT_T1);
        }
    }
}

INLINE void forward(const mx_expert_rows *e, int64_t width, bool adorned, bool dropped) {
    for (int64_t i = 0; i < e->count; i++) {
        const float *p1 = e->p1 + i * MX_TILE_COLUMNS, *p3 = e->p3 + i * MX_TILE_COLUMNS;
        uint16_t *h_row = (uint16_t *)e->h + i * MX_TILE_COLUMNS;
        __m512 weight = _mm512_set1_ps(e->weight[i]);

        fetch_next(e, i, false);
        for (int64_t j = 0; j < width; j += LANES) {
            __mmask16 on = lanes(width - j);
            __m512 a = _mm512_add_ps(widened(e->gate[i], j, on), _mm512_loadu_ps(p1 + j));
            __m512 b = _mm512_add_ps(widened(e->up[i], j, on), _mm512_loadu_ps(p3 + j)), h;

            if (adorned) {
                a = adorn(a, e->c1, e->bias1, j, on);
                b = adorn(b, e->c3, e->bias3, j, on);
            }
            h = _mm512_mul_ps(_mm512_mul_ps(a, sigmoid(a)), b);
            add_to(e->sum[i], j, _mm512_mul_ps(weight, h), on);
            store(h_row, j, dropped ? _mm512_mul_ps(h, kept(e, i, j)) : h, on);
        }
    }
}

INLINE void backward(const mx_expert_rows *e, int64_t width, bool adorned, bool dropped) {
    const __m512 one = _mm512_set1_ps(1.0f);

    for (int64_t i = 0; i < e->count; i++) {
        int64_t row = i * MX_TILE_COLUMNS;
        uint16_t *h_row = (uint16_t *)e->h + row, *da_row = (uint16_t *)e->da + row, *db_row = (uint16_t *)e->db + row;
        __m512 weight = _mm512_set1_ps(e->weight[i]), dot = _mm512_setzero_ps();

        fetch_next(e, i, true);
        for (int64_t j = 0; j < width; j += LANES) {
            __mmask16 on = lanes(width - j);
            __m512 a0 = _mm512_add_ps(widened(e->gate[i], j, on), _mm512_loadu_ps(e->p1 + row + j)), a = a0;
            __m512 b0 = _mm512_add_ps(widened(e->up[i], j, on), _mm512_loadu_ps(e->p3 + row + j)), b = b0;
            __m512 g = widened(e->g[i], j, on), d = _mm512_loadu_ps(e->d + row + j), q, silu, h, dh, da, db;

            if (adorned) {
                a = adorn(a0, e->c1, e->bias1, j, on);
                b = adorn(b0, e->c3, e->bias3, j, on);
            }
            q = sigmoid(a);
            silu = _mm512_mul_ps(a, q);
            h = _mm512_mul_ps(silu, b);
            dot = _mm512_mask3_fmadd_ps(g, h, dot, on);
            if (dropped) {
                __m512 mask = kept(e, i, j);

                d = _mm512_mul_ps(d, mask);
                h = _mm512_mul_ps(h, mask);
            }
            dh = _mm512_fmadd_ps(weight, g, d);
            da = _mm512_mul_ps(_mm512_mul_ps(dh, b), _mm512_fmadd_ps(silu, _mm512_sub_ps(one, q), q));
            db = _mm512_mul_ps(dh, silu);
            if (adorned) {
                if (e->dc1) {
                    add_to(e->dc1, j, _mm512_mul_ps(da, a0), on);
                }
                if (e->dc3) {
                    add_to(e->dc3, j, _mm512_mul_ps(db, b0), on);
                }
                da = adorn(da, e->c1, NULL, j, on);
                db = adorn(db, e->c3, NULL, j, on);
            }
            add_to(e->dgate_sum[i], j, da, on);
            add_to(e->dup_sum[i], j, db, on);
            store(da_row, j, da, on);
            store(db_row, j, db, on);
            store(h_row, j, h, on);
        }
        e->dot[i] = _mm512_reduce_add_ps(dot);
    }
}

static bool is_adorned(const mx_expert_rows *e) {
    return e->c1 || e->c3 || e->bias1 || e->bias3;
}

AVX512 void mx_expert_rows_forward_avx512(const mx_expert_rows *e) {
    if (e->width != MX_TILE_COLUMNS || is_adorned(e)) {
        forward(e, e->width, true, e->keep > 0);
    } else if (e->keep > 0) {
        forward(e, MX_TILE_COLUMNS, false, true);
    } else {
        forward(e, MX_TILE_COLUMNS, false, false);
    }
}

AVX512 void mx_expert_rows_backward_avx512(const mx_expert_rows *e) {
    if (e->width != MX_TILE_COLUMNS || is_adorned(e)) {
        backward(e, e->width, true, e->keep > 0);
    } else if (e->keep > 0) {
        backward(e, MX_TILE_COLUMNS, false, true);
    } else {
        backward(e, MX_TILE_COLUMNS, false, false);
    }
}

AVX512 void mx_expert_strip_store_avx512(uint16_t *to, int64_t ld, const float *from, int64_t rows, int64_t width) {
    enum { AHEAD = 8 };

    for (int64_t t = 0; t < rows; t++) {
        if (t + AHEAD < rows) {
            __builtin_prefetch(to + (t + AHEAD) * ld, 1);
            __builtin_prefetch(to + (t + AHEAD) * ld + 32, 1);
        }
        for (int64_t j = 0; j < width; j += LANES) {
            store(to + t * ld, j, _mm512_loadu_ps(from + t * MX_TILE_COLUMNS + j), lanes(width - j));
        }
    }
}

#else

void mx_expert_rows_forward_avx512(const mx_expert_rows *e) {
    (void)e;
    assert(!"no such instruction");
}
void mx_expert_rows_backward_avx512(const mx_expert_rows *e) {
    mx_expert_rows_forward_avx512(e);
}
void mx_expert_strip_store_avx512(uint16_t *to, int64_t ld, const float *from, int64_t rows, int64_t width) {
    (void)to, (void)ld, (void)from, (void)rows, (void)width;
    assert(!"no such instruction");
}

#endif
