-- environment: the program, machine and libraries runs were made with
-- :run (any) a run
-- :sweep (any) the runs of a sweep
SELECT COUNT(*) AS runs, MIN(r.run_id) AS first, MAX(r.run_id) AS last, r.host, v.text ->> '$.mixrun' AS mixrun,
       v.text ->> '$.commit' AS "commit", v.text ->> '$.backend' AS backend, v.text ->> '$.precision' AS precision,
       v.text ->> '$.processor' AS processor, v.text ->> '$.system' || ' ' || (v.text ->> '$.release') AS system
FROM runs r JOIN environments v USING (environment_id)
WHERE (:run IS NULL OR r.run_id = :run) AND (:sweep IS NULL OR r.run_id IN (SELECT run_id FROM sweep_runs WHERE sweep = :sweep))
GROUP BY r.environment_id, r.host
ORDER BY first;
