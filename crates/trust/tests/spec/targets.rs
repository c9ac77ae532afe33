//! 5.6.1 to 5.6.6: the top-level targets role; and 5.7: targets.

use serde_json::json;
use testkit::tuf::{PAST, Sim, key};
use trust::Cause;

use crate::{cause, is, refusal};

#[test]
fn targets_role_is_checked_at_every_step() {
    type Bend = fn(&mut Sim);
    let table: [(&str, &str, Bend); 5] = [
        ("5.6.2", "A5", |sim| {
            sim.publish_snapshot(|s| s["meta"]["targets.json"]["hashes"]["sha256"] = json!("00"));
        }),
        ("5.6.2", "A5", |sim| {
            sim.publish_snapshot(|s| s["meta"]["targets.json"]["length"] = json!(100_000));
        }),
        ("5.6.3", "A1", |sim| {
            sim.signers.insert("targets".into(), vec![key(99)]);
            sim.publish();
        }),
        ("5.6.4", "M1", |sim| {
            sim.lists_hashes = false;
            let old = sim.files["1.targets.json"].clone();
            sim.files.insert("2.targets.json".into(), old);
            sim.publish_snapshot(|s| s["meta"]["targets.json"]["version"] = json!(2));
        }),
        ("5.6.5", "F1", |sim| {
            sim.role("targets")["expires"] = json!(PAST);
            sim.publish();
        }),
    ];
    for (step, attack, bend) in table {
        let mut sim = Sim::new();
        bend(&mut sim);
        let mut device = sim.device();
        assert_eq!(refusal(device.refresh(&sim)), is(step, attack));
        assert_eq!(device.told, ["timestamp.json", "snapshot.json"], "{step}: what was accepted is stored");
    }
}

#[test]
fn d1_no_more_is_fetched_than_is_listed() {
    let mut sim = Sim::new();
    let length = sim.files["1.targets.json"].len();
    sim.publish_snapshot(|s| s["meta"]["targets.json"]["length"] = json!(length - 1));
    let error = sim.device().refresh(&sim).unwrap_err();
    assert!(matches!(error.cause, Cause::Length { .. } | Cause::TooLong { .. }), "{error:?}");
}

#[test]
fn stored_targets_are_not_fetched_again_unless_they_are_another_version() {
    let mut sim = Sim::new();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    sim.publish();
    device.refresh(&sim).unwrap();
    assert_eq!(device.asked, ["2.root.json", "timestamp.json", "2.snapshot.json"]);
    sim.bump_role("targets");
    sim.publish();
    device.refresh(&sim).unwrap();
    assert_eq!(device.asked.last().unwrap(), "2.targets.json");
}

#[test]
fn a7_stored_targets_are_verified_against_the_current_root() {
    let mut sim = Sim::new();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    sim.next_root(|sim| sim.replace_keys("targets", &[key(50)]));
    let error = device.refresh(&sim);
    assert_eq!(
        refusal(error),
        is("5.6.3", "A1"),
        "what the old key signed is not trusted under the new root"
    );
    sim.bump_role("targets");
    sim.publish();
    device.refresh(&sim).unwrap();
}

#[test]
fn stored_targets_that_are_damaged_are_fetched_again() {
    let sim = Sim::new();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    for damaged in [&b""[..], b"{", b"{}", &sim.files["1.snapshot.json"]] {
        device.stored.files.insert("targets.json".into(), damaged.to_vec());
        device.refresh(&sim).unwrap();
        assert_eq!(device.told, ["targets.json"]);
        assert_eq!(device.stored.files["targets.json"], sim.files["1.targets.json"]);
    }
}

#[test]
fn a5_absent_target_is_refused() {
    let mut sim = Sim::new();
    sim.add_target("targets", "there", b"x");
    sim.bump_role("targets");
    sim.publish();
    let repository = sim.device().find(&sim, &["there", "absent"]).unwrap();
    assert!(repository.find_target("there").is_ok());
    assert_eq!(refusal(repository.find_target("absent").cloned()), is("5.7.1", "A5"));
}

