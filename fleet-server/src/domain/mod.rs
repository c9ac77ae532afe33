//! What the server decides, away from HTTP and SQL: who may do what, labels, alerts, audit, rollouts, drift.

pub mod access;
pub mod audit;
pub mod drift;
pub mod labels;
pub mod orphans;
pub mod passwords;
pub mod rollouts;
pub mod samples;
pub mod users;
pub mod why;
