/* ops.h - every numeric operation mixrun knows, once.
 *
 * A backend is a full table of these. There is no fallback from one backend to another: a table
 * with a hole is refused when the backend opens. Ops are as coarse as the fastest backend needs, so
 * that it may fuse; the CPU's are the specification.
 *
 * Letters: T rows (tokens of all packed segments), C hidden width, O outputs of a linear, I inner
 * width of the feed-forward block, H heads, G key/value heads, D head width, R rank, E experts,
 * K slots (experts a token may use), V vocabulary, N loss rows.
 * "act" is the precision's activation type (f32 or bf16); everything else states its type. Sums are
 * accumulated in f32 or wider. bf16 is rounded (to nearest even) when an act tensor is written, nowhere else,
 * except where an op says that it may use bf16 copies of f32 factors in a product.
 *
 * Gradients: that of a trained tensor is added (+=), so micro-batches accumulate; that of an
 * activation is written (=) unless the op says +=. A NULL gradient pointer is not computed.
 *
 * `saved` memory is the backend's own business: the op's *_saved_bytes says how much one call site
 * needs (it looks at shapes, counts and at which pointers are NULL, and follows none to data: when planning, any
 * non-NULL value stands for "there will be one"), forward fills it, backward reads it. `scratch` is one region
 * shared by all calls in turn; *_scratch_bytes says how much a call needs, under the same rule; the caller hands in
 * the maximum with mx_ops.scratch. Nothing else is allocated.
 * No op reads a device value back to the host. */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include "kernels/backend.h"

/* A run of rows that is one sequence. Row i of it sits at position prefix_count + i (plus the prefix's
 * own prefix, which there is none of: prefixes are one deep) and sees its prefix whole and itself causally.
 * Prefix rows are the rows [prefix_begin, prefix_begin + prefix_count) of the same batch. */
typedef struct mx_segment {
    int32_t begin, count;
    int32_t prefix_begin, prefix_count; /* count 0: none */
} mx_segment;

/* What ops need to know of the packed rows. Arrays on the device, `rows` long; rows past `live` are padding up
 * to a bucket: ops may compute them, but nothing they hold may reach a live row, a gradient or a tally. */
typedef struct mx_rows {
    int64_t rows, live;
    const int32_t *token;
    const int32_t *position;
    const int32_t *question; /* names the dropout mask's row together with position */
    const int32_t *task;     /* < tasks of the tally */
    const mx_segment *segment;
    int64_t segments;
    const int32_t *row_segment; /* the segment of each row */
} mx_rows;

/* Dropout or jitter at one input, see base/rng.h. rate 0: off. */
typedef struct mx_noise {
    uint64_t seed, step;
    uint32_t site; /* which input: unique in the model */
    float rate;
} mx_noise;

/* ------------------------------------------------------------------ frozen linears with low-rank terms
 *
 * One term:  y[t,o] += w[t] s e[o] sum_r B[o,r] d[r] (A xd[t])[r]     for begin <= t < end,
 * xd = dropout(x). LoRA: s = alpha/r, the vectors NULL (arXiv:2106.09685 eq. 3). VeRA: d = lambda_d,
 * e = lambda_b. Many adapters on one base: one term each with its row range. In bf16 the products may use bf16
 * copies of A, B and u. */
typedef struct mx_low_rank {
    const float *a; /* (R, in) */
    const float *b; /* (O, R)  */
    int64_t rank;
    float scale;
    const float *rank_scale; /* d (R)   or NULL */
    const float *out_scale;  /* e (O)   or NULL */
    const float *row_weight; /* w (T)   or NULL */
    int64_t begin, end;      /* rows; end -1: all */
    float *da, *db, *drank_scale, *dout_scale, *drow_weight; /* +=; NULL: frozen */
} mx_low_rank;

/* z = W x + sum of terms;  y = c . z + bias  (c NULL: 1).
 * DoRA: c = m / n, n = row norms of W + sBA, a constant for the gradient (arXiv:2402.09353 eq. 5, section 4.3);
 * dc[o] += sum_t dy[t,o] z[t,o], for which z is saved. The bias is not scaled (as PEFT). */
