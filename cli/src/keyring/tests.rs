use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn unlocked(folder: &Path, passphrase: &str) -> Keyring {
    Keyring { folder: folder.to_owned(), passphrase: Some(Passphrase::Given(passphrase.into())) }
}

#[test]
fn key_files_are_encrypted_and_only_their_owner_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let passphrase = Passphrase::Given("correct horse".into());
    let made = Keyring::at(folder.path()).create(Owner::Root, &passphrase).unwrap();
    let path = folder.path().join("root.pem");
    let pem = fs::read_to_string(&path).unwrap();
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{pem}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let opened = unlocked(folder.path(), "correct horse").open(Owner::Root).unwrap();
    assert_eq!(opened.public_key(), made.public_key());
    let error = unlocked(folder.path(), "wrong horse").open(Owner::Root).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(KeyringError::Locked { .. })), "{error:?}");
}

#[test]
fn keys_are_made_all_or_none_and_never_under_two_passphrases() {
    let folder = tempfile::tempdir().unwrap();
    let mut keyring = Keyring::at(folder.path());
    // The folder of models is a file: the second key can't be written.
    fs::write(folder.path().join("models"), b"in the way").unwrap();
    let owners = [Owner::Root, Owner::Model("digits")];
    assert!(keyring.create_missing(&owners, true).is_err());
    assert!(!keyring.has(Owner::Root) && !folder.path().join("root.pub.json").exists());
    fs::remove_file(folder.path().join("models")).unwrap();
    Keyring::at(folder.path()).create(Owner::Root, &Passphrase::Given("correct horse".into())).unwrap();
    let error = unlocked(folder.path(), "wrong horse").create_missing(&owners, false).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(KeyringError::Locked { .. })), "{error:?}");
    assert!(!keyring.has(Owner::Model("digits")));
    let mut right = unlocked(folder.path(), "correct horse");
    right.create_missing(&owners, false).unwrap();
    for owner in owners {
        right.open(owner).unwrap();
    }
}

#[test]
fn keys_are_never_overwritten_and_missing_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut keyring = Keyring::at(folder.path());
    let error = keyring.open(Owner::Model("digits")).unwrap_err();
    assert!(error.to_string().ends_with("flotilla keys new --model digits"), "{error}");
    let error = keyring.open(Owner::Root).unwrap_err();
    assert!(error.to_string().contains("flotilla keys init"), "{error}");
    keyring.create(Owner::Targets, &Passphrase::None).unwrap();
    let error = keyring.create(Owner::Targets, &Passphrase::None).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(KeyringError::Exists { .. })));
    assert!(matches!(keyring.same_passphrase().unwrap(), Passphrase::None));
    assert_eq!(keyring.list().unwrap().len(), 1);
}

/// A folder with keys in use, waiting and replaced, all under "correct horse" but for one in the clear.
fn full_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let passphrase = Passphrase::Given("correct horse".into());
    let keyring = Keyring::at(folder.path());
    keyring.create(Owner::Root, &passphrase).unwrap();
    keyring.create(Owner::Targets, &Passphrase::None).unwrap();
    keyring.create_next(Owner::Model("digits"), &passphrase).unwrap();
    let retired = folder.path().join("retired/models/digits-0123.pem");
    Keyring::create_at(retired, &passphrase).unwrap();
    folder
}

fn opens(folder: &Path, name: &str, passphrase: &str) -> bool {
    file::open_encrypted(&fs::read_to_string(folder.join(name)).unwrap(), passphrase).is_ok()
}

