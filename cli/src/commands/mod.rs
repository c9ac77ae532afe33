//! One file per command. Each takes its arguments, talks to the server and prints one result.
//!
//! `keys`, `sign`, `verify`, `release` and `reference` are the publisher's; the rest are the operator's.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod device;
pub(crate) mod drift;
pub(crate) mod export;
pub(crate) mod keys;
pub(crate) mod login;
pub(crate) mod project;
pub(crate) mod reference;
pub(crate) mod release;
pub(crate) mod rollout;
mod rollout_gate;
pub(crate) mod samples;
pub(crate) mod sign;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod verify;

use anyhow::Result;

use crate::args::{Args, Command};
use crate::client::Client;
use crate::output::Format;

/// What every command that talks to the server gets.
pub(crate) struct Context {
    /// The signed-in server.
    pub(crate) client: Client,
    /// How results are printed.
    pub(crate) format: Format,
}

/// Runs one command to its end.
///
/// # Errors
/// What the command could not do.
pub(crate) fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(dispatch(args))
}

async fn dispatch(args: Args) -> Result<()> {
    let format = if args.json { Format::Json } else { Format::Human };
    let context = || Client::signed_in(args.project.as_deref()).map(|client| Context { client, format });
    match args.command {
        Command::Login(login) => login::login(&login, args.project.as_deref(), format).await,
        Command::Logout => login::logout().await,
        Command::Completions(completions) => completions::run(&completions),
        Command::Keys(command) => keys::run(context, args.project.as_deref(), format, command).await,
        Command::Sign(sign) => sign::run(&sign, args.project.as_deref(), format),
        Command::Verify(verify) => verify::run(&context()?, &verify).await,
        Command::Release(command) => release::run(context, format, command).await,
        Command::Export(args) => export::run(&context()?, &args).await,
        Command::Reference(command) => reference::run(&command, format),
        Command::Device(command) => device::run(&context()?, command).await,
        Command::Rollout(command) => rollout::run(&context()?, command).await,
        Command::Drift(command) => drift::run(&context()?, command).await,
        Command::Samples(command) => samples::run(&context()?, command).await,
        Command::Alerts(command) => alerts::run(&context()?, command).await,
        Command::Project(command) => project::run(&context()?, command).await,
        Command::Token(command) => token::run(&context()?, command).await,
        Command::User(command) => user::run(&context()?, command).await,
        Command::Audit(command) => audit::run(&context()?, command).await,
    }
}
