//! Writing the boot record, and what happens while it can't be written: work pauses, and it is tried again until the disk
//! takes it, also when no update waits for it.

use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use crate::durable::{DurableError, aside};
use crate::health::{Problem, ProblemKind};
use crate::slots::BootRecord;

/// After the boot record could not be written, nothing is tried for so long.
const STORAGE_PAUSE: Duration = Duration::from_secs(5);

impl Core {
    /// Changes the boot record; durable when it returns true. On failure nothing has changed.
    pub(super) fn persist(&mut self, record: BootRecord) -> bool {
        match aside(|| self.boot.write(record)) {
            Ok(()) => {
                self.trouble = None;
                true
            }
            Err(error) => {
                self.storage_trouble(&error);
                false
            }
        }
    }

    fn storage_trouble(&mut self, error: &DurableError) {
        let text = crate::chain(error);
        tracing::error!(error = text, "the boot record can't be written; the update waits");
        let detail = format!("the boot record can't be written: {text}");
        self.trouble = Some(Problem::new(ProblemKind::BootRecordUnwritable, detail));
        self.paused_until = Instant::now() + STORAGE_PAUSE;
        self.announce();
    }

    /// Writes the record as it is, after it could not be written: what stopped it may be over, and nothing else may come
    /// that has to be written.
    pub(super) fn try_record_again(&mut self, now: Instant) {
        if self.trouble.is_none() || now < self.paused_until {
            return;
        }
        let record = self.record().clone();
        match aside(|| self.boot.write(record)) {
            Ok(()) => {
                tracing::info!("the boot record can be written again");
                self.trouble = None;
                self.announce();
            }
            // Said already, in the log and as a problem.
            Err(_) => self.paused_until = now + STORAGE_PAUSE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use protocol::message::TaskPhase;
    use trust::desired::Mode;

    use super::super::rig::{Rig, name};
    use super::*;
    use crate::machine::Phase;

    /// Lets the boot record take no writes.
    fn unwritable(rig: &Rig) -> [PathBuf; 2] {
        let copies = ["boot.a", "boot.b"].map(|name| rig.folder.path().join(name));
        for copy in &copies {
            let _none_yet = std::fs::remove_file(copy);
            std::fs::create_dir(copy).unwrap();
        }
        copies
    }

    fn writable(copies: &[PathBuf; 2]) {
        for copy in copies {
            std::fs::remove_dir(copy).unwrap();
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_as_active_does_not_answer() {
        let mut rig = Rig::new();
        let model = name("digits");
        let task = rig.task(Mode::Replace);
        rig.stands(&model, Phase::Activating { task, variant: "f32".into(), tries_left: 2 });
        let [old, new] = [rig.held.clone(), rig.held_as("f32")].map(|held| rig.load(&model, &held));
        rig.core.table.swap(old);
        let serves = |core: &Core| core.table.active(&model).map(|loaded| loaded.variant.clone());
        let copies = unwritable(&rig);
        rig.core.activate(&model, new.clone()).await;
        assert_eq!(serves(&rig.core).as_deref(), Some("int8"));
        assert_eq!(rig.core.model(&model).phase.word(), TaskPhase::Activating);
        writable(&copies);
        let waits = rig.core.warm(&model, &rig.held_as("f32")).expect("it waits, loaded");
        rig.core.activate(&model, waits).await;
        assert_eq!(serves(&rig.core).as_deref(), Some("f32"));
        assert_eq!(rig.core.model(&model).phase.word(), TaskPhase::Probation);
    }

    #[tokio::test]
    async fn a_manifest_that_the_disk_does_not_give_now_keeps_its_release() {
        let mut rig = Rig::new();
        let task = rig.task(Mode::Replace);
        rig.stands(&name("digits"), Phase::Committed { task });
        let folder = rig.folder.path();
        let blobs = || std::fs::read_dir(folder.join("blobs")).unwrap().count();
        let manifest = folder.join("manifests").join(rig.held.release.digest.to_hex());
        let (bytes, all) = (std::fs::read(&manifest).unwrap(), blobs());
        std::fs::remove_file(&manifest).unwrap();
        std::fs::create_dir(&manifest).unwrap();
        rig.core.collect().await;
        assert!(all > 0 && blobs() == all, "reading it fails");
        std::fs::remove_dir(&manifest).unwrap();
        std::fs::write(&manifest, bytes).unwrap();
        std::fs::write(folder.join("blobs").join("0".repeat(64)), "of nobody").unwrap();
        rig.core.collect().await;
        assert_eq!(blobs(), all);
    }

    #[tokio::test]
    async fn a_problem_of_the_disk_goes_when_the_disk_takes_writes_again() {
        let mut rig = Rig::new();
        let record = rig.core.record().clone();
        let copies = unwritable(&rig);
        assert!(!rig.core.persist(record));
        let kind = |core: &Core| core.trouble.as_ref().map(|trouble| trouble.kind);
        let later = Instant::now() + 2 * STORAGE_PAUSE;
        rig.core.try_record_again(later);
        assert_eq!(kind(&rig.core), Some(ProblemKind::BootRecordUnwritable), "it still takes none");
        assert!(
            rig.core.next_deadline(later).is_some_and(|at| at <= later + STORAGE_PAUSE),
            "it is tried again"
        );
        writable(&copies);
        rig.core.try_record_again(later);
        assert!(kind(&rig.core).is_some(), "not before the pause is over");
        rig.core.try_record_again(later + STORAGE_PAUSE);
        assert_eq!(kind(&rig.core), None);
    }
}
