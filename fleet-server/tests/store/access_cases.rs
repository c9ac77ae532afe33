//! Projects, users, sessions, tokens, audit.

use super::*;

pub(crate) async fn a_dropped_transaction_leaves_nothing(store: Store) {
    let mut tx = store.begin().await.unwrap();
    let row = projects::Project { project: project("a"), title: "A".into(), created_at: NOW };
    projects::insert(&mut tx, &row).await.unwrap();
    drop(tx);
    assert!(!projects::exists(&mut store.read().await.unwrap(), &project("a")).await.unwrap());
}

pub(crate) async fn project_names_are_unique(store: Store) {
    add_project(&store, "b").await;
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    let row = projects::get(&mut tx, &a).await.unwrap().unwrap();
    assert_eq!((row.title.as_str(), row.created_at), ("A", NOW));
    let names: Vec<_> = projects::list(&mut tx).await.unwrap().into_iter().map(|p| p.project).collect();
    assert_eq!(names, [project("a"), project("b")]);
    assert!(projects::insert(&mut tx, &row).await.unwrap_err().is_conflict());
}

pub(crate) async fn users_carry_their_grants(store: Store) {
    let mut tx = store.begin().await.unwrap();
    users::insert(&mut tx, &user("ana", Role::Operator)).await.unwrap();
    users::insert(&mut tx, &user("bob", Role::Viewer)).await.unwrap();
    let mut ana = users::get(&mut tx, "ana").await.unwrap().unwrap();
    assert_eq!(ana, user("ana", Role::Operator));
    ana.grants = vec![Grant { scope: Scope::All, role: Role::Admin }];
    ana.is_disabled = true;
    users::update(&mut tx, &ana).await.unwrap();
    assert_eq!(users::list(&mut tx).await.unwrap(), [ana, user("bob", Role::Viewer)]);
    assert_eq!(users::count(&mut tx).await.unwrap(), 2);
    let bob = users::get(&mut tx, "bob").await.unwrap().unwrap();
    let chosen = users::change_password(&mut tx, &bob, "chosen", NOW).await.unwrap().unwrap();
    assert_eq!((chosen.password_hash.as_str(), chosen.must_change_password), ("chosen", false));
    let late = users::change_password(&mut tx, &bob, "late", NOW).await.unwrap();
    assert!(late.is_none(), "the password was reset meanwhile");
    users::update(&mut tx, &users::User { is_disabled: true, ..chosen.clone() }).await.unwrap();
    let late = users::change_password(&mut tx, &chosen, "late", NOW).await.unwrap();
    assert!(late.is_none(), "the user was disabled meanwhile");
    users::delete(&mut tx, "bob").await.unwrap();
    assert!(users::get(&mut tx, "bob").await.unwrap().is_none());
    tx.commit().await.unwrap();
}

pub(crate) async fn sessions_and_tokens_end(store: Store) {
    let mut tx = store.begin().await.unwrap();
    users::insert(&mut tx, &user("ana", Role::Publisher)).await.unwrap();
    sessions::insert(&mut tx, b"session", "ana", NOW, NOW.plus_millis(1000)).await.unwrap();
    let role = |who: Option<Principal>| who.and_then(|who| who.role_in(&project("a")));
    assert_eq!(role(sessions::principal(&mut tx, b"session", NOW).await.unwrap()), Some(Role::Publisher));
    assert!(sessions::principal(&mut tx, b"session", NOW.plus_millis(1000)).await.unwrap().is_none());
    assert!(sessions::principal(&mut tx, b"other", NOW).await.unwrap().is_none());
    let token = tokens::ApiToken {
        token_id: "t1".into(),
        username: "ana".into(),
        title: "ci".into(),
        limit: Grant { scope: Scope::All, role: Role::Viewer },
        created_at: NOW,
        expires_at: Some(NOW.plus_millis(1000)),
        last_used_at: None,
    };
    tokens::insert(&mut tx, &token, b"token").await.unwrap();
    assert_eq!(role(tokens::principal(&mut tx, b"token", NOW).await.unwrap()), Some(Role::Viewer));
    assert_eq!(tokens::get(&mut tx, "t1").await.unwrap().unwrap().last_used_at, Some(NOW));
    assert!(tokens::principal(&mut tx, b"token", NOW.plus_millis(1000)).await.unwrap().is_none());
    assert_eq!(tokens::list(&mut tx, Some("bob")).await.unwrap(), []);
    assert_eq!(tokens::list(&mut tx, None).await.unwrap().len(), 1);
    users::delete(&mut tx, "ana").await.unwrap();
    assert!(tokens::get(&mut tx, "t1").await.unwrap().is_none(), "a token outlives its owner");
    assert!(sessions::principal(&mut tx, b"session", NOW).await.unwrap().is_none());
    tx.commit().await.unwrap();
}

pub(crate) async fn audit_pages_from_newest_to_oldest(store: Store) {
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    for n in 0..5 {
        let object = n.to_string();
        let change = Change::new(NOW.plus_millis(n), "ana", "thing.change", "thing", &object).in_project(&a);
        record(&mut tx, &change.before(n).after(json!({"n": n}))).await.unwrap();
    }
    record(&mut tx, &Change::new(NOW, "ana", "user.create", "user", "bob")).await.unwrap();
    let every = audit::Filter::default();
    let first = audit::list(&mut tx, Some(&a), &every, &Window::first(3)).await.unwrap();
    let objects =
        |page: &Page<audit::AuditRow>| page.items.iter().map(|r| r.object.clone()).collect::<Vec<_>>();
    assert_eq!((objects(&first), first.total), (vec!["4".into(), "3".into(), "2".into()], 5));
    assert_eq!(first.items[0].after, Some(json!({"n": 4})));
    let window = Window { after: Some(first.items[2].audit_id.clone()), limit: 3 };
    assert_eq!(objects(&audit::list(&mut tx, Some(&a), &every, &window).await.unwrap()), ["1", "0"]);
    let wanted = |actor: &str, action: &str, object: &str, since: i64| audit::Filter {
        actor: (!actor.is_empty()).then(|| actor.to_owned()),
        action: (!action.is_empty()).then(|| action.to_owned()),
        object: (!object.is_empty()).then(|| object.to_owned()),
        since: (since > 0).then(|| NOW.plus_millis(since)),
    };
    for (filter, found) in [
        (wanted("ana", "thing.", "", 0), 5),
        (wanted("ana", "thing.change", "3", 0), 1),
        (wanted("", "", "", 3), 2),
        (wanted("bob", "", "", 0), 0),
        (wanted("", "hing", "", 0), 0),
        (wanted("", "thing_", "", 0), 0),
    ] {
        let page = audit::list(&mut tx, Some(&a), &filter, &Window::first(1)).await.unwrap();
        assert_eq!((page.total, page.items.len()), (found, usize::from(found > 0)), "{filter:?}");
    }
    let server = audit::list(&mut tx, None, &every, &Window::first(10)).await.unwrap();
    assert_eq!(
        (server.items[0].object.as_str(), server.items[0].before.clone(), server.total),
        ("bob", None, 1)
    );
}
