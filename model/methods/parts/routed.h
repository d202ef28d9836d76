/* routed.h - MixLoRA's feed-forward block: E experts on one frozen FFN, and a router that picks.
 *
 *   y = sum over chosen e of g_e(x) F_e(x);  F_e is the whole gated FFN with its own low-rank terms (or DoRA) at each
 *   targeted linear; g from p = softmax(W_g x), in f32 without bias (arXiv:2404.15159, section 3.2). Attention carries
 *   plain LoRA (or DoRA).
 *   top_k: the k largest, divided by their sum; top_p: by falling p until top_p is crossed, p as it is;
 *   switch: the largest, p as it is, at most expert_capacity tokens a sequence (arXiv:2101.03961).
 * Losses over the router's statistics: coef E sum_i F_i P_i over all layers at once, and for switch
 * coef mean(logsumexp^2). */
#ifndef MODEL_METHODS_PARTS_ROUTED_H
#define MODEL_METHODS_PARTS_ROUTED_H

#include "model/methods/parts/magnitude.h"

typedef struct mx_routed_words {
    mx_low_rank_words lora; /* attention; what the experts inherit */
    struct {
        int64_t r;
        double alpha, dropout;
        int rslora; /* 0, 1 */
    } expert; /* expert_lora */
    int64_t num_experts;
    int routing; /* mx_routing */
    int64_t top_k;
    double top_p, temperature;
    int64_t capacity;
    double balance_coef, z_coef, jitter, init_range;
    int form; /* mx_experts_form */
} mx_routed_words;

extern const mx_option mx_routed_options[];
extern const mx_synonym mx_routed_synonyms[];

/* The low-rank words that hold at a site: the experts' own where the site is theirs. */
mx_low_rank_words mx_routed_words_at(const void *config, mx_site site);

/* Hooks; `dora`: experts and attention carry magnitudes. */
void mx_routed_check(const mx_routed_words *w, bool dora, const mx_node *map, mx_problems *problems);
void mx_routed_resolve(mx_routed_words *w, bool dora);
void mx_routed_layout(const mx_routed_words *w, bool dora, mx_layout *l);
void mx_routed_describe(const void *config, mx_text *out);
void mx_routed_note(const void *config, mx_text *out);
int64_t mx_routed_experts(const void *config);
int64_t mx_routed_slots(const void *config);
bool mx_routed_slots_vary(const void *config);
bool mx_routed_starts_at_base(const void *config);
void mx_routed_init(const mx_layout *l, const mx_declaration *d, int64_t part, float *to, mx_rng *rng);
double mx_routed_dropout(const void *config, mx_input input);
double mx_routed_jitter(const void *config);
void mx_routed_coefficients(const void *config, double *ret_balance, double *ret_z);
/* Low-rank terms of attention (dora: mx_magnitude_linear comes after), and the whole block. */
void mx_routed_linear(const mx_adapter *a, int64_t layer, mx_site site, mx_linear *ret);
void mx_routed_ffn(const mx_adapter *a, int64_t layer, mx_router *router, mx_experts *experts);

void mx_routed_export(const mx_routed_words *w, bool dora, json_t *object);
bool mx_routed_claims(const json_t *object, bool dora);
void mx_routed_import(mx_import *in, bool dora, mx_routed_words *w);

#endif
