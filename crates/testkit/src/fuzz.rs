//! What is fuzzed: one function for each parser of outside bytes. `fuzz/` hands these to libFuzzer; a plain test
//! replays the committed seeds and seeded mutations of them.
//!
//! A function returns when the bytes were handled, whether accepted or refused, and panics when a promise is broken.

use protocol::{DeviceId, ProjectId, Revision, UnixMillis};
use release::DraftManifest;
use release::archive::{self, Name, Reader, Writer};
use release::delta::Delta;
use serde_json::Value;
use trust::director::{self, DirectorKeys};
use trust::json::Json;
use trust::{Limits, Session, Stored, desired};

use crate::tuf::{NOW, Sim, key, sign};

/// One parser and the name of its folder of seeds.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("archive", archive),
    ("canonical_json", canonical_json),
    ("delta", delta),
    ("desired", signed_desired),
    ("manifest", manifest),
    ("metadata", metadata),
    ("signed_role", signed_role),
];

const DEPTH: usize = 32;

/// Canonical JSON: what is read means the same after it was written, and its canonical form never changes.
///
/// # Panics
/// When it does.
pub fn canonical_json(bytes: &[u8]) {
    let Ok(json) = Json::parse(bytes, DEPTH) else { return };
    let canonical = json.canonical();
    let written = serde_json::to_vec_pretty(&json.to_value()).expect("JSON is text");
    let again = Json::parse(&written, DEPTH).expect("what was written can be read");
    assert_eq!(again, json);
    assert_eq!(again.canonical(), canonical);
}

/// A metadata file as it comes from the network, in every place where one is read.
///
/// # Panics
/// When unsigned bytes are accepted.
pub fn metadata(bytes: &[u8]) {
    let mut sim = Sim::new();
    let good = sim.files.clone();
    for (name, stored_as) in [
        ("2.root.json", "root.json"),
        ("timestamp.json", "timestamp.json"),
        ("1.snapshot.json", "snapshot.json"),
        ("1.targets.json", "targets.json"),
    ] {
        sim.files.clone_from(&good);
        sim.files.insert(name.into(), bytes.to_vec());
        let mut device = sim.device();
        let is_accepted = device.find(&sim, &["file"]).is_ok();
        let is_kept = device.stored.files.get(stored_as).is_some_and(|kept| kept == bytes);
        // Only what carries the right signatures, such as a seed, may be kept.
        assert!(!is_kept || trust::repo::claims(bytes).is_ok_and(|claims| !claims.signers.is_empty()));
        assert!(is_accepted || !is_kept || name != "1.targets.json");
        let mut stored = Stored::new(good["1.root.json"].clone());
        stored.files.insert(stored_as.into(), bytes.to_vec());
        let _ = Session::new(stored, ["file"], NOW, &Limits::default());
    }
    let _ = Session::new(Stored::new(bytes), ["file"], NOW, &Limits::default());
    let _ = trust::repo::claims(bytes);
}

/// The content of a role, rightly signed: what an attacker with online keys can say.
///
/// # Panics
/// When a device comes out with something that it was not told.
pub fn signed_role(bytes: &[u8]) {
    let Some(value) = whole_numbers(bytes) else { return };
    let mut sim = Sim::new();
    for role in ["snapshot", "timestamp", "targets"] {
        let signed = sign(&value, &sim.signers[role]);
        let name = sim.served_name(role, &value["version"]);
        sim.files.insert(name, signed.clone());
        let mut device = sim.device();
        if let Ok(repository) = device.find(&sim, &["file", "dir/file"]) {
            assert!(repository.timestamp_expires() > NOW);
        }
        let _ = trust::repo::claims(&signed);
    }
    let signed = sign(&value, &sim.signers["root"]);
    sim.files.insert("2.root.json".into(), signed);
    let mut device = sim.device();
    if let Ok(repository) = device.refresh(&sim) {
        assert!(repository.root_version() <= 2);
    }
}

/// A release manifest.
///
/// # Panics
/// When one that was read says something else after it was written.
pub fn manifest(bytes: &[u8]) {
    let Ok(draft) = DraftManifest::parse_unsigned(bytes) else { return };
    assert_eq!(draft.bytes(), bytes);
    let composed = DraftManifest::compose(&draft).expect("what was read can be written");
    let again = DraftManifest::parse_unsigned(composed.bytes()).expect("what was written can be read");
    assert_eq!(*again, *draft);
}

