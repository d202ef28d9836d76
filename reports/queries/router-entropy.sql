-- router-entropy: how evenly a layer's experts were used, and how sure its router was, in bits
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
    SELECT run_id, layer, expert, SUM(tokens) AS tokens FROM windows JOIN router_loads USING (window_id) GROUP BY run_id, layer, expert),
shares AS (
    SELECT run_id, layer, tokens, 1.0 * tokens / NULLIF(SUM(tokens) OVER (PARTITION BY run_id, layer), 0) AS p FROM loads),
balance AS (
    SELECT run_id, layer, COUNT(*) AS experts, -SUM(CASE WHEN p > 0 THEN p * LOG2(p) ELSE 0 END) AS bits, MAX(p) * COUNT(*) AS most,
           SUM(tokens = 0) AS dead
    FROM shares GROUP BY run_id, layer),
routers AS (
    SELECT run_id, layer, SUM(tokens) AS tokens, SUM(entropy) AS nats FROM windows JOIN router_tokens USING (window_id)
    GROUP BY run_id, layer)
SELECT run_id AS run, layer, experts, tokens, ROUND(bits, 3) AS load_entropy, ROUND(LOG2(experts), 3) AS even,
       ROUND(nats / NULLIF(tokens, 0) / LN(2), 3) AS router_entropy, ROUND(most, 2) AS max_over_mean, dead
FROM balance JOIN routers USING (run_id, layer)
ORDER BY run_id, layer;
