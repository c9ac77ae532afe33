//! `flotilla sign --add`: this person's signature on a file that somebody else prepared. Needs no server.

mod holder;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use trust::repo::{Claims, add_signature};
use trust::{KeyId, Signer as _};

use crate::keyring::{Keyring, Owner};
use crate::metadata::{claims, short};
use crate::output::{Format, items, table, text};
use crate::settings;
use holder::Standing;

/// What to sign.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Add a signature to this file; its name says the role: `root.json`, `targets.json` or `{model}.json`.
    #[arg(long, required = true, value_name = "FILE")]
    add: Vec<PathBuf>,
}

/// Signs each file in its place.
///
/// # Errors
/// When a file is no metadata of a role that this folder has a key for.
pub(crate) fn run(args: &Args, project: Option<&str>, format: Format) -> Result<()> {
    let mut keyring = Keyring::of(&settings::project(project)?)?;
    let mut signed = Vec::new();
    for path in &args.add {
        signed.push(add(&mut keyring, path)?);
    }
    format.print(&Value::Array(signed), |said| {
        let row = |row: &Value| {
            let keys: Vec<String> = items(&row["keys"]).iter().map(|key| short(&text(key, ""))).collect();
            vec![
                text(row, "/file"),
                text(row, "/role"),
                text(row, "/version"),
                text(row, "/expires_at"),
                keys.join(", "),
            ]
        };
        table(
            &["signed", "role", "version", "valid until", "signatures on it"],
            items(said).iter().map(row).collect(),
            "nothing",
        )
    })
}

fn add(keyring: &mut Keyring, path: &Path) -> Result<Value> {
    let mut bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    // What the reader of metadata found instead helps nobody who named the wrong file.
    let Ok(file) = claims(&bytes) else {
        bail!("{} is no signed metadata; of a release, the files in its folder metadata are", path.display())
    };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let owner = match (file.kind.as_str(), stem.as_str()) {
        ("root", _) => Owner::Root,
        ("targets", "targets") => Owner::Targets,
        ("targets", model) => Owner::Model(model),
        _ => bail!("{} is signed by the server, not by people", path.display()),
    };
    let mut signers = vec![keyring.open(owner)?];
    if keyring.has_next(owner) {
        signers.push(keyring.open_next(owner)?);
    }
    let own: Vec<KeyId> = signers.iter().map(|signer| signer.public_key().id()).collect();
    let holds = holds_role(keyring, path, &file, owner, &own)?;
    for signer in &signers {
        bytes = add_signature(&bytes, signer)?;
    }
    std::fs::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(json!({
        "file": path, "role": owner.role(), "version": file.version,
        "expires_at": trust::format_rfc3339(file.expires), "keys": claims(&bytes)?.signers,
        "own_key": own[0], "holds_role": holds,
    }))
}

/// Whether these keys hold the role; nothing when that can't be said here. What is not sure is said on stderr.
///
/// # Errors
/// When none of them does for sure: such a signature would count for nothing.
fn holds_role(
    keyring: &Keyring,
    path: &Path,
    file: &Claims,
    owner: Owner<'_>,
    own: &[KeyId],
) -> Result<Option<bool>> {
    let list = |named: &[holder::Named]| named.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let (role, key) = (owner.role(), short(own[0].as_str()));
    Ok(match holder::standing(keyring, path, file, owner, own)? {
        Standing::Holds => Some(true),
        Standing::HoldsNot(named) => bail!(
            "{} is not signed: your key {key} does not hold the role {role}, so your signature would count for \
             nothing: {}. Whoever holds the role can name your key with: flotilla keys delegate {role} --key FILE",
            path.display(),
            list(&named)
        ),
        Standing::HoldsNotSoFar(named) => {
            eprintln!(
                "warning: as far as this key folder knows, your key {key} does not hold the role {role}, and your \
                 signature counts for nothing: {}. If that is old, run: flotilla verify",
                list(&named)
            );
            None
        }
        Standing::Unknown => {
            eprintln!(
                "warning: nothing here says who holds the role {role}; whether your key {key} does is not checked"
            );
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use trust::repo::{TargetsBuilder, signed_by};

    use super::*;
    use crate::keyring::Passphrase;

    #[test]
    fn each_person_adds_one_signature_to_the_same_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.json");
        std::fs::write(&path, TargetsBuilder::new(UnixMillis(0)).sign(&[]).unwrap()).unwrap();
        let mut keys = Vec::new();
        for person in ["ada", "bea"] {
            let mut keyring = Keyring::at(&folder.path().join(person));
            keys.push(keyring.create(Owner::Targets, &Passphrase::None).unwrap().public_key());
            add(&mut keyring, &path).unwrap();
            add(&mut keyring, &path).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(signed_by(&bytes, &keys).unwrap().len(), 2);
        assert_eq!(claims(&bytes).unwrap().signers.len(), 2, "signing twice replaces");
        let stranger = &mut Keyring::at(&folder.path().join("nobody"));
        assert!(add(stranger, &path).is_err());
    }
}
