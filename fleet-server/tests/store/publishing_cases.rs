//! Releases, metadata, blobs.

use super::*;

pub(crate) async fn releases_are_found_by_version_and_digest(store: Store) {
    let a = add_project(&store, "a").await;
    let release = |version: &str, byte: u8| releases::Release {
        model: digits(),
        version: Version::new(version).unwrap(),
        digest: Digest::from_bytes([byte; 32]),
        counter: Counter(byte.into()),
        manifest: vec![b'{', b'}', byte],
        state: releases::ReleaseState::Published,
        published_at: NOW,
        published_by: "ana".into(),
    };
    let mut tx = store.begin().await.unwrap();
    releases::insert(&mut tx, &a, &release("1.0.0", 1)).await.unwrap();
    releases::insert(&mut tx, &a, &release("1.1.0", 2)).await.unwrap();
    let versions: Vec<_> = releases::list(&mut tx, &a, &digits()).await.unwrap();
    assert_eq!(versions, [release("1.1.0", 2), release("1.0.0", 1)]);
    let found = releases::by_digest(&mut tx, &a, &digits(), &Digest::from_bytes([1; 32])).await.unwrap();
    assert_eq!(found, Some(release("1.0.0", 1)));
    let version = Version::new("1.0.0").unwrap();
    releases::set_state(&mut tx, &a, &digits(), &version, releases::ReleaseState::Withdrawn).await.unwrap();
    let state = releases::get(&mut tx, &a, &digits(), &version).await.unwrap().unwrap().state;
    assert_eq!(state, releases::ReleaseState::Withdrawn);
    assert_eq!(releases::models(&mut tx, &a).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    assert!(releases::insert(&mut tx, &a, &release("1.0.0", 3)).await.unwrap_err().is_conflict());
}

pub(crate) async fn the_newest_metadata_is_served(store: Store) {
    let a = add_project(&store, "a").await;
    let file = |name: &str, version: u64| metadata::MetadataFile {
        name: name.into(),
        version,
        bytes: format!("{name}{version}").into_bytes(),
        expires_at: NOW,
        stored_at: NOW,
        stored_by: "ana".into(),
    };
    let mut tx = store.begin().await.unwrap();
    for version in [1, 2, 10] {
        metadata::insert(&mut tx, &a, &file("root", version)).await.unwrap();
    }
    metadata::insert(&mut tx, &a, &file("digits", 1)).await.unwrap();
    metadata::insert(&mut tx, &a, &file("digits", 1)).await.unwrap();
    let other = metadata::MetadataFile { bytes: b"other".to_vec(), ..file("digits", 1) };
    let refused = metadata::insert(&mut tx, &a, &other).await.unwrap_err().to_string();
    assert!(refused.contains("version 1 of digits.json is stored already"), "{refused}");
    let beyond = file("digits", i64::MAX.unsigned_abs() + 1);
    assert!(metadata::insert(&mut tx, &a, &beyond).await.is_err(), "never kept as another version");
    assert_eq!(metadata::newest(&mut tx, &a, "root").await.unwrap(), Some(file("root", 10)));
    assert_eq!(metadata::get(&mut tx, &a, "root", 2).await.unwrap(), Some(file("root", 2)));
    assert_eq!(metadata::all_newest(&mut tx, &a).await.unwrap(), [file("digits", 1), file("root", 10)]);
    let key = metadata::OnlineKey {
        role: "director".into(),
        public_key: vec![1; 32],
        sealed_seed: vec![2; 48],
        created_at: NOW,
    };
    metadata::insert_online_key(&mut tx, &a, &key).await.unwrap();
    let other = metadata::OnlineKey { public_key: vec![9; 32], ..key.clone() };
    metadata::insert_online_key(&mut tx, &a, &other).await.unwrap();
    assert_eq!(metadata::online_key(&mut tx, &a, "director").await.unwrap(), Some(key));
    let digest = Digest::from_bytes([4; 32]);
    metadata::insert_target(&mut tx, &a, "director.json", &digest, b"{}", NOW).await.unwrap();
    let target = metadata::target(&mut tx, &a, "director.json", &digest).await.unwrap();
    assert_eq!(target.as_deref(), Some(&b"{}"[..]));
}

pub(crate) async fn blobs_belong_to_projects(store: Store) {
    let (a, b) = (add_project(&store, "a").await, add_project(&store, "b").await);
    let digest = Digest::from_bytes([5; 32]);
    let mut tx = store.begin().await.unwrap();
    blobs::insert(&mut tx, &a, &digest, 77, NOW).await.unwrap();
    blobs::insert(&mut tx, &a, &digest, 77, NOW).await.unwrap();
    assert_eq!(blobs::size(&mut tx, &a, &digest).await.unwrap(), Some(77));
    assert_eq!(blobs::size(&mut tx, &b, &digest).await.unwrap(), None);
}
