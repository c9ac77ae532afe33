-- is_merged tells how coarse a window is: 0 as it was computed, 1 merged by the hour, 2 by the day. The fleet's windows are
-- merged like those of devices.
DROP INDEX drift_windows_unmerged;
CREATE INDEX drift_windows_fine ON drift_windows (window_start) WHERE is_merged = 0;
CREATE INDEX drift_windows_hours ON drift_windows (window_start) WHERE is_merged = 1;
