//! Drift over the fleet: panes become windows, windows become alerts, and two sets of devices become evidence
//! for a gate. What is computed here can be computed again from the stored panes at any time.

mod alerts;
mod chart;
mod evidence;
mod gather;
mod merge;
mod panes;
mod reports;
mod view;
mod windows;

pub use alerts::{Hysteresis, review};
pub use chart::chart;
pub use evidence::{Group, behaviour, compare_groups};
pub use merge::{merge_old, merged_slot};
pub use panes::{DriftError, newest, reference_of};
pub use reports::with_reports;
pub use view::{DriftingDevice, WindowSpan, distribution, drifting_devices};
pub use windows::{WindowRules, refresh, refresh_merged};
