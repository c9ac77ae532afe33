//! The good path, bounds, and targets.

use trust::client::{self, Stored};
use trust::{Cause, Limits, Reply, Session, Step};

use crate::repo::{CONTENT, MANIFEST, NOW, Repo, attack, later};

#[test]
fn good_repository_is_accepted_and_stored_byte_exactly() {
    let repo = Repo::new();
    let mut device = repo.device();
    let view = repo.refresh(&mut device).unwrap();
    let info = view.find_target(MANIFEST).unwrap();
    assert_eq!(info.role(), "digits");
    assert!(
        info.fetch_path().ends_with(".manifest.json")
            && info.fetch_path().starts_with("models/digits/1.0.0/")
    );
    assert_eq!(view.verify_target(info, CONTENT.to_vec()).unwrap().bytes(), CONTENT);
    for name in ["timestamp.json", "targets.json", "digits.json"] {
        assert_eq!(device.files[name], repo.files[name], "{name}");
    }
    assert_eq!(view.signed_at(), Some(NOW));
}

#[test]
fn second_refresh_fetches_only_root_and_timestamp() {
    let repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    let mut asked = Vec::new();
    client::run(&mut device, &[MANIFEST], NOW, &Limits::default(), |path| {
        asked.push(path.to_owned());
        repo.files.get(path).cloned()
    })
    .unwrap();
    assert_eq!(asked, ["2.root.json", "timestamp.json"]);
}

#[test]
fn repository_without_consistent_snapshots_is_accepted() {
    let mut repo = Repo::new();
    let root = repo.root_builder().without_consistent_snapshots();
    let bytes = root.sign(&[&repo.root[0], &repo.root[1]]).unwrap();
    repo.files.insert("1.root.json".into(), bytes);
    repo.files.insert("snapshot.json".into(), repo.files["1.snapshot.json"].clone());
    let view = repo.refresh(&mut repo.device()).unwrap();
    assert_eq!(view.find_target(MANIFEST).unwrap().fetch_path(), MANIFEST);
}

#[test]
fn stored_chain_is_read_again_without_network_even_when_expired() {
    let repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    let view = client::load_stored(device.clone(), [MANIFEST], &Limits::default()).unwrap();
    assert_eq!(view.find_target(MANIFEST).unwrap().length(), 18);
    device.files.remove("digits.json");
    assert_eq!(attack(client::load_stored(device, [MANIFEST], &Limits::default())), "D5");
}

#[test]
fn a5_swapped_or_absent_target_is_refused() {
    let repo = Repo::new();
    let view = repo.refresh(&mut repo.device()).unwrap();
    let info = view.find_target(MANIFEST).unwrap();
    assert!(matches!(info.verify(b"short".to_vec()).unwrap_err().cause, Cause::Length { .. }));
    let swapped = vec![b'x'; CONTENT.len()];
    assert!(matches!(info.verify(swapped).unwrap_err().cause, Cause::Hash { .. }));
    assert_eq!(attack(view.find_target("models/digits/9.9.9/manifest.json").cloned()), "A5");
}

#[test]
fn a10_unknown_hash_alone_is_refused() {
    let mut repo = Repo::new();
    let key = crate::repo::key(4);
    for path in ["1.digits.json", "digits.json"] {
        repo.tamper(path, &[&key], |signed| {
            signed["targets"][MANIFEST]["hashes"] = serde_json::json!({"md5": "00"});
        });
    }
    repo.publish(&["targets", "digits"]);
    let view = repo.refresh(&mut repo.device()).unwrap();
    let info = view.find_target(MANIFEST).unwrap();
    assert!(matches!(info.verify(CONTENT.to_vec()).unwrap_err().cause, Cause::NoKnownHash));
}

#[test]
fn m1_mix_of_two_publications_is_refused() {
    let mut repo = Repo::new();
    let old = repo.files["1.snapshot.json"].clone();
    repo.publish(&["targets", "digits"]);
    let good = repo.files.insert("2.snapshot.json".into(), old).unwrap();
    let mut device = repo.device();
    assert_eq!(attack(repo.refresh(&mut device)), "A5");
    assert!(device.files.is_empty(), "nothing is stored before the whole chain is accepted");
    repo.files.insert("2.snapshot.json".into(), good);
    repo.refresh(&mut device).unwrap();
}

