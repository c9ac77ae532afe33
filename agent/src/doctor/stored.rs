//! What the agent has stored: trusted metadata, releases, telemetry.

use protocol::UnixMillis;

use super::ahead::ClockAhead;
use super::finding::{Report, disk_advice};
use crate::config::Config;
use crate::health::{ProblemKind, used_bytes};
use crate::link::Identity;
use crate::machine::Held;
use crate::shown::{bytes, duration};
use crate::slots::{BootStore, Kept, Shelf, ShelfError};
use crate::store::check_key;
use crate::trusted_files::trusted_dir;
use crate::update::metadata::{Copies, TrustedStore};

/// `heard` is the time that the server says it is.
pub(super) fn metadata(
    report: &mut Report,
    config: &Config,
    identity: &Identity,
    now: UnixMillis,
    heard: Option<UnixMillis>,
) {
    let store = TrustedStore::open(&config.state_dir, identity.project.clone(), identity.root_pin);
    let freshness = match store {
        Ok(store) => {
            match store.check() {
                Ok(Copies::Both) => {}
                Ok(Copies::One) => report.warn(
                    "metadata",
                    "one copy of the trusted root is damaged; the other is used",
                    "restart the agent: it repairs it; if it comes again, the disk is failing: replace it",
                ),
                Err(error) if error.is_damage() => {
                    return report.fail("metadata", crate::chain(&error), ProblemKind::TrustDamaged.advice());
                }
                Err(error) => {
                    return report.fail("metadata", crate::chain(&error), disk_advice(&error));
                }
            }
            store.freshness()
        }
        Err(error) => {
            return report.fail("metadata", crate::chain(&error), disk_advice(&error));
        }
    };
    let Some(freshness) = freshness else {
        return report.ok("metadata", "none yet: the fleet has not asked for a model");
    };
    let age = duration(now.millis_since(freshness.at));
    let what = format!("version {}, {age} old", freshness.timestamp_version);
    if let Some(ahead) = ClockAhead::of(freshness.expires, now, heard) {
        report.warn("metadata", format!("{what}, {ahead}"), ClockAhead::ADVICE);
    } else if freshness.expires <= now {
        report.warn("metadata", format!("{what}, expired"), ProblemKind::MetadataExpired.advice());
    } else {
        let left = duration(freshness.expires.millis_since(now));
        report.ok("metadata", format!("{what}, expires in {left}"));
    }
}

/// Reads the boot record. A running agent says more itself.
pub(super) fn models(report: &mut Report, config: &Config, is_running: bool) {
    if is_running {
        return;
    }
    let opened = BootStore::open(&config.state_dir, &trusted_dir(&config.state_dir));
    let (boot, kept, shelf) = match (opened, Shelf::open(&config.state_dir)) {
        (Ok((boot, kept)), Ok(shelf)) => (boot, kept, shelf),
        (Err(error), _) | (_, Err(error)) => {
            let todo = match &error {
                error if error.is_denied() => disk_advice(error),
                _ => "the agent does not start like this; restore state_dir or enrol the device anew",
            };
            return report.fail("models", crate::chain(&error), todo);
        }
    };
    match kept {
        Kept::Whole => {}
        Kept::OlderCopy => report.warn(
            "models",
            "one copy of the boot record, or of its marks, is damaged",
            ProblemKind::BootRecordRepaired.advice(),
        ),
        Kept::Lost => report.fail(
            "models",
            "both copies of the boot record are damaged: after a start nothing serves until the server says what to run",
            "start the agent and let it reach the server; if it comes again, the disk is failing: replace it",
        ),
    }
    for (model, record) in &boot.record().models {
        let Some(held) = &record.active else { continue };
        match check_complete(&shelf, held) {
            Ok(()) => {
                report.ok("models", format!("{model} {} {} is complete", held.release.version, held.variant));
            }
            Err(why) => report.warn(
                "models",
                format!("{model} {}: {}", held.release.version, crate::chain(&why)),
                "it is fetched again once the agent is connected",
            ),
        }
    }
}

/// Why a release on the shelf can't be loaded.
#[derive(Debug, thiserror::Error)]
enum Incomplete {
    #[error("its manifest can't be read")]
    Manifest(#[source] ShelfError),
    #[error("the manifest lacks its variant")]
    NoVariant,
    #[error("{} of its blobs are missing", bytes(*.missing_bytes))]
    Blobs { missing_bytes: u64 },
}

fn check_complete(shelf: &Shelf, held: &Held) -> Result<(), Incomplete> {
    let manifest = shelf.manifest(held.release.digest).map_err(Incomplete::Manifest)?;
    let variant = manifest.variant(&held.variant).ok_or(Incomplete::NoVariant)?;
    match shelf.missing_bytes(manifest.blobs_for(variant)) {
        0 => Ok(()),
        missing_bytes => Err(Incomplete::Blobs { missing_bytes }),
    }
}

pub(super) fn telemetry(report: &mut Report, config: &Config) {
    let used = used_bytes(&config.state_dir.join("spool"));
    let what = format!("{} on disk, at most {} may wait", bytes(used), bytes(config.spool.max_bytes));
    report.ok("telemetry", what);
    if let Err(error) = check_key(&config.spool, &config.state_dir) {
        let problem = error.problem();
        report.fail("telemetry", problem.detail, problem.kind.advice());
    }
    let aside = config.state_dir.join("spool.quarantined");
    if aside.exists() {
        let what = format!("a damaged spool lies in {}", aside.display());
        report.warn("telemetry", what, "keep it if you want it looked at, else remove the folder");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn a_damaged_boot_record_is_told_before_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let flag = format!("state_dir={}", dir.path().display());
        let config = RawConfig::default().with_flags(std::iter::once(flag.as_str())).check().unwrap();
        let (mut boot, _) = BootStore::open(dir.path(), &trusted_dir(dir.path())).unwrap();
        boot.write(boot.record().clone()).unwrap();
        boot.write(boot.record().clone()).unwrap();
        let found = || {
            let mut report = Report::default();
            models(&mut report, &config, false);
            report.checks.iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(found(), []);
        std::fs::write(dir.path().join("boot.a"), b"").unwrap();
        assert_eq!(found(), [Level::Warn]);
        std::fs::write(dir.path().join("boot.b"), b"noise").unwrap();
        assert_eq!(found(), [Level::Fail]);
    }
}
