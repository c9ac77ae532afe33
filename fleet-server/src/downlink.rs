//! The way down to devices, as the rest of the server sees it; `link` empties it into the broker.

use protocol::message::Command;
use protocol::{DeviceId, ProjectId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::debug;

/// Requests that wait for the link. When full, a command is refused and a hint about Desired is dropped: Desired
/// is level-triggered, the link compares revisions by itself too.
const CAPACITY: usize = 4096;

/// Something to send to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Send this command.
    Command {
        /// Tenant.
        project: ProjectId,
        /// To which device.
        device: DeviceId,
        /// What to do.
        command: Command,
    },
    /// End the device's connection: it may no longer be here.
    Disconnect {
        /// Tenant.
        project: ProjectId,
        /// Which device.
        device: DeviceId,
    },
    /// The device's stored Desired has changed: send it if the device is online.
    Desired {
        /// Tenant.
        project: ProjectId,
        /// Which device.
        device: DeviceId,
    },
}

/// Nothing more can be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue to the broker is full or closed")]
pub struct Full;

/// Queues requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Downlink {
    sender: mpsc::Sender<Request>,
}

impl Downlink {
    /// The queue and its end for the link.
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self { sender }, receiver)
    }

    /// Queues a command.
    ///
    /// # Errors
    /// [`Full`] when the link doesn't keep up; the caller answers 503.
    pub fn command(&self, project: ProjectId, device: DeviceId, command: Command) -> Result<(), Full> {
        self.sender.try_send(Request::Command { project, device, command }).map_err(|_| Full)
    }

    /// Says that a device's Desired has changed. Call it after the commit.
    pub fn desired_changed(&self, project: ProjectId, device: DeviceId) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Request::Desired { project, device }) {
            debug!("the queue to the broker is full; Desired is sent by the next comparison");
        }
    }

    /// Ends a device's connection, because it was decommissioned. Call it after the commit: the device finds no way
    /// back in. A lost hint leaves a connection whose messages are
    /// refused one by one.
    pub fn disconnect(&self, project: ProjectId, device: DeviceId) {
        if self.sender.try_send(Request::Disconnect { project, device }).is_err() {
            debug!(
                "the queue to the broker is full; a decommissioned device stays connected but is not heard"
            );
        }
    }
}
