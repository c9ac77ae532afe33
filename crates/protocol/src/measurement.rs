//! What measuring a release on a device found: the answer to the command `measure`. The device bounds what it says,
//! and the server bounds what it hears by the same [`Measurement::bounded`]: a device that was taken over chooses it.

use serde::{Deserialize, Serialize};

use crate::ids::{ModelName, ReleaseRef};
use crate::message::Cause;
use crate::text::one_line;

/// Longest time, in seconds, that one measurement may be given.
pub const MAX_MEASURE_S: u32 = 600;
/// Most nodes that are named as not running in int8.
pub const MAX_FALLBACKS: usize = 32;
/// Longest name of a node, an operator, a variant or a kernel level, in characters.
const MAX_NAME: usize = 100;
/// Longest sentence.
const MAX_WHY: usize = 500;

/// One variant of a release, measured on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// The command that asked for it.
    pub command_id: String,
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub release: ReleaseRef,
    /// Which variant.
    pub variant: String,
    /// Version of the agent that measured.
    pub agent_version: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of measuring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Figures.
    Measured(Box<Figures>),
    /// None, and why.
    Failed(Cause),
}

/// The figures. Times are CPU time of the thread that measured, as in the self-test: what else the device did in
/// these moments doesn't count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Microseconds for loading and warming up.
    pub load_us: u64,
    /// Requests that were timed.
    pub runs: u32,
    /// Median of one request in microseconds, pre- and post-processing included.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Resident memory of the agent that loading added.
    pub loaded_bytes: u64,
    /// Most resident memory of the agent above what it had before, while it was loaded and run; at least that which
    /// loading added.
    pub peak_bytes: u64,
    /// Golden samples.
    pub samples: u32,
    /// Golden samples whose answer was within tolerance.
    pub passed: u32,
    /// Nodes that run in int8.
    pub int8_nodes: u32,
    /// Nodes that run in f32 between them.
    pub f32_nodes: u32,
    /// Nodes that the f32 runtime runs; 0 where it runs the whole model.
    pub tract_nodes: u32,
    /// Share of the time that goes into what the f32 runtime runs, in thousandths: 1000 where it runs the whole model.
    pub tract_permille: u16,
    /// Level of the int8 kernels, e.g. `neon-dot`.
    #[serde(default)]
    pub kernels: Option<String>,
    /// Why the f32 runtime runs the whole model.
    #[serde(default)]
    pub why_all_tract: Option<String>,
    /// The first nodes that aren't in int8.
    #[serde(default)]
    pub fallbacks: Vec<Fallback>,
}

/// A node that isn't in int8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Its name, or that of its first output.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why.
    pub why: String,
}

impl Measurement {
    /// The same within bounds: lists cut, texts one line each, no share above all, no more passed than tried.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        clean(&mut self.command_id, MAX_NAME);
        clean(&mut self.variant, MAX_NAME);
        clean(&mut self.agent_version, MAX_NAME);
        match &mut self.outcome {
            Outcome::Failed(cause) => clean(&mut cause.detail, MAX_WHY),
            Outcome::Measured(figures) => figures.bound(),
        }
        self
    }
}

impl Figures {
    fn bound(&mut self) {
        self.tract_permille = self.tract_permille.min(1000);
        self.passed = self.passed.min(self.samples);
        self.kernels.iter_mut().for_each(|name| clean(name, MAX_NAME));
        self.why_all_tract.iter_mut().for_each(|why| clean(why, MAX_WHY));
        self.fallbacks.truncate(MAX_FALLBACKS);
        for fallback in &mut self.fallbacks {
            clean(&mut fallback.node, MAX_NAME);
            clean(&mut fallback.op, MAX_NAME);
            clean(&mut fallback.why, MAX_WHY);
        }
    }
}

fn clean(text: &mut String, max_chars: usize) {
    *text = one_line(text, max_chars);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Counter, Digest, Version};
    use crate::text::is_acting;

    fn measurement(figures: Figures, variant: &str) -> Measurement {
        let version = Version::new("1.0.0").unwrap();
        Measurement {
            command_id: "c".into(),
            model: ModelName::new("digits").unwrap(),
            release: ReleaseRef { version, digest: Digest::from_bytes([1; 32]), counter: Counter(1) },
            variant: variant.into(),
            agent_version: "0.1.0".into(),
            outcome: Outcome::Measured(Box::new(figures)),
        }
    }

    #[test]
    fn an_honest_measurement_stays_as_it_is_and_survives_the_wire() {
        let fallback = Fallback { node: "g".into(), op: "Gather".into(), why: "no int8 step for it".into() };
        let figures = Figures {
            samples: 16,
            passed: 16,
            tract_permille: 250,
            fallbacks: vec![fallback],
            ..Figures::default()
        };
        let said = measurement(figures, "int8");
        let mut bytes = Vec::new();
        ciborium::into_writer(&said, &mut bytes).unwrap();
        let heard: Measurement = ciborium::from_reader(bytes.as_slice()).unwrap();
        assert_eq!(heard.bounded(), said);
    }

    #[test]
    fn a_hostile_measurement_is_bounded_and_moves_no_terminal() {
        let evil = format!("\u{1b}[2J\n{}", "x".repeat(10_000));
        let fallback = Fallback { node: evil.clone(), op: evil.clone(), why: evil.clone() };
        let figures = Figures {
            samples: 1,
            passed: u32::MAX,
            tract_permille: u16::MAX,
            kernels: Some(evil.clone()),
            why_all_tract: Some(evil.clone()),
            fallbacks: vec![fallback; 5000],
            ..Figures::default()
        };
        let heard = measurement(figures, &evil).bounded();
        let text = serde_json::to_string(&heard).unwrap();
        assert!(text.len() < 64 * 1024 && !text.chars().any(is_acting) && !text.contains("\\u001b"));
        let Outcome::Measured(figures) = &heard.outcome else { panic!("{heard:?}") };
        assert_eq!(
            (figures.passed, figures.tract_permille, figures.fallbacks.len()),
            (1, 1000, MAX_FALLBACKS)
        );
    }
}
