//! An old release again under a new counter: the way back when a newer one turned out bad and is fenced off.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use protocol::{Counter, Version};
use release::{DraftManifest, Manifest};
use serde_json::json;

use crate::folder::ReleaseFolder;
use crate::metadata::now;
use crate::output::{Format, facts, text};

/// Which release, and what is new about it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the old release.
    folder: PathBuf,
    /// Its new version.
    #[arg(long)]
    version: Version,
    /// Its new counter, above the bad release's.
    #[arg(long)]
    counter: u64,
    /// Fence: lower counters are never accepted again, not even as a fallback.
    #[arg(long)]
    min_counter: Option<u64>,
    /// The release folder to make.
    #[arg(long)]
    out: PathBuf,
}

/// Makes the folder; blobs, models and golden samples stay what they were.
///
/// # Errors
/// When the old folder was changed, or the counter doesn't rise.
pub(crate) fn run(args: &Args, format: Format) -> Result<()> {
    let old = ReleaseFolder::at(&args.folder);
    let manifest = old.manifest()?;
    let draft =
        DraftManifest::compose(&renewed(&manifest, args)?).context("the release is not acceptable")?;
    let folder = ReleaseFolder::at(&args.out);
    folder.begin()?;
    for blob in manifest.all_blobs() {
        folder.add_blob(&old.blob(blob)?, &blob.media_type)?;
    }
    folder.write("manifest.json", draft.bytes())?;
    let said = json!({
        "model": draft.model, "version": draft.version, "counter": draft.counter, "digest": draft.digest(),
        "min_counter": draft.min_counter, "renews": manifest.version, "folder": args.out,
    });
    format.print(&said, |said| {
        facts(&[
            ("model", text(said, "/model")),
            ("version", format!("{}, which is {} again", text(said, "/version"), text(said, "/renews"))),
            ("counter", text(said, "/counter")),
            ("fence", text(said, "/min_counter")),
            ("digest", text(said, "/digest")),
            ("folder", text(said, "/folder")),
        ])
    })
}

fn renewed(old: &Manifest, args: &Args) -> Result<Manifest> {
    let counter = Counter(args.counter);
    if counter <= old.counter {
        bail!("counter {} is not above {}, the old release's", args.counter, old.counter.0);
    }
    if args.version == old.version {
        bail!("version {} is the old one; a renewed release has its own", args.version);
    }
    let min_counter = args.min_counter.map_or(old.min_counter, Counter);
    if min_counter < old.min_counter || min_counter > counter {
        bail!(
            "a fence of {} is not between {}, the old release's, and {}, the new one's counter",
            min_counter.0,
            old.min_counter.0,
            counter.0
        );
    }
    let mut new = old.clone();
    new.version = args.version.clone();
    new.counter = counter;
    new.min_counter = min_counter;
    new.created = now()?;
    // What stands below the fence could never be gone back to.
    new.fallback.retain(|fallback| fallback.counter >= min_counter);
    new.lineage.insert("renews".into(), old.version.to_string());
    Ok(new)
}
