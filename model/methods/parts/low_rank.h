/* low_rank.h - A and B at a linear, with one scale, one dropout: what LoRA and all that grew from it share.
 *
 *   D(x) = s B A drop(x),  A (r, in), B (out, r),  s = alpha/r (arXiv:2106.09685 section 4.1), or alpha/sqrt(r)
 *   (rsLoRA, arXiv:2312.03732); B learns loraplus_lr_ratio times as fast as A (LoRA+, arXiv:2402.12354). */
#ifndef MODEL_METHODS_PARTS_LOW_RANK_H
#define MODEL_METHODS_PARTS_LOW_RANK_H

#include "model/methods/method.h"

typedef struct mx_low_rank_words {
    int64_t r;
    double alpha, dropout;
    uint64_t targets; /* bit mx_site */
    bool rslora;
    double loraplus_lr_ratio;
    int init; /* 0 kaiming, 1 gaussian */
} mx_low_rank_words;

/* Roles of tensors, by all methods that use these parts. */
enum {
    MX_ROLE_A, MX_ROLE_B,
    MX_ROLE_MAGNITUDE, MX_ROLE_NORM, MX_ROLE_FACTOR, MX_ROLE_FACTOR_GRADIENT, /* DoRA's m, n, c = m/n, dc */
    MX_ROLE_ROUTER,
};

extern const char *const mx_low_rank_inits[];

/* The words, for a table whose struct holds an mx_low_rank_words at BEGIN. */
#define MX_LOW_RANK_OPTIONS(BEGIN)                                                                                     \
    { .name = "lora_r", .type = MX_INT, .offset = (BEGIN) + offsetof(mx_low_rank_words, r), .flags = MX_RESULT, .preset = "16",\
      .min = 1, .max = 4096, .help = "rank of A and B (arXiv:2106.09685)" },                                           \
    { .name = "lora_alpha", .type = MX_REAL, .offset = (BEGIN) + offsetof(mx_low_rank_words, alpha), .flags = MX_RESULT,\
      .preset = "32", .min = 0, .max = 1e6, .help = "scale: the update is multiplied by lora_alpha / lora_r" },        \
    { .name = "lora_dropout", .type = MX_REAL, .offset = (BEGIN) + offsetof(mx_low_rank_words, dropout),               \
      .flags = MX_RESULT | MX_OPEN_MAX, .preset = "0.05", .min = 0, .max = 1,                                          \
      .help = "probability that an input of A is dropped; one mask per linear input" },                                \
    { .name = "target_modules", .type = MX_SET, .offset = (BEGIN) + offsetof(mx_low_rank_words, targets), .flags = MX_RESULT,\
      .preset = "[q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]", .choices = mx_site_names,           \
      .help = "the linears that carry an adapter" },                                                                   \
    { .name = "use_rslora", .type = MX_BOOL, .offset = (BEGIN) + offsetof(mx_low_rank_words, rslora), .flags = MX_RESULT,\
      .preset = "false", .help = "divide lora_alpha by the root of the rank instead (arXiv:2312.03732)" },             \
    { .name = "loraplus_lr_ratio", .type = MX_REAL, .offset = (BEGIN) + offsetof(mx_low_rank_words, loraplus_lr_ratio),\
      .flags = MX_RESULT, .preset = "1", .min = 1, .max = 1000,                                                        \
      .help = "learning rate of B over that of A (LoRA+, arXiv:2402.12354); 1: the same" },                            \
    { .name = "init_lora_weights", .type = MX_ENUM, .offset = (BEGIN) + offsetof(mx_low_rank_words, init), .flags = MX_RESULT,\
      .preset = "kaiming", .choices = mx_low_rank_inits,                                                               \
      .help = "A starts as U(-1/sqrt(in), 1/sqrt(in)) or as N(0, 1/r^2); B starts at 0" }

#define MX_LOW_RANK_SYNONYMS                                                                                           \
    { "r", "lora_r" }, { "rank", "lora_r" }, { "lora_rank", "lora_r" }, { "alpha", "lora_alpha" },                     \
    { "dropout", "lora_dropout" }, { "lora_target_modules", "target_modules" }, { "lora_target", "target_modules" },   \
    { "lora_attn_modules", "target_modules" }, { "lora_target_linear", "target_modules" },                             \
    { "rslora", "use_rslora" }, { "peft_use_rslora", "use_rslora" }, { "lr_ratio", "loraplus_lr_ratio" },              \
    { "lora_init", "init_lora_weights" }, { "peft_init_lora_weights", "init_lora_weights" }

double mx_low_rank_scale(int64_t r, double alpha, bool rslora);
/* "r16 on q k v o gate up down" pieces: the targets in short. */
void mx_low_rank_describe_targets(uint64_t targets, mx_text *out);
/* Adds a problem when no linear is targeted. */
void mx_low_rank_check(const mx_low_rank_words *w, const mx_node *map, mx_problems *problems);

/* Hooks of methods whose whole config is an mx_low_rank_words. */
extern const mx_option mx_low_rank_options[];
void mx_low_rank_check_words(const void *config, const mx_node *map, mx_problems *problems);
void mx_low_rank_describe(const void *config, mx_text *out);
void mx_low_rank_init_part(const mx_layout *l, const mx_declaration *d, int64_t part, float *to, mx_rng *rng);
double mx_low_rank_dropout(const void *config, mx_input input);

/* A and B at a site; experts 0: one pair, else a pair for each expert. */
void mx_low_rank_declare(mx_layout *l, const mx_low_rank_words *w, int64_t layer, mx_site site, int64_t experts);
/* Values of one A (B stays 0). */
void mx_low_rank_init(const mx_low_rank_words *w, const mx_declaration *d, float *to, mx_rng *rng);
/* The site's term, when it has one. */
void mx_low_rank_linear(const mx_adapter *a, const mx_low_rank_words *w, int64_t layer, mx_site site, mx_linear *ret);

/* PEFT's and MoE-PEFT's shared keys. */
void mx_low_rank_export(const mx_low_rank_words *w, json_t *object);
void mx_low_rank_import(mx_import *in, mx_low_rank_words *w);
/* lora_alpha as people write it: an integer where it is one. */
json_t *mx_low_rank_number(double v);

#endif
