/* router.cu - which experts a token uses, and with which weight.
 *
 * MixLoRA's top-k (arXiv:2404.15159 section 3.2), top-p, and switch (arXiv:2101.03961). A warp to a row; the queue in front of
 * a switch expert is walked by a warp to a segment, in order of position. */
#include "kernels/cuda/router.h"

struct work {
    mx_bf16 *pieces;  /* (3 padded E, C) of w */
    float *products;  /* (T, 3 padded E) */
    mx_router_left left;
};

static work take(mx_cuda_scratch *s, const mx_router *r, bool bf16) {
    int64_t t = r->rows->rows, e = r->experts, columns = 3 * mx_router_padded(e);
    work w = {};

    if (bf16) {
        w.pieces = mx_cuda_take_of<mx_bf16>(s, columns * r->x.dim[1]);
        w.products = mx_cuda_take_of<float>(s, t * columns);
    }
    w.left.lse = mx_cuda_take_of<double>(s, t);
    w.left.entropy = mx_cuda_take_of<double>(s, t);
    w.left.arg_max = mx_cuda_take_of<int32_t>(s, t);
    w.left.used = mx_cuda_take_of<unsigned char>(s, t * e);
    w.left.part = mx_cuda_take_of<double>(s, mx_cuda_router_parts(r));
    return w;
}

size_t mx_cuda_router_forward_bytes(const mx_backend *q, const mx_router *r) {
    mx_cuda_scratch s = {};

    take(&s, r, mx_cuda_bf16(mx_cuda_of(q)));
    return s.most;
}

size_t mx_cuda_router_scratch_bytes(const mx_backend *q, const mx_router *r) {
    size_t forward = mx_cuda_router_forward_bytes(q, r), backward = mx_cuda_router_backward_bytes(q, r);

    return forward > backward ? forward : backward;
}

/* ------------------------------------------------------------------ factors in pieces */
static __global__ void split_kernel(mx_bf16 *to, const float *w, int64_t experts, int64_t padded, int64_t width, mx_router_order order) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, values = padded * width;
    mx_bf16 piece[3];

    if (i < values) {
        mx_router_pieces(i < experts * width ? w[i] : 0.0f, piece);
#pragma unroll
        for (int m = 0; m < 3; m++) {
            to[m * values + i] = order.of[m] == 0 ? piece[0] : order.of[m] == 1 ? piece[1] : piece[2];
        }
    }
}

void mx_cuda_router_split(mx_cuda *c, mx_bf16 *to, const float *w, int64_t experts, int64_t width, mx_router_order order) {
    int64_t padded = mx_router_padded(experts);

    mx_launch(c, "router: pieces", split_kernel, dim3(mx_blocks(padded * width, 256)), dim3(256), 0, to, w, experts, padded, width, order);
}

/* ------------------------------------------------------------------ choosing */
struct chooser {
    mx_routing routing;
    int64_t rows, live, experts, slots;
    double top_p, temperature;
    const float *products; /* (T, pieces * stride) */
    int64_t stride;        /* from piece to piece */
    int pieces;
    float *logits, *prob, *gate, *passed;
    int32_t *chosen, *arg_max;
    double *lse, *entropy;
    unsigned char *used;
};

/* One warp's shared memory. */
struct row_memory {
    float *z, *p;         /* (E) */
    unsigned char *taken; /* (E) */
};
static constexpr int64_t ROW_BYTES = 2 * sizeof(float) + 1;

MX_DEVICE void put_padding(const chooser &r, int64_t t, int lane) {
    for (int64_t e = lane; e < r.experts; e += 32) {
        r.logits[t * r.experts + e] = 0;
        r.prob[t * r.experts + e] = 0;
    }
    for (int64_t k = lane; k < r.slots; k += 32) {
        r.chosen[t * r.slots + k] = -1;
        r.gate[t * r.slots + k] = 0;
    }
}

