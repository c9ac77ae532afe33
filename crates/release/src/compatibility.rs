//! Whether a release is for this device, and which variant (attack A9).

use protocol::message;

use crate::agent_version::AgentVersion;
use crate::manifest::{Hardware, Manifest, Runtime, Variant};

/// The architectures that there are agents for, by the names that devices report. A manifest may name others: an older
/// device must be able to read what a later one needs.
pub const ARCHITECTURES: [&str; 4] = ["x86_64", "aarch64", "armv7", "riscv64"];

/// What a device knows about itself.
#[derive(Debug, Clone, Copy)]
pub struct DeviceFacts<'a> {
    /// The hardware.
    pub hardware: &'a message::Hardware,
    /// The agent's version.
    pub agent_version: AgentVersion,
    /// The full version of tract that is built in.
    pub tract: &'a str,
}

/// Why a release is not for this device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// The agent is too old.
    #[error("needs agent {needed} or newer, this is {got}")]
    Agent {
        /// What the manifest asks.
        needed: AgentVersion,
        /// What is there.
        got: AgentVersion,
    },
    /// Another runtime.
    #[error("needs tract {needed}, this has {got}")]
    Runtime {
        /// What the manifest asks.
        needed: String,
        /// What is there.
        got: String,
    },
    /// Another architecture, class or CPU.
    #[error("is not for this hardware: {0}")]
    Hardware(String),
    /// No variant fits; each with its reason.
    #[error("no variant fits this device: {0}")]
    NoVariant(String),
}

impl Manifest {
    /// The first variant, in the publisher's order, that fits the device.
    ///
    /// # Errors
    /// [`Incompatible`] says what does not fit.
    pub fn select_variant(&self, device: &DeviceFacts<'_>) -> Result<&Variant, Incompatible> {
        // Never empty: see below.
        self.fitting_variants(device).map(|fitting| fitting[0])
    }

    /// All variants that fit the device, in the publisher's order; at least one.
    ///
    /// # Errors
    /// [`Incompatible`] says what does not fit.
    pub fn fitting_variants(&self, device: &DeviceFacts<'_>) -> Result<Vec<&Variant>, Incompatible> {
        if device.agent_version < self.min_agent_version {
            return Err(Incompatible::Agent { needed: self.min_agent_version, got: device.agent_version });
        }
        if !self.runtime.is_met_by(device.tract) {
            return Err(Incompatible::Runtime {
                needed: self.runtime.tract.clone(),
                got: device.tract.into(),
            });
        }
        check(&self.hardware, device.hardware).map_err(Incompatible::Hardware)?;
        let (mut fitting, mut reasons) = (Vec::new(), Vec::new());
        for variant in &self.variants {
            match check_variant(variant, device.hardware) {
                Ok(()) => fitting.push(variant),
                Err(reason) => reasons.push(format!("{}: {reason}", variant.name)),
            }
        }
        if fitting.is_empty() { Err(Incompatible::NoVariant(reasons.join("; "))) } else { Ok(fitting) }
    }
}

impl Runtime {
    /// Whether a device with this full version of tract has what the release was tried with.
    pub fn is_met_by(&self, tract: &str) -> bool {
        let needed = self.tract.as_str();
        tract == needed || tract.strip_prefix(needed).is_some_and(|rest| rest.starts_with('.'))
    }
}

fn check_variant(variant: &Variant, hardware: &message::Hardware) -> Result<(), String> {
    check(&variant.hardware, hardware)?;
    if hardware.memory_bytes < variant.peak_memory_bytes {
        return Err(format!(
            "needs {} bytes of memory, here are {}",
            variant.peak_memory_bytes, hardware.memory_bytes
        ));
    }
    Ok(())
}

fn check(needed: &Hardware, got: &message::Hardware) -> Result<(), String> {
    let is_one_of = |list: &[String], value: &String| list.is_empty() || list.contains(value);
    if !is_one_of(&needed.arch, &got.arch) {
        return Err(format!("architecture {} is not one of {}", got.arch, needed.arch.join(", ")));
    }
    if !is_one_of(&needed.class, &got.class) {
        return Err(format!("hardware class {} is not one of {}", got.class, needed.class.join(", ")));
    }
    match needed.cpu_features.iter().find(|feature| !got.cpu_features.contains(feature)) {
        Some(missing) => Err(format!("CPU feature {missing} is missing")),
        None => Ok(()),
    }
}
