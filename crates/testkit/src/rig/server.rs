//! One `flotilla-server` with its folder and ports.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::process::{Process, free_port, wait_until};

/// What the server logs when everything is open.
const READY: &str = "console and API on";

/// What a test or the demo changes about a server, by ordinary configuration.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Port of console and REST; a free one if none is given.
    pub https_port: Option<u16>,
    /// IP address to listen on, in brackets if it has colons; 127.0.0.1 if none is given.
    pub listen_ip: Option<String>,
    /// Name by which devices reach it; localhost if none is given.
    pub public_host: Option<String>,
    /// What devices are told to call its MQTT port, where something stands before it.
    pub mqtt_url: Option<String>,
    /// More lines of TOML, sections included.
    pub extra_config: String,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    folder: PathBuf,
    https_port: u16,
    mqtt_port: u16,
    listen_ip: Option<String>,
    process: Option<Process>,
}

impl Server {
    /// Writes the configuration into `folder` and starts the server; returns when it is ready.
    ///
    /// # Errors
    /// When it ends or isn't ready within a minute; its log's end is in the error.
    pub fn start(binary: &Path, folder: &Path, options: &ServerOptions) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let https_port = options.https_port.map_or_else(free_port, Ok)?;
        let (device_port, mqtt_port) = (free_port()?, free_port()?);
        let host = options.public_host.as_deref();
        let public = |scheme: &str, port: u16| {
            host.map(|host| format!("public_url = \"{scheme}://{host}:{port}\"\n")).unwrap_or_default()
        };
        let names = host.map(|host| {
            format!("[authority]\nnames = [\"{}\", \"localhost\"]\n\n", host.trim_matches(['[', ']']))
        });
        let config = format!(
            "data_dir = {data:?}\n\n[https]\nlisten = \"{ip}:{https_port}\"\n{https}\n\
             [device]\nlisten = \"{ip}:{device_port}\"\n{device}\n\
             [mqtt]\nlisten = \"{ip}:{mqtt_port}\"\n{mqtt}\n{names}{extra}",
            https = public("https", https_port),
            device = public("https", device_port),
            mqtt = match &options.mqtt_url {
                Some(url) => format!("public_url = \"{url}\"\n"),
                None => public("mqtts", mqtt_port),
            },
            names = names.unwrap_or_default(),
            ip = options.listen_ip.as_deref().unwrap_or("127.0.0.1"),
            data = folder.join("data").display().to_string(),
            extra = options.extra_config,
        );
        std::fs::write(folder.join("server.toml"), config)?;
        let mut server = Self {
            binary: binary.into(),
            folder: folder.into(),
            https_port,
            mqtt_port,
            listen_ip: options.listen_ip.clone(),
            process: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// Starts it again on the same folder and ports, after ending it if it runs; returns when it is ready.
    ///
    /// # Errors
    /// When it ends or isn't ready within a minute.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        let config = self.folder.join("server.toml");
        let args = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        // The ports are bound before everything behind them is open; the log says when it is.
        let earlier = self.log().len();
        let log = self.folder.join("server.log");
        let mut process = Process::start("flotilla-server", &self.binary, args, &[], &log)?;
        wait_until("the server's readiness", Duration::from_mins(1), || {
            process.check_running()?;
            Ok(self.log().get(earlier..).is_some_and(|log| log.contains(READY)).then_some(()))
        })
        .with_context(|| format!("the log ends with:\n{}", tail(&process.log())))?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Runs another command of the binary on the same configuration, such as `forget-keys`; returns what it printed.
    ///
    /// # Errors
    /// When it fails; what it said is in the error.
    pub fn run(&self, command: &str) -> Result<String> {
        let config = self.folder.join("server.toml");
        let output = Command::new(&self.binary).arg(command).arg("--config").arg(&config).output();
        let output = output.with_context(|| format!("cannot run {}", self.binary.display()))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "flotilla-server {command}: {}", said(&output.stderr));
        Ok(said(&output.stdout))
    }

    /// Address of console and REST.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.listen_ip.as_deref().unwrap_or("localhost"), self.https_port)
    }

    /// Its MQTT port on loopback.
    pub fn mqtt_port(&self) -> u16 {
        self.mqtt_port
    }

    /// Certificate and private key by which it proves itself.
    pub fn certificate_files(&self) -> [PathBuf; 2] {
        ["server.pem", "server.key.pem"].map(|file| self.folder.join("data/ca").join(file))
    }

    /// The one-time password of the first admin, as the server left it for its operator.
    ///
    /// # Errors
    /// When it isn't there.
    pub fn first_admin_password(&self) -> Result<String> {
        let file = self.folder.join("data/first-admin-password");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(text.trim().to_owned())
    }

    /// The CA certificate that signs everything in this fleet.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("data/ca/ca.pem")
    }

    /// The running process, to measure it or to signal it.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the server doesn't run")
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
