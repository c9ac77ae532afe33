//! What was measured of a release on each hardware class: kept beside the spec, and part of the card that
//! `release build` makes, so that it is signed and travels with the release.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::output::{bytes, items, table, text};

/// What the tables stand under in a card.
const HEADING: &str = "## Measured";
/// Folder beside the spec with a file per hardware class.
const FOLDER: &str = "measured";
/// Most hardware classes of a release.
const MAX_CLASSES: usize = 64;
/// Most nodes of a variant that are shown as not running in int8.
const MAX_FALLBACKS: usize = 20;
/// Largest file of a class.
const MAX_BYTES: u64 = 1024 * 1024;

/// A hardware class's name as a file may carry it.
///
/// # Errors
/// When it has other characters than letters, digits, `-`, `_` and `.`, or starts with a dot.
pub(crate) fn class_name(name: &str) -> Result<&str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(is_plain) {
        bail!("hardware class {name:?}: 1 to 64 letters, digits, - _ and . are allowed, not a dot first");
    }
    Ok(name)
}

/// Keeps what was measured on a class beside the spec.
///
/// # Errors
/// When it can't be written.
pub(crate) fn store(spec: &Path, class: &str, measured: &Value) -> Result<PathBuf> {
    let folder = folder(spec);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = folder.join(format!("{}.json", class_name(class)?));
    let text = serde_json::to_string_pretty(measured)? + "\n";
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// What is kept beside a spec, by hardware class.
///
/// # Errors
/// When a file can't be read or is none that `inspect --store` wrote.
pub(crate) fn stored(spec: &Path) -> Result<BTreeMap<String, Value>> {
    let folder = folder(spec);
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let Some(class) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else {
            continue;
        };
        let cannot = || format!("cannot read {}", path.display());
        let size = path.metadata().with_context(cannot)?.len();
        anyhow::ensure!(size <= MAX_BYTES, "{}: {size} bytes, at most {MAX_BYTES}", path.display());
        let value: Value = serde_json::from_slice(&fs::read(&path).with_context(cannot)?)
            .with_context(|| format!("{} is no measurement", path.display()))?;
        anyhow::ensure!(value["variants"].is_array(), "{} has no variants", path.display());
        found.insert(class_name(class)?.to_owned(), value);
        anyhow::ensure!(found.len() <= MAX_CLASSES, "{}: over {MAX_CLASSES} classes", folder.display());
    }
    Ok(found)
}

/// Leaves out what was measured of another model file, of other golden samples or other steps than are built now:
/// a card is signed, and nobody could tell any more. What `now` says of a variant must be what its row says.
pub(crate) fn fitting(
    classes: BTreeMap<String, Value>,
    now: impl Fn(&str) -> Option<Value>,
) -> (BTreeMap<String, Value>, Vec<String>) {
    let (mut fits, mut left_out) = (BTreeMap::new(), Vec::new());
    for (class, mut measured) in classes {
        let rows = measured["variants"].as_array().cloned().unwrap_or_default();
        let mut kept = Vec::new();
        for row in rows {
            let variant = text(&row, "/variant");
            match now(&variant).map_or(Some("variant"), |now| changed(&row["measured_on"], &now)) {
                None => kept.push(row),
                Some(what) => left_out.push(format!(
                    "{FOLDER}/{class}.json, variant {variant}: measured with another {what} than is built now"
                )),
            }
        }
        if !kept.is_empty() {
            measured["variants"] = Value::Array(kept);
            fits.insert(class, measured);
        }
    }
    (fits, left_out)
}

/// The first part that differs, for people.
fn changed(then: &Value, now: &Value) -> Option<&'static str> {
    let parts = [
        ("model", "model file"),
        ("golden", "set of golden samples"),
        ("signature", "signature, steps or labels"),
    ];
    parts.into_iter().find(|(key, _)| then[*key] != now[*key]).map(|(_, what)| what)
}

fn folder(spec: &Path) -> PathBuf {
    spec.parent().unwrap_or_else(|| Path::new(".")).join(FOLDER)
}

