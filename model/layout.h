/* layout.h - the tensors a method declares on a model's shape, and where each lies in flat memory.
 *
 * Needs neither weights nor a device: `plan` counts with it, the trainee allocates by it, files are named by it. */
#ifndef MODEL_LAYOUT_H
#define MODEL_LAYOUT_H

#include "model/adapter_file.h"
#include "model/site.h"

typedef struct mx_method mx_method;

typedef enum mx_scope {
    MX_SCOPE_ADAPTER, /* one in the adapter (tied over layers) */
    MX_SCOPE_LAYER,
    MX_SCOPE_ATTENTION, MX_SCOPE_FFN, /* one in that block of a layer */
    MX_SCOPE_SITE,                    /* one at a linear */
} mx_scope;

typedef enum mx_kind {
    MX_KIND_TRAINED, /* has a gradient and two moments; saved */
    MX_KIND_FROZEN,  /* saved with the adapter, never changed by the optimizer */
    MX_KIND_STATE,   /* changed by the method itself (after_step); in checkpoints only */
    MX_KIND_DERIVED, /* computed from the values by `refresh`; never saved */
    MX_KIND_SUMMED,  /* sums over a step, zeroed with the gradients; never saved */
    MX_KINDS
} mx_kind;

enum { MX_ROLES = 12, MX_GROUPS_MAX = 4 };

/* One tensor. Several equal ones (a block's experts) are one declaration of `parts` parts, one after the other in
 * memory, and one tensor each on disk. */
typedef struct mx_declaration {
    mx_kind kind;
    mx_scope scope;
    int64_t layer; /* 0 for MX_SCOPE_ADAPTER */
    mx_site site;  /* MX_SCOPE_SITE */
    int role;      /* the method's own number for it, < MX_ROLES, unique at its place */
    int64_t parts; /* >= 1 */
    bool experts;  /* parts are experts: named .experts.{e}. on disk, even a single one */
    int rank;      /* of a part: 1 or 2 */
    int64_t dim[2];
    double lr_ratio;    /* trained: learning rate, over the recipe's */
    bool decays;        /* trained: weight decay applies */
    bool router;        /* counted apart */
    bool derives;       /* trained: its gradient flows through derived values (DoRA's m through c = m/n); what is derived
                           from the others (n) is a constant for the gradient */
    const char *module; /* on disk: "self_attn.q_proj", "mlp.moe_gate"; NULL: the site's own */
    const char *part;   /* on disk: "lora_A.weight" */

    /* set by mx_layout_make */
    int64_t count;  /* values of all parts */
    int64_t offset; /* in values, in the flat memory of its kind */
} mx_declaration;

/* A run of the trained values with one learning rate and decay. */
typedef struct mx_layout_group {
    int64_t begin, count;
    double lr_ratio;
    bool decays;
} mx_layout_group;

typedef struct mx_layout {
    const mx_method *method;
    const void *config; /* resolved words of the method */
    const mx_shape *shape;
    mx_declaration *item;
    size_t count, capacity;
    int64_t size[MX_KINDS]; /* flat values, each tensor's start rounded up to 64 bytes (the gaps stay 0) */
    int64_t trained;        /* values trained */
    int64_t trained_router; /* of them in routers */
    mx_layout_group group[MX_GROUPS_MAX];
    int64_t groups;
    int32_t *index; /* (layer, place, role) -> item, or -1 */
    mx_arena *arena;
} mx_layout;

/* All in `arena`; method, config and shape are borrowed. */
const mx_layout *mx_layout_make(const mx_method *method, const void *config, const mx_shape *shape, mx_arena *arena);
/* For mx_method.layout: declares one tensor. */
void mx_layout_add(mx_layout *l, const mx_declaration *d);

/* Floating-point operations of the adapter for one token of training, forward and backward, active experts only.
 *
 * A matrix of n values costs a token 2 n forward (a product and a sum for each value), and twice that backward: 2 n for its
 * gradient and 2 n for its input's. So a LoRA pair costs 2 r (in + out) forward and 4 r (in + out) backward: 6 for each value
 * a token uses. Of a block's experts a token uses `slots` (top_k: k, switch: 1, top_p: at most all of them, so that the
 * figure is a bound: see mx_method.slots_vary); the router's matrix is used by every token, whole.
 * Not counted: what is elementwise (scales, DoRA's rows c, dropout, softmax), what is paid once a step whatever its tokens
 * (DoRA's norms, the optimizer), and frozen products that some forms of the experts repeat. */
double mx_layout_flops(const mx_layout *l);
/* The same for the frozen base: 2 for each value of its linears and head forward, and 2 backward to the activations, since
 * frozen weights need no gradient. Every token is counted at the head; attention's own products, which grow with the
 * sequence, are not counted. */
double mx_shape_flops(const mx_shape *s);

/* NULL when nothing is declared there. `site` counts for MX_SCOPE_SITE only. */
const mx_declaration *mx_layout_find(const mx_layout *l, mx_scope scope, int64_t layer, mx_site site, int role);
/* The name of a part on disk. */
const char *mx_layout_name(const mx_layout *l, const mx_declaration *d, int64_t part, mx_arena *arena);

#endif
