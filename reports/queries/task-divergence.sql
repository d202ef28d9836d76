-- task-divergence: how differently tasks are routed, by layer: Jensen-Shannon divergence of their shares, in bits
-- :run (any) a run
-- :split (train) train: the whole training; validation, test, held_out: the last evaluation of each task
-- :protocol (any) of the evaluation
--
-- H(mean of the tasks' shares) - mean of H(share), tasks weighing the same (Lin 1991, section V): 0 when all tasks load a layer's
-- experts alike, LOG2(tasks) when no expert serves two. Few tokens make it too large: see `tokens`.
WITH windows AS (
    SELECT w.window_id, w.run_id FROM router_windows w LEFT JOIN evaluations e USING (evaluation_id)
    WHERE w.run_id IN (SELECT run_id FROM runs WHERE :run IS NULL OR run_id = :run) AND w.split = :split
      AND (:protocol IS NULL OR e.protocol = :protocol)
      AND (w.evaluation_id IS NULL OR e.step = (SELECT MAX(l.step) FROM evaluations l WHERE l.run_id = e.run_id AND l.task = e.task
                                                AND l.split = e.split AND l.protocol = e.protocol))),
loads AS (
    SELECT run_id, task, layer, expert, SUM(tokens) AS slots FROM windows JOIN router_loads USING (window_id)
    GROUP BY run_id, task, layer, expert),
shares AS (
    SELECT run_id, task, layer, expert, 1.0 * slots / NULLIF(SUM(slots) OVER (PARTITION BY run_id, task, layer), 0) AS p FROM loads),
mixed AS (
    SELECT run_id, layer, expert, AVG(p) AS m FROM shares WHERE p IS NOT NULL GROUP BY run_id, layer, expert),
mixed_entropy AS (
    SELECT run_id, layer, -SUM(CASE WHEN m > 0 THEN m * LOG2(m) ELSE 0 END) AS bits FROM mixed GROUP BY run_id, layer),
task_entropy AS (
    SELECT run_id, layer, task, -SUM(CASE WHEN p > 0 THEN p * LOG2(p) ELSE 0 END) AS bits FROM shares WHERE p IS NOT NULL
    GROUP BY run_id, layer, task),
tokens AS (
    SELECT run_id, task, layer, SUM(tokens) AS n FROM windows JOIN router_tokens USING (window_id) GROUP BY run_id, task, layer)
SELECT x.run_id AS run, x.layer, COUNT(*) AS tasks, ROUND(MAX(x.bits - AVG(t.bits), 0), 4) AS divergence_bits,
       ROUND(LOG2(COUNT(*)), 3) AS at_most, GROUP_CONCAT(t.task || ' ' || n.n, ', ') AS tokens
FROM mixed_entropy x JOIN task_entropy t ON t.run_id = x.run_id AND t.layer = x.layer
JOIN tokens n ON n.run_id = t.run_id AND n.layer = t.layer AND n.task = t.task
GROUP BY x.run_id, x.layer
ORDER BY x.run_id, x.layer;
