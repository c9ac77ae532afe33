//! `flotilla sign --add`: this person's signature on a file that somebody else prepared. Needs no server.

mod changes;
mod delegator;
mod holder;
mod merge;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use protocol::ModelName;
use serde_json::{Map, Value, json};
use trust::repo::{Claims, add_signature, signed_by};
use trust::{KeyId, PublicKey, Signer};

use crate::keyring::{Keyring, Owner};
use crate::metadata::{ROOT_DAYS, TARGETS_DAYS, claims, expiry, read_given, short};
use crate::output::{Format, items, table, text};
use crate::pending::root_keys;
use crate::replace::replace;
use crate::settings;
use holder::Standing;

/// What to do with a file that was renamed on its way.
const WHOSE: &str = "the file's name must say whose targets these are: name it targets.json or MODEL.json";

/// What to sign.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Add a signature to this file; its name says the role: `root.json`, `targets.json` or `{model}.json`.
    #[arg(long, required_unless_present = "merge", value_name = "FILE")]
    add: Vec<PathBuf>,
    /// Show what the files change and which signatures on them are valid; sign nothing.
    #[arg(long)]
    dry_run: bool,
    /// Add to the first file, named by its role, what others have signed on copies of it at the same time.
    #[arg(long, num_args = 2.., value_names = ["FILE", "COPY"], conflicts_with_all = ["add", "dry_run"])]
    merge: Vec<PathBuf>,
}

/// Signs each file in its place, or brings signatures together.
///
/// # Errors
/// When a file is no metadata of a role that this folder has a key for.
pub(crate) fn run(args: &Args, project: Option<&str>, format: Format) -> Result<()> {
    let mut keyring = Keyring::of(&settings::project(project)?)?;
    if !args.merge.is_empty() {
        return merge::run(&keyring, &args.merge, format);
    }
    let mut files = Vec::new();
    for path in &args.add {
        let file = File::read(path)?;
        let said = file.compare(&keyring)?;
        let signed = if args.dry_run { file.judge(&keyring, &[])? } else { file.sign(&mut keyring)? };
        files.push(merged(said, signed));
    }
    format.print(&Value::Array(files), |files| show(files, args.dry_run))
}

fn show(files: &Value, is_dry_run: bool) -> String {
    let ids = |row: &Value, name: &str| {
        let ids: Vec<String> = items(&row[name]).iter().map(|id| short(&text(id, ""))).collect();
        if ids.is_empty() { "-".to_owned() } else { ids.join(", ") }
    };
    let row = |row: &Value| {
        vec![
            text(row, "/file"),
            text(row, "/role"),
            text(row, "/version"),
            text(row, "/expires_at"),
            ids(row, "keys"),
            ids(row, "not_valid"),
        ]
    };
    let first = if is_dry_run { "not signed" } else { "signed" };
    let headings = [first, "role", "version", "valid until", "valid signatures", "others"];
    let mut parts = vec![table(&headings, items(files).iter().map(row).collect(), "nothing")];
    for file in items(files) {
        let against = match &file["compared_with"] {
            Value::Null => "this key folder keeps no earlier version, so all of it is new".to_owned(),
            version => format!("against version {version}, which this key folder keeps"),
        };
        parts.push(format!(
            "{} changes, {against}:\n{}",
            text(file, "/file"),
            changes::show(&file["changes"])
        ));
        if let Some(by) = holders(&file["holders_by"]) {
            parts.push(format!("who holds {} is said by {by}", text(file, "/role")));
        }
    }
    parts.join("\n\n")
}

/// Which file is believed, and why.
fn holders(by: &Value) -> Option<String> {
    let why = match by["trust"].as_str()? {
        "kept" => "which this key folder trusts",
        "vouched_for" => "which came with the file and is signed by those whom this key folder trusts",
        _ => "which came with the file; NOTHING VOUCHES FOR IT",
    };
    Some(format!("{} (version {}), {why}", text(by, "/file"), text(by, "/version")))
}

fn merged(mut one: Map<String, Value>, other: Map<String, Value>) -> Value {
    one.extend(other);
    Value::Object(one)
}

/// A file that somebody prepared.
struct File<'a> {
    path: &'a Path,
    bytes: Vec<u8>,
    claims: Claims,
    owner: Owner<'a>,
}

