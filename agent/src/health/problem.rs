//! What is wrong, of which kind, and what a person can do about it. The kind decides the advice; nobody reads texts.

use protocol::message::CauseKind;
use serde::Serialize;

/// One thing that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which kind.
    pub kind: ProblemKind,
    /// One sentence: what, where, why.
    pub detail: String,
}

impl Problem {
    /// Of `kind`, told in one sentence. What it repeats of others (a name of a file, an error) moves no terminal's cursor.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into().replace(char::is_control, "\u{fffd}") }
    }

    /// As `status --json` shows it.
    pub fn shown(&self) -> ShownProblem {
        ShownProblem { kind: self.kind.name(), what: self.detail.clone(), todo: self.kind.advice().into() }
    }
}

/// A problem as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct ShownProblem {
    /// Stable name, e.g. `offline`.
    pub kind: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub todo: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// No connection to the server.
    Offline,
    /// The server lets this device in no more.
    NotAdmitted,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate should have been renewed by now.
    CertificateNotRenewed,
    /// Signed metadata has expired.
    MetadataExpired,
    /// Signed metadata was refused.
    MetadataRefused,
    /// The root that this device trusts is damaged on its disk.
    TrustDamaged,
    /// One copy of that root was damaged.
    TrustRepaired,
    /// The state directory takes no writes.
    StateUnwritable,
    /// The boot record can't be written.
    BootRecordUnwritable,
    /// One copy of the boot record was damaged.
    BootRecordRepaired,
    /// Both copies of the boot record were damaged.
    BootRecordLost,
    /// The configuration that was read again is wrong.
    ConfigRefused,
    /// The configuration that was read again waits for a restart in parts.
    RestartNeeded,
    /// The last starts ended early.
    CrashLoop,
    /// The wall clock stands before a time that has passed.
    ClockImplausible,
    /// The stored lower bound of time lies after everything that could be true.
    ClockFloorImplausible,
    /// The server signs times that are ahead of this device's clock.
    ServerTimeAhead,
    /// The system lets the agent open fewer files than it may need.
    FewFiles,
    /// The telemetry spool was damaged and moved aside.
    SpoolQuarantined,
    /// Telemetry can't be stored.
    SpoolUnwritable,
    /// The key that telemetry is sealed with can't be had.
    SpoolKey,
    /// The spool is nearly full.
    SpoolFilling,
    /// The budget of flash writes is used up.
    WriteBudget,
    /// Little room on the disk.
    DiskLow,
    /// The agent's memory is above its soft bound.
    MemoryHigh,
    /// The agent's memory stayed above its hard bound: it started anew.
    MemoryRestart,
    /// What serves is allowed more memory than the budget that was lowered meanwhile.
    OverBudget,
    /// A model that should serve does not.
    ModelAbsent,
    /// A candidate that should run beside what serves does not.
    CandidateAbsent,
    /// A release that served can't be loaded any more.
    ReleaseLost,
    /// A release serves that its publisher has fenced off.
    ReleaseFenced,
    /// A model runs a smaller variant than its publisher prefers.
    SmallerVariant,
    /// A watched folder or a local broker can't be served.
    InputFailing,
    /// A part of the agent hangs, or has failed: it was started again, or the whole agent was.
    PartFailing,
    /// The last update of a model ended badly.
    UpdateEnded(CauseKind),
}

impl ProblemKind {
    /// Its stable name.
    pub fn name(self) -> String {
        match self {
            Self::UpdateEnded(cause) => format!("update_ended_{}", word(&cause)),
            other => word(&other),
        }
    }

