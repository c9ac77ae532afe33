//! What is stored when: role by role as the specification has it, or the whole chain as devices do; and the power cut.

use std::collections::BTreeMap;

use serde_json::json;
use testkit::tuf::{Device, NOW, PAST, Sim, key};
use trust::{Limits, Reply, Session, Step, Stored, Storing};

use crate::{is, refusal};

fn published() -> Sim {
    let mut sim = Sim::new();
    sim.delegate("targets", "team", &key(40), &["*"]);
    sim.add_target("team", "file", b"x");
    sim.next_root(|sim| sim.add_key("root", key(45)));
    sim.bump_role("targets");
    sim.publish();
    sim
}

#[test]
fn each_role_is_stored_when_it_is_accepted() {
    let sim = published();
    let mut device = sim.device();
    device.find(&sim, &["file"]).unwrap();
    assert_eq!(device.told, ["root.json", "timestamp.json", "snapshot.json", "targets.json", "team.json"]);
    device.find(&sim, &["file"]).unwrap();
    assert!(device.told.is_empty(), "what is there is not written again");
}

#[test]
fn x2_whole_chain_or_nothing_but_roots() {
    let mut sim = published();
    sim.role("team")["expires"] = json!(PAST);
    sim.publish();
    let mut device = sim.device();
    device.storing = Storing::WholeChain;
    assert_eq!(refusal(device.find(&sim, &["file"])), is("5.6.5", "F1"));
    assert_eq!(device.told, ["root.json"], "error, then success: the earlier state is whole");
    sim.role("team")["expires"] = json!("2027-01-01T00:00:00Z");
    sim.bump_role("team");
    sim.publish();
    device.find(&sim, &["file"]).unwrap();
    let stored: Vec<_> = device.stored.files.keys().collect();
    assert_eq!(stored, ["snapshot.json", "targets.json", "team.json", "timestamp.json"]);
}

#[test]
fn x4_files_are_stored_byte_for_byte() {
    let mut sim = published();
    sim.lists_hashes = false;
    sim.publish();
    // White space and an escape that no canonical form keeps, under the same signatures.
    for bytes in sim.files.values_mut() {
        let spread = String::from_utf8(bytes.clone())
            .unwrap()
            .replace("\": ", "\"\t :\r\n")
            .replace("_type", "\\u005ftype");
        *bytes = [b"\n ", spread.as_bytes(), b"\n\n "].concat();
    }
    let mut device = sim.device();
    device.find(&sim, &["file"]).unwrap();
    assert_eq!(device.stored.root, sim.files["2.root.json"]);
    for (mine, theirs) in [
        ("timestamp.json", "timestamp.json"),
        ("snapshot.json", "3.snapshot.json"),
        ("targets.json", "2.targets.json"),
        ("team.json", "1.team.json"),
    ] {
        assert_eq!(device.stored.files[mine], sim.files[theirs]);
    }
}

#[test]
fn several_targets_are_found_one_after_the_other() {
    let mut sim = published();
    sim.delegate("targets", "broken", &key(41), &["broken/*"]);
    sim.bump_role("targets");
    sim.publish();
    sim.files.remove("1.broken.json");
    let stored = Stored::new(sim.files["1.root.json"].clone());
    let session = Session::new(stored, std::iter::empty::<String>(), NOW, &Limits::default()).unwrap();
    let mut session = session.storing(Storing::EachRole);
    let mut run = |target: Option<&str>| {
        target.map_or(Ok(()), |target| session.want(target))?;
        loop {
            match session.next()? {
                Step::Need(fetch) => {
                    let file = sim.files.get(&fetch.path).cloned();
                    session.feed(file.map_or(Reply::NotFound, Reply::Bytes))?;
                }
                Step::Done(accepted) => break Ok(accepted.repository),
                Step::Persist(_) | Step::Forget(_) => {}
            }
        }
    };
    run(None).unwrap();
    assert!(run(Some("file")).unwrap().find_target("file").is_ok());
    assert!(run(Some("file")).unwrap().find_target("file").is_ok(), "again");
    assert!(run(Some("absent")).unwrap().find_target("absent").is_err());
    assert_eq!(refusal(run(Some("broken/x"))).1, "D5");
    assert_eq!(refusal(run(Some("file"))).1, "X3", "a session is over after a refusal");
}

