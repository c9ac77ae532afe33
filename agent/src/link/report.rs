//! Signs what the device says about itself, each report under a counter that rises over restarts.
//!
//! The counter is kept on disk ahead of its use, in blocks, so that a report costs no write and a power cut skips
//! numbers but never repeats one.

use std::path::Path;

use protocol::report::SignedReport;
use protocol::topic::Channel;
use protocol::{DeviceId, ProjectId, encode_json};
use trust::{Ed25519Signer, SignError};

use crate::durable::{DurableError, TwoCopies};
use crate::health::Clock;

/// Counters reserved by one write.
const BLOCK: u64 = 256;
/// No count of reports and no clock reaches this. A server that names a higher floor would use up the counters, and
/// with them the device's voice.
const HIGHEST_FLOOR: u64 = 1 << 62;

/// Why nothing can be reported.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The counter can't be kept, so no report may be signed.
    #[error("the report counter can't be kept")]
    Counter(#[source] DurableError),
    /// The key failed.
    #[error("the report key could not sign")]
    Sign(#[source] SignError),
}

/// Signs reports for one device.
#[derive(Debug)]
pub struct Reporter {
    project: ProjectId,
    device: DeviceId,
    key: Ed25519Signer,
    record: TwoCopies,
    next: u64,
    reserved: u64,
}

impl Reporter {
    /// Opens the counter in the state directory. When both copies are damaged the counter goes on from the clock in
    /// milliseconds, which no count of reports reaches, so that it still rises.
    ///
    /// # Errors
    /// [`ReportError::Counter`].
    pub fn open(
        state_dir: &Path,
        project: ProjectId,
        device: DeviceId,
        key: Ed25519Signer,
        clock: &Clock,
    ) -> Result<Self, ReportError> {
        let (record, reserved) = reserved(state_dir, clock)?;
        Ok(Self { project, device, key, record, next: reserved.saturating_add(1), reserved })
    }

    /// Goes on above `floor`, the highest counter that the server has taken; never goes back.
    pub fn raise(&mut self, floor: u64) -> Raised {
        if floor < self.next {
            return Raised::NotNeeded;
        }
        if floor > HIGHEST_FLOOR {
            return Raised::TooHigh;
        }
        // Above what is reserved, so the next report writes it down before it is signed.
        let last = self.next - 1;
        self.next = floor + 1;
        Raised::From(last)
    }

    /// The bytes to publish on `channel` for this payload.
    ///
    /// # Errors
    /// [`ReportError`]; no counter is used up then.
    pub fn sign(&mut self, channel: Channel, payload: &[u8]) -> Result<Vec<u8>, ReportError> {
        if self.next > self.reserved {
            let reserved = self.next + BLOCK - 1;
            self.record.write(&reserved.to_be_bytes()).map_err(ReportError::Counter)?;
            self.reserved = reserved;
        }
        let signed: SignedReport =
            trust::report::sign(&self.project, &self.device, channel, self.next, payload, &self.key)
                .map_err(ReportError::Sign)?;
        self.next += 1;
        Ok(encode_json(&signed))
    }
}

/// What became of a floor that the server named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// The counter stood here, and goes on above the floor.
    From(u64),
    /// The counter is above it already.
    NotNeeded,
    /// No honest server has such a floor; nothing changes.
    TooHigh,
}

/// Makes the first report after an enrolment rise above `floor`, the last report that the server took under this name,
/// and above what this state directory has used.
///
/// # Errors
/// [`ReportError::Counter`].
pub(super) fn start_above(state_dir: &Path, floor: u64, clock: &Clock) -> Result<(), ReportError> {
    let (mut record, used) = reserved(state_dir, clock)?;
    if floor <= used || floor > HIGHEST_FLOOR {
        return Ok(());
    }
    record.write(&floor.to_be_bytes()).map_err(ReportError::Counter)
}

/// Highest counter that may have been used.
fn reserved(state_dir: &Path, clock: &Clock) -> Result<(TwoCopies, u64), ReportError> {
    let path = state_dir.join("report-counter");
    let from_clock = || u64::try_from(clock.now().0).unwrap_or(0);
    match TwoCopies::open(&path) {
        Ok((record, None)) => Ok((record, 0)),
        Ok((record, Some(found))) => match <[u8; 8]>::try_from(found.body) {
            // One write may be missing: skip what it could have reserved.
            Ok(body) if found.is_other_damaged => {
                Ok((record, u64::from_be_bytes(body).saturating_add(BLOCK)))
            }
            Ok(body) => Ok((record, u64::from_be_bytes(body))),
            Err(_) => Ok((record, from_clock())),
        },
        Err(DurableError::Corrupt { .. }) => {
            tracing::error!("both copies of the report counter are damaged; it goes on from the clock");
            Ok((TwoCopies::begin_anew(&path), from_clock()))
        }
        Err(error) => Err(ReportError::Counter(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::decode_json;

    fn open(dir: &Path) -> Reporter {
        let (project, device) = (ProjectId::new("p").unwrap(), DeviceId::new("d").unwrap());
        let key = Ed25519Signer::from_seed(&[1; 32]);
        Reporter::open(dir, project, device, key, &Clock::open(dir).unwrap()).unwrap()
    }

    fn counter(reporter: &mut Reporter) -> u64 {
        decode_json::<SignedReport>(&reporter.sign(Channel::Hello, b"x").unwrap()).unwrap().counter
    }

    #[test]
    fn the_counter_rises_over_restarts_and_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = 0;
        for _ in 0..4 {
            let mut reporter = open(dir.path());
            for _ in 0..300 {
                let next = counter(&mut reporter);
                assert!(next > last);
                last = next;
            }
        }
    }

    #[test]
    fn the_counter_rises_over_damage_of_one_copy_and_of_both() {
        let dir = tempfile::tempdir().unwrap();
        let mut reporter = open(dir.path());
        let last = (0..600).map(|_| counter(&mut reporter)).last().unwrap();
        std::fs::write(dir.path().join("report-counter.b"), "damaged").unwrap();
        let after_one = counter(&mut open(dir.path()));
        assert!(after_one > last);
        for letter in ['a', 'b'] {
            std::fs::write(dir.path().join(format!("report-counter.{letter}")), "damaged").unwrap();
        }
        assert!(counter(&mut open(dir.path())) > after_one);
    }

    #[test]
    fn v1_the_counter_rises_to_the_servers_floor_and_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let mut reporter = open(dir.path());
        counter(&mut reporter);
        assert_eq!(reporter.raise(1000), Raised::From(1));
        assert_eq!(counter(&mut reporter), 1001);
        for old in [0, 7, 1000, 1001] {
            assert_eq!(reporter.raise(old), Raised::NotNeeded, "{old}: an order that is replayed");
        }
        assert_eq!(reporter.raise(u64::MAX), Raised::TooHigh);
        assert_eq!(counter(&mut reporter), 1002);
        assert!(counter(&mut open(dir.path())) > 1002, "over a restart, too");
    }

    #[test]
    fn an_enrolment_starts_above_what_the_server_knows_and_above_what_was_used() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path()).unwrap();
        start_above(dir.path(), 41, &clock).unwrap();
        assert_eq!(counter(&mut open(dir.path())), 42);
        let used = counter(&mut open(dir.path()));
        for lower in [0, 41, u64::MAX] {
            start_above(dir.path(), lower, &clock).unwrap();
        }
        assert!(counter(&mut open(dir.path())) > used);
    }
}
