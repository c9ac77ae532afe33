//! From a spec to a release folder. Every variant is loaded and answers the golden samples before anything is
//! called built, with the same code that runs on the device.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use inference::golden::{self, GoldenReport, GoldenSet};
use inference::{Model, Spec};
use profile::Reference;
use profile::features::Extractor;
use protocol::{Digest, ReleaseRef, Version};
use release::{BlobRef, DraftManifest, FORMAT, Manifest, Variant};
use serde_json::{Value, json};

use super::super::Context;
use super::{inspect, takers, within};
use crate::folder::ReleaseFolder;
use crate::metadata::now;
use crate::oms;
use crate::output::{Format, bytes, facts, items, table, text};
use crate::spec::{Fallback, ReleaseSpec};

/// What to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The spec, e.g. release.toml.
    spec: PathBuf,
    /// The release folder to make; default: the spec's folder and `build`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// When the release counts as made (RFC 3339); default: now. A fixed time makes the same release again.
    #[arg(long)]
    created: Option<String>,
    /// Seconds that loading and trying a variant may take.
    #[arg(long, default_value_t = within::DEFAULT_S, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    time_limit: u64,
}

/// Builds.
///
/// # Errors
/// When a file is missing, a bound is broken, a variant doesn't load or answers wrongly.
pub(crate) async fn run(
    args: &Args,
    context: impl FnOnce() -> Result<Context>,
    format: Format,
) -> Result<()> {
    let spec = ReleaseSpec::read(&args.spec)?;
    let base = args.spec.parent().unwrap_or_else(|| Path::new("."));
    let out = args.out.clone().unwrap_or_else(|| base.join("build"));
    let fallback = fallbacks(&spec, &out, context).await?;
    let created = match &args.created {
        Some(text) => trust::parse_rfc3339(text)
            .with_context(|| format!("{text:?} is no time such as 2026-01-31T12:00:00Z"))?,
        None => now()?,
    };
    let folder = ReleaseFolder::at(&out);
    folder.begin()?;
    let tables = tables(&args.spec)?;
    let manifest = compose(&spec, base, &folder, fallback, (created, &tables))?;
    let shown = args.spec.display();
    takers::check(&manifest).with_context(|| format!("{shown}: no device could take this release"))?;
    let draft = DraftManifest::compose(&manifest)
        .with_context(|| format!("{shown}: the release is not acceptable"))?;
    let tried = preflight(&draft, &folder, Duration::from_secs(args.time_limit))?;
    folder.write("manifest.json", draft.bytes())?;
    let said = json!({
        "model": draft.model, "version": draft.version, "counter": draft.counter, "digest": draft.digest(),
        "folder": out, "variants": tried,
    });
    format.print(&said, show)
}

fn compose(
    spec: &ReleaseSpec,
    base: &Path,
    folder: &ReleaseFolder,
    fallback: Vec<ReleaseRef>,
    (created, tables): (protocol::UnixMillis, &str),
) -> Result<Manifest> {
    let add = |path: &Path, media_type: &str| -> Result<BlobRef> {
        let path = base.join(path);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        folder.add_blob(&bytes, media_type)
    };
    let variant = |v: &crate::spec::VariantSpec| -> Result<Variant> {
        Ok(Variant {
            name: v.name.clone(),
            precision: v.precision,
            model: add(&v.file, "application/onnx")?,
            hardware: v.hardware.clone(),
            peak_memory_bytes: v.peak_memory_bytes,
            accuracy: v.accuracy,
        })
    };
    let mut spec = spec.clone();
    // What stands there was checked, never claimed.
    if let Some(claimed) = spec.lineage.keys().find(|key| key.starts_with(oms::LINEAGE)) {
        bail!("lineage.{claimed} is written by the check of signed_model; leave it out of the spec");
    }
    let variants: Vec<Variant> = spec.variants.iter().map(variant).collect::<Result<_>>()?;
    if let Some(signed) = &spec.signed_model {
        let vouched = oms::check(base, signed).context("the third-party model is not acceptable")?;
        let models: Vec<_> = variants.iter().map(|v| (v.name.clone(), v.model.digest)).collect();
        spec.lineage.extend(vouched.lineage(&models));
    }
    Ok(Manifest {
        format: FORMAT,
        variants,
        reference: add(&spec.reference, "application/vnd.flotilla.reference+json")
            .context("the reference profile is made by: flotilla reference build")?,
        golden: add(&spec.golden, "application/vnd.flotilla.golden+json")?,
        card: card(&base.join(&spec.card), tables, folder)?,
        model: spec.model,
        version: spec.version,
        counter: spec.counter,
        created,
        min_agent_version: spec.min_agent_version,
        min_counter: spec.min_counter,
        hardware: spec.hardware,
        runtime: spec.runtime,
        inputs: spec.inputs,
        outputs: spec.outputs,
        pre: spec.pre,
        post: spec.post,
        labels: spec.labels,
        monitor: spec.monitor,
        budgets: spec.budgets,
        probation: spec.probation,
        fallback,
        privacy: spec.privacy,
        lineage: spec.lineage,
    })
}

