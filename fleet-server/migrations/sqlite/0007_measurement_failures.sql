-- Why a device could not measure again what it has figures of: they stay, and this stands beside them.
ALTER TABLE measurements ADD COLUMN failure TEXT;
