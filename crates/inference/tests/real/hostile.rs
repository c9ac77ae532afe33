//! Bytes that are no model, or one made to hurt: each gives a named error, none a crash.

use crate::support::{bytes, spec};
use inference::{LoadError, Model};

fn load(bytes: &[u8]) -> Result<Model, LoadError> {
    Model::load(bytes, spec())
}

#[test]
fn rubbish_is_named_as_such() {
    assert!(matches!(load(b"").unwrap_err(), LoadError::Malformed { .. }));
    assert!(matches!(load(b"\xff\xff\xff\xff\xff\xff").unwrap_err(), LoadError::Parse { .. }));
    assert!(matches!(load(&b"PK\x03\x04 not a model".repeat(100)).unwrap_err(), LoadError::Parse { .. }));
}

#[test]
fn a_model_cut_anywhere_is_an_error() {
    for variant in ["int8", "f32"] {
        let whole = bytes(&format!("1.0.0/{variant}.onnx"));
        for end in (0..whole.len() - 1).step_by(997) {
            assert!(load(&whole[..end]).is_err(), "{variant} cut at {end} was loaded");
        }
    }
}

#[test]
fn a_model_with_changed_bytes_loads_or_is_an_error() {
    let whole = bytes("1.0.0/int8.onnx");
    let mut state = 7_u64;
    for _ in 0..150 {
        let mut changed = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = usize::try_from(state >> 33).unwrap() % changed.len();
            changed[place] = state.to_le_bytes()[1];
        }
        let _ = load(&changed);
    }
}

#[test]
fn an_operator_that_the_runtime_lacks_is_named() {
    let mut model = bytes("1.0.0/f32.onnx");
    rename(&mut model, b"MaxPool", b"MaxPoll");
    let error = load(&model).unwrap_err();
    assert!(matches!(&error, LoadError::UnknownOp { op, .. } if op == "MaxPoll"), "{error}");
    assert!(error.to_string().contains("MaxPoll") && error.to_string().contains("pool"), "{error}");
}

#[test]
fn a_constant_whose_bytes_do_not_fill_its_shape_is_refused() {
    // The first weights have shape [c, 1, 3, 3]: field 1 (dims), one varint each.
    let mut model = bytes("1.0.0/f32.onnx");
    let place = model.windows(4).position(|w| w == [8, 3, 8, 3]).unwrap();
    model[place + 1] = 4;
    assert!(matches!(load(&model).unwrap_err(), LoadError::Malformed { .. } | LoadError::Parse { .. }));
}

#[test]
fn a_name_that_leads_nowhere_is_refused() {
    let mut model = bytes("1.0.0/f32.onnx");
    let place = model.windows(6).rposition(|w| w == b"logits").unwrap();
    model[place..place + 6].copy_from_slice(b"losits");
    assert!(load(&model).is_err());
}

fn rename(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let place = bytes.windows(from.len()).position(|w| w == from).unwrap();
    bytes[place..place + to.len()].copy_from_slice(to);
}
