//! Command line, exit codes and folders.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use testkit::tuf::{PAST, key};

use crate::client::{Client, is_done, is_refused, served};

#[test]
fn refresh_stores_each_role_byte_for_byte_under_its_plain_name() {
    let served = served(|sim| sim.next_root(|sim| sim.add_key("root", key(9))));
    let client = Client::begin(&served);
    is_done(&client.refresh());
    let stored = client.stored();
    assert_eq!(
        stored.keys().collect::<Vec<_>>(),
        ["root.json", "snapshot.json", "targets.json", "timestamp.json"]
    );
    let sim = served.sim();
    assert_eq!(stored["root.json"], sim.files["2.root.json"]);
    assert_eq!(stored["timestamp.json"], sim.files["timestamp.json"]);
    assert_eq!(stored["snapshot.json"], sim.files["2.snapshot.json"]);
}

#[test]
fn what_was_accepted_before_a_refusal_is_stored() {
    let served = served(|sim| sim.role("targets")["expires"] = json!(PAST));
    let client = Client::begin(&served);
    is_refused(&client.refresh(), "5.6.5");
    assert_eq!(
        client.stored().into_keys().collect::<Vec<_>>(),
        ["root.json", "snapshot.json", "timestamp.json"]
    );
}

#[test]
fn targets_come_in_order_and_are_not_fetched_twice() {
    let served = served(|sim| {
        sim.delegate("targets", "../tëam", &key(40), &["team/*"]);
        sim.role("../tëam")["expires"] = json!("2999-01-01T00:00:00Z");
        sim.add_target("../tëam", "team/a b?c", b"first");
        sim.add_target("targets", "plain", b"second");
    });
    let client = Client::begin(&served);
    is_done(&client.download(&["team/a b?c", "plain", "team/a b?c"]));
    let expected = [("plain", b"second".to_vec()), ("team%2Fa%20b%3Fc", b"first".to_vec())];
    assert_eq!(client.targets(), expected.map(|(name, content)| (name.to_owned(), content)).into());
    assert_eq!(client.stored()["..%2Ft%C3%ABam.json"], served.sim().files["1.../tëam.json"]);
    let fetched = |asked: Vec<String>| asked.into_iter().filter(|path| path.starts_with("/targets/")).count();
    assert_eq!(fetched(served.asked()), 2);
    is_done(&client.download(&["plain"]));
    assert_eq!(fetched(served.asked()), 0);
    fs::write(client.path("targets/plain"), b"damaged").unwrap();
    is_done(&client.download(&["plain"]));
    assert_eq!(client.targets()["plain"], b"second");
}

#[test]
fn a_refused_target_leaves_nothing_and_ends_the_run() {
    let served = served(|sim| {
        for name in ["one", "two", "three"] {
            sim.add_target("targets", name, name.as_bytes());
        }
        let swapped = sim.targets.keys().find(|path| path.contains(".two")).unwrap().clone();
        sim.targets.insert(swapped, b"tw0".to_vec());
    });
    let client = Client::begin(&served);
    is_refused(&client.download(&["one", "two", "three"]), "5.7.3");
    assert_eq!(client.targets().into_keys().collect::<Vec<_>>(), ["one"]);
    is_refused(&client.download(&["absent"]), "5.7.1");
    is_done(&client.download(&["three"]));
}

#[test]
fn d2_endless_target_is_cut_off() {
    let served = served(|sim| {
        sim.add_target("targets", "file", b"content");
        let path = sim.targets.keys().next().unwrap().clone();
        sim.targets.insert(path, vec![b'x'; 5_000_000]);
    });
    let client = Client::begin(&served);
    is_refused(&client.download(&["file"]), "longer than 7 bytes");
    assert!(client.targets().is_empty());
}

#[test]
fn d1_endless_metadata_is_cut_off() {
    let served = served(|_| {});
    served.sim().files.insert("timestamp.json".into(), vec![b' '; 50_000_000]);
    is_refused(&Client::begin(&served).refresh(), "longer than 16384 bytes");
}

#[test]
fn a_repository_without_consistent_snapshots_can_be_used() {
    let served = served(|sim| {
        sim.next_root(|sim| sim.root["consistent_snapshot"] = json!(false));
        sim.add_target("targets", "dir/file", b"content");
    });
    let client = Client::begin(&served);
    is_done(&client.download(&["dir/file"]));
    assert_eq!(client.targets()["dir%2Ffile"], b"content");
}

#[test]
fn a_target_offered_under_one_of_its_hashes_only_is_found() {
    let served = served(|sim| {
        sim.hashes = vec!["sha256", "sha512"];
        sim.add_target("targets", "file", b"content");
        sim.targets.retain(|path, _| path.len() > 100);
    });
    let client = Client::begin(&served);
    is_done(&client.download(&["file"]));
}

#[test]
fn time_is_the_systems_at_the_start() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = protocol::UnixMillis(i64::try_from(now).unwrap());
    let at = |seconds: i64| json!(trust::format_rfc3339(now.plus_millis(seconds * 1000)));
    let far = served(|sim| sim.timestamp["expires"] = at(3600));
    is_done(&Client::begin(&far).refresh());
    let past = served(|sim| sim.timestamp["expires"] = at(-3600));
    is_refused(&Client::begin(&past).refresh(), "5.4.4");
}

#[test]
fn init_refuses_what_is_no_root_and_goes_on_from_a_newer_one() {
    let served = served(|sim| sim.next_root(|sim| sim.add_key("timestamp", key(9))));
    let client = Client::begin(&served);
    for bad in [&b"{}"[..], b"", &served.sim().files["timestamp.json"].clone()] {
        let path = client.path("bad.json");
        fs::write(&path, bad).unwrap();
        is_refused(&client.run(&["init", path.to_str().unwrap()]), "5.2");
    }
    is_refused(&client.run(&["init", "/does/not/exist"]), "cannot read");
    let newer = client.path("newer.json");
    fs::write(&newer, &served.sim().files["2.root.json"]).unwrap();
    is_done(&client.run(&["init", newer.to_str().unwrap()]));
    is_done(&client.refresh());
    assert!(!served.asked().contains(&"/metadata/2.root.json".to_owned()));
}

#[test]
fn wrong_usage_and_no_server_end_with_1() {
    let served = served(|_| {});
    let client = Client::begin(&served);
    is_refused(&client.run(&["refresh"]), "--metadata-url is missing");
    is_refused(&client.run(&["--metadata-url", "http://127.0.0.1:1", "refresh"]), "cannot fetch");
    is_refused(&client.run(&["nonsense"]), "nonsense");
    let fresh = Client { folder: tempfile::tempdir().unwrap(), address: served.address.clone() };
    is_refused(&fresh.refresh(), "holds no root.json");
}
