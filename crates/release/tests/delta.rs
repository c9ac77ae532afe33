//! Deltas give the target exactly or an error by name, whatever they are made of.

#![expect(clippy::unwrap_used, reason = "tests")]

use release::delta::{Delta, DeltaError, HEADER_BYTES, compress, make};

const MAX: u64 = 64 << 20;

/// Numbers without pattern.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(content);
    out
}

/// An ONNX file with one tensor of floats.
fn model(name: &str, weights: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let tensor = [vec![2 << 3, 1], field(8, b"layer.weight"), field(9, &raw)].concat();
    field(7, &[field(2, name.as_bytes()), field(5, &tensor)].concat())
}

fn weights(count: usize) -> Vec<f32> {
    noise(7, count * 2).chunks(2).map(|b| (f32::from(b[0]) - 127.5) / 700.0 + f32::from(b[1]) / 1e5).collect()
}

#[test]
fn a_delta_gives_exactly_the_target() {
    let base = noise(1, 100_000);
    let mut target = base.clone();
    target.splice(500..510, noise(2, 300));
    for (base, target) in [(&base, &target), (&target, &base), (&base, &base), (&Vec::new(), &target)] {
        let delta = make(base, target, MAX).unwrap();
        assert_eq!(Delta::parse(&delta).unwrap().apply(base, MAX).unwrap(), *target);
    }
    assert!(make(&base, &target, MAX).unwrap().len() < 1000);
}

#[test]
fn weights_that_moved_a_little_cost_little_even_when_they_lie_elsewhere() {
    let before = weights(50_000);
    let after: Vec<f32> = before.iter().map(|weight| weight * (1.0 + 1e-4)).collect();
    let (base, target) = (model("net", &before), model("net, trained further", &after));
    let delta = make(&base, &target, MAX).unwrap();
    assert_eq!(Delta::parse(&delta).unwrap().apply(&base, MAX).unwrap(), target);
    let full = compress(&target).unwrap();
    assert!(delta.len() * 100 < full.len() * 60, "{} of {}", delta.len(), full.len());
}

#[test]
fn anything_changed_in_a_delta_is_refused() {
    let (base, target) = (model("net", &weights(500)), model("net", &weights(501)));
    let delta = make(&base, &target, MAX).unwrap();
    for at in 0..delta.len() {
        let mut changed = delta.clone();
        changed[at] ^= 0x55;
        let got = Delta::parse(&changed).and_then(|delta| delta.apply(&base, MAX));
        assert!(got.is_err() || got.as_ref() == Ok(&target), "a change of byte {at} is not noticed");
    }
    for length in 0..delta.len() {
        assert!(Delta::parse(&delta[..length]).and_then(|delta| delta.apply(&base, MAX)).is_err());
    }
}

#[test]
fn sizes_are_checked_before_anything_is_decoded() {
    let (base, target) = (noise(1, 1000), noise(2, 1000));
    let delta = make(&base, &target, MAX).unwrap();
    let mut huge = delta.clone();
    huge[80..88].copy_from_slice(&u64::MAX.to_le_bytes());
    let refused = Delta::parse(&huge).unwrap().apply(&base, MAX);
    assert!(matches!(refused, Err(DeltaError::TooLarge { .. })), "{refused:?}");
    assert!(matches!(make(&base, &target, 1000), Err(DeltaError::TooLarge { .. })));
    let mut many = delta.clone();
    many[88..92].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Delta::parse(&many), Err(DeltaError::Segments { .. })));
    let other = Delta::parse(&delta).unwrap().apply(&target[..999], MAX);
    assert!(matches!(other, Err(DeltaError::OtherSize { what: "base", .. })), "{other:?}");
    let bomb = [&delta[..HEADER_BYTES], &compress(&vec![0; 50 << 20]).unwrap()].concat();
    let refused = Delta::parse(&bomb).unwrap().apply(&base, MAX);
    assert!(matches!(refused, Err(DeltaError::Zstd(_))), "{refused:?}");
}

#[test]
fn a_delta_between_other_blobs_is_named() {
    let (base, target) = (noise(1, 1000), noise(2, 1000));
    let delta = make(&base, &target, MAX).unwrap();
    let delta = Delta::parse(&delta).unwrap();
    let refused = delta.expect((delta.target, 1000), (delta.target, 1000), MAX);
    assert!(matches!(refused, Err(DeltaError::OtherBlob { what: "base", .. })));
    let mut false_base = base.clone();
    false_base[5] ^= 1;
    assert!(matches!(
        delta.apply(&false_base, MAX),
        Err(DeltaError::Digest { .. } | DeltaError::Zstd(_)) | Ok(_)
    ));
}
