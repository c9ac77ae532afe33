//! Every clause of the client workflow (TUF specification, section 5), against a simulated repository that is made
//! from the specification and not with our builders. Attacks of the threat model that these tests play are in their
//! names.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod delegations;
mod keys;
mod root;
mod snapshot;
mod storing;
mod targets;
mod timestamp;

use trust::{Cause, TrustError};

/// Step and attack id of a refusal, such as `("5.4.3", "R1")`.
fn refusal<T: std::fmt::Debug>(result: Result<T, TrustError>) -> (String, &'static str) {
    let error = result.unwrap_err();
    (error.step.split(' ').next().unwrap().to_owned(), error.attack())
}

fn is(step: &str, attack: &'static str) -> (String, &'static str) {
    (step.to_owned(), attack)
}

/// The cause of a refusal.
fn cause<T: std::fmt::Debug>(result: Result<T, TrustError>) -> Cause {
    result.unwrap_err().cause
}
