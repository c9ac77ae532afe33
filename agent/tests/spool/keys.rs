//! Sealed spools: what their key opens, and what becomes of one without it.

use std::path::Path;

use flotilla_agent::health::{Clock, ProblemKind};
use flotilla_agent::store::{Bounds, Samples, Spool};
use protocol::UnixMillis;
use protocol::sample::Strategy;
use protocol::telemetry::Kind;

use super::{MIB, all, config, runtime, wait_for};

#[test]
fn without_its_key_records_wait_and_the_key_brings_them_home() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let sealed = config::Spool { encrypt: true, key_file: Some(key.clone()), ..config(MIB) };
    let clock = Clock::open(dir.path()).unwrap();
    let (spool, report) = Spool::open(dir.path(), &sealed, &clock).unwrap();
    let handle = spool.handle();
    assert_eq!(report, None, "nothing was moved aside");
    assert_eq!(handle.problem().map(|problem| problem.kind), Some(ProblemKind::SpoolKey));
    handle.offer(Kind::Pane, vec![1]);
    std::fs::write(&key, [7; 32]).unwrap();
    let seq = runtime().block_on(handle.append(Kind::Event, vec![1])).unwrap();
    assert_eq!((seq, handle.problem()), (2, None));
}

/// A spool whose key is at `key`, with one sealed record in it.
fn sealed_with(dir: &Path, key: [u8; 32]) -> config::Spool {
    let file = dir.join("key");
    std::fs::write(&file, key).unwrap();
    let sealed = config::Spool { encrypt: true, key_file: Some(file), ..config(MIB) };
    let (spool, _) = Spool::open(dir, &sealed, &Clock::open(dir).unwrap()).unwrap();
    runtime().block_on(spool.handle().append(Kind::Event, b"secret".to_vec())).unwrap();
    sealed
}

#[test]
fn another_key_is_refused_by_name_and_the_spool_stays_for_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let right = sealed_with(dir.path(), [7; 32]);
    let clock = Clock::open(dir.path()).unwrap();
    let other = dir.path().join("other");
    std::fs::write(&other, hex::encode([8; 32])).unwrap();
    let wrong = config::Spool { key_file: Some(other.clone()), ..right.clone() };
    for encrypt in [true, false, true] {
        let wrong = config::Spool { encrypt, ..wrong.clone() };
        let Err(error) = Spool::open(dir.path(), &wrong, &clock) else { panic!("another key opens it") };
        let text = error.to_string();
        assert!(error.is_of_key() && text.contains(&other.display().to_string()), "{text}");
        assert!(text.contains("remove the folders spool and samples"), "{text}");
    }
    assert!(!dir.path().join("spool.quarantined").exists());
    let (spool, report) = Spool::open(dir.path(), &right, &clock).unwrap();
    assert_eq!((all(&spool.handle()), report), (vec![(1, b"secret".to_vec())], None));
    // Once nothing waits that was sealed, a key may be changed, or given up.
    spool.handle().acknowledge(1);
    wait_for("an empty spool", || spool.handle().state().depth_records == 0);
    drop(spool);
    for next in [wrong, right, config::Spool { key_file: Some(dir.path().join("none")), ..config(MIB) }] {
        let (spool, report) = Spool::open(dir.path(), &next, &clock).unwrap();
        assert_eq!((spool.handle().problem(), report), (None, None));
    }
}

#[test]
fn samples_that_wait_hold_the_key_and_one_that_is_gone_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let sealed = config::Spool { encrypt: true, ..config(MIB) };
    let clock = Clock::open(dir.path()).unwrap();
    drop(Spool::open(dir.path(), &sealed, &clock).unwrap());
    let (key, away) = (dir.path().join("spool.key"), dir.path().join("away"));
    let samples = Samples::open(dir.path(), &sealed, UnixMillis(0));
    let bounds = Bounds { quota_bytes: MIB, max_per_day: 9 };
    samples.put(Strategy::Random, UnixMillis(0), b"secret", bounds).unwrap();
    std::fs::rename(&key, &away).unwrap();
    let (spool, report) = Spool::open(dir.path(), &sealed, &clock).unwrap();
    assert_eq!(spool.handle().problem().map(|problem| problem.kind), Some(ProblemKind::SpoolKey));
    assert_eq!((report, key.exists()), (None, false));
    drop(spool);
    std::fs::write(&key, [9; 32]).unwrap();
    assert!(Spool::open(dir.path(), &sealed, &clock).is_err_and(|error| error.is_of_key()));
    std::fs::rename(&away, &key).unwrap();
    let (spool, _) = Spool::open(dir.path(), &sealed, &clock).unwrap();
    assert_eq!(spool.handle().problem(), None);
}

#[test]
fn an_encrypted_spool_reads_only_with_its_key_and_the_disk_tells_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rt = runtime();
    let sealed = config::Spool { encrypt: true, ..config(MIB) };
    let clock = Clock::open(dir.path()).unwrap();
    let open = |config: &config::Spool| Spool::open(dir.path(), config, &clock).unwrap();
    let secret = b"what the model has seen".repeat(500);
    {
        let (spool, _) = open(&config(MIB));
        rt.block_on(spool.handle().append(Kind::Event, b"plain".to_vec())).unwrap();
    }
    {
        let (spool, report) = open(&sealed);
        assert_eq!(report, None);
        rt.block_on(spool.handle().append(Kind::Sample, secret.clone())).unwrap();
    }
    let on_disk = std::fs::read(dir.path().join("spool/db")).unwrap();
    assert!(!on_disk.windows(40).any(|bytes| bytes == &secret[..40]), "the disk tells");
    assert!(on_disk.windows(5).any(|bytes| bytes == b"plain"), "the search works");
    let expected = vec![(1, b"plain".to_vec()), (2, secret.clone())];
    assert_eq!(all(&open(&config(MIB)).0.handle()), expected, "switched off again, the key still opens it");
    std::fs::remove_file(dir.path().join("spool.key")).unwrap();
    let (spool, report) = open(&sealed);
    assert_eq!(spool.handle().problem().map(|problem| problem.kind), Some(ProblemKind::SpoolKey));
    assert_eq!(report, None);
    drop(spool);
    std::fs::remove_dir_all(dir.path().join("spool")).unwrap();
    let (spool, _) = open(&sealed);
    assert_eq!((all(&spool.handle()), spool.handle().problem()), (vec![], None), "begun anew on purpose");
}
