//! Why something was not trusted.

use crate::json::JsonError;
use crate::key::KeyId;

/// A refusal: which role, at which step of the specification, and why.
#[derive(Debug, thiserror::Error)]
#[error("{role}: refused at step {step}")]
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
    #[error("key {key} is listed twice among the signatures")]
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
    #[error("{what} went back from version {trusted} to {got}")]
    Rollback {
        /// Which file.
        what: String,
        /// What was trusted before.
        trusted: u64,
        /// What came.
        got: u64,
    },
    /// A role that was listed before is gone.
    #[error("{0} is no longer listed")]
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
    #[error("the repository does not have {0}")]
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

impl Cause {
    /// The id of the attack in the threat model that this refusal stops.
    pub fn attack(&self) -> &'static str {
        match self {
            Self::Json(_) => "D6",
            Self::Format(_) | Self::Field(_) | Self::Threshold { .. } => "A1",
            Self::SignedTwice { .. } => "A2",
            Self::WrongType { .. } => "A4",
            Self::WrongVersion { .. } => "M1",
            Self::Rollback { .. } => "R1",
            Self::RoleRemoved(_) => "R2",
            Self::Expired { .. } => "F1",
            Self::TooLong { .. } => "D1",
            Self::Length { .. } | Self::Hash { .. } | Self::TargetAbsent | Self::TargetNotWanted => "A5",
            Self::NoKnownHash => "A10",
            Self::Missing(_) => "D5",
            Self::TooMany { .. } => "D3",
            Self::StoredFile { .. } | Self::OutOfTurn => "X3",
            Self::WrongAudience { .. } => "M2",
            Self::NotRising { .. } => "V1",
        }
    }

    pub(crate) fn at(self, role: impl Into<String>, step: &'static str) -> TrustError {
        TrustError { role: role.into(), step, cause: self }
    }
}
