//! `flotilla sign --merge`: people signed copies of one file at the same time; the signatures come together in one.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use trust::repo::{BuildError, merge_signatures};
use trust::{KeyId, PublicKey};

use super::{File, holder, merged};
use crate::keyring::Keyring;
use crate::metadata::{read_given, short};
use crate::output::{Format, items, table, text};
use crate::replace::replace;

/// Puts the holders' signatures on the copies into the first file.
///
/// # Errors
/// When a copy signs something else, or nothing says who holds the role; the file stays as it was then.
pub(super) fn run(keyring: &Keyring, paths: &[PathBuf], format: Format) -> Result<()> {
    let [first, copies @ ..] = paths else { bail!("no file to merge into") };
    let said = into(keyring, first, copies)?;
    format.print(&said, show)
}

fn into(keyring: &Keyring, first: &Path, copies: &[PathBuf]) -> Result<Value> {
    let mut file = File::read(first)?;
    holder::delegators(keyring, file.path, file.owner)?.tell(file.owner.role());
    let mut keys = holder::keys(keyring, file.path, &file.bytes, file.owner)?;
    // They may hold the role once others have signed what names them; until then their signatures do no harm.
    keys.extend(holder::proposed_keys(keyring, file.path, file.owner)?);
    if keys.is_empty() {
        bail!(
            "nothing here says who holds the role {}: put the file that names its keys beside {}, or run: flotilla verify",
            file.owner.role(),
            first.display()
        );
    }
    let mut rows = Vec::new();
    for path in copies {
        let copy = read_given(path)?;
        let merged = merge_signatures(&file.bytes, &copy, &keys).map_err(|error| match error {
            BuildError::OtherContent => anyhow::anyhow!(
                "{} is no copy of {}: what is signed differs, so nothing was merged; see what each changes with: \
                 flotilla sign --dry-run --add FILE",
                path.display(),
                first.display()
            ),
            other => anyhow::Error::from(other).context(format!("{} can't be merged", path.display())),
        })?;
        merged.refused.iter().for_each(|id| tell_refused(path, id, &keys));
        rows.push(json!({ "from": path, "taken": merged.taken, "refused": merged.refused }));
        file.bytes = merged.bytes;
    }
    replace(first, &file.bytes)?;
    let known = file.judge(keyring, &[])?;
    let said = json!({ "file": first, "role": file.owner.role(), "copies": rows });
    Ok(merged(super::object(said), known))
}

fn tell_refused(path: &Path, id: &KeyId, keys: &[PublicKey]) {
    let why = if keys.iter().any(|key| key.id() == *id) {
        "does not fit what is signed"
    } else {
        "is of a key that holds no such role, as far as the files at hand say"
    };
    eprintln!("warning: {}: the signature of {} {why}; it is not taken", path.display(), short(id.as_str()));
}

