//! How a loaded model does on the machine that asks: percentiles of one request, and where its time goes. Used by the
//! publisher's preflight and by the agent's job alike, so that their figures mean the same. The clock is the caller's, and ends it.

use std::time::Duration;

use crate::clock::Clock;
use crate::error::InferError;
use crate::golden::{GoldenSet, percentile};
use crate::model::Model;

/// Percentiles of one request, pre- and post-processing included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Requests that were timed.
    pub runs: usize,
    /// Median.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 95th percentile.
    pub p95: Duration,
    /// 99th percentile.
    pub p99: Duration,
}

/// A step and the median of its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepMedian {
    /// What it does, for people.
    pub what: String,
    /// The nodes that tract runs in it; none where it is in int8.
    pub tract_nodes: Vec<String>,
    /// Multiply-accumulates for one row.
    pub macs: usize,
    /// The median.
    pub time: Duration,
}

/// Where the time of one row goes; without steps where tract runs the whole model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps(pub Vec<StepMedian>);

/// Answers golden samples over and over, as long as `go_on`, which is told how many were timed, says so.
///
/// # Errors
/// The clock's word to end; within it [`InferError`] of the first request that fails.
pub fn latency<C: Clock>(
    model: &Model,
    set: &GoldenSet,
    clock: &mut C,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Result<Latency, InferError>, C::Stop> {
    let mut times = Vec::new();
    for sample in set.samples.iter().cycle() {
        let begin = clock.now()?;
        if let Err(error) = model.infer(&sample.inputs) {
            return Ok(Err(error));
        }
        times.push(clock.now()?.saturating_sub(begin));
        if !go_on(times.len()) {
            break;
        }
    }
    times.sort_unstable();
    let at = |percent| percentile(&times, percent);
    Ok(Ok(Latency { runs: times.len(), p50: at(50), p90: at(90), p95: at(95), p99: at(99) }))
}

impl Steps {
    /// Times the steps of the first golden sample; none where tract runs the whole model, or it has several rows.
    ///
    /// # Errors
    /// The clock's word to end.
    pub fn of<C: Clock>(model: &Model, set: &GoldenSet, runs: usize, clock: &mut C) -> Result<Self, C::Stop> {
        let sample = set.samples.first().map_or(&[][..], |sample| sample.inputs.as_slice());
        let steps = model.profile(sample, runs, clock)?.unwrap_or_default();
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            percentile(&times, 50)
        };
        let steps = steps.into_iter().map(|step| StepMedian {
            what: step.what,
            tract_nodes: step.tract_nodes,
            macs: step.macs,
            time: median(step.times),
        });
        Ok(Self(steps.collect()))
    }

    /// The share of the time, 0 to 1, that goes into what tract runs.
    pub fn tract_share(&self) -> Option<f64> {
        self.share(|step| !step.tract_nodes.is_empty())
    }

    /// The share of the time that goes into the step in which tract runs a node, and how many nodes share that step.
    pub fn share_of(&self, node: &str) -> Option<(f64, usize)> {
        let is_here = |step: &StepMedian| step.tract_nodes.iter().any(|name| name == node);
        let with = self.0.iter().find(|step| is_here(step))?.tract_nodes.len();
        Some((self.share(is_here)?, with))
    }

    fn share(&self, is_counted: impl Fn(&StepMedian) -> bool) -> Option<f64> {
        let all: Duration = self.0.iter().map(|step| step.time).sum();
        let counted: Duration = self.0.iter().filter(|step| is_counted(step)).map(|step| step.time).sum();
        (!all.is_zero()).then(|| counted.as_nanos() as f64 / all.as_nanos() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::{StepMedian, Steps};
    use std::time::Duration;

    fn step(tract_nodes: &[&str], millis: u64) -> StepMedian {
        let tract_nodes = tract_nodes.iter().map(|name| (*name).to_owned()).collect();
        StepMedian { what: "x".into(), tract_nodes, macs: 0, time: Duration::from_millis(millis) }
    }

    #[test]
    fn an_island_s_time_is_told_of_each_of_its_nodes() {
        let steps = Steps(vec![step(&[], 60), step(&["a", "b"], 30), step(&["c"], 10)]);
        assert_eq!(steps.tract_share(), Some(0.4));
        assert_eq!(steps.share_of("b"), Some((0.3, 2)));
        assert_eq!(steps.share_of("c"), Some((0.1, 1)));
        assert_eq!(steps.share_of("d"), None);
        assert_eq!(Steps::default().tract_share(), None);
    }
}
