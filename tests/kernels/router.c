/* router.c - the three routings against their definitions in double, what they tally, and the gradients against
 * central differences with the choice and the loads held fixed, as the definition has them.
 *
 * Logits are sums of 23 products in f32: 1e-5. Gradients pass one more such sum over tokens: 1e-4. In bf16 only dx is
 * rounded (2^-9): 4e-3. */
#include "tests/kernels/kit.h"

enum { T = 29, LIVE = 26, C = 23, E = 5, TASKS = 2 };

typedef struct problem {
    kit_rows batch;
    double *x, *w, *dgate, *dpassed, *dx; /* dx: what is there already */
    mx_router r;
} problem;

static problem make(mx_backend *b, mx_routing routing, int64_t slots) {
    problem p = { .batch = kit_batch(b, T, LIVE) };
    mx_rng rng;

    mx_rng_init(&rng, 4, "router");
    p.x = kit_values(&rng, T * C, 1);
    p.w = kit_values(&rng, E * C, 0.6);
    p.dgate = kit_values(&rng, T * slots, 1);
    p.dpassed = kit_values(&rng, T, 1);
    p.dx = kit_values(&rng, T * C, 0.01);
    for (int64_t t = 0; t < T; t++) {
        p.batch.task[t] = (int32_t)(t % TASKS);
    }
    p.r = (mx_router){
        .routing = routing, .experts = E, .slots = slots, .top_p = 0.7, .capacity = 4,
        .x = kit_tensor(b, p.x, T, C), .w = kit_floats(b, p.w, E * C),
        .logits = kit_floats(b, NULL, T * E), .prob = kit_floats(b, NULL, T * E),
        .chosen = kit_memory(b, sizeof(int32_t) * (size_t)(T * slots)), .gate = kit_floats(b, NULL, T * slots),
        .passed = routing == MX_ROUTE_SWITCH ? kit_floats(b, NULL, T) : NULL,
        .tally = { .tokens = kit_memory(b, sizeof(int64_t) * TASKS * E), .dropped = kit_memory(b, sizeof(int64_t) * TASKS * E),
                   .rows = kit_memory(b, sizeof(int64_t) * TASKS), .pairs = kit_memory(b, sizeof(int64_t) * TASKS * E * E),
                   .probability = kit_memory(b, sizeof(double) * TASKS * E), .entropy = kit_memory(b, sizeof(double) * TASKS),
                   .tasks = TASKS },
        .sums = { kit_memory(b, sizeof(double) * E), kit_memory(b, sizeof(double) * E), kit_memory(b, sizeof(double)) },
        .dgate = kit_floats(b, p.dgate, T * slots),
        .dpassed = routing == MX_ROUTE_SWITCH ? kit_floats(b, p.dpassed, T) : NULL,
        .balance_coef = 0.3, .z_coef = 0.2, .share = 0.6, .rows_all = LIVE,
        .dw = kit_floats(b, p.w, E * C), .dw_losses = kit_floats(b, NULL, E * C), .dx = kit_tensor(b, p.dx, T, C),
    };
    return p;
}

/* A problem is returned by value: its rows are where the caller keeps it. */
static void settle(problem *p, mx_backend *b) {
    p->r.rows = &p->batch.rows;
    kit_scratch(b, b->ops->router_scratch_bytes(b, &p->r));
}

static void softmax(const problem *p, int64_t t, double *z, double *prob, double *lse) {
    double sum = 0;

    for (int64_t e = 0; e < E; e++) {
        z[e] = 0;
        for (int64_t i = 0; i < C; i++) {
            z[e] += p->w[e * C + i] * p->x[t * C + i];
        }
        sum += exp(z[e]);
    }
    for (int64_t e = 0; e < E; e++) {
        prob[e] = exp(z[e]) / sum;
    }
    *lse = log(sum);
}

/* Experts by falling probability. */
static void rank_experts(const double *prob, int *order) {
    for (int e = 0; e < E; e++) {
        order[e] = e;
    }
    for (int i = 1; i < E; i++) {
        for (int j = i; j > 0 && prob[order[j]] > prob[order[j - 1]]; j--) {
            int swap = order[j];

            order[j] = order[j - 1];
            order[j - 1] = swap;
        }
    }
}

