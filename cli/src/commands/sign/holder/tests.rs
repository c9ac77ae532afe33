use protocol::UnixMillis;
use trust::repo::{RootBuilder, TargetsBuilder};
use trust::{Ed25519Signer, PublicKey, Signer as _};

use super::*;

const NEVER: UnixMillis = UnixMillis(0);

fn key(n: u8) -> PublicKey {
    Ed25519Signer::from_seed(&[n; 32]).public_key()
}

/// A root of this version that names these keys for root and one for targets.
fn root(version: u64, holders: &[PublicKey], targets: &PublicKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..version {
        let resumed = RootBuilder::resume(&bytes, NEVER);
        let builder = resumed.unwrap_or_else(|_| RootBuilder::new(NEVER));
        let builder = builder.role("root", holders, 1).role("targets", std::slice::from_ref(targets), 1);
        let builder = builder.role("snapshot", &[key(8)], 1).role("timestamp", &[key(9)], 1);
        bytes = builder.sign(&[]).unwrap();
    }
    bytes
}

fn targets(holder: &PublicKey) -> Vec<u8> {
    let model = "digits".parse().unwrap();
    let holder = std::slice::from_ref(holder);
    TargetsBuilder::new(NEVER).delegate_model(&model, holder, 1).sign(&[]).unwrap()
}

struct Table {
    folder: tempfile::TempDir,
    keyring: Keyring,
}

impl Table {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::at(&folder.path().join("keys"));
        Self { folder, keyring }
    }

    fn keeps(self, role: &str, bytes: &[u8]) -> Self {
        self.keyring.keep(&kept_name(role), bytes).unwrap();
        self
    }

    fn beside(self, name: &str, bytes: &[u8]) -> Self {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
        self
    }

    fn standing(&self, file: &[u8], owner: Owner<'_>, own: &PublicKey) -> Standing {
        let path = self.folder.path().join(format!("{}.json", owner.role()));
        standing(&self.keyring, &path, &claims(file).unwrap(), owner, &[own.id()]).unwrap()
    }
}

#[test]
fn root_is_held_by_those_whom_it_names_and_those_before() {
    let (old, new, stranger) = (key(1), key(2), key(3));
    let next = root(2, std::slice::from_ref(&new), &key(5));
    let table = Table::new().keeps("root", &root(1, std::slice::from_ref(&old), &key(5)));
    for holder in [&old, &new] {
        assert_eq!(table.standing(&next, Owner::Root, holder), Standing::Holds);
    }
    assert!(
        matches!(table.standing(&next, Owner::Root, &stranger), Standing::HoldsNot(named) if named.len() == 2)
    );
    // Without the root before it, nobody can say.
    assert!(matches!(Table::new().standing(&next, Owner::Root, &old), Standing::HoldsNotSoFar(_)));
    let far = root(4, std::slice::from_ref(&new), &key(5));
    assert!(matches!(table.standing(&far, Owner::Root, &stranger), Standing::HoldsNotSoFar(_)));
    let first = root(1, std::slice::from_ref(&old), &key(5));
    assert!(matches!(Table::new().standing(&first, Owner::Root, &stranger), Standing::HoldsNot(_)));
}

#[test]
fn what_lies_beside_the_file_is_sure_and_what_was_kept_may_be_old() {
    let (holder, stranger) = (key(5), key(6));
    let (file, names) = (targets(&key(7)), root(1, &[key(1)], &holder));
    let beside = Table::new().beside("root.json", &names);
    let kept = Table::new().keeps("root", &names);
    assert_eq!(beside.standing(&file, Owner::Targets, &holder), Standing::Holds);
    assert_eq!(kept.standing(&file, Owner::Targets, &holder), Standing::Holds);
    let Standing::HoldsNot(named) = beside.standing(&file, Owner::Targets, &stranger) else { panic!() };
    assert!(
        named[0].to_string().ends_with(&format!("names {}", short(holder.id().as_str()))),
        "{}",
        named[0]
    );
    assert!(matches!(kept.standing(&file, Owner::Targets, &stranger), Standing::HoldsNotSoFar(_)));
    assert_eq!(Table::new().standing(&file, Owner::Targets, &stranger), Standing::Unknown);
    // The newer one, beside the file, is what counts.
    let both = Table::new().keeps("root", &root(1, &[key(1)], &stranger)).beside("root.json", &names);
    assert!(matches!(both.standing(&file, Owner::Targets, &stranger), Standing::HoldsNot(_)));
}

#[test]
fn a_model_is_held_by_those_whom_targets_names_for_it() {
    let (holder, stranger) = (key(7), key(6));
    let file = TargetsBuilder::new(NEVER).sign(&[]).unwrap();
    let table = Table::new().beside("targets.json", &targets(&holder));
    assert_eq!(table.standing(&file, Owner::Model("digits"), &holder), Standing::Holds);
    assert!(matches!(table.standing(&file, Owner::Model("digits"), &stranger), Standing::HoldsNot(_)));
    let Standing::HoldsNot(named) = table.standing(&file, Owner::Model("faces"), &holder) else { panic!() };
    assert!(named[0].to_string().ends_with("names nobody"), "{}", named[0]);
    // Another kind of file under that name says nothing.
    let table = Table::new().beside("targets.json", b"{}");
    assert_eq!(table.standing(&file, Owner::Model("digits"), &holder), Standing::Unknown);
}