/* z, and p = softmax(z) in f64, rounded; also ln of the sum and the entropy, both in nats. */
MX_DEVICE void weigh(const chooser &r, const row_memory &m, int64_t t, int lane) {
    const float *from = r.products + t * r.pieces * r.stride;
    float top = -INFINITY;
    double sum = 0, mean = 0;

    for (int64_t e = lane; e < r.experts; e += 32) {
        float z = 0;

        for (int i = r.pieces - 1; i >= 0; i--) { /* the smallest first */
            z += from[i * r.stride + e];
        }
        m.z[e] = z;
        m.taken[e] = 0;
        top = fmaxf(top, z);
    }
    top = mx_warp_max(top);
    for (int64_t e = lane; e < r.experts; e += 32) {
        double v = exp((double)m.z[e] - (double)top);

        sum += v;
        m.p[e] = (float)v;
    }
    sum = mx_warp_sum(sum);
    for (int64_t e = lane; e < r.experts; e += 32) {
        float p = (float)(m.p[e] / sum);

        m.p[e] = p;
        mean += p > 0 ? p * ((double)m.z[e] - (double)top) : 0;
        r.logits[t * r.experts + e] = m.z[e];
        r.prob[t * r.experts + e] = p;
    }
    mean = mx_warp_sum(mean);
    if (lane == 0) {
        r.lse[t] = top + log(sum);
        r.entropy[t] = log(sum) - mean; /* -sum p ln p, as ln p = z - lse */
    }
    __syncwarp(); /* p is read by all lanes */
}

/* The likeliest expert that is left, which the lane that looks at it rules out from now on. */
MX_DEVICE int next_best(const row_memory &m, int64_t experts, int lane) {
    int best = mx_router_best(m.z, m.taken, experts);

    if (best % 32 == lane) {
        m.taken[best] = 1;
    }
    return best;
}

MX_DEVICE void choose_top_k(const chooser &r, const row_memory &m, int64_t t, int lane) {
    int32_t *chosen = r.chosen + t * r.slots;
    double sum = 0;

    for (int64_t k = 0; k < r.slots; k++) {
        int e = next_best(m, r.experts, lane);

        sum += m.p[e];
        if (lane == k % 32) { /* who will want it below */
            chosen[k] = e;
        }
    }
    for (int64_t k = lane; k < r.slots; k += 32) {
        r.gate[t * r.slots + k] = (float)(m.p[chosen[k]] / sum);
    }
}

MX_DEVICE void choose_top_p(const chooser &r, const row_memory &m, int64_t t, int lane) {
    double before = 0;
    int64_t k = 0;

    for (; k < r.slots && before <= r.top_p; k++) {
        int e = next_best(m, r.experts, lane);
        double weight = m.p[e] / r.temperature;

        if (lane == 0) {
            r.chosen[t * r.slots + k] = e;
            r.gate[t * r.slots + k] = (float)weight;
        }
        before += weight;
    }
    for (k += lane; k < r.slots; k += 32) {
        r.chosen[t * r.slots + k] = -1;
        r.gate[t * r.slots + k] = 0;
    }
}

MX_DEVICE void choose_switch(const chooser &r, const row_memory &m, int64_t t, int lane) {
    int e = next_best(m, r.experts, lane);

    if (lane == 0) {
        r.arg_max[t] = e;
        r.chosen[t] = e;
        r.gate[t] = m.p[e];
    }
}

static __global__ void choose_kernel(chooser r) {
    MX_DYNAMIC_SHARED(float, shared);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    int64_t t = (int64_t)blockIdx.x * warps + warp;
    row_memory m = { shared + warp * r.experts, shared + (warps + warp) * r.experts,
                     reinterpret_cast<unsigned char *>(shared + 2 * warps * r.experts) + warp * r.experts };

    if (t >= r.rows) { /* a warp's rows are its own: nobody waits for it */
        return;
    }
    if (r.passed && lane == 0) {
        r.passed[t] = 0;
    }
    if (t >= r.live) {
        put_padding(r, t, lane);
        return;
    }
    weigh(r, m, t, lane);
    if (r.routing == MX_ROUTE_TOP_K) {
        choose_top_k(r, m, t, lane);
    } else if (r.routing == MX_ROUTE_TOP_P) {
        choose_top_p(r, m, t, lane);
    } else {
        choose_switch(r, m, t, lane);
    }
    for (int64_t e = lane; e < r.experts; e += 32) {
        r.used[t * r.experts + e] = m.taken[e];
    }
}

static void choose(mx_cuda *c, const mx_router *r, const work &w) {
    size_t bytes = (size_t)(ROW_BYTES * r->experts);
    unsigned warps = mx_router_warps(bytes);
    chooser v = {};

    v.routing = r->routing;
    v.rows = r->rows->rows;
    v.live = r->rows->live;
    v.experts = r->experts;
    v.slots = r->slots;
    v.top_p = r->top_p;
    v.temperature = r->temperature > 0 ? r->temperature : 1.0;
    v.products = w.products ? w.products : r->logits;
    v.stride = w.products ? mx_router_padded(r->experts) : r->experts;
    v.pieces = w.products ? 3 : 1;
    v.logits = r->logits;
    v.prob = r->prob;
    v.gate = r->gate;
    v.passed = r->passed;
    v.chosen = r->chosen;
    v.arg_max = w.left.arg_max;
    v.lse = w.left.lse;
    v.entropy = w.left.entropy;
    v.used = w.left.used;
    mx_launch(c, "router: choose", choose_kernel, dim3(mx_blocks(v.rows, warps)), dim3(32 * warps), bytes * warps, v);
}

