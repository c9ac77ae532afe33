//! Names that would mean something to a shell, a file system or an address: of roles, of targets, of keys.

use serde_json::{Value, json};
use testkit::tuf::{Sim, id_of, key, public, sign};

use crate::client::{Client, FAR, is_done, is_refused, served};

const ODD: [&str; 14] = [
    "..",
    ".",
    "../../etc/passwd",
    "/absolute",
    "a/b",
    "a//b",
    "a b",
    "t\u{eb}am",
    "%2e%2e%2fx",
    "a?b#c",
    "a&b=c;d",
    "-x",
    "CON",
    "1.snapshot",
];

fn delegate(sim: &mut Sim, name: &str, pattern: &str) {
    sim.delegate("targets", name, &key(40), &[pattern]);
    sim.role(name)["expires"] = json!(FAR);
}

#[test]
fn a8_a_role_may_have_any_name_and_its_file_stays_in_the_folder() {
    for name in ODD {
        for is_consistent in [true, false] {
            let served = served(|sim| {
                sim.next_root(|sim| sim.root["consistent_snapshot"] = json!(is_consistent));
                delegate(sim, name, "file");
                sim.add_target(name, "file", b"content");
            });
            let client = Client::begin(&served);
            is_done(&client.download(&["file"]));
            assert_eq!(client.stored().len(), 5, "{name}: all files in the folder itself");
            assert_eq!(std::fs::read_dir(client.folder.path()).unwrap().count(), 3, "{name}");
            served.asked();
            is_done(&client.download(&["file"]));
            let file = format!("{name}.json");
            assert!(!served.asked().iter().any(|path| path.ends_with(&file)), "{name}: it is stored");
        }
    }
}

#[test]
fn a8_a_target_may_have_any_path_and_its_file_stays_in_the_folder() {
    for path in ODD {
        for is_consistent in [true, false] {
            let served = served(|sim| {
                sim.next_root(|sim| sim.root["consistent_snapshot"] = json!(is_consistent));
                sim.add_target("targets", path, b"content");
            });
            let client = Client::begin(&served);
            is_done(&client.download(&[path]));
            let targets = client.targets();
            assert_eq!(targets.values().collect::<Vec<_>>(), [b"content"], "{path}");
            assert_eq!(std::fs::read_dir(client.folder.path()).unwrap().count(), 3, "{path}");
            served.asked();
            is_done(&client.download(&[path, path]));
            assert!(!served.asked().iter().any(|asked| asked.starts_with("/targets")), "{path}");
        }
    }
}

#[test]
fn x5_the_hash_stands_before_the_last_part_of_a_target_in_folders() {
    let served = served(|sim| sim.add_target("targets", "one/two/file.txt", b"content"));
    let client = Client::begin(&served);
    is_done(&client.download(&["one/two/file.txt"]));
    let asked = served.asked().pop().unwrap();
    assert!(asked.starts_with("/targets/one/two/") && asked.ends_with(".file.txt"), "{asked}");
    assert_eq!(client.targets()["one%2Ftwo%2Ffile.txt"], b"content");
}

/// Root and timestamp in which the timestamp's key goes by `ids`, and the timestamp signed under each of them.
fn rename_keys(sim: &mut Sim, ids: &[&str], threshold: usize) {
    let signer = key(2);
    sim.next_root(|sim| {
        let keys = sim.root["keys"].as_object_mut().unwrap();
        keys.remove(&id_of(&signer));
        keys.extend(ids.iter().map(|id| ((*id).to_owned(), public(&signer))));
        sim.root["roles"]["timestamp"] = json!({"keyids": ids, "threshold": threshold});
    });
}

/// The timestamp as served, its one signature repeated under each of these ids.
fn sign_under(sim: &mut Sim, ids: &[&str]) {
    let mut envelope: Value = serde_json::from_slice(&sign(&sim.timestamp, &[key(2)])).unwrap();
    let signature = envelope["signatures"][0]["sig"].clone();
    envelope["signatures"] = ids.iter().map(|id| json!({"keyid": id, "sig": signature})).collect();
    sim.files.insert("timestamp.json".into(), envelope.to_string().into_bytes());
}

#[test]
fn a_key_id_is_a_name_and_need_not_be_a_hash() {
    for id in ["x", "not hex", "k\u{e9}y", "../..", "0123", &"f".repeat(64), ""] {
        let served = served(|sim| rename_keys(sim, &[id], 1));
        sign_under(&mut served.sim(), &[id]);
        is_done(&Client::begin(&served).refresh());
    }
}

#[test]
fn a2_one_key_meets_no_threshold_of_two_however_it_is_listed_or_signs() {
    for (listed, signed) in [
        (vec!["one", "two"], vec!["one", "two"]),
        (vec!["one"], vec!["one", "one"]),
        (vec!["one", "two"], vec!["one", "one", "one"]),
    ] {
        let served = served(|sim| rename_keys(sim, &listed, 2));
        sign_under(&mut served.sim(), &signed);
        is_refused(&Client::begin(&served).refresh(), "5.4.2");
    }
}
