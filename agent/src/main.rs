//! `flotilla-agent`: log, configuration, build, run until a signal, drain, exit code.

use std::process::ExitCode;

use clap::Parser;
use flotilla_agent::app::{App, Reloaded, Rereading};
use flotilla_agent::args::{Cli, Command, Settings, Source};
use flotilla_agent::config::{Config, ConfigErrors, Log};
use flotilla_agent::exit::Exit;
use flotilla_agent::health::{LogRing, ready};
use flotilla_agent::{chain, commands, owner};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _closed = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    // Both have something to say also where the configuration is wrong.
    match cli.command {
        Command::Doctor { json } => return commands::doctor(&cli.settings.load(), json).into(),
        Command::Status { json } => return commands::show_status(&cli.settings, json).into(),
        _ => {}
    }
    let (config, source) = match load(&cli.settings) {
        Ok(loaded) => loaded,
        Err(exit) => return exit.into(),
    };
    if let Err(exit) = owner::go_on(&cli, &config.state_dir) {
        return exit.into();
    }
    let exit = match cli.command {
        Command::Run => run(config, cli.settings, source),
        Command::Enroll { token, device_id, force } => match runtime(1) {
            Some(runtime) => runtime.block_on(commands::enroll(&config, &token, device_id.as_ref(), force)),
            None => Exit::Internal,
        },
        Command::Import { file } => match runtime(1) {
            Some(runtime) => runtime.block_on(commands::import(&config, &file)),
            None => Exit::Internal,
        },
        Command::Doctor { json } => commands::doctor(&Ok(config), json),
        Command::Status { json } => commands::show_status(&cli.settings, json),
        Command::RunBatch(asked) => commands::run_batch(&config, asked),
        Command::CheckConfig => commands::confirm(&config),
    };
    exit.into()
}

fn load(settings: &Settings) -> Result<(Config, Source), Exit> {
    settings.first().map_err(|errors| {
        eprintln!("error: {errors}");
        Exit::Config
    })
}

fn start_log(config: &Log) -> LogRing {
    let ring = LogRing::for_stderr();
    // Levels by target need no regular expressions, which would weigh as much as the TLS stack.
    let everything = || Targets::new().with_default(LevelFilter::INFO);
    let filter: Targets = config.filter.parse().unwrap_or_else(|_| everything());
    let layer = tracing_subscriber::fmt::layer().with_writer(ring.clone()).with_ansi(false);
    let layer = if config.has_time { layer.boxed() } else { layer.without_time().boxed() };
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    tracing_subscriber::registry().with(layer).with(filter).init();
    ring.on_filter(move |filter| handle.reload(filter).is_ok());
    ring
}

fn runtime(workers: usize) -> Option<tokio::runtime::Runtime> {
    // ring is the one TLS provider everywhere; a second installation would only repeat it.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(16)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build();
    built.map_err(|error| eprintln!("error: cannot start threads: {error}")).ok()
}

fn run(config: Config, settings: Settings, source: Source) -> Exit {
    let logs = start_log(&config.log);
    inference::quiet_caught_panics();
    inference::share_heap();
    for unknown in inference::int8::unknown_switches() {
        tracing::warn!("{unknown}");
    }
    // None without git and without the variable: then the banner has no such field.
    let commit = option_env!("FLOTILLA_COMMIT").filter(|commit| !commit.is_empty());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        commit,
        target = env!("FLOTILLA_TARGET"),
        "flotilla-agent starts"
    );
    be_nice(config.health.nice);
    let workers = if config.serve.threads == 1 { 1 } else { 2 };
    let Some(runtime) = runtime(workers) else { return Exit::Internal };
    let reading = Rereading::new(settings.rereader(source));
    let exit = runtime.block_on(until_signal(config, logs, reading));
    // A self-test, a load or a reading can't be interrupted, and nobody needs its result any more.
    runtime.shutdown_background();
    exit
}

/// A part has failed that can't be started again; which one the log says, and the next run's status.
const FAILED: (Exit, &str) = (Exit::Internal, "a part failed");

async fn until_signal(config: Config, logs: LogRing, mut reading: Rereading<Read>) -> Exit {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(error = %error, "signals can't be received");
            return Exit::Internal;
        }
    };
    let mut app = match App::start(config, logs).await {
        Ok(app) => app,
        Err(error) => {
            tracing::error!(error = chain(&error), "the agent can't start");
            return error.exit();
        }
    };
    let failed = app.failed();
    let end = async {
        tokio::select! { signal = signals.end.come() => (Exit::Ok, signal), () = failed => FAILED }
    };
    let (exit, reason) = match app.load(end).await {
        Err(end) => end,
        Ok(()) => serve(&mut app, &mut signals, &mut reading).await,
    };
    tracing::info!(reason, "stopping");
    let late = app.shut_down().await;
    if late.is_empty() {
        tracing::info!("stopped in order");
    } else {
        tracing::warn!(tasks = ?late, "stopped; some tasks were cut off");
    }
    exit
}

async fn serve(app: &mut App, signals: &mut Signals, reading: &mut Rereading<Read>) -> (Exit, &'static str) {
    tracing::info!(device = app.device, api = %app.listening, "the agent runs");
    ready(&format!("{} on {}", app.device, app.listening));
    let mut failed = std::pin::pin!(app.failed());
    loop {
        tokio::select! {
            signal = signals.end.come() => return (Exit::Ok, signal),
            _ = signals.hang_up.recv() => if !reading.ask() {
                tracing::warn!("the configuration is still being read; it is read once more after that");
            },
            read = reading.done() => match read {
                Ok(read) => reload(app, read),
                Err(error) => tracing::error!(error = %error, "the configuration can't be read; nothing was changed"),
            },
            () = &mut failed => return FAILED,
            () = app.outgrown() => return (Exit::Memory, "memory"),
        }
    }
}

/// Threads inherit it, so it comes before the first one. Never raises the priority that the agent was started with.
fn be_nice(nice: u32) {
    let set = || {
        let (now, wanted) = (rustix::process::getpriority_process(None)?, i32::try_from(nice).unwrap_or(0));
        if wanted > now { rustix::process::setpriority_process(None, wanted) } else { Ok(()) }
    };
    if nice > 0
        && let Err(error) = set()
    {
        tracing::warn!(nice, error = %error, "health.nice can't be set");
    }
}

type Read = Result<Config, ConfigErrors>;

/// A configuration that is wrong changes nothing.
fn reload(app: &mut App, read: Read) {
    match app.reload(read) {
        Ok(Reloaded { applied, needs_restart }) => {
            let named = |keys: &[&str]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
            let (applied, needs_restart) = (named(&applied), named(&needs_restart));
            tracing::info!(applied, needs_restart, "the configuration was read again");
        }
        Err(errors) => tracing::error!(%errors, "the configuration is wrong; nothing was changed"),
    }
}

struct Signals {
    hang_up: Signal,
    end: End,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let end =
            End { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Self { hang_up: signal(SignalKind::hangup())?, end })
    }
}

/// The signals to end.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    async fn come(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