#[test]
fn a_new_passphrase_opens_every_key_and_the_old_one_none() {
    let folder = full_folder();
    let list = || Keyring::at(folder.path()).list().unwrap();
    let before: Vec<_> = list().into_iter().map(|key| key.public).collect();
    fs::remove_file(folder.path().join("targets.pub.json")).unwrap();
    let mut keyring = unlocked(folder.path(), "correct horse");
    let changed = keyring.change_passphrase(&[], || Ok("battery staple".into())).unwrap();
    let names: Vec<_> = changed.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["next/models/digits", "retired/models/digits-0123", "root", "targets"]);
    for name in names {
        let file = format!("{name}.pem");
        assert!(opens(folder.path(), &file, "battery staple"), "{name}");
        assert!(!opens(folder.path(), &file, "correct horse"), "{name}");
        assert_eq!(fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(list().into_iter().map(|key| key.public).collect::<Vec<_>>(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6, "nothing else is left in the folder");
    assert!(keyring.encrypted_beside(&changed).unwrap().is_empty());
}

#[test]
fn a_passphrase_changes_for_all_that_were_named_or_for_none() {
    let folder = full_folder();
    let stranger = Passphrase::Given("another horse".into());
    Keyring::at(folder.path()).create(Owner::Model("faces"), &stranger).unwrap();
    let change = |old: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        unlocked(folder.path(), old).change_passphrase(&names, || Ok("battery staple".into()))
    };
    let is_locked = |error: anyhow::Error| matches!(error.downcast_ref(), Some(KeyringError::Locked { .. }));
    assert!(is_locked(change("correct horse", &[]).unwrap_err()), "one of them has another passphrase");
    assert!(opens(folder.path(), "root.pem", "correct horse"));
    assert!(is_locked(change("wrong horse", &["root"]).unwrap_err()));
    let error = change("correct horse", &["root", "nobody"]).unwrap_err().to_string();
    assert!(error.contains("holds no key \"nobody\"") && error.contains("models/faces"), "{error}");
    let changed = change("another horse", &["faces"]).unwrap();
    let others = Keyring::at(folder.path()).encrypted_beside(&changed).unwrap();
    assert_eq!(others, ["next/models/digits", "retired/models/digits-0123", "root"]);
    // As after a run that was cut off: one file has the new passphrase, the others have the old one.
    assert_eq!(change("correct horse", &[]).unwrap().len(), 5);
    assert!(opens(folder.path(), "root.pem", "battery staple"));
    let public = fs::read(folder.path().join("targets.pub.json")).unwrap();
    fs::write(folder.path().join("root.pub.json"), public).unwrap();
    let error = change("battery staple", &[]).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(KeyringError::Mixed { .. })), "{error:?}");
}

#[test]
fn a_key_that_waits_without_its_public_half_is_in_nobodys_way_and_gets_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut keyring = Keyring::at(folder.path());
    let owner = Owner::Model("faces");
    let made = keyring.create_next(owner, &Passphrase::None).unwrap().public_key();
    fs::remove_file(folder.path().join("next/models/faces.pub.json")).unwrap();
    assert!(keyring.waiting().unwrap().is_empty(), "left out, and no error");
    assert!(keyring.promote_next(|_, _| true).unwrap().is_empty());
    keyring.open_next(owner).unwrap();
    assert_eq!(keyring.promote_next(|_, key| *key == made).unwrap(), ["models/faces"]);
    assert_eq!(keyring.public(owner).unwrap(), made);
}

#[test]
fn a_public_half_alone_is_overwritten_when_the_key_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Keyring::at(folder.path());
    fs::create_dir_all(folder.path().join("next")).unwrap();
    fs::write(folder.path().join("next/targets.pub.json"), b"of the first try").unwrap();
    assert!(!keyring.has_next(Owner::Targets) && keyring.waiting().unwrap().is_empty());
    let made = keyring.create_next(Owner::Targets, &Passphrase::None).unwrap().public_key();
    assert_eq!(keyring.waiting().unwrap()[0].public, made);
}

#[test]
fn a_key_whose_move_was_cut_off_anywhere_still_takes_its_place() {
    // What was done when the power went: of the old key to retired/, then of the new one to its place.
    let step = |at: &Path, retired: &str, step: usize| match step {
        0 => fs::copy(at.join("root.pub.json"), at.join(format!("{retired}.pub.json"))).map(drop),
        1 => fs::rename(at.join("root.pem"), at.join(format!("{retired}.pem"))),
        2 => fs::copy(at.join("next/root.pub.json"), at.join("root.pub.json")).map(drop),
        _ => fs::rename(at.join("next/root.pem"), at.join("root.pem")),
    };
    for cut in 0..=4 {
        let folder = tempfile::tempdir().unwrap();
        let mut keyring = Keyring::at(folder.path());
        let before = keyring.create(Owner::Root, &Passphrase::None).unwrap().public_key();
        let after = keyring.create_next(Owner::Root, &Passphrase::None).unwrap().public_key();
        let id: String = before.id().as_str().chars().take(16).collect();
        fs::create_dir_all(folder.path().join("retired")).unwrap();
        for done in 0..cut {
            step(folder.path(), &format!("retired/root-{id}"), done).unwrap();
        }
        keyring.promote_next(|_, key| *key == after).unwrap();
        assert_eq!(keyring.open(Owner::Root).unwrap().public_key(), after, "after {cut} steps");
        assert_eq!(keyring.public(Owner::Root).unwrap(), after, "after {cut} steps");
        assert!(folder.path().join(format!("retired/root-{id}.pem")).exists(), "after {cut} steps");
    }
}
