//! New keys in the place of old ones: which files have to be signed again, and by whom. No network and no clock but
//! the expiry of what is signed.

use anyhow::{Context as _, Result, bail, ensure};
use protocol::ModelName;
use trust::repo::{RootBuilder, TargetsBuilder};
use trust::{PublicKey, Signer, director};

use crate::keyring::{Keyring, Owner};
use crate::metadata::{ROOT_DAYS, TARGETS_DAYS, expiry, kept_name};
use crate::pending::{Pending, delegated_keys, root_keys};

/// What is published now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Current {
    /// Newest root.
    pub(crate) root: Vec<u8>,
    /// Newest top-level targets role.
    pub(crate) targets: Vec<u8>,
    /// Newest file of the model whose key rotates; none if nothing of it is published.
    pub(crate) model: Option<Vec<u8>>,
}

/// The server's own public keys.
#[derive(Debug, Clone)]
pub(crate) struct Online {
    /// Signs the snapshot.
    pub(crate) snapshot: PublicKey,
    /// Signs the timestamp.
    pub(crate) timestamp: PublicKey,
    /// Signs Desired.
    pub(crate) director: PublicKey,
}

/// Refuses a model's name that means something else where roles are named.
///
/// # Errors
/// When it does.
pub(crate) fn not_reserved(model: &ModelName) -> Result<()> {
    ensure!(
        model.as_str() != "server",
        "no model can be called server: flotilla keys rotate server means the server's own keys"
    );
    Ok(())
}

/// The keys that hold a role now, and how many of them must sign.
///
/// # Errors
/// When root or targets can't be read, or name no such role.
pub(crate) fn holders(owner: Owner<'_>, current: &Current) -> Result<(Vec<PublicKey>, usize)> {
    match owner {
        Owner::Root | Owner::Targets => root_keys(&current.root, owner.role()),
        Owner::Model(model) => delegated_keys(&current.targets, model),
    }
}

/// Whether a key holds a role now.
pub(crate) fn is_holder(owner: Owner<'_>, key: &PublicKey, current: &Current) -> bool {
    holders(owner, current).is_ok_and(|(keys, _)| keys.iter().any(|holder| holder.is_same(key)))
}

/// Ends here what the server took already, when its answer got lost or this program was cut off after it: a key that waits
/// and holds its role by now takes its place, and the publication that named it waits no more. Returns whose keys those are.
///
/// # Errors
/// When a file can't be moved or removed.
pub(crate) fn catch_up(keyring: &Keyring, current: &Current) -> Result<Vec<String>> {
    let promoted = keyring.promote_next(|owner, key| is_holder(owner, key, current))?;
    let pending = Pending::read(keyring)?;
    // A publication is taken as a whole or not at all.
    let is_taken = [("root", &current.root), ("targets", &current.targets)]
        .into_iter()
        .any(|(role, published)| pending.role(role) == Some(published.as_slice()));
    if is_taken {
        for (role, bytes) in &pending.metadata {
            keyring.keep(&kept_name(role), bytes)?;
        }
        Pending::clear(keyring)?;
    }
    Ok(promoted)
}

/// Puts this folder's next key of `owner` in the place of its present one.
///
/// # Errors
/// When a key is missing or isn't the role's.
pub(crate) fn of_owner(keyring: &mut Keyring, owner: Owner<'_>, current: &Current) -> Result<Pending> {
    let old = keyring.public(owner)?;
    let next = keyring.open_next(owner)?;
    let new = next.public_key();
    let metadata = match owner {
        Owner::Root => {
            let root = next_root(current)?.replace_key("root", &old, &new)?;
            // 5.3.4: the old key vouches for the new root, the new one for itself.
            let signer = keyring.open(Owner::Root)?;
            vec![("root".to_owned(), root.sign(&[&signer, &next])?)]
        }
        Owner::Targets => {
            let root = next_root(current)?.replace_key("targets", &old, &new)?;
            let root = root.sign(&[&keyring.open(Owner::Root)?])?;
            let targets = next_targets(&current.targets)?.sign(&[&next])?;
            vec![("root".to_owned(), root), ("targets".to_owned(), targets)]
        }
        Owner::Model(model) => {
            let targets = next_targets(&current.targets)?.replace_key(model, &old, &new)?;
            let mut files = vec![("targets".to_owned(), targets.sign(&[&keyring.open(Owner::Targets)?])?)];
            if let Some(role) = &current.model {
                files.push((model.to_owned(), next_targets(role)?.sign(&[&next])?));
            }
            files
        }
    };
    Ok(Pending { metadata, targets: Vec::new() })
}

