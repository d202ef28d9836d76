-- slowest: the runs that took longest, and their speed
-- :limit (10) how many
SELECT r.run_id AS run, r.name, r.method, r.state, ROUND((COALESCE(r.ended_ms, r.heartbeat_ms) - r.began_ms) / 60000.0, 1) AS minutes,
       r.step AS steps,
       (SELECT ROUND(AVG(value)) FROM metrics m WHERE m.run_id = r.run_id AND m.name = 'tokens_per_second') AS tokens_per_second, r.host
FROM runs r
ORDER BY COALESCE(r.ended_ms, r.heartbeat_ms) - r.began_ms DESC, r.run_id
LIMIT :limit;
