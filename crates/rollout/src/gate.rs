//! Gates: what a stage must prove before the next one starts.
//!
//! Task metrics are counted by the engine. Behaviour metrics come from outside as [`Evidence`] about the stage's
//! devices on the new release and about a control group on the old release in the same time window. A gate
//! without enough evidence is [`Verdict::Open`]: never passed, and failed early only on sufficient evidence.

use std::fmt;

use protocol::message::CauseKind;
use protocol::{DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::tasks::Tally;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GateMetric))]
pub enum Metric {
    /// Tasks that failed, were rejected, timed out or fell back.
    InstallFailures,
    /// Tasks that took too long.
    Timeouts,
    /// Tasks whose self-test failed.
    SelfTestFailures,
    /// Tasks that fell back in probation.
    ProbationFailures,
    /// 95th percentile of the inference latency in microseconds; compared as a ratio (0.2 = 20 % slower).
    LatencyP95,
    /// Share of requests that failed, 0 to 1.
    ErrorRate,
    /// Distance between the distributions of predictions, 0 to 1.
    PredictionDrift,
    /// Distance between the distributions of inputs, 0 to 1.
    InputDrift,
    /// Accuracy against labels that came later, 0 to 1.
    Accuracy,
    /// Accuracy estimated from calibrated scores, 0 to 1.
    EstimatedAccuracy,
}

impl Metric {
    /// Whether the engine counts it itself.
    pub fn is_counted(self) -> bool {
        matches!(
            self,
            Self::InstallFailures | Self::Timeouts | Self::SelfTestFailures | Self::ProbationFailures
        )
    }

    /// Whether it is a share or a distance from 0 to 1, so that a limit beyond 1 could never fail.
    pub fn is_share(self) -> bool {
        !self.is_counted() && self != Self::LatencyP95
    }

    /// Whether a larger value is better.
    pub fn is_higher_better(self) -> bool {
        matches!(self, Self::Accuracy | Self::EstimatedAccuracy)
    }

    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InstallFailures => "install_failures",
            Self::Timeouts => "timeouts",
            Self::SelfTestFailures => "self_test_failures",
            Self::ProbationFailures => "probation_failures",
            Self::LatencyP95 => "latency_p95",
            Self::ErrorRate => "error_rate",
            Self::PredictionDrift => "prediction_drift",
            Self::InputDrift => "input_drift",
            Self::Accuracy => "accuracy",
            Self::EstimatedAccuracy => "estimated_accuracy",
        }
    }

    /// How much worse the candidate is than the control, in this metric's unit; negative when better.
    pub fn worsening(self, candidate: f64, control: f64) -> f64 {
        match self {
            Self::LatencyP95 => (candidate - control) / control,
            Self::Accuracy | Self::EstimatedAccuracy => control - candidate,
            _ => candidate - control,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One test at the end of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gate {
    /// What is measured.
    pub metric: Metric,
    /// Only failures of this kind, for task metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub kind: Option<CauseKind>,
    /// Only this segment, for behaviour metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// What is allowed.
    pub limit: Limit,
    /// Least evidence: concluded tasks, requests or labelled answers on the new release.
    pub min_sample: u64,
    /// Least evidence from the control group, where the limit compares with it.
    #[serde(default)]
    pub min_control_sample: u64,
}

/// What a gate allows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GateLimit))]
pub enum Limit {
    /// So many tasks, or such a share of the stage's devices.
    Tasks {
        /// More fails.
        at_most: Amount,
    },
    /// The candidate's own value: at most this (at least this, where higher is better).
    Value {
        /// The bound, in the metric's unit.
        bound: f64,
    },
    /// How much worse than the control group the candidate may be, see [`Metric::worsening`].
    WorseThanControl {
        /// The bound, in the metric's unit.
        by_at_most: f64,
        /// Which end of the confidence interval is held against the bound.
        #[serde(default)]
        judged_by: JudgedBy,
    },
}

/// Which number of a comparison is held against the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JudgedBy {
    /// The point estimate; the interval is shown only. The default: what is over the limit doesn't pass.
    #[default]
    Point,
    /// Fails when the interval lies above the limit: shown to be worse. Lets small samples pass.
    ShownWorse,
    /// Passes when the interval lies below the limit: shown not to be worse. Asks for more data.
    ShownNotWorse,
}

/// A measured value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// In the metric's unit.
    pub value: f64,
    /// Requests or labelled answers behind it.
    pub n: u64,
    /// Devices behind it.
    pub devices: u32,
}

