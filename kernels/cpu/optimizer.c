/* optimizer.c - AdamW (arXiv:1711.05101, algorithm 2) with clipping, and no step at all when something is not finite. */
#include "kernels/cpu/cpu.h"

enum {
    PARTS = 256,   /* of the sum of squares: a number that does not depend on the threads, nor do the bits */
    PIECE = 16384, /* values a thread updates at a time */
};

MX_CLONES static double sum_of_squares(const float *g, int64_t n) {
    double sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)g[i] * (double)g[i];
    }
    return sum;
}

static double norm(const float *g, int64_t n) {
    double part[PARTS], sum = 0;
    int64_t each = (n + PARTS - 1) / PARTS;

#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < PARTS; i++) {
        int64_t begin = i * each < n ? i * each : n, end = begin + each < n ? begin + each : n;

        part[i] = sum_of_squares(g + begin, end - begin);
    }
    for (int64_t i = 0; i < PARTS; i++) {
        sum += part[i];
    }
    return sqrt(sum);
}

/* Everything that is the same for all values of a group. */
typedef struct rates {
    float clip, keep; /* keep = 1 - lr wd */
    float beta1, rest1, beta2, rest2; /* rest = 1 - beta, taken in f64: 1 - 0.999f is off by 1e-5 */
    float step, root, eps;          /* p -= step m / (root sqrt(v) + eps) */
} rates;

MX_CLONES static void update(float *restrict p, float *restrict m, float *restrict v, const float *restrict g,
                             int64_t n, const rates *r) {
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * r->clip;

        m[i] = r->beta1 * m[i] + r->rest1 * d;
        v[i] = r->beta2 * v[i] + r->rest2 * d * d;
        p[i] = p[i] * r->keep - r->step * m[i] / (sqrtf(v[i]) * r->root + r->eps);
    }
}

void mx_cpu_adamw(mx_backend *q, const mx_adamw *a) {
    double length = norm(a->g, a->count);
    double correction1 = 1.0 - pow(a->beta1, (double)a->step), correction2 = 1.0 - pow(a->beta2, (double)a->step);

    (void)q;
    assert(a->step >= 1);
    a->numbers->grad_norm = length;
    if (!isfinite(length) || !isfinite(a->numbers->loss) || a->numbers->skipped != 0) {
        a->numbers->skipped = 1;
        return;
    }
    for (int64_t i = 0; i < a->groups; i++) {
        const mx_adamw_group *group = &a->group[i];
        double lr = a->lr * group->lr_ratio;
        rates r = { .clip = (float)(a->max_norm > 0 && length > a->max_norm ? a->max_norm / length : 1.0),
                    .beta1 = (float)a->beta1,
                    .rest1 = (float)(1.0 - a->beta1),
                    .beta2 = (float)a->beta2,
                    .rest2 = (float)(1.0 - a->beta2),
                    .keep = (float)(1.0 - lr * group->weight_decay),
                    .step = (float)(lr / correction1),
                    .root = (float)(1.0 / sqrt(correction2)),
                    .eps = (float)a->eps };

        assert(group->begin >= 0 && group->begin + group->count <= a->count);
#pragma omp parallel for schedule(static)
        for (int64_t k = group->begin; k < group->begin + group->count; k += PIECE) {
            int64_t left = group->begin + group->count - k;

            update(a->p + k, a->m + k, a->v + k, a->g + k, left < PIECE ? left : PIECE, &r);
        }
    }
}
