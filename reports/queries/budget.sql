-- budget: what a run cost: trained values, FLOPs, tokens, time, memory
-- :run (any) a run
-- :sweep (any) the runs of a sweep
WITH chosen AS (
    SELECT run_id FROM runs WHERE (:run IS NULL OR run_id = :run)
      AND (:sweep IS NULL OR run_id IN (SELECT run_id FROM sweep_runs WHERE sweep = :sweep)))
SELECT r.run_id AS run, r.name, r.method, r.seed, r.trained, r.trained_router,
       ROUND(100.0 * r.trained / NULLIF(b.weights, 0), 2) AS percent_of_base, r.flops AS adapter_flops_per_token, r.step AS steps,
       (SELECT ROUND(AVG(value)) FROM metrics m WHERE m.run_id = r.run_id AND m.name = 'tokens') AS tokens_per_step,
       (SELECT ROUND(AVG(value)) FROM metrics m WHERE m.run_id = r.run_id AND m.name = 'tokens_per_second') AS tokens_per_second,
       ROUND((SELECT MAX(value) FROM metrics m WHERE m.run_id = r.run_id AND m.name = 'memory_bytes') / 1073741824, 2) AS memory_gib,
       ROUND((r.ended_ms - r.began_ms) / 60000.0, 1) AS minutes
FROM chosen JOIN runs r USING (run_id) JOIN bases b USING (base_hash)
ORDER BY r.run_id;
