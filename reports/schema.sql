-- schema.sql - the result database, version 1. reports/README.md draws it.
--
-- Rows are only ever added; of what is there only a run's state, step, heartbeat and reason change, and a resumed run drops
-- what it had written past its checkpoint. Numbers about the router are integers and sums, so that every share, entropy or
-- violation is a view. Steps count from 1; step 0 is "before training". Times are milliseconds since 1970, UTC.

CREATE TABLE environments (
    environment_id INTEGER PRIMARY KEY,
    hash           TEXT NOT NULL UNIQUE,      -- of `text`
    text           TEXT NOT NULL              -- JSON: version, commit, processor, threads, device, libraries
) STRICT;

CREATE TABLE bases (
    base_hash   TEXT PRIMARY KEY,             -- sha256 of the weights' files
    name        TEXT NOT NULL,
    description TEXT NOT NULL,                -- "Q4_1 gguf"
    weights     INTEGER NOT NULL              -- how many values
) STRICT;

CREATE TABLE runs (
    run_id         INTEGER PRIMARY KEY,
    uuid           TEXT NOT NULL UNIQUE,      -- 128 random bits, so that databases can be merged
    name           TEXT NOT NULL,
    kind           TEXT NOT NULL CHECK (kind IN ('train', 'eval')),
    method         TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('running', 'finished', 'failed', 'stopped')),
    reason         TEXT NOT NULL DEFAULT '',  -- why it failed or stopped
    recipe_hash    TEXT NOT NULL,             -- words that may change results, where they differ from their defaults
    recipe         TEXT NOT NULL,             -- resolved, every default spelled out
    seed           INTEGER NOT NULL,
    base_hash      TEXT NOT NULL REFERENCES bases,
    tasks_hash     TEXT NOT NULL,             -- of the resolved task definitions, prompts included
    data_hash      TEXT NOT NULL,             -- of the data files' hashes
    environment_id INTEGER NOT NULL REFERENCES environments,
    trained        INTEGER NOT NULL,          -- trained values, the router's included
    trained_router INTEGER NOT NULL,
    steps          INTEGER NOT NULL,          -- planned
    step           INTEGER NOT NULL DEFAULT 0,-- done and stored
    limited        INTEGER NOT NULL,          -- 1: max_steps or a limit cut training short: not a result
    folder         TEXT NOT NULL,
    host           TEXT NOT NULL,
    pid            INTEGER NOT NULL,
    began_ms       INTEGER NOT NULL,
    heartbeat_ms   INTEGER NOT NULL,
    ended_ms       INTEGER
) STRICT;
CREATE INDEX runs_identity ON runs (recipe_hash, seed, base_hash, data_hash, tasks_hash);

CREATE TABLE words (                          -- the recipe's words that differ from their defaults
    run_id INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    word   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (run_id, word)
) STRICT, WITHOUT ROWID;

