//! From what was measured to the object that is printed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::column::{Column, Features, Measured, Net, median};
use super::engine::Maker;
use super::models::Models;

/// Adds everything to `said`.
pub(super) fn summarise(nets: &[Net], models: &Models, said: &mut Map<String, Value>) -> Result<()> {
    let peaks = peaks(nets)?;
    let best = peak_of(nets, &peaks, Features::All);
    said.insert("peak_int8_gmac_s".into(), rounded(best));
    said.insert(
        "peaks_int8_gmac_s".into(),
        peaks.iter().map(|(k, v)| (k.clone(), rounded(Some(*v)))).collect(),
    );
    let mut main = Map::new();
    for net in nets {
        let mut row = times(net, Features::All);
        let ours = find(net, Column { maker: Maker::Ours, variant: "int8", features: Features::All });
        row.insert("load_ms".into(), rounded(ours.and_then(|ours| ours.load_ms)));
        row.insert("loaded_mib".into(), rounded(ours.and_then(|ours| ours.loaded_mib)));
        row.insert("file_mib".into(), rounded(Some(models.file_mib(&net.name, "int8")?)));
        row.insert("limit_ms".into(), limit(models, net, best)?);
        main.insert(net.name.clone(), Value::Object(row));
    }
    said.insert("models".into(), Value::Object(main));
    for features in [Features::Avx512Vnni, Features::Avx2] {
        let peak = peak_of(nets, &peaks, features);
        if let Some(section) = masked(nets, models, features, peak)? {
            said.insert(features.name().into(), section);
        }
    }
    said.insert("engines".into(), nets.iter().map(|net| (net.name.clone(), engines(net))).collect());
    said.insert("notes".into(), notes(nets));
    Ok(())
}

/// The peak by which a limit is reckoned: that of the level that our kernels ran at.
fn peak_of(nets: &[Net], peaks: &BTreeMap<String, f64>, features: Features) -> Option<f64> {
    let column = Column { maker: Maker::Ours, variant: "int8", features };
    let level = nets.iter().find_map(|net| find(net, column)?.level.as_deref())?;
    peaks.get(level).copied()
}

/// The median peak over all rounds, by instruction.
fn peaks(nets: &[Net]) -> Result<BTreeMap<String, f64>> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, values) in nets.iter().flat_map(|net| &net.peaks) {
        all.entry(name.clone()).or_default().extend(values);
    }
    all.into_iter().map(|(name, values)| Ok((name, median(values)?))).collect()
}

/// The times with some features; ONNX Runtime can't be masked, so it has a figure only with all of them.
fn masked(nets: &[Net], models: &Models, features: Features, peak: Option<f64>) -> Result<Option<Value>> {
    if !nets.iter().flat_map(|net| &net.measured).any(|one| one.column.features == features) {
        return Ok(None);
    }
    let mut rows = Map::new();
    for net in nets {
        let mut row = times(net, features);
        row.insert("ort_int8_ms".into(), Value::Null);
        row.insert("limit_ms".into(), limit(models, net, peak)?);
        rows.insert(net.name.clone(), Value::Object(row));
    }
    Ok(Some(json!({ "peak_int8_gmac_s": rounded(peak), "models": rows })))
}

fn times(net: &Net, features: Features) -> Map<String, Value> {
    let with = net.measured.iter().filter(|one| one.column.features == features);
    with.map(|one| (one.column.key(), rounded(one.ms))).collect()
}

fn limit(models: &Models, net: &Net, peak: Option<f64>) -> Result<Value> {
    let macs = models.macs(&net.name).context("no limit")?;
    Ok(rounded(peak.map(|peak| macs / (peak * 1e6))))
}

fn find(net: &Net, column: Column) -> Option<&Measured> {
    net.measured.iter().find(|one| one.column == column)
}

/// Version, load time and memory of every engine with all features.
fn engines(net: &Net) -> Value {
    let all = net.measured.iter().filter(|one| one.column.features == Features::All);
    all.map(|one| {
        let name = format!("{}_{}", one.column.maker.name(), one.column.variant);
        let line = json!({
            "version": one.version, "load_ms": rounded(one.load_ms), "loaded_mib": rounded(one.loaded_mib),
        });
        (name, line)
    })
    .collect()
}

/// Why a figure is missing.
fn notes(nets: &[Net]) -> Value {
    let faults = nets.iter().flat_map(|net| {
        net.measured.iter().filter_map(|one| {
            let fault = one.fault.as_ref()?;
            Some(format!("{} {}{}: {fault}", net.name, one.column.key(), mask(one.column.features)))
        })
    });
    let mask = "ONNX Runtime has no switch that masks CPU features".to_owned();
    faults.chain([mask]).map(Value::String).collect()
}

fn mask(features: Features) -> String {
    if features == Features::All { String::new() } else { format!(" ({} only)", features.name()) }
}

/// Four significant digits; null for nothing.
fn rounded(value: Option<f64>) -> Value {
    let digits = |value: f64| format!("{value:.3e}").parse::<f64>().ok();
    json!(value.and_then(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_that_of_the_level_that_ran() {
        let peaks = BTreeMap::from([("amx".to_owned(), 3300.0), ("avx2".to_owned(), 80.0)]);
        let ran = |features, level: &str| Measured {
            column: Column { maker: Maker::Ours, variant: "int8", features },
            version: String::new(),
            level: Some(level.to_owned()),
            ms: None,
            load_ms: None,
            loaded_mib: None,
            fault: None,
        };
        let measured = vec![ran(Features::All, "amx"), ran(Features::Avx2, "avx2")];
        let nets = [Net { name: "net".to_owned(), measured, peaks: BTreeMap::new() }];
        assert_eq!(peak_of(&nets, &peaks, Features::All), Some(3300.0));
        assert_eq!(peak_of(&nets, &peaks, Features::Avx2), Some(80.0));
        assert_eq!(peak_of(&nets, &peaks, Features::Avx512Vnni), None);
    }
}