/// An archive: what is read, written again, is the same bytes.
///
/// # Panics
/// When it is not.
pub fn archive(bytes: &[u8]) {
    let mut reader = Reader::new(bytes, archive::Limits::default());
    let mut writer = Writer::new(Vec::new());
    loop {
        let Ok(next) = reader.next_file() else { return };
        let Some((name, size)) = next else { break };
        let mut content = Vec::new();
        if reader.read_to(&mut content).is_err() {
            return;
        }
        assert_eq!(Name::parse(&name.to_string()), Some(name.clone()));
        writer.add(&name, size, &*content).expect("what was read can be written");
    }
    assert_eq!(writer.finish().expect("memory takes everything"), bytes);
}

/// A delta against a base that both sides know, with little memory.
///
/// # Panics
/// When one is accepted that gives other content than it names.
pub fn delta(bytes: &[u8]) {
    let base = delta_base();
    let Ok(delta) = Delta::parse(bytes) else { return };
    if let Ok(target) = delta.apply(&base, 4 * 1024 * 1024) {
        assert_eq!(delta.target, release::BlobRef::of(&target, "").digest);
    }
}

/// What the seeds of [`delta`] start from.
pub fn delta_base() -> Vec<u8> {
    (0..2000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A Desired, first as it comes, then rightly signed by the director.
///
/// # Panics
/// When one is accepted for another device, an old revision or after its expiry.
pub fn signed_desired(bytes: &[u8]) {
    let (project, device) = ids();
    let keys = director_keys();
    let check = |bytes: &[u8]| {
        if let Ok(desired) = desired::verify(bytes, &keys, &project, &device, NOW, Revision(4)) {
            assert!(desired.revision > Revision(4) && desired.expires > NOW);
            assert!(desired.project == project && desired.device == device);
        }
    };
    check(bytes);
    if let Some(value) = whole_numbers(bytes) {
        check(&sign(&value, &[key(9)]));
    }
}

/// Whose Desired the seeds are.
///
/// # Panics
/// Never: both are good names.
pub fn ids() -> (ProjectId, DeviceId) {
    (ProjectId::new("p").expect("a name"), DeviceId::new("d1").expect("a name"))
}

fn whole_numbers(bytes: &[u8]) -> Option<Value> {
    Json::parse(bytes, DEPTH).ok().map(|json| json.to_value())
}

fn director_keys() -> DirectorKeys {
    let target = director::target_bytes(&[key(9).public_key()], 1);
    let mut sim = Sim::new();
    sim.add_target("targets", director::TARGET, &target);
    sim.bump_role("targets");
    sim.publish();
    let repository = sim.device().find(&sim, &[director::TARGET]).expect("a good repository");
    let info = repository.find_target(director::TARGET).expect("a listed target");
    DirectorKeys::parse(&info.verify(target).expect("the signed bytes")).expect("good keys")
}

/// A source of numbers that gives the same ones for the same seed.
pub struct Numbers(u64);

impl Numbers {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0).checked_rem(bound).unwrap_or(0)
    }
}

/// Pieces that parsers of JSON and metadata stumble over.
const PIECES: [&[u8]; 20] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"-1",
    b"0",
    b"1e400",
    b"0.5",
    b"18446744073709551615",
    b"99999999999999999999",
    b"\"_type\":",
    b"\xff",
    b"../",
    b"\"version\":0",
    b"true",
];

/// Bends bytes a little: changes, removes, repeats or inserts some.
pub fn mutate(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=numbers.below(4) {
        let (from, to) = range(bytes.len(), numbers);
        match numbers.below(5) {
            0 if from < bytes.len() => {
                bytes[from] ^= 1_u8 << numbers.below(8);
            }
            1 => drop(bytes.drain(from..to)),
            2 => {
                let copy = bytes[from..to].to_vec();
                bytes.splice(from..from, copy);
            }
            _ => {
                let piece = PIECES[numbers.below(PIECES.len())];
                bytes.splice(from..from, piece.iter().copied());
            }
        }
    }
    bytes
}

fn range(length: usize, numbers: &mut Numbers) -> (usize, usize) {
    let from = numbers.below(length + 1);
    (from, (from + numbers.below(32)).min(length))
}

/// A time for seeds that hold one.
pub const LATER: UnixMillis = UnixMillis(NOW.0 + 86_400_000);
