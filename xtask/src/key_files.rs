//! Key files between `flotilla` and OpenSSL: each opens what the other made, and nobody's with the wrong passphrase.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::run::{check, output, program, target_folder};
use crate::{builds, tools};

const OLD: &str = "correct horse";
const NEW: &str = "battery staple";

/// Makes keys with either program and opens them with the other.
///
/// # Errors
/// When OpenSSL is missing, or one refuses what it has to take or takes what it has to refuse.
pub(crate) fn main() -> Result<()> {
    tools::ensure(&tools::OPENSSL)?;
    let cli = builds::binaries()?.cli;
    let home = target_folder()?.join("key-files");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    fs::create_dir_all(&home)?;
    let keys = home.join("flotilla/keys/p");
    let flotilla = |args: &[&str], new: &str| {
        let mut command = program(&cli.to_string_lossy());
        command.args(["--json", "--project", "p", "keys"]).args(args).env("XDG_CONFIG_HOME", &home);
        command.env("FLOTILLA_PASSPHRASE", OLD).env("FLOTILLA_NEW_PASSPHRASE", new);
        output(&mut command)
    };
    flotilla(&["new"], "")?;
    let ours = keys.join("root.pem");
    let public: Value = serde_json::from_slice(&fs::read(keys.join("root.pub.json"))?)?;
    let public = public["keyval"]["public"].as_str().context("root.pub.json names no key")?.to_owned();
    ensure!(raw_public(&ours, OLD)? == public, "OpenSSL reads another key from {}", ours.display());
    ensure!(raw_public(&ours, NEW).is_err(), "OpenSSL opened {} by a wrong passphrase", ours.display());

    // A key that OpenSSL made, in the place of one of ours.
    let (plain, theirs) = (home.join("plain.pem"), keys.join("targets.pem"));
    check(openssl(&["genpkey", "-algorithm", "ed25519", "-out"]).arg(&plain))?;
    let pass = format!("pass:{OLD}");
    let seal = openssl(&["pkcs8", "-topk8", "-scrypt", "-passout", &pass, "-in"])
        .arg(&plain)
        .arg("-out")
        .arg(&theirs)
        .output()?;
    ensure!(seal.status.success(), "{}", String::from_utf8_lossy(&seal.stderr));
    fs::remove_file(keys.join("targets.pub.json"))?;
    let before = raw_public(&theirs, OLD)?;
    flotilla(&["passphrase"], NEW).context("a key that OpenSSL made")?;
    ensure!(raw_public(&theirs, NEW)? == before, "the key changed with its passphrase");
    let half: Value = serde_json::from_slice(&fs::read(keys.join("targets.pub.json"))?)?;
    ensure!(half["keyval"]["public"] == *before, "its public half was not written");
    ensure!(raw_public(&ours, NEW)? == public, "the key changed with its passphrase");
    let Err(wrong) = flotilla(&["passphrase"], NEW) else { bail!("the old passphrase still opens the keys") };
    ensure!(format!("{wrong:#}").contains("wrong passphrase"), "refused for another reason: {wrong:#}");
    println!(
        "OpenSSL opens flotilla's key files and flotilla those of OpenSSL; nobody without the passphrase"
    );
    Ok(())
}

fn openssl(args: &[&str]) -> Command {
    let mut command = program(tools::OPENSSL.program);
    command.args(args);
    command
}

/// The public half, as hex, of the key that OpenSSL finds in a file.
fn raw_public(key: &Path, passphrase: &str) -> Result<String> {
    let text = output(
        openssl(&["pkey", "-noout", "-text_pub", "-passin", &format!("pass:{passphrase}"), "-in"]).arg(key),
    )?;
    let hex = text.split_once("pub:").context("OpenSSL names no public half")?.1;
    Ok(hex.chars().filter(char::is_ascii_hexdigit).collect())
}
