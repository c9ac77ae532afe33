//! Showing a release: what a spec or a folder holds and how each variant does on this machine, or what the
//! server knows, and how each variant does on a device.

mod fleet;
mod job;
mod made_of;
mod measured;
mod probe;
mod subject;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use inference::int8::Int8;
use inference::int8::kernel::Level;
use serde_json::{Value, json};

pub(crate) use measured::{fitting, markdown, stored};
pub(crate) use probe::{Args as ProbeArgs, run as probe};
pub(crate) use subject::Subject;

use super::super::Context;
use super::within;
use crate::folder::ReleaseFolder;
use crate::metadata::claims;
use crate::output::{Format, bytes, facts, items, table, text};

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The spec (release.toml), the release folder, or the model's name.
    release: String,
    /// The version on the server.
    version: Option<String>,
    /// Evaluation data as CSV, a column `label` among them: measures each variant's accuracy on this machine.
    #[arg(long, conflicts_with = "version")]
    data: Option<PathBuf>,
    /// Hardware class that this machine stands for [default: its architecture and int8 level]; with MODEL VERSION,
    /// measure each variant on a connected device of this class.
    #[arg(long)]
    class: Option<String>,
    /// Measure each variant of MODEL VERSION on this device, beside what serves there.
    #[arg(long, value_name = "DEVICE", requires = "version", conflicts_with = "class")]
    on: Option<String>,
    /// Keep the tables beside the spec: the next build puts them into the release's card.
    #[arg(long, conflicts_with = "version")]
    store: bool,
    /// Seconds that loading and measuring a variant may take.
    #[arg(long, default_value_t = within::DEFAULT_S, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    time_limit: u64,
}

/// Shows it.
///
/// # Errors
/// When there is no such release, or one of its variants can't be loaded or fails a golden sample; the operator is named.
/// When a device was to measure them and couldn't.
pub(crate) async fn run(
    args: &Args,
    context: impl FnOnce() -> Result<Context>,
    format: Format,
) -> Result<()> {
    if let Some(version) = &args.version {
        let context = context()?;
        return published(args, version, &context).await;
    }
    let path = Path::new(&args.release);
    if args.store && !path.is_file() {
        bail!("--store takes the spec: the tables go into the card when the release is built");
    }
    let mut said = if path.is_file() { json!({}) } else { folder(path)? };
    let class = class_here(args.class.as_deref(), args.store, Int8::from_env())?;
    let tried = measure(path, args.data.as_deref(), args.time_limit)?;
    said["class"] = json!(class);
    said["warnings"] = tried["warnings"].clone();
    said["measured"] = json!({ &class: { "variants": tried["variants"] } });
    if args.store {
        let file = measured::store(path, &class, &said["measured"][&class])?;
        eprintln!("kept in {}", file.display());
    }
    format.print(&said, show)?;
    let golden = |variant: &&Value| variant["golden"]["passed"] != variant["golden"]["samples"];
    if let Some(variant) = items(&tried["variants"]).iter().find(golden) {
        bail!("variant {} fails a golden sample, so no device would take it", text(variant, "/variant"));
    }
    Ok(())
}

/// The class that this machine stands for.
fn class_here(asked: Option<&str>, is_stored: bool, int8: Int8) -> Result<String> {
    let default = default_class(int8);
    if is_stored && int8 == Int8::Off && asked.is_some_and(|class| class != default) {
        bail!(
            "FLOTILLA_INT8 is off: tract's times are kept under {default}, not as another class's; leave --class out"
        );
    }
    measured::class_name(asked.unwrap_or(&default)).map(str::to_owned)
}

/// What this machine is called where nobody says otherwise. tract's times are kept under a name of their own.
fn default_class(int8: Int8) -> String {
    let level = match int8 {
        Int8::On => Level::detect().to_string(),
        Int8::Off => "tract".to_owned(),
    };
    format!("{}-{level}", std::env::consts::ARCH)
}

/// What the server knows, after measuring if that is asked for.
async fn published(args: &Args, version: &str, context: &Context) -> Result<()> {
    let client = &context.client;
    let mut found = client.get(&format!("/models/{}/releases/{version}", args.release)).await?;
    let place = args.on.as_deref().map(job::Place::Device);
    let mut wrong = None;
    if let Some(place) = place.or(args.class.as_deref().map(job::Place::Class)) {
        wrong = job::measure(client, &found, place, args.time_limit).await?;
    }
    found["on_devices"] = fleet::measured(client, &args.release, version).await?;
    let (mut classes, mut failures) = job::found(client, &found).await?;
    if !classes.is_empty() {
        match made_of::count(client, &found, args.time_limit).await {
            Ok(made_of) => job::add(&mut classes, &made_of),
            Err(error) => failures.push(format!("parameters and multiply-adds are not known: {error:#}")),
        }
        found["measured"] = json!(classes);
    }
    found["warnings"] = json!(failures);
    context.format.print(&found, show)?;
    wrong.map_or(Ok(()), |why| bail!("{why}"))
}

