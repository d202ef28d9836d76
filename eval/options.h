/* options.h - the words of a recipe's `eval` map. */
#ifndef EVAL_OPTIONS_H
#define EVAL_OPTIONS_H

#include "base/option.h"

typedef struct mx_eval_options {
    mx_texts tasks;
    int split;          /* mx_eval_split: train is not offered */
    uint64_t protocols; /* bit: mx_protocol */
    int64_t every_epochs;
    bool before_training;
    int64_t limit;
    bool save_predictions;
} mx_eval_options;
typedef enum mx_eval_split { MX_EVAL_VALIDATION, MX_EVAL_TEST, MX_EVAL_HELD_OUT } mx_eval_split; /* mx_eval_options.split */

extern const mx_option_table mx_eval_table;

#endif