/// Runs an update and stops the power before the write number `cut`. Returns whether it came to its end.
fn update_until(disk: &mut Stored, sim: &Sim, storing: Storing, cut: usize) -> bool {
    let mut writes = 0;
    let mut has_power = || {
        writes += 1;
        writes <= cut
    };
    let session = Session::new(disk.clone(), ["file"], NOW, &Limits::default()).unwrap();
    let mut session = session.storing(storing);
    loop {
        match session.next().unwrap() {
            Step::Need(fetch) => {
                let file = sim.files.get(&fetch.path).cloned();
                session.feed(file.map_or(Reply::NotFound, Reply::Bytes)).unwrap();
            }
            Step::Persist(file) if has_power() => disk.put(file),
            Step::Forget(name) if has_power() => drop(disk.files.remove(&name)),
            Step::Persist(_) | Step::Forget(_) => return false,
            Step::Done(accepted) => {
                for file in accepted.files {
                    if !has_power() {
                        return false;
                    }
                    disk.put(file);
                }
                return true;
            }
        }
    }
}

#[test]
fn x1_power_cut_before_every_write_leaves_a_state_that_goes_on() {
    for storing in [Storing::WholeChain, Storing::EachRole] {
        let mut sim = published();
        let mut device = sim.device();
        device.find(&sim, &["file"]).unwrap();
        let before = device.stored;
        sim.next_root(|sim| sim.replace_keys("snapshot", &[key(50)]));
        sim.add_target("team", "file", b"newer");
        sim.bump_role("team");
        sim.bump_role("targets");
        sim.publish();
        let old = older(&sim);
        let mut cuts = 0;
        loop {
            let mut disk = before.clone();
            let is_whole = update_until(&mut disk, &sim, storing, cuts);
            // Whatever was written, what is served now is accepted,
            let mut device = Device { stored: disk.clone(), storing, ..sim.device() };
            device.find(&sim, &["file"]).unwrap();
            let whole = device.stored.clone();
            // and what is older is not, from either side of the cut.
            let mut device = Device { stored: whole, storing, ..sim.device() };
            assert_eq!(refusal(device.find(&old, &["file"])).1, "R1", "{storing:?} {cuts}");
            if is_whole {
                break;
            }
            cuts += 1;
        }
        assert!(cuts >= 6, "{storing:?}: {cuts} writes");
    }
}

/// The same repository with the snapshot and timestamp of before, signed by the keys of now.
fn older(sim: &Sim) -> Sim {
    let mut old = Sim { files: sim.files.clone(), ..Sim::new() };
    old.timestamp = sim.timestamp.clone();
    old.timestamp["version"] = json!(1);
    old.signers = sim.signers.clone();
    old.put("timestamp");
    old
}

#[test]
fn x3_damaged_timestamp_or_snapshot_is_an_error_and_never_nothing() {
    let sim = published();
    let mut device = sim.device();
    device.find(&sim, &["file"]).unwrap();
    let good: BTreeMap<_, _> = device.stored.files.clone();
    for name in ["timestamp.json", "snapshot.json"] {
        for damaged in [&b""[..], b"{", b"{}", b"null"] {
            device.stored.files.clone_from(&good);
            device.stored.files.insert(name.into(), damaged.to_vec());
            assert_eq!(refusal(device.refresh(&sim)).1, "X3", "{name}");
            assert!(device.told.is_empty());
        }
    }
    device.stored.files = good;
    device.refresh(&sim).unwrap();
}

#[test]
fn f4_withheld_root_is_bounded_by_the_expiry_of_the_last_one() {
    let mut sim = published();
    let mut device = sim.device();
    device.refresh(&sim).unwrap();
    // The attacker serves everything but the root that revokes the keys that he stole.
    sim.next_root(|sim| sim.replace_keys("timestamp", &[key(50)]));
    sim.files.remove("3.root.json");
    sim.signers.insert("timestamp".into(), vec![key(2)]);
    sim.timestamp["expires"] = json!("2099-01-01T00:00:00Z");
    sim.publish();
    device.refresh(&sim).unwrap();
    device.now = device.now.plus_millis(60 * 86_400_000);
    assert_eq!(refusal(device.refresh(&sim)), is("5.3.10", "F1"));
}
