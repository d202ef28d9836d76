/* objective.cu - what is minimised, as a weight for each loss row. A few thousand numbers: one block, f64, and sums whose order
 * depends on nothing but their number. */
#include "kernels/cuda/cuda.h"

static constexpr int THREADS = 1024;

static __global__ void __launch_bounds__(THREADS) language_model_kernel(const float *nll, int64_t rows, double step_tokens, float *scale,
                                                                       mx_numbers *numbers) {
    __shared__ double shared[32];
    double sum = 0;

    for (int64_t n = threadIdx.x; n < rows; n += THREADS) {
        sum += (double)nll[n];
        scale[n] = (float)(1.0 / step_tokens);
    }
    sum = mx_block_sum(sum, shared);
    if (threadIdx.x == 0) {
        numbers->nll += sum;
        numbers->loss += sum / step_tokens;
    }
}

/* l = -mean nll over a span, by a warp; *total: the sum itself. */
MX_DEVICE double mean_log_likelihood(const float *nll, const mx_span &s, double *total) {
    double sum = 0;

    for (int n = (int)threadIdx.x % 32; n < s.count; n += 32) {
        sum += (double)nll[s.begin + n];
    }
    *total = mx_warp_sum(sum);
    return -*total / s.count;
}

struct choice_view {
    const float *nll;
    float *scale;
    const mx_span *span;
    const int32_t *gold, *first_span;
    double step_questions;
};

/* p = softmax(l), loss = -ln p_gold: d loss / d l_c = p_c - [c is gold], d l_c / d nll = -1 / count. A warp's work; adds the
 * question's part to *nll and *loss, the same in all lanes. */
MX_DEVICE void question(const choice_view &o, int64_t q, double *nll, double *loss) {
    int begin = o.first_span[q], end = o.first_span[q + 1];
    double top = -INFINITY, sum = 0, gold = NAN, total;

    for (int s = begin; s < end; s++) {
        double l = mean_log_likelihood(o.nll, o.span[s], &total);

        *nll += total;
        gold = o.span[s].choice == o.gold[q] ? l : gold;
        if (!(l <= top)) { /* a NaN, too: then everything becomes one */
            sum = sum * exp(top - l) + 1;
            top = l;
        } else {
            sum += exp(l - top);
        }
    }
    *loss += (log(sum) + top - gold) / o.step_questions;
    for (int s = begin; s < end; s++) {
        mx_span here = o.span[s];
        double p = exp(mean_log_likelihood(o.nll, here, &total) - top) / sum, right = here.choice == o.gold[q] ? 1 : 0;

        for (int n = (int)threadIdx.x % 32; n < here.count; n += 32) {
            o.scale[here.begin + n] = (float)((right - p) / (here.count * o.step_questions));
        }
    }
}

/* A warp to a question in turn; the warps' parts are added in their order. */
static __global__ void __launch_bounds__(THREADS) choice_kernel(choice_view o, int64_t rows, int64_t questions, mx_numbers *numbers) {
    __shared__ double part[2][32];
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, warps = THREADS / 32;
    double nll = 0, loss = 0;

    for (int64_t n = threadIdx.x; n < rows; n += THREADS) { /* rows of no span */
        o.scale[n] = 0;
    }
    __syncthreads();
    for (int64_t q = warp; q < questions; q += warps) {
        question(o, q, &nll, &loss);
    }
    if (lane == 0) {
        part[0][warp] = nll;
        part[1][warp] = loss;
    }
    __syncthreads();
    if (warp == 0) {
        nll = mx_warp_sum(part[0][lane]);
        loss = mx_warp_sum(part[1][lane]);
        if (lane == 0) {
            numbers->nll += nll;
            numbers->loss += loss;
        }
    }
}

void mx_cuda_objective(mx_backend *q, const mx_objective *o) {
    mx_cuda *c = mx_cuda_of(q);

    if (!o->choice) {
        mx_launch(c, "objective", language_model_kernel, dim3(1), dim3(THREADS), 0, o->nll, o->rows, o->step_tokens, o->scale, o->numbers);
        return;
    }
    choice_view view = { o->nll, o->scale, o->span, o->gold, o->first_span, o->step_questions };

    assert(o->step_questions > 0 || o->questions == 0);
    mx_launch(c, "objective", choice_kernel, dim3(1), dim3(THREADS), 0, view, o->rows, o->questions, o->numbers);
}
