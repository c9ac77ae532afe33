//! 5.6.7: the search through delegated roles.

use serde_json::json;
use testkit::tuf::{PAST, Sim, ecdsa_key, key};

use crate::{is, refusal};

const ALL: &[&str] = &["*"];

/// `parent > child`, `parent ! child` for a terminating delegation; `role = found here`.
fn graph(edges: &[&str]) -> Sim {
    let mut sim = Sim::new();
    for (edge, n) in edges.iter().zip(100..) {
        let (parent, child) = edge.split_once([' ', '>', '!', '=']).unwrap();
        let child = child.trim_start_matches(['>', '!', '=', ' ']);
        if edge.contains('=') {
            sim.add_target(parent, "file", parent.as_bytes());
            continue;
        }
        let signer = sim.signers.get(child).map_or(key(n), |signers| signers[0].clone());
        let fields = json!({"paths": ALL, "terminating": edge.contains('!')});
        sim.delegate_as(parent, child, &signer, &fields);
    }
    for role in sim.roles.keys().cloned().collect::<Vec<_>>() {
        sim.bump_role(&role);
    }
    sim.publish();
    sim
}

/// Roles in the order in which they were fetched, without `targets`.
fn visited(asked: &[String]) -> Vec<&str> {
    let roles = asked.iter().filter_map(|path| path.strip_prefix("2.")?.strip_suffix(".json"));
    roles.filter(|role| !["root", "snapshot", "targets"].contains(role)).collect()
}

#[test]
fn a6_search_goes_through_the_graph_in_pre_order() {
    let table: [(&[&str], &[&str]); 9] = [
        (&["targets > A"], &["A"]),
        (&["targets > A", "targets > B"], &["A", "B"]),
        (&["targets > A", "targets > B", "A > C", "B > D"], &["A", "C", "B", "D"]),
        (&["targets > A", "A > B", "B > C", "C > D"], &["A", "B", "C", "D"]),
        // Cycles, roles that are reached twice, a role that delegates to itself.
        (&["targets > A", "A > B", "B > A", "A > A"], &["A", "B"]),
        (&["targets > A", "targets > B", "A > C", "B > C", "C > B"], &["A", "C", "B"]),
        // A terminating delegation ends all that stands after it, on every level, but not what is below it.
        (&["targets > A", "targets ! B", "targets > C", "B > D"], &["A", "B", "D"]),
        (&["targets > A", "A ! B", "A > C", "targets > D", "B > E"], &["A", "B", "E"]),
        (&["targets ! A", "targets ! B"], &["A"]),
    ];
    for (edges, order) in table {
        let sim = graph(edges);
        let mut device = sim.device();
        let repository = device.find(&sim, &["file"]).unwrap();
        assert_eq!(visited(&device.asked), order, "{edges:?}");
        assert_eq!(refusal(repository.find_target("file").cloned()), is("5.7.1", "A5"));
    }
}

#[test]
fn a6_the_first_role_that_lists_a_target_speaks_for_it() {
    let table: [(&[&str], &str, &[&str]); 5] = [
        (&["targets > A", "targets > B", "A = x", "B = x"], "A", &["A"]),
        (&["targets > A", "targets > B", "A > C", "B = x", "C = x"], "C", &["A", "C"]),
        (&["targets > A", "targets > B", "B = x"], "B", &["A", "B"]),
        (&["targets > A", "targets = x", "A = x"], "targets", &[]),
        (&["targets ! A", "A > B", "B = x"], "B", &["A", "B"]),
    ];
    for (edges, role, order) in table {
        let sim = graph(edges);
        let mut device = sim.device();
        let repository = device.find(&sim, &["file"]).unwrap();
        let info = repository.find_target("file").unwrap();
        assert_eq!(info.role(), role, "{edges:?}");
        info.verify(role.as_bytes().to_vec()).unwrap();
        assert_eq!(visited(&device.asked), order, "{edges:?}");
    }
}

#[test]
fn a6_patterns_say_who_may_speak_about_what() {
    let table = [
        (json!({"paths": ["*"]}), vec!["file"], vec!["dir/file"]),
        (
            json!({"paths": ["dir/*"]}),
            vec!["dir/file", "dir/"],
            vec!["file", "dir/sub/file", "Dir/file", "dir"],
        ),
        (json!({"paths": ["a?c", "[xy]z"]}), vec!["abc", "xz", "yz"], vec!["ac", "abbc", "zz"]),
        (json!({"paths": []}), vec![], vec!["file", ""]),
        (json!({"path_hash_prefixes": []}), vec![], vec!["file"]),
        // SHA-256 of "file" begins with 3b9c358f.
        (json!({"path_hash_prefixes": ["3b9c", "00"]}), vec!["file"], vec!["files"]),
        (json!({"path_hash_prefixes": ["3B9C", "b9c3"]}), vec![], vec!["file"]),
    ];
    for (fields, inside, outside) in table {
        for (path, is_inside) in inside.iter().map(|p| (p, true)).chain(outside.iter().map(|p| (p, false))) {
            let mut sim = Sim::new();
            sim.delegate_as("targets", "team", &key(40), &fields);
            sim.add_target("team", path, b"x");
            sim.publish();
            let repository = sim.device().find(&sim, &[path]).unwrap();
            assert_eq!(repository.find_target(path).is_ok(), is_inside, "{fields} {path:?}");
        }
    }
}

