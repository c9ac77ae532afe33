//! What to do about a role whose time is over, and how close to it the others are.

use protocol::UnixMillis;
use trust::{Cause, TrustError, parse_rfc3339};

use crate::client::ClientError;
use crate::metadata::now;

/// From so many days before its end a role's end is marked.
const SOON_DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;

/// What somebody has to do about a role that has expired.
pub(crate) fn advice(role: &str) -> String {
    match role {
        "root" | "targets" => {
            format!(
                "{role} has expired; sign root and targets anew, both at once, with: flotilla keys rotate targets"
            )
        }
        "snapshot" | "timestamp" => {
            format!(
                "{role} has expired, which the server signs itself every day: look at its clock and its log"
            )
        }
        model => format!(
            "the role of {model} has expired; sign it anew with: flotilla keys rotate {model}, or with its next release"
        ),
    }
}

/// The advice, if the server refused something because a role has expired.
pub(crate) fn of_refusal(error: &ClientError) -> Option<String> {
    match error {
        ClientError::Refused { code, role: Some(role), .. } if code == "expired" => Some(advice(role)),
        _ => None,
    }
}

/// Puts the advice before a refusal of an expired role; any other error stays as it is.
pub(crate) fn advise(error: anyhow::Error) -> anyhow::Error {
    let advice = match error.downcast_ref::<TrustError>() {
        Some(TrustError { role, cause: Cause::Expired { .. }, .. }) => advice(role),
        _ => return error,
    };
    error.context(advice)
}

/// The end of a role's validity as people read it: what is over or near is marked, unless the server renews it itself.
pub(crate) fn until(role: &str, expires: &str) -> String {
    match (parse_rfc3339(expires), now()) {
        (Some(at), Ok(now)) => marked(role, expires, at.millis_since(now)),
        _ => expires.to_owned(),
    }
}

fn marked(role: &str, expires: &str, left_ms: i64) -> String {
    let is_servers = matches!(role, "snapshot" | "timestamp");
    match left_ms {
        ..=0 => format!("{expires} EXPIRED"),
        _ if !is_servers && left_ms < SOON_DAYS * DAY_MS => {
            format!("{expires} in {} days", left_ms / DAY_MS)
        }
        _ => expires.to_owned(),
    }
}

/// Says so when one of these files has expired: nothing that builds on it will be taken.
pub(crate) fn warn(role: &str, expires: UnixMillis) {
    if now().is_ok_and(|now| expires <= now) {
        eprintln!("warning: {}", advice(role));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expired_is_told_with_the_command_that_renews_it() {
        let refused = |code: &str, role: Option<&str>| ClientError::Refused {
            status: 422,
            code: code.into(),
            message: "Refused".into(),
            role: role.map(str::to_owned),
        };
        for role in ["root", "targets"] {
            let advice = of_refusal(&refused("expired", Some(role))).unwrap();
            assert!(advice.contains("flotilla keys rotate targets"), "{advice}");
        }
        assert!(
            of_refusal(&refused("expired", Some("faces"))).unwrap().contains("flotilla keys rotate faces")
        );
        assert_eq!(of_refusal(&refused("untrusted", None)), None);
        let over =
            |cause| anyhow::Error::from(TrustError { role: "root".into(), step: "5.3.10 freeze", cause });
        let said = advise(over(Cause::Expired { expires: "then".into(), now: "now".into() }));
        assert!(format!("{said:#}").starts_with("root has expired;"), "{said:#}");
        assert!(said.downcast_ref::<TrustError>().is_some(), "who decides by it still can");
        assert!(advise(over(Cause::TargetAbsent)).to_string().starts_with("root: refused"));
    }

    #[test]
    fn an_end_that_is_over_or_near_is_marked() {
        assert_eq!(marked("targets", "T", 0), "T EXPIRED");
        assert_eq!(marked("targets", "T", 3 * DAY_MS + 1), "T in 3 days");
        assert_eq!(marked("targets", "T", 30 * DAY_MS), "T");
        assert_eq!(marked("timestamp", "T", 2 * DAY_MS), "T", "the server renews it");
        assert_eq!(marked("timestamp", "T", -1), "T EXPIRED");
        assert_eq!(until("root", "-"), "-");
    }
}
