//! A fleet of one real agent that serves digits 1.0.0: what the client test and the API's benchmark ask.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use testkit::rig::{Agent, AgentOptions, Binaries, Fleet, ServerOptions};

use crate::demo::example;
use crate::run::target_folder;

/// Server and agent; both end when this is dropped.
pub(crate) struct Serving {
    /// The agent.
    pub(crate) agent: Agent,
    _fleet: Fleet,
}

impl Serving {
    /// Starts both in a folder of that name, with environment variables for the agent, and rolls the release out.
    ///
    /// # Errors
    /// When one of the steps fails; what the product said is in the error.
    pub(crate) fn start(binaries: &Binaries, name: &str, env: Vec<(String, String)>) -> Result<Self> {
        let folder = folder(name)?;
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let extra_config = "[jobs]\nrollout_tick_s = 1\n".to_owned();
        let fleet =
            Fleet::start(binaries, &folder, &ServerOptions { extra_config, ..ServerOptions::default() })?;
        let extra_config = "[update]\nprobation_s = 3\n".to_owned();
        let options = AgentOptions { device: name.into(), extra_config, env, ..AgentOptions::default() };
        let agent = fleet.add_device(options, &[], None)?;
        fleet.wait_online(1)?;
        fleet.publish(&example("1.0.0/release.toml"))?;
        let rollout = fleet.rollout("1.0.0", &json!({ "stages": ["100%"] }))?;
        fleet.wait_ended(&rollout, Duration::from_mins(2), |_| {})?;
        Ok(Self { agent, _fleet: fleet })
    }
}

/// Where everything of that name lies.
///
/// # Errors
/// When cargo doesn't answer.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    Ok(target_folder()?.join(name))
}
