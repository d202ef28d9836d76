/* dora.c - weight-decomposed low-rank adaptation.
 *
 *   y = (m / n) . (W x + s B A drop(x)) + bias,  n = row norms of W + s B A
 *
 * arXiv:2402.09353, eq. 5; n is a constant for the gradient (section 4.3). As PEFT, except that dropout acts on the
 * low-rank branch alone, which saves a second base GEMM; without dropout the two are equal. */
#include "model/methods/parts/magnitude.h"

#include <string.h>

static const mx_synonym synonyms[] = { MX_LOW_RANK_SYNONYMS, { "use_dora", "method: dora" }, { 0 } };

static const mx_option_table table = {
    .name = "dora", .option = mx_low_rank_options, .synonym = synonyms, .size = sizeof(mx_low_rank_words),
    .check = mx_low_rank_check_words,
};

static void layout(const void *config, mx_layout *l) {
    const mx_low_rank_words *w = config;

    for (int64_t i = 0; i < l->shape->layers; i++) {
        for (int s = 0; s < MX_SITES; s++) {
            if (w->targets >> s & 1) {
                mx_low_rank_declare(l, w, i, (mx_site)s, 0);
                mx_magnitude_declare(l, w, i, (mx_site)s, 0);
            }
        }
    }
}

static mx_low_rank_words words_at(const void *config, mx_site site) {
    (void)site;
    return *(const mx_low_rank_words *)config;
}

static size_t scratch_bytes(const mx_layout *l, const mx_backend *b) {
    return mx_magnitude_scratch_bytes(l, b, words_at);
}

static void start(mx_adapter *a, const mx_frozen *base) {
    mx_magnitude_start(a, base, words_at);
}

static void refresh(mx_adapter *a, const mx_frozen *base) {
    mx_magnitude_refresh(a, base, words_at);
}

static void finish_backward(mx_adapter *a, const mx_frozen *base) {
    mx_magnitude_gradient(a, base, words_at);
}

static void linear(const mx_adapter *a, int64_t layer, mx_site site, mx_linear *ret) {
    mx_low_rank_linear(a, a->layout->config, layer, site, ret);
    mx_magnitude_linear(a, layer, site, ret);
}

static void export_words(const void *config, json_t *object) {
    json_object_set_new(object, "peft_type", json_string("LORA"));
    mx_low_rank_export(config, object);
    json_object_set_new(object, "use_dora", json_true());
}

static bool claims(const json_t *object) {
    const char *type = json_string_value(json_object_get(object, "peft_type"));

    return type && strcmp(type, "LORA") == 0 && json_is_true(json_object_get(object, "use_dora"));
}

static void import_words(mx_import *in, void *config) {
    bool dora;

    mx_import_boolean(in, "use_dora", &dora);
    mx_low_rank_import(in, config);
}

const mx_method mx_method_dora = {
    .name = "dora",
    .summary = "LoRA with the length of each output row trained apart",
    .paper = "arXiv:2402.09353",
    .options = &table,
    .names = MX_LAYOUT_PEFT,
    .describe = mx_low_rank_describe,
    .layout = layout,
    .init = mx_low_rank_init_part,
    .scratch_bytes = scratch_bytes,
    .start = start,
    .refresh = refresh,
    .dropout = mx_low_rank_dropout,
    .linear = linear,
    .finish_backward = finish_backward,
    .export_words = export_words,
    .claims = claims,
    .import_words = import_words,
};