/// A column of the tables: its heading and what it shows of a variant.
type Column = (&'static str, fn(&Value) -> String);

const SIZE: [Column; 7] = [
    ("file", |v| size(v, "size_bytes")),
    ("parameters", |v| count(v, "parameters")),
    ("multiply-adds", |v| count(v, "macs")),
    ("FLOPs", |v| count(v, "flops")),
    ("loaded", |v| size(v, "loaded_bytes")),
    ("peak memory", |v| size(v, "peak_memory_bytes")),
    ("load", |v| millis(&v["load_us"])),
];
const ACCURACY: [Column; 5] = [
    ("accuracy", |v| percent(&v["measured_accuracy"]["share"])),
    ("rows", |v| text(v, "/measured_accuracy/rows")),
    ("data", |v| short(&v["measured_accuracy"]["data_sha256"])),
    ("as claimed", |v| percent(&v["claimed_accuracy"])),
    ("golden samples", |v| format!("{} of {}", text(v, "/golden/passed"), text(v, "/golden/samples"))),
];
const LATENCY: [Column; 5] = [
    ("p50", |v| millis(&v["latency_us"]["p50"])),
    ("p90", |v| millis(&v["latency_us"]["p90"])),
    ("p95", |v| millis(&v["latency_us"]["p95"])),
    ("p99", |v| millis(&v["latency_us"]["p99"])),
    ("runs", |v| text(v, "/latency_us/runs")),
];
const TABLES: [(&str, &[Column]); 3] = [("Size", &SIZE), ("Accuracy", &ACCURACY), ("Latency", &LATENCY)];

/// The three tables of each class, for a terminal.
pub(crate) fn show(classes: &BTreeMap<String, Value>) -> String {
    let mut said = String::new();
    for (title, columns) in TABLES {
        let headings: Vec<&str> = heads(columns).collect();
        said += &[title, "\n", &table(&headings, rows(classes, columns), "nothing was measured"), "\n\n"]
            .concat();
    }
    said
}

/// The part of a card that [`markdown`] made.
pub(crate) fn of_card(card: &str) -> &str {
    card.rfind(HEADING).map_or("", |start| &card[start..])
}

/// How each variant's nodes run, and why some don't in int8.
pub(crate) fn show_runs(classes: &BTreeMap<String, Value>) -> String {
    let variants = classes.values().flat_map(|measured| items(&measured["variants"]));
    let lines: Vec<String> = variants.flat_map(run_lines).collect();
    ["Runs\n", &lines.join("\n"), "\n\n"].concat()
}

fn run_lines(variant: &Value) -> Vec<String> {
    let runs = &variant["runs"];
    let fallen = items(&runs["nodes"]).iter().filter(|node| node["runs"] == "tract");
    let line = |node: &Value| {
        let (op, name, why) = (text(node, "/op"), text(node, "/name"), text(node, "/why"));
        format!("  {op} {name} runs in tract{}: {why}", time_of(node))
    };
    let mut lines = vec![format!("{}: {}", text(variant, "/variant"), summary(runs))];
    if let Some(share) = variant["tract_time_share"].as_f64().filter(|share| *share > 0.0) {
        lines.push(format!("  {:.0} % of the time goes into tract's nodes", share * 100.0));
    }
    lines.extend(fallen.clone().take(MAX_FALLBACKS).map(line));
    let more = fallen.count().saturating_sub(MAX_FALLBACKS);
    if more > 0 {
        lines.push(format!("  and {more} more; --json lists all"));
    }
    lines
}

/// The share of the time that goes into a node of tract's; nodes that run in one go share theirs.
fn time_of(node: &Value) -> String {
    let Some(share) = node["time_share"].as_f64() else { return String::new() };
    let others = node["nodes_in_that_time"].as_u64().unwrap_or(1).saturating_sub(1);
    let with = if others == 0 { String::new() } else { format!(" with {others} more") };
    format!(", {:.1} % of the time{with}", share * 100.0)
}

fn summary(runs: &Value) -> String {
    if let Some(why) = runs["why_all_tract"].as_str() {
        return format!("all of it in tract: {why}");
    }
    let number = |key: &str| text(runs, &["/", key].concat());
    let nodes = format!(
        "{} nodes in int8 ({} kernels), {} in f32 between them, {} in tract",
        number("int8_nodes"),
        number("kernels"),
        number("f32_nodes"),
        number("tract_nodes"),
    );
    // Devices don't report these.
    if runs["int8_macs"].is_null() {
        return nodes;
    }
    format!(
        "{nodes}; {} multiply-adds in int8, weights {}, activations {}",
        count(runs, "int8_macs"),
        size(runs, "weight_bytes"),
        size(runs, "activation_bytes"),
    )
}

/// The three tables in Markdown, for the card; nothing without measurements.
pub(crate) fn markdown(classes: &BTreeMap<String, Value>) -> String {
    if classes.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut said = ["\n", HEADING, "\n"].concat();
    for (title, columns) in TABLES {
        let headings: Vec<String> = heads(columns).map(str::to_owned).collect();
        said +=
            &["\n### ", title, "\n\n", &line(&headings), "|", &"---|".repeat(headings.len()), "\n"].concat();
        said.extend(rows(classes, columns).iter().map(|cells| line(cells)));
    }
    said
}

fn heads(columns: &[Column]) -> impl Iterator<Item = &'static str> {
    ["class", "variant"].into_iter().chain(columns.iter().map(|(heading, _)| *heading))
}

fn rows(classes: &BTreeMap<String, Value>, columns: &[Column]) -> Vec<Vec<String>> {
    let variants = classes.iter().flat_map(|(class, measured)| {
        items(&measured["variants"]).iter().map(move |variant| (class, variant))
    });
    variants
        .map(|(class, variant)| {
            let values = columns.iter().map(|(_, value)| value(variant));
            [class.clone(), text(variant, "/variant")].into_iter().chain(values).collect()
        })
        .collect()
}

