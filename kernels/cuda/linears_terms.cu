/* linears_terms.cu - the thin parts of linears: A's stacked, B's placed, u and p made, and what of their gradients is no product.
 * Each kernel serves up to MX_TERMS_AT_ONCE terms: launches would cost more than the work. */
#include "kernels/cuda/linears.h"

enum { THREADS = 256 };

int64_t mx_linears_column(const mx_linears *l, int64_t j) {
    int64_t column = 0;

    for (int64_t i = 0; i < j; i++) {
        column += mx_linear_rank(&l->linear[i]);
    }
    return column;
}

mx_term mx_linears_term(const mx_linears *l, int64_t j, int64_t i) {
    const mx_low_rank *from = &l->linear[j].term[i];
    mx_term t = {};

    for (int64_t k = 0; k < i; k++) {
        t.own += (int32_t)l->linear[j].term[k].rank;
    }
    t.column = mx_linears_column(l, j) + t.own;
    t.a = from->a;
    t.b = from->b;
    t.rank_scale = from->rank_scale;
    t.out_scale = from->out_scale;
    t.row_weight = from->row_weight;
    t.da = from->da;
    t.db = from->db;
    t.drank_scale = from->drank_scale;
    t.dout_scale = from->dout_scale;
    t.drow_weight = from->drow_weight;
    t.begin = from->begin;
    t.end = from->end < 0 ? l->rows->rows : from->end;
    t.out = l->linear[j].out;
    t.in = l->in;
    t.rank = t.width = from->rank;
    t.scale = from->scale;
    return t;
}

/* Calls with the terms of linears [first, last) in lists. The last term is widened, so that all of them fill `width` columns. */
template <class F> static void each_list(const mx_linears *l, int64_t first, int64_t last, int64_t width, F call) {
    int64_t before = mx_linears_column(l, first), ranks = mx_linears_column(l, last) - before, seen = 0;
    mx_terms list = {};

    for (int64_t j = first; j < last; j++) {
        for (int64_t i = 0; i < l->linear[j].terms; i++) {
            mx_term t = mx_linears_term(l, j, i);

            if (t.rank == 0) {
                continue;
            }
            seen += t.rank;
            t.width += seen == ranks ? width - ranks : 0;
            list.term[list.count++] = t;
            if (list.count == MX_TERMS_AT_ONCE || seen == ranks) {
                call(list);
                list.count = 0;
            }
        }
    }
}

static int64_t widest(const mx_terms &list) {
    int64_t most = 0;

    for (int i = 0; i < list.count; i++) {
        most = list.term[i].width > most ? list.term[i].width : most;
    }
    return most;
}

/* ------------------------------------------------------------------ A and B */

/* blockIdx.y: the term. */
template <class T> static __global__ void stack_kernel(T *to, int64_t ld, mx_terms list, unsigned chunks, bool wide_to, bool wide_from) {
    const mx_term &t = list.term[blockIdx.y];
    int64_t row = mx_plane_row(chunks), column = mx_plane_column(chunks), left = t.in - column;
    float v[8] = {};

    if (row < t.width && left > 0) {
        if (row < t.rank) {
            mx_load8(v, t.a + row * t.in + column, left, wide_from);
        }
        mx_store8(to + (t.column + row) * ld + column, v, left, wide_to);
    }
}

template <class T> static void stack(mx_cuda *c, const mx_linears *l, T *to, int64_t ld) {
    each_list(l, 0, l->linears, mx_linears_width(l), [&](const mx_terms &list) {
        mx_plane p = mx_plane_of(widest(list), l->in);
        bool wide = true;

        for (int i = 0; i < list.count; i++) {
            wide = wide && mx_wide(list.term[i].a, l->in);
        }
        p.grid.y = (unsigned)list.count;
        mx_launch(c, "stack A", stack_kernel<T>, p.grid, p.block, 0, to, ld, list, p.chunks, mx_wide(to, ld), wide);
    });
}

void mx_terms_stack(mx_cuda *c, const mx_linears *l, void *to, int64_t ld) {
    if (mx_cuda_bf16(c)) {
        stack(c, l, static_cast<mx_bf16 *>(to), ld);
    } else {
        stack(c, l, static_cast<float *>(to), ld);
    }
}

template <class T> static __global__ void fill_b_kernel(mx_terms list) {
    const mx_term &t = list.term[blockIdx.y];
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, o = i / t.width, r = i % t.width;

    if (o < t.out) {
        float v = r < t.rank ? t.b[o * t.rank + r] : 0.0f;

        static_cast<T *>(t.b_to)[o * t.b_ld + t.own + r] = mx_rounded<T>(t.out_scale ? t.out_scale[o] * v : v);
    }
}

