//! The subcommands beside `run`: short, with their result on stdout and talk on stderr.

use std::io::{ErrorKind, Read, Write as _};
use std::path::Path;

use protocol::DeviceId;

use crate::args::{Batch, Settings};
use crate::batch::{self, BatchError};
use crate::config::{Config, ConfigErrors};
use crate::doctor;
use crate::durable::DurableError;
use crate::exit::Exit;
use crate::health::{Clock, read_hardware};
use crate::link::Identity;
use crate::link::enroll::{self, EnrollError, Wish};
use crate::slots::{BootStore, Shelf};
use crate::status::StatusError;
use crate::store::check_key;
use crate::trusted_files;
use crate::update::import::{Import, ImportError, Taken};
use crate::update::metadata::TrustedStore;
use crate::{app, chain, durable, owner, status};

/// `enroll`: makes this device's identity with a one-time token.
pub async fn enroll(config: &Config, token: &str, device: Option<&DeviceId>, is_forced: bool) -> Exit {
    // One that is there is not made: the folder above it may be closed to its owner.
    let made = if config.state_dir.is_dir() { Ok(()) } else { durable::make_dir(&config.state_dir) };
    let prepared = made.and_then(|()| Clock::open(&config.state_dir));
    let clock = match prepared {
        Ok(clock) => clock,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            if error.is_denied() {
                eprintln!("run it as the agent's user, or name a folder of your own: --state-dir DIR");
            }
            return Exit::Config;
        }
    };
    let hardware = read_hardware(&config.device.class);
    let wish = Wish { token, device, hardware: &hardware, is_forced, terms: app::terms(&config.link) };
    match enroll::enroll(&config.state_dir, &wish, &clock).await {
        Ok(identity) => {
            let _told = tell(&format!("enrolled as {}/{}\n", identity.project, identity.device), Exit::Ok);
            Exit::Ok
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            exit_of(&error)
        }
    }
}

/// `import`: takes a release from an archive. The agent is stopped meanwhile; it goes on with the release at its start.
pub async fn import(config: &Config, file: &Path) -> Exit {
    match try_import(config, file).await {
        Ok(said) => {
            let _told = tell(&format!("{said}\n"), Exit::Ok);
            Exit::Ok
        }
        Err((exit, why)) => {
            eprintln!("error: {why}");
            exit
        }
    }
}

async fn try_import(config: &Config, file: &Path) -> Result<String, (Exit, String)> {
    let state_dir = &config.state_dir;
    let wrong = |error: &dyn std::error::Error| (Exit::Config, chain(error));
    let _lock = app::lock(state_dir).map_err(|error| (error.exit(), chain(&error)))?;
    let archive = open_archive(file).map_err(|error| {
        let hint = if matches!(error, DurableError::NoFile { .. }) {
            "; give a stream as standard input: import -"
        } else {
            ""
        };
        (Exit::Usage, chain(&error) + hint)
    })?;
    let clock = Clock::open(state_dir).map_err(|error| wrong(&error))?;
    let identity = Identity::load(state_dir).map_err(|error| wrong(&error))?;
    clock.bound(identity.ca_validity().map_err(|error| wrong(&error))?.not_after);
    let trusted = TrustedStore::open(state_dir, identity.project, identity.root_pin);
    let trusted = trusted.map_err(|error| wrong(&error))?;
    let boot = BootStore::open(state_dir, &trusted_files::trusted_dir(state_dir));
    let (mut boot, _) = boot.map_err(|error| wrong(&error))?;
    let shelf = Shelf::open(state_dir).map_err(|error| wrong(&error))?;
    let mut import = Import {
        state_dir,
        clock: &clock,
        trusted: &trusted,
        shelf: &shelf,
        boot: &mut boot,
        hardware: &read_hardware(&config.device.class),
        keep_free_bytes: config.update.keep_free_bytes,
        memory_budget_bytes: config.update.memory_budget_bytes,
    };
    let taken = import.take(archive).await;
    let Taken { model, release, instead } = taken.map_err(|error| (exit_of_import(&error), chain(&error)))?;
    clock.keep();
    let version = &release.version;
    let mut said =
        format!("{model} {version} was verified; it is tested and swapped in when the agent starts");
    if let Some(instead) = instead {
        said += "\n";
        said += &instead;
    }
    Ok(said)
}

