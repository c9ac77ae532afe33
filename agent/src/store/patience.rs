//! sled keeps seven threads ready for work, and each of them wakes once a second only to see whether it is one too many.
//! Linux lets a thread say how late its timeouts may come, and its children inherit that: threads that are born while
//! a database is opened are told of work at once, as always, and look around once in half a minute.

use std::fs;

/// How late a timeout may come. The kernel takes no more than four seconds on 32 bits.
const LATE_NS: &str = if cfg!(target_pointer_width = "64") { "30000000000" } else { "4000000000" };
/// The file's word for what the thread began with.
const AS_BEFORE: &str = "0";

/// As long as it lives, threads that this one starts are born with late timeouts. Where the kernel has no such file,
/// they wake as ever.
pub(super) struct PatientChildren(Option<String>);

impl PatientChildren {
    pub(super) fn begin() -> Self {
        let file = own_file().filter(|file| fs::write(file, LATE_NS).is_ok());
        Self(file)
    }
}

impl Drop for PatientChildren {
    fn drop(&mut self) {
        if let Some(file) = &self.0
            && let Err(error) = fs::write(file, AS_BEFORE)
        {
            tracing::warn!(%file, %error, "timeouts of the starting thread stay late");
        }
    }
}

/// A thread may always write its own, which lies where processes are listed, not among the process's threads.
fn own_file() -> Option<String> {
    let own = fs::read_link("/proc/thread-self").ok()?;
    Some(format!("/proc/{}/timerslack_ns", own.file_name()?.to_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slack() -> String {
        fs::read_to_string(own_file().unwrap()).unwrap_or_default().trim().to_owned()
    }

    #[test]
    fn children_inherit_late_timeouts_and_the_parent_gets_its_own_back() {
        let before = slack();
        let patient = PatientChildren::begin();
        let child = std::thread::spawn(slack).join().unwrap();
        drop(patient);
        assert_eq!(slack(), before);
        if !before.is_empty() {
            assert_eq!(child, LATE_NS);
        }
    }
}
