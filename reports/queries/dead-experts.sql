-- dead-experts: experts that no token was sent to, by layer
-- :run (any) a run
-- :sweep (any) the runs of a sweep
-- :split (train) train: the whole training; validation, test, held_out: the last evaluation of each task
WITH chosen AS (
    SELECT run_id FROM runs WHERE (:run IS NULL OR run_id = :run)
      AND (:sweep IS NULL OR run_id IN (SELECT run_id FROM sweep_runs WHERE sweep = :sweep))),
windows AS (
    SELECT w.window_id, w.run_id FROM router_windows w LEFT JOIN evaluations e USING (evaluation_id)
    WHERE w.run_id IN (SELECT run_id FROM chosen) AND w.split = :split
      AND (w.evaluation_id IS NULL OR e.step = (SELECT MAX(l.step) FROM evaluations l WHERE l.run_id = e.run_id AND l.task = e.task
                                                AND l.split = e.split AND l.protocol = e.protocol))),
loads AS (
    SELECT run_id, layer, expert, SUM(tokens) AS tokens, SUM(probability) AS probability
    FROM windows JOIN router_loads USING (window_id) GROUP BY run_id, layer, expert)
SELECT run_id AS run, layer, COUNT(*) AS experts, SUM(tokens = 0) AS dead,
       GROUP_CONCAT(CASE WHEN tokens = 0 THEN expert END, ' ') AS which,
       ROUND(SUM(CASE WHEN tokens = 0 THEN probability ELSE 0 END) / NULLIF(SUM(probability), 0), 4) AS their_probability
FROM loads GROUP BY run_id, layer HAVING dead > 0
ORDER BY run_id, layer;
