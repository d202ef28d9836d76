-- failures: runs that failed, were stopped, or have not been heard of for ten minutes, and why
-- :sweep (any) the runs of a sweep
SELECT r.run_id AS run, r.name, r.seed, CASE r.state WHEN 'running' THEN 'silent' ELSE r.state END AS state,
       r.step || '/' || r.steps AS steps, DATETIME(COALESCE(r.ended_ms, r.heartbeat_ms) / 1000, 'unixepoch') AS last_heard_utc, r.host,
       r.reason
FROM runs r
WHERE (r.state IN ('failed', 'stopped') OR (r.state = 'running' AND r.heartbeat_ms < 1000 * (STRFTIME('%s', 'now') - 600)))
  AND (:sweep IS NULL OR r.run_id IN (SELECT run_id FROM sweep_runs WHERE sweep = :sweep))
ORDER BY r.run_id;