    /// What to do, in one sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Offline => {
                "nothing is lost meanwhile; run `flotilla-agent doctor` to see where the way to the server ends"
            }
            Self::NotAdmitted => {
                "enrol it again: remove its name at the server (`flotilla device delete NAME`), make a token (`flotilla \
                 device token --device NAME`), run `flotilla-agent enroll --force --token ...` and restart the agent; \
                 models and telemetry stay"
            }
            Self::CertificateExpired => {
                "look at the device's clock first (`flotilla-agent doctor` compares it with the server's); if it is right, \
                 the server lets the device in no more: make a token (`flotilla device token --device NAME`), run \
                 `flotilla-agent enroll --force --token ...` and restart the agent; models and telemetry stay"
            }
            Self::CertificateNotRenewed => {
                "check that the device port of the server can be reached: `flotilla-agent doctor`"
            }
            Self::MetadataExpired => {
                "what is committed serves on, but nothing new is accepted; check the connection, then whether the \
                 server still signs its timestamp"
            }
            Self::MetadataRefused => {
                "do not force it: the server's metadata does not follow from the trusted root; ask who publishes"
            }
            Self::TrustDamaged => {
                "what is committed serves on, but nothing new is accepted: restore state_dir/trusted from a copy, or enrol \
                 the device again (`flotilla device delete NAME`, `flotilla device token --device NAME`, \
                 `flotilla-agent enroll --force --token ...`); if it comes again, the disk is failing"
            }
            Self::StateUnwritable | Self::BootRecordUnwritable => {
                "check that the disk is not full or read-only and that state_dir belongs to the agent's user"
            }
            Self::BootRecordRepaired | Self::TrustRepaired => {
                "nothing to do now; if it comes again, the disk is failing: replace it"
            }
            Self::BootRecordLost => {
                "let the device reach its server, which says what to run: nothing to do once its models serve again; if it \
                 comes again, the disk is failing: replace it"
            }
            Self::ConfigRefused => {
                "what held before holds on: run `flotilla-agent check-config`, mend the file and reload again (SIGHUP)"
            }
            Self::RestartNeeded => {
                "restart the agent when it suits: what is committed serves again right after"
            }
            Self::CrashLoop => {
                "look at the log for the reason of the last ends: `journalctl -u flotilla-agent`"
            }
            Self::ClockImplausible => {
                "set the clock or give the device a time server; certificates are judged by the bound meanwhile"
            }
            Self::ClockFloorImplausible => {
                "nothing while the agent runs: it writes the files anew within the hour; if it comes again, the disk \
                 is failing, or a server had a wrong clock"
            }
            Self::ServerTimeAhead => {
                "set right the clock that is wrong: the server's, or this device's (give it a time server); if the \
                 server's is right, ask who else has its keys"
            }
            Self::FewFiles => "raise LimitNOFILE= of the agent's service, or lower serve.max_connections",
            Self::SpoolQuarantined => {
                "what was lost is counted (storage), here and on the server; if it comes again, the disk is failing"
            }
            Self::SpoolUnwritable => "free room on the disk of state_dir, or make it writable again",
            Self::SpoolKey => {
                "put the key of 32 bytes that what waits was sealed with where spool.key_file says, for this user to read: \
                 an agent that runs takes it by itself (models serve on, nothing is stored in plain), one that \
                 doesn't has to be started; to begin anew without what waits, remove the folders spool and samples in \
                 the state directory"
            }
            Self::SpoolFilling => {
                "bring the device back online, or raise spool.max_bytes; panes are merged before anything is dropped"
            }
            Self::WriteBudget => {
                "commits are rarer until the day is over; raise spool.write_bytes_per_day if the flash permits it"
            }
            Self::DiskLow => "free room on the disk of state_dir; new releases can't be fetched meanwhile",
            Self::MemoryHigh => {
                "what serves goes on; raise health.memory_soft_bytes if the device has the memory, or roll out a smaller release"
            }
            Self::MemoryRestart => {
                "raise health.memory_hard_bytes, or roll out a smaller release; if memory grows without new models, \
                 report it with the log"
            }
            Self::OverBudget => {
                "nothing where smaller variants are being brought in by themselves; else raise update.memory_budget_bytes again, or \
                 roll out a smaller release before the next start"
            }
            Self::ModelAbsent => {
                "where the reason is the memory budget, raise update.memory_budget_bytes (SIGHUP suffices) or roll out a smaller \
                 release of this or another model; else roll out one that loads on this device"
            }
            Self::CandidateAbsent => {
                "what serves goes on; the candidate runs beside by itself once its model answers and there is room: raise \
                 update.memory_budget_bytes (SIGHUP suffices) or roll out smaller releases"
            }
            Self::ReleaseLost => {
                "what the disk lost is fetched again by itself; if it comes again, the disk is failing: replace it"
            }
            Self::ReleaseFenced => {
                "it serves on until a newer one takes its place, and nothing goes back to it: roll out a release at or above \
                 the fence"
            }
            Self::SmallerVariant => {
                "nothing, if its accuracy is enough; else raise update.memory_budget_bytes (SIGHUP suffices) or roll out a smaller \
                 release of another model: the preferred one is taken again by itself then"
            }
            Self::InputFailing => {
                "rename a file whose name is too long; else check that the configuration names a model of this device, that the agent's user may read and write the \
                 folders that it names, and that the broker runs; what waits is tried again by itself"
            }
            Self::PartFailing => {
                "nothing while it comes once: it was started again by itself; if it comes again, or a part hangs, report it with the \
                 log (`journalctl -u flotilla-agent`); one that hangs may wait for a disk that is failing"
            }
            Self::UpdateEnded(cause) => after(cause),
        }
    }
}

fn after(cause: CauseKind) -> &'static str {
    use CauseKind as C;
    match cause {
        C::Untrusted | C::DesiredMismatch | C::Downgrade => {
            "the device refused what its keys do not permit; check what was published and signed"
        }
        C::MetadataExpired | C::Download | C::Timeout => {
            "it is tried again by itself; check the connection if it stays"
        }
        C::Integrity => {
            "it is fetched again by itself; if it stays, the server's copy of the blob is damaged"
        }
        C::Incompatible => "publish a variant for this hardware, or leave this device out of the rollout",
        C::DiskFull => "free room on the disk; it is tried again by itself",
        C::Storage => "check the disk; it is tried again by itself",
        C::Load | C::GoldenMismatch => {
            "the release does not run on this device as it did in training; try it with `flotilla release check`"
        }
        C::TooSlow => "publish a faster variant, or raise the release's latency budget",
        C::TooBig => {
            "publish a smaller variant, or raise the release's memory budget where that was exceeded; or, where the \
             reason is a bound of this device, raise it (update.memory_budget_bytes, health.memory_soft_bytes) if the \
             device has the memory: the release is then tried again by itself, while the fleet still asks for it"
        }
        C::ProbationErrors | C::ProbationLatency | C::CrashLoop => {
            "what the device held before serves again where there is room for it; look at what this one did before it \
             is rolled out anew"
        }
        C::Superseded => "nothing: the server asked for another release",
        C::Internal => {
            "report it with the log if it stays; a release that had not served yet is tried again by itself"
        }
    }
}

fn word(kind: &impl Serialize) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => "problem".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_every_kind_says_what_to_do() {
        assert_eq!(ProblemKind::Offline.name(), "offline");
        assert_eq!(ProblemKind::UpdateEnded(CauseKind::TooBig).name(), "update_ended_too_big");
        assert_eq!(Problem::new(ProblemKind::InputFailing, "\u{1b}[31mx\n").detail, "\u{fffd}[31mx\u{fffd}");
        let shown = Problem::new(ProblemKind::DiskLow, "1 MB is free").shown();
        assert_eq!((shown.kind.as_str(), shown.what.as_str()), ("disk_low", "1 MB is free"));
        assert!(shown.todo.starts_with("free room"));
    }
}
