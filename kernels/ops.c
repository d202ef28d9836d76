/* ops.c - the roll call: a new op in ops.h does not compile until it is named here. */
#include "kernels/ops.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

typedef void (*any_op)(void);

#define OP(name) { #name, offsetof(mx_ops, name) }
static const struct {
    const char *name;
    size_t offset;
} roll[] = {
    OP(scratch),
    OP(embed),
    OP(rmsnorm_forward),
    OP(rmsnorm_backward),
    OP(rope),
    OP(linears_saved_bytes),
    OP(linears_scratch_bytes),
    OP(linears_forward),
    OP(linears_backward),
    OP(attention_scratch_bytes),
    OP(attention_forward),
    OP(attention_backward),
    OP(swiglu_forward),
    OP(swiglu_backward),
    OP(add),
    OP(jitter_forward),
    OP(jitter_backward),
    OP(router_scratch_bytes),
    OP(router_forward),
    OP(router_backward),
    OP(router_losses),
    OP(experts_saved_bytes),
    OP(experts_scratch_bytes),
    OP(experts_slow),
    OP(experts_forward),
    OP(experts_backward),
    OP(gather_rows),
    OP(scatter_rows),
    OP(head_scratch_bytes),
    OP(head_loss),
    OP(head_logits),
    OP(objective),
    OP(adamw),
    OP(row_norms),
    OP(dora_scratch_bytes),
    OP(dora_forward),
    OP(dora_backward),
};
static_assert(sizeof roll / sizeof roll[0] == sizeof(mx_ops) / sizeof(any_op), "an op is missing from the roll");

const char *mx_ops_missing(const mx_ops *ops) {
    for (size_t i = 0; i < sizeof roll / sizeof roll[0]; i++) {
        any_op op;

        memcpy(&op, (const char *)ops + roll[i].offset, sizeof op);
        if (!op) {
            return roll[i].name;
        }
    }
    return NULL;
}
