//! How much a device may have stored in an hour: no device fills the server's disk alone, or keeps it busy. Telemetry
//! that is over is refused, not lost: the device keeps it and sends it again. Kept in memory; a restart begins a new
//! hour.

use std::collections::HashMap;

use protocol::telemetry::Batch;
use protocol::{DeviceId, ProjectId, UnixMillis};

use super::reject::Rejection;

const HOUR_MS: i64 = 3_600_000;
/// What a record takes beside its body: its row and its place in indices.
const RECORD_BYTES: u64 = 100;

/// Hellos, status and task reports of a device in an hour. An honest one says a few in a day, and even one that
/// comes and goes all the time says less than one a second.
const MAX_MESSAGES: u32 = 3600;

/// What each device has used of the hour.
#[derive(Debug)]
pub(super) struct Budgets {
    max_bytes: u64,
    hour: i64,
    used: HashMap<(ProjectId, DeviceId), Used>,
}

#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    messages: u32,
}

impl Budgets {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, hour: 0, used: HashMap::new() }
    }

    /// Takes a batch's size from the device's hour.
    ///
    /// # Errors
    /// [`Rejection::OverBudget`] when the hour has no room for it; nothing is taken then.
    pub(super) fn take(
        &mut self,
        now: UnixMillis,
        project: &ProjectId,
        device: &DeviceId,
        batch: &Batch,
    ) -> Result<(), Rejection> {
        let max_bytes = self.max_bytes;
        let used = self.of(now, project, device);
        let with_batch = used.bytes.saturating_add(size(batch));
        if with_batch > max_bytes {
            return Err(Rejection::OverBudget { max_bytes });
        }
        used.bytes = with_batch;
        Ok(())
    }

    /// Takes one message that is no telemetry from the device's hour.
    ///
    /// # Errors
    /// [`Rejection::TooMany`] when it has said enough in this hour.
    pub(super) fn take_message(
        &mut self,
        now: UnixMillis,
        project: &ProjectId,
        device: &DeviceId,
    ) -> Result<(), Rejection> {
        let used = self.of(now, project, device);
        if used.messages >= MAX_MESSAGES {
            return Err(Rejection::TooMany { max: MAX_MESSAGES });
        }
        used.messages += 1;
        Ok(())
    }

    fn of(&mut self, now: UnixMillis, project: &ProjectId, device: &DeviceId) -> &mut Used {
        let hour = now.0.div_euclid(HOUR_MS);
        if hour != self.hour {
            self.hour = hour;
            self.used.clear();
        }
        self.used.entry((project.clone(), device.clone())).or_default()
    }
}

fn size(batch: &Batch) -> u64 {
    let of_record = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(RECORD_BYTES);
    batch.records.iter().map(|record| of_record(record.body.len())).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use protocol::telemetry::{Kind, Record};
    use protocol::{StreamId, WIRE_VERSION};

    use super::*;

    fn batch(bytes: usize) -> Batch {
        let record = Record { seq: 1, kind: Kind::Pane, at: UnixMillis(0), body: vec![0; bytes].into() };
        let stream = StreamId::new("s").unwrap();
        Batch { v: WIRE_VERSION, stream, floor_seq: 1, from_seq: 0, records: vec![record], dropped: vec![] }
    }

    #[test]
    fn each_device_has_its_own_hour() {
        let project = ProjectId::new("acme").unwrap();
        let (one, two) = (DeviceId::new("one").unwrap(), DeviceId::new("two").unwrap());
        let mut budgets = Budgets::new(1000);
        let mut take = |at, device: &DeviceId, bytes| {
            budgets.take(UnixMillis(at), &project, device, &batch(bytes)).map_err(|refused| refused.code())
        };
        assert_eq!(take(HOUR_MS, &one, 800), Ok(()));
        assert_eq!(take(HOUR_MS + 1, &one, 1), Err("over_budget"), "a record takes more than its body");
        assert_eq!(take(HOUR_MS + 1, &two, 900), Ok(()));
        assert_eq!(take(2 * HOUR_MS - 1, &one, 0), Ok(()), "what was refused took nothing");
        assert_eq!(take(2 * HOUR_MS, &one, 900), Ok(()));
        assert_eq!(take(2 * HOUR_MS, &two, 901), Err("over_budget"));
    }

    #[test]
    fn a_device_that_never_stops_talking_is_heard_so_often() {
        let project = ProjectId::new("acme").unwrap();
        let (one, two) = (DeviceId::new("one").unwrap(), DeviceId::new("two").unwrap());
        let mut budgets = Budgets::new(1000);
        let mut take = |at, device: &DeviceId| {
            budgets.take_message(UnixMillis(at), &project, device).map_err(|refused| refused.code())
        };
        assert!((0..i64::from(MAX_MESSAGES)).all(|at| take(at, &one).is_ok()));
        assert_eq!(take(HOUR_MS - 1, &one), Err("too_many_messages"));
        assert_eq!(take(HOUR_MS - 1, &two), Ok(()));
        assert_eq!(take(HOUR_MS, &one), Ok(()));
    }
}
