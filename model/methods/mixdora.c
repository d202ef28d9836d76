/* mixdora.c - MixLoRA's mixture with DoRA's decomposition.
 *
 * arXiv:2404.15159 with arXiv:2402.09353 at every targeted linear: parts/routed.h and parts/magnitude.h. */
#include "model/methods/parts/routed.h"

static void check(const void *config, const mx_node *map, mx_problems *problems) {
    mx_routed_check(config, true, map, problems);
}

static const mx_option_table table = {
    .name = "mixdora", .option = mx_routed_options, .synonym = mx_routed_synonyms, .size = sizeof(mx_routed_words),
    .check = check,
};

static void resolve(void *config) {
    mx_routed_resolve(config, true);
}

static void layout(const void *config, mx_layout *l) {
    mx_routed_layout(config, true, l);
}

static size_t scratch_bytes(const mx_layout *l, const mx_backend *b) {
    return mx_magnitude_scratch_bytes(l, b, mx_routed_words_at);
}

static void start(mx_adapter *a, const mx_frozen *base) {
    mx_magnitude_start(a, base, mx_routed_words_at);
}

static void refresh(mx_adapter *a, const mx_frozen *base) {
    mx_magnitude_refresh(a, base, mx_routed_words_at);
}

static void finish_backward(mx_adapter *a, const mx_frozen *base) {
    mx_magnitude_gradient(a, base, mx_routed_words_at);
}

static void linear(const mx_adapter *a, int64_t layer, mx_site site, mx_linear *ret) {
    mx_routed_linear(a, layer, site, ret);
    mx_magnitude_linear(a, layer, site, ret);
}

static void export_words(const void *config, json_t *object) {
    mx_routed_export(config, true, object);
}

static bool claims(const json_t *object) {
    return mx_routed_claims(object, true);
}

static void import_words(mx_import *in, void *config) {
    mx_routed_import(in, true, config);
}

const mx_method mx_method_mixdora = {
    .name = "mixdora",
    .summary = "MixLoRA with DoRA at every targeted linear, of attention and of each expert",
    .paper = "arXiv:2404.15159, arXiv:2402.09353",
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
    .scratch_bytes = scratch_bytes,
    .start = start,
    .refresh = refresh,
    .dropout = mx_routed_dropout,
    .jitter = mx_routed_jitter,
    .coefficients = mx_routed_coefficients,
    .linear = linear,
    .ffn = mx_routed_ffn,
    .finish_backward = finish_backward,
    .export_words = export_words,
    .claims = claims,
    .import_words = import_words,
};
