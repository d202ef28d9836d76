/* low_rank.c - see low_rank.h. */
#include "model/methods/parts/low_rank.h"

#include <assert.h>
#include <math.h>
#include <string.h>

const char *const mx_low_rank_inits[] = { "kaiming", "gaussian", NULL };
enum { INIT_KAIMING, INIT_GAUSSIAN };

const mx_option mx_low_rank_options[] = { MX_LOW_RANK_OPTIONS(0), { 0 } };

double mx_low_rank_scale(int64_t r, double alpha, bool rslora) {
    return alpha / (rslora ? sqrt((double)r) : (double)r);
}

void mx_low_rank_describe_targets(uint64_t targets, mx_text *out) {
    static const char *const brief[MX_SITES] = { "q", "k", "v", "o", "gate", "up", "down" };

    for (int s = 0; s < MX_SITES; s++) {
        if (targets >> s & 1) {
            mx_text_print(out, " %s", brief[s]);
        }
    }
}

void mx_low_rank_check(const mx_low_rank_words *w, const mx_node *map, mx_problems *problems) {
    if (!w->targets) {
        mx_problem(problems, mx_option_place(map, "target_modules"), "method: base trains nothing",
                   "target_modules is empty: nothing would be trained");
    }
}

void mx_low_rank_check_words(const void *config, const mx_node *map, mx_problems *problems) {
    mx_low_rank_check(config, map, problems);
}

void mx_low_rank_describe(const void *config, mx_text *out) {
    const mx_low_rank_words *w = config;

    mx_text_print(out, "r%lld on", (long long)w->r);
    mx_low_rank_describe_targets(w->targets, out);
}

void mx_low_rank_init_part(const mx_layout *l, const mx_declaration *d, int64_t part, float *to, mx_rng *rng) {
    (void)part;
    mx_low_rank_init(l->config, d, to, rng);
}

double mx_low_rank_dropout(const void *config, mx_input input) {
    (void)input;
    return ((const mx_low_rank_words *)config)->dropout;
}

void mx_low_rank_declare(mx_layout *l, const mx_low_rank_words *w, int64_t layer, mx_site site, int64_t experts) {
    int64_t out, in;
    mx_declaration d = { .kind = MX_KIND_TRAINED, .scope = MX_SCOPE_SITE, .layer = layer, .site = site,
                         .parts = experts ? experts : 1, .experts = experts > 0, .rank = 2, .decays = true };

    mx_site_size(l->shape, site, &out, &in);
    d.role = MX_ROLE_A;
    d.dim[0] = w->r;
    d.dim[1] = in;
    d.lr_ratio = 1;
    d.part = "lora_A.weight";
    mx_layout_add(l, &d);
    d.role = MX_ROLE_B;
    d.dim[0] = out;
    d.dim[1] = w->r;
    d.lr_ratio = w->loraplus_lr_ratio;
    d.part = "lora_B.weight";
    mx_layout_add(l, &d);
}

void mx_low_rank_init(const mx_low_rank_words *w, const mx_declaration *d, float *to, mx_rng *rng) {
    int64_t n = d->dim[0] * d->dim[1];
    double bound = 1 / sqrt((double)d->dim[1]); /* kaiming_uniform(a = sqrt 5), as PEFT */

    if (d->role != MX_ROLE_A) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        to[i] = (float)(w->init == INIT_GAUSSIAN ? mx_rng_normal(rng) / (double)w->r
                                                 : (2 * mx_rng_uniform(rng) - 1) * bound);
    }
}

void mx_low_rank_linear(const mx_adapter *a, const mx_low_rank_words *w, int64_t layer, mx_site site, mx_linear *ret) {
    float *value = mx_adapter_value(a, MX_SCOPE_SITE, layer, site, MX_ROLE_A);

    if (!value) {
        return;
    }
    assert(ret->terms < MX_TERMS_MAX);
    ret->term[ret->terms++] = (mx_low_rank){
        .a = value,
        .b = mx_adapter_value(a, MX_SCOPE_SITE, layer, site, MX_ROLE_B),
        .rank = w->r,
        .scale = (float)mx_low_rank_scale(w->r, w->alpha, w->rslora),
        .end = -1,
        .da = mx_adapter_gradient(a, MX_SCOPE_SITE, layer, site, MX_ROLE_A),
        .db = mx_adapter_gradient(a, MX_SCOPE_SITE, layer, site, MX_ROLE_B),
    };
}

json_t *mx_low_rank_number(double v) {
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

void mx_low_rank_export(const mx_low_rank_words *w, json_t *object) {
    json_t *targets = json_array();

    for (int s = 0; s < MX_SITES; s++) {
        if (w->targets >> s & 1) {
            json_array_append_new(targets, json_string(mx_site_names[s]));
        }
    }
    json_object_set_new(object, "r", json_integer(w->r));
    json_object_set_new(object, "lora_alpha", mx_low_rank_number(w->alpha));
    json_object_set_new(object, "lora_dropout", json_real(w->dropout));
    json_object_set_new(object, "target_modules", targets);
    json_object_set_new(object, "use_rslora", json_boolean(w->rslora));
    json_object_set_new(object, "bias", json_string("none"));
}

void mx_low_rank_import(mx_import *in, mx_low_rank_words *w) {
    const char *bias = mx_import_text(in, "bias");

    if (!mx_import_integer(in, "r", 1, 4096, &w->r)) {
        mx_import_refuse(in, "r", "is missing");
    }
    if (!mx_import_real(in, "lora_alpha", 0, 1e6, &w->alpha)) {
        mx_import_refuse(in, "lora_alpha", "is missing");
    }
    w->dropout = 0; /* what an absent word means to PEFT */
    mx_import_real(in, "lora_dropout", 0, 1, &w->dropout);
    w->targets = 1 << MX_SITE_Q | 1 << MX_SITE_V; /* PEFT's targets for LLaMA when the file names none */
    mx_import_sites(in, "target_modules", &w->targets);
    mx_import_boolean(in, "use_rslora", &w->rslora);
    mx_import_real(in, "loraplus_lr_ratio", 1, 1000, &w->loraplus_lr_ratio);
    if (bias && strcmp(bias, "none") != 0) {
        mx_import_refuse(in, "bias", "biases are never trained here");
    }
}
