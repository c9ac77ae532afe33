//! Encoded blobs: hostile ones, and ones whose transfer breaks, against a real socket.

use crate::link::http::RATE_WINDOW;
use crate::link::http::origin::{Manner, Origin, SHORT};

use super::*;

fn shelf_with(content: &[u8]) -> (tempfile::TempDir, Shelf, BlobRef) {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path()).unwrap();
    let blob = BlobRef::of(content, "x");
    fs::write(shelf.part(&blob), content).unwrap();
    shelf.keep_blob(&blob).unwrap();
    (dir, shelf, blob)
}

#[test]
fn d4_a_frame_that_decodes_to_more_than_signed_is_stopped_and_leaves_nothing() {
    let (dir, shelf, _) = shelf_with(b"x");
    let (blob, encoded) = (BlobRef::of(&[7; 5000], "x"), dir.path().join("encoded"));
    let part = shelf.part(&blob);
    fs::write(&encoded, release::delta::compress(&[7; 5000]).unwrap()).unwrap();
    decompress(&encoded, &part, &blob).unwrap();
    assert_eq!(fs::read(&part).unwrap(), [7; 5000]);
    for other in [vec![7; 50_000_000], vec![7; 4999], vec![8; 5000]] {
        fs::write(&encoded, release::delta::compress(&other).unwrap()).unwrap();
        assert!(matches!(decompress(&encoded, &part, &blob), Err(DecodeError::Content(_))));
        assert!(!part.exists());
    }
    fs::write(&encoded, b"no frame").unwrap();
    assert!(matches!(decompress(&encoded, &part, &blob), Err(DecodeError::Zstd(_))));
}

#[test]
fn a_pipe_in_the_place_of_a_blob_or_of_its_part_holds_nobody_up() {
    let (dir, shelf, blob) = shelf_with(&[7; 5000]);
    let (path, encoded) = (dir.path().join("blobs").join(blob.digest.to_hex()), dir.path().join("encoded"));
    fs::remove_file(&path).unwrap();
    for pipe in [&path, &shelf.part(&blob)] {
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, pipe, fifo, 0o600.into(), 0).unwrap();
    }
    let gone = shelf.check_blob(&blob);
    assert!(matches!(gone, Err(crate::slots::ShelfError::Gone { state: "damaged", .. })), "{gone:?}");
    fs::write(&encoded, release::delta::compress(&[7; 5000]).unwrap()).unwrap();
    decompress(&encoded, &shelf.part(&blob), &blob).unwrap();
    shelf.keep_blob(&blob).unwrap();
    shelf.check_blob(&blob).unwrap();
}

#[test]
fn a5_a_delta_that_gives_other_content_is_refused() {
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    let (dir, shelf, base) = shelf_with(&old);
    let encoded = dir.path().join("encoded");
    fs::write(&encoded, release::delta::make(&old, &new, 1 << 30).unwrap()).unwrap();
    let good = BlobRef::of(&new, "x");
    apply(&shelf, &base, &good, &encoded, 1 << 30).unwrap();
    assert_eq!(fs::read(shelf.part(&good)).unwrap(), new);
    let other = BlobRef::of(&vec![3; 20_000], "x");
    assert!(matches!(apply(&shelf, &base, &other, &encoded, 1 << 30), Err(DecodeError::Delta(_))));
    assert!(matches!(apply(&shelf, &base, &good, &encoded, 1000), Err(DecodeError::Delta(_))));
    assert!(!shelf.part(&other).exists());
}

/// A device that holds one blob and a server that offers another one, similar, in every form.
struct Scene {
    origin: Origin,
    folder: tempfile::TempDir,
    carrier: Carrier,
    base: BlobRef,
    blob: BlobRef,
    zstd: String,
    delta: String,
}

