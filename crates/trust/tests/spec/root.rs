//! 5.2 and 5.3: the trusted root and the chain to the newest one.

use serde_json::json;
use testkit::tuf::{PAST, Sim, key, sign};
use trust::Cause;

use crate::{cause, is, refusal};

#[test]
fn a3_each_root_of_the_chain_is_stored_in_turn() {
    let mut sim = Sim::new();
    for n in 10..14 {
        sim.next_root(|sim| sim.replace_keys("root", &[key(n)]));
    }
    let mut device = sim.device();
    assert_eq!(device.refresh(&sim).unwrap().root_version(), 5);
    assert_eq!(device.told[..4], ["root.json"; 4]);
    assert_eq!(device.stored.root, sim.files["5.root.json"]);
    assert_eq!(
        device.asked[..5],
        ["2.root.json", "3.root.json", "4.root.json", "5.root.json", "6.root.json"]
    );
}

#[test]
fn f1_only_the_last_root_must_be_current() {
    let mut sim = Sim::new();
    let far = sim.root["expires"].clone();
    sim.next_root(|sim| sim.root["expires"] = json!(PAST));
    let mut device = sim.device();
    assert_eq!(refusal(device.refresh(&sim)), is("5.3.10", "F1"));
    assert_eq!(device.stored.root, sim.files["2.root.json"], "5.3.8 comes before 5.3.10");
    assert_eq!(device.told, ["root.json"]);
    sim.next_root(|sim| sim.root["expires"] = far);
    device.refresh(&sim).unwrap();
    assert_eq!(device.stored.root, sim.files["3.root.json"]);
}

#[test]
fn f1_root_that_expires_now_has_expired() {
    let mut sim = Sim::new();
    sim.next_root(|sim| sim.root["expires"] = json!("2026-11-21T00:00:00Z"));
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.3.10", "F1"));
    sim.next_root(|sim| sim.root["expires"] = json!("2026-11-21T00:00:01Z"));
    sim.device().refresh(&sim).unwrap();
}

#[test]
fn a3_new_root_needs_both_thresholds() {
    // Old and new threshold, signatures by so many of the old and of the new keys, whether it is accepted.
    let table = [
        (1, 1, 1, 1, true),
        (1, 1, 0, 1, false),
        (1, 1, 1, 0, false),
        (2, 1, 2, 1, true),
        (2, 1, 1, 1, false),
        (1, 2, 1, 2, true),
        (1, 2, 1, 1, false),
        (3, 3, 3, 3, true),
        (3, 3, 3, 2, false),
        (3, 3, 2, 3, false),
    ];
    for (old_threshold, new_threshold, by_old, by_new, is_accepted) in table {
        let mut sim = Sim::new();
        let (old, new) = ([key(10), key(11), key(12)], [key(20), key(21), key(22)]);
        sim.replace_keys("root", &old);
        sim.root["roles"]["root"]["threshold"] = json!(old_threshold);
        sim.put_root(&[]);
        let mut device = sim.device();
        sim.next_root(|sim| {
            sim.replace_keys("root", &new);
            sim.root["roles"]["root"]["threshold"] = json!(new_threshold);
        });
        let signers = [&old[..by_old], &new[..by_new]].concat();
        sim.files.insert("2.root.json".into(), sign(&sim.root, &signers));
        let result = device.refresh(&sim).map(|repository| repository.root_version());
        let case = (old_threshold, new_threshold, by_old, by_new);
        if is_accepted {
            assert_eq!(result.unwrap(), 2, "{case:?}");
        } else {
            assert_eq!(refusal(result), is("5.3.4", "A1"), "{case:?}");
            assert!(device.told.is_empty(), "{case:?}");
        }
    }
}

#[test]
fn a3_root_of_any_other_version_is_refused() {
    for version in [1_u64, 3, 100] {
        let mut sim = Sim::new();
        sim.root["version"] = json!(version);
        let bytes = sign(&sim.root, &sim.signers["root"]);
        sim.files.insert("2.root.json".into(), bytes);
        assert_eq!(refusal(sim.device().refresh(&sim)), is("5.3.5", "A3"), "{version}");
    }
}

#[test]
fn a4_other_role_as_root_is_refused() {
    let mut sim = Sim::new();
    let as_root = sign(&sim.snapshot, &sim.signers["root"]);
    sim.files.insert("2.root.json".into(), as_root);
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.3.4", "A4"));
}

