//! Why something was not trusted.

use crate::json::JsonError;
use crate::key::KeyId;

/// What there may be too many of in one file.
pub(crate) const SIGNATURES: &str = "signatures";

/// A refusal: which role, at which step of the specification, and why.
#[derive(Debug, thiserror::Error)]
#[error("{role}: refused ({attack}) at step {step}", role = shown(role), attack = attack_of(role, cause))]
pub struct TrustError {
    /// The role, or the target's path.
    pub role: String,
    /// The step, with the section number of the TUF specification where it has one.
    pub step: &'static str,
    /// What is wrong.
    #[source]
    pub cause: Cause,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Not the bounded, duplicate-free JSON that metadata is.
    #[error("not acceptable JSON")]
    Json(#[source] JsonError),
    /// JSON, but without the fields of this role.
    #[error("not the format of this role")]
    Format(#[source] serde_json::Error),
    /// A field holds what the specification doesn't allow.
    #[error("{0}")]
    Field(String),
    /// A file of another role.
    #[error("expected a file of type {expected:?}, got {got:?}")]
    WrongType {
        /// What was asked for.
        expected: String,
        /// What the file says it is.
        got: String,
    },
    /// Fewer valid signatures of distinct keys than the threshold.
    #[error("{valid} valid signatures of distinct keys, {threshold} are needed ({reasons})")]
    Threshold {
        /// Valid ones.
        valid: usize,
        /// Needed ones.
        threshold: usize,
        /// Why the others did not count.
        reasons: String,
    },
    /// One key id stands twice among the signatures.
    #[error("key {key} is listed twice among the signatures", key = shown(key.as_str()))]
    SignedTwice {
        /// Its id.
        key: KeyId,
    },
    /// The version is not the one that must come.
    #[error("version {got}, expected exactly {expected}")]
    WrongVersion {
        /// What must come.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// A version fell.
    #[error("{what} went back from version {trusted} to {got}", what = shown(what))]
    Rollback {
        /// Which file.
        what: String,
        /// What was trusted before.
        trusted: u64,
        /// What came.
        got: u64,
    },
    /// A role that was listed before is gone.
    #[error("{} is no longer listed", shown(.0))]
    RoleRemoved(String),
    /// Expired.
    #[error("expired at {expires}, now is {now}")]
    Expired {
        /// RFC 3339.
        expires: String,
        /// RFC 3339, the fixed time of this run.
        now: String,
    },
    /// Longer than signed or than the bound.
    #[error("longer than {max_bytes} bytes")]
    TooLong {
        /// The bound.
        max_bytes: u64,
    },
    /// Shorter or longer than signed.
    #[error("{got} bytes, signed are {expected}")]
    Length {
        /// Signed.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// A hash differs.
    #[error("{algorithm} hash is {got}, signed is {expected}")]
    Hash {
        /// `sha256` or `sha512`.
        algorithm: &'static str,
        /// Signed, hex.
        expected: String,
        /// What came, hex.
        got: String,
    },
    /// No hash of a known algorithm is listed.
    #[error("no hash of a known algorithm (sha256, sha512)")]
    NoKnownHash,
    /// The server does not have a file that must be there.
    #[error("the repository does not have {}", shown(.0))]
    Missing(String),
    /// No trusted role lists the target.
    #[error("no trusted role lists this target")]
    TargetAbsent,
    /// The target was not asked for when the session began.
    #[error("this target was not asked for in this session")]
    TargetNotWanted,
    /// More of something than [`Limits`](crate::Limits) allows.
    #[error("more than {max} {what}")]
    TooMany {
        /// What.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A stored file can't be read. Never taken for "nothing stored".
    #[error("the stored file {name} can't be used; restore it or enrol again")]
    StoredFile {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<Cause>,
    },
    /// Signed for another project or device.
    #[error("made for {got:?}, this is {expected:?}")]
    WrongAudience {
        /// This device.
        expected: String,
        /// What is signed.
        got: String,
    },
    /// A counter or revision that is not higher than the last one.
    #[error("{what} {got} is not above {floor}")]
    NotRising {
        /// `revision` or `counter`.
        what: &'static str,
        /// The last accepted.
        floor: u64,
        /// What came.
        got: u64,
    },
    /// A session was used after its end or fed out of turn.
    #[error("the session is over or expected no reply")]
    OutOfTurn,
}

impl TrustError {
    /// The id of the attack in the threat model that this refusal stops.
    pub fn attack(&self) -> &'static str {
        attack_of(&self.role, &self.cause)
    }
}

fn attack_of(role: &str, cause: &Cause) -> &'static str {
    match cause {
        Cause::Json(_) | Cause::TooMany { what: SIGNATURES, .. } => "D6",
        Cause::Format(_) | Cause::Field(_) | Cause::Threshold { .. } => "A1",
        Cause::SignedTwice { .. } => "A2",
        Cause::WrongVersion { .. } if role == "root" => "A3",
        Cause::WrongType { .. } => "A4",
        Cause::WrongVersion { .. } => "M1",
        Cause::Rollback { .. } => "R1",
        Cause::RoleRemoved(_) => "R2",
        Cause::Expired { .. } => "F1",
        Cause::TooLong { .. } => "D1",
        Cause::Length { .. } | Cause::Hash { .. } | Cause::TargetAbsent | Cause::TargetNotWanted => "A5",
        Cause::TooMany { .. } => "A6",
        Cause::NoKnownHash => "A10",
        Cause::Missing(_) => "D5",
        Cause::StoredFile { .. } | Cause::OutOfTurn => "X3",
        Cause::WrongAudience { .. } => "M2",
        Cause::NotRising { .. } => "V1",
    }
}

/// Names that others chose, as a terminal may show them.
pub(crate) fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

impl Cause {
    pub(crate) fn at(self, role: impl Into<String>, step: &'static str) -> TrustError {
        TrustError { role: role.into(), step, cause: self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_attack() {
        let old = || Cause::WrongVersion { expected: 2, got: 4 };
        assert_eq!(old().at("root", "5.3.5 rollback").attack(), "A3");
        let error = old().at("digits", "5.6.4 version in snapshot");
        assert_eq!(error.to_string(), "digits: refused (M1) at step 5.6.4 version in snapshot");
    }

    #[test]
    fn names_that_others_chose_move_no_terminal() {
        let name = || "\u{1b}]0;x\u{7}\u{202e}".to_owned();
        let causes = [
            Cause::RoleRemoved(name()),
            Cause::Missing(name()),
            Cause::SignedTwice { key: KeyId::from_text(name()) },
            Cause::Rollback { what: name(), trusted: 2, got: 1 },
        ];
        for cause in causes {
            let error = cause.at(name(), "5.4.3 rollback");
            let text = format!("{error}: {}", error.cause);
            assert!(text.is_ascii() && !text.contains(char::is_control), "{text:?}");
        }
    }
}