impl<'a> File<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        let bytes = read_given(path)?;
        let claims = claims(&bytes).with_context(|| {
            format!(
                "{} is no signed metadata that can be used; of a release, the files in its folder metadata are",
                path.display()
            )
        })?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let owner = match (claims.kind.as_str(), stem) {
            ("root", _) => Owner::Root,
            ("targets", "targets") => Owner::Targets,
            // A model's role delegates to nobody.
            ("targets", model) if claims.delegations.is_empty() && model.parse::<ModelName>().is_ok() => {
                Owner::Model(model)
            }
            ("targets", _) => bail!("{}: {WHOSE}", path.display()),
            _ => bail!("{} is signed by the server, not by people", path.display()),
        };
        Ok(Self { path, bytes, claims, owner })
    }

    /// What it changes; what nobody would expect is said on stderr.
    fn compare(&self, keyring: &Keyring) -> Result<Map<String, Value>> {
        let kept = delegator::kept(keyring, self.owner.role())?.map(|(_, bytes)| bytes);
        let before = kept.as_deref().map(claims).transpose()?.map(|kept| kept.version);
        let (path, version) = (self.path.display(), self.claims.version);
        if let Some(before) = before.filter(|before| before.checked_add(1) != Some(version)) {
            eprintln!(
                "warning: {path} is version {version}, but this key folder keeps version {before}: if colleagues \
                 published meanwhile, see what they changed with: flotilla verify"
            );
        }
        let days = if self.owner == Owner::Root { ROOT_DAYS } else { TARGETS_DAYS };
        if self.claims.expires > expiry(days + 1)? {
            eprintln!("warning: {path} is valid for longer than the {days} days that this program gives it");
        }
        let changes = changes::changes(kept.as_deref(), &self.bytes)?;
        let changes: Vec<Value> = changes.iter().map(changes::Change::to_json).collect();
        let said = json!({
            "file": self.path, "role": self.owner.role(), "version": version, "compared_with": before,
            "expires_at": trust::format_rfc3339(self.claims.expires), "changes": changes,
            "holders_by": self.holders_by(keyring)?,
        });
        Ok(object(said))
    }

    /// The file that says who holds the role, as far as one is believed; what nobody expects is said on stderr.
    fn holders_by(&self, keyring: &Keyring) -> Result<Option<Value>> {
        let delegators = holder::delegators(keyring, self.path, self.owner)?;
        delegators.tell(self.owner.role());
        if self.owner == Owner::Root && delegator::kept(keyring, "root")?.is_none() {
            eprintln!(
                "WARNING: this key folder trusts no root yet, so nothing vouches for {}: compare every key in it with \
                 its holder",
                self.path.display()
            );
        }
        Ok(delegators.believed.as_ref().map(delegator::Delegator::to_json))
    }

    /// Whose signatures are valid, as far as their keys are known here: the holders' and these.
    fn judge(&self, keyring: &Keyring, own: &[PublicKey]) -> Result<Map<String, Value>> {
        let mut keys = holder::keys(keyring, self.path, &self.bytes, self.owner)?;
        keys.extend_from_slice(own);
        let valid = signed_by(&self.bytes, &keys)?;
        let listed = claims(&self.bytes)?.signers;
        let others: Vec<&KeyId> = listed.iter().filter(|id| !valid.contains(id)).collect();
        for id in others.iter().filter(|id| keys.iter().any(|key| key.id() == ***id)) {
            eprintln!(
                "warning: {} was changed after {} had signed it: that signature counts for nothing",
                self.path.display(),
                short(id.as_str())
            );
        }
        if self.owner == Owner::Root
            && let Some((by, kept)) = delegator::kept(keyring, "root")?
            && signed_by(&self.bytes, &root_keys(&kept, "root")?.0)?.is_empty()
        {
            eprintln!(
                "WARNING: nobody who holds root as {} says it, which this key folder trusts, has signed {}",
                by.display(),
                self.path.display()
            );
        }
        let proposed = holder::proposed_keys(keyring, self.path, self.owner)?;
        for id in others.iter().filter(|id| proposed.iter().any(|key| key.id() == ***id)) {
            eprintln!(
                "warning: {} is signed by {}, whom only a file names that is not believed",
                self.path.display(),
                short(id.as_str())
            );
        }
        let valid: BTreeSet<&KeyId> = valid.iter().collect();
        Ok(object(json!({ "keys": valid, "not_valid": others })))
    }

    fn sign(mut self, keyring: &mut Keyring) -> Result<Map<String, Value>> {
        if let Owner::Model(model) = self.owner
            && !keyring.has(self.owner)
            && holder::delegates(keyring, self.path, model)? == Some(false)
        {
            bail!(
                "{}: no model {model} is delegated, as far as the files at hand say; {WHOSE}",
                self.path.display()
            );
        }
        let mut signers = vec![keyring.open(self.owner)?];
        if keyring.has_next(self.owner) {
            signers.push(keyring.open_next(self.owner)?);
        }
        let own: Vec<PublicKey> = signers.iter().map(Signer::public_key).collect();
        let ids: Vec<KeyId> = own.iter().map(PublicKey::id).collect();
        let holds = holds_role(keyring, self.path, &self.claims, self.owner, &ids)?;
        for signer in &signers {
            self.bytes = add_signature(&self.bytes, signer)?;
        }
        replace(self.path, &self.bytes)?;
        let mut said = self.judge(keyring, &own)?;
        said.insert("own_key".into(), json!(ids[0]));
        said.insert("holds_role".into(), json!(holds));
        Ok(said)
    }
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(object) = value { object } else { Map::new() }
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
    use trust::repo::{RootBuilder, TargetsBuilder};

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
            for _ in 0..2 {
                File::read(&path).unwrap().sign(&mut keyring).unwrap();
            }
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(signed_by(&bytes, &keys).unwrap().len(), 2);
        assert_eq!(claims(&bytes).unwrap().signers.len(), 2, "signing twice replaces");
        let stranger = &mut Keyring::at(&folder.path().join("nobody"));
        assert!(File::read(&path).unwrap().sign(stranger).is_err());
    }

    #[test]
    fn a_signature_on_something_else_is_no_signature() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.json");
        let keyring = Keyring::at(&folder.path().join("ada"));
        let ada = keyring.create(Owner::Targets, &Passphrase::None).unwrap();
        let root = RootBuilder::new(UnixMillis(0)).role("targets", &[ada.public_key()], 1);
        let root = root.role("root", &[ada.public_key()], 1).role("snapshot", &[ada.public_key()], 1);
        let root = root.role("timestamp", &[ada.public_key()], 1).sign(&[]).unwrap();
        std::fs::write(folder.path().join("root.json"), root).unwrap();
        std::fs::write(&path, TargetsBuilder::new(UnixMillis(0)).sign(&[&ada]).unwrap()).unwrap();
        let ids = |path: &Path| {
            let said = File::read(path).unwrap().judge(&keyring, &[]).unwrap();
            (items(&said["keys"]).len(), items(&said["not_valid"]).len())
        };
        assert_eq!(ids(&path), (1, 0));
        let mut changed: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        changed["signed"]["version"] = json!(7);
        std::fs::write(&path, changed.to_string()).unwrap();
        assert_eq!(ids(&path), (0, 1));
    }

    #[test]
    fn why_a_file_is_no_metadata_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.json");
        let root = ["targets", "root", "snapshot", "timestamp"].into_iter();
        let root = root.fold(RootBuilder::new(UnixMillis(0)), |root, role| root.role(role, &[], 1));
        let mut root: Value = serde_json::from_slice(&root.sign(&[]).unwrap()).unwrap();
        root["signed"]["roles"]["targets"]["threshold"] = json!(0);
        std::fs::write(&path, root.to_string()).unwrap();
        let error = format!("{:#}", File::read(&path).err().unwrap());
        assert!(error.contains("root.json is no signed metadata"), "{error}");
        assert!(error.contains("targets: threshold is 0"), "{error}");
    }

    #[test]
    fn the_name_says_whose_targets_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets (1).json");
        std::fs::write(&path, TargetsBuilder::new(UnixMillis(0)).sign(&[]).unwrap()).unwrap();
        let error = File::read(&path).err().unwrap().to_string();
        assert!(error.contains("name it targets.json"), "{error}");
        // A name that a model could have says it, too, when the file delegates, or nothing delegates to it.
        let model = "digits".parse().unwrap();
        let ada = Keyring::at(&folder.path().join("ada")).create(Owner::Targets, &Passphrase::None).unwrap();
        let targets = TargetsBuilder::new(UnixMillis(0)).delegate_model(&model, &[ada.public_key()], 1);
        let targets = targets.sign(&[]).unwrap();
        let path = folder.path().join("t.json");
        std::fs::write(&path, &targets).unwrap();
        assert!(File::read(&path).err().unwrap().to_string().contains("name it targets.json"));
        std::fs::write(folder.path().join("targets.json"), &targets).unwrap();
        std::fs::write(&path, TargetsBuilder::new(UnixMillis(0)).sign(&[]).unwrap()).unwrap();
        let keyring = &mut Keyring::at(&folder.path().join("bea"));
        let error = File::read(&path).unwrap().sign(keyring).unwrap_err().to_string();
        assert!(
            error.contains("no model t is delegated") && error.contains("name it targets.json"),
            "{error}"
        );
    }
}
