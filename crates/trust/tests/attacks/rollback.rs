//! R1, R2, FF1 and FF3: versions never fall, roles stay listed, fast-forward is recoverable and bounded.

use trust::client::Stored;
use trust::repo::{RootBuilder, TargetsBuilder, claims};

use crate::repo::{Repo, attack, key, later, publics, tampered};

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
    repo.publish_as(trust::MAX_VERSION, &["targets", "digits"], later(7), later(1));
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
fn ff3_a_role_version_beyond_the_bound_is_refused_by_name() {
    for beyond in [trust::MAX_VERSION + 1, i64::MAX.unsigned_abs() + 1, u64::MAX] {
        let mut repo = Repo::new();
        let role =
            tampered(&repo.files["digits.json"], &[&repo.model], |role| role["version"] = beyond.into());
        let error = claims(&role).unwrap_err();
        assert!(format!("{error:?}").contains("is over 9007199254740992"), "{beyond}");
        // A thief of the server's keys could list it all the same.
        let files = repo.files.clone();
        repo.tamper("1.snapshot.json", &[&key(5)], |snap| {
            snap["meta"]["digits.json"]["version"] = beyond.into();
        });
        let snapshot = repo.files["1.snapshot.json"].clone();
        repo.tamper("timestamp.json", &[&key(6)], |time| {
            time["meta"]["snapshot.json"] = serde_json::json!({ "version": 1, "length": snapshot.len() });
        });
        let mut device = repo.device();
        let error = repo.refresh(&mut device).unwrap_err();
        assert_eq!((error.role.as_str(), error.attack()), ("snapshot", "A1"));
        assert!(error.cause.to_string().contains("digits.json"), "{}", error.cause);
        repo.files = files;
        repo.refresh(&mut device).unwrap();
    }
}

#[test]
fn ff3_no_version_follows_the_highest_and_building_on_it_says_so() {
    let repo = Repo::new();
    let last = tampered(&repo.files["digits.json"], &[&repo.model], |role| {
        role["version"] = trust::MAX_VERSION.into();
    });
    let error = TargetsBuilder::resume(&last, later(30)).unwrap_err().to_string();
    assert!(error.contains("9007199254740992, the highest there is"), "{error}");
    let root = tampered(&repo.root_v1(), &[&repo.root[0], &repo.root[1]], |root| {
        root["version"] = trust::MAX_VERSION.into();
    });
    assert!(RootBuilder::resume(&root, later(30)).is_err());
    repo.refresh(&mut Stored::new(root)).unwrap();
}

#[test]
fn same_timestamp_again_is_no_error() {
    let repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    repo.refresh(&mut device).unwrap();
}
