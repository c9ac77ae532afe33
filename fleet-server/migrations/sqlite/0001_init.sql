-- Flotilla's schema. Times are Unix milliseconds, JSON is text, truth values are 0 or 1.
-- migrations/postgres holds the same tables and columns; a test compares the two.

-- Tenants and people -----------------------------------------------------------------------------

CREATE TABLE projects (
    project TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    username TEXT PRIMARY KEY,
    password_hash TEXT NOT NULL,
    must_change_password INTEGER NOT NULL,
    is_disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- project is '*' for a grant on all projects.
CREATE TABLE grants (
    username TEXT NOT NULL REFERENCES users (username) ON DELETE CASCADE,
    project TEXT NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (username, project)
) STRICT;

CREATE TABLE sessions (
    secret_sha256 BLOB PRIMARY KEY,
    username TEXT NOT NULL REFERENCES users (username) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (username);

CREATE TABLE api_tokens (
    token_id TEXT PRIMARY KEY,
    secret_sha256 BLOB NOT NULL UNIQUE,
    username TEXT NOT NULL REFERENCES users (username) ON DELETE CASCADE,
    title TEXT NOT NULL,
    project TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER
) STRICT;
CREATE INDEX api_tokens_by_user ON api_tokens (username);

-- Devices ----------------------------------------------------------------------------------------

CREATE TABLE enrollment_tokens (
    token_id TEXT PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (project),
    secret_sha256 BLOB NOT NULL UNIQUE,
    device TEXT,
    labels TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    used_by TEXT
) STRICT;
CREATE INDEX enrollment_tokens_by_project ON enrollment_tokens (project, token_id);

CREATE TABLE devices (
    project TEXT NOT NULL REFERENCES projects (project),
    device TEXT NOT NULL,
    report_key BLOB NOT NULL,
    certificate_serial TEXT NOT NULL,
    certificate_expires INTEGER NOT NULL,
    next_certificate_serial TEXT,
    next_certificate_expires INTEGER,
    labels TEXT NOT NULL,
    is_online INTEGER NOT NULL,
    last_seen INTEGER,
    hello TEXT,
    hello_at INTEGER,
    report_counter INTEGER NOT NULL,
    desired_revision INTEGER NOT NULL,
    desired TEXT,
    desired_envelope BLOB,
    desired_sent_at INTEGER,
    created_at INTEGER NOT NULL,
    decommissioned_at INTEGER,
    PRIMARY KEY (project, device)
) STRICT;

-- The labels again, one row each, so that filters use an index on both databases.
CREATE TABLE device_labels (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    label TEXT NOT NULL,
    label_value TEXT NOT NULL,
    PRIMARY KEY (project, device, label),
    FOREIGN KEY (project, device) REFERENCES devices (project, device) ON DELETE CASCADE
) STRICT;
CREATE INDEX device_labels_by_value ON device_labels (project, label, label_value);

CREATE TABLE device_models (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    active_version TEXT,
    active_digest TEXT,
    active_counter INTEGER,
    candidate_version TEXT,
    candidate_digest TEXT,
    fallback_version TEXT,
    fallback_digest TEXT,
    phase TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project, device, model),
    FOREIGN KEY (project, device) REFERENCES devices (project, device) ON DELETE CASCADE
) STRICT;
CREATE INDEX device_models_by_release ON device_models (project, model, active_version);

-- event_id is '{stream}:{seq}' for what a device reports, 'server:{random}' for what the server notes.
CREATE TABLE device_events (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    event_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    name TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (project, device, event_id)
) STRICT;
CREATE INDEX device_events_by_time ON device_events (project, device, received_at, event_id);

-- Every transition of the update machine that a device reported; counter is its signed report's.
CREATE TABLE task_reports (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    counter INTEGER NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    rollout TEXT,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    phase TEXT NOT NULL,
    report TEXT NOT NULL,
    PRIMARY KEY (project, device, counter)
) STRICT;
CREATE INDEX task_reports_by_rollout ON task_reports (project, rollout);

CREATE TABLE device_logs (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    command_id TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    lines TEXT NOT NULL,
    PRIMARY KEY (project, device, stream, seq)
) STRICT;

-- Telemetry: the primary key is what makes a record count once -------------------------------------

CREATE TABLE streams (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    upto_seq INTEGER NOT NULL,
    ahead TEXT NOT NULL,
    dropped TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project, device, stream)
) STRICT;

CREATE TABLE quarantine (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    why TEXT NOT NULL,
    body BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (project, device, stream, seq)
) STRICT;

CREATE TABLE resources (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    rss_bytes INTEGER NOT NULL,
    cpu_ms INTEGER NOT NULL,
    disk_free_bytes INTEGER NOT NULL,
    disk_used_bytes INTEGER NOT NULL,
    load1 REAL NOT NULL,
    temperature_c REAL,
    PRIMARY KEY (project, device, stream, seq)
) STRICT;
CREATE INDEX resources_by_time ON resources (project, device, received_at);

CREATE TABLE panes (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    segment TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    window_end INTEGER NOT NULL,
    n INTEGER NOT NULL,
    body BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (project, device, stream, seq)
) STRICT;
CREATE INDEX panes_by_model ON panes (project, model, window_start, device);
CREATE INDEX panes_by_arrival ON panes (received_at);