#[test]
fn a6_every_role_of_the_chain_must_be_trusted_with_the_path() {
    let mut sim = Sim::new();
    sim.delegate("targets", "outer", &key(40), &["outer/*"]);
    sim.delegate("outer", "inner", &key(41), &["*", "*/*"]);
    sim.add_target("inner", "other/file", b"x");
    sim.add_target("inner", "outer/file", b"x");
    sim.publish();
    let repository = sim.device().find(&sim, &["other/file", "outer/file"]).unwrap();
    assert!(repository.find_target("other/file").is_err());
    assert!(repository.find_target("outer/file").is_ok());
}

#[test]
fn a6_bins_hold_what_hashes_into_them() {
    for bits in [1, 2, 3, 4, 5, 8, 9] {
        let mut sim = Sim::new();
        sim.delegate_bins(bits, "bin", &ecdsa_key());
        sim.add_target("targets", "top", b"x");
        sim.publish();
        let mut device = sim.device();
        device.find(&sim, &["file"]).unwrap();
        // SHA-256 of "file" begins with 3b9c358f.
        let number = 0x3b9c_358f_u32 >> (32 - u32::from(bits));
        let digits = format!("{:x}", (1 << bits) - 1).len();
        let bin = format!("bin-{number:0digits$x}");
        assert_eq!(device.asked.last().unwrap(), &format!("1.{bin}.json"), "{bits}");
        sim.add_target(&bin, "file", b"content");
        sim.bump_role(&bin);
        sim.publish();
        let repository = device.find(&sim, &["file", "other"]).unwrap();
        assert_eq!(repository.find_target("file").unwrap().role(), bin);
    }
}

