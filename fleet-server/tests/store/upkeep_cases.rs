//! History, retention, writers beside each other, damage.

use super::*;

pub(crate) fn event(id: &str, received_at: UnixMillis) -> history::Event {
    history::Event { event_id: id.into(), at: NOW, received_at, name: "clock".into(), detail: "late".into() }
}

pub(crate) async fn history_pages_from_newest_to_oldest(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    for (id, at) in [("s:1", 1), ("s:2", 2), ("s:3", 2)] {
        history::add_event(&mut tx, &a, &cam, &event(id, UnixMillis(at))).await.unwrap();
    }
    let first = history::events(&mut tx, &a, &cam, &Window::first(2)).await.unwrap();
    let ids = |page: &Page<history::Event>| page.items.iter().map(|e| e.event_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ["s:3", "s:2"]);
    let window = Window { after: Some(history::event_key(&first.items[1])), limit: 2 };
    assert_eq!(ids(&history::events(&mut tx, &a, &cam, &window).await.unwrap()), ["s:1"]);
    let report = |phase| TaskReport {
        at: NOW,
        rollout: None,
        revision: Revision(1),
        attempt: None,
        model: digits(),
        release: release_ref("1.0.0", 1),
        phase,
        cause: None,
        progress: None,
        self_test: None,
    };
    for (counter, phase) in [(1, TaskPhase::Fetching), (2, TaskPhase::Committed), (2, TaskPhase::Failed)] {
        let stored = tasks::StoredReport { counter, received_at: NOW, report: report(phase) };
        tasks::insert(&mut tx, &a, &cam, &stored).await.unwrap();
    }
    let page = tasks::list(&mut tx, &a, &cam, &Window::first(1)).await.unwrap();
    assert_eq!((page.items[0].report.phase, page.total), (TaskPhase::Committed, 2));
    let window = Window { after: Some("2".into()), limit: 9 };
    assert_eq!(
        tasks::list(&mut tx, &a, &cam, &window).await.unwrap().items[0].report.phase,
        TaskPhase::Fetching
    );
}

pub(crate) async fn writers_wait_for_each_other(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let raise = |counter: u64| {
        let (store, a, cam) = (store.clone(), a.clone(), cam.clone());
        async move {
            let mut tx = store.begin().await.unwrap();
            let before = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap().report_counter;
            tokio::task::yield_now().await;
            let _ = before;
            let is_raised = devices::raise_report_counter(&mut tx, &a, &cam, counter).await.unwrap();
            tx.commit().await.unwrap();
            is_raised
        }
    };
    let all: Vec<_> = (1..=12).map(|_| tokio::spawn(raise(5))).collect();
    let mut raised = 0;
    for one in all {
        raised += i32::from(one.await.unwrap());
    }
    assert_eq!(raised, 1, "of twelve writers at once exactly one raises the counter");
}

pub(crate) async fn a_damaged_value_is_a_named_error(store: Store) {
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    let file = metadata::MetadataFile {
        name: "root".into(),
        version: u64::MAX,
        bytes: vec![],
        expires_at: NOW,
        stored_at: NOW,
        stored_by: "ana".into(),
    };
    // A version beyond the database's range is never kept as another one.
    let error = metadata::insert(&mut tx, &a, &file).await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { column, .. } if column == "version"), "{error}");
    assert_eq!(metadata::newest(&mut tx, &a, "root").await.unwrap(), None);
    let mut broken = user("ana", Role::Viewer);
    broken.grants.clear();
    users::insert(&mut tx, &broken).await.unwrap();
    damage(&mut tx).await;
    let error = users::get(&mut tx, "ana").await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { column, .. } if column == "role"), "{error}");
}

/// Writes what this build never would.
async fn damage(conn: &mut Conn) {
    sqlx::query("INSERT INTO grants (username, project, role) VALUES ('ana', 'a', 'emperor')")
        .execute(conn)
        .await
        .unwrap();
}
