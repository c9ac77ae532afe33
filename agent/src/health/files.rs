//! How many files the agent may have open. Each connection to the local API is one; where there are too few, connections
//! are refused, and what the agent needs itself stays free: its spool, its manifests, its link to the server.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What the agent has open beside connections to the local API: its own stores, the server, blobs, threads' pipes (64), and
/// connections that are being told that they are too many (32).
const OWN: u64 = 96;

/// The system's limit is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "at most {limit} files may be open at once; {wanted} can be needed with serve.max_connections = {connections}: \
     {} are let in", self.connections()
)]
pub struct FewFiles {
    limit: u64,
    wanted: u64,
    connections: usize,
}

impl FewFiles {
    /// Connections that leave the agent what it needs itself; one at least.
    pub fn connections(&self) -> usize {
        let left = usize::try_from(self.limit.saturating_sub(OWN)).unwrap_or(usize::MAX);
        left.clamp(1, self.connections.max(1))
    }
}

/// Raises the limit on open files to what so many connections take, as far as the system permits.
///
/// # Errors
/// [`FewFiles`] if that isn't enough.
pub fn raise_file_limit(connections: usize) -> Result<(), FewFiles> {
    let wanted = OWN.saturating_add(u64::try_from(connections).unwrap_or(u64::MAX));
    let mut limit = getrlimit(Resource::Nofile);
    let is_enough = |most: Option<u64>| most.is_none_or(|most| most >= wanted);
    if is_enough(limit.current) {
        return Ok(());
    }
    limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) if is_enough(limit.current) => Ok(()),
        Ok(()) | Err(_) => {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            Err(FewFiles { limit, wanted, connections })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_does_not_permit_is_told_with_both_numbers() {
        assert_eq!(raise_file_limit(16), Ok(()));
        let few = |limit| FewFiles { limit, wanted: 224, connections: 128 }.connections();
        assert_eq!([few(0), few(OWN), few(OWN + 2), few(1 << 40)], [1, 1, 2, 128]);
        let most = getrlimit(Resource::Nofile).maximum;
        if let Some(most) = most.and_then(|most| usize::try_from(most).ok()) {
            let told = raise_file_limit(most).unwrap_err().to_string();
            assert!(
                told.contains(&format!("at most {most} files")) && told.contains("max_connections"),
                "{told}"
            );
        }
    }
}
