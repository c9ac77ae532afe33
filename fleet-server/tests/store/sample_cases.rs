//! Captured samples and those on their way.

use flotilla_server::store::samples::{Sample, SampleKey, Upload, Wanted};
use protocol::sample::{Said, SampleHead, SampleInput, Strategy};

use super::*;

fn sample(key: &SampleKey, id: &str, version: &str, strategy: Strategy) -> Sample {
    let input = SampleInput { name: "x".into(), datatype: "UINT8".into(), shape: vec![1, 4], size_bytes: 4 };
    let head = SampleHead {
        id: format!("nul \0 {id}"),
        model: digits(),
        version: Version::new(version).unwrap(),
        release: Digest::from_bytes([1; 32]),
        at: NOW,
        strategy,
        probability: 0.25,
        answer: Said::default(),
        beside: None,
        feature: None,
        label: Some("7".into()),
        inputs: vec![input],
    };
    let expires_at = NOW.plus_millis(id.parse().unwrap());
    Sample { sample_id: id.into(), key: key.clone(), head, size_bytes: 100, received_at: NOW, expires_at }
}

pub(crate) async fn samples_are_held_filtered_and_paged(store: Store) {
    let (a, b) = (add_project(&store, "a").await, add_project(&store, "b").await);
    add_device(&store, &a, "cam-1", &[]).await;
    add_device(&store, &a, "cam-2", &[]).await;
    let key = |name: &str, byte: u8| SampleKey {
        project: a.clone(),
        device: device(name),
        digest: Digest::from_bytes([byte; 32]),
    };
    let all = [
        sample(&key("cam-1", 1), "1", "1.0.0", Strategy::Random),
        sample(&key("cam-1", 2), "2", "1.1.0", Strategy::Random),
        sample(&key("cam-2", 1), "3", "1.1.0", Strategy::Contradiction),
    ];
    let mut tx = store.begin().await.unwrap();
    for one in &all {
        samples::insert(&mut tx, one).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let twice = samples::insert(&mut tx, &Sample { sample_id: "4".into(), ..all[0].clone() }).await;
    assert!(twice.unwrap_err().is_conflict(), "one device's sample is there once");
    drop(tx);
    let mut conn = store.read().await.unwrap();
    let ids = |page: Page<Sample>| page.items.into_iter().map(|one| one.sample_id).collect::<Vec<_>>();
    let window = Window::first(2);
    let page = samples::list(&mut conn, &a, &digits(), &Wanted::default(), &window).await.unwrap();
    assert_eq!((page.total, &page.items[0]), (3, &all[2]), "whole, the newest first");
    assert_eq!(ids(page), ["3", "2"]);
    let window = Window { after: Some("2".into()), limit: 2 };
    assert_eq!(
        ids(samples::list(&mut conn, &a, &digits(), &Wanted::default(), &window).await.unwrap()),
        ["1"]
    );
    let wanted = [
        (Wanted { version: Some(Version::new("1.1.0").unwrap()), ..Wanted::default() }, vec!["3", "2"]),
        (Wanted { strategy: Some(Strategy::Random), ..Wanted::default() }, vec!["2", "1"]),
        (Wanted { device: Some(device("cam-2")), ..Wanted::default() }, vec!["3"]),
    ];
    for (wanted, expected) in wanted {
        let page = samples::list(&mut conn, &a, &digits(), &wanted, &Window::first(9)).await.unwrap();
        assert_eq!(
            (page.total, ids(page)),
            (i64::try_from(expected.len()).unwrap(), expected.iter().map(ToString::to_string).collect())
        );
    }
    let foreign =
        samples::list(&mut conn, &b, &digits(), &Wanted::default(), &Window::first(9)).await.unwrap();
    assert_eq!(foreign.total, 0);
    assert_eq!(
        samples::room_bytes(&mut conn, &a, &device("cam-1")).await.unwrap(),
        2 * (100 + samples::OVERHEAD_BYTES)
    );
    assert_eq!(
        samples::expired(&mut conn, NOW.plus_millis(2), 9).await.unwrap(),
        [key("cam-1", 1), key("cam-1", 2)]
    );
    drop(conn);
    let mut tx = store.begin().await.unwrap();
    assert!(samples::delete(&mut tx, &key("cam-1", 1)).await.unwrap());
    assert!(!samples::exists(&mut tx, &key("cam-1", 1)).await.unwrap());
    assert!(samples::exists(&mut tx, &key("cam-2", 1)).await.unwrap(), "another device's sample stays");
}

pub(crate) async fn an_upload_moves_on_one_part_at_a_time(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let key = SampleKey { project: a.clone(), device: cam.clone(), digest: Digest::from_bytes([1; 32]) };
    let mut tx = store.begin().await.unwrap();
    assert_eq!(samples::upload(&mut tx, &key).await.unwrap(), None);
    samples::begin_upload(&mut tx, &key, 500, NOW).await.unwrap();
    assert!(samples::advance_upload(&mut tx, &key, 0, 200, NOW).await.unwrap());
    assert!(!samples::advance_upload(&mut tx, &key, 0, 300, NOW).await.unwrap(), "another one was first");
    let there = Upload { size_bytes: 500, got_bytes: 200 };
    assert_eq!(samples::upload(&mut tx, &key).await.unwrap(), Some(there));
    assert_eq!(samples::room_bytes(&mut tx, &a, &cam).await.unwrap(), 500 + samples::OVERHEAD_BYTES);
    assert!(samples::stale_uploads(&mut tx, NOW, 9).await.unwrap().is_empty());
    assert_eq!(samples::stale_uploads(&mut tx, NOW.plus_millis(1), 9).await.unwrap(), [(key.clone(), 500)]);
    samples::begin_upload(&mut tx, &key, 600, NOW).await.unwrap();
    let anew = Upload { size_bytes: 600, got_bytes: 0 };
    assert_eq!(samples::upload(&mut tx, &key).await.unwrap(), Some(anew));
    samples::end_upload(&mut tx, &key).await.unwrap();
    assert_eq!(samples::upload(&mut tx, &key).await.unwrap(), None);
}