CREATE TABLE data_files (
    run_id    INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    task      TEXT NOT NULL,
    split     TEXT NOT NULL,
    path      TEXT NOT NULL,
    sha256    TEXT NOT NULL,                  -- of the unpacked bytes
    questions INTEGER NOT NULL,
    truncated INTEGER NOT NULL,               -- prompts that had to be cut
    PRIMARY KEY (run_id, task, split, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE metrics (                        -- loss, nll, balance and z (unweighted), total, grad_norm, learning_rate, tokens, ...
    run_id INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    step   INTEGER NOT NULL,
    name   TEXT NOT NULL,
    value  REAL NOT NULL,
    PRIMARY KEY (run_id, name, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE evaluations (
    evaluation_id INTEGER PRIMARY KEY,
    run_id    INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    task      TEXT NOT NULL,
    split     TEXT NOT NULL,
    protocol  TEXT NOT NULL,
    epoch     REAL NOT NULL,
    step      INTEGER NOT NULL,               -- 0: before training
    n         INTEGER NOT NULL,
    limited   INTEGER NOT NULL,               -- 1: eval.limit left questions out: not a result
    truncated INTEGER NOT NULL,
    task_hash TEXT NOT NULL,                  -- the task's definition
    data_hash TEXT NOT NULL,                  -- its file
    UNIQUE (run_id, task, split, protocol, step)
) STRICT;

CREATE TABLE scores (
    evaluation_id INTEGER NOT NULL REFERENCES evaluations ON DELETE CASCADE,
    metric        TEXT NOT NULL,              -- acc, acc_norm
    value         REAL NOT NULL,              -- 0 to 1
    stderr        REAL NOT NULL,              -- over questions, n - 1
    majority      REAL NOT NULL,              -- always answering the commonest key
    PRIMARY KEY (evaluation_id, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE predictions (                    -- one question of one evaluation
    evaluation_id INTEGER NOT NULL REFERENCES evaluations ON DELETE CASCADE,
    number        INTEGER NOT NULL,           -- its row in the file, from 0
    item          TEXT NOT NULL,              -- its own id
    gold          INTEGER NOT NULL,
    choices       TEXT NOT NULL,              -- JSON array: every choice's score
    PRIMARY KEY (evaluation_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE outcomes (                       -- what a metric makes of it: paired tests are a join on (task, number)
    evaluation_id INTEGER NOT NULL REFERENCES evaluations ON DELETE CASCADE,
    metric        TEXT NOT NULL,
    number        INTEGER NOT NULL,
    chosen        INTEGER NOT NULL,
    correct       INTEGER NOT NULL,
    PRIMARY KEY (evaluation_id, metric, number)
) STRICT, WITHOUT ROWID;

-- Router windows: steps first_step..last_step of training (split 'train'), or one evaluation (evaluation_id).
CREATE TABLE router_windows (
    window_id     INTEGER PRIMARY KEY,
    run_id        INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    split         TEXT NOT NULL,
    first_step    INTEGER NOT NULL,
    last_step     INTEGER NOT NULL,
    evaluation_id INTEGER REFERENCES evaluations ON DELETE CASCADE
) STRICT;
CREATE INDEX router_windows_run ON router_windows (run_id, split);

CREATE TABLE router_loads (
    window_id   INTEGER NOT NULL REFERENCES router_windows ON DELETE CASCADE,
    task        TEXT NOT NULL,
    layer       INTEGER NOT NULL,
    expert      INTEGER NOT NULL,
    tokens      INTEGER NOT NULL,             -- token slots the expert computed
    dropped     INTEGER NOT NULL,             -- past its capacity
    probability REAL NOT NULL,                -- sum of the router's softmax
    PRIMARY KEY (window_id, task, layer, expert)
) STRICT, WITHOUT ROWID;

CREATE TABLE router_tokens (
    window_id INTEGER NOT NULL REFERENCES router_windows ON DELETE CASCADE,
    task      TEXT NOT NULL,
    layer     INTEGER NOT NULL,
    tokens    INTEGER NOT NULL,               -- tokens the router saw
    entropy   REAL NOT NULL,                  -- sum over them of the softmax's entropy, in nats
    PRIMARY KEY (window_id, task, layer)
) STRICT, WITHOUT ROWID;

CREATE TABLE router_pairs (                   -- tokens that used both experts (evaluations only); first < second
    window_id INTEGER NOT NULL REFERENCES router_windows ON DELETE CASCADE,
    task      TEXT NOT NULL,
    layer     INTEGER NOT NULL,
    first     INTEGER NOT NULL,
    second    INTEGER NOT NULL,
    tokens    INTEGER NOT NULL,
    PRIMARY KEY (window_id, task, layer, first, second)
) STRICT, WITHOUT ROWID;

-- What people ask for. router_load is the whole story in one row per window, task, layer and expert.
CREATE VIEW router_load AS
SELECT w.run_id, w.window_id, w.split, w.first_step, w.last_step, w.evaluation_id, e.protocol, l.task, l.layer, l.expert,
       l.tokens, l.dropped, l.probability AS probability_mass, t.tokens AS routed, t.entropy AS entropy_sum
FROM router_loads l JOIN router_windows w USING (window_id)
JOIN router_tokens t ON t.window_id = l.window_id AND t.task = l.task AND t.layer = l.layer
LEFT JOIN evaluations e ON e.evaluation_id = w.evaluation_id;

CREATE VIEW router_share AS                   -- an expert's share of its layer's token slots, tasks together
SELECT run_id, window_id, split, layer, expert, SUM(tokens) AS tokens,
       CAST(SUM(tokens) AS REAL) / NULLIF(SUM(SUM(tokens)) OVER (PARTITION BY window_id, layer), 0) AS share
FROM router_load GROUP BY window_id, layer, expert;

CREATE VIEW router_balance AS                 -- entropy of the load in bits, max/mean load, experts that never work
SELECT run_id, window_id, split, layer, COUNT(*) AS experts,
       -SUM(CASE WHEN share > 0 THEN share * LOG2(share) ELSE 0 END) AS load_entropy_bits,
       MAX(share) * COUNT(*) AS max_over_mean,
       SUM(tokens = 0) AS dead
FROM router_share GROUP BY window_id, layer;

CREATE VIEW accuracy AS                       -- every score with its run beside it
SELECT r.run_id, r.name, r.method, r.seed, r.state, e.task, e.split, e.protocol, e.epoch, e.step, s.metric,
       s.value, s.stderr, e.n, s.majority, MAX(e.limited, r.limited) AS limited, e.evaluation_id
FROM scores s JOIN evaluations e USING (evaluation_id) JOIN runs r USING (run_id);
