/* optimizer.cu - AdamW (arXiv:1711.05101, algorithm 2) with clipping, and no step at all when something is not finite. The
 * device finds out by itself: the host is told with the step's numbers. */
#include "kernels/cuda/values.h"

static constexpr int THREADS = 256, PARTS = 2048; /* of the sum of squares, at most: the same on every GPU, so are the bits */
static constexpr int GROUPS = 8;                  /* to a launch */
static_assert(PARTS < MX_CUDA_PARTIALS, "the verdict stands behind the parts");

static __global__ void __launch_bounds__(THREADS) squares_kernel(double *part, const float *g, int64_t n, bool wide) {
    __shared__ double shared[32];
    double sum = 0;

    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8; i < n; i += (int64_t)gridDim.x * THREADS * 8) {
        float v[8];

        mx_load8(v, g + i, n - i, wide);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum += (double)v[j] * (double)v[j];
        }
    }
    sum = mx_block_sum(sum, shared);
    if (threadIdx.x == 0) {
        part[blockIdx.x] = sum;
    }
}

/* part[PARTS] becomes what gradients are multiplied by, or negative: no step. */
static __global__ void __launch_bounds__(THREADS) verdict_kernel(double *part, int parts, double max_norm, mx_numbers *numbers) {
    __shared__ double shared[32];
    double sum = 0;

    for (int i = (int)threadIdx.x; i < parts; i += THREADS) {
        sum += part[i];
    }
    sum = mx_block_sum(sum, shared);
    if (threadIdx.x == 0) {
        double length = sqrt(sum);
        bool whole = isfinite(length) && isfinite(numbers->loss) && numbers->skipped == 0;

        numbers->grad_norm = length;
        numbers->skipped = whole ? 0 : 1;
        part[PARTS] = !whole ? -1.0 : max_norm > 0 && length > max_norm ? max_norm / length : 1.0;
    }
}

/* Everything that is the same for all values of a group, worked out in f64. rest = 1 - beta: 1 - 0.999f would be off by 1e-5.
 * p -= step m / (root sqrt(v) + eps); keep = 1 - lr wd. */
struct adamw_rates {
    int64_t begin, count;
    unsigned first_block; /* of the launch */
    float keep, step;
};
struct adamw_call {
    float *p, *m, *v;
    const float *g;
    const double *verdict;
    float beta1, rest1, beta2, rest2, root, eps;
    bool wide;
    int groups;
    adamw_rates group[GROUPS];
};

static __global__ void __launch_bounds__(THREADS) update_kernel(adamw_call a) {
    int at = 0;
    float clip = (float)*a.verdict, g[8], p[8], m[8], v[8];

    while (at + 1 < a.groups && a.group[at + 1].first_block <= blockIdx.x) {
        at++;
    }
    int64_t inside = ((int64_t)(blockIdx.x - a.group[at].first_block) * THREADS + threadIdx.x) * 8, left = a.group[at].count - inside;
    int64_t i = a.group[at].begin + inside;
    float keep = a.group[at].keep, step = a.group[at].step;
    bool wide = a.wide && a.group[at].begin % 4 == 0;

    if (clip < 0 || left <= 0) {
        return;
    }
    mx_load8(g, a.g + i, left, wide);
    mx_load8(m, a.m + i, left, wide);
    mx_load8(v, a.v + i, left, wide);
    mx_load8(p, a.p + i, left, wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float d = g[j] * clip;

        m[j] = a.beta1 * m[j] + a.rest1 * d;
        v[j] = a.beta2 * v[j] + a.rest2 * d * d;
        p[j] = p[j] * keep - step * m[j] / (sqrtf(v[j]) * a.root + a.eps);
    }
    mx_store8(a.m + i, m, left, wide);
    mx_store8(a.v + i, v, left, wide);
    mx_store8(a.p + i, p, left, wide);
}

static void update(mx_cuda *c, const mx_adamw *a, const mx_adamw_group *group, int groups) {
    double correction1 = 1.0 - pow(a->beta1, (double)a->step), correction2 = 1.0 - pow(a->beta2, (double)a->step);
    unsigned blocks = 0;
    adamw_call call = {};

    call.p = a->p;
    call.m = a->m;
    call.v = a->v;
    call.g = a->g;
    call.verdict = c->partials + PARTS;
    call.beta1 = (float)a->beta1;
    call.rest1 = (float)(1.0 - a->beta1);
    call.beta2 = (float)a->beta2;
    call.rest2 = (float)(1.0 - a->beta2);
    call.root = (float)(1.0 / sqrt(correction2));
    call.eps = (float)a->eps;
    call.wide = mx_wide(a->p, 0) && mx_wide(a->m, 0) && mx_wide(a->v, 0) && mx_wide(a->g, 0);
    call.groups = groups;
    for (int i = 0; i < groups; i++) {
        double lr = a->lr * group[i].lr_ratio;

        assert(group[i].begin >= 0 && group[i].count >= 0 && group[i].begin + group[i].count <= a->count);
        call.group[i].begin = group[i].begin;
        call.group[i].count = group[i].count;
        call.group[i].first_block = blocks;
        call.group[i].keep = (float)(1.0 - lr * group[i].weight_decay);
        call.group[i].step = (float)(lr / correction1);
        blocks += mx_blocks(group[i].count, THREADS * 8);
    }
    mx_launch(c, "adamw", update_kernel, dim3(blocks), dim3(THREADS), 0, call);
}

void mx_cuda_adamw(mx_backend *q, const mx_adamw *a) {
    mx_cuda *c = mx_cuda_of(q);
    int64_t blocks = (a->count + THREADS * 8 - 1) / (THREADS * 8);
    int parts = blocks < PARTS ? (int)blocks : PARTS;

    assert(a->step >= 1);
    mx_launch(c, "adamw: squares", squares_kernel, dim3((unsigned)parts), dim3(THREADS), 0, c->partials, a->g, a->count, mx_wide(a->g, 0));
    mx_launch(c, "adamw: verdict", verdict_kernel, dim3(1), dim3(THREADS), 0, c->partials, parts, a->max_norm, a->numbers);
    for (int64_t i = 0; i < a->groups; i += GROUPS) {
        update(c, a, a->group + i, (int)(a->groups - i < GROUPS ? a->groups - i : GROUPS));
    }
}
