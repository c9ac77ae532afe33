//! A1 to A4 and A10: signatures, thresholds, roots, types.

use serde_json::json;
use trust::repo::add_signature;
use trust::{Cause, Signer};

use crate::repo::{MANIFEST, Repo, attack, key, later, publics, tampered};

#[test]
fn a1_unsigned_or_wrongly_signed_metadata_is_refused_in_every_role() {
    let thief = key(99);
    for path in ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.digits.json"] {
        for signers in [vec![], vec![&thief]] {
            let mut repo = Repo::new();
            repo.tamper(path, &signers, |signed| signed["expires"] = json!("2030-01-01T00:00:00Z"));
            // Even a server that knows the new hashes gets nowhere: its own chain is made to match.
            match path {
                "1.targets.json" | "1.digits.json" => {
                    let role = path.trim_start_matches("1.").trim_end_matches(".json").to_owned();
                    let bytes = repo.files[path].clone();
                    repo.put_role(&role, 1, &bytes);
                    repo.publish_as(1, &["targets", "digits"], later(7), later(1));
                }
                "1.snapshot.json" => {
                    let snapshot = repo.files[path].clone();
                    let time =
                        trust::repo::timestamp(1, later(1), &snapshot, crate::repo::NOW, &[&repo.timestamp]);
                    repo.files.insert("timestamp.json".into(), time.unwrap());
                }
                _ => {}
            }
            let mut device = repo.device();
            let error = repo.refresh(&mut device).unwrap_err();
            assert!(matches!(error.cause, Cause::Threshold { .. }), "{path}: {error:?}");
            Repo::new().refresh(&mut device).unwrap();
        }
    }
}

#[test]
fn a2_one_key_signing_twice_counts_once() {
    let repo = Repo::new();
    let mut bytes: serde_json::Value = serde_json::from_slice(&repo.files["1.root.json"]).unwrap();
    let first = bytes["signatures"][0].clone();
    bytes["signatures"] = json!([first, first]);
    let mut device = trust::Stored::new(serde_json::to_vec(&bytes).unwrap());
    assert_eq!(attack(repo.refresh(&mut device)), "X3", "one of two root keys is not enough");
}

#[test]
fn a2_a_key_id_twice_among_the_signatures_is_refused_even_when_one_is_enough() {
    let mut repo = Repo::new();
    let good = repo.files["timestamp.json"].clone();
    let mut envelope: serde_json::Value = serde_json::from_slice(&good).unwrap();
    let list = envelope["signatures"].as_array_mut().unwrap();
    list.push(json!({"keyid": list[0]["keyid"], "sig": ""}));
    repo.files.insert("timestamp.json".into(), serde_json::to_vec(&envelope).unwrap());
    let mut device = repo.device();
    assert_eq!(attack(repo.refresh(&mut device)), "A2");
    repo.files.insert("timestamp.json".into(), good);
    repo.refresh(&mut device).unwrap();
}

#[test]
fn a2_one_key_under_two_ids_counts_once() {
    let repo = Repo::new();
    let thief = &repo.root[0];
    let public = serde_json::to_value(thief.public_key()).unwrap();
    let root = tampered(&repo.files["1.root.json"], &[], |signed| {
        signed["keys"]["alias"] = public.clone();
        signed["roles"]["root"]["keyids"] = json!([thief.public_key().id(), "alias"]);
    });
    let root = tampered(&root, &[thief], |_| {});
    let mut envelope: serde_json::Value = serde_json::from_slice(&root).unwrap();
    let mut alias = envelope["signatures"][0].clone();
    alias["keyid"] = json!("alias");
    envelope["signatures"].as_array_mut().unwrap().push(alias);
    let mut device = trust::Stored::new(serde_json::to_vec(&envelope).unwrap());
    assert_eq!(attack(repo.refresh(&mut device)), "X3");
}

#[test]
fn a2_bad_signature_beside_enough_good_ones_is_fine() {
    let mut repo = Repo::new();
    let mut bytes: serde_json::Value = serde_json::from_slice(&repo.files["timestamp.json"]).unwrap();
    let list = bytes["signatures"].as_array_mut().unwrap();
    list.insert(0, json!({"keyid": key(50).public_key().id(), "sig": "zz"}));
    repo.files.insert("timestamp.json".into(), serde_json::to_vec(&bytes).unwrap());
    repo.refresh(&mut repo.device()).unwrap();
}

#[test]
fn a2_key_id_listed_twice_in_a_role_is_refused() {
    let repo = Repo::new();
    let id = repo.root[0].public_key().id();
    let root = tampered(&repo.files["1.root.json"], &[&repo.root[0], &repo.root[1]], |signed| {
        signed["roles"]["root"]["keyids"] = json!([id, id]);
    });
    assert_eq!(attack(repo.refresh(&mut trust::Stored::new(root))), "X3");
}

