//! Devices, labels, hello, enrolment.

use super::*;

pub(crate) async fn devices_are_filtered_and_paged(store: Store) {
    let (a, b) = (add_project(&store, "a").await, add_project(&store, "b").await);
    add_device(&store, &a, "cam-1", &[("site", "x")]).await;
    add_device(&store, &a, "cam-2", &[("site", "y")]).await;
    add_device(&store, &a, "box_1", &[("site", "x"), ("line", "2")]).await;
    add_device(&store, &b, "cam-1", &[("site", "x")]).await;
    let mut tx = store.begin().await.unwrap();
    assert!(devices::set_online(&mut tx, &a, &device("cam-2"), true, NOW).await.unwrap());
    assert!(!devices::set_online(&mut tx, &a, &device("cam-2"), true, NOW).await.unwrap());
    devices::set_hello(&mut tx, &a, &device("cam-1"), &hello(Some(&release_ref("1.0.0", 1))), NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut conn = store.read().await.unwrap();
    let mut names = async |filter: devices::Filter, window: Window| {
        let page = devices::list(&mut conn, &a, &filter, &window).await.unwrap();
        (page.items.into_iter().map(|d| d.device.to_string()).collect::<Vec<_>>().join(" "), page.total)
    };
    let all = || Window::first(10);
    let filter = devices::Filter::default;
    assert_eq!(names(filter(), all()).await, ("box_1 cam-1 cam-2".into(), 3));
    assert_eq!(names(filter(), Window { after: Some("cam-1".into()), limit: 1 }).await, ("cam-2".into(), 3));
    let part = |text: &str| devices::Filter { name_contains: Some(text.into()), ..filter() };
    assert_eq!(names(part("CAM"), all()).await, ("cam-1 cam-2".into(), 2));
    assert_eq!(names(part("_"), all()).await, ("box_1".into(), 1));
    assert_eq!(names(part("%"), all()).await, (String::new(), 0));
    let online = |is_online| devices::Filter { is_online: Some(is_online), ..filter() };
    assert_eq!(names(online(true), all()).await, ("cam-2".into(), 1));
    let labels = |labels: &[(&str, &str)]| devices::Filter {
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..filter()
    };
    assert_eq!(names(labels(&[("site", "x")]), all()).await, ("box_1 cam-1".into(), 2));
    assert_eq!(names(labels(&[("site", "x"), ("line", "2")]), all()).await, ("box_1".into(), 1));
    let serving = |version: &str| devices::Filter {
        model: Some(digits()),
        version: Some(Version::new(version).unwrap()),
        ..filter()
    };
    assert_eq!(names(serving("1.0.0"), all()).await, ("cam-1".into(), 1));
    assert_eq!(names(serving("2.0.0"), all()).await, (String::new(), 0));
}

pub(crate) async fn labels_of_device_and_server_are_merged(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[("site", "roof")]).await;
    let mut tx = store.begin().await.unwrap();
    devices::set_hello(&mut tx, &a, &cam, &hello(None), NOW).await.unwrap();
    let labels = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap().all_labels();
    assert_eq!((labels["site"].as_str(), labels["line"].as_str()), ("roof", "1"));
    let filter =
        |value: &str| devices::Filter { labels: vec![("site".into(), value.into())], ..Default::default() };
    assert_eq!(devices::list(&mut tx, &a, &filter("roof"), &Window::first(9)).await.unwrap().total, 1);
    devices::set_labels(&mut tx, &a, &cam, &BTreeMap::new()).await.unwrap();
    assert_eq!(devices::list(&mut tx, &a, &filter("roof"), &Window::first(9)).await.unwrap().total, 0);
    assert_eq!(devices::list(&mut tx, &a, &filter("lab"), &Window::first(9)).await.unwrap().total, 1);
}

