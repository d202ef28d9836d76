/* router.c - which experts a token uses, with which weight, and the router's own losses.
 *
 * MixLoRA's top-k (arXiv:2404.15159 section 3.2), top-p, and switch (arXiv:2101.03961). Rows are independent but for
 * two things, which one thread does in row order, so that nothing depends on the number of threads: the queue in front
 * of a switch expert, and the tallies (T (E + K) additions beside T E C products). */
#include "kernels/cpu/cpu.h"

#include <float.h>
#include <omp.h>

typedef struct work {
    float *wide;      /* (threads, C) a row of x in f32 */
    float *dlogits;   /* (T, E) */
    float *dlosses;   /* (T, E) the part of the router losses, when it is asked for alone */
    double *entropy;  /* (T) */
    double *lse;      /* (T) */
    int32_t *arg_max; /* (T) */
    int64_t *queue;   /* (E) */
} work;

static work take(const mx_cpu *cpu, mx_scratch *s, const mx_router *r) {
    int64_t t = r->rows->rows, e = r->experts;
    work w = { 0 };

    w.wide = MX_SCRATCH(s, float, (int64_t)cpu->threads * r->x.dim[1]);
    w.dlogits = MX_SCRATCH(s, float, t * e);
    w.dlosses = MX_SCRATCH(s, float, t * e);
    w.entropy = MX_SCRATCH(s, double, t);
    w.lse = MX_SCRATCH(s, double, t);
    w.arg_max = MX_SCRATCH(s, int32_t, t);
    w.queue = MX_SCRATCH(s, int64_t, e);
    return w;
}

size_t mx_cpu_router_scratch_bytes(const mx_backend *q, const mx_router *r) {
    mx_scratch s = { 0 };

    take(mx_cpu_of_const(q), &s, r);
    return s.most;
}

static const void *row_of(const mx_tensor *x, int64_t t) {
    return (const char *)x->data + (size_t)(t * x->dim[1]) * mx_dtype_bytes(x->dtype);
}

/* ------------------------------------------------------------------ forward */

/* z (E) = W (E,C) x (C) */
MX_CLONES static void multiply_row(float *z, const float *w, const float *x, int64_t experts, int64_t width) {
    for (int64_t e = 0; e < experts; e++) {
        const float *we = w + e * width;
        float sum = 0;

#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) {
            sum += we[i] * x[i];
        }
        z[e] = sum;
    }
}

/* p = softmax(z); also ln of the sum and the entropy, both in nats. */
static void softmax_row(float *p, const float *z, int64_t experts, double *lse, double *entropy) {
    float top = z[0];
    double sum = 0, mean = 0;

    for (int64_t e = 1; e < experts; e++) {
        top = z[e] > top ? z[e] : top;
    }
    for (int64_t e = 0; e < experts; e++) {
        double v = exp((double)z[e] - (double)top);

        sum += v;
        p[e] = (float)v;
    }
    for (int64_t e = 0; e < experts; e++) {
        p[e] = (float)(p[e] / sum);
        mean += p[e] > 0 ? p[e] * ((double)z[e] - (double)top) : 0;
    }
    *lse = top + log(sum);
    *entropy = log(sum) - mean; /* -sum p ln p, as ln p = z - lse */
}

static bool taken(const int32_t *chosen, int64_t count, int64_t e) {
    for (int64_t k = 0; k < count; k++) {
        if (chosen[k] == e) {
            return true;
        }
    }
    return false;
}

/* The likeliest expert not among the `count` chosen ones, ties to the lower. By logit: p has the same order, but for
 * what its rounding makes equal. A NaN is never greater, so some expert always comes out. */
static int32_t next_best(const float *z, int64_t experts, const int32_t *chosen, int64_t count) {
    int32_t best = -1;

    for (int32_t e = 0; e < (int32_t)experts; e++) {
        if ((best < 0 || z[e] > z[best]) && !taken(chosen, count, e)) {
            best = e;
        }
    }
    return best;
}

static void choose_top_k(const mx_router *r, const float *z, const float *p, int32_t *chosen, float *gate) {
    double sum = 0;

    for (int64_t k = 0; k < r->slots; k++) {
        chosen[k] = next_best(z, r->experts, chosen, k);
        sum += p[chosen[k]];
    }
    for (int64_t k = 0; k < r->slots; k++) {
        gate[k] = (float)(p[chosen[k]] / sum);
    }
}

static double temperature_of(const mx_router *r) {
    return r->temperature > 0 ? r->temperature : 1.0;
}

