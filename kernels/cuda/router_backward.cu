/* router_backward.cu - the gradient of the logits, from gates, passed tokens and the router's own losses, and from it that of
 * the input and of the router's weight. */
#include "kernels/cuda/router.h"

/* In bf16 the gradient of the logits stands in pieces side by side, (T, 4 padded E): high, high, middle, low. The last three
 * times x are dw's sums over rows. The first three, against w's pieces middle, high, high, are dx: what is left out of that
 * product is 2^-16 of it, and dx is rounded to 2^-9. */
enum { SHARES = 4 };

struct work {
    float *dlogits, *dlosses;         /* f32: (T, E) */
    mx_bf16 *dlogits_of, *dlosses_of; /* bf16: (T, 4 padded E) */
    mx_bf16 *pieces;                  /* (3 padded E, C) of w */
    float *sums;                      /* (3 padded E, C) */
};

/* losses: whether their part is wanted by itself. */
static work take(mx_cuda_scratch *s, const mx_router *r, bool bf16, bool losses) {
    int64_t t = r->rows->rows, padded = mx_router_padded(r->experts), width = r->x.dim[1];
    work w = {};

    if (bf16) {
        w.dlogits_of = mx_cuda_take_of<mx_bf16>(s, t * SHARES * padded);
        w.dlosses_of = losses ? mx_cuda_take_of<mx_bf16>(s, t * SHARES * padded) : NULL;
        w.pieces = mx_cuda_take_of<mx_bf16>(s, 3 * padded * width);
        w.sums = mx_cuda_take_of<float>(s, 3 * padded * width);
    } else {
        w.dlogits = mx_cuda_take_of<float>(s, t * r->experts);
        w.dlosses = losses ? mx_cuda_take_of<float>(s, t * r->experts) : NULL;
    }
    return w;
}

size_t mx_cuda_router_backward_bytes(const mx_backend *q, const mx_router *r) {
    mx_cuda_scratch s = {};

    take(&s, r, mx_cuda_bf16(mx_cuda_of(q)), r->dw_losses != NULL);
    return s.most;
}

/* ------------------------------------------------------------------ the logits' gradient */
struct gradient {
    mx_routing routing;
    int64_t rows, live, experts, slots, padded;
    double temperature;
    const float *logits, *prob, *gate, *dgate, *dpassed;
    const int32_t *chosen;
    const double *sum_chosen; /* NULL: no losses */
    double balance, z;        /* share balance_coef E / rows_all^2, 2 share z_coef / rows_all */
    work to;
};

/* Renormalised top-k: the softmax's denominator cancels, so only chosen experts' logits get a gradient:
 * dz_k = w_k (dw_k - sum_j w_j dw_j) (MixLoRA's router is a softmax over the chosen). */
MX_DEVICE void top_k_gradient(const gradient &r, int64_t t, float *dz, int lane) {
    const int32_t *chosen = r.chosen + t * r.slots;
    const float *gate = r.gate + t * r.slots, *dgate = r.dgate + t * r.slots;
    double mean = 0;

    for (int64_t k = lane; k < r.slots; k += 32) {
        mean += (double)gate[k] * dgate[k];
    }
    mean = mx_warp_sum(mean);
    for (int64_t k = lane; k < r.slots; k += 32) {
        dz[chosen[k]] = (float)(gate[k] * (dgate[k] - mean));
    }
}

/* Gates that are probabilities as they are, or divided by a temperature: dz = p . (dp - sum p dp). */
MX_DEVICE void top_p_gradient(const gradient &r, int64_t t, float *dz, int lane) {
    const float *p = r.prob + t * r.experts, *dgate = r.dgate + t * r.slots;
    const int32_t *chosen = r.chosen + t * r.slots;
    double mean = 0;

    for (int64_t k = lane; k < r.slots; k += 32) {
        mean += chosen[k] >= 0 ? p[chosen[k]] * (dgate[k] / r.temperature) : 0;
    }
    mean = mx_warp_sum(mean);
    for (int64_t e = lane; e < r.experts; e += 32) {
        dz[e] = (float)(p[e] * -mean);
    }
    __syncwarp();
    for (int64_t k = lane; k < r.slots; k += 32) {
        if (chosen[k] >= 0) {
            dz[chosen[k]] = (float)(p[chosen[k]] * (dgate[k] / r.temperature - mean));
        }
    }
}

