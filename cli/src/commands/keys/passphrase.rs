//! `flotilla keys passphrase`: another passphrase for the private keys of this machine's folder.

use anyhow::Result;
use serde_json::{Value, json};

use crate::keyring::{Keyring, new_passphrase};
use crate::metadata::short;
use crate::output::{Format, items, table, text};

/// Changes it; asks no server.
///
/// # Errors
/// When a key stays locked or can't be written.
pub(super) fn run(project: &str, format: Format, names: &[String]) -> Result<()> {
    let mut keyring = Keyring::of(project)?;
    let changed = keyring.change_passphrase(names, new_passphrase)?;
    let others = keyring.encrypted_beside(&changed)?;
    if !others.is_empty() {
        eprintln!(
            "note: these keep their passphrase: {}; a command that needs keys of different passphrases can't open them \
             all",
            others.join(", ")
        );
    }
    eprintln!("copies of the folder made before open by the old passphrase: replace or destroy them");
    let keys: Vec<Value> = changed.iter().map(|key| json!({ "key": key.name, "key_id": key.id })).collect();
    let said = json!({ "folder": keyring.folder(), "keys": keys, "not_changed": others });
    format.print(&said, |said| {
        let row = |row: &Value| vec![text(row, "/key"), short(&text(row, "/key_id"))];
        table(&["new passphrase", "id"], items(&said["keys"]).iter().map(row).collect(), "none")
    })
}