typedef struct mx_linear {
    const mx_weight *w; /* (out, in) */
    const float *bias;  /* (out) or NULL */
    int64_t out;
    mx_low_rank *term;
    int64_t terms;
    const float *c; /* (out) or NULL */
    float *dc;
    mx_tensor y;  /* act (T, out), written by forward */
    mx_tensor dy; /* act (T, out), read by backward */
} mx_linear;

/* Linears that read the same input: q, k, v, or gate and up, or one alone. One dropout mask for all. */
typedef struct mx_linears {
    const mx_rows *rows;
    mx_tensor x; /* act (T, in) */
    int64_t in;
    mx_noise dropout;
    mx_linear *linear;
    int64_t linears;
    bool training; /* false: saved may be NULL and nothing is kept */
    void *saved;
    mx_tensor dx;   /* act (T, in); data NULL: not wanted (first layer) */
    bool dx_adds;   /* dx += instead of = */
} mx_linears;

/* ------------------------------------------------------------------ attention */
/* o = softmax(q k^T / sqrt(D) + causal and prefix mask) v for each segment; q and k already rotated.
 * D at most 512. Query head h reads key/value head h / (H/G). lse (T,H) f32 is kept for backward, which needs o as well. */
typedef struct mx_attention {
    const mx_rows *rows;
    int64_t heads, kv_heads, head_dim;
    mx_tensor q, k, v, o; /* act (T, H*D), (T, G*D), (T, G*D), (T, H*D) */
    float *lse;           /* (T, H) */
    mx_tensor dq, dk, dv, d_o; /* dk and dv of prefix rows sum over all who read them */
} mx_attention;

/* ------------------------------------------------------------------ routing */
typedef enum mx_routing { MX_ROUTE_TOP_K, MX_ROUTE_SWITCH, MX_ROUTE_TOP_P } mx_routing;

/* Sums a router leaves behind, on the device, adding (+=) until the host zeroes them. Shared tokens (prefix rows)
 * are rows, so they count once. `tasks` planes of each:
 *   tokens (tasks,E) i64: token slots an expert really computed; dropped (tasks,E) i64: past its capacity;
 *   probability (tasks,E) f64: sum of softmax over all E; entropy (tasks) f64: sum of -p ln p (nats);
 *   rows (tasks) i64: tokens seen; pairs (tasks,E,E) i64: i < j used by one token together (may be NULL). */
typedef struct mx_router_tally {
    int64_t *tokens, *dropped, *rows, *pairs;
    double *probability, *entropy;
    int64_t tasks;
} mx_router_tally;

/* Sums over all layers of one micro-batch, for the losses: (E) chosen (slots; for switch the arg-max before the
 * capacity), (E) probability, and z = sum of logsumexp^2; f64, zeroed by the caller before the first layer. */
typedef struct mx_router_sums {
    double *chosen, *probability, *z;
} mx_router_sums;

/* logits = Wg xr in f32 (x is widened), p = softmax over all E; then
 *   top_k:  the K largest, ties to the lower expert, gate = p / their sum        arXiv:2404.15159 section 3.2
 *   top_p:  by falling p, an expert is kept while the sum before it is <= top_p; gate = p as it is; K = E;
 *           temperature > 0: p is divided by it first (the reference's form)
 *   switch: arg-max, gate = p_max as it is; at most `capacity` tokens per sequence and expert, in order of
 *           position, a segment's count going on from its prefix's; past it chosen = -1 and passed = p_max,
 *           and the block's output is passed * x                                  arXiv:2101.03961
 * jitter (training): xr = x * U(1-eps, 1+eps); U from the noise's words as 16 bits like dropout. For top_k and
 * top_p the experts see xr as well, for switch they see x: so xr is the caller's (ops.jitter). */
