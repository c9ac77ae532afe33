//! What a running rollout waits for, with what the server knows about the devices.

use std::collections::BTreeSet;

use protocol::{DeviceId, ProjectId, UnixMillis};
use rollout::Rollout;

use crate::store::{Conn, StoreError, devices};

/// As many devices as the answer names.
const ASKED: usize = 3;

/// What keeps a running rollout in its stage, in one sentence.
///
/// # Errors
/// [`StoreError`] when the devices can't be read.
pub async fn waits_for(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &Rollout,
    now: UnixMillis,
) -> Result<Option<String>, StoreError> {
    let mut online: BTreeSet<DeviceId> = BTreeSet::new();
    for device in rollout.unsettled(ASKED) {
        if devices::get(conn, project, device).await?.is_some_and(|found| found.is_online) {
            online.insert(device.clone());
        }
    }
    Ok(rollout.waits_for(now, |device| online.contains(device)))
}
