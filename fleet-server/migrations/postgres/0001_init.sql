-- Flotilla's schema. Times are Unix milliseconds, JSON is text, truth values are 0 or 1.
-- migrations/sqlite holds the same tables and columns; a test compares the two.

-- Tenants and people -----------------------------------------------------------------------------

CREATE TABLE projects (
    project TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    username TEXT PRIMARY KEY,
    password_hash TEXT NOT NULL,
    must_change_password BIGINT NOT NULL,
    is_disabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- project is '*' for a grant on all projects.
CREATE TABLE grants (
    username TEXT NOT NULL REFERENCES users (username) ON DELETE CASCADE,
    project TEXT NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (username, project)
);

CREATE TABLE sessions (
    secret_sha256 BYTEA PRIMARY KEY,
    username TEXT NOT NULL REFERENCES users (username) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (username);

CREATE TABLE api_tokens (
    token_id TEXT PRIMARY KEY,
    secret_sha256 BYTEA NOT NULL UNIQUE,
    username TEXT NOT NULL REFERENCES users (username) ON DELETE CASCADE,
    title TEXT NOT NULL,
    project TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT
);
CREATE INDEX api_tokens_by_user ON api_tokens (username);

-- Devices ----------------------------------------------------------------------------------------

CREATE TABLE enrollment_tokens (
    token_id TEXT PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (project),
    secret_sha256 BYTEA NOT NULL UNIQUE,
    device TEXT,
    labels TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    used_by TEXT
);
CREATE INDEX enrollment_tokens_by_project ON enrollment_tokens (project, token_id);

CREATE TABLE devices (
    project TEXT NOT NULL REFERENCES projects (project),
    device TEXT NOT NULL,
    report_key BYTEA NOT NULL,
    certificate_serial TEXT NOT NULL,
    certificate_expires BIGINT NOT NULL,
    next_certificate_serial TEXT,
    next_certificate_expires BIGINT,
    labels TEXT NOT NULL,
    is_online BIGINT NOT NULL,
    last_seen BIGINT,
    hello TEXT,
    hello_at BIGINT,
    report_counter BIGINT NOT NULL,
    desired_revision BIGINT NOT NULL,
    desired TEXT,
    desired_envelope BYTEA,
    desired_sent_at BIGINT,
    created_at BIGINT NOT NULL,
    decommissioned_at BIGINT,
    PRIMARY KEY (project, device)
);

-- The labels again, one row each, so that filters use an index on both databases.
CREATE TABLE device_labels (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    label TEXT NOT NULL,
    label_value TEXT NOT NULL,
    PRIMARY KEY (project, device, label),
    FOREIGN KEY (project, device) REFERENCES devices (project, device) ON DELETE CASCADE
);
CREATE INDEX device_labels_by_value ON device_labels (project, label, label_value);

CREATE TABLE device_models (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    active_version TEXT,
    active_digest TEXT,
    active_counter BIGINT,
    candidate_version TEXT,
    candidate_digest TEXT,
    fallback_version TEXT,
    fallback_digest TEXT,
    phase TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (project, device, model),
    FOREIGN KEY (project, device) REFERENCES devices (project, device) ON DELETE CASCADE
);
CREATE INDEX device_models_by_release ON device_models (project, model, active_version);

-- event_id is '{stream}:{seq}' for what a device reports, 'server:{random}' for what the server notes.
CREATE TABLE device_events (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    event_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    name TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (project, device, event_id)
);
CREATE INDEX device_events_by_time ON device_events (project, device, received_at, event_id);

-- Every transition of the update machine that a device reported; counter is its signed report's.
CREATE TABLE task_reports (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    counter BIGINT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    rollout TEXT,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    phase TEXT NOT NULL,
    report TEXT NOT NULL,
    PRIMARY KEY (project, device, counter)
);
CREATE INDEX task_reports_by_rollout ON task_reports (project, rollout);

CREATE TABLE device_logs (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    command_id TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    lines TEXT NOT NULL,
    PRIMARY KEY (project, device, stream, seq)
);

-- Telemetry: the primary key is what makes a record count once -------------------------------------

CREATE TABLE streams (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    upto_seq BIGINT NOT NULL,
    ahead TEXT NOT NULL,
    dropped TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (project, device, stream)
);

CREATE TABLE quarantine (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    why TEXT NOT NULL,
    body BYTEA NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (project, device, stream, seq)
);

CREATE TABLE resources (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    rss_bytes BIGINT NOT NULL,
    cpu_ms BIGINT NOT NULL,
    disk_free_bytes BIGINT NOT NULL,
    disk_used_bytes BIGINT NOT NULL,
    load1 DOUBLE PRECISION NOT NULL,
    temperature_c DOUBLE PRECISION,
    PRIMARY KEY (project, device, stream, seq)
);
CREATE INDEX resources_by_time ON resources (project, device, received_at);

CREATE TABLE panes (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    segment TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    window_end BIGINT NOT NULL,
    n BIGINT NOT NULL,
    body BYTEA NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (project, device, stream, seq)
);
CREATE INDEX panes_by_model ON panes (project, model, window_start, device);
CREATE INDEX panes_by_arrival ON panes (received_at);

-- Models, releases, signed metadata, blobs ---------------------------------------------------------

CREATE TABLE models (
    project TEXT NOT NULL REFERENCES projects (project),
    model TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project, model)
);

CREATE TABLE releases (
    project TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    counter BIGINT NOT NULL,
    manifest BYTEA NOT NULL,
    state TEXT NOT NULL,
    published_at BIGINT NOT NULL,
    published_by TEXT NOT NULL,
    PRIMARY KEY (project, model, version),
    UNIQUE (project, model, digest),
    FOREIGN KEY (project, model) REFERENCES models (project, model)
);

-- Every version of every TUF file, byte for byte; name is the role, e.g. 'root', 'digits'.
CREATE TABLE metadata (
    project TEXT NOT NULL REFERENCES projects (project),
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    bytes BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    stored_at BIGINT NOT NULL,
    stored_by TEXT NOT NULL,
    PRIMARY KEY (project, name, version)
);

-- Signed targets other than manifests, e.g. 'director.json', and manifests by their full target path.
CREATE TABLE targets (
    project TEXT NOT NULL REFERENCES projects (project),
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes BYTEA NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (project, path, digest)
);

-- Keys that the server made itself; the seed is sealed by the key file in the data folder.
CREATE TABLE online_keys (
    project TEXT NOT NULL REFERENCES projects (project),
    role TEXT NOT NULL,
    public_key BYTEA NOT NULL,
    sealed_seed BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project, role)
);

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size_bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE blob_refs (
    project TEXT NOT NULL REFERENCES projects (project),
    digest TEXT NOT NULL REFERENCES blobs (digest),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project, digest)
);

