//! R1, R2 and FF1: versions never fall, roles stay listed, fast-forward is recoverable.

use trust::repo::TargetsBuilder;

use crate::repo::{Repo, attack, key, later, publics};

#[test]
fn r1_older_timestamp_is_refused() {
    let mut repo = Repo::new();
    let old = repo.files["timestamp.json"].clone();
    repo.publish(&["targets", "digits"]);
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    let new = repo.files.insert("timestamp.json".into(), old).unwrap();
    assert_eq!(attack(repo.refresh(&mut device)), "R1");
    repo.files.insert("timestamp.json".into(), new);
    repo.refresh(&mut device).unwrap();
}

#[test]
fn r1_newer_timestamp_with_older_snapshot_is_refused() {
    let mut repo = Repo::new();
    repo.publish(&["targets", "digits"]);
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    let old = repo.files["1.snapshot.json"].clone();
    let time = trust::repo::timestamp(3, later(1), &old, crate::repo::NOW, &[&repo.timestamp]).unwrap();
    repo.files.insert("timestamp.json".into(), time);
    assert_eq!(attack(repo.refresh(&mut device)), "R1");
}

#[test]
fn r1_older_targets_in_a_newer_snapshot_is_refused() {
    let mut repo = Repo::new();
    let old = repo.files["targets.json"].clone();
    let next = TargetsBuilder::resume(&old, later(30)).unwrap().sign(&[&repo.targets]).unwrap();
    repo.put_role("targets", 2, &next);
    repo.publish(&["targets", "digits"]);
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    repo.put_role("targets", 1, &old);
    repo.publish(&["targets", "digits"]);
    assert_eq!(attack(repo.refresh(&mut device)), "R1");
    repo.put_role("targets", 2, &next);
    repo.publish(&["targets", "digits"]);
    repo.refresh(&mut device).unwrap();
}

#[test]
fn r2_role_removed_from_the_snapshot_is_refused() {
    let mut repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    repo.publish(&["targets"]);
    assert_eq!(attack(repo.refresh(&mut device)), "R2");
    repo.publish(&["targets", "digits"]);
    repo.refresh(&mut device).unwrap();
}

#[test]
fn ff1_fast_forwarded_timestamp_and_snapshot_are_dropped_after_key_rotation() {
    let mut repo = Repo::new();
    repo.publish_as(u64::MAX - 1, &["targets", "digits"], later(7), later(1));
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    repo.publish(&["targets", "digits"]);
    assert_eq!(attack(repo.refresh(&mut device)), "R1", "the attacker has used up the versions");
    repo.snapshot = key(15);
    repo.timestamp = key(16);
    let next = repo.next_root().role("snapshot", &publics(&[&repo.snapshot]), 1).role(
        "timestamp",
        &publics(&[&repo.timestamp]),
        1,
    );
    repo.files.insert("2.root.json".into(), next.sign(&[&repo.root[0], &repo.root[1]]).unwrap());
    repo.publish(&["targets", "digits"]);
    assert_eq!(repo.refresh(&mut device).unwrap().timestamp_version(), 3);
}

#[test]
fn same_timestamp_again_is_no_error() {
    let repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    repo.refresh(&mut device).unwrap();
}