/// Tries every variant in a process of its own.
fn measure(path: &Path, data: Option<&Path>, time_limit: u64) -> Result<Value> {
    let subject = Subject::at(path)?;
    let (mut variants, mut warnings) = (Vec::new(), Vec::new());
    for variant in &subject.variants {
        eprintln!("trying variant {}", variant.name);
        let found = probed(path, &variant.name, data, time_limit)
            .with_context(|| format!("variant {} can't be released", variant.name))?;
        let above = |key: &str, pointer: &str, allowed: u64, whose: &str| {
            let got = found.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
            (got > allowed).then(|| format!("{}: {key} {got} is over the {whose}'s {allowed}", variant.name))
        };
        let p95 = above("p95 in µs", "/latency_us/p95", subject.budgets.latency_p95_us, "budget");
        let loaded = above("loaded bytes", "/loaded_bytes", subject.budgets.memory_bytes, "budget");
        let peak = above("peak memory", "/peak_memory_bytes", variant.peak_memory_bytes, "variant");
        let golden = (found["golden"]["passed"] != found["golden"]["samples"])
            .then(|| format!("{}: golden {}", variant.name, text(&found, "/golden/first_failure")));
        let opset = found["opset"].as_i64().filter(|opset| !inference::TESTED_OPSETS.contains(opset));
        let (first, last) = inference::TESTED_OPSETS.into_inner();
        let opset = opset
            .map(|opset| format!("{}: it uses opset {opset}; {first} to {last} are tested", variant.name));
        let mixes = (found["mixes_rows"] == true).then(|| {
            format!(
                "{}: it mixes the rows of a batch, or may: a row's answer can depend on the others",
                variant.name
            )
        });
        warnings.extend([p95, loaded, peak, golden, opset, mixes].into_iter().flatten());
        variants.push(found);
    }
    Ok(json!({ "variants": variants, "warnings": warnings }))
}

fn probed(path: &Path, variant: &str, data: Option<&Path>, time_limit: u64) -> Result<Value> {
    let this = std::env::current_exe().context("this program doesn't know its own file")?;
    let mut command = Command::new(this);
    command.args(["release", "probe"]).arg(path).args(["--variant", variant]);
    command.args(["--time-limit", &time_limit.to_string()]);
    command.args(data.iter().flat_map(|data| [Path::new("--data"), data]));
    let output = command.stdin(Stdio::null()).output().context("cannot start this program again")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", cause(said.trim(), output.status));
    }
    serde_json::from_slice(&output.stdout).context("the measuring process gave no JSON")
}

/// Why the measuring process failed. One that gets no memory says so and aborts; the kernel's way out says nothing.
fn cause(said: &str, status: ExitStatus) -> String {
    if let Some(line) = said.lines().find(|line| line.starts_with("memory allocation of ")) {
        return format!("it needs more memory than this machine has free ({line})");
    }
    match (final_words(said), status.signal()) {
        ("", Some(9)) => "it was killed, probably because the machine had no memory left".to_owned(),
        ("", _) => status.to_string(),
        (why, _) => why.to_owned(),
    }
}

/// The error that a process ended with; what the runtime printed of a panic that was caught stands before it.
fn final_words(said: &str) -> &str {
    let start = said.rfind("\nerror: ").map_or(0, |place| place + 1);
    said[start..].strip_prefix("error: ").unwrap_or(&said[start..])
}

/// What a folder holds, and who signed it until when.
fn folder(path: &Path) -> Result<Value> {
    let folder = ReleaseFolder::at(path);
    let manifest = folder.manifest()?;
    let mut signatures = Vec::new();
    for (role, content) in folder.metadata()? {
        let claims = claims(&content)?;
        for key in claims.signers {
            let until = trust::format_rfc3339(claims.expires);
            signatures
                .push(json!({ "role": role, "version": claims.version, "key_id": key, "expires_at": until }));
        }
    }
    Ok(json!({
        "model": manifest.model, "version": manifest.version, "counter": manifest.counter,
        "digest": manifest.digest(), "manifest": manifest_json(&manifest), "signatures": signatures,
    }))
}

fn manifest_json(manifest: &release::DraftManifest) -> Value {
    serde_json::from_slice(manifest.bytes()).unwrap_or_default()
}

