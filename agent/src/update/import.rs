//! Import of an archive on a device without a network: the same checks as over the network, in the same order, by the
//! same code. The archive is a repository for the metadata session; what it brings is staged only if all of it is
//! there and verified. Who starts the import decides what runs here, as a Desired does elsewhere, but among signed
//! releases only; a newer Desired takes over again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use protocol::message::{Cause, CauseKind, Hardware};
use protocol::{Counter, Digest, ModelName, ReleaseRef};
use release::archive::{ArchiveError, Limits, Name, Reader};
use release::{BlobRef, DraftManifest, Manifest, Variant};
use sha2::{Digest as _, Sha256};
use trust::Verified;
use trust::desired::{DesiredModel, Mode};

use super::fetch;
use super::memory::{self, Room};
use super::metadata::{MetadataError, Source, TrustedStore};
use crate::durable::{self, DurableError, Readers, cut};
use crate::health::{Clock, disk};
use crate::link::http::FetchError;
use crate::machine::{Event, Phase, Task, step};
use crate::slots::{BootStore, Shelf, ShelfError};

/// All metadata and manifests of an archive together.
const MAX_SMALL_BYTES: u64 = 32 * 1024 * 1024;

/// Why an archive was not taken. What ran before still runs.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Damaged, cut off, or not one of ours.
    #[error("the archive was refused")]
    Archive(#[source] ArchiveError),
    /// It does not say what to import, or says too much.
    #[error("the archive holds {0}")]
    Content(&'static str),
    /// It brings a blob that its manifest does not name.
    #[error("the archive holds the unlisted blob {0}")]
    Unlisted(Digest),
    /// It lacks a blob that this device needs.
    #[error("the archive lacks the blob {0}, which this device needs")]
    Lacking(Digest),
    /// A blob is not what was signed.
    #[error("the archive holds content that was not signed")]
    Blob(#[source] release::BlobError),
    /// This device trusts no root yet: the first one must not come from an archive.
    #[error("this device has no root of trust yet; enrol it first")]
    NoRoot,
    /// The signed chain.
    #[error(
        "the archive is not to be trusted; one that is older than what the device knows has to be exported anew"
    )]
    Metadata(#[source] MetadataError),
    /// The manifest.
    #[error("the archive's manifest was refused")]
    Manifest(#[source] release::ManifestError),
    /// A rule that holds over the network too.
    #[error("the release was refused: {}", .0.detail)]
    Refused(Cause),
    /// The disk.
    #[error("the release can't be kept")]
    Disk(#[source] DurableError),
    /// The shelf.
    #[error("the release can't be kept")]
    Shelf(#[source] ShelfError),
    /// It ran or was tried here before.
    #[error("{release} is here already: {phase}")]
    Known {
        /// Model and version.
        release: String,
        /// Where it stands.
        phase: String,
    },
}

impl ImportError {
    /// Whether this device could not take it, whatever the archive holds.
    pub fn is_of_this_device(&self) -> bool {
        use CauseKind::{DiskFull, Storage};
        match self {
            Self::Disk(_) | Self::Shelf(_) => true,
            Self::Refused(cause) => matches!(cause.kind, DiskFull | Storage),
            Self::Metadata(error) => matches!(error.cause().kind, DiskFull | Storage),
            _ => false,
        }
    }

    /// Whether what this device trusts is damaged: someone has to act.
    pub fn is_trust_damaged(&self) -> bool {
        matches!(self, Self::Metadata(error) if error.is_damage())
    }
}

/// What an import works on; nobody else does meanwhile.
#[derive(Debug)]
pub struct Import<'a> {
    /// Where everything durable lives.
    pub state_dir: &'a Path,
    /// Bounded time.
    pub clock: &'a Clock,
    /// Trusted metadata.
    pub trusted: &'a TrustedStore,
    /// Blobs and manifests.
    pub shelf: &'a Shelf,
    /// The boot record.
    pub boot: &'a mut BootStore,
    /// What the hardware is.
    pub hardware: &'a Hardware,
    /// Disk space that must stay free.
    pub keep_free_bytes: u64,
    /// Memory that all models together may take; 0 is no budget.
    pub memory_budget_bytes: u64,
}

/// What an archive brought.
#[derive(Debug)]
pub struct Taken {
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub release: ReleaseRef,
    /// Why it is not the variant that the publisher prefers, if it is not.
    pub instead: Option<String>,
}

/// The small files of an archive, as a repository.
#[derive(Debug, Default)]
struct Files {
    metadata: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<Digest, Vec<u8>>,
}

impl Source for Files {
    async fn get(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, FetchError> {
        let file = path.rsplit('/').next().unwrap_or(path);
        let digest = file.split('.').next().and_then(|hex| hex.parse::<Digest>().ok());
        let found = match digest {
            Some(digest) => self.manifests.get(&digest),
            None => self.metadata.get(file),
        };
        match found {
            Some(bytes) if u64::try_from(bytes.len()).is_ok_and(|got| got > max_bytes) => {
                Err(FetchError::TooLong { url: file.into(), max_bytes })
            }
            found => Ok(found.cloned()),
        }
    }
}

impl Import<'_> {
    /// Takes the release of an archive; it is tested and swapped in when the agent starts. Returns what it is.
    /// Like a release over the network it comes in the first variant that fits the hardware and the memory budget.
    ///
    /// # Errors
    /// [`ImportError`]; the boot record is as it was then.
    pub async fn take(&mut self, archive: impl Read) -> Result<Taken, ImportError> {
        let mut reader = Reader::new(archive, Limits::default());
        let (files, mut next) = read_small(&mut reader)?;
        let (manifest, fence) = self.verify(&files).await?;
        let digest = only_manifest(&files)?.0;
        let release = ReleaseRef { version: manifest.version.clone(), digest, counter: manifest.counter };
        let model = manifest.model.clone();
        let record = self.boot.record().models.get(&model).cloned().unwrap_or_default();
        let wanted = DesiredModel {
            model: model.clone(),
            release: release.clone(),
            mode: Mode::Replace,
            rollout: None,
            attempt: 0,
        };
        let task = Task::of(&wanted, self.boot.record().revision);
        fetch::permitted(&record, &task).map_err(ImportError::Refused)?;
        fetch::fenced(&record, &manifest).map_err(ImportError::Refused)?;
        let (variant, instead) = self.choose(&manifest)?;
        self.has_room(&manifest, variant)?;
        while let Some((name, size)) = next {
            self.take_blob(&mut reader, &name, size, &manifest, variant)?;
            next = reader.next_file().map_err(ImportError::Archive)?;
        }
        if let Some(lacking) = manifest.blobs_for(variant).find(|blob| !self.shelf.has_blob(blob)) {
            return Err(ImportError::Lacking(lacking.digest));
        }
        let bytes = only_manifest(&files)?.1;
        self.shelf.keep_manifest(digest, bytes).map_err(ImportError::Shelf)?;
        self.persist(&wanted, task, &variant.name, fence)?;
        Ok(Taken { model, release, instead })
    }

    fn choose<'a>(&self, manifest: &'a Manifest) -> Result<(&'a Variant, Option<String>), ImportError> {
        let fitting = fetch::fitting(self.hardware, manifest).map_err(ImportError::Refused)?;
        let used_by_others = self.used_by_others(&manifest.model);
        let room = Room { used_by_others, budget: self.memory_budget_bytes, soft: None };
        memory::choose(&fitting, room).map_err(|refusal| ImportError::Refused(refusal.cause))
    }

    /// What the manifests of the other models that will serve allow them. One that can't be read won't serve.
    fn used_by_others(&self, model: &ModelName) -> u64 {
        let others = self.boot.record().models.iter().filter(|(other, _)| *other != model);
        let held = others.filter_map(|(_, record)| record.active.as_ref());
        let peaks = held.filter_map(|held| {
            let manifest = self.shelf.manifest(held.release.digest).ok()?;
            Some(manifest.variant(&held.variant)?.peak_memory_bytes)
        });
        peaks.fold(0, u64::saturating_add)
    }

    /// The signed chain, then the manifest, as [`fetch`] does; and the model's fence.
    async fn verify(&self, files: &Files) -> Result<(Verified<Manifest>, Counter), ImportError> {
        if !self.trusted.has_root().map_err(ImportError::Disk)? {
            return Err(ImportError::NoRoot);
        }
        // Only to know where to look; what counts comes out of the signed chain.
        let draft = DraftManifest::parse_unsigned(only_manifest(files)?.1).map_err(ImportError::Manifest)?;
        let path = draft.target_path();
        let repository = self.trusted.walk(files, Some(&path), self.clock).await;
        let repository = repository.map_err(ImportError::Metadata)?;
        let target = self.trusted.target(files, &repository, &path).await.map_err(ImportError::Metadata)?;
        let manifest = Manifest::parse(&target).map_err(ImportError::Manifest)?;
        manifest
            .agrees_with(&draft.model, &draft.release_ref(), target.digest())
            .map_err(ImportError::Manifest)?;
        fetch::fenced_off(repository.customs_of(target.role()), &manifest).map_err(ImportError::Refused)?;
        Ok((manifest, fetch::fence_of(repository.customs_of(target.role()))))
    }

    fn has_room(&self, manifest: &Manifest, variant: &Variant) -> Result<(), ImportError> {
        let missing = self.shelf.missing_bytes(manifest.blobs_for(variant));
        let full = |detail| ImportError::Refused(Cause { kind: CauseKind::DiskFull, detail });
        let free = disk::free_bytes(self.state_dir).map_err(|error| full(error.to_string()))?;
        if missing == 0 || free >= missing.saturating_add(self.keep_free_bytes) {
            return Ok(());
        }
        Err(full(format!(
            "{missing} bytes to keep with {} to stay free, but only {free} are",
            self.keep_free_bytes
        )))
    }

    fn take_blob(
        &self,
        reader: &mut Reader<impl Read>,
        name: &Name,
        size: u64,
        manifest: &Manifest,
        variant: &Variant,
    ) -> Result<(), ImportError> {
        let Name::Blob(digest) = name else { return Err(ImportError::Content("more than one release")) };
        let listed = manifest.all_blobs().find(|blob| blob.digest == *digest);
        let blob = listed.ok_or(ImportError::Unlisted(*digest))?;
        if size != blob.size_bytes {
            let length = release::BlobError::Length { digest: *digest, expected: blob.size_bytes, got: size };
            return Err(ImportError::Blob(length));
        }
        let is_needed = manifest.blobs_for(variant).any(|needed| needed == blob);
        if !is_needed || self.shelf.has_blob(blob) {
            // Checked all the same: an archive is wholly as it was signed, or it is refused.
            let mut sink = Hashing { to: io::sink(), hash: Sha256::new() };
            reader.read_to(&mut sink).map_err(ImportError::Archive)?;
            return sink.verify(blob).map(drop);
        }
        let kept = self.keep_blob(reader, blob);
        if kept.is_err() {
            let _ = fs::remove_file(self.shelf.part(blob));
        }
        kept
    }

    fn keep_blob(&self, reader: &mut Reader<impl Read>, blob: &BlobRef) -> Result<(), ImportError> {
        let part = self.shelf.part(blob);
        let disk =
            |operation, source| ImportError::Disk(DurableError::Io { operation, path: part.clone(), source });
        let file = durable::create(Readers::Owner, &part).map_err(|source| disk("create", source))?;
        cut::written();
        let mut sink = Hashing { to: file, hash: Sha256::new() };
        reader.read_to(&mut sink).map_err(ImportError::Archive)?;
        cut::written();
        let file = sink.verify(blob)?;
        file.sync_all().map_err(|source| disk("sync", source))?;
        self.shelf.keep_blob(blob).map_err(ImportError::Shelf)
    }

    /// The update machine goes on from here at the next start: stage, self-test, swap, probation.
    fn persist(
        &mut self,
        wanted: &DesiredModel,
        task: Task,
        variant: &str,
        fence: Counter,
    ) -> Result<(), ImportError> {
        let mut boot = self.boot.record().clone();
        let before = boot.models.remove(&wanted.model).unwrap_or_default();
        let (fenced, _) = step(before, Event::Fenced(fence));
        let (asked, _) = step(fenced, Event::Wanted(task));
        let (after, _) = step(asked, Event::Fetched { variant: variant.into() });
        if !matches!(after.phase, Phase::Verified { .. }) {
            let release = format!("{} {}", wanted.model, wanted.release.version);
            return Err(ImportError::Known { release, phase: format!("{:?}", after.phase.word()) });
        }
        boot.models.insert(wanted.model.clone(), after);
        boot.desired.retain(|other| other.model != wanted.model);
        boot.desired.push(wanted.clone());
        self.boot.write(boot).map_err(ImportError::Disk)
    }
}

/// Metadata and manifests, up to the first blob.
fn read_small(reader: &mut Reader<impl Read>) -> Result<(Files, Option<(Name, u64)>), ImportError> {
    let (mut files, mut total) = (Files::default(), 0_u64);
    loop {
        let next = reader.next_file().map_err(ImportError::Archive)?;
        let Some((name, size)) = next.clone().filter(|(name, _)| !matches!(name, Name::Blob(_))) else {
            return Ok((files, next));
        };
        total = total.saturating_add(size);
        if total > MAX_SMALL_BYTES {
            return Err(ImportError::Content("more metadata than any project has"));
        }
        let mut content = Vec::new();
        reader.read_to(&mut content).map_err(ImportError::Archive)?;
        match name {
            Name::Metadata(file) => drop(files.metadata.insert(file, content)),
            Name::Manifest(digest) => drop(files.manifests.insert(digest, content)),
            Name::Blob(_) => {}
        }
    }
}

fn only_manifest(files: &Files) -> Result<(Digest, &[u8]), ImportError> {
    let mut all = files.manifests.iter();
    match (all.next(), all.next()) {
        (Some((digest, bytes)), None) => Ok((*digest, bytes)),
        (None, _) => Err(ImportError::Content("no release")),
        (Some(_), Some(_)) => Err(ImportError::Content("more than one release")),
    }
}

/// Hashes what goes by.
struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    fn verify(self, blob: &BlobRef) -> Result<W, ImportError> {
        let got = Digest::from_bytes(self.hash.finalize().into());
        blob.verify_digest(got).map_err(ImportError::Blob)?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
