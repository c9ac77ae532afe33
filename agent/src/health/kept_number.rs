//! One number that outlives a power cut and a damaged block: a record of two copies. Earlier versions kept it as a
//! plain file of digits; that one is taken over once, by the first write. What a lost number means, the caller says.

use std::path::{Path, PathBuf};

use crate::durable::{self, DurableError, TwoCopies};

/// Longest plain file that an earlier version wrote, with room to spare.
const MAX_PLAIN_BYTES: u64 = 64;

/// Keeps the number at `<path>.a` and `<path>.b`.
#[derive(Debug)]
pub(super) struct KeptNumber {
    record: TwoCopies,
    plain: PathBuf,
}

impl KeptNumber {
    /// Reads the number; none when there is none or nothing valid is left of it. Writes nothing.
    ///
    /// # Errors
    /// [`DurableError`] when a copy exists and can't be read.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<i64>), DurableError> {
        let kept = |record| Self { record, plain: path.to_owned() };
        match TwoCopies::open(path) {
            Ok((record, Some(found))) => {
                let number = <[u8; 8]>::try_from(found.body).ok().map(i64::from_be_bytes);
                Ok((kept(record), number))
            }
            Ok((record, None)) => Ok((kept(record), plain(path)?)),
            Err(DurableError::Corrupt { .. }) => {
                let path_shown = path.display();
                tracing::error!("both copies of {path_shown} are damaged; it is begun anew");
                Ok((kept(TwoCopies::begin_anew(path)), None))
            }
            Err(error) => Err(error),
        }
    }

    /// One that can't be read now; a write replaces what is there.
    pub(super) fn begin_anew(path: &Path) -> Self {
        Self { record: TwoCopies::begin_anew(path), plain: path.to_owned() }
    }

    /// Makes `number` the kept one, durably.
    ///
    /// # Errors
    /// [`DurableError`]; the kept number is then what it was before.
    pub(super) fn write(&mut self, number: i64) -> Result<(), DurableError> {
        self.record.write(&number.to_be_bytes())?;
        // Only now: until here the plain file was the one that counted. Mostly it is gone already.
        let _gone = std::fs::remove_file(&self.plain);
        Ok(())
    }
}

/// What an earlier version left; garbage counts as nothing.
fn plain(path: &Path) -> Result<Option<i64>, DurableError> {
    match durable::read_bounded(path, MAX_PLAIN_BYTES) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok())),
        Err(DurableError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done to one copy.
    type Damage = (&'static str, fn(&Path));

    const DAMAGE: [Damage; 7] = [
        ("gone", |copy| std::fs::remove_file(copy).unwrap()),
        ("empty", |copy| std::fs::write(copy, b"").unwrap()),
        ("garbage", |copy| std::fs::write(copy, b"9999999999999").unwrap()),
        ("cut", |copy| change(copy, |bytes| bytes.truncate(bytes.len() - 1))),
        ("longer", |copy| change(copy, |bytes| bytes.push(0))),
        ("another number", |copy| change(copy, |bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("another generation", |copy| change(copy, |bytes| bytes[15] ^= 1)),
    ];

    fn change(copy: &Path, change: fn(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(copy).unwrap();
        change(&mut bytes);
        std::fs::write(copy, bytes).unwrap();
    }

    fn kept(path: &Path) -> Option<i64> {
        KeptNumber::open(path).unwrap().1
    }

    #[test]
    fn damage_of_one_copy_leaves_a_written_number_and_of_both_leaves_none() {
        for (what, damage) in DAMAGE {
            // The first write fills both copies, the second one goes to `b`.
            for (letters, expected) in [(vec!["a"], Some(2)), (vec!["b"], Some(1)), (vec!["a", "b"], None)] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("n");
                let (mut number, none) = KeptNumber::open(&path).unwrap();
                assert_eq!(none, None);
                number.write(1).unwrap();
                number.write(2).unwrap();
                for letter in &letters {
                    damage(&path.with_extension(letter));
                }
                assert_eq!(kept(&path), expected, "{what}: {letters:?}");
                let (mut number, _) = KeptNumber::open(&path).unwrap();
                number.write(3).unwrap();
                assert_eq!(kept(&path), Some(3), "{what}: {letters:?}, written again");
            }
        }
    }

    #[test]
    fn a_plain_file_is_taken_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        std::fs::write(&path, "41\n").unwrap();
        let (mut number, found) = KeptNumber::open(&path).unwrap();
        assert_eq!((found, path.exists()), (Some(41), true), "looking changes nothing");
        number.write(42).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "7").unwrap();
        assert_eq!(kept(&path), Some(42), "the record counts from then on");
    }

    #[test]
    fn a_plain_file_of_garbage_is_no_number() {
        for garbage in [&b"soon"[..], b"\xff\xfe", b"", b"99999999999999999999", &[b'1'; 100]] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("n");
            std::fs::write(&path, garbage).unwrap();
            assert_eq!(kept(&path), None);
        }
    }
}