void mx_terms_fill_b(mx_cuda *c, const mx_terms *list) {
    int64_t most = 0;

    for (int i = 0; i < list->count; i++) {
        most = list->term[i].out * list->term[i].width > most ? list->term[i].out * list->term[i].width : most;
    }
    dim3 grid(mx_blocks(most, THREADS), (unsigned)list->count);

    if (mx_cuda_bf16(c)) {
        mx_launch(c, "place B", fill_b_kernel<mx_bf16>, grid, dim3(THREADS), 0, *list);
    } else {
        mx_launch(c, "place B", fill_b_kernel<float>, grid, dim3(THREADS), 0, *list);
    }
}

/* ------------------------------------------------------------------ u and p */

MX_DEVICE float row_scale(const mx_term &t, int64_t row) {
    return t.scale * (t.row_weight ? t.row_weight[row] : 1.0f);
}
MX_DEVICE float rank_scale(const mx_term &t, int64_t r) {
    return t.rank_scale ? t.rank_scale[r] : 1.0f;
}

/* u of one linear: its terms' columns from `own` on. */
template <class T>
static __global__ void u_kernel(T *u, int64_t u_ld, const T *q, int64_t q_ld, int64_t rows, mx_terms list) {
    const mx_term &t = list.term[blockIdx.y];
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = i / t.width, r = i % t.width;

    if (row < rows) {
        bool inside = r < t.rank && row >= t.begin && row < t.end;
        float v = inside ? row_scale(t, row) * rank_scale(t, r) * mx_float(q[row * q_ld + t.column + r]) : 0.0f;

        u[row * u_ld + t.own + r] = mx_rounded<T>(v);
    }
}

template <class T> static void make_u(mx_cuda *c, const mx_linears *l, int64_t j, T *to, int64_t to_ld, const T *q) {
    int64_t rows = l->rows->rows;

    each_list(l, j, j + 1, mx_up(mx_linear_rank(&l->linear[j]), 8), [&](const mx_terms &list) {
        mx_launch(c, "u", u_kernel<T>, dim3(mx_blocks(rows * widest(list), THREADS), (unsigned)list.count), dim3(THREADS), 0, to, to_ld, q,
                  mx_linears_width(l), rows, list);
    });
}

void mx_terms_u(mx_cuda *c, const mx_linears *l, int64_t j, void *to, int64_t to_ld, const void *q) {
    if (mx_cuda_bf16(c)) {
        make_u(c, l, j, static_cast<mx_bf16 *>(to), to_ld, static_cast<const mx_bf16 *>(q));
    } else {
        make_u(c, l, j, static_cast<float *>(to), to_ld, static_cast<const float *>(q));
    }
}

/* Both for backward: u = s w d q again, p = s w d v / (1 - rate). */
template <class T>
static __global__ void u_and_p_kernel(T *u, T *p, int64_t p_ld, const T *q, const float *v, int64_t width, int64_t rows, float kept,
                                      mx_terms list) {
    const mx_term &t = list.term[blockIdx.y];
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = i / t.width, r = i % t.width, column = t.column + r;

    if (row < rows) {
        bool inside = r < t.rank && row >= t.begin && row < t.end;
        float scale = inside ? row_scale(t, row) : 0.0f, d = inside ? rank_scale(t, r) : 0.0f;

        u[row * width + column] = mx_rounded<T>(inside ? scale * d * mx_float(q[row * width + column]) : 0.0f);
        p[row * p_ld + column] = mx_rounded<T>(inside ? kept * scale * d * v[row * width + column] : 0.0f);
    }
}

template <class T> static void make_u_and_p(mx_cuda *c, const mx_linears *l, T *u, T *p, int64_t p_ld, const T *q, const float *v) {
    int64_t rows = l->rows->rows, width = mx_linears_width(l);

    each_list(l, 0, l->linears, width, [&](const mx_terms &list) {
        mx_launch(c, "u and p", u_and_p_kernel<T>, dim3(mx_blocks(rows * widest(list), THREADS), (unsigned)list.count), dim3(THREADS), 0, u,
                  p, p_ld, q, v, width, rows, mx_linears_kept(l), list);
    });
}

void mx_terms_u_and_p(mx_cuda *c, const mx_linears *l, void *u, void *p, int64_t p_ld, const void *q, const float *v) {
    if (mx_cuda_bf16(c)) {
        make_u_and_p(c, l, static_cast<mx_bf16 *>(u), static_cast<mx_bf16 *>(p), p_ld, static_cast<const mx_bf16 *>(q), v);
    } else {
        make_u_and_p(c, l, static_cast<float *>(u), static_cast<float *>(p), p_ld, static_cast<const float *>(q), v);
    }
}

/* ------------------------------------------------------------------ gradients of d and w */

