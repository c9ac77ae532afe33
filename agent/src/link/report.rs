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
        let path = state_dir.join("report-counter");
        let from_clock = || u64::try_from(clock.now().0).unwrap_or(0);
        let (record, reserved) = match TwoCopies::open(&path) {
            Ok((record, None)) => (record, 0),
            Ok((record, Some(found))) => match <[u8; 8]>::try_from(found.body) {
                // One write may be missing: skip what it could have reserved.
                Ok(body) if found.is_other_damaged => {
                    (record, u64::from_be_bytes(body).saturating_add(BLOCK))
                }
                Ok(body) => (record, u64::from_be_bytes(body)),
                Err(_) => (record, from_clock()),
            },
            Err(DurableError::Corrupt { .. }) => {
                tracing::error!("both copies of the report counter are damaged; it goes on from the clock");
                (TwoCopies::begin_anew(&path), from_clock())
            }
            Err(error) => return Err(ReportError::Counter(error)),
        };
        Ok(Self { project, device, key, record, next: reserved + 1, reserved })
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
}
