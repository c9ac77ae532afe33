//! The server's binary: read the configuration, start, say what was bound, run until a signal, drain.

use std::io::IsTerminal;
use std::path::Path;

use clap::Parser;
use flotilla_server::app::{self, Running, StartError};
use flotilla_server::backup::BackupError;
use flotilla_server::clock::Clock;
use flotilla_server::config::{Config, Log, LogFormat};
use flotilla_server::domain::users::{self, UserError};
use flotilla_server::exit::Exit;
use flotilla_server::store::Store;
use flotilla_server::supervisor::with_causes;
use flotilla_server::tuf::keys;
use protocol::ProjectId;
use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, setrlimit, umask};
use tracing::{error, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod cli;

use cli::{Cli, Command, Options};

fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let exit = if e.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = e.print();
            return exit;
        }
    };
    match cli.command {
        Command::Openapi => print(&flotilla_server::api::openapi_json()),
        Command::CheckConfig(options) => with_config(options, |_| print("The configuration is fine.\n")),
        Command::Run(options) => with_config(options, |config| {
            start_log(&config.log);
            // Whatever the data folder's own mode: database, keys and blobs are for this user only.
            umask(Mode::from_raw_mode(0o077));
            raise_file_limit();
            block_on(run(config))
        }),
        Command::Backup { to, options } => with_config(options, |config| {
            umask(Mode::from_raw_mode(0o077));
            block_on(backup(config, &to))
        }),
        Command::ResetPassword { user, options } => {
            with_config(options, |config| block_on(reset_password(config, &user)))
        }
        Command::ForgetKeys { project, options } => {
            with_config(options, |config| block_on(forget_keys(config, &project)))
        }
    }
}

/// Each connection is a file, and many systems begin with 1,024: a thousand devices would be the end of the fleet.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        warn!("open files stay bounded as they were at the start: {e}");
    }
}

fn block_on(work: impl Future<Output = Exit>) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_or(Exit::Internal, |runtime| runtime.block_on(work))
}

/// The database of a server that may be running meanwhile.
async fn store_of(config: &Config) -> Result<Store, Exit> {
    if !config.data_dir.join("ca").is_dir() {
        eprintln!("{} holds no fleet; name its folder with --data", config.data_dir.display());
        return Err(Exit::Unavailable);
    }
    app::open_store(config).await.map_err(|e| {
        eprintln!("{}", with_causes(&e));
        Exit::Unavailable
    })
}

async fn backup(config: Config, to: &Path) -> Exit {
    let store = match store_of(&config).await {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    match flotilla_server::backup::backup(&config, &store, to).await {
        Ok(copied) => {
            if !copied.has_database {
                eprintln!(
                    "the database is PostgreSQL's and not in it: copy it with pg_dump, and before this folder"
                );
            }
            print(&format!("{} files, {} bytes copied to {}\n", copied.files, copied.bytes, to.display()))
        }
        Err(e @ (BackupError::Exists(_) | BackupError::Inside(_))) => {
            eprintln!("{e}");
            Exit::Usage
        }
        Err(e) => {
            eprintln!("{}", with_causes(&e));
            Exit::Unavailable
        }
    }
}

async fn forget_keys(config: Config, project: &ProjectId) -> Exit {
    let store = match store_of(&config).await {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    match keys::forget(&store, project).await {
        Ok(0) => {
            eprintln!("project {project} has no signing keys of the server");
            Exit::Usage
        }
        Ok(count) => print(&format!(
            "forgot {count} keys of project {project}; a publisher now runs: flotilla keys rotate server\n"
        )),
        Err(e) => {
            eprintln!("{}", with_causes(&e));
            Exit::Unavailable
        }
    }
}

async fn reset_password(config: Config, user: &str) -> Exit {
    let store = match store_of(&config).await {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    match users::reset_password(&store, user, Clock::system().now()).await {
        Ok(password) => print(&format!("one-time password of {user}: {password}\n")),
        Err(e @ UserError::Unknown(_)) => {
            eprintln!("{e}");
            Exit::Usage
        }
        Err(e) => {
            eprintln!("{}", with_causes(&e));
            Exit::Unavailable
        }
    }
}

fn print(text: &str) -> Exit {
    use std::io::Write;
    // A reader that has gone away, such as `head`, is no failure of ours.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Exit::Ok
}

fn with_config(options: Options, then: impl FnOnce(Config) -> Exit) -> Exit {
    match options.load() {
        Ok(config) => then(config),
        Err(e) => {
            eprintln!("{}", with_causes(&e));
            Exit::Config
        }
    }
}

fn start_log(log: &Log) {
    let everything = || Targets::new().with_default(LevelFilter::INFO);
    let filter: Targets = log.filter.parse().unwrap_or_else(|_| everything());
    let ansi = log.format == LogFormat::Text && std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
    tracing_subscriber::registry().with(layer).with(filter).init();
}

async fn run(config: Config) -> Exit {
    info!("flotilla-server {} for {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    match app::start(config, Clock::system()).await {
        Ok(running) => serve(running).await,
        Err(e) => {
            error!("cannot start: {}", with_causes(&e));
            if matches!(e, StartError::Pki(_)) { Exit::Internal } else { Exit::Unavailable }
        }
    }
}

async fn serve(running: Running) -> Exit {
    announce(&running);
    let shutdown = running.shutdown_signal();
    tokio::spawn(async move {
        let signal = wait_for_signal().await;
        info!("{signal}: shutting down");
        shutdown.cancel();
    });
    let ending = running.run().await;
    if !ending.aborted.is_empty() {
        warn!("shutdown was not graceful, still running: {}", ending.aborted.join(", "));
    }
    if ending.is_failed {
        return Exit::Internal;
    }
    info!("shut down");
    Exit::Ok
}

fn announce(running: &Running) {
    let (bound, urls) = (&running.bound, &running.state.urls);
    info!("console and API on {} ({})", urls.https, bound.https);
    info!("devices: HTTP on {} ({}), MQTT on {} ({})", urls.device, bound.device, urls.mqtt, bound.mqtt);
    let for_devices = [("device", bound.device, &urls.device), ("mqtt", bound.mqtt, &urls.mqtt)];
    for (port, address, url) in for_devices {
        if !address.ip().is_loopback() && url.contains("//localhost:") {
            warn!(
                "devices are told to use {url}, which only works on this machine; set {port}.public_url and \
                 authority.names to the name that devices reach it by"
            );
        }
    }
    if let Some(first) = &running.first_admin {
        info!(
            "first start: sign in as {} with the one-time password in {}",
            first.username,
            first.file.display()
        );
        // The password itself goes to the terminal only, never to the log.
        println!("one-time password of {}: {}", first.username, first.password);
    }
}

async fn wait_for_signal() -> &'static str {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(e) => {
            warn!("cannot listen for SIGTERM: {e}");
            let _ = tokio::signal::ctrl_c().await;
            return "Ctrl-C";
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
    }
}
