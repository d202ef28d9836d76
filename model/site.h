/* site.h - the seven frozen linear maps of a layer, by name: where methods act.
 *
 * And the inputs they read: dropout masks belong to inputs, not to linears, so that all adapters and
 * experts that read one input share its mask. */
#ifndef MODEL_SITE_H
#define MODEL_SITE_H

#include "model/shape.h"

typedef enum mx_site {
    MX_SITE_Q, MX_SITE_K, MX_SITE_V, MX_SITE_O, MX_SITE_GATE, MX_SITE_UP, MX_SITE_DOWN,
    MX_SITES
} mx_site;

enum { MX_SITES_ALL = (1 << MX_SITES) - 1, MX_SITES_ATTENTION = 0x0f, MX_SITES_FFN = 0x70 };

extern const char *const mx_site_names[MX_SITES + 1]; /* "q_proj" ..., then NULL */
const char *mx_site_module(mx_site s);                /* "self_attn.q_proj" */
void mx_site_size(const mx_shape *shape, mx_site s, int64_t *ret_out, int64_t *ret_in);
bool mx_site_has_bias(const mx_shape *shape, mx_site s);

/* What is multiplied by random numbers in a layer. MX_INPUT_DOWN is the first of many: slot s of a routed block
 * drops its down-projection's input under MX_INPUT_DOWN + s (a dense block has slot 0). */
typedef enum mx_input {
    MX_INPUT_ATTENTION, /* read by q, k, v */
    MX_INPUT_OUTPUT,    /* read by o */
    MX_INPUT_JITTER,    /* the router's copy of the feed-forward input */
    MX_INPUT_FFN,       /* read by gate and up */
    MX_INPUT_DOWN,
} mx_input;

/* mx_noise.site: unique in the model. */
uint32_t mx_input_noise_site(int64_t layer, mx_input input);

#endif