#[test]
fn delegations_that_contradict_themselves_are_refused() {
    let base = |fields| {
        let mut sim = Sim::new();
        sim.delegate_as("targets", "team", &key(40), &fields);
        sim
    };
    let bent = [
        base(json!({"paths": ["*"], "path_hash_prefixes": ["00"]})),
        base(json!({})),
        base(json!({"paths": ["*"], "threshold": 0})),
        base(json!({"paths": ["*"], "threshold": -1})),
        base(json!({"paths": ["*"], "keyids": ["a", "a"]})),
        base(json!({"paths": ["*"], "name": "targets"})),
        base(json!({"paths": ["*"], "name": ""})),
        {
            let mut sim = base(json!({"paths": ["*"]}));
            sim.delegate("targets", "team", &key(41), &["x"]);
            sim
        },
        {
            let mut sim = base(json!({"paths": ["*"]}));
            sim.role("targets")["delegations"]["succinct_roles"] =
                json!({"keyids": [], "threshold": 1, "bit_length": 4, "name_prefix": "b"});
            sim
        },
    ];
    for mut sim in bent {
        sim.publish();
        let (step, attack) = refusal(sim.device().refresh(&sim));
        assert_eq!((step.as_str(), attack), ("5.6.3", "A1"), "{}", sim.roles["targets"]);
    }
    for bits in [0, 33, 255] {
        let mut sim = Sim::new();
        sim.role("targets")["delegations"] = json!({"keys": {}, "succinct_roles":
            {"keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "b"}});
        sim.publish();
        assert_eq!(refusal(sim.device().refresh(&sim)).1, "A1", "{bits}");
    }
}

#[test]
fn delegated_roles_are_checked_at_every_step() {
    type Bend = fn(&mut Sim);
    let table: [(&str, &str, Bend); 6] = [
        ("5.6.1", "D5", |sim| {
            sim.publish_snapshot(|s| {
                s["meta"].as_object_mut().unwrap().remove("team.json");
            });
        }),
        ("download", "D5", |sim| {
            sim.files.remove("1.team.json");
        }),
        ("5.6.2", "A5", |sim| {
            sim.publish_snapshot(|s| s["meta"]["team.json"]["hashes"]["sha256"] = json!("00"));
        }),
        ("5.6.3", "A1", |sim| {
            sim.signers.insert("team".into(), vec![key(4)]);
            sim.publish();
        }),
        ("5.6.4", "M1", |sim| {
            sim.lists_hashes = false;
            let old = sim.files["1.team.json"].clone();
            sim.files.insert("2.team.json".into(), old);
            sim.publish_snapshot(|s| s["meta"]["team.json"]["version"] = json!(2));
        }),
        ("5.6.5", "F1", |sim| {
            sim.role("team")["expires"] = json!(PAST);
            sim.publish();
        }),
    ];
    for (step, attack, bend) in table {
        let mut sim = Sim::new();
        sim.delegate("targets", "team", &key(40), ALL);
        sim.add_target("team", "file", b"x");
        sim.publish();
        bend(&mut sim);
        let mut device = sim.device();
        assert_eq!(refusal(device.find(&sim, &["file"])), is(step, attack));
        assert!(!device.told.contains(&"team.json".to_owned()), "{step}");
        // 5.6.7: the top-level roles were accepted; what isn't needed is not fetched.
        device.find(&sim, &["dir/other"]).unwrap();
    }
}

#[test]
fn a7_stored_role_is_verified_against_its_current_delegator() {
    let mut sim = Sim::new();
    sim.delegate("targets", "team", &key(40), ALL);
    sim.add_target("team", "file", b"x");
    sim.publish();
    let mut device = sim.device();
    device.find(&sim, &["file"]).unwrap();
    // Another key for the role; its file, its version and its hash stay as they are.
    let team = sim.role("targets")["delegations"]["roles"][0].clone();
    sim.role("targets")["delegations"] = json!(null);
    sim.delegate("targets", "team", &key(41), ALL);
    assert_ne!(team, sim.role("targets")["delegations"]["roles"][0]);
    sim.signers.insert("team".into(), vec![key(40)]);
    sim.bump_role("targets");
    sim.publish();
    assert_eq!(refusal(device.find(&sim, &["file"])), is("5.6.3", "A1"));
    sim.signers.insert("team".into(), vec![key(41)]);
    sim.publish();
    device.find(&sim, &["file"]).unwrap();
}

#[test]
fn a7_stored_role_needs_the_current_threshold() {
    let mut sim = Sim::new();
    sim.delegate("targets", "team", &key(40), ALL);
    sim.add_target("team", "file", b"x");
    sim.publish();
    let mut device = sim.device();
    device.find(&sim, &["file"]).unwrap();
    sim.role("targets")["delegations"]["roles"][0]["threshold"] = json!(2);
    sim.bump_role("targets");
    sim.publish();
    assert_eq!(refusal(device.find(&sim, &["file"])), is("5.6.3", "A1"));
}

#[test]
fn a7_each_delegator_of_a_shared_role_is_asked() {
    let mut sim = Sim::new();
    sim.delegate("targets", "one", &key(40), &["one/*"]);
    sim.delegate("targets", "two", &key(41), &["two/*"]);
    sim.delegate("one", "shared", &key(42), &["one/*"]);
    sim.delegate("two", "shared", &key(43), &["two/*"]);
    sim.add_target("shared", "one/file", b"x");
    sim.add_target("shared", "two/file", b"x");
    sim.signers.insert("shared".into(), vec![key(42)]);
    sim.publish();
    sim.device().find(&sim, &["one/file"]).unwrap();
    assert_eq!(refusal(sim.device().find(&sim, &["two/file"])), is("5.6.3", "A1"));
    assert_eq!(refusal(sim.device().find(&sim, &["one/file", "two/file"])), is("5.6.3", "A1"));
    sim.signers.insert("shared".into(), vec![key(42), key(43)]);
    sim.publish();
    sim.device().find(&sim, &["one/file", "two/file"]).unwrap();
}

#[test]
fn a6_a_wide_search_is_bounded_and_a_bin_is_not_wide() {
    let mut sim = Sim::new();
    for n in 0..33 {
        sim.delegate("targets", &format!("role{n:02}"), &key(40), ALL);
    }
    sim.add_target("role31", "near", b"x");
    sim.add_target("role32", "far", b"x");
    sim.publish();
    let repository = sim.device().find(&sim, &["near"]).unwrap();
    assert_eq!(repository.find_target("near").unwrap().role(), "role31");
    assert_eq!(refusal(sim.device().find(&sim, &["far"])), is("5.6.7.1", "A6"));
}

#[test]
fn a8_odd_names_of_roles_are_encoded_in_addresses_and_in_files() {
    for (name, encoded) in [
        ("../a", "..%2Fa"),
        (".", "."),
        ("..", ".."),
        ("/", "%2F"),
        ("ö", "%C3%B6"),
        ("a b", "a%20b"),
        ("a%2Fb", "a%252Fb"),
        ("?#&", "%3F%23%26"),
        ("line\nbreak\0", "line%0Abreak%00"),
        ("C:\\x", "C%3A%5Cx"),
        ("1.root", "1.root"),
    ] {
        let mut sim = Sim::new();
        sim.delegate("targets", name, &key(40), ALL);
        sim.add_target(name, "file", b"x");
        sim.publish();
        let mut device = sim.device();
        assert_eq!(device.find(&sim, &["file"]).unwrap().find_target("file").unwrap().role(), name);
        assert_eq!(device.asked.last().unwrap(), &format!("1.{encoded}.json"));
        assert_eq!(device.told.last().unwrap(), &format!("{encoded}.json"));
        device.find(&sim, &["file"]).unwrap();
        assert_eq!(device.asked.len(), 2, "{name:?} was stored under a name that it is found by");
    }
}
