//! Keys and thresholds, in root and in delegations.

use serde_json::{Value, json};
use testkit::tuf::{Key, Sim, ecdsa_key, id_of, key, public, sign};
use trust::Cause;

use crate::{cause, is, refusal};

/// A repository whose timestamp has these keys and threshold, signed by these.
fn with_timestamp_keys(keys: &[Key], threshold: u64, signed_by: &[Key]) -> Sim {
    let mut sim = Sim::new();
    sim.next_root(|sim| {
        sim.replace_keys("timestamp", keys);
        sim.root["roles"]["timestamp"]["threshold"] = json!(threshold);
    });
    sim.signers.insert("timestamp".into(), signed_by.to_vec());
    sim.publish_timestamp(|_| {});
    sim
}

#[test]
fn ecdsa_and_ed25519_sign_side_by_side() {
    let keys = [ecdsa_key(), key(40), ecdsa_key()];
    let sim = with_timestamp_keys(&keys, 3, &keys);
    sim.device().refresh(&sim).unwrap();
    let sim = with_timestamp_keys(&keys, 3, &keys[..2]);
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A1"));
    for n in 0..3 {
        let mut signers = keys.to_vec();
        signers[n] = ecdsa_key();
        let sim = with_timestamp_keys(&keys, 3, &signers);
        assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A1"), "{n}");
    }
}

#[test]
fn a2_threshold_counts_keys_and_not_signatures() {
    let (a, b, c) = (key(40), key(41), key(42));
    let table: [(&[&Key], u64, &[&Key], bool); 6] = [
        (&[&a, &b, &c], 2, &[&a, &b], true),
        (&[&a, &b, &c], 2, &[&a, &a], false),
        (&[&a, &b, &c], 2, &[&b, &c, &a], true),
        (&[&a, &b, &c], 3, &[&a, &b], false),
        (&[&a, &b], 3, &[&a, &b], false),
        (&[&a, &b], 1, &[&c], false),
    ];
    for (keys, threshold, signers, is_enough) in table {
        let owned = |keys: &[&Key]| keys.iter().map(|key| (*key).clone()).collect::<Vec<_>>();
        let sim = with_timestamp_keys(&owned(keys), threshold, &owned(signers));
        assert_eq!(sim.device().refresh(&sim).is_ok(), is_enough, "{threshold} {}", signers.len());
    }
}

/// 4.2: the ids in the list of signatures are unique; a list that repeats one is refused, however many signed.
#[test]
fn a2_an_id_that_is_listed_twice_among_the_signatures_is_refused() {
    let (a, b) = (key(40), key(41));
    for threshold in [1, 2] {
        let sim = with_timestamp_keys(&[a.clone(), b.clone()], threshold, &[a.clone(), b.clone(), a.clone()]);
        assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A2"));
    }
    for (role, step) in [("snapshot", "5.5.3"), ("targets", "5.6.3")] {
        let mut sim = Sim::new();
        let signer = sim.signers[role][0].clone();
        sim.signers.insert(role.into(), vec![signer.clone(), signer]);
        sim.bump_role("targets");
        sim.publish();
        assert_eq!(refusal(sim.device().refresh(&sim)), is(step, "A2"));
    }
}

/// 4.3: one key for each id. How an id was made a client can't know, see `key_ids_are_names_that_need_not_be_hashes`.
#[test]
fn ids_of_one_file_name_one_key_each() {
    let mut sim = Sim::new();
    sim.next_root(|_| {});
    let text = String::from_utf8(sim.files["2.root.json"].clone()).unwrap();
    let id = id_of(&key(2));
    let entry = format!("\"keys\": {{\n      \"{id}\": {},", public(&key(66)));
    let twice = text.replacen("\"keys\": {", &entry, 1);
    assert_ne!(twice, text);
    sim.files.insert("2.root.json".into(), twice.into_bytes());
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.3.3", "D6"));
}

#[test]
fn a2_two_ids_of_one_key_are_one_key() {
    for signer in [key(40), ecdsa_key()] {
        let mut sim = Sim::new();
        sim.next_root(|sim| {
            sim.replace_keys("timestamp", std::slice::from_ref(&signer));
            sim.root["keys"]["alias"] = public(&signer);
            sim.root["roles"]["timestamp"] = json!({"keyids": [id_of(&signer), "alias"], "threshold": 2});
        });
        sim.publish_timestamp(|_| {});
        let mut envelope: Value = serde_json::from_slice(&sim.files["timestamp.json"]).unwrap();
        let mut second = envelope["signatures"][0].clone();
        second["keyid"] = json!("alias");
        envelope["signatures"].as_array_mut().unwrap().push(second);
        sim.files.insert("timestamp.json".into(), serde_json::to_vec(&envelope).unwrap());
        assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A1"));
    }
}

#[test]
fn key_ids_are_names_that_need_not_be_hashes() {
    let mut sim = Sim::new();
    let signer = key(40);
    sim.next_root(|sim| {
        sim.replace_keys("timestamp", std::slice::from_ref(&signer));
        sim.root["keys"]["the key of the timestamp"] = public(&signer);
        sim.root["roles"]["timestamp"]["keyids"] = json!(["the key of the timestamp"]);
    });
    sim.publish_timestamp(|_| {});
    let bytes = String::from_utf8(sim.files["timestamp.json"].clone()).unwrap();
    let renamed = bytes.replace(&id_of(&signer), "the key of the timestamp");
    sim.files.insert("timestamp.json".into(), renamed.into_bytes());
    sim.device().refresh(&sim).unwrap();
}

