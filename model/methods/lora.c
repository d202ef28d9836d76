/* lora.c - low-rank adaptation.
 *
 *   y = W x + s B A drop(x) + bias       A (r, in), B (out, r), s = alpha/r
 *
 * arXiv:2106.09685, eq. 3 and section 4.1. B starts at zero, so step 0 computes the base. */
#include "model/methods/parts/low_rank.h"

#include <string.h>

static const mx_synonym synonyms[] = { MX_LOW_RANK_SYNONYMS, { "use_dora", "method: dora" }, { 0 } };

static const mx_option_table table = {
    .name = "lora", .option = mx_low_rank_options, .synonym = synonyms, .size = sizeof(mx_low_rank_words),
    .check = mx_low_rank_check_words,
};

static void layout(const void *config, mx_layout *l) {
    const mx_low_rank_words *w = config;

    for (int64_t i = 0; i < l->shape->layers; i++) {
        for (int s = 0; s < MX_SITES; s++) {
            if (w->targets >> s & 1) {
                mx_low_rank_declare(l, w, i, (mx_site)s, 0);
            }
        }
    }
}

static void linear(const mx_adapter *a, int64_t layer, mx_site site, mx_linear *ret) {
    mx_low_rank_linear(a, a->layout->config, layer, site, ret);
}

static void export_words(const void *config, json_t *object) {
    json_object_set_new(object, "peft_type", json_string("LORA"));
    mx_low_rank_export(config, object);
    json_object_set_new(object, "use_dora", json_false());
}

static bool claims(const json_t *object) {
    const char *type = json_string_value(json_object_get(object, "peft_type"));

    return type && strcmp(type, "LORA") == 0 && !json_is_true(json_object_get(object, "use_dora"));
}

static void import_words(mx_import *in, void *config) {
    bool dora;

    mx_import_boolean(in, "use_dora", &dora);
    mx_low_rank_import(in, config);
}

const mx_method mx_method_lora = {
    .name = "lora",
    .summary = "one low-rank pair at each targeted linear (with rsLoRA and LoRA+ as words)",
    .paper = "arXiv:2106.09685",
    .options = &table,
    .names = MX_LAYOUT_PEFT,
    .describe = mx_low_rank_describe,
    .layout = layout,
    .init = mx_low_rank_init_part,
    .dropout = mx_low_rank_dropout,
    .linear = linear,
    .export_words = export_words,
    .claims = claims,
    .import_words = import_words,
};
