//! Drift over the fleet: panes become windows, windows become alerts, and two sets of devices become evidence
//! for a gate. What is computed here can be computed again from the stored panes at any time.

mod alerts;
mod evidence;
mod panes;
mod view;
mod windows;

pub use alerts::{Hysteresis, review};
pub use evidence::{Group, behaviour, compare_groups};
pub use panes::{DriftError, newest, reference_of};
pub use view::{DriftingDevice, DriftingFeature, WindowSpan, distribution, drifting_devices};
pub use windows::{WindowRules, refresh};