/// Authorises the server's keys as they are now: after the server was replaced, or when a key of it was stolen.
///
/// # Errors
/// When nothing changed, or a key is missing.
pub(crate) fn of_server(keyring: &mut Keyring, online: &Online, current: &Current) -> Result<Pending> {
    let mut pending = Pending::default();
    let root = next_root(current)?;
    let is_named = |role: &str, key: &PublicKey| {
        root.keys_of(role).is_some_and(|(keys, _)| keys == std::slice::from_ref(key))
    };
    if !is_named("snapshot", &online.snapshot) || !is_named("timestamp", &online.timestamp) {
        let root = root.role("snapshot", std::slice::from_ref(&online.snapshot), 1).role(
            "timestamp",
            std::slice::from_ref(&online.timestamp),
            1,
        );
        pending.metadata.push(("root".into(), root.sign(&[&keyring.open(Owner::Root)?])?));
    }
    let director = director::target_bytes(std::slice::from_ref(&online.director), 1);
    let targets = next_targets(&current.targets)?;
    if !targets.lists(director::TARGET, &director) {
        let targets = targets.target(director::TARGET, &director, None);
        pending.metadata.push(("targets".into(), targets.sign(&[&keyring.open(Owner::Targets)?])?));
        pending.targets.push((director::TARGET.into(), director));
    }
    if pending.metadata.is_empty() {
        bail!("root and targets name the server's present keys already");
    }
    Ok(pending)
}

fn next_root(current: &Current) -> Result<RootBuilder> {
    RootBuilder::resume(&current.root, expiry(ROOT_DAYS)?).context("the present root can't be built on")
}

