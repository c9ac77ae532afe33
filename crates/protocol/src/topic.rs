//! MQTT topics: who may say what where. The broker's rules and both sides' subscriptions come from here.

use std::fmt;

use crate::ids::{DeviceId, IdError, ProjectId};

/// First levels of every topic of this wire.
pub const PREFIX: &str = "fleet/v1";

/// What a topic carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Device to server: reported state on connect and on change.
    Hello,
    /// Device to server: transitions of the update machine.
    Task,
    /// Device to server: batches of records.
    Telemetry,
    /// Server to device: signed Desired.
    Desired,
    /// Server to device: stored up to a sequence number.
    Ack,
    /// Server to device: refresh, zoom, collect logs.
    Command,
    /// Retained online or offline; offline is the device's last will.
    Status,
}

impl Channel {
    /// All channels.
    pub const ALL: [Self; 7] =
        [Self::Hello, Self::Task, Self::Telemetry, Self::Desired, Self::Ack, Self::Command, Self::Status];
    /// What a device subscribes to, each by its exact topic.
    pub const DOWN: [Self; 3] = [Self::Desired, Self::Ack, Self::Command];
    /// What a device publishes.
    pub const UP: [Self; 4] = [Self::Hello, Self::Task, Self::Telemetry, Self::Status];

    /// The topic's levels after the device id.
    pub fn path(self) -> &'static str {
        match self {
            Self::Hello => "up/hello",
            Self::Task => "up/task",
            Self::Telemetry => "up/telemetry",
            Self::Desired => "down/desired",
            Self::Ack => "down/ack",
            Self::Command => "down/command",
            Self::Status => "status",
        }
    }

    /// Whether a device may publish here.
    pub fn is_from_device(self) -> bool {
        Self::UP.contains(&self)
    }
}

/// One device's topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Tenant.
    pub project: ProjectId,
    /// The device whose branch it is.
    pub device: DeviceId,
    /// What it carries.
    pub channel: Channel,
}

/// Why a text is not a topic of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not `fleet/v1/{project}/{device}/{channel}`.
    #[error("topic {0:?} is not of the form {PREFIX}/project/device/channel")]
    Form(String),
    /// A level that is not an id.
    #[error("topic names an invalid id")]
    Id(#[source] IdError),
}

impl Topic {
    /// The topic of one channel of one device.
    pub fn new(project: ProjectId, device: DeviceId, channel: Channel) -> Self {
        Self { project, device, channel }
    }

    /// Parses a concrete topic; a filter with wildcards is refused.
    ///
    /// # Errors
    /// [`TopicError`] when the form or one of the ids is wrong.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let form = || TopicError::Form(text.chars().take(200).collect());
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('/')).ok_or_else(form)?;
        let mut levels = rest.splitn(3, '/');
        let (Some(project), Some(device), Some(path)) = (levels.next(), levels.next(), levels.next()) else {
            return Err(form());
        };
        let channel = Channel::ALL.into_iter().find(|channel| channel.path() == path).ok_or_else(form)?;
        Ok(Self {
            project: ProjectId::new(project).map_err(TopicError::Id)?,
            device: DeviceId::new(device).map_err(TopicError::Id)?,
            channel,
        })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}/{}/{}/{}", self.project, self.device, self.channel.path())
    }
}

/// What the server subscribes to, over all projects and devices. Only the server uses wildcards.
pub fn server_filters() -> [String; 4] {
    Channel::UP.map(|channel| format!("{PREFIX}/+/+/{}", channel.path()))
}

/// The MQTT client id of a device. The broker refuses every other one, so that no device can take over
/// another's session; `:` can stand in neither id, so it is unique over all projects.
pub fn client_id(project: &ProjectId, device: &DeviceId) -> String {
    format!("{project}:{device}")
}

/// Whether a device may publish to `topic`: only to the upward channels of its own branch.
pub fn device_may_publish(project: &ProjectId, device: &DeviceId, topic: &str) -> bool {
    Topic::parse(topic)
        .is_ok_and(|t| &t.project == project && &t.device == device && t.channel.is_from_device())
}

/// Whether a device may subscribe to `filter`: only to the exact downward topics of its own branch.
pub fn device_may_subscribe(project: &ProjectId, device: &DeviceId, filter: &str) -> bool {
    Topic::parse(filter)
        .is_ok_and(|t| &t.project == project && &t.device == device && Channel::DOWN.contains(&t.channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (ProjectId, DeviceId) {
        (ProjectId::new("acme").unwrap(), DeviceId::new("cam-1").unwrap())
    }

    #[test]
    fn every_channel_round_trips() {
        let (project, device) = ids();
        for channel in Channel::ALL {
            let topic = Topic::new(project.clone(), device.clone(), channel);
            assert_eq!(Topic::parse(&topic.to_string()).unwrap(), topic);
        }
    }

    #[test]
    fn a_device_touches_only_its_own_branch() {
        let (project, device) = ids();
        let publish = |topic: &str| device_may_publish(&project, &device, topic);
        let subscribe = |filter: &str| device_may_subscribe(&project, &device, filter);
        assert!(publish("fleet/v1/acme/cam-1/up/hello"));
        assert!(publish("fleet/v1/acme/cam-1/status"));
        assert!(!publish("fleet/v1/acme/cam-2/up/hello"));
        assert!(!publish("fleet/v1/other/cam-1/up/hello"));
        assert!(!publish("fleet/v1/acme/cam-1/down/desired"));
        assert!(!publish("$SYS/broker"));
        assert!(subscribe("fleet/v1/acme/cam-1/down/ack"));
        for filter in ["fleet/v1/acme/cam-1/down/#", "fleet/v1/+/+/up/hello", "#", "$share/g/#"] {
            assert!(!subscribe(filter), "{filter} was granted");
        }
    }
}
