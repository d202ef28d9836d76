-- losses: loss and what else was measured, by step
-- :run (any) a run
-- :sweep (any) the runs of a sweep
-- :every (1) only every so many steps, and the first
WITH chosen AS (
    SELECT run_id FROM runs WHERE (:run IS NULL OR run_id = :run)
      AND (:sweep IS NULL OR run_id IN (SELECT run_id FROM sweep_runs WHERE sweep = :sweep)))
SELECT run_id AS run, step,
       MAX(value) FILTER (WHERE name = 'loss') AS loss, MAX(value) FILTER (WHERE name = 'nll') AS nll,
       MAX(value) FILTER (WHERE name = 'balance') AS balance, MAX(value) FILTER (WHERE name = 'z') AS z,
       MAX(value) FILTER (WHERE name = 'total') AS total, MAX(value) FILTER (WHERE name = 'grad_norm') AS grad_norm,
       MAX(value) FILTER (WHERE name = 'learning_rate') AS learning_rate,
       MAX(value) FILTER (WHERE name = 'tokens_per_second') AS tokens_per_second
FROM chosen JOIN metrics USING (run_id)
WHERE step = 1 OR step % :every = 0
GROUP BY run_id, step HAVING loss IS NOT NULL
ORDER BY run_id, step;
