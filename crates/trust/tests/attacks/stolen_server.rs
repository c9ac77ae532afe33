//! K2: the attacker holds the whole server, that is the snapshot, timestamp and director keys, and serves what they like.

use protocol::{Counter, Digest, ModelName, ReleaseRef, Revision, Version};
use trust::client::Stored;
use trust::repo::{RootBuilder, TargetsBuilder};
use trust::{Ed25519Signer, desired, director};

use crate::director::{desired as a_desired, director_keys};
use crate::repo::{CONTENT, MANIFEST, NOW, Repo, attack, key, later, publics};

/// What the attacker would like every device to run.
const EVIL: &[u8] = b"{\"the\":\"evil manifest\"}";

/// A device that was up to date when the server fell, and the server's keys that fell with it.
fn fallen() -> (Repo, Stored, [Ed25519Signer; 2]) {
    let repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    (repo, device, [key(5), key(6)])
}

#[test]
fn k2_stolen_server_keys_sign_no_role_of_the_publisher() {
    let (mut repo, device, stolen) = fallen();
    for thief in &stolen {
        let digits = TargetsBuilder::resume(&repo.files["digits.json"], later(30)).unwrap();
        let forged = digits.target(MANIFEST, EVIL, None).sign(&[thief]).unwrap();
        let targets = TargetsBuilder::resume(&repo.files["targets.json"], later(30)).unwrap();
        let name = ModelName::new("digits").unwrap();
        let taken = targets.delegate_model(&name, &publics(&[thief]), 1).sign(&[thief]).unwrap();
        let honest = repo.files.clone();
        for (role, bytes) in [("digits", &forged), ("targets", &taken)] {
            repo.put_role(role, 2, bytes);
            repo.publish(&["targets", "digits"]);
            assert_eq!(attack(repo.refresh(&mut device.clone())), "A1", "{role}");
            repo.files.clone_from(&honest);
        }
        let keys = publics(&[thief]);
        let root = RootBuilder::resume(&repo.files["1.root.json"], later(365)).unwrap();
        let root = root.role("root", &keys, 1).role("targets", &keys, 1).sign(&[thief]).unwrap();
        repo.files.insert("2.root.json".into(), root);
        repo.refresh(&mut device.clone()).unwrap_err();
        repo.files.clone_from(&honest);
    }
    repo.publish(&["targets", "digits"]);
    let view = repo.refresh(&mut device.clone()).unwrap();
    view.find_target(MANIFEST).unwrap().verify(CONTENT.to_vec()).unwrap();
}

#[test]
fn k2_stolen_server_keys_take_no_role_away_and_bring_no_old_one_back() {
    let (mut repo, mut device, _) = fallen();
    let old = repo.files["digits.json"].clone();
    let digits = TargetsBuilder::resume(&old, later(30)).unwrap();
    let next = digits.target("models/digits/1.1.0/manifest.json", CONTENT, None);
    repo.put_role("digits", 2, &next.sign(&[&repo.model]).unwrap());
    repo.publish(&["targets", "digits"]);
    repo.refresh(&mut device).unwrap();
    let honest = repo.files.clone();
    repo.publish(&["targets"]);
    assert_eq!(attack(repo.refresh(&mut device.clone())), "R2");
    repo.files.clone_from(&honest);
    repo.put_role("digits", 1, &old);
    repo.publish(&["targets", "digits"]);
    repo.refresh(&mut device.clone()).unwrap_err();
}

#[test]
fn k2_stolen_director_names_only_what_publishers_signed() {
    let (mut repo, mut device, _) = fallen();
    let stolen = key(9);
    let keys = director_keys(&mut repo, &[&stolen]);
    let mut wish = a_desired(5);
    let version = Version::new("6.6.6").unwrap();
    let release = ReleaseRef { version, digest: Digest::from_bytes([6; 32]), counter: Counter(666) };
    wish.models[0].release = release.clone();
    let bytes = desired::sign(&wish, &stolen).unwrap();
    // It is the director's, so it is read; what it names must still come out of the publishers' chain.
    let read = desired::verify(&bytes, &keys, &wish.project, &wish.device, NOW, Revision(1)).unwrap();
    assert_eq!(read.models[0].release, release);
    let view = repo.refresh(&mut device).unwrap();
    assert!(view.find_target("models/digits/6.6.6/manifest.json").is_err());
    assert_eq!(attack(view.find_target(MANIFEST).unwrap().verify(EVIL.to_vec())), "A5");
    assert!(view.find_target(director::TARGET).is_err(), "and no target that wasn't looked for");
}
