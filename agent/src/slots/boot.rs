//! The boot record: what each model's slots hold, where its update stands, and the last accepted Desired.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use protocol::{ModelName, Revision};
use release::HighWater;
use serde::{Deserialize, Serialize};
use trust::KeyId;
use trust::desired::DesiredModel;
use trust::director::DirectorKeys;

use crate::durable::{self, DurableError, TwoCopies};
use crate::machine::Record;

/// Version of the record's format.
const FORMAT: u32 = 1;
const MAX_MARKS_BYTES: u64 = 256 * 1024;

/// Everything that decides what this device serves.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BootRecord {
    format: u32,
    /// Revision of the last accepted Desired.
    pub revision: Revision,
    /// Ids of the director's keys that signed it. None in a record of a version that didn't keep them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub signers: BTreeSet<KeyId>,
    /// What it asked for.
    pub desired: Vec<DesiredModel>,
    /// Each model.
    pub models: BTreeMap<ModelName, Record>,
}

impl BootRecord {
    /// What the next Desired must rise above. Metadata that revokes a key takes back what that key signed.
    pub fn floor(&self, director: Option<&DirectorKeys>) -> Revision {
        director.map_or(self.revision, |keys| keys.floor(self.revision, &self.signers))
    }
}

/// What was found at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The newest record, or the first start.
    Whole,
    /// One copy was damaged; the other is used.
    OlderCopy,
    /// Both were damaged. Nothing serves until the server has said again what to run; the counters that no release
    /// may fall below come from their second place.
    Lost,
}

/// Keeps the boot record, and the marks in a second place.
#[derive(Debug)]
pub struct BootStore {
    copies: TwoCopies,
    marks: PathBuf,
    record: BootRecord,
}

impl BootStore {
    /// Looks at the boot record without changing anything; none before the first start. For commands beside the
    /// running agent.
    ///
    /// # Errors
    /// [`DurableError`] when it can't be read or is damaged.
    pub fn read(state_dir: &Path) -> Result<Option<BootRecord>, DurableError> {
        let path = state_dir.join("boot");
        let (_, found) = TwoCopies::open(&path)?;
        let Some(found) = found else { return Ok(None) };
        let record = serde_json::from_slice::<BootRecord>(&found.body).ok();
        let known = record.filter(|record| record.format == FORMAT);
        known.map(Some).ok_or(DurableError::Corrupt { path })
    }

    /// Reads the boot record. The second place of the marks (in `trusted_dir`) can only raise them.
    ///
    /// # Errors
    /// [`DurableError`] when a file can't be read; when the marks are damaged too, [`DurableError::Corrupt`]: a
    /// counter that can't be read is an error, never "no counter".
    pub fn open(state_dir: &Path, trusted_dir: &Path) -> Result<(Self, Kept), DurableError> {
        let path = state_dir.join("boot");
        let marks = trusted_dir.join("marks");
        let (copies, found) = match TwoCopies::open(&path) {
            Ok(found) => found,
            Err(DurableError::Corrupt { .. }) => return Self::begin_anew(&path, &marks),
            Err(error) => return Err(error),
        };
        let Some(found) = found else {
            let mut store =
                Self { copies, marks, record: BootRecord { format: FORMAT, ..BootRecord::default() } };
            store.raise_marks()?;
            return Ok((store, Kept::Whole));
        };
        match serde_json::from_slice::<BootRecord>(&found.body) {
            Ok(record) if record.format == FORMAT => {
                let kept = if found.is_other_damaged { Kept::OlderCopy } else { Kept::Whole };
                let mut store = Self { copies, marks, record };
                match store.raise_marks() {
                    Ok(()) => Ok((store, kept)),
                    // This place is whole; the other is repaired from it.
                    Err(error) if error.is_damage() => {
                        if let Err(error) = store.write_marks(&store.record) {
                            tracing::warn!(
                                error = crate::chain(&error),
                                "the marks' second place stays damaged"
                            );
                        }
                        Ok((store, Kept::OlderCopy))
                    }
                    Err(error) => Err(error),
                }
            }
            Ok(_) | Err(_) => Self::begin_anew(&path, &marks),
        }
    }

    fn begin_anew(path: &Path, marks: &Path) -> Result<(Self, Kept), DurableError> {
        let record = BootRecord { format: FORMAT, ..BootRecord::default() };
        let mut store = Self { copies: TwoCopies::begin_anew(path), marks: marks.to_owned(), record };
        // Marks are written before the boot record that holds them: where there are none, none was ever committed.
        store.raise_marks()?;
        Ok((store, Kept::Lost))
    }

    /// Takes over marks of the second place that are higher.
    fn raise_marks(&mut self) -> Result<(), DurableError> {
        let Some(bytes) = durable::read_bounded(&self.marks, MAX_MARKS_BYTES)? else { return Ok(()) };
        let marks: BTreeMap<ModelName, HighWater> =
            serde_json::from_slice(&bytes).map_err(|_| DurableError::Corrupt { path: self.marks.clone() })?;
        for (model, mark) in marks {
            let record = self.record.models.entry(model).or_default();
            if record.mark.as_ref().is_none_or(|ours| ours.counter < mark.counter) {
                record.mark = Some(mark);
            }
        }
        Ok(())
    }

