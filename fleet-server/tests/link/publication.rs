//! Publications are refused exactly where a device would refuse them, and leave nothing behind then.

use flotilla_server::store::releases::{self, ReleaseState};
use flotilla_server::store::{Window, audit, blobs, metadata};
use flotilla_server::tuf::publish::{self, Publication, PublishError};
use flotilla_server::tuf::refresh;
use serde_json::json;
use sha2::Digest as _;
use trust::repo::{RootBuilder, TargetsBuilder};
use trust::{Signer, director};

use crate::support::*;

const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

async fn newest(server: &Server, name: &str) -> Option<metadata::MetadataFile> {
    let mut conn = server.state.store.read().await.unwrap();
    metadata::newest(&mut conn, &project(), name).await.unwrap()
}

/// Publications that the audit tells of.
async fn audited(server: &Server) -> i64 {
    let mut conn = server.state.store.read().await.unwrap();
    let filter = audit::Filter { action: Some("publication.create".into()), ..audit::Filter::default() };
    audit::list(&mut conn, Some(&project()), &filter, &Window::first(1)).await.unwrap().total
}

async fn publish(
    server: &Server,
    metadata: Vec<(&str, Vec<u8>)>,
) -> Result<publish::Published, PublishError> {
    let metadata = metadata.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    let publication = Publication { metadata, targets: vec![] };
    publish::publish(&server.state, &project(), "test", publication).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_would_refuse_is_refused_and_nothing_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_bare(folder.path(), 0).await;
    server.add_project(&project()).await;
    assert!(matches!(publish(&server, vec![]).await, Err(PublishError::NoRoot)));
    let publisher = server.publish_root(&project()).await;
    let before = newest(&server, "timestamp").await.unwrap();
    let expires = server.state.clock.now().plus_millis(YEAR_MS);
    let targets = newest(&server, "targets").await.unwrap().bytes;
    let next = || TargetsBuilder::resume(&targets, expires).unwrap();

    let told = audited(&server).await;

    let thief = signer(99);
    let forged = next().sign(&[&thief]).unwrap();
    assert!(matches!(publish(&server, vec![("targets", forged)]).await, Err(PublishError::Untrusted(_))));
    let unnamed =
        next().target("models/digits/1.0.0/manifest.json", b"{}", None).sign(&[&publisher.targets]).unwrap();
    let refused = publish(&server, vec![("targets", unnamed)]).await;
    assert!(matches!(refused, Err(PublishError::MissingTarget { .. })), "{refused:?}");
    let foreign = director::target_bytes(&[thief.public_key()], 1);
    let foreign_targets =
        next().target(director::TARGET, &foreign, None).sign(&[&publisher.targets]).unwrap();
    let publication = Publication {
        metadata: vec![("targets".into(), foreign_targets)],
        targets: vec![(director::TARGET.into(), foreign)],
    };
    let refused = publish::publish(&server.state, &project(), "test", publication).await;
    assert!(matches!(refused, Err(PublishError::ForeignDirector)), "{refused:?}");
    let same_version = TargetsBuilder::new(expires).sign(&[&publisher.targets]).unwrap();
    let refused = publish(&server, vec![("targets", same_version)]).await;
    assert!(matches!(refused, Err(PublishError::Conflict { version: 1, .. })), "{refused:?}");
    for (name, bytes) in [("targets", b"garbage".to_vec()), ("snapshot", before.bytes.clone())] {
        let refused = publish(&server, vec![(name, bytes)]).await;
        assert!(matches!(refused, Err(PublishError::Malformed { .. } | PublishError::WrongRole { .. })));
    }
    let usurper = RootBuilder::resume(&newest(&server, "root").await.unwrap().bytes, expires).unwrap();
    let usurper = usurper.role("root", &[thief.public_key()], 1).sign(&[&thief]).unwrap();
    assert!(matches!(publish(&server, vec![("root", usurper)]).await, Err(PublishError::Untrusted(_))));

    let yesterday = server.state.clock.now().plus_millis(-24 * 3600 * 1000);
    let expired = TargetsBuilder::resume(&targets, yesterday).unwrap().sign(&[&publisher.targets]).unwrap();
    let refused = publish(&server, vec![("targets", expired)]).await;
    assert!(matches!(refused, Err(PublishError::Untrusted(_))), "{refused:?}");
    assert_eq!(newest(&server, "timestamp").await.unwrap(), before, "nothing was stored");
    assert_eq!(audited(&server).await, told, "nothing has changed");
    let good = next().sign(&[&publisher.targets]).unwrap();
    let published = publish(&server, vec![("targets", good.clone())]).await.unwrap();
    assert_eq!((published.is_new, published.snapshot_version, published.timestamp_version), (true, 2, 2));
    let again = publish(&server, vec![("targets", good)]).await.unwrap();
    assert_eq!((again.is_new, again.snapshot_version, again.timestamp_version), (false, 2, 2));
    let older = publish(&server, vec![("targets", targets)]).await;
    assert!(matches!(older, Err(PublishError::Stale { version: 1, served: 2, .. })), "{older:?}");
    assert_eq!(audited(&server).await, told + 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ff3_a_role_version_far_above_the_served_one_is_refused_and_the_role_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_bare(folder.path(), 0).await;
    server.add_project(&project()).await;
    let publisher = server.publish_root(&project()).await;
    let expires = server.state.clock.now().plus_millis(YEAR_MS);
    let holder = &publisher.targets;
    let targets = newest(&server, "targets").await.unwrap();
    let at = |version: u64| {
        let mut envelope: serde_json::Value = serde_json::from_slice(&targets.bytes).unwrap();
        envelope["signed"]["version"] = version.into();
        envelope["signatures"] = json!([]);
        trust::repo::add_signature(&serde_json::to_vec(&envelope).unwrap(), holder).unwrap()
    };
    for beyond in [(1 << 53) + 1, i64::MAX.unsigned_abs() + 1, u64::MAX] {
        let refused = publish(&server, vec![("targets", at(beyond))]).await;
        assert!(matches!(refused, Err(PublishError::Malformed { .. })), "{refused:?}");
    }
    for jump in [targets.version + 1001, 1 << 53] {
        let refused = publish(&server, vec![("targets", at(jump))]).await;
        assert!(matches!(refused, Err(PublishError::Jump { served: 1, .. })), "{refused:?}");
    }
    publish(&server, vec![("targets", at(targets.version + 1000))]).await.unwrap();
    let next = TargetsBuilder::resume(&newest(&server, "targets").await.unwrap().bytes, expires).unwrap();
    publish(&server, vec![("targets", next.sign(&[holder]).unwrap())]).await.unwrap();
    assert_eq!(newest(&server, "targets").await.unwrap().version, 1002);
    server.stop().await;
}

/// A release of the sample's model with every blob that it names known to the server; path and content.
async fn a_release(server: &Server, version: &str, counter: u64, fence: u64) -> (String, Vec<u8>) {
    let sample = include_bytes!("../../../fuzz/seeds/manifest/full");
    let mut manifest: serde_json::Value = serde_json::from_slice(sample).unwrap();
    for (field, value) in [("version", json!(version)), ("counter", json!(counter)), ("fallback", json!([]))]
    {
        manifest[field] = value;
    }
    manifest["min_counter"] = json!(fence);
    let manifest = release::DraftManifest::parse_unsigned(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    let mut tx = server.state.store.begin().await.unwrap();
    for blob in manifest.all_blobs() {
        if blobs::size(&mut tx, &project(), &blob.digest).await.unwrap().is_none() {
            let now = server.state.clock.now();
            blobs::insert(&mut tx, &project(), &blob.digest, blob.size_bytes, now).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    (manifest.target_path(), manifest.bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_fence_gives_the_other_releases_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_bare(folder.path(), 0).await;
    server.add_project(&project()).await;
    let publisher = server.publish_root(&project()).await;
    let expires = server.state.clock.now().plus_millis(YEAR_MS);
    let model: protocol::ModelName = "digits".parse().unwrap();
    let holder = &publisher.targets;
    let targets = TargetsBuilder::resume(&newest(&server, "targets").await.unwrap().bytes, expires).unwrap();
    let targets = targets.delegate_model(&model, &[holder.public_key()], 1).sign(&[holder]).unwrap();
    let good = a_release(&server, "1.0.0", 1, 0).await;
    let stolen = a_release(&server, "9.9.9", 1 << 53, 1 << 53).await;
    let role = TargetsBuilder::new(expires).target(&good.0, &good.1, None).sign(&[holder]).unwrap();
    let metadata = vec![("targets".into(), targets), ("digits".into(), role.clone())];
    let publication = Publication { metadata, targets: vec![good] };
    publish::publish(&server.state, &project(), "test", publication).await.unwrap();
    let role = TargetsBuilder::resume(&role, expires).unwrap().target(&stolen.0, &stolen.1, None);
    let role = role.sign(&[holder]).unwrap();
    let publication =
        Publication { metadata: vec![("digits".into(), role.clone())], targets: vec![stolen.clone()] };
    publish::publish(&server.state, &project(), "test", publication).await.unwrap();
    let states = async || {
        let mut conn = server.state.store.read().await.unwrap();
        let mut all = releases::list(&mut conn, &project(), &model).await.unwrap();
        all.sort_by_key(|release| release.counter);
        all.iter().map(|release| release.state).collect::<Vec<_>>()
    };
    assert_eq!(states().await, [ReleaseState::Withdrawn, ReleaseState::Published]);

    let role = TargetsBuilder::resume(&role, expires).unwrap().without_target(&stolen.0);
    publish(&server, vec![("digits", role.sign(&[holder]).unwrap())]).await.unwrap();
    assert_eq!(states().await, [ReleaseState::Published, ReleaseState::Withdrawn]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_handed_out_byte_for_byte_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_bare(folder.path(), 0).await;
    server.add_project(&project()).await;
    let publisher = server.publish_root(&project()).await;
    let expires = server.state.clock.now().plus_millis(YEAR_MS);
    // The same statement with other white space is another target.
    let director: serde_json::Value = {
        let mut conn = server.state.store.read().await.unwrap();
        let keys = metadata::newest(&mut conn, &project(), "targets").await.unwrap().unwrap();
        let listed = trust::repo::claims(&keys.bytes).unwrap().targets;
        assert_eq!(listed, [director::TARGET]);
        let root: serde_json::Value = serde_json::from_slice(&keys.bytes).unwrap();
        root["signed"]["targets"][director::TARGET].clone()
    };
    let digest: protocol::Digest = director["hashes"]["sha256"].as_str().unwrap().parse().unwrap();
    let stored = |digest: protocol::Digest| {
        let store = &server.state.store;
        async move {
            let mut conn = store.read().await.unwrap();
            metadata::target_by_digest(&mut conn, &project(), &digest).await.unwrap()
        }
    };
    let first = stored(digest).await.unwrap();
    let spaced = [b" \n".as_slice(), &first, b"\n"].concat();
    let targets = TargetsBuilder::resume(&newest(&server, "targets").await.unwrap().bytes, expires).unwrap();
    let targets = targets.target(director::TARGET, &spaced, None).sign(&[&publisher.targets]).unwrap();
    let publication = Publication {
        metadata: vec![("targets".into(), targets)],
        targets: vec![(director::TARGET.into(), spaced.clone())],
    };
    publish::publish(&server.state, &project(), "test", publication).await.unwrap();
    for bytes in [first, spaced] {
        let digest = protocol::Digest::from_bytes(sha2::Sha256::digest(&bytes).into());
        assert_eq!(stored(digest).await.unwrap(), bytes);
    }
    assert_eq!(stored(protocol::Digest::from_bytes([0; 32])).await, None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_root_is_taken_with_both_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_bare(folder.path(), 0).await;
    server.add_project(&project()).await;
    let publisher = server.publish_root(&project()).await;
    let expires = server.state.clock.now().plus_millis(YEAR_MS);
    let new_key = signer(77);
    let root = RootBuilder::resume(&newest(&server, "root").await.unwrap().bytes, expires).unwrap();
    let root = root.role("root", &[new_key.public_key()], 1);
    let half = root.sign(&[&new_key]).unwrap();
    assert!(matches!(publish(&server, vec![("root", half)]).await, Err(PublishError::Untrusted(_))));
    let both = root.sign(&[&publisher.root, &new_key]).unwrap();
    publish(&server, vec![("root", both)]).await.unwrap();
    assert_eq!(newest(&server, "root").await.unwrap().version, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_timestamp_are_signed_again_before_they_expire() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    assert!(!refresh::refresh(&server.state, &project()).await.unwrap(), "fresh ones are left alone");
    let before = newest(&server, "timestamp").await.unwrap();
    let mut later = server.state.clone();
    later.clock = flotilla_server::clock::Clock::fixed(before.expires_at.plus_millis(1000));
    assert!(refresh::refresh(&later, &project()).await.unwrap());
    let after = newest(&server, "timestamp").await.unwrap();
    assert!(after.version == before.version + 1 && after.expires_at > before.expires_at);
    server.stop().await;
}
