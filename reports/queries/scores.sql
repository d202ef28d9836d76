-- scores: accuracy by run, task, protocol and metric, in percent, with its standard error over questions
-- :run (any) a run
-- :sweep (any) the runs of a sweep
-- :task (any) a task
-- :protocol (any) loglikelihood or label_logits
-- :metric (any) acc or acc_norm
-- :all (0) 1: every evaluation of a run, not only the last
WITH chosen AS (
    SELECT run_id FROM runs WHERE (:run IS NULL OR run_id = :run)
      AND (:sweep IS NULL OR run_id IN (SELECT run_id FROM sweep_runs WHERE sweep = :sweep)))
SELECT r.run_id AS run, r.name, r.method, r.seed, e.task, e.split, e.protocol, s.metric, e.step, e.n,
       ROUND(100 * s.value, 2) AS score, ROUND(100 * s.stderr, 2) AS stderr, ROUND(100 * s.majority, 2) AS majority,
       CASE WHEN MAX(e.limited, r.limited) THEN 'limited: not a result' ELSE '' END AS remark
FROM chosen JOIN runs r USING (run_id) JOIN evaluations e USING (run_id) JOIN scores s USING (evaluation_id)
WHERE (:task IS NULL OR e.task = :task) AND (:protocol IS NULL OR e.protocol = :protocol) AND (:metric IS NULL OR s.metric = :metric)
  AND (:all OR e.step = (SELECT MAX(l.step) FROM evaluations l WHERE l.run_id = e.run_id AND l.task = e.task
                           AND l.split = e.split AND l.protocol = e.protocol))
ORDER BY r.run_id, e.task, e.split, e.protocol DESC, s.metric, e.step;
