//! What changed, for everyone in this process who wants to know: the console's live stream, jobs.
//!
//! A hint, never the truth: a slow listener loses the oldest hints (and learns that it did), a hint says only
//! which object to read again, and every job also looks by itself at its own pace.

use protocol::ProjectId;
use serde::Serialize;
use tokio::sync::broadcast;

/// Hints kept for a slow listener; when full, the oldest is dropped and the listener is told.
const CAPACITY: usize = 1024;

/// What kind of object changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A device; the id is the device's.
    Device,
    /// A rollout; the id is the rollout's.
    Rollout,
    /// An alert; the id is the alert's.
    Alert,
    /// A release or a model's windows; the id is `model` or `model/version`.
    Release,
}

impl ChangeKind {
    /// The name of the server-sent event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Rollout => "rollout",
            Self::Alert => "alert",
            Self::Release => "release",
        }
    }
}

/// One object changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Tenant.
    pub project: ProjectId,
    /// What kind of object.
    pub kind: ChangeKind,
    /// Which one.
    pub id: String,
}

/// Sends and receives hints. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventBus {
    sender: broadcast::Sender<Change>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self { sender: broadcast::channel(CAPACITY).0 }
    }
}

impl EventBus {
    /// Tells everyone that this object changed. Call it after the commit.
    pub fn changed(&self, project: &ProjectId, kind: ChangeKind, id: impl Into<String>) {
        // An error means that nobody listens, which is fine.
        let _ = self.sender.send(Change { project: project.clone(), kind, id: id.into() });
    }

    /// Hints from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.sender.subscribe()
    }
}
