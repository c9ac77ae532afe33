//! The command line's form. What each command does stands in `commands/`.

use clap::{Parser, Subcommand};

use crate::commands::{
    alerts, audit, completions, device, drift, export, keys, login, project, reference, release, rollout,
    samples, sign, token, user, verify,
};

/// Publish signed model releases, and run them over a fleet.
#[derive(Debug, Parser)]
#[command(name = "flotilla", version, about, long_about = None)]
pub(crate) struct Args {
    /// Print results as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Work on this project instead of the one that was signed in to.
    #[arg(long, global = true, env = "FLOTILLA_PROJECT")]
    pub(crate) project: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One word per thing, one verb per act.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sign in to a server and remember an API token.
    Login(login::Args),
    /// Forget the server and revoke the token.
    Logout,
    /// Keys: make a project's, rotate them, share roles, list them.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Add this person's signature to metadata that several people sign.
    Sign(sign::Args),
    /// Verify all that the server offers as a device would, and say who signed what until when.
    Verify(verify::Args),
    /// Releases: build, renew, sign, publish, withdraw, inspect.
    #[command(subcommand)]
    Release(release::Command),
    /// Write a release and its signed metadata into one file, for devices without a network.
    Export(export::Args),
    /// Reference profiles: build from training data.
    #[command(subcommand)]
    Reference(reference::Command),
    /// Devices: list, show, enrol, label, ask why.
    #[command(subcommand)]
    Device(device::Command),
    /// Rollouts: create, watch, pause, resume, abort, roll back.
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Drift of a model over the fleet.
    #[command(subcommand)]
    Drift(drift::Command),
    /// Samples that devices kept for retraining: list, download.
    #[command(subcommand)]
    Samples(samples::Command),
    /// Alerts: list, take note of.
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// Projects: list, create.
    #[command(subcommand)]
    Project(project::Command),
    /// Enrolment tokens: list, take back.
    #[command(subcommand)]
    Token(token::Command),
    /// Users: list, make, change what they may do, passwords, delete.
    #[command(subcommand)]
    User(user::Command),
    /// Who changed what, when.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print a completion script for your shell.
    Completions(completions::Args),
}
