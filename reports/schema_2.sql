-- schema_2.sql - from version 1 to 2: sweeps, and what a token costs.

ALTER TABLE runs ADD COLUMN flops INTEGER;    -- of the adapter per token: forward and backward, active experts only; NULL: not told

CREATE TABLE sweeps (
    sweep_id   INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    path       TEXT NOT NULL,                 -- the file, as it was named
    text       TEXT NOT NULL,                 -- the file, byte for byte
    arguments  TEXT NOT NULL,                 -- overrides of the command line, one a line
    baseline   TEXT NOT NULL,                 -- a variant, or ''
    protocol   TEXT NOT NULL,                 -- of the primary comparison, named before anything ran
    metric     TEXT NOT NULL,
    began_ms   INTEGER NOT NULL               -- last started
) STRICT;

CREATE TABLE members (                        -- one run a sweep asks for; replaced whole when the sweep is started again
    sweep_id       INTEGER NOT NULL REFERENCES sweeps ON DELETE CASCADE,
    position       INTEGER NOT NULL,          -- from 1
    variant        TEXT NOT NULL,
    seed           INTEGER NOT NULL,
    recipe_hash    TEXT NOT NULL,
    base_hash      TEXT NOT NULL,
    tasks_hash     TEXT NOT NULL,
    data_hash      TEXT NOT NULL,
    method         TEXT NOT NULL,
    trained        INTEGER NOT NULL,          -- values, the router's included
    trained_router INTEGER NOT NULL,
    flops          INTEGER NOT NULL,          -- as runs.flops
    matched        TEXT NOT NULL,             -- "params: mixlora, -0.2 %", or ''
    PRIMARY KEY (sweep_id, position)
) STRICT, WITHOUT ROWID;

-- A member is answered by a run of its identity: the newest finished one, else the newest. NULL: there is none yet.
CREATE VIEW sweep_runs AS
SELECT s.name AS sweep, m.*, r.run_id, r.state, r.reason
FROM members m JOIN sweeps s USING (sweep_id)
LEFT JOIN runs r ON r.run_id = (
    SELECT x.run_id FROM runs x
    WHERE x.recipe_hash = m.recipe_hash AND x.seed = m.seed AND x.base_hash = m.base_hash AND x.data_hash = m.data_hash
      AND x.tasks_hash = m.tasks_hash AND x.kind = 'train'
    ORDER BY x.state = 'finished' DESC, x.run_id DESC LIMIT 1);

-- Taking an evaluation away asks which windows are its own: without this, each of them reads all windows.
CREATE INDEX router_windows_evaluation ON router_windows (evaluation_id) WHERE evaluation_id IS NOT NULL;

-- The last evaluation of a run is asked for everywhere.
CREATE INDEX evaluations_last ON evaluations (run_id, step, protocol, limited);
