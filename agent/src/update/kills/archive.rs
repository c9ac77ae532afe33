//! An archive of one release for the import, signed by a repository that a device trusts the root of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::ProjectId;
use release::DraftManifest;
use release::archive::{Name, Writer};
use serde_json::json;
use testkit::tuf::Sim;

use super::super::import::{Import, ImportError};
use super::super::metadata::TrustedStore;
use super::super::rig::Made;
use crate::health::{Clock, read_hardware};
use crate::slots::{BootStore, Shelf};
use crate::trusted_files::{keep_first_root, trusted_dir};

fn path(dir: &Path) -> PathBuf {
    dir.join("archive")
}

/// Writes the archive of `made`, and has the device in `dir` trust its root.
pub(super) fn prepare(dir: &Path, made: &Made) {
    let mut sim = Sim::new();
    // No test is to end with a year.
    let last = json!("9500-01-01T00:00:00Z");
    for part in [&mut sim.root, &mut sim.timestamp, &mut sim.snapshot] {
        part["expires"] = last.clone();
    }
    sim.role("targets")["expires"] = last;
    let target = DraftManifest::parse_unsigned(&made.manifest).unwrap().target_path();
    sim.add_target("targets", &target, &made.manifest);
    sim.put_root(&[]);
    sim.publish();
    keep_first_root(dir, &sim.files["1.root.json"]).unwrap();

    let mut archive = Writer::new(Vec::new());
    let mut add = |name: &Name, bytes: &[u8]| {
        archive.add(name, u64::try_from(bytes.len()).unwrap(), bytes).unwrap();
    };
    for (file, bytes) in &sim.files {
        add(&Name::Metadata(file.clone()), bytes);
    }
    add(&Name::Manifest(made.held.release.digest), &made.manifest);
    let blobs: BTreeMap<_, _> =
        made.blobs.iter().map(|(blob, bytes)| (blob.digest.to_hex(), (blob, bytes))).collect();
    for (blob, bytes) in blobs.into_values() {
        add(&Name::Blob(blob.digest), bytes);
    }
    std::fs::write(path(dir), archive.finish().unwrap()).unwrap();
}

/// Takes it, as `flotilla-agent import` does with what it has opened.
pub(super) async fn import(dir: &Path) -> Result<(), ImportError> {
    let (clock, shelf) = (Clock::open(dir).unwrap(), Shelf::open(dir).unwrap());
    let trusted = TrustedStore::open(dir, ProjectId::new("p").unwrap(), None).unwrap();
    let (mut boot, _) = BootStore::open(dir, &trusted_dir(dir)).unwrap();
    let mut import = Import {
        state_dir: dir,
        clock: &clock,
        trusted: &trusted,
        shelf: &shelf,
        boot: &mut boot,
        hardware: &read_hardware("test"),
        keep_free_bytes: 0,
        memory_budget_bytes: 0,
    };
    import.take(std::fs::File::open(path(dir)).unwrap()).await?;
    clock.keep();
    Ok(())
}
