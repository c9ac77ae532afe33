-- Captured samples for retraining, and those that are still on their way. The bytes are in the object store.

CREATE TABLE samples (
    sample_id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    digest TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    strategy TEXT NOT NULL,
    head TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    UNIQUE (project, device, digest),
    FOREIGN KEY (project, device) REFERENCES devices (project, device)
) STRICT;
CREATE INDEX samples_by_model ON samples (project, model, sample_id);
CREATE INDEX samples_by_expiry ON samples (expires_at);

CREATE TABLE sample_uploads (
    project TEXT NOT NULL,
    device TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    got_bytes INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project, device, digest),
    FOREIGN KEY (project, device) REFERENCES devices (project, device)
) STRICT;
CREATE INDEX sample_uploads_by_time ON sample_uploads (updated_at);
