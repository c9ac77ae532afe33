//! 5.4: the timestamp role, and 5.3.11: recovery from fast-forward.

use serde_json::json;
use testkit::tuf::{PAST, Sim, key};

use crate::{is, refusal};

#[test]
fn r1_timestamp_of_the_same_version_is_no_news_and_no_fault() {
    let mut sim = Sim::new();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    let first = sim.files["timestamp.json"].clone();
    // Same version, other content: discarded without a word.
    sim.publish_timestamp(|timestamp| timestamp["version"] = json!(1));
    sim.timestamp["x-other"] = json!(true);
    sim.put("timestamp");
    device.refresh(&sim).unwrap();
    assert_eq!(device.stored.files["timestamp.json"], first);
    assert!(device.told.is_empty());
    assert_eq!(device.asked, ["2.root.json", "timestamp.json"]);
}

#[test]
fn f1_same_version_does_not_renew_an_expired_timestamp() {
    let mut sim = Sim::new();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    sim.timestamp["expires"] = json!("2028-01-01T00:00:00Z");
    sim.put("timestamp");
    device.now = device.now.plus_millis(60 * 86_400_000);
    sim.next_root(|sim| sim.root["expires"] = json!("2028-01-01T00:00:00Z"));
    assert_eq!(refusal(device.refresh(&sim)), is("5.4.4", "F1"));
}

#[test]
fn r1_older_timestamp_is_refused_even_when_the_stored_one_has_expired() {
    let mut sim = Sim::new();
    let old = sim.files["timestamp.json"].clone();
    sim.publish_timestamp(|timestamp| timestamp["expires"] = json!("2026-11-22T00:00:00Z"));
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    device.now = device.now.plus_millis(3 * 86_400_000);
    let new = sim.files.insert("timestamp.json".into(), old).unwrap();
    assert_eq!(refusal(device.refresh(&sim)), is("5.4.3", "R1"));
    assert_eq!(device.stored.files["timestamp.json"], new);
    assert!(device.told.is_empty());
}

#[test]
fn r1_snapshot_version_in_the_timestamp_never_falls() {
    let mut sim = Sim::new();
    sim.publish();
    sim.publish();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    sim.publish_timestamp(|timestamp| timestamp["meta"]["snapshot.json"]["version"] = json!(2));
    assert_eq!(refusal(device.refresh(&sim)), is("5.4.3", "R1"));
    sim.publish_timestamp(|_| {});
    device.refresh(&sim).unwrap();
}

#[test]
fn f1_expired_timestamp_is_not_stored() {
    let mut sim = Sim::new();
    sim.publish_timestamp(|timestamp| timestamp["expires"] = json!(PAST));
    let mut device = sim.device();
    assert_eq!(refusal(device.refresh(&sim)), is("5.4.4", "F1"));
    assert!(device.told.is_empty());
    assert_eq!(device.asked, ["2.root.json", "timestamp.json"], "nothing is fetched after it");
}

#[test]
fn a1_unsigned_timestamp_is_refused() {
    let mut sim = Sim::new();
    sim.signers.insert("timestamp".into(), vec![]);
    sim.publish_timestamp(|_| {});
    let mut device = sim.device();
    assert_eq!(refusal(device.refresh(&sim)), is("5.4.2", "A1"));
    assert!(device.told.is_empty());
}

#[test]
fn timestamp_without_a_snapshot_is_refused() {
    let mut sim = Sim::new();
    sim.publish_timestamp(|timestamp| timestamp["meta"] = json!({}));
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A1"));
}

/// All versions are pushed up by an attacker who had the online keys; then the repository recovers.
fn fast_forward(recover: impl FnOnce(&mut Sim)) -> Result<(), (String, &'static str)> {
    let mut sim = Sim::new();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    let fair = (sim.timestamp.clone(), sim.snapshot.clone(), sim.roles.clone());
    sim.role("targets")["version"] = json!(9_000);
    sim.put("targets");
    sim.publish_snapshot(|snapshot| snapshot["version"] = json!(9_000));
    sim.publish_timestamp(|timestamp| timestamp["version"] = json!(9_000));
    device.refresh(&sim).unwrap();
    (sim.timestamp, sim.snapshot, sim.roles) = fair;
    recover(&mut sim);
    sim.publish();
    device.refresh(&sim).map(drop).map_err(|error| refusal::<()>(Err(error)))
}

#[test]
fn ff1_without_new_keys_the_pushed_up_versions_stay() {
    assert_eq!(fast_forward(|_| {}), Err(is("5.4.3", "R1")));
}

#[test]
fn ff1_a_new_timestamp_key_or_a_new_snapshot_key_drops_both_files() {
    for role in ["timestamp", "snapshot"] {
        let recovered = fast_forward(|sim| sim.next_root(|sim| sim.replace_keys(role, &[key(50)])));
        assert_eq!(recovered, Ok(()), "{role}");
    }
}

#[test]
fn ff1_one_more_key_revokes_nothing() {
    for role in ["timestamp", "snapshot"] {
        let result = fast_forward(|sim| sim.next_root(|sim| sim.add_key(role, key(50))));
        assert_eq!(result, Err(is("5.4.3", "R1")), "{role}");
    }
}

#[test]
fn ff1_the_same_key_under_another_id_revokes_nothing() {
    let result = fast_forward(|sim| {
        sim.next_root(|sim| {
            let listed = sim.root["roles"]["timestamp"]["keyids"][0].take();
            let id = listed.as_str().unwrap();
            sim.root["keys"]["renamed"] = sim.root["keys"][id].clone();
            sim.root["roles"]["timestamp"]["keyids"] = json!([id, "renamed"]);
        });
    });
    assert_eq!(result, Err(is("5.4.3", "R1")));
}

#[test]
fn ff1_files_are_dropped_before_the_new_root_is_kept() {
    let mut sim = Sim::new();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    sim.next_root(|sim| sim.replace_keys("snapshot", &[key(50)]));
    sim.publish();
    device.refresh(&sim).unwrap();
    assert_eq!(device.told[..3], ["-timestamp.json", "-snapshot.json", "root.json"]);
}
