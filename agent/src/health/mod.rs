//! Staying up and knowing it: bounded clock, disk room, systemd notify and watchdog, crash-loop breaker, tasks
//! under one supervisor.

pub mod disk;

mod breaker;
mod clock;
mod failures;
mod files;
mod hardware;
mod kept_number;
mod logs;
mod memory;
mod notify;
mod pages;
mod problem;
mod supervisor;

pub use breaker::{Breaker, LoadLog, Loading, Start, unless_ended};
pub use clock::{Clock, built_at};
pub use disk::{ends_within, free_bytes, unwritable, used_bytes};
pub use failures::{Failures, leave_reason, take_reason};
pub use files::raise_file_limit;
pub use hardware::read_hardware;
pub use logs::LogRing;
pub use memory::{Bounds, Footprint, forget_peak, peak_bytes, resident_bytes};
pub use notify::{Advance, BEAT_EVERY, Pulse, ready, starting, stopping};
pub use pages::give_back_in_time;
pub use problem::{Problem, ProblemKind, ShownProblem};
pub use supervisor::Supervisor;