/* ------------------------------------------------------------------ capacity */
struct queue_view {
    const mx_segment *segment;
    const int32_t *arg_max;
    int64_t capacity, experts;
    int32_t *chosen;
    float *gate, *passed;
};

/* Rows [begin, begin + count) join the queues in order, 32 at a time; those behind the capacity are sent past, when `counts`. */
MX_DEVICE void queue_up(const queue_view &v, int *queue, int64_t begin, int64_t count, bool counts) {
    int lane = (int)threadIdx.x;

    for (int64_t i = 0; i < count; i += 32) {
        bool here = i + lane < count;
        int64_t t = begin + i + lane;
        int wanted = here ? v.arg_max[t] : -1;
        unsigned alike = __match_any_sync(MX_WARP, wanted), ahead = alike & ((1u << lane) - 1);
        int place = here ? queue[wanted] + __popc(ahead) : 0;

        __syncwarp();
        if (here && !(alike >> lane >> 1)) { /* the last of those alike */
            queue[wanted] = place + 1;
        }
        if (here && counts && place >= v.capacity) {
            v.passed[t] = v.gate[t];
            v.chosen[t] = -1;
            v.gate[t] = 0;
        }
        __syncwarp();
    }
}

/* A token is past the capacity when `capacity` tokens of its sequence before it wanted the same expert. A prefix is counted
 * anew for every segment that reads it: each goes on from the prefix's end, not from its siblings'. A warp to a segment. */
static __global__ void __launch_bounds__(32) capacity_kernel(queue_view v) {
    MX_DYNAMIC_SHARED(int, queue);
    mx_segment s = v.segment[blockIdx.x];

    for (int64_t e = threadIdx.x; e < v.experts; e += 32) {
        queue[e] = 0;
    }
    __syncwarp();
    queue_up(v, queue, s.prefix_begin, s.prefix_count, false);
    queue_up(v, queue, s.begin, s.count, true);
}

static void apply_capacity(mx_cuda *c, const mx_router *r, const work &w) {
    queue_view v = { r->rows->segment, w.left.arg_max, r->capacity, r->experts, r->chosen, r->gate, r->passed };

    mx_launch(c, "router: capacity", capacity_kernel, dim3((unsigned)r->rows->segments), dim3(32), sizeof(int) * (size_t)r->experts, v);
}

/* ------------------------------------------------------------------ forward */
static void check(const mx_router *r) {
    assert(r->experts >= 1 && r->slots >= 1 && r->slots <= r->experts);
    assert(r->routing != MX_ROUTE_TOP_P || r->slots == r->experts);
    assert(r->routing != MX_ROUTE_SWITCH || (r->slots == 1 && r->passed && r->capacity >= 0));
    (void)r;
}

void mx_cuda_router_forward(mx_backend *q, const mx_router *r) {
    mx_cuda *c = mx_cuda_of(q);
    size_t mark = c->scratch.used;
    bool bf16 = mx_cuda_bf16(c);
    work w = take(&c->scratch, r, bf16);
    int64_t rows = r->rows->rows, width = r->x.dim[1], columns = 3 * mx_router_padded(r->experts);

    check(r);
    assert(r->x.dtype == mx_activation_type(q));
    if (bf16) {
        mx_cuda_router_split(c, w.pieces, r->w, r->experts, width, mx_router_order{ { 0, 1, 2 } });
        mx_cuda_gemm(c, rows, columns, width, mx_matrix_of(r->x.data, MX_BF16, width), mx_matrix_transposed(w.pieces, MX_BF16, width),
                     mx_matrix_of(w.products, MX_F32, columns), 1.0f, false);
    } else {
        mx_cuda_gemm(c, rows, r->experts, width, mx_matrix_of(r->x.data, MX_F32, width), mx_matrix_transposed(r->w, MX_F32, width),
                     mx_matrix_of(r->logits, MX_F32, r->experts), 1.0f, false);
    }
    choose(c, r, w);
    if (r->routing == MX_ROUTE_SWITCH) {
        apply_capacity(c, r, w);
    }
    mx_cuda_router_sum(c, r, w.left);
    mx_cuda_reset(&c->scratch, mark);
}