typedef struct mx_router {
    const mx_rows *rows;
    mx_routing routing;
    int64_t experts, slots; /* E, K: top_k K = k, top_p K = E, switch K = 1 */
    double top_p, temperature;
    int64_t capacity; /* per sequence and expert, in tokens */
    mx_tensor x;      /* act (T, C) */
    const float *w;   /* (E, C) */
    float *logits, *prob; /* (T, E), kept */
    int32_t *chosen;      /* (T, K); -1: none */
    float *gate;          /* (T, K); 0 where none */
    float *passed;        /* (T) switch: p_max of an overflowing token, else 0; NULL otherwise */
    mx_router_tally tally; /* tokens NULL: not wanted */
    mx_router_sums sums;   /* chosen NULL: not wanted */

    /* backward */
    const float *dgate, *dpassed; /* from the experts op */
    /* total += share * (balance_coef * E * sum_i F_i P_i + z_coef * mean lse^2), F_i = chosen_i/rows_all,
     * P_i = probability_i/rows_all, z = z/rows_all, over the `sums` as they stand after the whole forward pass;
     * rows_all = layers * live rows. F is a constant for the gradient. */
    double balance_coef, z_coef, share, rows_all;
    float *dw;        /* (E, C) += */
    float *dw_losses; /* (E, C) += the part that comes from the router losses alone (checks); NULL: not wanted */
    mx_tensor dx;     /* act (T, C) += */
} mx_router;

/* ------------------------------------------------------------------ the routed feed-forward block
 *
 * Expert e: a = W1 x + D1_e(x), b = W3 x + D3_e(x), h = silu(a) * b, out = W2 h + D2_e(h), D_e(u) = s B_e A_e drop(u);
 * with DoRA each linear is c_e . (W u + s B_e A_e drop(u)) (biases unscaled, added after).
 * y = sum over slots of gate * expert(x), and passed * x for overflowing tokens. MixLoRA, arXiv:2404.15159 section 3.
 * forms: naive    every expert's whole FFN on its rows
 *        shared   W1 x and W3 x once per token (the paper's section 3.3)
 *        factored W2 once per token as well, W2 (sum gate h): exact, but not with c on down
 * All three give equal values and gradients. One dropout mask for the block's input; for down's input one per slot,
 * noise.site + 1 + slot. */
typedef enum mx_experts_form { MX_EXPERTS_FACTORED, MX_EXPERTS_SHARED, MX_EXPERTS_NAIVE } mx_experts_form;

typedef struct mx_expert_linear {
    const mx_weight *w; /* (out, in) */
    const float *bias;  /* (out) or NULL */
    const float *a, *b; /* (E, R, in), (E, out, R); NULL: this linear carries no adapter */
    int64_t rank;
    float scale;
    const float *c; /* (E, out): DoRA's m/n, or NULL */
    float *da, *db, *dc; /* += */
} mx_expert_linear;

typedef struct mx_experts {
    const mx_rows *rows;
    mx_experts_form form;
    int64_t experts, slots, hidden, inner; /* E, K, C, I */
    mx_expert_linear gate_proj, up_proj, down_proj; /* W1, W3, W2 */
    mx_noise dropout; /* site: the block's input */
    const int32_t *chosen; /* (T, K) */
    const float *gate;     /* (T, K) */
    const float *passed;   /* (T) or NULL */
    mx_tensor x, y;        /* act (T, C) */
    bool training;
    void *saved;
    mx_tensor dy;   /* act (T, C) */
    mx_tensor dx;   /* act (T, C), = (the router adds to it afterwards) */
    float *dgate;   /* (T, K), = */
    float *dpassed; /* (T), = */
} mx_experts;

/* ------------------------------------------------------------------ losses */
/* The head on gathered loss rows, chunk by chunk: never more than a chunk's logits exist.
 *   nll[n] = logsumexp(z[n]) - z[n, target[n]],  z = W x[n];   g[n] = W^T (softmax(z[n]) - onehot(target[n]))
 * g is the gradient of nll[n] alone; the loss ops below scale it row by row, so one pass suffices even when
 * the weights depend on all nlls (objective: choice). In bf16 the second product may use a bf16 copy of the
 * bracket. */
typedef struct mx_head {
    const mx_weight *w; /* (V, C) */
    int64_t vocab;
    int64_t rows;          /* N */
    mx_tensor x;           /* act (N, C) */
    const int32_t *target; /* (N) */
    float *nll;            /* (N) */
    mx_tensor g;           /* act (N, C); data NULL: not wanted */
} mx_head;