fn next_targets(bytes: &[u8]) -> Result<TargetsBuilder> {
    TargetsBuilder::resume(bytes, expiry(TARGETS_DAYS)?).context("the present targets role can't be built on")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protocol::UnixMillis;
    use trust::client::{self, Stored};
    use trust::repo::{snapshot, timestamp};
    use trust::{Ed25519Signer, Limits};

    use super::*;
    use crate::keyring::Passphrase;

    const MANIFEST: &str = "models/digits/1.0.0/manifest.json";

    /// A server and a device, over a publisher's key folder.
    struct World {
        keyring: Keyring,
        current: Current,
        online: [Ed25519Signer; 3],
        files: BTreeMap<String, Vec<u8>>,
        version: u64,
        device: Stored,
        _folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let keyring = Keyring::at(folder.path());
            let owners = [Owner::Root, Owner::Targets, Owner::Model("digits")];
            let [root, targets, model] =
                owners.map(|owner| keyring.create(owner, &Passphrase::None).unwrap());
            let online = [10, 11, 12].map(|n| Ed25519Signer::from_seed(&[n; 32]));
            let until = expiry(9).unwrap();
            let name = ModelName::new("digits").unwrap();
            let bytes = director::target_bytes(&[online[2].public_key()], 1);
            let signed_root = RootBuilder::new(until)
                .role("root", &[root.public_key()], 1)
                .role("targets", &[targets.public_key()], 1)
                .role("snapshot", &[online[0].public_key()], 1)
                .role("timestamp", &[online[1].public_key()], 1)
                .sign(&[&root])
                .unwrap();
            let signed_targets = TargetsBuilder::new(until)
                .target(director::TARGET, &bytes, None)
                .delegate_model(&name, &[model.public_key()], 1)
                .sign(&[&targets])
                .unwrap();
            let digits = TargetsBuilder::new(until).target(MANIFEST, b"{}", None).sign(&[&model]).unwrap();
            let current = Current { root: signed_root.clone(), targets: signed_targets, model: Some(digits) };
            let mut world = Self {
                keyring,
                current,
                online,
                files: BTreeMap::from([("1.root.json".to_owned(), signed_root.clone())]),
                version: 0,
                device: Stored::new(signed_root),
                _folder: folder,
            };
            world.serve(&Pending::default());
            world
        }

        /// What the server does with a publication.
        fn serve(&mut self, pending: &Pending) {
            for (role, bytes) in &pending.metadata {
                match role.as_str() {
                    "root" => self.current.root.clone_from(bytes),
                    "targets" => self.current.targets.clone_from(bytes),
                    _ => self.current.model = Some(bytes.clone()),
                }
            }
            self.version += 1;
            let model = self.current.model.clone().unwrap();
            let roles = [("targets", self.current.targets.clone()), ("digits", model)];
            for (role, bytes) in &roles {
                let version = trust::repo::claims(bytes).unwrap().version;
                self.files.insert(format!("{version}.{role}.json"), bytes.clone());
            }
            let root = self.current.root.clone();
            self.files.insert(format!("{}.root.json", trust::repo::claims(&root).unwrap().version), root);
            let until = expiry(1).unwrap();
            let listed = roles.iter().map(|(role, bytes)| (*role, bytes.as_slice()));
            let snap = snapshot(self.version, until, listed, &[&self.online[0]]).unwrap();
            let time = timestamp(self.version, until, &snap, UnixMillis(0), &[&self.online[1]]).unwrap();
            self.files.insert(format!("{}.snapshot.json", self.version), snap);
            self.files.insert("timestamp.json".into(), time);
        }

        /// What a device that followed so far makes of it.
        fn follow(&mut self) -> Result<u64, trust::TrustError> {
            let now = crate::metadata::now().unwrap();
            let wanted = [director::TARGET, MANIFEST];
            let files = &self.files;
            let limits = Limits::default();
            let seen = client::run(&mut self.device, &wanted, now, &limits, |path| files.get(path).cloned())?;
            assert!(wanted.iter().all(|path| seen.find_target(path).is_ok()));
            Ok(seen.root_version())
        }

        /// What the publisher does once the server has taken a publication.
        fn promote(&self) -> Vec<String> {
            self.keyring.promote_next(|owner, key| is_holder(owner, key, &self.current)).unwrap()
        }

        fn rotate(&mut self, owner: Owner<'_>) {
            self.keyring.create_next(owner, &Passphrase::None).unwrap();
            let pending = of_owner(&mut self.keyring, owner, &self.current).unwrap();
            let current = self.current.clone();
            assert_eq!(pending.lacking(Some(&current.root), Some(&current.targets)).unwrap(), []);
            self.serve(&pending);
            self.promote();
        }
    }

    #[test]
    fn k3_every_role_of_the_publisher_rotates_and_devices_follow() {
        let mut world = World::new();
        assert_eq!(world.follow().unwrap(), 1);
        for (owner, root_version) in [(Owner::Root, 2), (Owner::Targets, 3), (Owner::Model("digits"), 3)] {
            let old = world.keyring.public(owner).unwrap();
            world.rotate(owner);
            assert_ne!(world.keyring.public(owner).unwrap(), old);
            assert_eq!(world.follow().unwrap(), root_version, "{owner:?}");
        }
        world.rotate(Owner::Root);
        world.rotate(Owner::Root);
        assert_eq!(world.follow().unwrap(), 5, "each root of the chain is walked");
        assert_eq!(world.keyring.list().unwrap().len(), 3, "retired keys are no keys of the folder");
    }

    #[test]
    fn a_key_that_waits_stays_waiting_when_something_else_is_published() {
        let mut world = World::new();
        let present = world.keyring.public(Owner::Root).unwrap();
        world.keyring.create_next(Owner::Root, &Passphrase::None).unwrap();
        let of_root = of_owner(&mut world.keyring, Owner::Root, &world.current).unwrap();
        world.rotate(Owner::Model("digits"));
        assert_eq!(world.keyring.public(Owner::Root).unwrap(), present, "no root names the new key yet");
        assert!(world.keyring.has_next(Owner::Root));
        world.serve(&of_root);
        assert_eq!(world.promote(), ["root"]);
        assert_ne!(world.keyring.public(Owner::Root).unwrap(), present);
        assert_eq!(world.follow().unwrap(), 2);
    }

    #[test]
    fn a_model_is_not_called_server() {
        let reserved = |name: &str| not_reserved(&name.parse().unwrap()).is_err();
        assert!(reserved("server") && !reserved("digits") && !reserved("servers"));
    }

    #[test]
    fn a_publication_that_was_taken_unheard_is_ended_by_the_next_command() {
        let mut world = World::new();
        let owner = Owner::Model("digits");
        let before = world.keyring.public(owner).unwrap();
        world.keyring.create_next(owner, &Passphrase::None).unwrap();
        let pending = of_owner(&mut world.keyring, owner, &world.current).unwrap();
        pending.write(&world.keyring).unwrap();
        assert!(catch_up(&world.keyring, &world.current).unwrap().is_empty(), "not taken yet");
        assert!(Pending::read(&world.keyring).unwrap().is_same(&pending));
        world.serve(&pending);
        assert_eq!(catch_up(&world.keyring, &world.current).unwrap(), ["models/digits"]);
        assert_ne!(world.keyring.public(owner).unwrap(), before);
        assert_eq!(Pending::read(&world.keyring).unwrap(), Pending::default());
        assert_eq!(world.keyring.read(&kept_name("digits")).unwrap(), world.current.model);
        world.rotate(owner);
        world.follow().unwrap();
    }

    #[test]
    fn a_key_whose_private_half_got_lost_is_replaced() {
        let mut world = World::new();
        let lost = world.keyring.folder().join("models/digits.pem");
        std::fs::remove_file(&lost).unwrap();
        world.rotate(Owner::Model("digits"));
        assert!(lost.exists() && world.keyring.waiting().unwrap().is_empty());
        world.follow().unwrap();
    }

    #[test]
    fn k2_a_new_server_is_authorised_and_the_old_one_is_locked_out() {
        let mut world = World::new();
        world.follow().unwrap();
        let stolen =
            std::mem::replace(&mut world.online, [20, 21, 22].map(|n| Ed25519Signer::from_seed(&[n; 32])));
        let [snapshot, timestamp, director] = world.online.each_ref().map(Signer::public_key);
        let online = Online { snapshot, timestamp, director };
        let pending = of_server(&mut world.keyring, &online, &world.current).unwrap();
        assert_eq!(pending.targets.len(), 1);
        world.serve(&pending);
        assert_eq!(world.follow().unwrap(), 2);
        world.online = stolen;
        world.version += 100;
        world.serve(&Pending::default());
        assert_eq!(world.follow().unwrap_err().attack(), "A1");
        assert!(of_server(&mut world.keyring, &online, &world.current).is_err(), "nothing to do any more");
    }

    #[test]
    fn a_key_that_is_not_the_roles_can_not_be_replaced() {
        let mut world = World::new();
        let other = tempfile::tempdir().unwrap();
        let mut stranger = Keyring::at(other.path());
        stranger.create(Owner::Root, &Passphrase::None).unwrap();
        stranger.create_next(Owner::Root, &Passphrase::None).unwrap();
        let error = of_owner(&mut stranger, Owner::Root, &world.current).unwrap_err();
        assert!(error.to_string().contains("is no key of role root"), "{error}");
        assert_eq!(world.follow().unwrap(), 1);
    }

    #[test]
    fn threshold_signing_says_who_is_still_missing() {
        let mut world = World::new();
        let (second, third) = (Ed25519Signer::from_seed(&[30; 32]), Ed25519Signer::from_seed(&[31; 32]));
        let mine = world.keyring.open(Owner::Root).unwrap();
        let keys = [mine.public_key(), second.public_key(), third.public_key()];
        let root = next_root(&world.current).unwrap().role("root", &keys, 2).sign(&[&mine]).unwrap();
        let pending = Pending { metadata: vec![("root".into(), root)], targets: vec![] };
        let lacking = pending.lacking(Some(&world.current.root), None).unwrap();
        assert_eq!((lacking[0].have, lacking[0].need, lacking[0].keys.len()), (1, 2, 2));
        pending.write(&world.keyring).unwrap();
        let mut again = Pending::read(&world.keyring).unwrap();
        assert_eq!(again, pending);
        again.metadata[0].1 = trust::repo::add_signature(&again.metadata[0].1, &third).unwrap();
        assert_eq!(again.lacking(Some(&world.current.root), None).unwrap(), []);
        world.serve(&again);
        assert_eq!(world.follow().unwrap(), 2);
    }
}
