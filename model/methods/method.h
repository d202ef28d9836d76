/* method.h - what a fine-tuning method has to say for itself.
 *
 * A method is one file in this folder and one word in its meson.build. It declares its recipe words and its
 * tensors; says how they start; fills the op structs of the linears it touches, or of the whole feed-forward
 * block when it routes tokens; and may add losses or act after a step. It never allocates, never reads a file and never
 * waits for the device inside a step. Hooks that may be NULL say so. */
#ifndef MODEL_METHODS_METHOD_H
#define MODEL_METHODS_METHOD_H

#include "base/option.h"
#include "base/rng.h"
#include "kernels/ops.h"
#include "model/adapter.h"
#include "model/adapter_config.h"

/* The frozen linears as the backend holds them: weight[layer * MX_SITES + site]. */
typedef struct mx_frozen {
    const mx_weight *const *weight;
} mx_frozen;

enum { MX_TERMS_MAX = 4 }; /* low-rank terms at one linear */

struct mx_method {
    const char *name;    /* recipe: adapter.method */
    const char *summary; /* one line for `mixrun methods` */
    const char *paper;
    const mx_option_table *options; /* adapter.*; ->size is the config's */
    mx_adapter_layout names;        /* how its files are named */

    /* Replaces every `auto` by what it means; config is as mx_option_bind left it. May be NULL (there is none). */
    void (*resolve)(void *config);
    /* "r16 E8 top-2 on q k v o gate up down". */
    void (*describe)(const void *config, mx_text *out);
    /* What a user should know about these words, one line each; may be NULL. */
    void (*note)(const void *config, mx_text *out);
    /* Experts of the feed-forward block; 0: dense. May be NULL (dense). */
    int64_t (*experts)(const void *config);
    /* Slots a token may use (K of mx_router); may be NULL with `experts`. */
    int64_t (*slots)(const void *config);
    /* May a token use fewer than `slots`, by its own probabilities? NULL: never. */
    bool (*slots_vary)(const void *config);
    /* Does step 0 compute the base model? NULL: always. */
    bool (*starts_at_base)(const void *config);

    /* One mx_layout_add for each tensor. */
    void (*layout)(const void *config, mx_layout *l);
    /* Starting values of one part on the host, zeroed before; `rng` is this tensor's own stream. May be NULL. */
    void (*init)(const mx_layout *l, const mx_declaration *d, int64_t part, float *to, mx_rng *rng);
    /* What starts from the frozen weights, after `init` reached the device; may wait for it. May be NULL. */
    void (*start)(mx_adapter *a, const mx_frozen *base);
    /* Scratch that `start`, `refresh` and `finish_backward` need of the backend; may be NULL (none). */
    size_t (*scratch_bytes)(const mx_layout *l, const mx_backend *b);
    /* Derived values, whenever the values have changed. May be NULL. */
    void (*refresh)(mx_adapter *a, const mx_frozen *base);

    /* Dropout at an input of the layer; may be NULL (none). Off outside training in any case. */
    double (*dropout)(const void *config, mx_input input);
    /* Fills term[] (room for MX_TERMS_MAX), terms, c, dc; the rest is set. May be NULL. */
    void (*linear)(const mx_adapter *a, int64_t layer, mx_site site, mx_linear *ret);
    /* Routed methods fill routing, sizes, coefficients, w, dw; form, the experts' a, b, c and gradients. */
    void (*ffn)(const mx_adapter *a, int64_t layer, mx_router *router, mx_experts *experts);
    double (*jitter)(const void *config); /* may be NULL */
    /* Weights of the router losses in the total; may be NULL (none). */
    void (*coefficients)(const void *config, double *ret_balance, double *ret_z);

    /* Gradients that follow from MX_KIND_SUMMED, once a step after its last backward pass. May be NULL. */
    void (*finish_backward)(mx_adapter *a, const mx_frozen *base);
    /* Losses over the parameters: adds to the gradient, once a step before the optimizer. May be NULL. */
    void (*losses)(mx_adapter *a, mx_numbers *numbers);
    /* After the optimizer, with this step's gradients intact; steps count from 1. May be NULL. */
    void (*after_step)(mx_adapter *a, int64_t step, int64_t total);

    /* adapter_config.json: the method's keys into `object`; peft_type included. */
    void (*export_words)(const void *config, json_t *object);
    /* Are these the keys this method writes? */
    bool (*claims)(const json_t *object);
    /* Keys into a config that holds the defaults. Training words (router_aux_loss_coef, ...) are read where given. */
    void (*import_words)(mx_import *in, void *config);
};

extern const mx_method *const mx_methods[]; /* in the order of meson.build, NULL-terminated */

const mx_method *mx_method_find(const char *name); /* NULL when there is none */
/* For the recipe's chooser (base/option.h): tables by method name, and the names. */
const mx_option_table *mx_method_options(const char *name);
const char *const *mx_method_names(void);
/* A config of the method's defaults, resolved, in `arena`. */
void *mx_method_defaults(const mx_method *m, mx_arena *arena);
/* The field of a word, whatever the config's struct; NULL when the method has no such word. */
void *mx_method_word(const mx_method *m, void *config, const char *name);
/* What is differentiated: the objective and the weighted router losses; ret_aux (may be NULL) is the latter alone. */
double mx_method_total(const mx_method *m, const void *config, const mx_numbers *n, double *ret_aux);

static inline void mx_method_resolve(const mx_method *m, void *config) {
    if (m->resolve) {
        m->resolve(config);
    }
}
static inline int64_t mx_method_experts(const mx_method *m, const void *config) {
    return m->experts ? m->experts(config) : 0;
}
static inline bool mx_method_starts_at_base(const mx_method *m, const void *config) {
    return !m->starts_at_base || m->starts_at_base(config);
}

#endif