/// What was measured of the very files that are built, on each hardware class.
fn tables(spec: &Path) -> Result<String> {
    let stored = inspect::stored(spec)?;
    if stored.is_empty() {
        return Ok(String::new());
    }
    let subject = inspect::Subject::at(spec)?;
    let golden = subject.golden()?;
    let now = |name: &str| {
        let (_, onnx) = subject.variant(name).ok()?;
        Some(subject.fingerprint(&onnx, &golden))
    };
    let (fits, left_out) = inspect::fitting(stored, now);
    for row in left_out {
        eprintln!(
            "warning: left out of the card: {row}; measure again: flotilla release inspect SPEC --store"
        );
    }
    Ok(inspect::markdown(&fits))
}

/// The card, with what was measured on each hardware class after the publisher's own words.
fn card(path: &Path, tables: &str, folder: &ReleaseFolder) -> Result<BlobRef> {
    let mut card = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    card.extend_from_slice(tables.as_bytes());
    folder.add_blob(&card, "text/markdown")
}

/// Loads every variant and runs the golden samples, as the device will.
fn preflight(manifest: &Manifest, folder: &ReleaseFolder, limit: Duration) -> Result<Vec<Value>> {
    check_reference(manifest, &folder.blob(&manifest.reference)?)?;
    let golden =
        GoldenSet::parse(&folder.blob(&manifest.golden)?).context("the golden samples are not acceptable")?;
    let golden = Arc::new(golden);
    let mut tried = Vec::new();
    for variant in &manifest.variants {
        eprintln!("trying variant {} on {} golden samples", variant.name, golden.samples.len());
        let onnx = folder.blob(&variant.model)?;
        let refused = || format!("variant {} can't be loaded", variant.name);
        let spec = Spec::of(manifest).with_context(refused)?;
        let until = Instant::now() + limit;
        let loading = within::limit("loading it", limit, move || Model::load(&onnx, spec));
        let model = loading.and_then(|loaded| Ok(loaded?)).with_context(refused)?;
        let (left, set) = (until.saturating_duration_since(Instant::now()), golden.clone());
        let checking = move || {
            let start = Instant::now();
            golden::check(&model, &set, &mut || start.elapsed())
        };
        let Ok(report) = within::limit("running its golden samples", left, checking)
            .with_context(|| format!("variant {} can't be tried", variant.name))?;
        if !report.is_passed() {
            bail!("variant {}: {}", variant.name, failure(&report));
        }
        warn_if_slow(&variant.name, micros(report.p95), manifest.budgets.latency_p95_us);
        tried.push(json!({
            "variant": variant.name, "size_bytes": variant.model.size_bytes, "accuracy": variant.accuracy,
            "samples": report.samples, "p50_us": micros(report.p50), "p95_us": micros(report.p95),
        }));
    }
    Ok(tried)
}