fn open_archive(file: &Path) -> Result<Box<dyn Read>, DurableError> {
    if file == Path::new(owner::STDIN) {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    Ok(Box::new(std::io::BufReader::new(durable::open_file(file)?)))
}

fn exit_of_import(error: &ImportError) -> Exit {
    if error.is_trust_damaged() {
        Exit::Config
    } else if error.is_of_this_device() {
        Exit::Unavailable
    } else {
        Exit::NoPermission
    }
}

fn exit_of(error: &EnrollError) -> Exit {
    match error {
        EnrollError::Token(_) => Exit::Usage,
        EnrollError::AlreadyEnrolled { .. }
        | EnrollError::OtherFleet { .. }
        | EnrollError::Identity(_)
        | EnrollError::Root(_) => Exit::Config,
        EnrollError::Refused { .. } => Exit::NoPermission,
        error if error.is_retryable() => Exit::Unavailable,
        _ => Exit::Internal,
    }
}

/// `doctor`: looks at everything, also at a configuration that is wrong.
pub fn doctor(config: &Result<Config, ConfigErrors>, is_json: bool) -> Exit {
    let report = doctor::examine(config);
    let text = if is_json { format!("{:#}\n", report.json()) } else { report.text() };
    tell(&text, report.exit())
}

/// `check-config`: the configuration was read already; what the agent would start without is said beside it.
pub fn confirm(config: &Config) -> Exit {
    if let Err(error) = check_key(&config.spool, &config.state_dir) {
        let problem = error.problem();
        eprintln!("warning: {}; {}", problem.detail, problem.kind.advice());
    }
    tell("the configuration is valid\n", Exit::Ok)
}

/// A command's result, and its end. That nobody reads on (`| head`) is no failure.
fn tell(text: &str, exit: Exit) -> Exit {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: the result can't be written: {error}");
            Exit::Unavailable
        }
        Ok(()) | Err(_) => exit,
    }
}

/// `status`: asks the running agent. One that runs is found by its folder also where the configuration is wrong by now.
pub fn show_status(settings: &Settings, is_json: bool) -> Exit {
    let asked = match settings.load() {
        Ok(config) => status::ask(&config).map_err(|error| (Exit::Unavailable, error)),
        Err(errors) => {
            eprintln!("error: {errors}");
            let asked = settings.folder().and_then(|dir| status::ask_in(&dir));
            asked.unwrap_or(Err(StatusError::Unfound)).map_err(|error| (Exit::Config, error))
        }
    };
    match asked {
        Ok(status) if is_json => tell(&format!("{status:#}\n"), Exit::Ok),
        Ok(status) => tell(&status::screen(&status), Exit::Ok),
        Err((exit, error)) => {
            eprintln!("error: {}", chain(&error));
            if !error.is_of_an_agent() {
                eprintln!(
                    "an agent of another configuration is found by its folder: flotilla-agent --state-dir DIR status"
                );
            }
            exit
        }
    }
}

/// `run-batch`: the release that serves, over files.
pub fn run_batch(config: &Config, asked: Batch) -> Exit {
    let Batch { model, input, output, label, quiet } = asked;
    let options = batch::Options { model, input, output, label, is_quiet: quiet };
    match batch::run(&config.state_dir, &options) {
        Ok(summary) => {
            eprintln!(
                "{} {}: {} answered, {} refused",
                summary.model, summary.version, summary.answered, summary.refused
            );
            if summary.labelled > 0 {
                let percent = summary.right as f64 / summary.labelled as f64 * 100.0;
                eprintln!("{} of {} labels right ({percent:.1} %)", summary.right, summary.labelled);
            }
            if summary.refused > 0 { Exit::Data } else { Exit::Ok }
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            exit_of_batch(&error)
        }
    }
}

fn exit_of_batch(error: &BatchError) -> Exit {
    match error {
        BatchError::Read { .. }
        | BatchError::Kind { .. }
        | BatchError::Inputs { .. }
        | BatchError::NoColumn { .. }
        | BatchError::DoubleColumn { .. }
        | BatchError::Columns { .. }
        | BatchError::Width { .. }
        | BatchError::Line { .. }
        | BatchError::NoLabels { .. }
        | BatchError::SameFile { .. }
        | BatchError::NoPictures { .. }
        | BatchError::TooMany { .. }
        | BatchError::NoRelease { .. } => Exit::Usage,
        BatchError::Write { source, .. } if is_no_place(source) => Exit::Usage,
        BatchError::Write { .. } => Exit::Unavailable,
        BatchError::Boot(_) | BatchError::Load { .. } => Exit::Config,
    }
}

/// Whether another output has to be named: trying again can't help.
fn is_no_place(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), InvalidInput | IsADirectory | NotADirectory | NotFound | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_none_is_wrong_usage_whatever_it_lacks() {
        let path = || "in.csv".into();
        let columns = BatchError::Columns { path: path(), got: "a".into(), expected: "b".into() };
        let empty = BatchError::Line { path: path(), line: 1, expected: "a head" };
        let bare = BatchError::NoPictures { path: path() };
        assert_eq!([columns, empty, bare].map(|error| exit_of_batch(&error)), [Exit::Usage; 3]);
    }

    #[test]
    fn an_output_that_is_none_is_wrong_usage_and_a_full_disk_may_pass() {
        let exit = |kind: ErrorKind| {
            exit_of_batch(&BatchError::Write { path: "out.csv".into(), source: kind.into() })
        };
        for kind in [ErrorKind::IsADirectory, ErrorKind::NotFound, ErrorKind::PermissionDenied] {
            assert_eq!(exit(kind), Exit::Usage, "{kind}");
        }
        for kind in [ErrorKind::StorageFull, ErrorKind::BrokenPipe, ErrorKind::QuotaExceeded] {
            assert_eq!(exit(kind), Exit::Unavailable, "{kind}");
        }
    }
}
