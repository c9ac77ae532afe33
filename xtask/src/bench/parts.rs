//! `cargo xtask bench swap | spool | api`: the agent's parts under load, built as they ship but for this machine.

use anyhow::Result;
use serde_json::Value;

use crate::demo::example;
use crate::run::{cargo, output, prepare, program, target_folder};

/// Key of the object with figures that only explain the others.
const MORE: &str = "more";

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
    Ok(serde_json::from_str(&output(&mut bench)?)?)
}