/// Too random for zstd, except that the second half repeats the first.
fn model(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let half: Vec<u8> = (0..60_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect();
    [&half[..], &half[..]].concat()
}

impl Scene {
    fn new() -> Self {
        let (old, mut new) = (model(1), model(1));
        new[..20_000].copy_from_slice(&model(2)[..20_000]);
        let (folder, shelf, base) = shelf_with(&old);
        let (origin, blob) = (Origin::begin(), BlobRef::of(&new, "x"));
        let plain = format!("/blobs/v1/sha256/{}", blob.digest);
        let (zstd, delta) = (format!("{plain}/zstd"), format!("{plain}/delta/{}", base.digest));
        origin.put(&plain, new.clone());
        origin.put(&zstd, release::delta::compress(&new).unwrap());
        origin.put(&delta, release::delta::make(&old, &new, 1 << 30).unwrap());
        let carrier = Carrier { http: origin.client(), shelf, delta_max_memory_bytes: 1 << 30 };
        Self { origin, folder, carrier, base, blob, zstd, delta }
    }

    async fn bring(&self, base: Option<&BlobRef>) -> Result<(), Cause> {
        bring(&self.carrier, &self.blob, base, "the model").await
    }

    /// The blob is there, and of every encoding and part nothing is left.
    fn is_clean(&self) {
        assert!(self.carrier.shelf.has_blob(&self.blob));
        let files = fs::read_dir(self.folder.path().join("blobs")).unwrap();
        let names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(!names.iter().any(|name| name.contains("part")), "{names:?}");
    }

    /// The paths that were asked for, by their last part, and where the ranges began.
    fn asked(&self) -> Vec<(&'static str, usize)> {
        let form = |path: &str| match path {
            path if path == self.zstd => "zstd",
            path if path == self.delta => "delta",
            _ => "plain",
        };
        self.origin.asked().into_iter().map(|(path, from)| (form(&path), from)).collect()
    }
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_zstd_frame_or_a_delta_is_gone_on_from() {
    for (form, has_base) in [("zstd", false), ("delta", true)] {
        let scene = Scene::new();
        let base = has_base.then_some(&scene.base);
        scene.origin.answers([Manner::CutAfter(5000), Manner::CutAfter(1)]);
        for _ in 0..2 {
            let broke = scene.bring(base).await.unwrap_err();
            assert_eq!(broke.kind, CauseKind::Download, "{broke:?}");
        }
        scene.bring(base).await.unwrap();
        assert_eq!(scene.asked(), [(form, 0), (form, 5000), (form, 5001)]);
        scene.is_clean();
    }
}

#[tokio::test]
async fn d4_a_dripped_zstd_frame_or_delta_is_gone_on_from_later() {
    for (form, has_base) in [("zstd", false), ("delta", true)] {
        let mut scene = Scene::new();
        scene.carrier.http = scene.origin.client_with(RATE_WINDOW, SHORT);
        scene.origin.answers([Manner::DripAfter(6000)]);
        let base = has_base.then(|| scene.base.clone());
        let given_up = scene.bring(base.as_ref()).await.unwrap_err();
        assert!(given_up.detail.contains("gave too little"), "{given_up:?}");
        scene.carrier.http = scene.origin.client();
        scene.bring(base.as_ref()).await.unwrap();
        let asked = scene.asked();
        assert!(asked.len() == 2 && asked[1].0 == form && asked[1].1 >= 6000, "{asked:?}");
        scene.is_clean();
    }
}

#[tokio::test]
async fn an_encoding_that_ends_early_or_was_made_anew_meanwhile_leads_to_the_next_form() {
    let scene = Scene::new();
    // Nothing tells this end from a whole answer, except that it can't be decoded.
    scene.origin.answers([Manner::EndAfter(5000), Manner::EndAfter(4000)]);
    scene.bring(Some(&scene.base)).await.unwrap();
    assert_eq!(scene.asked(), [("delta", 0), ("zstd", 0), ("plain", 0)]);
    scene.is_clean();

    let scene = Scene::new();
    scene.origin.answers([Manner::CutAfter(5000)]);
    assert!(scene.bring(None).await.is_err());
    // Another server, or another version of it, packs the same content otherwise.
    scene.origin.put(&scene.zstd, zstd::encode_all(&model(2)[..], 1).unwrap());
    scene.bring(None).await.unwrap();
    assert_eq!(scene.asked(), [("zstd", 0), ("zstd", 5000), ("plain", 0)]);
    scene.is_clean();
}

#[tokio::test]
async fn d2_an_encoding_longer_than_the_blob_itself_is_not_fetched_to_its_end() {
    let scene = Scene::new();
    scene.origin.put(&scene.delta, vec![0; 1_000_000]);
    scene.origin.put(&scene.zstd, vec![0; 1_000_000]);
    scene.bring(Some(&scene.base)).await.unwrap();
    assert_eq!(scene.asked(), [("delta", 0), ("zstd", 0), ("plain", 0)]);
    scene.is_clean();
}
