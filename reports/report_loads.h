/* report_loads.h - what the routers of a report's runs did, as arrays: for the files of the router's section. */
#ifndef REPORTS_REPORT_LOADS_H
#define REPORTS_REPORT_LOADS_H

#include "reports/report_draft.h"

/* One run: token slots each expert computed. [task][layer][expert]; a layer without a router is all 0. */
typedef struct mx_load {
    int64_t run_id;
    int variant;
    const char *const *task;
    int tasks, layers, experts;
    const int64_t *slots, *dropped; /* (tasks, layers, experts) */
    const int64_t *tokens;          /* (tasks, layers): tokens the router saw */
    const double *entropy;          /* (tasks, layers): sum over them of the softmax's entropy, nats */
} mx_load;

typedef struct mx_loads {
    mx_load *run; /* the routed ones, by variant, then seed */
    int runs;
    bool training;   /* nothing was routed in an evaluation: the loads are of the whole training */
    const char *when; /* for captions */
    mx_asked slots, tokens;
} mx_loads;

/* Of the last evaluation under the comparison's protocol (any, without one), else of training. */
MX_MUST_CHECK mx_code mx_loads_read(mx_draft *d, mx_loads *ret, mx_status *st);
/* Windows of the last evaluation of runs, as "FROM ... WHERE ..." of statements about them: w is the window. */
const char *mx_loads_windows(const mx_draft *d, const char *runs, bool training);

/* p[layer][expert]: the share of each expert in the layer's token slots, tasks together (task < 0) or of one. False: no slots. */
bool mx_load_share(const mx_load *l, int task, int layer, double *ret);
double mx_share_entropy(const double *p, int n);                      /* bits */
double mx_share_most(const double *p, int n);                         /* max/mean */
/* H((p + q) / 2) - (H(p) + H(q)) / 2, bits, 0 to 1. Lin 1991 (IEEE Trans. Inf. Theory 37: 145-151), weights 1/2. */
double mx_share_divergence(const double *p, const double *q, int n);

/* The first run of each routed variant: its index in loads, or -1. */
int mx_loads_first(const mx_loads *l, int variant);
int mx_load_uneven(const mx_load *l); /* the layer of largest max/mean, tasks together */

MX_MUST_CHECK mx_code mx_draft_balance(mx_draft *d, const mx_loads *l, mx_status *st);
MX_MUST_CHECK mx_code mx_draft_divergence(mx_draft *d, const mx_loads *l, mx_status *st);
MX_MUST_CHECK mx_code mx_draft_pairs(mx_draft *d, const mx_loads *l, mx_status *st);

#endif
