//! What is measured of a net: the columns, and taking turns.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::engine::{Engine, Maker, Programs, has_amx};
use super::models::Models;

/// Which of the CPU's features an engine may use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Features {
    /// All of them.
    All,
    /// AVX-512 with dot products, without the tile multiplier.
    Avx512Vnni,
    /// AVX2.
    Avx2,
}

impl Features {
    /// Its section in the JSON object.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Avx512Vnni => "avx512_vnni",
            Self::Avx2 => "avx2",
        }
    }
}

/// One figure of a net.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) maker: Maker,
    pub(super) variant: &'static str,
    pub(super) features: Features,
}

impl Column {
    /// Its key in the JSON object.
    pub(super) fn key(self) -> String {
        let maker = if self.maker == Maker::OnnxRuntime { "ort" } else { self.maker.name() };
        format!("{maker}_{}_ms", self.variant)
    }

    /// The environment that masks features. ONNX Runtime has none.
    fn mask(self) -> &'static [(&'static str, &'static str)] {
        match (self.maker, self.features) {
            (_, Features::All) | (Maker::OnnxRuntime | Maker::Tract, _) => &[],
            (Maker::Ours, Features::Avx512Vnni) => &[("FLOTILLA_INT8_LEVEL", "avx512-vnni")],
            (Maker::Ours, Features::Avx2) => &[("FLOTILLA_INT8_LEVEL", "avx2")],
            (Maker::OpenVino, Features::Avx512Vnni) => &[("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")],
            (Maker::OpenVino, Features::Avx2) => &[("ONEDNN_MAX_CPU_ISA", "AVX2")],
        }
    }

    /// Our own engine says which kernels it uses; a mask that didn't work gives no figure.
    fn is_masked(self, about: &Value) -> bool {
        let asked = self.mask().iter().find(|(name, _)| *name == "FLOTILLA_INT8_LEVEL");
        asked.is_none_or(|(_, level)| about["level"].as_str() == Some(level))
    }
}

/// The columns of this machine.
fn columns() -> Vec<Column> {
    let mut all = Vec::new();
    for maker in [Maker::Ours, Maker::Tract, Maker::OnnxRuntime, Maker::OpenVino] {
        for variant in ["int8", "f32"] {
            all.push(Column { maker, variant, features: Features::All });
        }
    }
    let masked: &[Features] =
        if has_amx() { &[Features::Avx512Vnni, Features::Avx2] } else { &[Features::Avx2] };
    for features in masked {
        for maker in [Maker::Ours, Maker::OpenVino] {
            all.push(Column { maker, variant: "int8", features: *features });
        }
    }
    all
}

/// What a column gave.
pub(super) struct Measured {
    pub(super) column: Column,
    pub(super) version: String,
    /// Of our kernels.
    pub(super) level: Option<String>,
    /// Of one inference; the median of the rounds' medians.
    pub(super) ms: Option<f64>,
    /// Reading and planning, without the first run.
    pub(super) load_ms: Option<f64>,
    /// What loading and one run added to the process's memory.
    pub(super) loaded_mib: Option<f64>,
    /// Why there is no figure.
    pub(super) fault: Option<String>,
}

/// What a net gave.
pub(super) struct Net {
    pub(super) name: String,
    pub(super) measured: Vec<Measured>,
    /// Peak multiply-accumulates of the core by instruction, in G/s, one for each round.
    pub(super) peaks: BTreeMap<String, Vec<f64>>,
}

/// How long one engine's turn lasts, at least three inferences.
const TURN_MS: f64 = 60.0;
/// Time on the wall beyond that on the CPU that no engine spends waiting for itself.
const LOST_MS: f64 = 0.3;
/// Most inferences of a turn.
const MAX_TURN: f64 = 200.0;
/// Our loads are quick: the median of some is steadier than one.
const LOADS: usize = 5;

/// A column while it runs.
struct Runner {
    engine: Engine,
    turn: u32,
    medians: Vec<f64>,
}

