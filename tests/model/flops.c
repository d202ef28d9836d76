/* What a token costs, counted by hand for a shape small enough to do so. */
#include "model/layout.h"

#include "model/methods/method.h"

#include <criterion/criterion.h>

/* hidden 8, inner 12, one key/value head of width 4 for two heads: q (8,8), k and v (4,8), o (8,8), gate and up (12,8), down (8,12) */
static const mx_shape shape = { .architecture = "llama", .hidden = 8, .inner = 12, .layers = 3, .heads = 2, .kv_heads = 1,
                                .head_dim = 4, .vocab = 20, .max_positions = 64 };

enum {
    ATTENTION = (8 + 8) + (8 + 4) + (8 + 4) + (8 + 8), /* in + out of its linears: values of a pair of rank 1 */
    FFN = (8 + 12) + (8 + 12) + (12 + 8),
    LAYERS = 3,
};

typedef struct words {
    const char *method, *routing;
    int64_t rank, experts, k;
} words;

static double flops_of(words w, bool *ret_vary) {
    const mx_method *m = mx_method_find(w.method);
    mx_arena arena;
    void *config;
    double flops;

    mx_arena_init(&arena, 64 << 20);
    cr_assert_not_null(m);
    config = mx_method_defaults(m, &arena);
    if (mx_method_word(m, config, "lora_r")) {
        *(int64_t *)mx_method_word(m, config, "lora_r") = w.rank;
    }
    if (w.experts) {
        int64_t *expert = mx_method_word(m, config, "expert_lora"); /* its first word: their rank */

        *expert = w.rank;
        *(int64_t *)mx_method_word(m, config, "num_experts") = w.experts;
        *(int64_t *)mx_method_word(m, config, "top_k") = w.k;
        *(int *)mx_method_word(m, config, "routing_strategy") = strcmp(w.routing, "top_k") == 0 ? 0 : strcmp(w.routing, "switch") == 0 ? 1 : 2;
    }
    flops = mx_layout_flops(mx_layout_make(m, config, &shape, &arena));
    if (ret_vary) {
        *ret_vary = m->slots_vary && m->slots_vary(config);
    }
    mx_arena_finish(&arena);
    return flops;
}

Test(flops, a_pair_costs_two_forward_and_four_backward_for_each_value) {
    double forward = 2.0 * LAYERS * 5 * (ATTENTION + FFN);

    cr_assert_eq(flops_of((words){ "lora", NULL, 5, 0, 0 }, NULL), forward + 2 * forward);
    cr_assert_eq(flops_of((words){ "dora", NULL, 5, 0, 0 }, NULL), forward + 2 * forward, "what DoRA adds is elementwise, or once a step");
    cr_assert_eq(flops_of((words){ "base", NULL, 0, 0, 0 }, NULL), 0);
}

Test(flops, only_the_experts_a_token_uses_are_counted_and_the_router_whole) {
    static const struct {
        words w;
        int used;
        bool vary;
    } kase[] = {
        { { "mixlora", "top_k", 4, 6, 2 }, 2, false }, { { "mixlora", "top_k", 4, 6, 6 }, 6, false },
        { { "mixlora", "switch", 4, 6, 2 }, 1, false }, { { "mixlora", "top_p", 4, 6, 2 }, 6, true },
        { { "mixdora", "top_k", 4, 6, 3 }, 3, false },  { { "mixlora", "top_k", 4, 1, 1 }, 1, false },
    };

    for (size_t i = 0; i < sizeof kase / sizeof kase[0]; i++) {
        double values = LAYERS * (4.0 * (ATTENTION + kase[i].used * FFN) + (double)kase[i].w.experts * 8);
        bool vary = !kase[i].vary;

        cr_assert_eq(flops_of(kase[i].w, &vary), 6 * values, "case %zu: %g instead of %g", i, flops_of(kase[i].w, NULL), 6 * values);
        cr_assert_eq(vary, kase[i].vary, "case %zu", i);
    }
}

Test(flops, the_frozen_base_has_no_gradient_of_its_own) {
    double linears = LAYERS * (8.0 * 8 + 4 * 8 + 4 * 8 + 8 * 8 + 3 * 8 * 12), head = 20.0 * 8;

    cr_assert_eq(mx_shape_flops(&shape), 2 * (linears + head) + 2 * (linears + head));
}
