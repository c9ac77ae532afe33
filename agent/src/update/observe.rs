//! Probation: what was seen of a release while it served under watch, and what that means. The verdict is pure.

use std::time::Duration;

use protocol::ModelName;
use protocol::message::{Cause, CauseKind};
use release::Probation;

use crate::health::ProblemKind;
use crate::monitor::Vitals;
use crate::slots::Loaded;

/// Failures and slowness are judged from so many requests on.
const MIN_JUDGED: u64 = 20;

/// Watches the releases that serve; the monitor implements it.
pub trait Observer: Send + Sync {
    /// `loaded` answers from now on: begin anew.
    fn begin(&self, loaded: &Loaded);

    /// What was seen since.
    fn vitals(&self, model: &ModelName) -> Vitals;

    /// Something needs attention: for the log and, as a record, for the server.
    fn attention(&self, kind: ProblemKind, detail: String);
}

/// What probation says so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait,
    Healthy,
    Unhealthy(Cause),
}

/// Judges `seen` after `elapsed`; `duration` stands in for the release's own when configured.
pub(super) fn judge(
    probation: &Probation,
    duration: Option<Duration>,
    elapsed: Duration,
    seen: Vitals,
) -> Verdict {
    let unhealthy = |kind, detail| Verdict::Unhealthy(Cause { kind, detail });
    let error_percent =
        if seen.requests == 0 { 0.0 } else { 100.0 * seen.errors as f64 / seen.requests as f64 };
    let is_judged = seen.requests >= MIN_JUDGED;
    if is_judged && error_percent > probation.max_error_percent {
        let detail = format!(
            "{} of {} requests failed in probation, allowed are {} %",
            seen.errors, seen.requests, probation.max_error_percent
        );
        return unhealthy(CauseKind::ProbationErrors, detail);
    }
    if is_judged && seen.p95_us > probation.max_p95_us {
        let detail = format!(
            "95 % of the requests took up to {} µs, allowed are {} µs",
            seen.p95_us, probation.max_p95_us
        );
        return unhealthy(CauseKind::ProbationLatency, detail);
    }
    let duration = duration.unwrap_or(Duration::from_secs(probation.duration_s));
    if elapsed < duration || seen.requests < probation.min_requests {
        return Verdict::Wait;
    }
    Verdict::Healthy
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBATION: Probation =
        Probation { duration_s: 60, max_error_percent: 5.0, max_p95_us: 1000, min_requests: 10 };

    fn after(seconds: u64, requests: u64, errors: u64, p95_us: u64) -> Verdict {
        judge(&PROBATION, None, Duration::from_secs(seconds), Vitals { requests, errors, p95_us })
    }

    #[test]
    fn probation_waits_for_time_and_requests() {
        assert_eq!(after(59, 100, 0, 10), Verdict::Wait);
        assert_eq!(after(600, 9, 0, 10), Verdict::Wait);
        assert_eq!(after(60, 10, 0, 10), Verdict::Healthy);
    }

    #[test]
    fn errors_and_slowness_end_it_early_but_not_on_a_handful_of_requests() {
        assert!(matches!(
            after(1, 100, 6, 10),
            Verdict::Unhealthy(Cause { kind: CauseKind::ProbationErrors, .. })
        ));
        assert!(matches!(
            after(1, 100, 5, 1001),
            Verdict::Unhealthy(Cause { kind: CauseKind::ProbationLatency, .. })
        ));
        assert_eq!(after(1, 19, 19, 9999), Verdict::Wait);
    }

    #[test]
    fn a_configured_duration_stands_in_for_the_release_own() {
        let seen = Vitals { requests: 10, errors: 0, p95_us: 1 };
        assert_eq!(
            judge(&PROBATION, Some(Duration::from_secs(2)), Duration::from_secs(2), seen),
            Verdict::Healthy
        );
    }
}