static void choose_top_p(const mx_router *r, const float *z, const float *p, int32_t *chosen, float *gate) {
    double temperature = temperature_of(r), before = 0;
    int64_t k = 0;

    while (k < r->slots && before <= r->top_p) {
        double weight;

        chosen[k] = next_best(z, r->experts, chosen, k);
        weight = p[chosen[k]] / temperature;
        gate[k] = (float)weight;
        before += weight;
        k++;
    }
    for (; k < r->slots; k++) {
        chosen[k] = -1;
        gate[k] = 0;
    }
}

static void route_row(const mx_router *r, const work *w, int64_t t, float *wide) {
    int64_t e = r->experts, width = r->x.dim[1];
    float *z = r->logits + t * e, *p = r->prob + t * e;
    int32_t *chosen = r->chosen + t * r->slots;
    float *gate = r->gate + t * r->slots;

    mx_values_convert(wide, MX_F32, row_of(&r->x, t), r->x.dtype, width);
    multiply_row(z, r->w, wide, e, width);
    softmax_row(p, z, e, &w->lse[t], &w->entropy[t]);
    switch (r->routing) {
    case MX_ROUTE_TOP_K:
        choose_top_k(r, z, p, chosen, gate);
        break;
    case MX_ROUTE_TOP_P:
        choose_top_p(r, z, p, chosen, gate);
        break;
    case MX_ROUTE_SWITCH:
        w->arg_max[t] = next_best(z, e, NULL, 0);
        chosen[0] = w->arg_max[t];
        gate[0] = p[chosen[0]];
        break;
    }
    if (r->passed) {
        r->passed[t] = 0;
    }
}

/* Padding uses no expert. */
static void route_padding(const mx_router *r, int64_t t) {
    memset(r->logits + t * r->experts, 0, sizeof(float) * (size_t)r->experts);
    memset(r->prob + t * r->experts, 0, sizeof(float) * (size_t)r->experts);
    for (int64_t k = 0; k < r->slots; k++) {
        r->chosen[t * r->slots + k] = -1;
        r->gate[t * r->slots + k] = 0;
    }
    if (r->passed) {
        r->passed[t] = 0;
    }
}

/* A token is past the capacity when `capacity` tokens of its sequence before it wanted the same expert. A prefix is
 * counted anew for every segment that reads it: each goes on from the prefix's end, not from its siblings'. */
static void apply_capacity(const mx_router *r, const work *w) {
    for (int64_t s = 0; s < r->rows->segments; s++) {
        const mx_segment *segment = &r->rows->segment[s];

        memset(w->queue, 0, sizeof *w->queue * (size_t)r->experts);
        for (int64_t i = 0; i < segment->prefix_count; i++) {
            w->queue[w->arg_max[segment->prefix_begin + i]]++;
        }
        for (int64_t t = segment->begin; t < segment->begin + segment->count; t++) {
            if (w->queue[w->arg_max[t]]++ >= r->capacity) {
                r->passed[t] = r->gate[t];
                r->chosen[t] = -1;
                r->gate[t] = 0;
            }
        }
    }
}

/* In row order by one thread: integers and f64 sums that no number of threads changes. */
static void tally_row(const mx_router *r, const work *w, int64_t t) {
    const mx_router_tally *y = &r->tally;
    int64_t e = r->experts, task = r->rows->task ? r->rows->task[t] : 0;
    const int32_t *chosen = r->chosen + t * r->slots;

    assert(task >= 0 && task < y->tasks);
    y->rows[task]++;
    y->entropy[task] += w->entropy[t];
    for (int64_t i = 0; i < e; i++) {
        y->probability[task * e + i] += r->prob[t * e + i];
    }
    for (int64_t k = 0; k < r->slots; k++) {
        if (chosen[k] < 0) {
            continue;
        }
        y->tokens[task * e + chosen[k]]++;
        for (int64_t j = 0; y->pairs && j < r->slots; j++) {
            if (chosen[j] > chosen[k]) {
                y->pairs[(task * e + chosen[k]) * e + chosen[j]]++;
            }
        }
    }
    if (r->routing == MX_ROUTE_SWITCH && chosen[0] < 0) {
        y->dropped[task * e + w->arg_max[t]]++;
    }
}

static void sum_row(const mx_router *r, const work *w, int64_t t) {
    for (int64_t i = 0; i < r->experts; i++) {
        r->sums.probability[i] += r->prob[t * r->experts + i];
    }
    *r->sums.z += w->lse[t] * w->lse[t];
    if (r->routing == MX_ROUTE_SWITCH) {
        r->sums.chosen[w->arg_max[t]] += 1;
        return;
    }
    for (int64_t k = 0; k < r->slots; k++) {
        int32_t e = r->chosen[t * r->slots + k];

        if (e >= 0) {
            r->sums.chosen[e] += 1;
        }
    }
}