#[test]
fn a3_next_root_needs_the_old_and_the_new_threshold() {
    let mut repo = Repo::new();
    let (thief_a, thief_b) = (key(60), key(61));
    let stolen = repo.next_root().role("root", &publics(&[&thief_a, &thief_b]), 2);
    // Not signed by the trusted keys; signed by them but not by the new ones; by one of two old ones.
    let attempts: [&[&dyn Signer]; 3] = [
        &[&thief_a, &thief_b],
        &[&repo.root[0], &repo.root[1], &thief_a],
        &[&repo.root[0], &thief_a, &thief_b],
    ];
    let made: Vec<_> = attempts.iter().map(|signers| stolen.sign(signers).unwrap()).collect();
    let mut device = repo.device();
    for bytes in made {
        repo.files.insert("2.root.json".into(), bytes);
        assert_eq!(attack(repo.refresh(&mut device)), "A1");
        assert_eq!(device.root, repo.files["1.root.json"]);
    }
    let good = stolen.sign(&[&repo.root[0], &repo.root[1], &thief_a]).unwrap();
    repo.files.insert("2.root.json".into(), add_signature(&good, &thief_b).unwrap());
    repo.refresh(&mut device).unwrap();
    assert_eq!(device.root, repo.files["2.root.json"]);
}

#[test]
fn a3_next_root_is_exactly_the_next_version() {
    let mut repo = Repo::new();
    let signers = [key(1), key(2)];
    for version in [1, 3, 7] {
        repo.files.insert("2.root.json".into(), repo.next_root().sign(&[&signers[0], &signers[1]]).unwrap());
        repo.tamper("2.root.json", &[&signers[0], &signers[1]], |signed| signed["version"] = json!(version));
        let error = repo.refresh(&mut repo.device()).unwrap_err();
        assert!(matches!(error.cause, Cause::WrongVersion { expected: 2, .. }), "{error:?}");
    }
}

#[test]
fn a4_file_of_another_role_is_refused() {
    let mut repo = Repo::new();
    // One key for both roles, so that only the type tells the files apart.
    repo.timestamp = key(5);
    repo.files.insert("1.root.json".into(), repo.root_v1());
    repo.files.insert("timestamp.json".into(), repo.files["1.snapshot.json"].clone());
    assert_eq!(attack(repo.refresh(&mut repo.device())), "A4");
}

#[test]
fn a10_unknown_key_scheme_never_counts() {
    let mut repo = Repo::new();
    let keys = [key(1), key(2)];
    let id = repo.timestamp.public_key().id();
    repo.tamper("1.root.json", &[&keys[0], &keys[1]], |signed| {
        signed["keys"][id.as_str()]["scheme"] = json!("ed25519-nocheck");
    });
    let error = repo.refresh(&mut repo.device()).unwrap_err();
    assert!(
        matches!(&error.cause, Cause::Threshold { reasons, .. } if reasons.contains("unknown key type")),
        "{error:?}"
    );
}

#[test]
fn threshold_zero_and_missing_roles_are_refused() {
    let keys = [key(1), key(2)];
    let repo = Repo::new();
    for change in [json!(0), json!(-1), json!(null)] {
        let root = tampered(&repo.files["1.root.json"], &[&keys[0], &keys[1]], |signed| {
            signed["roles"]["timestamp"]["threshold"] = change;
        });
        assert_eq!(attack(repo.refresh(&mut trust::Stored::new(root))), "X3");
    }
    let root = tampered(&repo.files["1.root.json"], &[&keys[0], &keys[1]], |signed| {
        signed["roles"].as_object_mut().unwrap().remove("snapshot");
    });
    assert_eq!(attack(repo.refresh(&mut trust::Stored::new(root))), "X3");
}

#[test]
fn k1_fewer_than_threshold_stolen_root_keys_change_nothing() {
    let mut repo = Repo::new();
    let thief = key(70);
    let forged =
        repo.next_root().role("targets", &publics(&[&thief]), 1).sign(&[&repo.root[0], &thief]).unwrap();
    repo.files.insert("2.root.json".into(), forged);
    let mut device = repo.device();
    assert_eq!(attack(repo.refresh(&mut device)), "A1");
    repo.files.remove("2.root.json");
    assert!(repo.refresh(&mut device).unwrap().find_target(MANIFEST).is_ok());
}

#[test]
fn k3_revoked_key_is_not_believed_any_more() {
    let mut repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    let fresh = key(80);
    let next = repo.next_root().role("targets", &publics(&[&fresh]), 1);
    repo.files.insert("2.root.json".into(), next.sign(&[&repo.root[0], &repo.root[1]]).unwrap());
    // The old targets file is cached and unchanged in the snapshot, but its key is revoked.
    assert_eq!(attack(repo.refresh(&mut device)), "A1");
    let resigned = tampered(&repo.files["targets.json"], &[&fresh], |signed| signed["version"] = json!(2));
    repo.put_role("targets", 2, &resigned);
    repo.publish(&["targets", "digits"]);
    repo.refresh(&mut device).unwrap();
}
