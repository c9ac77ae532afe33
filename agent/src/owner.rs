//! What writes into the state directory, the agent itself included, run by root on a folder that belongs to another
//! user: it goes on as that user. A file of root's in there would keep the agent from its next start. Root itself writes
//! nothing in such a folder: who owns it could have put links there.
//!
//! The program runs itself again, before it has threads. It enters the folder first: systemd keeps the folders of
//! its dynamic users below one that only root may pass (`/var/lib/private`). Test: `firmware-tests faults`, offline.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use crate::args::{Cli, Command, Settings};
use crate::chain;
use crate::durable::{self, DurableError};
use crate::exit::Exit;

/// Standard input in place of a file.
pub const STDIN: &str = "-";
/// The folder that was entered: a whole path, as the key asks for, and no folder above it has to be passed.
const HERE: &str = "/proc/self/cwd";
/// Hides the token from the list of processes.
const TOKEN_VARIABLE: &str = "FLOTILLA_ENROLLMENT_TOKEN";

/// Why a command can't go on as the folder's owner.
#[derive(Debug, thiserror::Error)]
enum OwnerError {
    #[error("the archive can't be read")]
    Archive(#[source] DurableError),
    #[error("cannot hand the configuration over")]
    Config(#[source] std::io::Error),
    #[error("cannot enter {path}", path = path.display())]
    Enter { path: PathBuf, source: std::io::Error },
    #[error("cannot go on as user {uid}, who owns {path}", path = path.display())]
    Start { uid: u32, path: PathBuf, source: std::io::Error },
}

/// Returns when this process may go on as it is; else the folder's owner does, in its place.
///
/// # Errors
/// How to end, when that can't be done; why was printed.
pub fn go_on(cli: &Cli, state_dir: &Path) -> Result<(), Exit> {
    let Some((uid, gid)) = other_owner(state_dir) else { return Ok(()) };
    let program = match &cli.command {
        Command::Enroll { token, device_id, force } => again(&cli.settings, "enroll").map(|mut program| {
            program.env(TOKEN_VARIABLE, token);
            program.args(device_id.iter().flat_map(|device| ["--device-id", device.as_str()]));
            program.args(force.then_some("--force"));
            program
        }),
        Command::Import { file } => import(file, &cli.settings),
        Command::Run => run(&cli.settings, state_dir),
        _ => return Ok(()),
    };
    let started = program.map_or_else(|error| error, |program| start(program, state_dir, (uid, gid)));
    eprintln!("error: {}", chain(&started));
    Err(if matches!(started, OwnerError::Archive(_)) { Exit::Usage } else { Exit::Config })
}

/// User and group of the folder, if this process is root's and the folder is not.
fn other_owner(state_dir: &Path) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let folder = std::fs::metadata(state_dir).ok()?;
    (folder.uid() != 0).then(|| (folder.uid(), folder.gid()))
}

/// The archive is opened by root: its owner-to-be may not be able to.
fn import(file: &Path, settings: &Settings) -> Result<Program, OwnerError> {
    let mut program = again(settings, "import")?;
    program.arg(STDIN);
    if file != Path::new(STDIN) {
        program.stdin(Stdio::from(durable::open_file(file).map_err(OwnerError::Archive)?));
    }
    Ok(program)
}

/// The agent itself reads its file again on reload, so it is given that and not its text; and it syncs the folder above
/// its own, so it is given its own by name.
fn run(settings: &Settings, state_dir: &Path) -> Result<Program, OwnerError> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(OwnerError::Config);
    let mut words = keys(settings, &absolute(state_dir)?);
    match settings.config.as_deref() {
        Some(file) if file.is_file() => words.extend(["--config".into(), absolute(file)?.into()]),
        Some(_) => words.extend(text(settings).map_err(OwnerError::Config)?),
        None => {}
    }
    Ok(command("run", words))
}

fn again(settings: &Settings, word: &str) -> Result<Program, OwnerError> {
    Ok(command(word, same(settings).map_err(OwnerError::Config)?))
}