#[test]
fn whether_snapshots_are_consistent_is_said_by_the_last_root() {
    let mut sim = Sim::new();
    let mut device = sim.device();
    for is_consistent in [false, true, false] {
        sim.next_root(|sim| sim.root["consistent_snapshot"] = json!(is_consistent));
        sim.bump_role("targets");
        sim.publish();
        device.refresh(&sim).unwrap();
        let last = device.asked.last().unwrap();
        assert_eq!(last.split('.').count() == 3, is_consistent, "{last}");
    }
    sim.next_root(|sim| {
        sim.root.as_object_mut().unwrap().remove("consistent_snapshot");
    });
    sim.bump_role("targets");
    sim.publish();
    device.refresh(&sim).unwrap();
    assert_eq!(device.asked.last().unwrap(), "targets.json", "an absent field means no");
}

#[test]
fn any_1_x_of_the_specification_is_read_and_no_other() {
    for (version, is_read) in [
        ("1.0.0", true),
        ("1.0", true),
        ("1.0.999", true),
        ("1.7.3", true),
        ("2.0.0", false),
        ("0.9.9", false),
        ("1", false),
        ("1.", false),
        ("1.x.0", false),
        ("10.0.0", false),
        ("", false),
    ] {
        let mut sim = Sim::new();
        sim.next_root(|sim| sim.root["spec_version"] = json!(version));
        sim.timestamp["spec_version"] = json!("1.0.0");
        sim.publish();
        assert_eq!(sim.device().refresh(&sim).is_ok(), is_read, "{version:?}");
    }
}

#[test]
fn unknown_fields_are_signed_with_the_rest_and_stored_as_they_came() {
    let mut sim = Sim::new();
    let odd = json!({"nested": [1, {"deep": null}], "ключ": "значение\n\"\\"});
    sim.next_root(|sim| sim.root["x-odd"] = odd.clone());
    sim.timestamp["x-odd"] = odd.clone();
    sim.snapshot["x-odd"] = odd.clone();
    sim.role("targets")["x-odd"] = odd;
    sim.bump_role("targets");
    sim.publish();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    assert_eq!(device.stored.root, sim.files["2.root.json"]);
    assert_eq!(device.stored.files["timestamp.json"], sim.files["timestamp.json"]);
    assert_eq!(device.stored.files["snapshot.json"], sim.files["2.snapshot.json"]);
    assert_eq!(device.stored.files["targets.json"], sim.files["2.targets.json"]);
}

#[test]
fn root_that_lacks_a_role_or_a_field_is_refused() {
    for field in ["_type", "spec_version", "version", "expires", "keys", "roles"] {
        let mut sim = Sim::new();
        sim.next_root(|sim| {
            sim.root.as_object_mut().unwrap().remove(field);
        });
        let bytes = sim.files.remove("null.root.json").or(sim.files.get("2.root.json").cloned()).unwrap();
        sim.files.insert("2.root.json".into(), bytes);
        assert!(sim.device().refresh(&sim).is_err(), "{field}");
    }
    for role in testkit::tuf::TOP_LEVEL {
        let mut sim = Sim::new();
        sim.next_root(|sim| {
            sim.root["roles"].as_object_mut().unwrap().remove(role);
        });
        assert!(matches!(cause(sim.device().refresh(&sim)), Cause::Field(_)), "{role}");
    }
}

#[test]
fn expiry_is_written_in_one_form_only() {
    for bad in [
        "2030-01-01T00:00:00",
        "2030-01-01T00:00:00+00:00",
        "2030-01-01 00:00:00Z",
        "2030-01-01T00:00:00.0Z",
        "20300101T000000Z",
        "2030-02-30T00:00:00Z",
        "tomorrow",
    ] {
        let mut sim = Sim::new();
        sim.next_root(|sim| sim.root["expires"] = json!(bad));
        assert!(matches!(cause(sim.device().refresh(&sim)), Cause::Field(_)), "{bad}");
    }
}

#[test]
fn x3_first_root_must_be_signed_by_its_own_keys() {
    let mut sim = Sim::new();
    sim.files.insert("1.root.json".into(), sign(&sim.root, &[key(99)]));
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.2", "X3"));
}
