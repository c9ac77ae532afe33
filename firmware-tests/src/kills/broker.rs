//! A broker that dies alone. The server's own broker lives in the server's process; so Debian's mosquitto stands
//! between, as an ordinary broker that the device connects to, and carries the device's topics on by a bridge with the
//! device's certificate. It acknowledges (PUBACK) what it has only in memory, and forgets all of it when it is killed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flotilla_agent::link::Identity;
use protocol::topic::{Channel, Topic, client_id};
use testkit::rig::{Process, Server};

/// Mosquitto with its configuration, running or not.
pub(super) struct Broker {
    config: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Broker {
    /// Starts it on `port`, before this server and for this device.
    pub(super) fn start(folder: &Path, port: u16, server: &Server, device: &Identity) -> Result<Self> {
        let folder = folder.join("broker");
        fs::create_dir_all(&folder)?;
        let files = [("device.pem", &device.certificate), ("device.key.pem", &device.key)];
        for (name, text) in files {
            fs::write(folder.join(name), text)?;
        }
        let config = folder.join("mosquitto.conf");
        fs::write(&config, configuration(&folder, port, server, device))?;
        let mut broker = Self { config, log: folder.join("mosquitto.log"), process: None };
        broker.restart()?;
        Ok(broker)
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the broker doesn't run")?;
        process.check_running()?;
        process.kill();
        Ok(())
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        let args = ["-c".as_ref(), self.config.as_os_str()];
        self.process = Some(Process::start("mosquitto", Path::new("mosquitto"), args, &[], &self.log)?);
        Ok(())
    }

    /// Whether it was what the messages went through: the bridge came up, and the device connected.
    pub(super) fn ensure_used(&self) -> Result<()> {
        let log = fs::read_to_string(&self.log)?;
        let has = |what: &str| log.lines().any(|line| line.contains(what));
        ensure!(
            has("Connecting bridge") && has("New client connected"),
            "the broker carried nothing:\n{log}"
        );
        Ok(())
    }
}

fn configuration(folder: &Path, port: u16, server: &Server, device: &Identity) -> String {
    let [certificate, key] = server.certificate_files();
    let ca = server.ca_file();
    let (project, name) = (&device.project, &device.device);
    let topics = |channels: &[Channel], direction: &str| -> String {
        let topic = |channel: &Channel| Topic::new(project.clone(), name.clone(), *channel);
        let lines: Vec<String> =
            channels.iter().map(|channel| format!("topic {} {direction} 1\n", topic(channel))).collect();
        lines.concat()
    };
    format!(
        "# Started by root it would change its user, who may not read here.\nuser root\npersistence false\n\
         allow_anonymous true\nlistener {port} 127.0.0.1\nrequire_certificate true\n\
         cafile {ca}\ncertfile {certificate}\nkeyfile {key}\n\
         connection fleet\naddress localhost:{mqtt}\nbridge_protocol_version mqttv50\nremote_clientid {client}\n\
         local_clientid bridge\nbridge_cafile {ca}\nbridge_certfile {own}\nbridge_keyfile {own_key}\n\
         cleansession false\nnotifications false\ntry_private false\nrestart_timeout 1\n{up}{down}",
        mqtt = server.mqtt_port(),
        client = client_id(project, name),
        ca = ca.display(),
        certificate = certificate.display(),
        key = key.display(),
        own = folder.join("device.pem").display(),
        own_key = folder.join("device.key.pem").display(),
        up = topics(&Channel::UP, "out"),
        down = topics(&Channel::DOWN, "in"),
    )
}