#[test]
fn a10_unknown_keys_in_root_are_no_fault_and_never_count() {
    let odd = [
        json!({"keytype": "future", "scheme": "future-1", "keyval": {"public": "00"}}),
        json!({"keytype": "ed25519", "scheme": "ed25519ph", "keyval": {"public": "00"}}),
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "not hex"}}),
        json!({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp384", "keyval": {"public": "pem"}}),
        json!({"keytype": "sigstore-oidc", "scheme": "Fulcio", "keyval": {"identity": "x", "issuer": "y"}}),
        json!({"keytype": "x", "scheme": "y", "keyval": {}, "keyid_hash_algorithms": ["sha256"], "z": [1]}),
    ];
    for odd in odd {
        let mut sim = Sim::new();
        sim.next_root(|sim| {
            sim.root["keys"]["odd"] = odd.clone();
            sim.root["roles"]["timestamp"]["keyids"].as_array_mut().unwrap().push(json!("odd"));
        });
        sim.publish_timestamp(|_| {});
        sim.device().refresh(&sim).unwrap();
        sim.next_root(|sim| sim.root["roles"]["timestamp"]["threshold"] = json!(2));
        let mut envelope: Value = serde_json::from_slice(&sim.files["timestamp.json"]).unwrap();
        envelope["signatures"].as_array_mut().unwrap().push(json!({"keyid": "odd", "sig": "00"}));
        sim.files.insert("timestamp.json".into(), serde_json::to_vec(&envelope).unwrap());
        assert!(matches!(cause(sim.device().refresh(&sim)), Cause::Threshold { valid: 1, .. }), "{odd}");
    }
}

#[test]
fn a10_a_key_signs_only_by_the_scheme_that_root_names() {
    let mut sim = Sim::new();
    let signer = key(40);
    sim.next_root(|sim| {
        sim.replace_keys("timestamp", std::slice::from_ref(&signer));
        sim.root["keys"][id_of(&signer)]["scheme"] = json!("ecdsa-sha2-nistp256");
    });
    sim.publish_timestamp(|_| {});
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A1"));
}

#[test]
fn keys_that_are_listed_but_not_there_never_count() {
    let mut sim = Sim::new();
    sim.next_root(|sim| sim.root["roles"]["timestamp"]["keyids"] = json!(["gone"]));
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A1"));
}

#[test]
fn a1_a_key_of_another_role_is_none_of_this_role() {
    let mut sim = Sim::new();
    sim.signers.insert("timestamp".into(), vec![key(1), key(3), key(4)]);
    sim.publish_timestamp(|_| {});
    assert_eq!(refusal(sim.device().refresh(&sim)), is("5.4.2", "A1"));
}

#[test]
fn signatures_of_strangers_and_broken_ones_do_no_harm() {
    let mut sim = Sim::new();
    sim.publish();
    for file in ["timestamp.json", "2.snapshot.json", "1.targets.json"] {
        let mut envelope: Value = serde_json::from_slice(&sim.files[file]).unwrap();
        let list = envelope["signatures"].as_array_mut().unwrap();
        list.insert(0, json!({"keyid": "stranger", "sig": "00ff", "method": "none"}));
        list.insert(0, json!({"keyid": "other stranger", "sig": ""}));
        list.push(json!({"keyid": "third stranger", "sig": "not hex"}));
        sim.files.insert(file.into(), serde_json::to_vec(&envelope).unwrap());
    }
    sim.lists_hashes = false;
    sim.publish_timestamp(|_| {});
    sim.publish_snapshot(|_| {});
    sim.device().refresh(&sim).unwrap();
}

#[test]
fn k1_keys_below_the_threshold_of_the_old_root_sign_no_new_one() {
    let mut sim = Sim::new();
    let old = [key(10), key(11), key(12)];
    sim.replace_keys("root", &old);
    sim.root["roles"]["root"]["threshold"] = json!(2);
    sim.put_root(&[]);
    let mut device = sim.device();
    sim.next_root(|sim| {
        sim.replace_keys("root", &[key(66)]);
        sim.root["roles"]["root"]["threshold"] = json!(1);
    });
    sim.files.insert("2.root.json".into(), sign(&sim.root, &[old[0].clone(), key(66)]));
    assert_eq!(refusal(device.refresh(&sim)), is("5.3.4", "A1"));
}

#[test]
fn k3_a_revoked_online_key_signs_nothing_any_more() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut sim = Sim::new();
        let mut device = sim.device();
        device.refresh(&sim).unwrap();
        let stolen = sim.signers[role].clone();
        sim.next_root(|sim| sim.replace_keys(role, &[key(50)]));
        let fresh = sim.signers.insert(role.into(), stolen).unwrap();
        sim.bump_role("targets");
        sim.publish();
        assert_eq!(refusal(device.refresh(&sim)).1, "A1", "{role}");
        sim.signers.insert(role.into(), fresh);
        sim.publish();
        device.refresh(&sim).unwrap();
    }
}
