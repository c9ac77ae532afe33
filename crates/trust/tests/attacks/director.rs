//! M2, V1 and the director: Desired and reports.

use protocol::topic::Channel;
use protocol::{Counter, DeviceId, Digest, ModelName, ProjectId, ReleaseRef, Revision, Version};
use trust::client;
use trust::desired::{self, Desired, DesiredModel, Mode};
use trust::director::{self, DirectorKeys};
use trust::repo::TargetsBuilder;
use trust::{Limits, Signer, report};

use crate::repo::{NOW, Repo, attack, key, later, publics};

pub(crate) fn director_keys(repo: &mut Repo, keys: &[&trust::Ed25519Signer]) -> DirectorKeys {
    let bytes = director::target_bytes(&publics(keys), 1);
    let targets = TargetsBuilder::resume(&repo.files["targets.json"], later(30)).unwrap();
    let targets = targets.target(director::TARGET, &bytes, None);
    let version = targets.version();
    let signed = targets.sign(&[&repo.targets]).unwrap();
    repo.put_role("targets", version, &signed);
    repo.publish(&["targets", "digits"]);
    let fetch = |path: &str| repo.files.get(path).cloned();
    let view = client::run(&mut repo.device(), &[director::TARGET], NOW, &Limits::default(), fetch).unwrap();
    let info = view.find_target(director::TARGET).unwrap();
    DirectorKeys::parse(&info.verify(bytes).unwrap()).unwrap()
}

fn ids() -> (ProjectId, DeviceId) {
    (ProjectId::new("p").unwrap(), DeviceId::new("d1").unwrap())
}

pub(crate) fn desired(revision: u64) -> Desired {
    let (project, device) = ids();
    let release = ReleaseRef {
        version: Version::new("1.0.0").unwrap(),
        digest: Digest::from_bytes([7; 32]),
        counter: Counter(1),
    };
    let model = ModelName::new("digits").unwrap();
    let models = vec![DesiredModel { model, release, mode: Mode::Replace, rollout: None, attempt: 0 }];
    Desired { project, device, revision: Revision(revision), issued_at: NOW, expires: later(7), models }
}

#[test]
fn desired_of_the_director_is_accepted_whole() {
    let keys = director_keys(&mut Repo::new(), &[&key(9)]);
    let (project, device) = ids();
    let bytes = desired::sign(&desired(5), &key(9)).unwrap();
    let read = desired::verify(&bytes, &keys, &project, &device, NOW, Revision(4)).unwrap();
    assert_eq!(*read, desired(5));
}

#[test]
fn the_first_attempt_is_not_written_and_a_later_one_is_read() {
    let keys = director_keys(&mut Repo::new(), &[&key(9)]);
    let (project, device) = ids();
    let first = desired::sign(&desired(5), &key(9)).unwrap();
    assert!(!String::from_utf8_lossy(&first).contains("attempt"), "older agents read what they always read");
    let mut again = desired(6);
    again.models[0].attempt = 2;
    let bytes = desired::sign(&again, &key(9)).unwrap();
    assert_eq!(*desired::verify(&bytes, &keys, &project, &device, NOW, Revision(5)).unwrap(), again);
}

#[test]
fn desired_is_refused_when_forged_replayed_expired_or_for_another_device() {
    let keys = director_keys(&mut Repo::new(), &[&key(9)]);
    let (project, device) = ids();
    let good = desired::sign(&desired(5), &key(9)).unwrap();
    let check = |bytes: &[u8], device: &DeviceId, now, floor| {
        attack(desired::verify(bytes, &keys, &project, device, now, Revision(floor)))
    };
    let forged = desired::sign(&desired(6), &key(10)).unwrap();
    assert_eq!(check(&forged, &device, NOW, 4), "A1");
    assert_eq!(check(&good, &device, NOW, 5), "V1");
    assert_eq!(check(&good, &device, later(8), 4), "F1");
    assert_eq!(check(&good, &DeviceId::new("d2").unwrap(), NOW, 4), "M2");
    assert_eq!(check(b"{}", &device, NOW, 4), "A1");
    let targets = Repo::new().files["targets.json"].clone();
    let relabelled = crate::repo::tampered(&targets, &[&key(9)], |_| {});
    assert_eq!(check(&relabelled, &device, NOW, 4), "A4");
}

