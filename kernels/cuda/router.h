/* router.h - what the router's files share: its factors in pieces, and looking for the likeliest expert.
 *
 * Its products are few columns wide, so they are GEMMs like all others, and the rest is done by a warp to a row. In f32 the
 * factors are what they are. In bf16, x is exact already and an f32 factor enters as three bf16 pieces, high, middle and low
 * (8 bits each: nothing is lost), side by side: logits keep f32's precision at the tensor cores' rate, for 3 E columns. */
#ifndef KERNELS_CUDA_ROUTER_H
#define KERNELS_CUDA_ROUTER_H

#include "kernels/cuda/values.h"

/* Experts in a piece: padded, so that every piece begins aligned. */
static inline int64_t mx_router_padded(int64_t experts) {
    return (experts + 7) / 8 * 8;
}

/* v = piece[0] + piece[1] + piece[2], as good as exactly. */
MX_DEVICE void mx_router_pieces(float v, mx_bf16 piece[3]) {
    for (int i = 0; i < 3; i++) {
        piece[i] = mx_rounded<mx_bf16>(v);
        v -= mx_float(piece[i]);
    }
}

/* w (E, C) as three stacked matrices (padded E, C) of pieces; of[i]: which piece the i-th is. */
struct mx_router_order {
    int of[3];
};
void mx_cuda_router_split(mx_cuda *c, mx_bf16 *to, const float *w, int64_t experts, int64_t width, mx_router_order order);

/* The rows' dynamic shared memory: how many warps make a block, for `bytes` of it each. */
static inline unsigned mx_router_warps(size_t bytes) {
    return bytes <= 8 * 1024 ? 4 : 1;
}

/* The likelier of two experts, ties to the lower; -1: none. A NaN is never likelier, so some expert always comes out, and the
 * same whichever comes first. */
MX_DEVICE bool mx_router_beats(float z, int e, float other_z, int other) {
    return e >= 0 && (other < 0 || z > other_z || (!(other_z > z) && e < other));
}
/* The likeliest of z (E, shared memory) that `taken` (NULL: none) does not rule out, by a whole warp. */
MX_DEVICE int mx_router_best(const float *z, const unsigned char *taken, int64_t experts) {
    int best = -1;
    float top = 0;

    for (int64_t e = threadIdx.x % 32; e < experts; e += 32) {
        if (!(taken && taken[e]) && mx_router_beats(z[e], (int)e, top, best)) {
            best = (int)e;
            top = z[e];
        }
    }
    for (int o = 16; o > 0; o >>= 1) {
        int other = __shfl_xor_sync(MX_WARP, best, o);
        float other_z = __shfl_xor_sync(MX_WARP, top, o);

        if (mx_router_beats(other_z, other, top, best)) {
            best = other;
            top = other_z;
        }
    }
    return best;
}

/* What each pass takes; mx_cuda_router_scratch_bytes is the larger. */
size_t mx_cuda_router_forward_bytes(const mx_backend *q, const mx_router *r);
size_t mx_cuda_router_backward_bytes(const mx_backend *q, const mx_router *r);

/* What the forward pass leaves in scratch for the sums over rows. */
struct mx_router_left {
    double *lse, *entropy; /* (T) */
    int32_t *arg_max;      /* (T) switch */
    unsigned char *used;   /* (T, E) 1: chosen, for switch before the capacity */
    double *part;          /* of the sums; router_sums.cu */
};
/* Doubles that the sums need. */
int64_t mx_cuda_router_parts(const mx_router *r);
/* Adds to r->tally and r->sums. */
void mx_cuda_router_sum(mx_cuda *c, const mx_router *r, const mx_router_left &left);

#endif