/* The same for the one expert that switch wanted, whether it got the token or let it pass. */
MX_DEVICE void switch_gradient(const gradient &r, int64_t t, float *dz, int best, int lane) {
    const float *p = r.prob + t * r.experts;
    double dp = r.chosen[t] >= 0 ? r.dgate[t] : r.dpassed ? r.dpassed[t] : 0, mean = p[best] * dp;

    for (int64_t e = lane; e < r.experts; e += 32) {
        dz[e] = (float)(p[e] * ((e == best ? dp : 0) - mean));
    }
}

/* What d/dz of  share (balance_coef E sum F_i P_i + z_coef mean lse^2),  F constant, needs of the whole row. */
struct losses_row {
    double mean, lse;
};
MX_DEVICE losses_row losses_of(const gradient &r, int64_t t, const float *z, int best, int lane) {
    const float *p = r.prob + t * r.experts;
    losses_row l = { 0, 0 };

    for (int64_t e = lane; e < r.experts; e += 32) {
        l.mean += p[e] * r.sum_chosen[e];
    }
    l.mean = mx_warp_sum(l.mean);
    l.lse = z[best] - log((double)p[best]); /* p of the largest is at least 1/E: well conditioned */
    return l;
}

MX_DEVICE void put_pieces(mx_bf16 *to, int64_t padded, int64_t e, float v) {
    mx_bf16 piece[3];

    mx_router_pieces(v, piece);
    to[e] = piece[0];
    to[padded + e] = piece[0];
    to[2 * padded + e] = piece[1];
    to[3 * padded + e] = piece[2];
}
/* Values of the padding, of experts and of rows, are zero. */
MX_DEVICE void put(const gradient &r, int64_t t, int64_t e, float v, float of_losses) {
    if (r.to.dlogits_of) {
        put_pieces(r.to.dlogits_of + t * SHARES * r.padded, r.padded, e, v);
        if (r.to.dlosses_of) {
            put_pieces(r.to.dlosses_of + t * SHARES * r.padded, r.padded, e, of_losses);
        }
    } else if (e < r.experts) {
        r.to.dlogits[t * r.experts + e] = v;
        if (r.to.dlosses) {
            r.to.dlosses[t * r.experts + e] = of_losses;
        }
    }
}

/* A warp to a row. */
static __global__ void gradient_kernel(gradient r) {
    MX_DYNAMIC_SHARED(float, shared); /* (warps, E) twice: the row's gradient, its logits */
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32, best;
    int64_t t = (int64_t)blockIdx.x * warps + warp;
    float *dz = shared + warp * r.experts, *z = shared + (warps + warp) * r.experts;
    losses_row l = { 0, 0 };

    if (t >= r.rows) {
        return;
    }
    for (int64_t e = lane; e < r.experts; e += 32) {
        dz[e] = 0;
        z[e] = t < r.live ? r.logits[t * r.experts + e] : 0;
    }
    __syncwarp();
    best = mx_router_best(z, NULL, r.experts);
    if (t < r.live && r.dgate) {
        if (r.routing == MX_ROUTE_TOP_K) {
            top_k_gradient(r, t, dz, lane);
        } else if (r.routing == MX_ROUTE_TOP_P) {
            top_p_gradient(r, t, dz, lane);
        } else {
            switch_gradient(r, t, dz, best, lane);
        }
    }
    if (t < r.live && r.sum_chosen) {
        l = losses_of(r, t, z, best, lane);
    }
    __syncwarp();
    for (int64_t e = lane; e < r.padded; e += 32) {
        bool there = t < r.live && e < r.experts;
        double losses = there && r.sum_chosen ? r.prob[t * r.experts + e] * (r.balance * (r.sum_chosen[e] - l.mean) + r.z * l.lse) : 0;

        put(r, t, e, there ? dz[e] + (float)losses : 0, (float)losses);
    }
}

