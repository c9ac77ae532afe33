-- A window keeps its pane and what alerts read of its report; report is '' then, and made again when it is asked for.
-- Rows of earlier versions have a report and no findings.
ALTER TABLE drift_windows ADD COLUMN findings TEXT NOT NULL DEFAULT '';
-- 1: several windows of a device, merged.
ALTER TABLE drift_windows ADD COLUMN is_merged BIGINT NOT NULL DEFAULT 0;
CREATE INDEX drift_windows_unmerged ON drift_windows (window_start) WHERE device <> '' AND is_merged = 0;
CREATE INDEX drift_windows_by_update ON drift_windows (updated_at);
