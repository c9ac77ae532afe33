//! The link, enrolment and signed metadata against a real server: real TLS, the real broker, a real database.

mod access;
mod desired;
mod enrolment;
mod publication;
mod support;
mod telemetry;
