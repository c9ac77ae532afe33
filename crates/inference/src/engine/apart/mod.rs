//! Whether the rows of a batch stay apart in a graph, said by its shapes: each value's for few rows and for many. Rows
//! may be moved to another axis and folded into one with others, and come back; what works along that axis mixes them.
//!
//! No weights are looked at, so that this costs next to nothing. What isn't known here is for others to try; the rules
//! never call rows apart that aren't. Against ONNX Runtime's answers to batches: `tests/models`.

mod rules;
mod sizes;
mod skeleton;
mod walk;

pub(crate) use walk::Verdict;
pub(super) use walk::verdict;