/// Starts every engine, then lets them take turns. An engine that fails has no figure but a fault.
pub(super) fn measure(net: &str, rounds: u32, programs: &Programs, models: &Models) -> Result<Net> {
    let mut peak = Engine::start_peak(programs)?;
    let (mut measured, mut runners): (Vec<Measured>, Vec<Option<Runner>>) =
        columns().into_iter().map(|column| start(column, net, programs, models)).unzip();
    let mut peaks: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (name, value) in peak.ask("peak")?.as_object().context("the peak is no object")? {
            peaks.entry(name.clone()).or_default().extend(value.as_f64());
        }
        for (one, runner) in measured.iter_mut().zip(&mut runners) {
            if let Some(Err(e)) = runner.as_mut().map(Runner::take_turn) {
                one.fault = Some(format!("{e:#}"));
                *runner = None;
            }
        }
    }
    for (one, runner) in measured.iter_mut().zip(runners) {
        one.ms = runner.map(|runner| median(runner.medians)).transpose()?;
    }
    Ok(Net { name: net.to_owned(), measured, peaks })
}

impl Runner {
    fn take_turn(&mut self) -> Result<()> {
        let spent = run(&mut self.engine, self.turn)?;
        self.medians.push(median(spent)?);
        Ok(())
    }
}

/// Loads a column's model; a fault is kept as its result.
fn start(column: Column, net: &str, programs: &Programs, models: &Models) -> (Measured, Option<Runner>) {
    let (version, level) = (String::new(), None);
    let mut one = Measured { column, version, level, ms: None, load_ms: None, loaded_mib: None, fault: None };
    match try_start(&mut one, net, programs, models) {
        Ok(runner) => (one, Some(runner)),
        Err(e) => {
            one.fault = Some(format!("{e:#}"));
            (one, None)
        }
    }
}

fn try_start(one: &mut Measured, net: &str, programs: &Programs, models: &Models) -> Result<Runner> {
    let column = one.column;
    let loads = if column.maker == Maker::Ours { LOADS } else { 1 };
    let (mut load_ms, mut loaded_mib, mut last) = (Vec::new(), Vec::new(), None);
    for _ in 0..loads {
        drop(last.take());
        let mut engine = Engine::start(programs, models, (column.maker, net, column.variant), column.mask())?;
        let about = engine.ask("about")?;
        anyhow::ensure!(column.is_masked(&about), "this machine or build has no such level");
        about["version"].as_str().unwrap_or_default().clone_into(&mut one.version);
        one.level = about["level"].as_str().map(str::to_owned);
        let loaded = engine.ask("load")?;
        let spent = loaded["load_ms"].as_f64().zip(loaded["load_cpu_ms"].as_f64());
        load_ms.extend(spent.map(|(wall, cpu)| undisturbed(wall, cpu)));
        loaded_mib.extend(loaded["loaded_mib"].as_f64());
        last = Some(engine);
    }
    let mut engine = last.context("nothing was loaded")?;
    one.load_ms = Some(median(load_ms)?);
    one.loaded_mib = Some(median(loaded_mib)?);
    let turn = (TURN_MS / median(run(&mut engine, 3)?)?).clamp(3.0, MAX_TURN).round();
    // Between 3 and 200: the text of such a number is a u32.
    let turn = format!("{turn:.0}").parse().context("no number of inferences")?;
    Ok(Runner { engine, turn, medians: Vec::new() })
}

/// Times of one turn in milliseconds. Where another process took the core away meanwhile, the time on the CPU
/// counts; else the time on the wall, which includes what an engine waits for its own threads.
fn run(engine: &mut Engine, times: u32) -> Result<Vec<f64>> {
    let answer = engine.ask(&format!("run {times}"))?;
    let list = |key: &str| answer[key].as_array().with_context(|| format!("the engine gave no {key}"));
    let pairs = list("ms")?.iter().zip(list("cpu_ms")?);
    let both = pairs.filter_map(|(wall, cpu)| Some((wall.as_f64()?, cpu.as_f64()?)));
    Ok(both.map(|(wall, cpu)| undisturbed(wall, cpu)).collect())
}

/// A time without what other processes took of the core.
fn undisturbed(wall_ms: f64, cpu_ms: f64) -> f64 {
    let is_disturbed = wall_ms - cpu_ms > LOST_MS && cpu_ms > 0.0;
    if is_disturbed { cpu_ms } else { wall_ms }
}

/// The middle value.
pub(super) fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::{median, undisturbed};

    #[test]
    fn time_that_others_took_doesnt_count() {
        assert!((undisturbed(9.0, 3.0) - 3.0).abs() < 1e-9);
        assert!((undisturbed(3.1, 3.0) - 3.1).abs() < 1e-9);
    }

    #[test]
    fn the_median_of_nothing_is_an_error() {
        assert!(median(Vec::new()).is_err());
        assert!((median(vec![3.0, 1.0, 2.0]).unwrap() - 2.0).abs() < 1e-9);
    }
}