pub(crate) async fn hello_is_kept_whole_and_models_become_rows(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    add_device(&store, &a, "silent", &[]).await;
    let said = hello(Some(&release_ref("1.0.0", 1)));
    let mut tx = store.begin().await.unwrap();
    devices::set_hello(&mut tx, &a, &cam, &said, NOW).await.unwrap();
    devices::set_hello(&mut tx, &a, &cam, &said, NOW.plus_millis(5)).await.unwrap();
    let row = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap();
    assert_eq!(
        (row.hello, row.hello_at, row.last_seen),
        (Some(said), Some(NOW.plus_millis(5)), Some(NOW.plus_millis(5)))
    );
    let mix = devices::release_mix(&mut tx, &a).await.unwrap();
    assert_eq!(mix, [(digits(), Some(Version::new("1.0.0").unwrap()), Some(Digest::from_bytes([1; 32])), 1)]);
    assert_eq!(devices::counts(&mut tx, &a).await.unwrap(), (2, 0, 1));
    assert_eq!(overview::totals(&mut tx).await.unwrap().devices, 2);
}

pub(crate) async fn counters_and_revisions_only_rise(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    assert!(devices::raise_report_counter(&mut tx, &a, &cam, 5).await.unwrap());
    assert!(!devices::raise_report_counter(&mut tx, &a, &cam, 5).await.unwrap());
    assert!(!devices::raise_report_counter(&mut tx, &a, &cam, 4).await.unwrap());
    let desired = json!({"models": [{"model": "digits", "release": release_ref("1.0.0", 1), "mode": "replace", "rollout": "r1"}]});
    assert!(devices::set_desired(&mut tx, &a, &cam, Revision(2), &desired, b"signed").await.unwrap());
    assert!(!devices::set_desired(&mut tx, &a, &cam, Revision(2), &desired, b"other").await.unwrap());
    let row = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap();
    assert_eq!((row.report_counter, row.desired_revision), (5, Revision(2)));
    assert_eq!(row.desired_envelope.as_deref(), Some(&b"signed"[..]));
    assert_eq!(row.desired_models()[0].rollout.as_ref().unwrap().as_str(), "r1");
}

pub(crate) async fn decommissioned_devices_leave_the_lists(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    devices::set_hello(&mut tx, &a, &cam, &hello(Some(&release_ref("1.0.0", 1))), NOW).await.unwrap();
    devices::decommission(&mut tx, &a, &cam, NOW).await.unwrap();
    assert_eq!(
        devices::list(&mut tx, &a, &devices::Filter::default(), &Window::first(9)).await.unwrap().total,
        0
    );
    assert!(devices::all_in_service(&mut tx, &a).await.unwrap().is_empty());
    assert!(devices::release_mix(&mut tx, &a).await.unwrap().is_empty());
    let row = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap();
    assert_eq!((row.decommissioned_at, row.certificate_serial.as_str()), (Some(NOW), ""));
}

pub(crate) async fn enrolment_tokens_are_used_once(store: Store) {
    let (a, b) = (add_project(&store, "a").await, add_project(&store, "b").await);
    let token = enrollment::EnrollmentToken {
        token_id: "t1".into(),
        project: a.clone(),
        device: None,
        labels: BTreeMap::from([("site".into(), "x".into())]),
        created_at: NOW,
        created_by: "ana".into(),
        expires_at: NOW.plus_millis(1000),
        used_at: None,
        used_by: None,
    };
    let mut tx = store.begin().await.unwrap();
    enrollment::insert(&mut tx, &token, b"secret").await.unwrap();
    assert_eq!(enrollment::by_secret(&mut tx, b"secret").await.unwrap(), Some(token.clone()));
    assert!(enrollment::by_secret(&mut tx, b"guess").await.unwrap().is_none());
    assert!(enrollment::get(&mut tx, &b, "t1").await.unwrap().is_none(), "another project sees the token");
    assert!(enrollment::use_up(&mut tx, "t1", &device("cam"), NOW).await.unwrap());
    assert!(!enrollment::use_up(&mut tx, "t1", &device("other"), NOW).await.unwrap());
    let used = enrollment::list(&mut tx, &a, &Window::first(9)).await.unwrap();
    assert_eq!((used.items[0].used_by.clone(), used.total), (Some(device("cam")), 1));
    enrollment::delete(&mut tx, &b, "t1").await.unwrap();
    assert_eq!(enrollment::list(&mut tx, &a, &Window::first(9)).await.unwrap().total, 1);
    enrollment::delete(&mut tx, &a, "t1").await.unwrap();
    assert_eq!(enrollment::list(&mut tx, &a, &Window::first(9)).await.unwrap().total, 0);
}
