/* base.c - no adapter at all: the frozen model, for baselines and for timing what the methods add. */
#include "model/methods/method.h"

static const mx_option options[] = { { 0 } };
static const mx_option_table table = { .name = "base", .option = options, .size = 0 };

static void describe(const void *config, mx_text *out) {
    (void)config;
    mx_text_print(out, "nothing is trained");
}

static void layout(const void *config, mx_layout *l) {
    (void)config;
    (void)l;
}

static void export_words(const void *config, json_t *object) {
    (void)config;
    json_object_set_new(object, "peft_type", json_null());
}

static bool claims(const json_t *object) {
    return json_is_null(json_object_get(object, "peft_type"));
}

static void import_words(mx_import *in, void *config) {
    (void)mx_import_text(in, "peft_type");
    (void)config;
}

const mx_method mx_method_base = {
    .name = "base",
    .summary = "the frozen base model, nothing trained",
    .paper = "none",
    .options = &table,
    .names = MX_LAYOUT_PEFT,
    .describe = describe,
    .layout = layout,
    .export_words = export_words,
    .claims = claims,
    .import_words = import_words,
};
