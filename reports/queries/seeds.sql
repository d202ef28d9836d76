-- seeds: the last accuracy of every variant and seed of a sweep, in percent
-- :sweep (needed) the sweep
-- :task (any) a task
-- :protocol (any) default: the sweep's
-- :metric (any) default: the sweep's
SELECT m.variant, m.seed, m.run_id AS run, m.state, e.task, e.split, ROUND(100 * s.value, 2) AS score, ROUND(100 * s.stderr, 2) AS stderr,
       e.n
FROM sweep_runs m JOIN sweeps w USING (sweep_id)
LEFT JOIN evaluations e ON e.run_id = m.run_id AND e.protocol = COALESCE(:protocol, w.protocol) AND (:task IS NULL OR e.task = :task)
  AND e.step = (SELECT MAX(l.step) FROM evaluations l WHERE l.run_id = e.run_id AND l.task = e.task AND l.split = e.split
                  AND l.protocol = e.protocol)
LEFT JOIN scores s ON s.evaluation_id = e.evaluation_id AND s.metric = COALESCE(:metric, w.metric)
WHERE m.sweep = :sweep
ORDER BY e.task, (SELECT MIN(f.position) FROM members f WHERE f.sweep_id = m.sweep_id AND f.variant = m.variant), m.seed;
