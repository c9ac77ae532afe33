//! Rates, and slow retrieval against a real socket (attack D4).

use super::origin::{Manner, Origin, SHORT};
use super::*;

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A blob of a server, where it arrives, and its path there.
fn blob_of(origin: &Origin) -> (tempfile::TempDir, BlobRef, std::path::PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let blob = BlobRef::of(&content(), "x");
    let path = format!("/blobs/v1/sha256/{}", blob.digest);
    origin.put(&path, content());
    let part = folder.path().join("part");
    (folder, blob, part, path)
}

#[test]
fn a_transfer_keeps_below_its_rate_and_none_means_none() {
    let mut pace = Pace::new(MaxRate::new(1000));
    let due: Vec<_> = (0..3).map(|_| pace.due(500)).collect();
    assert_eq!(due, [500, 1000, 1500].map(|millis| Some(Duration::from_millis(millis))));
    assert_eq!(Pace::new(MaxRate::new(0)).due(usize::MAX), None);
    // Another rate holds for what is under way, from then on.
    let rate = MaxRate::default();
    let mut pace = Pace::new(rate.clone());
    assert_eq!(pace.due(5000), None);
    rate.set(1000);
    assert_eq!(pace.due(500), Some(Duration::from_millis(500)));
}

#[test]
fn what_comes_in_small_pieces_is_written_aside_some_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("part");
    let mut sink = Sink::open(&part, 1 << 20).unwrap();
    let (before, written) = (durable::ASIDE.get(), || fs::metadata(&part).unwrap().len());
    for _ in 0..64 {
        sink.write(&[7; 4000]).unwrap();
    }
    assert_eq!((durable::ASIDE.get() - before, written()), (3, 48 * 4000));
    sink.write_out().unwrap();
    assert_eq!((durable::ASIDE.get() - before, written()), (4, 64 * 4000));
    sink.write(&vec![7; 100_000]).unwrap();
    assert_eq!((durable::ASIDE.get() - before, written()), (5, 356_000));
    sink.write(&[7; 10]).unwrap();
    drop(sink);
    assert_eq!(written(), 356_010, "what a transfer has when it is given up stays for the next try");
}

#[tokio::test]
async fn a_server_is_reached_by_an_ipv6_address_in_figures() {
    let Ok(origin) = Origin::begin_on("[::1]:0") else { return };
    let (_folder, blob, part, path) = blob_of(&origin);
    origin.client().fetch_blob(&blob, &part).await.unwrap();
    assert_eq!((fs::read(&part).unwrap(), origin.asked()), (content(), vec![(path, 0)]));
}

#[tokio::test]
async fn d4_a_server_that_drips_is_given_up_and_the_next_try_goes_on_from_there() {
    let origin = Origin::begin();
    let (_folder, blob, part, path) = blob_of(&origin);
    origin.answers([Manner::DripAfter(150_000)]);
    let given_up = origin.client_with(RATE_WINDOW, SHORT).fetch_blob(&blob, &part).await;
    assert!(matches!(given_up, Err(FetchError::TooSlow { .. })), "{given_up:?}");
    let came = fs::read(&part).unwrap();
    assert!(came.len() >= 150_000 && came.len() < 200_000, "{}", came.len());
    assert_eq!(came, content()[..came.len()]);
    // It drips once more, and what came of that stays too.
    origin.answers([Manner::DripAfter(1000)]);
    assert!(origin.client_with(RATE_WINDOW, SHORT).fetch_blob(&blob, &part).await.is_err());
    let more = fs::read(&part).unwrap().len();
    assert!(more >= came.len() + 1000, "{more}");
    origin.client().fetch_blob(&blob, &part).await.unwrap();
    assert_eq!(fs::read(&part).unwrap(), content());
    assert_eq!(origin.asked(), [(path.clone(), 0), (path.clone(), came.len()), (path, more)]);
}

#[tokio::test]
async fn d4_an_answer_whose_head_or_small_body_drips_is_given_up() {
    let origin = Origin::begin();
    origin.put("/small", [b'x'; 5000]);
    for manner in [Manner::DripAll, Manner::DripAfter(10)] {
        origin.answers([manner]);
        let given_up = origin.client_with(SHORT, SHORT).get("/small", 10_000).await;
        assert!(matches!(given_up, Err(FetchError::TooSlow { .. })), "{manner:?}: {given_up:?}");
    }
    assert_eq!(origin.client().get("/small", 10_000).await.unwrap().unwrap(), [b'x'; 5000]);
}

#[tokio::test]
async fn a_transfer_that_breaks_goes_on_where_it_broke() {
    let origin = Origin::begin();
    let (_folder, blob, part, path) = blob_of(&origin);
    origin.answers([Manner::CutAfter(100_000), Manner::EndAfter(50_000)]);
    for came in [100_000, 150_000] {
        let broke = origin.client().fetch_blob(&blob, &part).await;
        assert!(matches!(broke, Err(FetchError::Network { .. })), "{broke:?}");
        assert_eq!(fs::read(&part).unwrap(), content()[..came]);
    }
    origin.client().fetch_blob(&blob, &part).await.unwrap();
    assert_eq!(origin.asked(), [(path.clone(), 0), (path.clone(), 100_000), (path, 150_000)]);
}

#[tokio::test]
async fn a_server_that_ignores_the_range_or_answers_with_another_one_is_not_mixed_in() {
    let origin = Origin::begin();
    let (_folder, blob, part, _) = blob_of(&origin);
    fs::write(&part, &content()[..70_000]).unwrap();
    origin.answers([Manner::IgnoreRange]);
    origin.client().fetch_blob(&blob, &part).await.unwrap();
    assert_eq!(fs::read(&part).unwrap(), content());
    fs::write(&part, &content()[..70_000]).unwrap();
    origin.answers([Manner::OtherRange]);
    let refused = origin.client().fetch_blob(&blob, &part).await;
    assert!(matches!(refused, Err(FetchError::Network { .. })), "{refused:?}");
    origin.asked();
    origin.client().fetch_blob(&blob, &part).await.unwrap();
    assert_eq!(origin.asked()[0].1, 0, "it begins again");
}

#[tokio::test]
async fn what_lies_in_a_parts_place_and_is_no_beginning_of_it_makes_room() {
    let origin = Origin::begin();
    let (_folder, blob, part, path) = blob_of(&origin);
    let leftovers: [fn(&Path); 3] = [
        |part| File::create(part).unwrap().set_len(1 << 40).unwrap(),
        |part| {
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, part, fifo, 0o600.into(), 0).unwrap();
        },
        |part| fs::create_dir_all(part.join("folder")).unwrap(),
    ];
    for leave in leftovers {
        let _gone = fs::remove_file(&part);
        leave(&part);
        origin.client().fetch_blob(&blob, &part).await.unwrap();
        assert_eq!(fs::read(&part).unwrap(), content());
        assert_eq!(origin.asked(), [(path.clone(), 0)]);
    }
}

#[tokio::test]
async fn d2_a_blob_longer_than_signed_is_cut_off_and_thrown_away() {
    let origin = Origin::begin();
    let (_folder, blob, part, path) = blob_of(&origin);
    origin.put(path, [content(), vec![0]].concat());
    let refused = origin.client().fetch_blob(&blob, &part).await;
    assert!(matches!(refused, Err(FetchError::TooLong { .. })), "{refused:?}");
    assert!(!part.exists());
}