static void check(const mx_router *r) {
    assert(r->experts >= 1 && r->slots >= 1 && r->slots <= r->experts);
    assert(r->routing != MX_ROUTE_TOP_P || r->slots == r->experts);
    assert(r->routing != MX_ROUTE_SWITCH || (r->slots == 1 && r->passed && r->capacity >= 0));
    assert(r->x.dtype == MX_F32 || r->x.dtype == MX_BF16);
    (void)r;
}

void mx_cpu_router_forward(mx_backend *q, const mx_router *r) {
    mx_cpu *cpu = mx_cpu_of(q);
    size_t mark = cpu->scratch.used;
    work w = take(cpu, &cpu->scratch, r);
    int64_t width = r->x.dim[1];

    check(r);
#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t t = 0; t < r->rows->rows; t++) {
        if (t < r->rows->live) {
            route_row(r, &w, t, w.wide + omp_get_thread_num() * width);
        } else {
            route_padding(r, t);
        }
    }
    if (r->routing == MX_ROUTE_SWITCH) {
        apply_capacity(r, &w);
    }
    for (int64_t t = 0; t < r->rows->live; t++) {
        if (r->tally.tokens) {
            tally_row(r, &w, t);
        }
        if (r->sums.chosen) {
            sum_row(r, &w, t);
        }
    }
    mx_scratch_reset(&cpu->scratch, mark);
}

/* ------------------------------------------------------------------ backward */

/* Renormalised top-k: the softmax's denominator cancels, so only chosen experts' logits get a gradient:
 * dz_k = w_k (dw_k - sum_j w_j dw_j) (MixLoRA's router is a softmax over the chosen). */
static void top_k_gradient(const mx_router *r, int64_t t, float *dz) {
    const int32_t *chosen = r->chosen + t * r->slots;
    const float *gate = r->gate + t * r->slots, *dgate = r->dgate + t * r->slots;
    double mean = 0;

    for (int64_t k = 0; k < r->slots; k++) {
        mean += (double)gate[k] * dgate[k];
    }
    for (int64_t k = 0; k < r->slots; k++) {
        dz[chosen[k]] += (float)(gate[k] * (dgate[k] - mean));
    }
}

/* dz += p . (dp - sum p dp), with dp nonzero only for `count` experts. */
static void softmax_gradient(float *dz, const float *p, int64_t experts, const int32_t *which, const double *dp,
                             int64_t count) {
    double mean = 0;

    for (int64_t k = 0; k < count; k++) {
        mean += p[which[k]] * dp[k];
    }
    for (int64_t e = 0; e < experts; e++) {
        dz[e] -= (float)(p[e] * mean);
    }
    for (int64_t k = 0; k < count; k++) {
        dz[which[k]] += (float)(p[which[k]] * dp[k]);
    }
}

/* Gates that are probabilities as they are: all logits get a gradient. */
static void probability_gradient(const mx_router *r, int64_t t, float *dz) {
    const float *z = r->logits + t * r->experts, *p = r->prob + t * r->experts;

    if (r->routing == MX_ROUTE_SWITCH) {
        int32_t best = next_best(z, r->experts, NULL, 0);
        double dp = r->chosen[t] >= 0 ? r->dgate[t] : r->dpassed ? r->dpassed[t] : 0;

        softmax_gradient(dz, p, r->experts, &best, &dp, 1);
        return;
    }
    for (int64_t k = 0; k < r->slots; k++) {
        int32_t e = r->chosen[t * r->slots + k];
        double dp = r->dgate[t * r->slots + k] / temperature_of(r);

        if (e >= 0) {
            softmax_gradient(dz, p, r->experts, &e, &dp, 1);
        }
    }
}

/* d/dz of  share (balance_coef E sum F_i P_i + z_coef mean lse^2),  F constant. */
static void losses_gradient(const mx_router *r, int64_t t, float *dz) {
    const float *z = r->logits + t * r->experts, *p = r->prob + t * r->experts;
    int64_t experts = r->experts;
    double balance = r->share * r->balance_coef * (double)experts / (r->rows_all * r->rows_all), mean = 0, lse;
    int32_t best = next_best(z, experts, NULL, 0);

    for (int64_t e = 0; e < experts; e++) {
        mean += p[e] * r->sums.chosen[e];
    }
    lse = z[best] - log(p[best]); /* p of the largest is at least 1/E: well conditioned */
    for (int64_t e = 0; e < experts; e++) {
        dz[e] += (float)(p[e] * (balance * (r->sums.chosen[e] - mean) + r->share * r->z_coef * 2 * lse / r->rows_all));
    }
}