/* A choice's (or sequence's) answer: loss rows [begin, begin + count) of the batch. */
typedef struct mx_span {
    int32_t begin, count;
    int32_t question; /* index into the micro-batch's questions */
    int32_t choice;   /* 0.. */
} mx_span;

/* Numbers of one optimizer step, on the device; zeroed by the caller at its start. */
typedef struct mx_numbers {
    double loss;       /* the objective's part of total, this step's micro-batches added up */
    double nll;        /* sum of nll over the loss rows that belong to it */
    double balance, z; /* unweighted router losses times share, added up */
    double grad_norm;  /* before clipping */
    double skipped;    /* 1: something was not finite in this step or one before it, the optimizer changed nothing */
} mx_numbers;

/* language_model: loss = sum nll / step_tokens;  scale[n] = 1 / step_tokens.
 * choice: for each question q of the micro-batch with spans c: l_c = -(mean of nll over the span), p = softmax_c(l),
 *   loss = -ln p_gold / step_questions; scale[n in c] = (p_c... sign as the derivative demands) / (count_c step_questions). */
typedef struct mx_objective {
    bool choice;
    const float *nll; /* (N) */
    int64_t rows;     /* N */
    const mx_span *span;
    int64_t spans;              /* ordered by question */
    const int32_t *gold;        /* (questions): the right choice */
    const int32_t *first_span;  /* (questions + 1) */
    int64_t questions;
    double step_tokens, step_questions; /* of the whole optimizer step */
    float *scale;               /* (N): d total / d nll */
    mx_numbers *numbers;
} mx_objective;

/* ------------------------------------------------------------------ optimizer */
typedef struct mx_adamw_group {
    int64_t begin, count; /* of the flat vector */
    double lr_ratio, weight_decay;
} mx_adamw_group;

/* p <- p (1 - lr wd); p <- p - lr m^ / (sqrt(v^) + eps), bias-corrected (arXiv:1711.05101). The gradient is first
 * scaled by min(1, max_norm / norm) (max_norm 0: never). When the norm or numbers->loss is not finite nothing is
 * changed and numbers->skipped becomes 1; when it is 1 already nothing is changed either, so that steps queued behind a
 * broken one do no harm. The gradient is left as it is. */
typedef struct mx_adamw {
    float *p, *m, *v;
    const float *g;
    int64_t count;
    const mx_adamw_group *group; /* host memory */
    int64_t groups;
    int64_t step; /* from 1 */
    double lr, beta1, beta2, eps, max_norm;
    mx_numbers *numbers;
} mx_adamw;

/* n[o] = || W[o,:] + s B[o,:] A ||, from ||W||^2 + 2 s rowsum((W A^T) . B) + s^2 rowsum((B (A A^T)) . B): BA is never
 * built (METHODS 2.4). `experts` of them share W. c = m / n. */
typedef struct mx_dora {
    const mx_weight *w;
    int64_t out, in, rank, experts;
    const float *a, *b; /* (E, R, in), (E, out, R) */
    float scale;
    const float *m;     /* (E, out) */
    float *n, *c;       /* (E, out) written */
    const float *dc;    /* (E, out) */
    float *dm;          /* (E, out) += dc / n */
} mx_dora;

struct mx_ops {
    /* Device scratch for all calls that follow. */
    void (*scratch)(mx_backend *q, void *memory, size_t bytes);

    /* y[t,:] = E[token[t],:].  y act (T,C). */
    void (*embed)(mx_backend *q, mx_tensor y, const mx_weight *table, const mx_rows *rows);

    /* y = x rstd w, rstd = 1/sqrt(mean x^2 + eps); rstd (T) f32 kept. arXiv:1910.07467 eq. 4. w (C) f32.
     * backward: dx += (adds to the residual's gradient). */
    void (*rmsnorm_forward)(mx_backend *q, mx_tensor y, float *rstd, mx_tensor x, const float *w, float eps);
    void (*rmsnorm_backward)(mx_backend *q, mx_tensor dx, mx_tensor dy, mx_tensor x, const float *rstd, const float *w);

