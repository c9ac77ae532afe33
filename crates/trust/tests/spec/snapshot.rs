//! 5.5: the snapshot role.

use serde_json::json;
use testkit::tuf::{PAST, Sim};
use trust::Cause;

use crate::{cause, is, refusal};

#[test]
fn lengths_and_hashes_of_metadata_may_be_left_out() {
    for consistent in [true, false] {
        let mut sim = Sim::new();
        sim.lists_hashes = false;
        sim.next_root(|sim| sim.root["consistent_snapshot"] = json!(consistent));
        sim.publish();
        let mut device = sim.device();
        device.refresh(&sim).unwrap();
        sim.bump_role("targets");
        sim.publish();
        device.refresh(&sim).unwrap();
        let version = sim.roles["targets"]["version"].clone();
        assert_eq!(device.stored.files["targets.json"], sim.files[&sim.served_name("targets", &version)]);
    }
}

#[test]
fn m1_snapshot_must_have_the_length_and_every_hash_of_the_timestamp() {
    for (field, value) in [
        ("length", json!(7)),
        ("hashes", json!({"sha256": "00"})),
        ("hashes", json!({"sha512": "00"})),
        ("hashes", json!({"md5": "00"})),
        ("hashes", json!({})),
    ] {
        let mut sim = Sim::new();
        sim.publish_timestamp(|timestamp| timestamp["meta"]["snapshot.json"][field] = value.clone());
        let mut device = sim.device();
        let error = device.refresh(&sim).unwrap_err();
        assert!(error.step.starts_with("5.5.2") || error.step == "download", "{field} {value}: {error:?}");
        assert_eq!(device.told, ["timestamp.json"], "the timestamp was accepted before");
    }
}

#[test]
fn a10_one_wrong_hash_among_right_ones_is_refused() {
    let mut sim = Sim::new();
    sim.hashes = vec!["sha256", "sha512"];
    sim.publish();
    sim.device().refresh(&sim).unwrap();
    sim.publish_timestamp(|timestamp| timestamp["meta"]["snapshot.json"]["hashes"]["sha512"] = json!("00"));
    assert!(matches!(cause(sim.device().refresh(&sim)), Cause::Hash { algorithm: "sha512", .. }));
    // A hash of an algorithm that we don't know says nothing beside one that we know.
    sim.hashes = vec!["sha256", "blake3"];
    sim.publish();
    sim.device().refresh(&sim).unwrap();
}

#[test]
fn m1_snapshot_must_have_the_version_of_the_timestamp() {
    let mut sim = Sim::new();
    sim.lists_hashes = false;
    sim.publish_timestamp(|timestamp| timestamp["meta"]["snapshot.json"]["version"] = json!(2));
    let old = sim.files["1.snapshot.json"].clone();
    sim.files.insert("2.snapshot.json".into(), old);
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.5.4", "M1"));
}

#[test]
fn a1_unsigned_snapshot_is_refused() {
    let mut sim = Sim::new();
    sim.signers.insert("snapshot".into(), vec![]);
    sim.publish();
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.5.3", "A1"));
}

#[test]
fn r2_every_listed_role_stays_listed_and_never_falls() {
    let mut sim = Sim::new();
    sim.role("targets")["version"] = json!(3);
    sim.put("targets");
    sim.publish_snapshot(|snapshot| snapshot["meta"]["team.json"] = json!({"version": 5}));
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    let fair = sim.snapshot["meta"].clone();
    for (role, bent) in [("team.json", json!(4)), ("team.json", json!(null)), ("targets.json", json!(2))] {
        sim.publish_snapshot(|snapshot| {
            snapshot["meta"] = fair.clone();
            if bent.is_null() {
                snapshot["meta"].as_object_mut().unwrap().remove(role);
            } else {
                snapshot["meta"][role] = json!({ "version": bent });
            }
        });
        let (step, attack) = refusal(device.refresh(&sim));
        assert_eq!(step, "5.5.5", "{role} {bent}");
        assert!(["R1", "R2"].contains(&attack));
        assert!(!device.told.contains(&"snapshot.json".to_owned()));
    }
    sim.publish_snapshot(|snapshot| snapshot["meta"] = fair.clone());
    device.refresh(&sim).unwrap();
}

#[test]
fn r1_stored_snapshot_guards_versions_even_when_expired_or_unlike_its_hash() {
    let mut sim = Sim::new();
    sim.role("targets")["version"] = json!(2);
    sim.put("targets");
    sim.publish_snapshot(|snapshot| snapshot["expires"] = json!("2026-11-22T00:00:00Z"));
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    // The timestamp now lists another hash for the same version, as after a repair of the repository.
    sim.snapshot["x-repaired"] = json!(true);
    sim.put("snapshot");
    sim.publish_timestamp(|_| {});
    device.refresh(&sim).unwrap();
    sim.role("targets")["version"] = json!(1);
    sim.publish();
    assert_eq!(refusal(device.refresh(&sim)), is("5.5.5", "R1"));
    device.now = device.now.plus_millis(3 * 86_400_000);
    assert_eq!(refusal(device.refresh(&sim)), is("5.5.5", "R1"));
}

#[test]
fn f1_expired_snapshot_is_not_stored() {
    let mut sim = Sim::new();
    sim.publish_snapshot(|snapshot| snapshot["expires"] = json!(PAST));
    let mut device = sim.device();
    assert_eq!(refusal(device.refresh(&sim)), is("5.5.6", "F1"));
    assert_eq!(device.told, ["timestamp.json"]);
}

#[test]
fn stored_snapshot_is_not_fetched_again_unless_it_has_expired() {
    let mut sim = Sim::new();
    sim.lists_hashes = false;
    sim.publish_snapshot(|snapshot| snapshot["expires"] = json!("2026-11-22T00:00:00Z"));
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    sim.publish_timestamp(|_| {});
    device.refresh(&sim).unwrap();
    assert_eq!(device.asked, ["2.root.json", "timestamp.json"]);
    // Signed again under the same version, which a repository without hashes may do.
    device.now = device.now.plus_millis(3 * 86_400_000);
    sim.snapshot["expires"] = json!("2027-01-01T00:00:00Z");
    sim.put("snapshot");
    device.refresh(&sim).unwrap();
    assert_eq!(device.told, ["snapshot.json"]);
}

#[test]
fn snapshot_without_targets_is_refused() {
    let mut sim = Sim::new();
    sim.publish_snapshot(|snapshot| snapshot["meta"] = json!({}));
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.5.3", "A1"));
}

#[test]
fn what_is_listed_has_a_version_above_0() {
    for version in [json!(0), json!(-1), json!("1"), json!(null)] {
        let mut sim = Sim::new();
        sim.publish_snapshot(|snapshot| snapshot["meta"]["unused.json"] = json!({ "version": version }));
        assert_eq!(refusal(sim.device().refresh(&sim)), is("5.5.3", "A1"), "{version}");
        sim.publish_snapshot(|_| {});
        sim.publish_timestamp(|timestamp| timestamp["meta"]["snapshot.json"]["version"] = version.clone());
        assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A1"), "{version}");
    }
}
