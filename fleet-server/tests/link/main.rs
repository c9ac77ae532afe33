//! The link, enrolment and signed metadata against a real server: real TLS, the real broker, a real database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod desired;
mod enrolment;
mod measurements;
mod publication;
mod samples;
mod sql;
mod support;
mod telemetry;
