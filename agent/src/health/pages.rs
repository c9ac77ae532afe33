//! Gives back the pages of the program; those in use come back by themselves.
//!
//! The kernel maps sixteen pages around each one that is touched, and keeps them mapped. A start touches most of the
//! program (configuration, TLS, the spool's recovery, loading of models), an agent at work a small part. What is given
//! back stays in the page cache as long as the device has room, where the next touch finds it; a device that needs
//! the room takes unmapped pages first. Nothing that was ever written is touched.

use std::fs;
use std::time::Duration;

/// A start, and an update that has loaded a model, are over by then; what is used more often is mapped again for some
/// hundred faults.
const EVERY: Duration = Duration::from_secs(20);

/// Gives back again and again, for ever.
pub async fn give_back_in_time() {
    loop {
        tokio::time::sleep(EVERY).await;
        let given = tokio::task::spawn_blocking(give_back).await.unwrap_or(0);
        tracing::trace!(given_bytes = given, "pages of the program were given back");
    }
}

/// Returns how many bytes of the address space were given back.
fn give_back() -> usize {
    let program = fs::read_link("/proc/self/exe").ok().and_then(|path| path.to_str().map(str::to_owned));
    let mappings = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let Some(program) = program else { return 0 };
    clean(&mappings, &program).into_iter().filter(|range| forget(*range)).map(|(from, to)| to - from).sum()
}

/// Ranges of the program's file that can't be written and never were.
fn clean(smaps: &str, program: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(range) = range(line) {
            candidate = Some(range).filter(|_| is_program(line, program));
        } else if line.starts_with("Anonymous:") {
            found.extend(candidate.take().filter(|_| line.split_ascii_whitespace().nth(1) == Some("0")));
        }
    }
    found
}

/// The heading of a mapping begins with its range.
fn range(line: &str) -> Option<(usize, usize)> {
    let (from, to) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
}

fn is_program(heading: &str, program: &str) -> bool {
    let permissions = heading.split_ascii_whitespace().nth(1);
    matches!(permissions, Some("r-xp" | "r--p"))
        && heading.split_once('/').is_some_and(|(_, path)| *path == program[1..])
}

#[expect(unsafe_code, reason = "the kernel offers this by address only")]
fn forget((from, to): (usize, usize)) -> bool {
    let begin = std::ptr::with_exposed_provenance_mut::<libc::c_void>(from);
    // SAFETY: the range is one mapping of the running program's own file, private, never writable and without a page of
    // its own, as the kernel just told; such mappings are not made or changed after the start. Each page that is
    // forgotten is read from the same file again when it is touched, so no byte changes for anyone who looks.
    unsafe { libc::madvise(begin, to - from, libc::MADV_DONTNEED) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 fe:00 7 /opt/agent
Rss:  8 kB
Anonymous:  0 kB
3000-9000 r-xp 00002000 fe:00 7 /opt/agent
Anonymous:  0 kB
9000-a000 r--p 00008000 fe:00 7 /opt/agent
Anonymous:  4 kB
a000-b000 rw-p 00009000 fe:00 7 /opt/agent
Anonymous:  0 kB
b000-c000 r-xp 00000000 fe:00 8 /lib/libc.so.6
Anonymous:  0 kB
c000-d000 r-xp 00000000 00:00 0 [vdso]
Anonymous:  0 kB
";

    #[test]
    fn only_what_was_never_written_of_the_own_program_is_given_back() {
        assert_eq!(clean(SMAPS, "/opt/agent"), [(0x1000, 0x3000), (0x3000, 0x9000)]);
        assert_eq!(clean("", "/opt/agent"), []);
    }

    #[test]
    fn the_program_runs_on_without_its_pages() {
        assert!(give_back() > 100_000);
        assert!(range("1-2 r--p").is_some(), "code that was given back is read again");
    }
}
