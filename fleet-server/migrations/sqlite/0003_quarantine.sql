-- Of a quarantined record only the beginning of its body is kept; these say what the whole was.
ALTER TABLE quarantine ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN body_sha256 TEXT NOT NULL DEFAULT '';
CREATE INDEX quarantine_by_time ON quarantine (project, device, received_at);
