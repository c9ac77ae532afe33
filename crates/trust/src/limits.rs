//! Every bound on what comes from outside, in one place.

/// Bounds of the client workflow: value, unit, and the attack that each one stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one root file (D1, endless metadata).
    pub root_bytes: u64,
    /// Bytes of the timestamp file (D1).
    pub timestamp_bytes: u64,
    /// Bytes of the snapshot file, unless the timestamp states its length (D1).
    pub snapshot_bytes: u64,
    /// Bytes of one targets file, unless the snapshot states its length (D1).
    pub targets_bytes: u64,
    /// Bytes of one target, that is of one manifest (D2, endless target).
    pub target_bytes: u64,
    /// New roots in one run (D3, endless root chain); the next run goes on from there.
    pub root_updates: u32,
    /// Delegated roles visited for one target (A6, endless or cyclic delegations).
    pub delegated_roles: usize,
    /// Nesting of JSON (D6).
    pub json_depth: usize,
    /// Signatures on one file (D6).
    pub signatures: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            root_bytes: 512_000,
            timestamp_bytes: 16_384,
            snapshot_bytes: 2_000_000,
            targets_bytes: 5_000_000,
            target_bytes: 1_000_000,
            root_updates: 256,
            delegated_roles: 32,
            json_depth: 32,
            signatures: 64,
        }
    }
}
