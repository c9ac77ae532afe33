//! `tuf-client`: a TUF client for any repository, to try [`trust`]'s client workflow against other implementations.
//!
//! It adds nothing to the judgement: it fetches within the bounds that the session names, stores what the session
//! hands over, byte for byte, and exits with 1 and a chain of causes on stderr when the session refuses. Devices
//! don't run it. Its tests stand in `tests/`; the ones against python-tuf in `interop/`.

mod args;
mod http;
mod store;
mod targets;
mod update;

use std::process::ExitCode;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuf-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Init { trusted_root } => update::init(args.metadata_dir()?, trusted_root),
        Command::Refresh => {
            update::Update::begin(args.metadata_dir()?, args.metadata_url()?)?.refresh().map(drop)
        }
        Command::Download => {
            let wanted = args.wanted()?;
            let update = update::Update::begin(args.metadata_dir()?, args.metadata_url()?)?;
            targets::download(update, &wanted)
        }
    }
}
