-- What devices measured of a release on request: the newest of each device and variant, so that no device can fill
-- the disk. The hardware class is the device's when it measured.
CREATE TABLE measurements (
    project TEXT NOT NULL,
    model TEXT NOT NULL,
    digest TEXT NOT NULL,
    variant TEXT NOT NULL,
    device TEXT NOT NULL,
    hardware_class TEXT NOT NULL,
    command_id TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (project, model, digest, variant, device)
) STRICT;