#[test]
fn a5_target_must_have_the_length_and_every_known_hash() {
    for algorithms in [vec!["sha256"], vec!["sha512"], vec!["sha256", "sha512"], vec!["sha512", "other"]] {
        let mut sim = Sim::new();
        sim.hashes = algorithms.clone();
        sim.lists_hashes = false;
        sim.add_target("targets", "dir/file", b"content");
        sim.bump_role("targets");
        sim.publish();
        let repository = sim.device().find(&sim, &["dir/file"]).unwrap();
        let info = repository.find_target("dir/file").unwrap();
        info.verify(b"content".to_vec()).unwrap();
        for wrong in [&b"Content"[..], b"conten", b"content!", b""] {
            assert_eq!(refusal(info.verify(wrong.to_vec())), is("5.7.3", "A5"), "{algorithms:?}");
        }
        for pieces in [&[&b"con"[..], b"tent"][..], &[b"content"], &[b"", b"content", b""]] {
            let mut check = info.check();
            pieces.iter().try_for_each(|piece| check.update(piece)).unwrap();
            check.finish().unwrap();
        }
        let served: Vec<String> = info.fetch_paths().collect();
        assert_eq!(served.len(), algorithms.len());
        assert!(served.iter().all(|path| sim.targets.contains_key(path)), "{served:?}");
    }
}

#[test]
fn d2_endless_target_stops_at_the_first_byte_too_many() {
    let mut sim = Sim::new();
    sim.add_target("targets", "file", b"content");
    sim.bump_role("targets");
    sim.publish();
    let repository = sim.device().find(&sim, &["file"]).unwrap();
    let mut check = repository.find_target("file").unwrap().check();
    check.update(b"content").unwrap();
    assert_eq!(refusal(check.update(b"x")), is("5.7.3", "D1"));
}

#[test]
fn a10_target_with_unknown_hashes_only_is_refused() {
    let mut sim = Sim::new();
    sim.lists_hashes = false;
    for hashes in [json!({}), json!({"md5": "9a0364b9e99bb480dd25e1f0284c8555"})] {
        sim.add_target("targets", "file", b"content");
        sim.role("targets")["targets"]["file"]["hashes"] = hashes;
        sim.bump_role("targets");
        sim.publish();
        let repository = sim.device().find(&sim, &["file"]).unwrap();
        let info = repository.find_target("file").unwrap();
        assert_eq!(refusal(info.verify(b"content".to_vec())), is("5.7.3", "A10"));
    }
}

#[test]
fn x5_hashed_names_stand_in_front_of_the_last_part() {
    let mut sim = Sim::new();
    for path in ["file", "a/file", "a/b/file.tar.gz", "odd name/ö?#%"] {
        sim.add_target("targets", path, path.as_bytes());
        sim.bump_role("targets");
        sim.publish();
        let repository = sim.device().find(&sim, &[path]).unwrap();
        let fetched = repository.find_target(path).unwrap().fetch_path();
        assert!(!fetched.contains([' ', '?', '#']), "{fetched}");
        let decoded = fetched.replace("%20", " ").replace("%C3%B6", "ö").replace("%3F", "?");
        let decoded = decoded.replace("%23", "#").replace("%25", "%");
        assert_eq!(sim.targets[&decoded], path.as_bytes());
    }
    sim.next_root(|sim| sim.root["consistent_snapshot"] = json!(false));
    sim.publish();
    let repository = sim.device().find(&sim, &["a/file"]).unwrap();
    assert_eq!(repository.find_target("a/file").unwrap().fetch_path(), "a/file");
}

#[test]
fn m3_a_target_that_was_not_looked_for_is_not_handed_out() {
    let sim = Sim::new();
    let repository = sim.device().refresh(&sim).unwrap();
    assert!(matches!(cause(repository.find_target("file").cloned()), Cause::TargetNotWanted));
}