/// How much worse the candidate is than the control, with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// E.g. 0.95.
    pub confidence: f64,
}

/// What was measured for one metric and slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What.
    pub metric: Metric,
    /// Of which segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// Begin of the time window.
    pub from: UnixMillis,
    /// End of the time window.
    pub to: UnixMillis,
    /// The stage's devices on the new release.
    pub candidate: Sample,
    /// The control group on the old release.
    #[serde(default)]
    pub control: Option<Sample>,
    /// Interval of the worsening.
    #[serde(default)]
    pub worse: Option<Interval>,
    /// How it was computed, in one line: formula, bins, devices.
    #[serde(default)]
    pub arithmetic: String,
    /// Devices of either side that were not counted, because their inputs alone drift: what is wrong with them is
    /// not the release's doing, nor would it be fair to the other side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<DeviceId>,
}

/// What a gate says now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "because")]
pub enum Verdict {
    /// Within its limit on sufficient evidence.
    Passed(String),
    /// Over its limit on sufficient evidence.
    Failed(String),
    /// Not enough evidence yet.
    Open(String),
}

impl Verdict {
    /// Whether the gate holds.
    pub fn is_passed(&self) -> bool {
        matches!(self, Self::Passed(_))
    }

    /// Whether the gate is broken.
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

impl Gate {
    /// Whether it compares with a control group.
    pub fn needs_control(&self) -> bool {
        matches!(self.limit, Limit::WorseThanControl { .. })
    }

    /// `accuracy`, `install_failures(download)`, `latency_p95[hour=3]`.
    pub fn label(&self) -> String {
        let kind = self.kind.map(|k| format!("({k:?})").to_lowercase()).unwrap_or_default();
        let slice = self.slice.as_ref().map(|s| format!("[{s}]")).unwrap_or_default();
        format!("{}{kind}{slice}", self.metric)
    }

    /// Judges this gate by the stage's tally and the newest evidence.
    pub fn judge(&self, tally: &Tally, evidence: &[Evidence]) -> Verdict {
        match self.limit {
            Limit::Tasks { at_most } => self.judge_tasks(at_most, tally),
            Limit::Value { .. } | Limit::WorseThanControl { .. } => {
                match evidence.iter().find(|e| e.metric == self.metric && e.slice == self.slice) {
                    Some(evidence) => self.judge_evidence(evidence),
                    None => Verdict::Open("nothing was measured yet".into()),
                }
            }
        }
    }

    fn judge_tasks(&self, at_most: Amount, tally: &Tally) -> Verdict {
        let (bad, total, concluded) =
            (tally.failures(self.metric, self.kind), tally.total(), tally.concluded());
        let enough = self.min_sample.min(total).max(1);
        let text = format!(
            "{bad} of {total} devices, at most {at_most}; {concluded} concluded, at least {enough} needed"
        );
        if concluded < enough {
            Verdict::Open(text)
        } else if at_most.is_exceeded_by(bad, total) {
            Verdict::Failed(text)
        } else if tally.in_place() == 0 {
            Verdict::Open(format!("{text}; no device took the release"))
        } else {
            Verdict::Passed(text)
        }
    }

    fn judge_evidence(&self, evidence: &Evidence) -> Verdict {
        let candidate = evidence.candidate;
        if candidate.n < self.min_sample.max(1) || !candidate.value.is_finite() {
            return Verdict::Open(format!(
                "{} samples on the new release, {} needed",
                candidate.n,
                self.min_sample.max(1)
            ));
        }
        match self.limit {
            Limit::Tasks { .. } => Verdict::Open("a limit in tasks has no evidence from outside".into()),
            Limit::Value { bound } => {
                let is_within = if self.metric.is_higher_better() {
                    candidate.value >= bound
                } else {
                    candidate.value <= bound
                };
                passed_if(
                    is_within,
                    format!("{:.6} against the bound {bound} (n={})", candidate.value, candidate.n),
                )
            }
            Limit::WorseThanControl { by_at_most, judged_by } => {
                self.judge_comparison(evidence, by_at_most, judged_by)
            }
        }
    }

