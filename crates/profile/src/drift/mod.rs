//! Comparison of what was seen with what was expected: a window with the reference, or a candidate with a control.
//! Every result says its convention, its bins, its sample sizes and with which tool's number it is comparable.

mod compare;
mod marginal;
mod report;

pub use compare::{compare, compare_counters, compare_panes, quality, service};
pub use marginal::{Distribution, distribution};
pub use report::{
    Bin, BinShare, DriftReport, FeatureDrift, Measure, MeasureKind, Quality, Role, Service, Status,
    Thresholds, Verdict,
};