/* dx (C) += dz (E) W (E,C), in f32; dx rounded once. */
MX_CLONES static void add_back(float *wide, const float *dz, const float *w, int64_t experts, int64_t width) {
    for (int64_t e = 0; e < experts; e++) {
        const float *we = w + e * width;
        float d = dz[e];

        for (int64_t i = 0; i < width; i++) {
            wide[i] += d * we[i];
        }
    }
}

static void gradient_row(const mx_router *r, const work *w, int64_t t, float *wide) {
    int64_t experts = r->experts, width = r->x.dim[1];
    float *dz = w->dlogits + t * experts, *dl = w->dlosses + t * experts;
    bool losses = r->sums.chosen && (r->balance_coef != 0 || r->z_coef != 0);

    memset(dz, 0, sizeof *dz * (size_t)experts);
    memset(dl, 0, sizeof *dl * (size_t)experts);
    if (losses) {
        losses_gradient(r, t, dl);
    }
    if (!r->dgate) {
        /* no task gradient: the losses alone */
    } else if (r->routing == MX_ROUTE_TOP_K) {
        top_k_gradient(r, t, dz);
    } else {
        probability_gradient(r, t, dz);
    }
    for (int64_t e = 0; e < experts; e++) {
        dz[e] += dl[e];
    }
    if (r->dx.data) {
        void *dx = (void *)row_of(&r->dx, t);

        mx_values_convert(wide, MX_F32, dx, r->dx.dtype, width);
        add_back(wide, dz, r->w, experts, width);
        mx_values_convert(dx, r->dx.dtype, wide, MX_F32, width);
    }
}

/* dw (E, columns) += dz^T x for some columns: a thread owns its columns and walks the rows in order. */
enum { COLUMNS = 64, ROWS = 64 };
MX_CLONES static void weight_gradient(float *dw, const float *dz, const float *x, int64_t rows, int64_t experts,
                                      int64_t width, int64_t columns) {
    for (int64_t t = 0; t < rows; t++) {
        for (int64_t e = 0; e < experts; e++) {
            float d = dz[t * experts + e];

            for (int64_t i = 0; i < columns; i++) {
                dw[e * width + i] += d * x[t * COLUMNS + i];
            }
        }
    }
}

static void weight_gradients(const mx_cpu *cpu, const mx_router *r, const work *w) {
    int64_t width = r->x.dim[1], live = r->rows->live;

#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t c = 0; c < width; c += COLUMNS) {
        int64_t columns = width - c < COLUMNS ? width - c : COLUMNS;
        float x[ROWS * COLUMNS];

        for (int64_t t0 = 0; t0 < live; t0 += ROWS) {
            int64_t rows = live - t0 < ROWS ? live - t0 : ROWS;

            for (int64_t t = 0; t < rows; t++) {
                const char *row = row_of(&r->x, t0 + t);

                mx_values_convert(x + t * COLUMNS, MX_F32, row + (size_t)c * mx_dtype_bytes(r->x.dtype), r->x.dtype,
                                  columns);
            }
            if (r->dw) {
                weight_gradient(r->dw + c, w->dlogits + t0 * r->experts, x, rows, r->experts, width, columns);
            }
            if (r->dw_losses) {
                weight_gradient(r->dw_losses + c, w->dlosses + t0 * r->experts, x, rows, r->experts, width, columns);
            }
        }
    }
}

void mx_cpu_router_backward(mx_backend *q, const mx_router *r) {
    mx_cpu *cpu = mx_cpu_of(q);
    size_t mark = cpu->scratch.used;
    work w = take(cpu, &cpu->scratch, r);
    int64_t width = r->x.dim[1];

    check(r);
    assert(!r->dx.data || r->dx.dim[1] == width);
#pragma omp parallel for schedule(static) num_threads(cpu->threads)
    for (int64_t t = 0; t < r->rows->live; t++) {
        gradient_row(r, &w, t, w.wide + omp_get_thread_num() * width);
    }
    weight_gradients(cpu, r, &w);
    mx_scratch_reset(&cpu->scratch, mark);
}

/* ------------------------------------------------------------------ losses */

/* balance = E sum F_i P_i (its value at perfect balance is K, METHODS 1.6), z = mean lse^2 (router z-loss, arXiv:2202.08906). */
void mx_cpu_router_losses(mx_backend *q, const mx_router *r, mx_numbers *numbers) {
    double sum = 0;

    (void)q;
    for (int64_t e = 0; e < r->experts; e++) {
        sum += r->sums.chosen[e] / r->rows_all * (r->sums.probability[e] / r->rows_all);
    }
    numbers->balance += r->share * (double)r->experts * sum;
    numbers->z += r->share * *r->sums.z / r->rows_all;
}