    fn judge_comparison(&self, evidence: &Evidence, by_at_most: f64, judged_by: JudgedBy) -> Verdict {
        let least = self.min_control_sample.max(1);
        let Some(control) = evidence.control.filter(|c| c.n >= least) else {
            let n = evidence.control.map_or(0, |c| c.n);
            return Verdict::Open(format!("{n} samples in the control group, {least} needed"));
        };
        let point = self.metric.worsening(evidence.candidate.value, control.value);
        let interval = evidence.worse.filter(|i| i.low.is_finite() && i.high.is_finite() && i.low <= i.high);
        let judged = match (judged_by, interval) {
            (JudgedBy::Point, _) => point,
            // The control's value of a distance is what chance explains; what is left needs no interval.
            (_, None) if matches!(self.metric, Metric::PredictionDrift | Metric::InputDrift) => point,
            (JudgedBy::ShownWorse, Some(interval)) => interval.low,
            (JudgedBy::ShownNotWorse, Some(interval)) => interval.high,
            (JudgedBy::ShownWorse | JudgedBy::ShownNotWorse, None) => {
                return Verdict::Open("the comparison has no confidence interval".into());
            }
        };
        if !judged.is_finite() {
            return Verdict::Open("the comparison is no finite number".into());
        }
        let text = format!(
            "{:.6} (n={}) against control {:.6} (n={}): worse by {point:.6}{}, at most {by_at_most}",
            evidence.candidate.value,
            evidence.candidate.n,
            control.value,
            control.n,
            interval.map(|i| format!(" [{:.6}, {:.6}]", i.low, i.high)).unwrap_or_default(),
        );
        // Wide intervals are no proof of harm: only a lower end above the limit fails a gate that asks for proof of
        // no harm; until then it stays open.
        match (judged_by, interval) {
            (JudgedBy::ShownNotWorse, Some(i)) if i.high > by_at_most && i.low <= by_at_most => {
                Verdict::Open(text)
            }
            _ => passed_if(judged <= by_at_most, text),
        }
    }
}

fn passed_if(is_within: bool, text: String) -> Verdict {
    if is_within { Verdict::Passed(text) } else { Verdict::Failed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(judged_by: JudgedBy) -> Gate {
        Gate {
            metric: Metric::Accuracy,
            kind: None,
            slice: None,
            limit: Limit::WorseThanControl { by_at_most: 0.03, judged_by },
            min_sample: 50,
            min_control_sample: 50,
        }
    }

    fn evidence(value: f64, n: u64, low: f64, high: f64) -> Vec<Evidence> {
        let sample = |value| Sample { value, n, devices: 2 };
        vec![Evidence {
            metric: Metric::Accuracy,
            slice: None,
            from: UnixMillis(0),
            to: UnixMillis(1),
            candidate: sample(value),
            control: Some(sample(0.97)),
            worse: Some(Interval { low, high, confidence: 0.95 }),
            arithmetic: String::new(),
            left_out: vec![],
        }]
    }

    fn judge(judged_by: JudgedBy, evidence: &[Evidence]) -> Verdict {
        gate(judged_by).judge(&Tally::default(), evidence)
    }

    #[test]
    fn a_gate_without_evidence_is_open() {
        assert!(matches!(judge(JudgedBy::Point, &[]), Verdict::Open(_)));
        assert!(matches!(judge(JudgedBy::Point, &evidence(0.5, 49, 0.3, 0.5)), Verdict::Open(_)));
        let mut no_control = evidence(0.5, 100, 0.3, 0.5);
        no_control[0].control = None;
        assert!(matches!(judge(JudgedBy::Point, &no_control), Verdict::Open(_)));
        assert!(matches!(judge(JudgedBy::Point, &evidence(f64::NAN, 100, 0.3, 0.5)), Verdict::Open(_)));
    }

    #[test]
    fn the_three_ways_to_judge_differ_where_the_interval_spans_the_limit() {
        let spans = evidence(0.93, 100, -0.02, 0.10);
        assert!(judge(JudgedBy::Point, &spans).is_failed());
        assert!(judge(JudgedBy::ShownWorse, &spans).is_passed());
        assert!(matches!(judge(JudgedBy::ShownNotWorse, &spans), Verdict::Open(_)));
        assert!(judge(JudgedBy::ShownNotWorse, &evidence(0.97, 9000, -0.01, 0.01)).is_passed());
        for judged_by in [JudgedBy::Point, JudgedBy::ShownWorse, JudgedBy::ShownNotWorse] {
            assert!(judge(judged_by, &evidence(0.78, 200, 0.12, 0.25)).is_failed());
        }
    }

    #[test]
    fn latency_compares_as_a_ratio_and_accuracy_downwards() {
        assert!((Metric::LatencyP95.worsening(120.0, 100.0) - 0.2).abs() < 1e-12);
        assert!(Metric::Accuracy.worsening(0.9, 0.8) < 0.0);
        assert!(!Metric::LatencyP95.worsening(1.0, 0.0).is_finite());
    }
}