fn show(said: &Value) -> String {
    let mut shown = String::new();
    if said.get("manifest").is_some() {
        shown += &show_manifest(said);
        shown += "\n\n";
    }
    if let Some(card) = said["card"].as_str() {
        shown += measured::of_card(card);
    }
    shown += &fleet::show(&said["on_devices"]);
    if let Some(classes) = said["measured"].as_object() {
        let classes: BTreeMap<String, Value> = classes.clone().into_iter().collect();
        shown += &measured::show(&classes);
        shown += &measured::show_runs(&classes);
    }
    let warnings = items(&said["warnings"]).iter().filter_map(Value::as_str);
    shown + &warnings.map(|warning| ["warning: ", warning, "\n"].concat()).collect::<String>()
}

/// Whose signed model the release comes from, as it was checked when the release was built.
fn third_party(manifest: &Value) -> String {
    let lineage = |name: &str| text(manifest, &format!("/lineage/{name}"));
    if lineage("oms_model") == "-" {
        return String::new();
    }
    format!(
        "{} ({} files), OMS signature by key {}, variants as signed: {}",
        lineage("oms_model"),
        lineage("oms_files"),
        crate::metadata::short(&lineage("oms_public_key")),
        lineage("oms_unchanged_variants"),
    )
}

fn show_manifest(said: &Value) -> String {
    let manifest = &said["manifest"];
    let fallback: Vec<String> = items(&manifest["fallback"]).iter().map(|f| text(f, "/version")).collect();
    let head = facts(&[
        ("model", text(said, "/model")),
        ("version", text(said, "/version")),
        ("counter", text(said, "/counter")),
        ("digest", text(said, "/digest")),
        ("created", text(manifest, "/created")),
        ("needs agent", text(manifest, "/min_agent_version")),
        (
            "runtime",
            format!("tract {}, opset {}", text(manifest, "/runtime/tract"), text(manifest, "/runtime/opset")),
        ),
        ("fence", text(manifest, "/min_counter")),
        ("may go back to", fallback.join(", ")),
        ("third party", third_party(manifest)),
    ]);
    let variant = |v: &Value| {
        let size = v.pointer("/model/size_bytes").and_then(Value::as_u64).unwrap_or_default();
        vec![
            text(v, "/name"),
            text(v, "/precision"),
            bytes(size),
            bytes(v["peak_memory_bytes"].as_u64().unwrap_or_default()),
            text(v, "/accuracy"),
        ]
    };
    let variants = items(&manifest["variants"]).iter().map(variant).collect();
    let signature = |s: &Value| {
        let until = s.get("expires_at").unwrap_or(&said["metadata_expires_at"]);
        vec![text(s, "/role"), crate::metadata::short(&text(s, "/key_id")), text(until, "")]
    };
    let signatures = items(&said["signatures"]).iter().map(signature).collect();
    format!(
        "{head}\n{}\n\n{}",
        table(&["variant", "precision", "size", "peak memory", "accuracy"], variants, "no variant"),
        table(&["signed by role", "key", "until"], signatures, "not signed"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::{Int8, cause, class_here, default_class, final_words};

    #[test]
    fn times_without_int8_are_kept_under_a_name_of_their_own() {
        assert!(default_class(Int8::Off).ends_with("-tract"));
        assert_ne!(default_class(Int8::On), default_class(Int8::Off));
        assert!(class_here(Some("cam"), true, Int8::Off).is_err());
        for (is_stored, int8) in [(false, Int8::Off), (true, Int8::On)] {
            assert_eq!(class_here(Some("cam"), is_stored, int8).unwrap(), "cam");
        }
    }

    #[test]
    fn only_the_error_itself_is_passed_on() {
        assert_eq!(final_words("error: no model"), "no model");
        let noisy = "thread 'main' panicked at a.rs:1:1:\nindex out of bounds\nerror: it panicked: index";
        assert_eq!(final_words(noisy), "it panicked: index");
        assert_eq!(final_words("killed"), "killed");
    }

    #[test]
    fn a_process_without_memory_is_told_in_one_sentence() {
        let aborted = "memory allocation of 4294967296 bytes failed\nstack backtrace:\n   0: 0x5581";
        let why = cause(aborted, ExitStatus::from_raw(6));
        assert!(why.contains("memory allocation of 4294967296 bytes") && !why.contains("backtrace"), "{why}");
        assert!(cause("", ExitStatus::from_raw(9)).contains("no memory left"));
        assert_eq!(cause("error: no model", ExitStatus::from_raw(256)), "no model");
    }
}