fn command(word: &str, settings: Vec<OsString>) -> Program {
    let mut program = Program::new("/proc/self/exe");
    program.arg0("flotilla-agent").arg(word).args(settings);
    program
}

/// The settings of a process that stands in the state directory.
fn same(settings: &Settings) -> std::io::Result<Vec<OsString>> {
    Ok([keys(settings, Path::new(HERE)), text(settings)?].concat())
}

/// The configuration as text, if it was read.
fn text(settings: &Settings) -> std::io::Result<Vec<OsString>> {
    match settings.text.get() {
        Some(text) => Ok(vec!["--config".into(), hand_over(text)?.into()]),
        None => Ok(Vec::new()),
    }
}

/// All but the file.
fn keys(settings: &Settings, state_dir: &Path) -> Vec<OsString> {
    let set = settings.set.iter().flat_map(|set| ["--set".into(), set.into()]);
    [OsString::from("--state-dir"), state_dir.into()].into_iter().chain(set).collect()
}

/// A name for the configuration's text that this process and the one in its place have: a pipe has no more text, and
/// the folder's owner may not be able to read root's file.
fn hand_over(text: &[u8]) -> std::io::Result<String> {
    // Not closed on exec.
    let file = rustix::fs::memfd_create("agent.toml", rustix::fs::MemfdFlags::empty())?;
    let mut file = File::from(file);
    file.write_all(text)?;
    Ok(format!("/proc/self/fd/{}", file.into_raw_fd()))
}

/// Returns only when it fails.
fn start(mut program: Program, state_dir: &Path, (uid, gid): (u32, u32)) -> OwnerError {
    let path = state_dir.to_owned();
    if let Err(source) = std::env::set_current_dir(state_dir) {
        return OwnerError::Enter { path, source };
    }
    eprintln!("{} belongs to user {uid}: going on there as that user", path.display());
    // Root's other groups are dropped with the user.
    let source = program.uid(uid).gid(gid).exec();
    OwnerError::Start { uid, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use clap::Parser as _;

    use super::*;

    #[test]
    fn settings_mean_the_same_from_within_the_folder() {
        let settings = Settings {
            set: vec!["device.class=cam".into(), "log.filter=debug".into()],
            state_dir: Some("elsewhere".into()),
            ..Settings::default()
        };
        let words = same(&settings).unwrap();
        let expected = ["--state-dir", HERE, "--set", "device.class=cam", "--set", "log.filter=debug"];
        assert_eq!(words, expected.map(OsString::from));
    }

    #[test]
    fn the_agent_keeps_the_file_that_it_reads_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "[device]\nclass = \"cam\"\n").unwrap();
        let settings = Settings { config: Some(file.clone()), ..Settings::default() };
        settings.load().unwrap();
        let program = run(&settings, dir.path()).unwrap();
        let words: Vec<_> = program.get_args().collect();
        let [folder, file] = [dir.path(), &file].map(|path| path.to_str().unwrap());
        assert_eq!(words, ["run", "--state-dir", folder, "--config", file]);
    }

    #[test]
    fn a_configuration_from_a_pipe_is_the_same_after_its_text_has_come() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"[device]\nclass = \"from a pipe\"\n").unwrap();
        drop(writer);
        let pipe = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let settings = Settings { config: Some(pipe.into()), ..Settings::default() };
        assert_eq!(settings.load().unwrap().device.class, "from a pipe");
        let start = ["flotilla-agent", "enroll", "--token", "t"].map(OsString::from);
        let again = Cli::try_parse_from(start.into_iter().chain(same(&settings).unwrap())).unwrap();
        assert_eq!(again.settings.load().unwrap().device.class, "from a pipe");
    }

    #[test]
    fn an_own_folder_and_one_that_is_not_there_are_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(other_owner(dir.path()), None);
        assert_eq!(other_owner(&dir.path().join("none")), None);
    }
}
