//! What the agent learns by serving: panes of counters per release, delayed labels, latency and errors for the
//! update machine's probation, readings of the device's resources.
//!
//! Nothing here waits: counting happens on the thread that ran the inference, after the answer has left, and
//! closed panes go to the spool through a [`Sink`] that never blocks. Raw inputs are kept only by [`Capture`], with the
//! device's consent and the release's permission. What is in an open pane is lost with the process: at most one window. Tests stand in each module and in `tests/api`.

mod capture;
mod counting;
mod labels;
mod recorder;
mod resources;
mod shadow;
mod totals;
mod watch;

pub use capture::{Capture, CaptureFigures, Cause};
pub use labels::{FeedbackError, Label};
pub use recorder::{Monitor, Outcome, Request, Sink, Times};
pub use resources::read as read_resources;
pub use shadow::{Shadow, ShadowTally};
pub use totals::{Latency, Totals};
pub use watch::Vitals;
