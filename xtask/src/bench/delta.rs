//! `cargo xtask bench delta`: how many bytes the update of a model takes.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::parts;
use crate::run::{output, prepare, program, root, target_folder};
use crate::{builds, tools};

/// What makes the models.
const PACKAGES: [&str; 3] = ["numpy==2.4.6", "onnx==1.23.2", "scikit-learn==1.9.1"];
const COLUMNS: [(&str, &str); 7] = [
    ("new_bytes", "new model"),
    ("full_zstd_bytes", "full zstd"),
    ("delta_bytes", "our delta"),
    ("xdelta3_bytes", "xdelta3"),
    ("bsdiff_bytes", "bsdiff"),
    ("percent_of_full", "sent, % of full"),
    ("floor_percent_of_full", "floor, %"),
];

/// Makes the models, measures and prints.
///
/// # Errors
/// When a tool is missing, or a delta gives something else than its target.
pub(super) fn main(is_json: bool) -> Result<()> {
    tools::ensure(&tools::XDELTA3)?;
    tools::ensure(&tools::BSDIFF)?;
    let folder = target_folder()?.join("bench-delta");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    let python = tools::python_env("bench-delta", &PACKAGES)?.join("python");
    let script = root().join("xtask/src/bench/delta_models.py");
    prepare(program(&python.to_string_lossy()).arg(script).arg(&folder))?;
    // Sizes are the same in every build.
    let agent = builds::binaries()?.agent;
    let mut figures = parts::run(agent.parent().context("a binary lies in a folder")?, "delta")?;
    let script = root().join("xtask/src/bench/delta_floor.py");
    let floors = output(program(&python.to_string_lossy()).arg(script).arg(&folder))?;
    add_floors(&mut figures, &serde_json::from_str(&floors)?);
    if is_json {
        println!("{figures:#}");
    } else {
        print(&figures);
    }
    Ok(())
}

/// What no delta that looks at one number at a time could get below; see the script.
fn add_floors(figures: &mut Value, floors: &Value) {
    for (pair, row) in figures.as_object_mut().into_iter().flatten() {
        let bytes = |value: &Value| value.as_u64();
        if let (Some(floor), Some(full)) = (bytes(&floors[pair]), bytes(&row["full_zstd_bytes"])) {
            row["floor_percent_of_full"] = (100 * floor / full.max(1)).into();
        }
    }
}

fn print(figures: &Value) {
    print!("{:<18}", "update");
    for (_, title) in COLUMNS {
        print!("{title:>16}");
    }
    println!();
    for (name, row) in figures.as_object().into_iter().flatten() {
        print!("{name:<18}");
        for (column, _) in COLUMNS {
            print!("{:>16}", row[column].to_string());
        }
        println!();
    }
}