/// A device could run the model without a sound reference, but nobody would ever see how well.
fn check_reference(manifest: &Manifest, bytes: &[u8]) -> Result<()> {
    let made_by = "the reference profile is not acceptable (it is made by: flotilla reference build)";
    let reference = Reference::parse(bytes).context(made_by)?;
    let (labels, classes) = (&manifest.labels, reference.schema.classes());
    if !labels.is_empty() && classes == 0 {
        bail!(
            "labels: the reference profile counts no classes, so that feedback would be refused; make it again: \
             flotilla reference build, with --empty where no CSV holds the inputs"
        );
    }
    if !labels.is_empty() && labels.len() != classes {
        bail!("labels: {} are named, the reference profile was made with {classes} classes", labels.len());
    }
    let (made_for, monitor) =
        (&reference.extractor, inference::features::extractor(manifest.monitor.as_ref()));
    if *made_for != monitor {
        bail!(
            "reference: it counts {}, monitor asks for {}; make it again: flotilla reference build",
            counted(made_for),
            counted(&monitor)
        );
    }
    Ok(())
}

/// What an extractor looks at, for people.
fn counted(extractor: &Extractor) -> String {
    match extractor {
        Extractor::Image { input, channels, layout } => {
            format!("images of {channels} channels ({layout:?}) in input {input:?}")
        }
        Extractor::Columns { input, names } => format!("{} columns of input {input:?}", names.len()),
        Extractor::Nothing => "no feature".to_owned(),
    }
}

fn failure(report: &GoldenReport) -> String {
    let first = report.first_failure.clone().unwrap_or_else(|| "answers differ".into());
    format!("{} of {} golden samples passed; first: {first}", report.passed, report.samples)
}

/// Only a warning: the device may be faster or slower than this machine, and judges for itself.
fn warn_if_slow(variant: &str, p95_us: u64, budget_us: u64) {
    if p95_us > budget_us {
        eprintln!(
            "warning: variant {variant} took {p95_us} µs (p95) on this machine, its budget on the device is {budget_us} µs; \
             a device that is no faster will refuse the release"
        );
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A fallback by version is one that was built beside this release, or one on the server.
async fn fallbacks(
    spec: &ReleaseSpec,
    out: &Path,
    context: impl FnOnce() -> Result<Context>,
) -> Result<Vec<ReleaseRef>> {
    let mut found = Vec::new();
    let mut unknown = Vec::new();
    for fallback in &spec.fallback {
        match fallback {
            Fallback::Exact(release) => found.push(release.clone()),
            Fallback::Version(version) => match beside(spec, out, version)? {
                Some(release) => found.push(release),
                None => unknown.push(version),
            },
        }
    }
    if unknown.is_empty() {
        return Ok(found);
    }
    let missing =
        format!("fallback {} is not built beside {}; looked for on the server", unknown[0], out.display());
    let context = context().with_context(|| missing.clone())?;
    for version in unknown {
        let path = format!("/models/{}/releases/{version}", spec.model);
        let answer = context.client.get(&path).await.with_context(|| missing.clone())?;
        let digest: Digest =
            text(&answer, "/digest").parse().context("the server's release has no digest")?;
        let counter = answer["counter"].as_u64().context("the server's release has no counter")?;
        found.push(ReleaseRef { version: version.clone(), digest, counter: protocol::Counter(counter) });
    }
    Ok(found)
}

fn beside(spec: &ReleaseSpec, out: &Path, version: &Version) -> Result<Option<ReleaseRef>> {
    let sibling = out.parent().unwrap_or_else(|| Path::new(".")).join(version.as_str());
    if !sibling.join("manifest.json").exists() {
        return Ok(None);
    }
    let manifest = ReleaseFolder::at(&sibling).manifest()?;
    let is_it = manifest.model == spec.model && manifest.version == *version;
    Ok(is_it.then(|| manifest.release_ref()))
}

fn show(said: &Value) -> String {
    let head = facts(&[
        ("model", text(said, "/model")),
        ("version", text(said, "/version")),
        ("counter", text(said, "/counter")),
        ("digest", text(said, "/digest")),
        ("folder", text(said, "/folder")),
    ]);
    let row = |variant: &Value| {
        vec![
            text(variant, "/variant"),
            bytes(variant["size_bytes"].as_u64().unwrap_or_default()),
            text(variant, "/accuracy"),
            text(variant, "/samples"),
            format!("{} µs", text(variant, "/p95_us")),
        ]
    };
    let rows = items(&said["variants"]).iter().map(row).collect();
    format!(
        "{head}\n{}",
        table(&["variant", "size", "accuracy", "golden samples", "p95 here"], rows, "no variant")
    )
}
