/* router_sums.cu - what routers leave behind: the tally by task, and the sums that their losses are made of.
 *
 * In two stages, so that the order of every sum is fixed by the number of rows alone. First, walkers: each goes along a few
 * rows, thread e adding up expert e's column, and puts down what it has when the task changes, in a line of doubles of its own
 * (integers go straight to the tally: their order is no matter). Then a warp to each double adds up the lines. */
#include "kernels/cuda/router.h"

static constexpr int64_t WALKERS = 512, ROWS_LEAST = 16;

static int64_t walkers_of(int64_t rows) {
    int64_t walkers = (rows + ROWS_LEAST - 1) / ROWS_LEAST;

    return walkers < WALKERS ? walkers : WALKERS;
}

/* A walker's line: probability (tasks, E), entropy (tasks), then for the losses chosen (E), probability (E), z. */
struct line {
    int64_t entropy, chosen, probability, z, length;
};
static line line_of(int64_t tasks, int64_t experts) {
    line l;

    l.entropy = tasks * experts;
    l.chosen = l.entropy + tasks;
    l.probability = l.chosen + experts;
    l.z = l.probability + experts;
    l.length = l.z + 1;
    return l;
}
static int64_t tasks_of(const mx_router *r) {
    return r->tally.tokens ? r->tally.tasks : 0;
}

int64_t mx_cuda_router_parts(const mx_router *r) {
    return walkers_of(r->rows->rows) * line_of(tasks_of(r), r->experts).length;
}

struct walk {
    int64_t live, each, walkers, experts, tasks; /* `each`: rows to a walker */
    line at;
    const int32_t *task;   /* NULL: 0 */
    const int32_t *chosen; /* switch: (T), -1: dropped; else NULL */
    const float *prob;
    const unsigned char *used;
    const double *lse, *entropy;
    double *part;
    int64_t *tokens, *dropped, *rows, *pairs;
};

MX_DEVICE void count(int64_t *to, int64_t n) {
    if (n) {
        atomicAdd(reinterpret_cast<unsigned long long *>(to), (unsigned long long)n);
    }
}
MX_DEVICE int64_t task_of(const walk &w, int64_t t) {
    return w.task ? w.task[t] : 0;
}
MX_DEVICE int64_t end_of(const walk &w, int64_t begin) {
    return begin + w.each < w.live ? begin + w.each : w.live;
}

/* One expert's column along a walker's rows, by task. */
MX_DEVICE void walk_tally(const walk &w, int64_t walker, int64_t e) {
    int64_t begin = walker * w.each, end = end_of(w, begin), tokens = 0, dropped = 0;
    double *part = w.part + walker * w.at.length, probability = 0;

    for (int64_t t = begin; t < end; t++) {
        bool used = w.used[t * w.experts + e], drops = w.chosen && w.chosen[t] < 0;

        int64_t task = task_of(w, t);

        probability += w.prob[t * w.experts + e];
        tokens += used && !drops;
        dropped += used && drops;
        if (t + 1 == end || task_of(w, t + 1) != task) {
            part[task * w.experts + e] += probability;
            count(&w.tokens[task * w.experts + e], tokens);
            count(&w.dropped[task * w.experts + e], dropped);
            probability = 0;
            tokens = dropped = 0;
        }
    }
}

MX_DEVICE void walk_entropy(const walk &w, int64_t walker) {
    int64_t begin = walker * w.each, end = end_of(w, begin), rows = 0;
    double entropy = 0;

    for (int64_t t = begin; t < end; t++) {
        entropy += w.entropy[t];
        rows++;
        if (t + 1 == end || task_of(w, t + 1) != task_of(w, t)) {
            w.part[walker * w.at.length + w.at.entropy + task_of(w, t)] += entropy;
            count(&w.rows[task_of(w, t)], rows);
            entropy = 0;
            rows = 0;
        }
    }
}

MX_DEVICE void walk_losses(const walk &w, int64_t walker, int64_t e) {
    int64_t begin = walker * w.each, end = end_of(w, begin), chosen = 0;
    double *part = w.part + walker * w.at.length, probability = 0, z = 0;

    for (int64_t t = begin; t < end; t++) {
        chosen += w.used[t * w.experts + e];
        probability += w.prob[t * w.experts + e];
        z += e == 0 ? w.lse[t] * w.lse[t] : 0;
    }
    part[w.at.chosen + e] = (double)chosen;
    part[w.at.probability + e] = probability;
    if (e == 0) {
        part[w.at.z] = z;
    }
}

/* Blocks of several walkers (y), an expert to a thread (x). */
static __global__ void walk_kernel(walk w, bool losses) {
    int64_t walker = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;

    if (walker >= w.walkers) {
        return;
    }
    for (int64_t e = threadIdx.x; e < w.experts; e += blockDim.x) {
        if (w.tasks) {
            walk_tally(w, walker, e);
        }
        if (losses) {
            walk_losses(w, walker, e);
        }
    }
    if (w.tasks && threadIdx.x == 0) {
        walk_entropy(w, walker);
    }
}