    /* Rotary embedding in place, Hugging Face layout: pairs (j, j + D/2) of each head, angle = position *
     * inverse[j] (D/2 f32, LLaMA-3's scaling already in it; computed in f64 on the host). inverse direction: backward. */
    void (*rope)(mx_backend *q, mx_tensor x, int64_t heads, int64_t head_dim, const mx_rows *rows, const float *inverse,
                 bool backward);

    size_t (*linears_saved_bytes)(const mx_backend *q, const mx_linears *l);
    size_t (*linears_scratch_bytes)(const mx_backend *q, const mx_linears *l);
    void (*linears_forward)(mx_backend *q, const mx_linears *l);
    void (*linears_backward)(mx_backend *q, const mx_linears *l);

    size_t (*attention_scratch_bytes)(const mx_backend *q, const mx_attention *a);
    void (*attention_forward)(mx_backend *q, const mx_attention *a);
    void (*attention_backward)(mx_backend *q, const mx_attention *a);

    /* h = silu(g) * u; backward writes dg, du. All act (T, I). dg may be g's memory, du u's, h dh's. */
    void (*swiglu_forward)(mx_backend *q, mx_tensor h, mx_tensor g, mx_tensor u);
    void (*swiglu_backward)(mx_backend *q, mx_tensor dg, mx_tensor du, mx_tensor dh, mx_tensor g, mx_tensor u);

    /* y = a + b, act; y may be a or b. */
    void (*add)(mx_backend *q, mx_tensor y, mx_tensor a, mx_tensor b);
    /* xr = x * U(1-eps, 1+eps) by (question, position, site, column); backward: dx += dxr * the same. rate is eps. */
    void (*jitter_forward)(mx_backend *q, mx_tensor xr, mx_tensor x, const mx_rows *rows, mx_noise noise);
    void (*jitter_backward)(mx_backend *q, mx_tensor dx, mx_tensor dxr, const mx_rows *rows, mx_noise noise);

    size_t (*router_scratch_bytes)(const mx_backend *q, const mx_router *r);
    void (*router_forward)(mx_backend *q, const mx_router *r);
    void (*router_backward)(mx_backend *q, const mx_router *r);
    /* numbers->balance += share * E sum F P; numbers->z += share * z / rows_all, from r->sums. */
    void (*router_losses)(mx_backend *q, const mx_router *r, mx_numbers *numbers);

    size_t (*experts_saved_bytes)(const mx_backend *q, const mx_experts *x);
    size_t (*experts_scratch_bytes)(const mx_backend *q, const mx_experts *x);
    /* NULL, or in words why this block is computed by kernels far slower than the usual ones. For a plan; follows no pointer to
     * data. */
    const char *(*experts_slow)(const mx_backend *q, const mx_experts *x);
    void (*experts_forward)(mx_backend *q, const mx_experts *x);
    void (*experts_backward)(mx_backend *q, const mx_experts *x);

    /* y[n,:] = x[row[n],:]; scatter: dx = 0, then dx[row[n],:] += scale[n] g[n,:], in order of n (rows may repeat). */
    void (*gather_rows)(mx_backend *q, mx_tensor y, mx_tensor x, const int32_t *row, int64_t n);
    void (*scatter_rows)(mx_backend *q, mx_tensor dx, mx_tensor g, const float *scale, const int32_t *row, int64_t n);

    size_t (*head_scratch_bytes)(const mx_backend *q, const mx_head *h);
    void (*head_loss)(mx_backend *q, const mx_head *h);
    /* logits (N,V) f32 of x (N,C). */
    void (*head_logits)(mx_backend *q, float *logits, const mx_weight *w, mx_tensor x);
    void (*objective)(mx_backend *q, const mx_objective *o);

    void (*adamw)(mx_backend *q, const mx_adamw *a);

    /* (out) f32: ||W[o,:]||. */
    void (*row_norms)(mx_backend *q, float *norm, const mx_weight *w);
    size_t (*dora_scratch_bytes)(const mx_backend *q, const mx_dora *d);
    void (*dora_forward)(mx_backend *q, const mx_dora *d);  /* n, c */
    void (*dora_backward)(mx_backend *q, const mx_dora *d); /* dm */
};

/* The name of the first op the table lacks, or NULL when it is complete. */
const char *mx_ops_missing(const mx_ops *ops);

#endif
