//! How long each step of a program takes.

use std::time::Duration;

use super::run::Program;
use super::step::Step;
use crate::clock::Clock;
use crate::engine::Fed;
use crate::error::InferError;

/// A step and its times. What tract runs in one go is one step, of however many nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTime {
    /// What it does, for people: kind, window, channels and pixels of the result.
    pub what: String,
    /// The nodes that tract runs in it; none where this crate does it.
    pub tract_nodes: Vec<String>,
    /// Multiply-accumulates for one row.
    pub macs: usize,
    /// One for each run.
    pub times: Vec<Duration>,
}

/// The times, or why a row failed; else why the clock's owner ended it.
pub(crate) type Profile<Stop> = Result<Result<Vec<StepTime>, InferError>, Stop>;

impl Program {
    /// Runs one row so often and asks the clock after each step.
    pub(crate) fn profile<C: Clock>(
        &self,
        feeds: &[Fed<'_>],
        runs: usize,
        clock: &mut C,
    ) -> Profile<C::Stop> {
        let mut steps: Vec<StepTime> = self.steps.iter().map(|step| self.describe(step)).collect();
        for _ in 0..runs {
            let mut last = Ok(clock.now()?);
            // A row that was begun is run to its end, of which the clock is not told any more.
            let ran = self.run_watched(feeds, 1, &mut |index| {
                let Ok(&before) = last.as_ref() else { return };
                last = clock.now().inspect(|now| steps[index].times.push(now.saturating_sub(before)));
            });
            last?;
            if let Err(error) = ran {
                return Ok(Err(error));
            }
        }
        Ok(Ok(steps))
    }

    fn describe(&self, step: &Step) -> StepTime {
        let size = step.writes().map_or_else(String::new, |to| {
            let layout = self.values.act(to).layout;
            format!(" -> {}x{}x{}", layout.channels, layout.height, layout.width)
        });
        let windows = step.convs().into_iter().map(|conv| {
            let spec = conv.spec();
            let groups = if spec.groups == 1 { String::new() } else { format!(" in {} groups", spec.groups) };
            let [height, width] = spec.kernel;
            let stride = spec.stride[0];
            format!(" {height}x{width} stride {stride}, {} channels{groups}", spec.in_channels)
        });
        let windows = windows.collect::<Vec<_>>().join(", then");
        StepTime {
            what: [kind(step), &windows, &size].concat(),
            tract_nodes: if let Step::Island { nodes, .. } = step { nodes.clone() } else { Vec::new() },
            macs: self.macs(step).unwrap_or(0),
            times: Vec::new(),
        }
    }

    fn macs(&self, step: &Step) -> Option<usize> {
        if let Step::Product { product, a, .. } = step {
            return Some(product.macs() * (self.values.act(*a).layout.batch / product.rows()));
        }
        let from = self.values.act(*step.reads().first()?).layout;
        let mut size = [from.height, from.width];
        let mut macs = 0;
        for conv in step.convs() {
            size = conv.spec().output(size[0], size[1])?;
            macs += conv.spec().macs(from.batch * size[0] * size[1]);
        }
        Some(macs)
    }
}

fn kind(step: &Step) -> &'static str {
    match step {
        Step::Constant { .. } => "constant",
        Step::Quantize { .. } | Step::QuantizeCurve { curve: None, .. } | Step::DynamicQuantize { .. } => {
            "quantize"
        }
        Step::QuantizeCurve { .. } => "f32 function and quantize",
        Step::Dequantize { .. } => "dequantize",
        Step::Linear { .. } | Step::LinearFloat { .. } => "linear",
        Step::LinearAdd { .. } => "linear and add",
        Step::LinearCurve { .. } => "linear and f32 function",
        Step::Chain { .. } => "chain",
        Step::Add { .. } => "add",
        Step::Mul { .. } => "multiply",
        Step::Product { .. } => "product",
        Step::Concat { .. } => "concatenate",
        Step::Lookup { .. } => "look up",
        Step::AveragePool { .. } => "average pool",
        Step::Mean { .. } => "mean in f32",
        Step::MaxPool { .. } => "maximum pool",
        Step::Resize { .. } | Step::Interpolate { .. } => "resize",
        Step::Region { .. } => "copy a region",
        Step::Shuffle { .. } => "shuffle",
        Step::Float { op, .. } => op.name(),
        Step::Island { .. } => "tract",
    }
}