static void check_row(const problem *p, int64_t t) {
    const mx_router *r = &p->r;
    double z[E], prob[E], lse, sum = 0, before = 0;
    int order[E];

    softmax(p, t, z, prob, &lse);
    rank_experts(prob, order);
    for (int64_t k = 0; k < r->slots; k++) {
        sum += prob[order[k]];
    }
    for (int64_t e = 0; e < E; e++) {
        cr_assert(fabs(r->logits[t * E + e] - z[e]) <= 1e-5 && fabs(r->prob[t * E + e] - prob[e]) <= 1e-5);
    }
    for (int64_t k = 0; k < r->slots; k++) {
        double p_k = prob[order[k]] / (r->temperature > 0 ? r->temperature : 1);
        bool kept = r->routing != MX_ROUTE_TOP_P || before <= r->top_p;
        double gate = !kept ? 0 : r->routing == MX_ROUTE_TOP_K ? prob[order[k]] / sum : p_k;

        cr_assert_eq(r->chosen[t * r->slots + k], kept ? order[k] : -1, "token %ld, place %ld", (long)t, (long)k);
        cr_assert(fabs(r->gate[t * r->slots + k] - gate) <= 1e-5, "token %ld, place %ld: gate %.7g, not %.7g", (long)t,
                  (long)k, r->gate[t * r->slots + k], gate);
        before += p_k;
    }
}

Test(router, top_k_and_top_p_choose_by_their_definitions) {
    static const struct {
        mx_routing routing;
        int64_t slots;
        double top_p, temperature;
    } CASES[] = {
        { MX_ROUTE_TOP_K, 1, 0, 0 },   { MX_ROUTE_TOP_K, 2, 0, 0 },     { MX_ROUTE_TOP_K, E, 0, 0 },
        { MX_ROUTE_TOP_P, E, 0.7, 0 }, { MX_ROUTE_TOP_P, E, 0, 0 },     { MX_ROUTE_TOP_P, E, 1, 0 },
        { MX_ROUTE_TOP_P, E, 0.7, 2 }, { MX_ROUTE_TOP_P, E, 0.7, 0.5 },
    };
    mx_precision precision;

    KIT_EACH_PRECISION(precision) {
        mx_backend *b = kit_open(precision, 1, false);

        for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
            problem p = make(b, CASES[i].routing, CASES[i].slots);

            settle(&p, b);
            p.r.top_p = CASES[i].top_p;
            p.r.temperature = CASES[i].temperature;
            b->ops->router_forward(b, &p.r);
            for (int64_t t = 0; t < LIVE; t++) {
                check_row(&p, t);
            }
            for (int64_t j = LIVE * p.r.slots; j < T * p.r.slots; j++) {
                cr_assert(p.r.chosen[j] == -1 && p.r.gate[j] == 0, "padding chose an expert");
            }
        }
        b->close(b);
    }
}

Test(router, ties_go_to_the_lower_expert) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    problem k = make(b, MX_ROUTE_TOP_K, 3), all = make(b, MX_ROUTE_TOP_P, E);
    problem *both[] = { &k, &all };

    for (int i = 0; i < 2; i++) {
        settle(both[i], b);
        both[i]->r.top_p = 0.5;
        memset((float *)both[i]->r.w, 0, sizeof(float) * E * C);
        b->ops->router_forward(b, &both[i]->r);
    }
    for (int64_t t = 0; t < LIVE; t++) {
        cr_assert(k.r.chosen[3 * t] == 0 && k.r.chosen[3 * t + 1] == 1 && k.r.chosen[3 * t + 2] == 2);
        /* fifths: before the third lie 0.4, before the fourth 0.6 */
        cr_assert(all.r.chosen[E * t + 2] == 2 && all.r.chosen[E * t + 3] == -1);
    }
    b->close(b);
}

