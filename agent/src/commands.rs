//! The subcommands beside `run`: short, with their result on stdout and talk on stderr.

use protocol::DeviceId;

use crate::args::Batch;
use crate::batch::{self, BatchError};
use crate::config::{Config, ConfigErrors};
use crate::doctor;
use crate::exit::Exit;
use crate::health::{Clock, read_hardware};
use crate::link::enroll::{self, EnrollError, Wish};
use crate::{app, chain, durable, status};

/// `enroll`: makes this device's identity with a one-time token.
pub async fn enroll(config: &Config, token: &str, device: Option<&DeviceId>, is_forced: bool) -> Exit {
    let prepared = durable::make_dir(&config.state_dir).and_then(|()| Clock::open(&config.state_dir));
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
            println!("enrolled as {}/{}", identity.project, identity.device);
            Exit::Ok
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            exit_of(&error)
        }
    }
}

fn exit_of(error: &EnrollError) -> Exit {
    match error {
        EnrollError::Token(_) => Exit::Usage,
        EnrollError::AlreadyEnrolled { .. } | EnrollError::Identity(_) | EnrollError::Root(_) => Exit::Config,
        EnrollError::Refused { .. } => Exit::NoPermission,
        error if error.is_retryable() => Exit::Unavailable,
        _ => Exit::Internal,
    }
}

/// `doctor`: looks at everything, also at a configuration that is wrong.
pub fn doctor(config: &Result<Config, ConfigErrors>, is_json: bool) -> Exit {
    let report = doctor::examine(config);
    if is_json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    report.exit()
}

/// `status`: asks the running agent.
pub fn show_status(config: &Config, is_json: bool) -> Exit {
    match status::ask(&config.serve) {
        Ok(status) if is_json => println!("{status:#}"),
        Ok(status) => print!("{}", status::screen(&status)),
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return Exit::Unavailable;
        }
    }
    Exit::Ok
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
        | BatchError::TooMany { .. }
        | BatchError::NoRelease { .. } => Exit::Usage,
        BatchError::Line { .. } => Exit::Data,
        BatchError::Write { .. } => Exit::Unavailable,
        BatchError::Boot(_) | BatchError::Load { .. } => Exit::Config,
    }
}