-- Rollouts -------------------------------------------------------------------------------------------

CREATE TABLE rollouts (
    project TEXT NOT NULL REFERENCES projects (project),
    rollout TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    plan TEXT NOT NULL,
    state TEXT NOT NULL,
    state_name TEXT NOT NULL,
    is_terminal BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT,
    row_version BIGINT NOT NULL,
    PRIMARY KEY (project, rollout)
);
CREATE INDEX rollouts_by_state ON rollouts (is_terminal, project);

-- stage is -1 outside of any stage; report_counter is the last report of the device that the rollout has taken in.
CREATE TABLE rollout_tasks (
    project TEXT NOT NULL,
    rollout TEXT NOT NULL,
    device TEXT NOT NULL,
    phase TEXT NOT NULL,
    stage BIGINT NOT NULL,
    cause TEXT,
    attempt BIGINT NOT NULL,
    task TEXT NOT NULL,
    report_counter BIGINT NOT NULL,
    is_terminal BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (project, rollout, device),
    FOREIGN KEY (project, rollout) REFERENCES rollouts (project, rollout)
);
CREATE INDEX rollout_tasks_by_device ON rollout_tasks (project, device, is_terminal);

CREATE TABLE rollout_journal (
    project TEXT NOT NULL,
    rollout TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    cause TEXT NOT NULL,
    transition TEXT NOT NULL,
    PRIMARY KEY (project, rollout, seq),
    FOREIGN KEY (project, rollout) REFERENCES rollouts (project, rollout)
);

CREATE TABLE evidence (
    project TEXT NOT NULL,
    rollout TEXT NOT NULL,
    stage BIGINT NOT NULL,
    gate TEXT NOT NULL,
    at BIGINT NOT NULL,
    passed BIGINT,
    body TEXT NOT NULL,
    signature BYTEA,
    PRIMARY KEY (project, rollout, stage, gate, at),
    FOREIGN KEY (project, rollout) REFERENCES rollouts (project, rollout)
);

-- Drift, alerts, audit, jobs ---------------------------------------------------------------------------

-- device is '' for the whole fleet.
CREATE TABLE drift_windows (
    project TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    device TEXT NOT NULL,
    segment TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    window_end BIGINT NOT NULL,
    n BIGINT NOT NULL,
    is_drifting BIGINT NOT NULL,
    report TEXT NOT NULL,
    pane BYTEA,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (project, model, digest, device, segment, window_start)
);
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
    opened_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    closed_at BIGINT,
    acknowledged_at BIGINT,
    acknowledged_by TEXT,
    UNIQUE (project, open_key)
);
CREATE INDEX alerts_by_project ON alerts (project, alert_id);

-- project is NULL for what concerns the whole server: users, tokens, projects.
CREATE TABLE audit (
    audit_id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    project TEXT,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object TEXT NOT NULL,
    value_before TEXT,
    value_after TEXT
);
CREATE INDEX audit_by_project ON audit (project, audit_id);

CREATE TABLE leases (
    lease TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until_at BIGINT NOT NULL
);
