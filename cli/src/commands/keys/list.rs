//! `flotilla keys list`: the keys of this folder, and what they are good for as far as this folder knows.

use anyhow::Result;
use serde_json::{Value, json};
use trust::{PublicKey, format_rfc3339};

use crate::expired;
use crate::keyring::{Keyring, Listed, Owner};
use crate::metadata::{claims, kept_name, short};
use crate::output::{Format, items, table, text};
use crate::rotation::{Current, holders};

/// Lists them; asks no server.
///
/// # Errors
/// When the folder can't be read.
pub(super) fn run(project: &str, format: Format) -> Result<()> {
    let keyring = Keyring::of(project)?;
    format.print(&Value::Array(rows(&keyring)?), |rows| {
        let row = |row: &Value| {
            let lock = if row["is_encrypted"] == true { "encrypted" } else { "in the clear" };
            vec![
                text(row, "/key"),
                text(row, "/keytype"),
                short(&text(row, "/key_id")),
                lock.into(),
                standing(row),
                text(row, "/version"),
                expired::until("", &text(row, "/expires")),
            ]
        };
        let headings = ["key", "type", "id", "kept", "holds its role", "role version", "valid until"];
        table(
            &headings,
            items(rows).iter().map(row).collect(),
            "no keys here yet; make them with: flotilla keys init, or to join a project: flotilla keys new",
        )
    })
}

/// Whether the key holds its role, and of how many keys how many must sign.
fn standing(row: &Value) -> String {
    match row["is_held"].as_bool() {
        Some(true) => format!("{} of {} sign", text(row, "/threshold"), text(row, "/holders")),
        Some(false) if row["is_waiting"] == true => "not yet".into(),
        Some(false) => "no".into(),
        None => "-".into(),
    }
}

fn rows(keyring: &Keyring) -> Result<Vec<Value>> {
    let root = match keyring.read(&kept_name("root"))? {
        Some(root) => Some(root),
        None => keyring.read("root.json")?,
    };
    let targets = keyring.read(&kept_name("targets"))?;
    let current =
        Current { root: root.unwrap_or_default(), targets: targets.unwrap_or_default(), model: None };
    let present = keyring.list()?.into_iter().map(|key| (key, false));
    let waiting = keyring.waiting()?.into_iter().map(|key| (key, true));
    present.chain(waiting).map(|(key, is_waiting)| row(keyring, &current, &key, is_waiting)).collect()
}

fn row(keyring: &Keyring, current: &Current, key: &Listed, is_waiting: bool) -> Result<Value> {
    let owner = Owner::named(&key.name);
    // What this folder doesn't know is left open.
    let held = holders(owner, current).ok();
    let is_held = held.as_ref().map(|(keys, _)| is_among(&key.public, keys));
    let signed = match owner {
        Owner::Root => (!current.root.is_empty()).then(|| current.root.clone()),
        _ => keyring.read(&kept_name(owner.role()))?,
    };
    let signed = signed.map(|bytes| claims(&bytes)).transpose()?;
    let name = if is_waiting { format!("next/{}", key.name) } else { key.name.clone() };
    Ok(json!({
        "key": name, "key_id": key.public.id(), "keytype": key.public.keytype(),
        "is_encrypted": key.is_encrypted, "is_waiting": is_waiting, "is_held": is_held,
        "threshold": held.as_ref().map(|(_, threshold)| threshold),
        "holders": held.as_ref().map(|(keys, _)| keys.len()),
        "version": signed.as_ref().map(|said| said.version),
        "expires": signed.map(|said| format_rfc3339(said.expires)),
    }))
}

fn is_among(key: &PublicKey, keys: &[PublicKey]) -> bool {
    keys.iter().any(|holder| holder.is_same(key))
}

#[cfg(test)]
mod tests {
    use trust::Signer as _;
    use trust::repo::RootBuilder;

    use super::*;
    use crate::keyring::Passphrase;
    use crate::metadata::expiry;

    #[test]
    fn a_key_that_no_root_names_and_one_that_waits_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::at(folder.path());
        let root = keyring.create(Owner::Root, &Passphrase::None).unwrap();
        keyring.create(Owner::Targets, &Passphrase::None).unwrap();
        keyring.create_next(Owner::Root, &Passphrase::None).unwrap();
        assert_eq!(standing(&rows(&keyring).unwrap()[0]), "-", "no root is known");
        let holder = [root.public_key()];
        let first = ["root", "targets", "snapshot", "timestamp"]
            .into_iter()
            .fold(RootBuilder::new(expiry(1).unwrap()), |first, role| first.role(role, &holder, 1));
        let second = RootBuilder::resume(&first.sign(&[&root]).unwrap(), expiry(1).unwrap()).unwrap();
        keyring.keep("root.json", &first.sign(&[&root]).unwrap()).unwrap();
        keyring.keep(&kept_name("root"), &second.sign(&[&root]).unwrap()).unwrap();
        let rows = rows(&keyring).unwrap();
        let said: Vec<_> = rows.iter().map(|row| (text(row, "/key"), standing(row))).collect();
        let expected = [("root", "1 of 1 sign"), ("targets", "no"), ("next/root", "not yet")];
        let expected: Vec<_> = expected.iter().map(|(k, s)| ((*k).to_owned(), (*s).to_owned())).collect();
        assert_eq!(said, expected);
        assert_eq!(rows[0]["version"], 2, "the newest root counts, not the first");
    }
}
