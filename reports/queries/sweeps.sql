-- sweeps: every sweep, and how far it is
SELECT s.name AS sweep, COUNT(m.position) AS runs, COALESCE(SUM(m.state = 'finished'), 0) AS finished,
       COALESCE(SUM(m.state = 'running'), 0) AS running, COALESCE(SUM(m.state IN ('failed', 'stopped')), 0) AS failed_or_stopped,
       SUM(m.position IS NOT NULL AND m.run_id IS NULL) AS not_begun, s.baseline, s.protocol, s.metric,
       DATETIME(s.began_ms / 1000, 'unixepoch') AS last_started_utc, s.path
FROM sweeps s LEFT JOIN sweep_runs m ON m.sweep_id = s.sweep_id
GROUP BY s.sweep_id ORDER BY s.began_ms DESC, s.name;
