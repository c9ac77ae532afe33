//! `cargo xtask bench swap | spool | api`: the agent's parts under load, built as they ship but for this machine.

use anyhow::Result;
use serde_json::Value;

use crate::demo::example;
use crate::run::{cargo, output, prepare, program, target_folder};

pub(crate) fn main(name: &str, is_json: bool) -> Result<()> {
    prepare(cargo().args(["build", "--profile", "quick", "--locked", "-p", "firmware-tests"]))?;
    let figures = run(&target_folder()?.join("quick"), name)?;
    if is_json {
        println!("{figures:#}");
    } else {
        for (name, value) in figures.as_object().into_iter().flatten() {
            println!("{name:<24}{value}");
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
