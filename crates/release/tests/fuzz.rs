//! D6: every seed that is committed for the fuzzer, and bent copies of each, the same ones in each run.

use std::path::Path;

use testkit::fuzz::{Numbers, TARGETS, mutate};

/// Bent copies of one seed; a long run is `cargo xtask fuzz`.
const COPIES: usize = 100;

#[test]
fn d6_no_outside_bytes_break_a_parser() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, target) in TARGETS {
        let mut files: Vec<_> =
            std::fs::read_dir(seeds.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "no seeds of {name}");
        for (file, number) in files.iter().zip(1..) {
            let seed = std::fs::read(file).unwrap();
            target(&seed);
            let mut numbers = Numbers::new(number);
            for _ in 0..COPIES {
                target(&mutate(&seed, &mut numbers));
            }
        }
    }
}

#[test]
fn good_seeds_are_accepted() {
    let seed = |path: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(path)).unwrap()
    };
    release::DraftManifest::parse_unsigned(&seed("manifest/full")).unwrap();
    for role in ["root", "timestamp", "snapshot", "targets", "bins"] {
        trust::repo::claims(&seed(&format!("metadata/{role}"))).unwrap();
    }
    trust::json::Json::parse(&seed("canonical_json/escapes"), 32).unwrap();
    let archive = seed("archive/two_files");
    let mut reader = release::archive::Reader::new(&*archive, release::archive::Limits::default());
    assert!(reader.next_file().unwrap().is_some());
    assert!(reader.next_file().unwrap().is_some());
    assert!(reader.next_file().unwrap().is_none());
    for name in ["segments", "plain"] {
        let delta = seed(&format!("delta/{name}"));
        let delta = release::delta::Delta::parse(&delta).unwrap();
        delta.apply(&testkit::fuzz::delta_base(), 4 << 20).unwrap();
    }
}
