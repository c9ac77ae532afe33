//! `cargo xtask bench int8`: our quantized models against our f32, tract as it comes, ONNX Runtime and OpenVINO.
//!
//! One process per engine and model, each with one thread, all on one core, in turns: what slows the machine down
//! slows all of them. Medians are printed, beside the time that the multiply-accumulates alone would take at the
//! measured peak of the core. Before anything is timed, our answers at every level of this machine are held against
//! ONNX Runtime's: a kernel that is wrong is no fast one. Where other figures than the main ones need a mask on the CPU's features (no tile
//! multiplier, AVX2 only), they run in the same rounds. ARM is counted in instructions, under emulation.

mod aarch64;
mod answers;
mod column;
mod engine;
mod figures;
pub(super) mod models;
mod profile;
mod table;
mod userland;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::run::{cargo, prepare, target_folder};
use engine::Programs;
use models::Models;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// How often the engines take turns.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only these nets.
    #[arg(long, value_delimiter = ',', default_values = models::NETS)]
    nets: Vec<String>,
    /// Leave out the instructions under emulation; building for ARM takes many minutes the first time.
    #[arg(long)]
    no_aarch64: bool,
    /// Only count the instructions under emulation: nothing is timed, so that the machine may be busy.
    #[arg(long, conflicts_with_all = ["no_aarch64", "profile"])]
    only_aarch64: bool,
    /// Show where our time goes instead: each step with its share of the core's peak.
    #[arg(long)]
    profile: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let python = models::python()?;
    let models = Models::ensure(&python)?;
    if args.only_aarch64 {
        println!("{:#}", json!({ "aarch64": aarch64::count(&args.nets, &models, &python)? }));
        return Ok(());
    }
    eprintln!("building the runner of our runtime and tract (minutes the first time)");
    let runner = ["build", "--release", "--locked", "--package", "inference", "--example", "bench-engine"];
    prepare(cargo().args(runner))?;
    let ours = target_folder()?.join("release/examples/bench-engine");
    let programs = Programs { ours, python, core: engine::core()? };
    for net in &args.nets {
        answers::check(net, &programs, &models)?;
    }
    if args.profile {
        return profile(args, &programs, &models);
    }
    let mut said = measure(args, &programs, &models)?;
    if !args.no_aarch64 {
        let counted = aarch64::count(&args.nets, &models, &programs.python).unwrap_or_else(|e| {
            eprintln!("nothing is counted for ARM: {e:#}");
            json!({ "models": null, "notes": [format!("{e:#}")] })
        });
        said.insert("aarch64".into(), counted);
    }
    let said = Value::Object(said);
    if args.json {
        println!("{said:#}");
    } else {
        println!("{}", table::render(&said));
    }
    Ok(())
}

fn profile(args: &Args, programs: &Programs, models: &Models) -> Result<()> {
    let mut all = Map::new();
    for net in &args.nets {
        all.insert(net.clone(), profile::measure(net, programs, models)?);
    }
    if args.json {
        println!("{:#}", Value::Object(all));
    } else {
        all.iter().for_each(|(net, said)| println!("{}", profile::render(net, said)));
    }
    Ok(())
}

fn measure(args: &Args, programs: &Programs, models: &Models) -> Result<Map<String, Value>> {
    let mut found = Vec::new();
    for net in &args.nets {
        eprintln!("{net}: {} rounds", args.rounds);
        found.push(column::measure(net, args.rounds, programs, models)?);
    }
    let mut said = Map::new();
    said.insert("cpu".into(), json!(engine::cpu_name()?));
    figures::summarise(&found, models, &mut said)?;
    let notes = said["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    notes.for_each(|note| eprintln!("note: {note}"));
    Ok(said)
}
