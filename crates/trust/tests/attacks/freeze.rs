//! F1: expired metadata is refused in every role, against the time that the caller fixed.

use trust::repo::TargetsBuilder;

use crate::repo::{MANIFEST, Repo, attack, later, publics};

#[test]
fn f1_expired_timestamp_or_snapshot_is_refused() {
    let mut repo = Repo::new();
    assert_eq!(attack(repo.refresh_at(&mut repo.device(), later(2))), "F1");
    repo.publish_as(2, &["targets", "digits"], later(1), later(5));
    assert_eq!(attack(repo.refresh_at(&mut repo.device(), later(2))), "F1");
    let mut device = repo.device();
    repo.publish_as(3, &["targets", "digits"], later(9), later(9));
    repo.refresh_at(&mut device, later(2)).unwrap();
}

#[test]
fn f1_expired_root_is_refused_but_a_newer_one_heals() {
    let mut repo = Repo::new();
    repo.publish_as(2, &["targets", "digits"], later(999), later(999));
    let mut device = repo.device();
    assert_eq!(attack(repo.refresh_at(&mut device, later(400))), "F1");
    let next = trust::repo::RootBuilder::resume(&repo.files["1.root.json"], later(800)).unwrap();
    repo.files.insert("2.root.json".into(), next.sign(&[&repo.root[0], &repo.root[1]]).unwrap());
    let digits = TargetsBuilder::resume(&repo.files["digits.json"], later(800)).unwrap();
    repo.put_role("digits", 2, &digits.sign(&[&repo.model]).unwrap());
    let targets = TargetsBuilder::resume(&repo.files["targets.json"], later(800)).unwrap();
    repo.put_role("targets", 2, &targets.sign(&[&repo.targets]).unwrap());
    repo.publish_as(3, &["targets", "digits"], later(999), later(999));
    repo.refresh_at(&mut device, later(400)).unwrap();
}

#[test]
fn f1_expired_targets_and_delegated_roles_are_refused() {
    for role in ["targets", "digits"] {
        let mut repo = Repo::new();
        let old = later(-1);
        let bytes = match role {
            "targets" => TargetsBuilder::new(old)
                .delegate("digits", &publics(&[&repo.model]), 1, &["models/digits/*/manifest.json".into()])
                .sign(&[&repo.targets]),
            _ => TargetsBuilder::new(old).target(MANIFEST, b"x", None).sign(&[&repo.model]),
        };
        repo.put_role(role, 1, &bytes.unwrap());
        repo.publish(&["targets", "digits"]);
        assert_eq!(attack(repo.refresh(&mut repo.device())), "F1", "{role}");
    }
}
