/* export.h - a run's scores and answers as lm-evaluation-harness writes them, for tools that read its files.
 *
 *   FOLDER/<base>__<run>/results_<when>.json            scores, configs, versions, counts (lm-eval 0.4, EvaluationTracker)
 *   FOLDER/<base>__<run>/samples_<task>_<when>.jsonl    a line a question, where the run kept its answers
 *
 * <when> is the run's own end, so that the same run has the same names. The last evaluation of each task is told; label_logits is a task of
 * its own, <task>_label_logits. What the store does not know (documents, prompts, whether an answer was greedy) is left out. */
#ifndef REPORTS_EXPORT_H
#define REPORTS_EXPORT_H

#include "reports/store.h"

/* Writes the run's files below `folder`, the results last: where they are, all is. A file that is there is refused with
 * MX_E_USAGE before anything is written, unless `force`. *ret_path is the results file, in the arena. MX_E_DATA when the run
 * has no evaluation. */
MX_MUST_CHECK mx_code mx_export_run(mx_store *s, const mx_run_row *run, const char *folder, bool force, mx_arena *arena,
                                    const char **ret_path, int64_t *ret_samples, mx_status *st);

#endif