fn size(variant: &Value, key: &str) -> String {
    variant[key].as_u64().map_or_else(|| "-".into(), bytes)
}

fn count(variant: &Value, key: &str) -> String {
    match variant[key].as_u64() {
        None => "-".into(),
        Some(count) if count >= 10_000_000 => format!("{:.0} M", count as f64 / 1e6),
        Some(count) if count >= 1_000_000 => format!("{:.1} M", count as f64 / 1e6),
        Some(count) if count >= 1000 => format!("{:.1} k", count as f64 / 1e3),
        Some(count) => count.to_string(),
    }
}

fn millis(micros: &Value) -> String {
    match micros.as_u64() {
        None => "-".into(),
        Some(micros) if micros < 1000 => format!("{micros} µs"),
        Some(micros) => format!("{:.2} ms", micros as f64 / 1e3),
    }
}

/// The first digits of a hash: enough to see whether two are the same.
fn short(digest: &Value) -> String {
    digest.as_str().map_or_else(|| "-".into(), |digest| digest.chars().take(12).collect())
}

fn percent(share: &Value) -> String {
    share.as_f64().map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn measured() -> BTreeMap<String, Value> {
        let variant = json!({
            "variant": "int8", "size_bytes": 2048, "macs": 568_700_000_u64, "parameters": 4_220_000,
            "flops": 1_137_400_000_u64, "measured_on": { "model": "a1", "golden": "b2", "signature": "c3" },
            "latency_us": { "p50": 1500, "runs": 30 }, "measured_accuracy": { "share": 0.958, "rows": 500 },
            "golden": { "passed": 16, "samples": 16 },
        });
        BTreeMap::from([("cam".to_owned(), json!({ "variants": [variant] }))])
    }

    #[test]
    fn the_card_gets_three_tables() {
        let card = markdown(&measured());
        assert_eq!(card.matches("### ").count(), 3);
        assert!(card.contains("| cam | int8 | 2.0 KiB | 4.2 M | 569 M | 1137 M | - | - | - |"), "{card}");
        assert!(card.contains("| cam | int8 | 95.8 % | 500 | - | - | 16 of 16 |"), "{card}");
        assert!(card.contains("| cam | int8 | 1.50 ms | - | - | - | 30 |"), "{card}");
        assert_eq!(markdown(&BTreeMap::new()), "");
        assert_eq!(of_card(&["# My model\n", &card].concat()), card.trim_start());
        assert_eq!(of_card("# My model\n"), "");
    }

    #[test]
    fn what_was_measured_of_another_build_is_left_out_and_named() {
        let now = json!({ "model": "a1", "golden": "b2", "signature": "c3" });
        let (fits, left_out) = fitting(measured(), |_| Some(now.clone()));
        assert_eq!((fits, left_out), (measured(), Vec::new()));
        for (part, what) in [("model", "model file"), ("golden", "golden samples"), ("signature", "steps")] {
            let mut now = now.clone();
            now[part] = json!("d4");
            let (fits, left_out) = fitting(measured(), |_| Some(now.clone()));
            assert!(fits.is_empty() && left_out.len() == 1, "{part}");
            assert!(left_out[0].starts_with("measured/cam.json, variant int8:"), "{left_out:?}");
            assert!(left_out[0].contains(what), "{left_out:?}");
        }
        assert!(fitting(measured(), |_| None).1[0].contains("another variant"));
        let before = BTreeMap::from([("cam".to_owned(), json!({ "variants": [{ "variant": "int8" }] }))]);
        assert!(fitting(before, |_| Some(now.clone())).0.is_empty(), "it doesn't say what was measured");
    }

    #[test]
    fn a_node_s_share_of_the_time_stands_beside_its_reason() {
        let node = json!({
            "op": "Gather", "name": "g", "runs": "tract", "why": "no int8 step for it", "time_share": 0.25,
            "nodes_in_that_time": 3,
        });
        let variant = json!({ "variant": "int8", "runs": { "nodes": [node] } });
        let shown = show_runs(&BTreeMap::from([("cam".to_owned(), json!({ "variants": [variant] }))]));
        assert!(shown.contains("Gather g runs in tract, 25.0 % of the time with 2 more: no int8"), "{shown}");
    }

    #[test]
    fn a_class_is_no_path() {
        assert!(class_name("cam-a53").is_ok());
        for bad in ["", "../up", ".hidden", "a b", "a/b"] {
            assert!(class_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_was_stored_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let spec = folder.path().join("release.toml");
        assert!(stored(&spec).unwrap().is_empty());
        store(&spec, "cam", &measured()["cam"]).unwrap();
        assert_eq!(stored(&spec).unwrap(), measured());
        fs::write(folder.path().join("measured/odd.json"), "{}").unwrap();
        assert!(stored(&spec).unwrap_err().to_string().contains("no variants"));
    }
}