Test(router, a_switch_expert_serves_its_capacity_in_order_and_each_choice_goes_on_from_its_prefix) {
    /* Rows 0..1 are a prefix read by rows 2..4 and by rows 5..6; rows 7..11 stand alone. Capacity 3, one expert wanted. */
    static const mx_segment SEGMENTS[] = { { 0, 2, 0, 0 }, { 2, 3, 0, 2 }, { 5, 2, 0, 2 }, { 7, 5, 0, 0 } };
    static const bool SERVED[] = { true, true, true, false, false, true, false, true, true, true, false, false };
    enum { ROWS = sizeof SERVED };
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    problem p = make(b, MX_ROUTE_SWITCH, 1);
    int64_t tokens = 0, dropped = 0;

    settle(&p, b);
    p.batch.segment = kit_memory(b, sizeof SEGMENTS);
    memcpy(p.batch.segment, SEGMENTS, sizeof SEGMENTS);
    p.batch.rows.segment = p.batch.segment;
    p.batch.rows.segments = 4;
    p.batch.rows.live = ROWS;
    p.r.capacity = 3;
    for (int64_t e = 0; e < E; e++) {
        for (int64_t i = 0; i < C; i++) {
            ((float *)p.r.w)[e * C + i] = e == 3 && i == 0 ? 1 : 0;
        }
    }
    for (int64_t t = 0; t < ROWS; t++) {
        ((float *)p.r.x.data)[t * C] = 1;
    }
    b->ops->router_forward(b, &p.r);
    for (int64_t t = 0; t < ROWS; t++) {
        float p_max = p.r.prob[t * E + 3];

        cr_assert_eq(p.r.chosen[t], SERVED[t] ? 3 : -1, "row %ld", (long)t);
        cr_assert_eq(p.r.gate[t], SERVED[t] ? p_max : 0, "row %ld", (long)t);
        cr_assert_eq(p.r.passed[t], SERVED[t] ? 0 : p_max, "row %ld", (long)t);
    }
    for (int64_t i = 0; i < TASKS * E; i++) {
        tokens += p.r.tally.tokens[i];
        dropped += p.r.tally.dropped[i];
    }
    cr_assert_eq(tokens, 7);
    cr_assert_eq(dropped, 5);
    cr_assert_eq(p.r.sums.chosen[3], ROWS, "the loads count what was wanted, not what was served");
    b->close(b);
}

Test(router, tallies_add_up_and_padding_is_nobody) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    problem p = make(b, MX_ROUTE_TOP_K, 2);
    const mx_router_tally *y = &p.r.tally;
    int64_t tokens[TASKS] = { 0 }, pairs[TASKS] = { 0 }, both[TASKS][E][E] = { 0 };
    double entropy[TASKS] = { 0 }, probability[TASKS] = { 0 }, squares = 0;

    settle(&p, b);
    b->ops->router_forward(b, &p.r);
    b->ops->router_forward(b, &p.r); /* sums go on */
    for (int64_t t = 0; t < LIVE; t++) {
        const int32_t *chosen = p.r.chosen + 2 * t;
        double z[E], prob[E], lse;
        int low = chosen[0] < chosen[1] ? chosen[0] : chosen[1];

        softmax(&p, t, z, prob, &lse);
        both[t % TASKS][low][chosen[0] + chosen[1] - low] += 2;
        squares += 2 * lse * lse;
        for (int64_t e = 0; e < E; e++) {
            entropy[t % TASKS] -= 2 * prob[e] * log(prob[e]);
        }
    }
    for (int64_t task = 0; task < TASKS; task++) {
        for (int64_t e = 0; e < E; e++) {
            tokens[task] += y->tokens[task * E + e];
            probability[task] += y->probability[task * E + e];
            for (int64_t f = 0; f < E; f++) {
                pairs[task] += y->pairs[(task * E + e) * E + f];
                cr_assert_eq(y->pairs[(task * E + e) * E + f], both[task][e][f]);
            }
        }
        cr_assert_eq(tokens[task], 2 * y->rows[task], "loads add up to tokens times k");
        cr_assert_eq(pairs[task], y->rows[task], "two experts, one pair");
        cr_assert_float_eq(probability[task], (double)y->rows[task], 1e-4);
        cr_assert_float_eq(y->entropy[task], entropy[task], 1e-4);
    }
    cr_assert_eq(y->rows[0] + y->rows[1], 2 * LIVE);
    cr_assert_float_eq(*p.r.sums.z, squares, 1e-4);
    b->close(b);
}

/* ------------------------------------------------------------------ gradients */

/* What backward differentiates: gates and passed times what came back, and share times the losses, with the choice of
 * the forward pass and its loads held fixed. */
static double task_part(const problem *p, const int32_t *wanted) {
    const mx_router *r = &p->r;
    double total = 0, temperature = r->temperature > 0 ? r->temperature : 1;

    for (int64_t t = 0; t < LIVE; t++) {
        double z[E], prob[E], lse, sum = 0;

        softmax(p, t, z, prob, &lse);
        for (int64_t k = 0; k < r->slots; k++) {
            sum += r->chosen[t * r->slots + k] >= 0 ? prob[r->chosen[t * r->slots + k]] : 0;
        }
        for (int64_t k = 0; k < r->slots; k++) {
            int32_t e = r->chosen[t * r->slots + k];
            double scale = r->routing == MX_ROUTE_TOP_K ? sum : temperature;

            if (e >= 0) {
                total += p->dgate[t * r->slots + k] * prob[e] / scale;
            } else if (r->routing == MX_ROUTE_SWITCH) {
                total += p->dpassed[t] * prob[wanted[t]];
            }
        }
    }
    return total;
}

