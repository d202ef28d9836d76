-- right-wrong: questions that run a answers right and run b wrong, in the last evaluation of both
-- :a (needed) the run that is right
-- :b (needed) the run that is wrong
-- :task (any) a task
-- :protocol (any) loglikelihood or label_logits
-- :metric (any) acc or acc_norm
WITH last AS (
    SELECT * FROM evaluations e WHERE e.run_id IN (:a, :b) AND (:task IS NULL OR e.task = :task)
      AND (:protocol IS NULL OR e.protocol = :protocol)
      AND e.step = (SELECT MAX(l.step) FROM evaluations l WHERE l.run_id = e.run_id AND l.task = e.task AND l.split = e.split
                      AND l.protocol = e.protocol))
SELECT x.task, x.split, x.protocol, o.metric, o.number, p.item, p.gold, o.chosen AS a_chose, w.chosen AS b_chose, p.choices AS a_scores,
       q.choices AS b_scores
FROM last x JOIN last y ON y.task = x.task AND y.split = x.split AND y.protocol = x.protocol AND y.data_hash = x.data_hash
JOIN outcomes o ON o.evaluation_id = x.evaluation_id AND o.correct = 1 AND (:metric IS NULL OR o.metric = :metric)
JOIN outcomes w ON w.evaluation_id = y.evaluation_id AND w.metric = o.metric AND w.number = o.number AND w.correct = 0
JOIN predictions p ON p.evaluation_id = x.evaluation_id AND p.number = o.number
JOIN predictions q ON q.evaluation_id = y.evaluation_id AND q.number = o.number
WHERE x.run_id = :a AND y.run_id = :b
ORDER BY x.task, x.split, x.protocol, o.metric, o.number;
