//! `cargo xtask bench swap | spool | api`: the agent's parts under load, built as they ship but for this machine.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::demo::example;
use crate::run::{cargo, output, prepare, program, target_folder};

/// Key of the object with figures that only explain the others.
const MORE: &str = "more";

/// The keys that readers of these benches rely on; there is no other beside [`MORE`].
const FIGURES: [(&str, &[&str]); 3] = [
    ("api", &API),
    ("spool", &["disk_per_live_byte", "durable_records_per_s", "rss_mib_at_1e6"]),
    ("swap", &["failed", "p99_ms_during_swap", "p99_ms_steady", "requests", "swaps", "wrong"]),
];
const API: [&str; 6] = [
    "http_binary_p50_us",
    "http_json_p50_us",
    "inprocess_us",
    "p99_us_at_half_load",
    "requests_per_s_8_clients",
    "unix_binary_p50_us",
];

/// How figures are printed.
#[derive(clap::Args)]
pub(crate) struct Shown {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// With figures that explain the others: in JSON an object of its own, `more`.
    #[arg(long)]
    more: bool,
}

pub(crate) fn main(name: &str, shown: &Shown) -> Result<()> {
    prepare(cargo().args(["build", "--profile", "quick", "--locked", "-p", "firmware-tests"]))?;
    let mut figures = run(&target_folder()?.join("quick"), name)?;
    let more = figures.as_object_mut().and_then(|figures| figures.remove(MORE));
    let more = more.filter(|_| shown.more);
    if shown.json {
        if let Some(more) = more {
            figures[MORE] = more;
        }
        println!("{figures:#}");
    } else {
        for (name, value) in [figures, more.unwrap_or_default()].iter().filter_map(Value::as_object).flatten()
        {
            println!("{name:<32}{value}");
        }
    }
    Ok(())
}

/// Lets the program in `binaries` measure; fails when what it measured is wrong.
pub(crate) fn run(binaries: &std::path::Path, name: &str) -> Result<Value> {
    let mut bench = program(&binaries.join("firmware-tests").to_string_lossy());
    bench.args(["bench", name]).arg("--folder").arg(target_folder()?.join(format!("bench-{name}")));
    if !matches!(name, "delta" | "spool") {
        bench.arg("--example").arg(example(""));
    }
    let figures: Value = serde_json::from_str(&output(&mut bench)?)?;
    ensure_keys(name, &figures)?;
    Ok(figures)
}

fn ensure_keys(name: &str, figures: &Value) -> Result<()> {
    let Some((_, expected)) = FIGURES.into_iter().find(|(bench, _)| *bench == name) else { return Ok(()) };
    let found: BTreeSet<&str> =
        figures.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let expected: BTreeSet<&str> = expected.iter().copied().chain([MORE]).collect();
    ensure!(found == expected, "bench {name} prints {found:?}, expected are {expected:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_too_many_or_too_few_is_a_failure() {
        let mut figures = serde_json::json!({
            "disk_per_live_byte": 1.6, "durable_records_per_s": 1, "rss_mib_at_1e6": 51, "more": {},
        });
        ensure_keys("spool", &figures).unwrap();
        figures["records"] = 7.into();
        assert!(ensure_keys("spool", &figures).is_err() && ensure_keys("delta", &figures).is_ok());
        assert!(ensure_keys("swap", &serde_json::json!({ "swaps": 1 })).is_err());
    }
}