#[test]
fn director_rotates_through_the_signed_target() {
    let mut repo = Repo::new();
    let (project, device) = ids();
    let old = desired::sign(&desired(5), &key(9)).unwrap();
    let new = desired::sign(&desired(6), &key(11)).unwrap();
    director_keys(&mut repo, &[&key(9)]);
    let keys = director_keys(&mut repo, &[&key(11)]);
    assert_eq!(attack(desired::verify(&old, &keys, &project, &device, NOW, Revision(1))), "A1");
    desired::verify(&new, &keys, &project, &device, NOW, Revision(1)).unwrap();
}

#[test]
fn ff2_a_revision_beyond_the_bound_is_refused_by_name() {
    let keys = director_keys(&mut Repo::new(), &[&key(9)]);
    let (project, device) = ids();
    let check = |revision: u64| {
        let bytes = desired::sign(&desired(revision), &key(9)).unwrap();
        desired::verify(&bytes, &keys, &project, &device, NOW, Revision(4))
    };
    check(1 << 53).unwrap();
    for beyond in [(1 << 53) + 1, i64::MAX.unsigned_abs(), u64::MAX] {
        let error = check(beyond).unwrap_err().cause.to_string();
        assert!(error.contains("revision") && error.contains("9007199254740992"), "{beyond}: {error}");
    }
}

#[test]
fn ff2_a_new_director_key_takes_back_the_revision_that_the_old_one_signed() {
    let mut repo = Repo::new();
    let (project, device) = ids();
    let highest = Revision::MAX;
    let stolen = desired::sign(&desired(highest.0), &key(9)).unwrap();
    let new = desired::sign(&desired(6), &key(11)).unwrap();
    let old = director_keys(&mut repo, &[&key(9)]);
    desired::verify(&stolen, &old, &project, &device, NOW, Revision(5)).unwrap();
    let signers = old.signers_of(&stolen);
    assert_eq!((signers.len(), old.floor(highest, &signers)), (1, highest));
    assert!(old.signers_of(&new).is_empty(), "a stranger's signature");

    let one_more = director_keys(&mut repo, &[&key(9), &key(11)]);
    assert_eq!(one_more.floor(highest, &signers), highest, "one more key revokes nothing");
    let keys = director_keys(&mut repo, &[&key(11)]);
    let floor = keys.floor(highest, &signers);
    assert_eq!(floor, Revision(0));
    desired::verify(&new, &keys, &project, &device, NOW, floor).unwrap();
    assert_eq!(keys.floor(Revision(6), &keys.signers_of(&new)), Revision(6), "the new key's own holds");
    assert_eq!(attack(desired::verify(&stolen, &keys, &project, &device, NOW, floor)), "A1");
}

#[test]
fn v1_replayed_or_forged_report_is_refused() {
    let (project, device) = ids();
    let (signer, thief) = (key(20), key(21));
    let public = signer.public_key();
    let report = report::sign(&project, &device, Channel::Task, 8, b"payload", &signer).unwrap();
    let check =
        |r: &_, device: &_, channel, floor| report::verify(r, &project, device, channel, &public, floor);
    assert_eq!(check(&report, &device, Channel::Task, 7).unwrap(), b"payload");
    assert_eq!(attack(check(&report, &device, Channel::Task, 8)), "V1");
    assert_eq!(attack(check(&report, &device, Channel::Hello, 7)), "A1");
    assert_eq!(attack(check(&report, &DeviceId::new("d2").unwrap(), Channel::Task, 7)), "A1");
    let forged = report::sign(&project, &device, Channel::Task, 9, b"payload", &thief).unwrap();
    assert_eq!(attack(check(&forged, &device, Channel::Task, 7)), "A1");
}

#[test]
fn delegated_role_cannot_name_a_director() {
    let mut repo = Repo::new();
    let bytes = director::target_bytes(&publics(&[&key(66)]), 1);
    let thief = publics(&[&key(4)]);
    let targets = TargetsBuilder::new(later(30)).delegate("digits", &thief, 1, &["*.json".into()]);
    repo.put_role("targets", 1, &targets.sign(&[&repo.targets]).unwrap());
    let digits = TargetsBuilder::new(later(30)).target(director::TARGET, &bytes, None);
    repo.put_role("digits", 1, &digits.sign(&[&repo.model]).unwrap());
    repo.publish(&["targets", "digits"]);
    let fetch = |path: &str| repo.files.get(path).cloned();
    let view = client::run(&mut repo.device(), &[director::TARGET], NOW, &Limits::default(), fetch).unwrap();
    let target = view.find_target(director::TARGET).unwrap().verify(bytes).unwrap();
    assert!(DirectorKeys::parse(&target).is_err());
}