/* Pairs i < j that one token uses together: a pair to a thread, a walker to a block. */
static __global__ void __launch_bounds__(256) pairs_kernel(walk w) {
    int64_t begin = blockIdx.x * w.each, end = end_of(w, begin);

    for (int64_t pair = threadIdx.x; pair < w.experts * w.experts; pair += 256) {
        int64_t i = pair / w.experts, j = pair % w.experts, both = 0;

        for (int64_t t = begin; i < j && t < end; t++) {
            both += w.used[t * w.experts + i] & w.used[t * w.experts + j];
            if (t + 1 == end || task_of(w, t + 1) != task_of(w, t)) {
                count(&w.pairs[task_of(w, t) * w.experts * w.experts + pair], both);
                both = 0;
            }
        }
    }
}

/* A warp to each double of a line. */
static __global__ void __launch_bounds__(256) join_kernel(walk w, double *probability, double *entropy, mx_router_sums sums) {
    int64_t i = (int64_t)blockIdx.x * 8 + threadIdx.x / 32;
    int lane = (int)threadIdx.x % 32;
    double sum = 0;

    if (i >= w.at.length) {
        return;
    }
    for (int64_t k = lane; k < w.walkers; k += 32) {
        sum += w.part[k * w.at.length + i];
    }
    sum = mx_warp_sum(sum);
    if (lane > 0) {
        return;
    }
    if (i < w.at.entropy) {
        probability[i] += sum;
    } else if (i < w.at.chosen) {
        entropy[i - w.at.entropy] += sum;
    } else if (!sums.chosen) {
        return;
    } else if (i < w.at.probability) {
        sums.chosen[i - w.at.chosen] += sum;
    } else if (i < w.at.z) {
        sums.probability[i - w.at.probability] += sum;
    } else {
        *sums.z += sum;
    }
}

void mx_cuda_router_sum(mx_cuda *c, const mx_router *r, const mx_router_left &left) {
    int64_t walkers = walkers_of(r->rows->rows), each = walkers ? (r->rows->rows + walkers - 1) / walkers : 0;
    unsigned across = 1;
    walk w = {};

    if ((!r->tally.tokens && !r->sums.chosen) || walkers == 0 || c->lost) {
        return;
    }
    while (across < 256 && across < r->experts) {
        across *= 2;
    }
    w.live = r->rows->live;
    w.each = each;
    w.walkers = walkers;
    w.experts = r->experts;
    w.tasks = tasks_of(r);
    w.at = line_of(w.tasks, w.experts);
    w.task = r->rows->task;
    w.chosen = r->routing == MX_ROUTE_SWITCH ? r->chosen : NULL;
    w.prob = r->prob;
    w.used = left.used;
    w.lse = left.lse;
    w.entropy = left.entropy;
    w.part = left.part;
    w.tokens = r->tally.tokens;
    w.dropped = r->tally.dropped;
    w.rows = r->tally.rows;
    w.pairs = r->tally.pairs;
    mx_cuda_check(c, cudaMemsetAsync(w.part, 0, sizeof(double) * (size_t)(walkers * w.at.length), c->stream), "router: sums");
    mx_launch(c, "router: sums", walk_kernel, dim3(mx_blocks(walkers, 256 / across)), dim3(across, 256 / across), 0, w,
              r->sums.chosen != NULL);
    if (w.tasks && w.pairs && r->slots > 1) {
        mx_launch(c, "router: pairs", pairs_kernel, dim3((unsigned)walkers), dim3(256), 0, w);
    }
    mx_launch(c, "router: join", join_kernel, dim3(mx_blocks(w.at.length, 8)), dim3(256), 0, w, r->tally.probability, r->tally.entropy,
              r->sums);
}

/* ------------------------------------------------------------------ losses */
struct losses {
    mx_router_sums sums;
    int64_t experts;
    double share, rows_all;
};

/* balance = E sum F_i P_i (its value at perfect balance is K, METHODS 1.6), z = mean lse^2 (router z-loss, arXiv:2202.08906). */
static __global__ void __launch_bounds__(32) losses_kernel(losses l, mx_numbers *numbers) {
    double sum = 0;

    for (int64_t e = threadIdx.x; e < l.experts; e += 32) {
        sum += l.sums.chosen[e] / l.rows_all * (l.sums.probability[e] / l.rows_all);
    }
    sum = mx_warp_sum(sum);
    if (threadIdx.x == 0) {
        numbers->balance += l.share * (double)l.experts * sum;
        numbers->z += l.share * *l.sums.z / l.rows_all;
    }
}

void mx_cuda_router_losses(mx_backend *q, const mx_router *r, mx_numbers *numbers) {
    losses l = { r->sums, r->experts, r->share, r->rows_all };

    mx_launch(mx_cuda_of(q), "router: losses", losses_kernel, dim3(1), dim3(32), 0, l, numbers);
}
