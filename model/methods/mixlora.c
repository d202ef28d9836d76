/* mixlora.c - a mixture of low-rank experts.
 *
 * arXiv:2404.15159. The mathematics and its forms are in parts/routed.h. */
#include "model/methods/parts/routed.h"

static void check(const void *config, const mx_node *map, mx_problems *problems) {
    mx_routed_check(config, false, map, problems);
}

static const mx_option_table table = {
    .name = "mixlora", .option = mx_routed_options, .synonym = mx_routed_synonyms, .size = sizeof(mx_routed_words),
    .check = check,
};

static void resolve(void *config) {
    mx_routed_resolve(config, false);
}

static void layout(const void *config, mx_layout *l) {
    mx_routed_layout(config, false, l);
}

static void export_words(const void *config, json_t *object) {
    mx_routed_export(config, false, object);
}

static bool claims(const json_t *object) {
    return mx_routed_claims(object, false);
}

static void import_words(mx_import *in, void *config) {
    mx_routed_import(in, false, config);
}

const mx_method mx_method_mixlora = {
    .name = "mixlora",
    .summary = "LoRA experts on one frozen feed-forward block, a router, LoRA on attention",
    .paper = "arXiv:2404.15159",
    .options = &table,
    .names = MX_LAYOUT_MIXLORA,
    .resolve = resolve,
    .describe = mx_routed_describe,
    .note = mx_routed_note,
    .experts = mx_routed_experts,
    .slots = mx_routed_slots,
    .slots_vary = mx_routed_slots_vary,
    .starts_at_base = mx_routed_starts_at_base,
    .layout = layout,
    .init = mx_routed_init,
    .dropout = mx_routed_dropout,
    .jitter = mx_routed_jitter,
    .coefficients = mx_routed_coefficients,
    .linear = mx_routed_linear,
    .ffn = mx_routed_ffn,
    .export_words = export_words,
    .claims = claims,
    .import_words = import_words,
};