-- Models, releases, signed metadata, blobs ---------------------------------------------------------

CREATE TABLE models (
    project TEXT NOT NULL REFERENCES projects (project),
    model TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (project, model)
) STRICT;

CREATE TABLE releases (
    project TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    counter INTEGER NOT NULL,
    manifest BLOB NOT NULL,
    state TEXT NOT NULL,
    published_at INTEGER NOT NULL,
    published_by TEXT NOT NULL,
    PRIMARY KEY (project, model, version),
    UNIQUE (project, model, digest),
    FOREIGN KEY (project, model) REFERENCES models (project, model)
) STRICT;

-- Every version of every TUF file, byte for byte; name is the role, e.g. 'root', 'digits'.
CREATE TABLE metadata (
    project TEXT NOT NULL REFERENCES projects (project),
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    stored_by TEXT NOT NULL,
    PRIMARY KEY (project, name, version)
) STRICT;

-- Signed targets other than manifests, e.g. 'director.json', and manifests by their full target path.
CREATE TABLE targets (
    project TEXT NOT NULL REFERENCES projects (project),
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes BLOB NOT NULL,
    stored_at INTEGER NOT NULL,
    PRIMARY KEY (project, path, digest)
) STRICT;

-- Keys that the server made itself; the seed is sealed by the key file in the data folder.
CREATE TABLE online_keys (
    project TEXT NOT NULL REFERENCES projects (project),
    role TEXT NOT NULL,
    public_key BLOB NOT NULL,
    sealed_seed BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (project, role)
) STRICT;

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE blob_refs (
    project TEXT NOT NULL REFERENCES projects (project),
    digest TEXT NOT NULL REFERENCES blobs (digest),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (project, digest)
) STRICT;

-- Rollouts -------------------------------------------------------------------------------------------

CREATE TABLE rollouts (
    project TEXT NOT NULL REFERENCES projects (project),
    rollout TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    plan TEXT NOT NULL,
    state TEXT NOT NULL,
    state_name TEXT NOT NULL,
    is_terminal INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    finished_at INTEGER,
    row_version INTEGER NOT NULL,
    PRIMARY KEY (project, rollout)
) STRICT;
CREATE INDEX rollouts_by_state ON rollouts (is_terminal, project);

-- stage is -1 outside of any stage; report_counter is the last report of the device that the rollout has taken in.
CREATE TABLE rollout_tasks (
    project TEXT NOT NULL,
    rollout TEXT NOT NULL,
    device TEXT NOT NULL,
    phase TEXT NOT NULL,
    stage INTEGER NOT NULL,
    cause TEXT,
    attempt INTEGER NOT NULL,
    task TEXT NOT NULL,
    report_counter INTEGER NOT NULL,
    is_terminal INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project, rollout, device),
    FOREIGN KEY (project, rollout) REFERENCES rollouts (project, rollout)
) STRICT;
CREATE INDEX rollout_tasks_by_device ON rollout_tasks (project, device, is_terminal);

CREATE TABLE rollout_journal (
    project TEXT NOT NULL,
    rollout TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    cause TEXT NOT NULL,
    transition TEXT NOT NULL,
    PRIMARY KEY (project, rollout, seq),
    FOREIGN KEY (project, rollout) REFERENCES rollouts (project, rollout)
) STRICT;

CREATE TABLE evidence (
    project TEXT NOT NULL,
    rollout TEXT NOT NULL,
    stage INTEGER NOT NULL,
    gate TEXT NOT NULL,
    at INTEGER NOT NULL,
    passed INTEGER,
    body TEXT NOT NULL,
    signature BLOB,
    PRIMARY KEY (project, rollout, stage, gate, at),
    FOREIGN KEY (project, rollout) REFERENCES rollouts (project, rollout)
) STRICT;

-- Drift, alerts, audit, jobs ---------------------------------------------------------------------------

-- device is '' for the whole fleet.
CREATE TABLE drift_windows (
    project TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    device TEXT NOT NULL,
    segment TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    window_end INTEGER NOT NULL,
    n INTEGER NOT NULL,
    is_drifting INTEGER NOT NULL,
    report TEXT NOT NULL,
    pane BLOB,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project, model, digest, device, segment, window_start)
) STRICT;
CREATE INDEX drift_windows_by_time ON drift_windows (project, model, window_start);

-- At most one open alert per dedupe_key: open_key is that key while open and NULL once closed.
CREATE TABLE alerts (
    alert_id TEXT PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (project),
    open_key TEXT,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    device TEXT,
    model TEXT,
    rollout TEXT,
    message TEXT NOT NULL,
    details TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    closed_at INTEGER,
    acknowledged_at INTEGER,
    acknowledged_by TEXT,
    UNIQUE (project, open_key)
) STRICT;
CREATE INDEX alerts_by_project ON alerts (project, alert_id);

-- project is NULL for what concerns the whole server: users, tokens, projects.
CREATE TABLE audit (
    audit_id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    project TEXT,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object TEXT NOT NULL,
    value_before TEXT,
    value_after TEXT
) STRICT;
CREATE INDEX audit_by_project ON audit (project, audit_id);

CREATE TABLE leases (
    lease TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until_at INTEGER NOT NULL
) STRICT;
