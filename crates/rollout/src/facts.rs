//! What the engine may know about a device when it joins a rollout.

use std::collections::BTreeMap;

use protocol::{DeviceId, ReleaseRef};
use serde::{Deserialize, Serialize};

use crate::phase::SkipReason;

/// One device as the server knows it. Filters see these attributes and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Which device.
    pub device: DeviceId,
    /// Labels; the server's win over the device's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Hardware class, e.g. `rpi4`.
    #[serde(default)]
    pub class: String,
    /// CPU architecture, e.g. `aarch64`.
    #[serde(default)]
    pub arch: String,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Physical memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Whether the device is connected now.
    #[serde(default)]
    pub is_online: bool,
    /// Offset of the device's local time from UTC in seconds, for maintenance windows.
    #[serde(default)]
    pub utc_offset_s: i32,
    /// The release of the rollout's model that serves on the device.
    #[serde(default)]
    pub current: Option<ReleaseRef>,
    /// Why the server knows already that the release can't go there.
    #[serde(default)]
    pub skip: Option<SkipReason>,
}

impl Facts {
    /// A device of which only the name is known.
    pub fn named(device: DeviceId) -> Self {
        Self {
            device,
            labels: BTreeMap::new(),
            class: String::new(),
            arch: String::new(),
            agent_version: String::new(),
            memory_bytes: 0,
            is_online: false,
            utc_offset_s: 0,
            current: None,
            skip: None,
        }
    }
}