static double losses_part(const problem *p) {
    const mx_router *r = &p->r;
    double mean[E] = { 0 }, z2 = 0, balance = 0;

    for (int64_t t = 0; t < LIVE; t++) {
        double z[E], prob[E], lse;

        softmax(p, t, z, prob, &lse);
        z2 += lse * lse / r->rows_all;
        for (int64_t e = 0; e < E; e++) {
            mean[e] += prob[e] / r->rows_all;
        }
    }
    for (int64_t e = 0; e < E; e++) {
        balance += E * r->sums.chosen[e] / r->rows_all * mean[e];
    }
    return r->share * (r->balance_coef * balance + r->z_coef * z2);
}

static double slope(problem *p, const int32_t *wanted, double *value, bool task) {
    double kept = *value, step = 1e-5, up, down;

    *value = kept + step;
    up = losses_part(p) + (task ? task_part(p, wanted) : 0);
    *value = kept - step;
    down = losses_part(p) + (task ? task_part(p, wanted) : 0);
    *value = kept;
    return (up - down) / (2 * step);
}

static void check_gradients(mx_backend *b, mx_routing routing, int64_t slots, double temperature) {
    problem p = make(b, routing, slots);
    double *dw = kit_array(E * C), *dw_losses = kit_array(E * C), *dx = kit_array(T * C);
    int32_t wanted[T];
    mx_numbers *numbers = kit_memory(b, sizeof *numbers);

    *numbers = (mx_numbers){ .balance = 1, .z = 2 };
    settle(&p, b);
    p.r.temperature = temperature;
    b->ops->router_forward(b, &p.r);
    for (int64_t t = 0; t < LIVE; t++) {
        double z[E], prob[E], lse;
        int order[E];

        softmax(&p, t, z, prob, &lse);
        rank_experts(prob, order);
        wanted[t] = order[0];
    }
    b->ops->router_backward(b, &p.r);
    for (int64_t i = 0; i < E * C; i++) {
        dw[i] = p.w[i] + slope(&p, wanted, p.w + i, true); /* dw began as w, dx as p.dx: both are added to */
        dw_losses[i] = slope(&p, wanted, p.w + i, false);
    }
    for (int64_t i = 0; i < T * C; i++) {
        dx[i] = p.dx[i] + (i < LIVE * C ? slope(&p, wanted, p.x + i, true) : 0);
    }
    kit_near_floats("dw", dw, p.r.dw, E * C, 1e-4);
    kit_near_floats("dw of the losses", dw_losses, p.r.dw_losses, E * C, 1e-4);
    kit_near_tensor("dx", dx, p.r.dx, T * C, b->precision == MX_PRECISION_BF16 ? 4e-3 : 1e-4);
    b->ops->router_losses(b, &p.r, numbers);
    cr_assert_float_eq(p.r.balance_coef * (numbers->balance - 1) + p.r.z_coef * (numbers->z - 2), losses_part(&p), 1e-6);
}

Test(router, gradients_are_the_differences) {
    mx_precision precision;

    KIT_EACH_PRECISION(precision) {
        mx_backend *b = kit_open(precision, 1, false);

        check_gradients(b, MX_ROUTE_TOP_K, 2, 0);
        check_gradients(b, MX_ROUTE_TOP_K, 1, 0);
        check_gradients(b, MX_ROUTE_TOP_K, E, 0);
        check_gradients(b, MX_ROUTE_TOP_P, E, 0);
        check_gradients(b, MX_ROUTE_TOP_P, E, 1.5);
        check_gradients(b, MX_ROUTE_SWITCH, 1, 0);
        b->close(b);
    }
}

Test(router, threads_change_no_bit) {
    float dw[2][E * C], logits[2][T * E];
    double sums[2];

    for (int threads = 1; threads <= 2; threads++) {
        mx_backend *b = kit_open(MX_PRECISION_BF16, threads, false);
        problem p = make(b, MX_ROUTE_TOP_K, 2);

        settle(&p, b);
        b->ops->router_forward(b, &p.r);
        b->ops->router_backward(b, &p.r);
        memcpy(dw[threads - 1], p.r.dw, sizeof dw[0]);
        memcpy(logits[threads - 1], p.r.logits, sizeof logits[0]);
        sums[threads - 1] = p.r.sums.probability[2];
        b->close(b);
    }
    cr_assert_arr_eq(dw[0], dw[1], sizeof dw[0]);
    cr_assert_arr_eq(logits[0], logits[1], sizeof logits[0]);
    cr_assert_eq(sums[0], sums[1]);
}