#[test]
fn d1_endless_metadata_is_refused() {
    let mut repo = Repo::new();
    let good = repo.files["timestamp.json"].clone();
    repo.files.insert("timestamp.json".into(), vec![b' '; 20_000]);
    let mut device = repo.device();
    assert_eq!(attack(repo.refresh(&mut device)), "D1");
    repo.files.insert("timestamp.json".into(), good);
    repo.refresh(&mut device).unwrap();
}

#[test]
fn d1_each_fetch_states_its_bound() {
    let repo = Repo::new();
    let mut session = Session::new(repo.device(), [MANIFEST], NOW, &Limits::default()).unwrap();
    let mut bounds = Vec::new();
    loop {
        match session.next().unwrap() {
            Step::Need(fetch) => {
                let file = repo.files.get(&fetch.path).cloned();
                if let Some(file) = &file {
                    assert!(u64::try_from(file.len()).unwrap() <= fetch.max_bytes, "{}", fetch.path);
                }
                bounds.push(fetch.max_bytes);
                session.feed(file.map_or(Reply::NotFound, Reply::Bytes)).unwrap();
            }
            Step::Done(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bounds[..2], [512_000, 16_384]);
    let signed = u64::try_from(repo.files["1.snapshot.json"].len()).unwrap();
    assert_eq!(bounds[2], signed, "the signed length is the bound");
}

#[test]
fn d3_endless_root_chain_is_bounded() {
    let mut repo = Repo::new();
    for version in 2..=4_u64 {
        let before = repo.files[&format!("{}.root.json", version - 1)].clone();
        let next = trust::repo::RootBuilder::resume(&before, later(365)).unwrap();
        let bytes = next.sign(&[&repo.root[0], &repo.root[1]]).unwrap();
        repo.files.insert(format!("{version}.root.json"), bytes);
    }
    let limits = Limits { root_updates: 2, ..Limits::default() };
    let mut device = repo.device();
    let mut asked = Vec::new();
    let mut run = |device: &mut Stored| {
        client::run(device, &[MANIFEST], NOW, &limits, |path| {
            asked.push(path.to_owned());
            repo.files.get(path).cloned()
        })
        .unwrap()
        .root_version()
    };
    assert_eq!(run(&mut device), 3, "5.3.3: it goes on with the last of the two");
    assert_eq!(device.root, repo.files["3.root.json"], "each accepted step is kept");
    assert_eq!(run(&mut device), 4, "the next run goes on from there");
    let roots: Vec<_> = asked.iter().filter(|path| path.ends_with("root.json")).collect();
    assert_eq!(roots, ["2.root.json", "3.root.json", "4.root.json", "5.root.json"]);
}

#[test]
fn d5_missing_file_leaves_the_trusted_state() {
    let mut repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    let before = device.clone().files;
    repo.publish(&["targets", "digits"]);
    let missing = repo.files.remove("2.snapshot.json").unwrap();
    assert_eq!(attack(repo.refresh(&mut device)), "D5");
    assert_eq!(device.files, before);
    repo.files.insert("2.snapshot.json".into(), missing);
    repo.refresh(&mut device).unwrap();
}

#[test]
fn d6_hostile_json_is_refused() {
    let mut repo = Repo::new();
    for bad in
        [&b"{\"signed\":{},\"signed\":{},\"signatures\":[]}"[..], b"[[[[", b"\xff", b"{}", &[b'['; 9000]]
    {
        repo.files.insert("timestamp.json".into(), bad.to_vec());
        assert!(repo.refresh(&mut repo.device()).is_err());
    }
}

#[test]
fn x3_stored_file_that_cannot_be_read_is_an_error_never_nothing() {
    let repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    for name in ["timestamp.json", "snapshot.json"] {
        let mut broken = device.clone();
        broken.files.insert(name.into(), b"{".to_vec());
        assert_eq!(attack(repo.refresh(&mut broken)), "X3", "{name}");
    }
    assert_eq!(attack(repo.refresh(&mut Stored::new(b"{}".to_vec()))), "X3");
}

#[test]
fn session_is_over_after_an_error() {
    let repo = Repo::new();
    let mut session = Session::new(repo.device(), [MANIFEST], NOW, &Limits::default()).unwrap();
    session.feed(Reply::NotFound).unwrap();
    session.feed(Reply::NotFound).unwrap_err();
    assert!(matches!(session.next().unwrap_err().cause, Cause::OutOfTurn));
    assert!(matches!(session.feed(Reply::NotFound).unwrap_err().cause, Cause::OutOfTurn));
}
