//! Bytes that an update takes: our delta against a whole zstd frame and against other tools' deltas.
//!
//! Works on pairs of models in `FOLDER/<pair>/{old,new}.onnx`. Every delta of ours is applied and compared.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use release::delta::{self, Delta};
use serde_json::{Map, Value, json};

const MAX_MEMORY_BYTES: u64 = 1 << 30;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Folder of the pairs.
    #[arg(long)]
    folder: PathBuf,
}

pub(super) fn main(args: &Args) -> Result<()> {
    let mut pairs: Vec<PathBuf> = std::fs::read_dir(&args.folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.join("new.onnx").exists())
        .collect();
    pairs.sort();
    ensure!(!pairs.is_empty(), "no pairs in {}", args.folder.display());
    let mut all = Map::new();
    for pair in pairs {
        let name = pair.file_name().and_then(|name| name.to_str()).context("a pair has a name")?;
        all.insert(name.to_owned(), measure(&pair)?);
    }
    println!("{:#}", Value::Object(all));
    Ok(())
}

fn measure(pair: &Path) -> Result<Value> {
    let (old, new) = (pair.join("old.onnx"), pair.join("new.onnx"));
    let (base, target) = (std::fs::read(&old)?, std::fs::read(&new)?);
    let full = delta::compress(&target)?.len();
    let made = delta::make(&base, &target, MAX_MEMORY_BYTES)?;
    ensure!(Delta::parse(&made)?.apply(&base, MAX_MEMORY_BYTES)? == target, "a delta gives something else");
    let (old, new) = (old.display().to_string(), new.display().to_string());
    let out = |name: &str| pair.join(name).display().to_string();
    let xdelta = tool("xdelta3", &["-e", "-9", "-S", "lzma", "-f", "-s", &old, &new, &out("xdelta3")])?;
    let bsdiff = tool("bsdiff", &[&old, &new, &out("bsdiff")])?;
    Ok(json!({
        "new_bytes": target.len(), "full_zstd_bytes": full, "delta_bytes": made.len(), "xdelta3_bytes": xdelta,
        "bsdiff_bytes": bsdiff, "sent_bytes": made.len().min(full), "percent_of_full": made.len().min(full) * 100 / full,
    }))
}

/// Runs a tool whose last argument is the file that it writes; returns that file's size.
fn tool(name: &str, args: &[&str]) -> Result<u64> {
    let output = Command::new(name).args(args).output().with_context(|| format!("cannot start {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(std::fs::metadata(args.last().context("a tool writes a file")?)?.len())
}