/* dd[r] += s sum_t w[t] q[t,r] v[t,r]: a block for each rank. */
template <class T> static __global__ void rank_gradient_kernel(const T *q, const float *v, int64_t width, int64_t live, mx_terms list) {
    const mx_term &t = list.term[blockIdx.y];
    __shared__ float shared[32];
    int64_t r = blockIdx.x, end = t.end < live ? t.end : live;
    float sum = 0;

    if (r < t.rank && t.drank_scale) { /* the whole block */
        for (int64_t row = t.begin + threadIdx.x; row < end; row += THREADS) {
            int64_t at = row * width + t.column + r;

            sum += row_scale(t, row) * mx_float(q[at]) * v[at];
        }
        sum = mx_block_sum(sum, shared);
        if (threadIdx.x == 0) {
            t.drank_scale[r] += sum;
        }
    }
}

/* dw[t] += s sum_r d[r] q[t,r] v[t,r]: a warp for each row. */
template <class T> static __global__ void row_gradient_kernel(const T *q, const float *v, int64_t width, int64_t live, mx_terms list) {
    const mx_term &t = list.term[blockIdx.y];
    int64_t row = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32, end = t.end < live ? t.end : live;
    float sum = 0;

    if (t.drow_weight && row >= t.begin && row < end) { /* the whole warp */
        for (int64_t r = threadIdx.x % 32; r < t.rank; r += 32) {
            int64_t at = row * width + t.column + r;

            sum += rank_scale(t, r) * mx_float(q[at]) * v[at];
        }
        sum = mx_warp_sum(sum);
        if (threadIdx.x % 32 == 0) {
            t.drow_weight[row] += t.scale * sum;
        }
    }
}

template <class T> static void vector_gradients(mx_cuda *c, const mx_linears *l, const T *q, const float *v) {
    int64_t live = l->rows->live, width = mx_linears_width(l);

    each_list(l, 0, l->linears, mx_linears_rank(l), [&](const mx_terms &list) {
        bool ranks = false, rows = false;

        for (int i = 0; i < list.count; i++) {
            ranks = ranks || list.term[i].drank_scale;
            rows = rows || list.term[i].drow_weight;
        }
        if (ranks) {
            mx_launch(c, "dd", rank_gradient_kernel<T>, dim3((unsigned)widest(list), (unsigned)list.count), dim3(THREADS), 0, q, v, width,
                      live, list);
        }
        if (rows) {
            mx_launch(c, "dw", row_gradient_kernel<T>, dim3(mx_blocks(live, THREADS / 32), (unsigned)list.count), dim3(THREADS), 0, q, v,
                      width, live, list);
        }
    });
}

void mx_terms_vector_gradients(mx_cuda *c, const mx_linears *l, const void *q, const float *v) {
    if (mx_cuda_bf16(c)) {
        vector_gradients(c, l, static_cast<const mx_bf16 *>(q), v);
    } else {
        vector_gradients(c, l, static_cast<const float *>(q), v);
    }
}

/* ------------------------------------------------------------------ gradients of A and B */

static __global__ void add_da_kernel(const float *g, mx_terms list) {
    const mx_term &t = list.term[blockIdx.y];
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (t.da && i < t.rank * t.in) {
        t.da[i] += g[t.column * t.in + i];
    }
}

void mx_terms_add_da(mx_cuda *c, const mx_linears *l, const float *g) {
    each_list(l, 0, l->linears, mx_linears_rank(l), [&](const mx_terms &list) {
        mx_launch(c, "dA", add_da_kernel, dim3(mx_blocks(widest(list) * l->in, THREADS), (unsigned)list.count), dim3(THREADS), 0, g, list);
    });
}

/* dB[o,r] += e[o] G[o,r], de[o] += sum_r B[o,r] G[o,r]: a warp for each row of B. */
static __global__ void add_db_kernel(const float *g, int64_t ld, mx_terms list) {
    const mx_term &t = list.term[blockIdx.y];
    int64_t o = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    float along = 0;

    if (o < t.out) { /* the whole warp */
        float e = t.out_scale ? t.out_scale[o] : 1.0f;

        for (int64_t r = threadIdx.x % 32; r < t.rank; r += 32) {
            float v = g[o * ld + t.own + r];

            along += t.b[o * t.rank + r] * v;
            if (t.db) {
                t.db[o * t.rank + r] += e * v;
            }
        }
        along = mx_warp_sum(along);
        if (t.dout_scale && threadIdx.x % 32 == 0) {
            t.dout_scale[o] += along;
        }
    }
}

void mx_terms_add_db(mx_cuda *c, const mx_linears *l, int64_t j, const float *g) {
    int64_t ld = mx_up(mx_linear_rank(&l->linear[j]), 8);

    each_list(l, j, j + 1, mx_linear_rank(&l->linear[j]), [&](const mx_terms &list) {
        mx_launch(c, "dB", add_db_kernel, dim3(mx_blocks(l->linear[j].out, THREADS / 32), (unsigned)list.count), dim3(THREADS), 0, g, ld,
                  list);
    });
}
