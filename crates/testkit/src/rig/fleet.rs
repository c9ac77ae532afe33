//! A whole fleet on one machine: server, publisher's keys, operator, devices. Everything goes through the
//! command lines that users have.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Agent, AgentOptions, Binaries, Cli, Server, ServerOptions, wait_until};

/// States of a rollout that nothing follows.
const ENDED: [&str; 6] = ["completed", "aborted", "rolled_back", "superseded", "invalidated", "denied"];

/// A server with an admin who has signed in and keys that its devices will trust.
#[derive(Debug)]
pub struct Fleet {
    /// The server.
    pub server: Server,
    /// The admin's and publisher's command line.
    pub cli: Cli,
    binaries: Binaries,
    folder: PathBuf,
    password: String,
}

impl Fleet {
    /// Starts a server in `folder`, signs the first admin in with the one-time password (replacing it) and makes
    /// the publisher's keys.
    ///
    /// # Errors
    /// When one of the steps fails; what the product said is in the error.
    pub fn start(binaries: &Binaries, folder: &Path, options: &ServerOptions) -> Result<Self> {
        let server = Server::start(&binaries.server, &folder.join("server"), options)?;
        let home = folder.join("publisher");
        std::fs::create_dir_all(&home)?;
        let cli = Cli::new(&binaries.cli, &home, folder);
        let fleet = Self {
            server,
            cli,
            binaries: binaries.clone(),
            folder: folder.into(),
            password: format!("demo-{}-{}", std::process::id(), free_digits()),
        };
        fleet.sign_in()?;
        fleet.cli.run_with(&["keys", "init"], &[fleet.passphrase()])?;
        Ok(fleet)
    }

    /// The admin's password, chosen in place of the one-time password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The folder of everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn sign_in(&self) -> Result<()> {
        let (url, ca) = (self.server.url(), self.server.ca_file());
        let one_time = self.server.first_admin_password()?;
        let args = ["login", "--server", &url, "--ca", &ca.display().to_string(), "--user", "admin"];
        let env =
            [("FLOTILLA_PASSWORD", one_time.as_str()), ("FLOTILLA_NEW_PASSWORD", self.password.as_str())];
        self.cli.run_with(&args, &env).map(drop)
    }

    /// The environment variable that opens the publisher's keys.
    pub fn passphrase(&self) -> (&'static str, &str) {
        ("FLOTILLA_PASSPHRASE", &self.password)
    }

    /// Builds, signs and publishes a release from its spec.
    ///
    /// # Errors
    /// When one of the steps is refused.
    pub fn publish(&self, spec: &Path) -> Result<()> {
        let version = spec
            .parent()
            .and_then(Path::file_name)
            .context("a spec lies in a folder named by its version")?;
        let out = self.folder.join("releases").join(version).display().to_string();
        self.cli.run(&["release", "build", &spec.display().to_string(), "--out", &out])?;
        self.sign(&["release", "sign", &out])?;
        self.cli.run(&["release", "publish", &out]).map(drop)
    }

    /// Runs a command of the publisher that needs the keys; returns what it printed.
    ///
    /// # Errors
    /// When it fails; what it said is in the error.
    pub fn sign(&self, args: &[&str]) -> Result<String> {
        self.cli.run_with(args, &[self.passphrase()])
    }

    /// A colleague's command line, signed in as the same user but with key folders of their own.
    ///
    /// # Errors
    /// When the server doesn't let them in.
    pub fn colleague(&self, name: &str) -> Result<Cli> {
        let home = self.folder.join(name);
        std::fs::create_dir_all(&home)?;
        let cli = Cli::new(&self.binaries.cli, &home, &self.folder);
        let (url, ca) = (self.server.url(), self.server.ca_file().display().to_string());
        let args = ["login", "--server", &url, "--ca", &ca, "--user", "admin"];
        cli.run_with(&args, &[("FLOTILLA_PASSWORD", &self.password)])?;
        Ok(cli)
    }

    /// A one-time token for one device.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn token(&self, device: &str, labels: &[&str]) -> Result<String> {
        let mut args = vec!["device", "token", "--device", device];
        for label in labels {
            args.extend(["--label", label]);
        }
        let made = self.cli.json(&args)?;
        made["text"].as_str().map(str::to_owned).context("the command line printed no token")
    }

    /// Enrols a device of its own and starts it. `agent` is the binary, if not this machine's own.
    ///
    /// # Errors
    /// When enrolment is refused or the agent doesn't start.
    pub fn add_device(&self, options: AgentOptions, labels: &[&str], agent: Option<&Path>) -> Result<Agent> {
        let token = self.token(&options.device, labels)?;
        let folder = self.folder.join("devices").join(&options.device);
        let mut agent = Agent::enroll(agent.unwrap_or(&self.binaries.agent), &folder, options, &token)?;
        agent.start()?;
        Ok(agent)
    }

    /// Waits until so many devices are connected.
    ///
    /// # Errors
    /// When they aren't within a minute.
    pub fn wait_online(&self, count: usize) -> Result<()> {
        wait_until(&format!("{count} devices online"), Duration::from_mins(1), || {
            let devices = self.cli.json(&["device", "list", "--online"])?;
            Ok((devices.as_array().map_or(0, Vec::len) >= count).then_some(()))
        })
    }

    /// Creates a rollout of digits from a plan and returns its id.
    ///
    /// # Errors
    /// When the server refuses the plan.
    pub fn rollout(&self, version: &str, plan: &Value) -> Result<String> {
        self.rollout_of("digits", version, plan)
    }

    /// Creates a rollout of any model.
    ///
    /// # Errors
    /// When the server refuses the plan.
    pub fn rollout_of(&self, model: &str, version: &str, plan: &Value) -> Result<String> {
        let file = self.folder.join(format!("plan-{version}.json"));
        std::fs::write(&file, serde_json::to_vec_pretty(plan)?)?;
        let file = file.display().to_string();
        let made =
            self.cli.json(&["rollout", "create", "--model", model, "--version", version, "--plan", &file])?;
        made["rollout"].as_str().map(str::to_owned).context("the command line printed no rollout id")
    }

    /// Waits until a rollout has ended and returns what it looks like then; `seen` is told each new state.
    ///
    /// # Errors
    /// When it doesn't end within `limit`; its last state is in the error.
    pub fn wait_ended(&self, rollout: &str, limit: Duration, mut seen: impl FnMut(&Value)) -> Result<Value> {
        let mut last = Value::Null;
        let ended = wait_until(&format!("the end of rollout {rollout}"), limit, || {
            last = self.cli.json(&["rollout", "show", rollout])?;
            seen(&last);
            let state = last["state"].as_str().unwrap_or_default();
            Ok(ENDED.contains(&state).then(|| last.clone()))
        });
        match ended {
            Ok(value) => Ok(value),
            Err(error) => bail!("{error:#}; it looks like this: {last:#}"),
        }
    }
}

/// Digits that differ from run to run; not a secret, the fleet lives on loopback for minutes.
fn free_digits() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos())
}
