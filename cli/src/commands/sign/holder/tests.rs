use protocol::UnixMillis;
use trust::repo::{RootBuilder, TargetsBuilder, add_signature, signed_by};
use trust::{Ed25519Signer, PublicKey, Signer as _};

use super::*;
use crate::metadata::kept_name;

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

    /// Who of these, having signed, is shown as a holder of targets.
    fn valid(&self, file: &[u8], signers: &[u8]) -> Vec<KeyId> {
        let sign =
            |file: Vec<u8>, n: &u8| add_signature(&file, &Ed25519Signer::from_seed(&[*n; 32])).unwrap();
        let file = signers.iter().fold(file.to_vec(), sign);
        let path = self.folder.path().join("targets.json");
        signed_by(&file, &keys(&self.keyring, &path, &file, Owner::Targets).unwrap()).unwrap()
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
}

#[test]
fn k1_a_root_beside_the_file_is_believed_only_if_the_kept_one_vouches_for_it() {
    let (holder, next_holder) = (key(5), key(6));
    let file = targets(&key(7));
    let next = |version, signers: &[u8]| {
        let root = root(version, &[key(1)], &next_holder);
        let sign =
            |root: Vec<u8>, n: &u8| add_signature(&root, &Ed25519Signer::from_seed(&[*n; 32])).unwrap();
        signers.iter().fold(root, sign)
    };
    let table =
        |beside: &[u8]| Table::new().keeps("root", &root(1, &[key(1)], &holder)).beside("root.json", beside);
    // The next root, signed by those who hold root.
    let vouched = table(&next(2, &[1]));
    assert_eq!(vouched.standing(&file, Owner::Targets, &next_holder), Standing::Holds);
    assert!(matches!(vouched.standing(&file, Owner::Targets, &holder), Standing::HoldsNot(_)));
    assert_eq!(vouched.valid(&file, &[5, 6]), [next_holder.id()]);
    // Nobody's, a thief's, one that leaves roots out, and another one of the kept version.
    for foreign in [next(2, &[]), next(2, &[3]), next(3, &[1]), next(1, &[1])] {
        let foreign = table(&foreign);
        assert_eq!(foreign.standing(&file, Owner::Targets, &holder), Standing::Holds);
        let Standing::HoldsNotSoFar(named) = foreign.standing(&file, Owner::Targets, &next_holder) else {
            panic!("a root that nobody vouches for names holders")
        };
        assert!(named[1].to_string().contains("not believed"), "{}", named[1]);
        assert_eq!(foreign.valid(&file, &[5, 6]), [holder.id()]);
    }
    // An older one says nothing any more; the kept one with more signatures is the kept one.
    let kept = next(2, &[]);
    let older = Table::new().keeps("root", &kept).beside("root.json", &root(1, &[key(1)], &holder));
    assert!(
        matches!(older.standing(&file, Owner::Targets, &holder), Standing::HoldsNotSoFar(n) if n.len() == 1)
    );
    let same = Table::new().keeps("root", &kept).beside("root.json", &next(2, &[1, 3]));
    assert_eq!(same.standing(&file, Owner::Targets, &next_holder), Standing::Holds);
}

#[test]
fn k1_targets_beside_the_file_are_believed_only_if_the_trusted_root_vouches_for_them() {
    let (holder, thief) = (key(7), key(6));
    let file = TargetsBuilder::new(NEVER).sign(&[]).unwrap();
    let table = |signer: u8| {
        let targets = targets(&thief);
        let signed = add_signature(&targets, &Ed25519Signer::from_seed(&[signer; 32])).unwrap();
        Table::new().keeps("root", &root(1, &[key(1)], &key(5))).beside("targets.json", &signed)
    };
    let model = Owner::Model("digits");
    assert_eq!(table(5).standing(&file, model, &thief), Standing::Holds);
    assert!(matches!(table(6).standing(&file, model, &thief), Standing::HoldsNotSoFar(_)));
    let kept = table(6).keeps("targets", &targets(&holder));
    assert_eq!(kept.standing(&file, model, &holder), Standing::Holds);
    // A root and targets of a thief's own, side by side.
    let both = table(6).keeps("targets", &targets(&holder));
    let forged = root(2, std::slice::from_ref(&thief), &thief);
    let forged = add_signature(&forged, &Ed25519Signer::from_seed(&[6; 32])).unwrap();
    assert!(matches!(
        both.beside("root.json", &forged).standing(&file, model, &thief),
        Standing::HoldsNotSoFar(_)
    ));
}

#[test]
fn what_is_believed_says_why() {
    let names = root(1, &[key(1)], &key(5));
    let trust = |table: Table| {
        let path = table.folder.path().join("targets.json");
        delegators(&table.keyring, &path, Owner::Targets).unwrap().believed.unwrap().to_json()["trust"].take()
    };
    assert_eq!(trust(Table::new().beside("root.json", &names)), "first_use");
    assert_eq!(trust(Table::new().keeps("root", &names)), "kept");
    assert_eq!(trust(Table::new().keeps("root", &names).beside("root.json", &names)), "vouched_for");
    let targets_beside = Table::new().beside("root.json", &names).beside(
        "targets.json",
        &add_signature(&targets(&key(7)), &Ed25519Signer::from_seed(&[5; 32])).unwrap(),
    );
    let path = targets_beside.folder.path().join("digits.json");
    let found = delegators(&targets_beside.keyring, &path, Owner::Model("digits")).unwrap();
    assert_eq!(
        found.believed.unwrap().to_json()["trust"],
        "first_use",
        "a root that nobody pinned vouches for nothing"
    );
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