    fn write_marks(&self, record: &BootRecord) -> Result<(), DurableError> {
        let bytes = serde_json::to_vec(&marks(record))
            .map_err(|_| DurableError::Corrupt { path: self.marks.clone() })?;
        durable::write_atomic(&self.marks, &bytes)
    }

    /// The record.
    pub fn record(&self) -> &BootRecord {
        &self.record
    }

    /// Makes `record` what counts after the next start. A raised mark is durable in its second place first: after a
    /// power cut in between the mark stands too high for the old record, which only forbids more.
    ///
    /// # Errors
    /// [`DurableError`]; the record is then what it was before.
    pub fn write(&mut self, record: BootRecord) -> Result<(), DurableError> {
        if marks(&self.record) != marks(&record) {
            self.write_marks(&record)?;
        }
        let body =
            serde_json::to_vec(&record).map_err(|_| DurableError::Corrupt { path: self.marks.clone() })?;
        self.copies.write(&body)?;
        self.record = record;
        Ok(())
    }
}

fn marks(record: &BootRecord) -> BTreeMap<ModelName, HighWater> {
    record.models.iter().filter_map(|(model, r)| Some((model.clone(), r.mark.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Counter, Digest};

    fn mark(counter: u64) -> HighWater {
        HighWater {
            digest: Digest::from_bytes([1; 32]),
            counter: Counter(counter),
            fallback: vec![],
            min_counter: Counter(0),
        }
    }

    fn with_mark(store: &BootStore, counter: u64) -> BootRecord {
        let mut record = store.record().clone();
        record.revision = Revision(counter);
        record.models.entry(ModelName::new("digits").unwrap()).or_default().mark = Some(mark(counter));
        record
    }

    fn open(dir: &Path) -> Result<(BootStore, Kept), DurableError> {
        BootStore::open(dir, dir)
    }

    fn counter(store: &BootStore) -> u64 {
        store.record().models[&ModelName::new("digits").unwrap()].mark.as_ref().unwrap().counter.0
    }

    #[test]
    fn record_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, kept) = open(dir.path()).unwrap();
        assert_eq!(kept, Kept::Whole);
        let record = with_mark(&store, 3);
        store.write(record.clone()).unwrap();
        assert_eq!(open(dir.path()).unwrap().0.record(), &record);
    }

    #[test]
    fn ff2_who_signed_the_last_desired_is_kept_and_older_records_are_read() {
        let old = r#"{"format":1,"revision":7,"desired":[],"models":{}}"#;
        let mut record: BootRecord = serde_json::from_str(old).unwrap();
        assert_eq!((record.floor(None), record.signers.len()), (Revision(7), 0));
        assert_eq!(serde_json::to_string(&record).unwrap(), old);
        record.signers.insert(serde_json::from_str(&format!("\"{}\"", "a".repeat(64))).unwrap());
        let again = serde_json::from_str::<BootRecord>(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again, record);
    }

    #[test]
    fn corrupt_copy_falls_back_to_older_copy_but_the_counter_does_not_fall() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path()).unwrap();
        for n in [1, 2] {
            let record = with_mark(&store, n);
            store.write(record).unwrap();
        }
        std::fs::write(dir.path().join("boot.b"), "damaged").unwrap();
        let (store, kept) = open(dir.path()).unwrap();
        assert_eq!((kept, store.record().revision), (Kept::OlderCopy, Revision(1)));
        assert_eq!(counter(&store), 2);
    }

    #[test]
    fn both_copies_lost_keeps_the_counter_and_marks_lost_too_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path()).unwrap();
        let record = with_mark(&store, 7);
        store.write(record).unwrap();
        std::fs::write(dir.path().join("boot.a"), "damaged").unwrap();
        std::fs::write(dir.path().join("boot.b"), "damaged").unwrap();
        let (store, kept) = open(dir.path()).unwrap();
        assert_eq!((kept, counter(&store)), (Kept::Lost, 7));
        std::fs::write(dir.path().join("marks"), "damaged").unwrap();
        assert!(open(dir.path()).is_err());
    }

    #[test]
    fn damaged_marks_are_repaired_from_a_whole_boot_record() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path()).unwrap();
        let record = with_mark(&store, 7);
        store.write(record).unwrap();
        std::fs::write(dir.path().join("marks"), "damaged").unwrap();
        assert_eq!(counter(&open(dir.path()).unwrap().0), 7);
        assert_eq!(open(dir.path()).unwrap().1, Kept::Whole);
    }

    #[test]
    fn deleted_boot_record_does_not_lower_the_counter() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path()).unwrap();
        let record = with_mark(&store, 7);
        store.write(record).unwrap();
        for letter in ["boot.a", "boot.b"] {
            let _ = std::fs::remove_file(dir.path().join(letter));
        }
        assert_eq!(counter(&open(dir.path()).unwrap().0), 7);
    }
}