fn show(said: &Value) -> String {
    let ids = |value: &Value| {
        let ids: Vec<String> = items(value).iter().map(|id| short(&text(id, ""))).collect();
        if ids.is_empty() { "-".to_owned() } else { ids.join(", ") }
    };
    let row = |row: &Value| vec![text(row, "/from"), ids(&row["taken"]), ids(&row["refused"])];
    let copies =
        table(&["merged", "taken", "refused"], items(&said["copies"]).iter().map(row).collect(), "nothing");
    format!("{copies}\n\nvalid signatures on {}: {}", text(said, "/file"), ids(&said["keys"]))
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use trust::repo::{RootBuilder, TargetsBuilder, add_signature, signed_by};
    use trust::{Ed25519Signer, Signer as _};

    use super::*;

    struct Table {
        folder: tempfile::TempDir,
        keyring: Keyring,
    }

    fn key(n: u8) -> Ed25519Signer {
        Ed25519Signer::from_seed(&[n; 32])
    }

    impl Table {
        /// A root that names keys 1, 2 and 3 for targets, and a targets file that key 1 has signed.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let keyring = Keyring::at(&folder.path().join("keys"));
            let table = Self { folder, keyring };
            let holders = [1, 2, 3].map(|n| key(n).public_key());
            let root = ["root", "snapshot", "timestamp"]
                .into_iter()
                .fold(RootBuilder::new(UnixMillis(0)), |root, role| root.role(role, &holders, 1));
            table.put("root.json", &root.role("targets", &holders, 3).sign(&[]).unwrap());
            table.put("targets.json", &TargetsBuilder::new(UnixMillis(0)).sign(&[&key(1)]).unwrap());
            table
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            std::fs::write(self.path(name), bytes).unwrap();
        }

        fn bytes(&self) -> Vec<u8> {
            std::fs::read(self.path("targets.json")).unwrap()
        }

        fn merge(&self, copies: &[&str]) -> Result<Value> {
            let copies: Vec<_> = copies.iter().map(|name| self.path(name)).collect();
            into(&self.keyring, &self.path("targets.json"), &copies)
        }
    }

    #[test]
    fn signatures_of_people_who_signed_at_the_same_time_come_together() {
        let table = Table::new();
        table.put("targets (1).json", &add_signature(&table.bytes(), &key(2)).unwrap());
        // Another program may have laid the same content out in another way.
        let copy: Value = serde_json::from_slice(&add_signature(&table.bytes(), &key(3)).unwrap()).unwrap();
        table.put("cem.json", copy.to_string().as_bytes());
        let said = table.merge(&["targets (1).json", "cem.json"]).unwrap();
        let holders = [1, 2, 3].map(|n| key(n).public_key());
        assert_eq!(signed_by(&table.bytes(), &holders).unwrap().len(), 3);
        assert_eq!(items(&said["keys"]).len(), 3, "{said}");
        assert_eq!(said["copies"][0]["taken"], json!([key(2).public_key().id()]));
        assert!(show(&said).contains(&short(key(3).public_key().id().as_str())));
        let before = table.bytes();
        assert_eq!(table.merge(&["cem.json"]).unwrap()["copies"][0]["taken"], json!([]));
        assert_eq!(table.bytes(), before);
    }

    #[test]
    fn signatures_of_those_whom_a_change_that_waits_names_come_together_too() {
        let table = Table::new();
        let first = kept_root(&[1, 2].map(|n| key(n).public_key()));
        let next = RootBuilder::resume(&first, UnixMillis(0)).unwrap();
        let next = next.role("targets", &[key(4).public_key()], 1).sign(&[]).unwrap();
        table.keyring.keep("root.json", &first).unwrap();
        table.put("root.json", &next);
        table.put("dan.json", &add_signature(&table.bytes(), &key(4)).unwrap());
        let said = table.merge(&["dan.json"]).unwrap();
        assert_eq!(said["copies"][0]["taken"], json!([key(4).public_key().id()]), "{said}");
        assert_eq!(said["keys"], json!([key(1).public_key().id()]), "not valid before the root is: {said}");
    }

    fn kept_root(holders: &[PublicKey]) -> Vec<u8> {
        let roles = ["root", "targets", "snapshot", "timestamp"];
        let root = RootBuilder::new(UnixMillis(0));
        roles.into_iter().fold(root, |root, role| root.role(role, holders, 1)).sign(&[]).unwrap()
    }

    #[test]
    fn a_key_in_the_old_root_and_in_the_new_one_is_named_once() {
        let table = Table::new();
        let first = kept_root(&[key(1).public_key()]);
        table.keyring.keep("root.json", &first).unwrap();
        let next = RootBuilder::resume(&first, UnixMillis(0)).unwrap().sign(&[]).unwrap();
        table.put("root.json", &next);
        table.put("ada.json", &add_signature(&next, &key(1)).unwrap());
        let said = into(&table.keyring, &table.path("root.json"), &[table.path("ada.json")]).unwrap();
        assert_eq!(said["copies"][0]["taken"], json!([key(1).public_key().id()]), "{said}");
    }

    #[test]
    fn what_is_no_copy_and_who_holds_nothing_changes_nothing() {
        let table = Table::new();
        let before = table.bytes();
        let other = TargetsBuilder::resume(&before, UnixMillis(0)).unwrap().sign(&[&key(2)]).unwrap();
        table.put("bea.json", &add_signature(&before, &key(2)).unwrap());
        table.put("other.json", &other);
        table.put("no.json", b"{}");
        for bad in ["other.json", "no.json", "absent.json"] {
            let error = format!("{:#}", table.merge(&["bea.json", bad]).unwrap_err());
            assert!(error.contains(bad), "{error}");
            assert_eq!(table.bytes(), before, "{bad}");
        }
        let mut forged: Value = serde_json::from_slice(&add_signature(&before, &key(9)).unwrap()).unwrap();
        let wrong = forged["signatures"][1]["sig"].clone();
        let id = key(3).public_key().id();
        forged["signatures"].as_array_mut().unwrap().push(json!({ "keyid": id, "sig": wrong }));
        table.put("forged.json", forged.to_string().as_bytes());
        let said = table.merge(&["forged.json"]).unwrap();
        assert_eq!(items(&said["copies"][0]["refused"]).len(), 2, "{said}");
        assert_eq!(table.bytes(), before);
        std::fs::remove_file(table.path("root.json")).unwrap();
        assert!(table.merge(&["bea.json"]).unwrap_err().to_string().contains("who holds the role targets"));
    }
}