static void logits_gradient(mx_cuda *c, const mx_router *r, const work &w) {
    size_t bytes = 2 * sizeof(float) * (size_t)r->experts;
    unsigned warps = mx_router_warps(bytes);
    gradient v = {};

    v.routing = r->routing;
    v.rows = r->rows->rows;
    v.live = r->rows->live;
    v.experts = r->experts;
    v.slots = r->slots;
    v.padded = mx_router_padded(r->experts);
    v.temperature = r->temperature > 0 ? r->temperature : 1.0;
    v.logits = r->logits;
    v.prob = r->prob;
    v.gate = r->gate;
    v.dgate = r->dgate;
    v.dpassed = r->dpassed;
    v.chosen = r->chosen;
    v.sum_chosen = r->balance_coef != 0 || r->z_coef != 0 ? r->sums.chosen : NULL;
    v.balance = r->share * r->balance_coef * (double)r->experts / (r->rows_all * r->rows_all);
    v.z = r->share * r->z_coef * 2 / r->rows_all;
    v.to = w;
    mx_launch(c, "router: gradient", gradient_kernel, dim3(mx_blocks(v.rows, warps)), dim3(32 * warps), bytes * warps, v);
}

/* ------------------------------------------------------------------ products */
/* dw (E, C) += the three sums, the smallest first. */
static __global__ void add_sums_kernel(float *dw, const float *sums, int64_t values, int64_t stride) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < values) {
        dw[i] += (sums[2 * stride + i] + sums[stride + i]) + sums[i];
    }
}

static void weight_gradient(mx_cuda *c, const mx_router *r, const work &w, float *dw, const float *plain, const mx_bf16 *pieces) {
    int64_t padded = mx_router_padded(r->experts), width = r->x.dim[1], live = r->rows->live;

    if (plain) {
        mx_cuda_gemm(c, r->experts, width, live, mx_matrix_transposed(plain, MX_F32, r->experts), mx_matrix_of(r->x.data, MX_F32, width),
                     mx_matrix_of(dw, MX_F32, width), 1.0f, true);
        return;
    }
    mx_cuda_gemm(c, 3 * padded, width, live, mx_matrix_transposed(pieces + padded, MX_BF16, SHARES * padded),
                 mx_matrix_of(r->x.data, MX_BF16, width), mx_matrix_of(w.sums, MX_F32, width), 1.0f, false);
    mx_launch(c, "router: dw", add_sums_kernel, dim3(mx_blocks(r->experts * width, 256)), dim3(256), 0, dw, w.sums, r->experts * width,
              padded * width);
}

static void input_gradient(mx_cuda *c, const mx_router *r, const work &w) {
    int64_t rows = r->rows->rows, padded = mx_router_padded(r->experts), width = r->x.dim[1];

    if (w.dlogits) {
        mx_cuda_gemm(c, rows, width, r->experts, mx_matrix_of(w.dlogits, MX_F32, r->experts), mx_matrix_of(r->w, MX_F32, width),
                     mx_matrix_of(r->dx.data, MX_F32, width), 1.0f, true);
        return;
    }
    mx_cuda_router_split(c, w.pieces, r->w, r->experts, width, mx_router_order{ { 1, 0, 0 } });
    mx_cuda_gemm(c, rows, width, 3 * padded, mx_matrix_of(w.dlogits_of, MX_BF16, SHARES * padded), mx_matrix_of(w.pieces, MX_BF16, width),
                 mx_matrix_of(r->dx.data, MX_BF16, width), 1.0f, true);
}

void mx_cuda_router_backward(mx_backend *q, const mx_router *r) {
    mx_cuda *c = mx_cuda_of(q);
    size_t mark = c->scratch.used;
    work w = take(&c->scratch, r, mx_cuda_bf16(c), r->dw_losses != NULL);

    assert(!r->dx.data || (r->dx.dim[1] == r->x.dim[1] && r->dx.dtype == r->x.dtype));
    logits_gradient(c, r, w);
    if (r->dx.data) {
        input_gradient(c, r, w);
    }
    if (r->dw) {
        weight_gradient(c, r, w, r->dw, w.dlogits, w.dlogits_of);
    }
    if (r->dw_losses) {
        weight_gradient(c, r, w, r->dw_losses, w.dlosses, w.dlosses_of);
    }
    mx_cuda_reset(&c->scratch, mark);
}
