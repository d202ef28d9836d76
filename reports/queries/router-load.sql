-- router-load: how much of each layer's work every expert did
-- :run (any) a run
-- :task (any) the tokens of one task
-- :split (train) train: the whole training; validation, test, held_out: the last evaluation of each task
-- :protocol (any) of the evaluation
-- :layer (any) one layer
WITH windows AS (
    SELECT w.window_id, w.run_id FROM router_windows w LEFT JOIN evaluations e USING (evaluation_id)
    WHERE w.run_id IN (SELECT run_id FROM runs WHERE :run IS NULL OR run_id = :run) AND w.split = :split
      AND (:protocol IS NULL OR e.protocol = :protocol)
      AND (w.evaluation_id IS NULL OR e.step = (SELECT MAX(l.step) FROM evaluations l WHERE l.run_id = e.run_id AND l.task = e.task
                                                AND l.split = e.split AND l.protocol = e.protocol))),
loads AS (
    SELECT w.run_id, l.layer, l.expert, SUM(l.tokens) AS tokens, SUM(l.dropped) AS dropped, SUM(l.probability) AS probability
    FROM windows w JOIN router_loads l USING (window_id)
    WHERE (:task IS NULL OR l.task = :task) AND (:layer IS NULL OR l.layer = :layer)
    GROUP BY w.run_id, l.layer, l.expert)
SELECT run_id AS run, layer, expert, tokens,
       ROUND(1.0 * tokens / NULLIF(SUM(tokens) OVER one, 0), 4) AS share,
       ROUND(probability / NULLIF(SUM(probability) OVER one, 0), 4) AS probability, dropped
FROM loads WINDOW one AS (PARTITION BY run_id, layer)
ORDER BY run_id, layer, expert;
