//! The digits example's files, as the tests read them.

use std::path::PathBuf;

use inference::{Data, Datatype, Model, Spec, Tensor, TensorSpec};
use release::{PostStep, PreStep};

pub(crate) fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/digits")).join(name)
}

pub(crate) fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).unwrap()
}

pub(crate) fn spec() -> Spec {
    let fp32 = |name: &str, shape: &[i64]| TensorSpec {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: shape.to_vec(),
    };
    Spec {
        inputs: vec![fp32("image", &[-1, 1, 8, 8])],
        outputs: vec![fp32("scores", &[-1, 10])],
        pre: vec![PreStep::Scale { factor: 0.0625 }],
        post: vec![PostStep::Softmax],
        labels: (0..10).map(|i| i.to_string()).collect(),
    }
}

pub(crate) fn model(release: &str, variant: &str) -> Model {
    Model::load(&bytes(&format!("{release}/{variant}.onnx")), spec()).unwrap()
}

/// True label and pixels of every held-out image.
pub(crate) fn held_out() -> Vec<(usize, Vec<f32>)> {
    let text = String::from_utf8(bytes("data/held_out.csv")).unwrap();
    let row = |line: &str| {
        let mut cells = line.split(',');
        (cells.next().unwrap().parse().unwrap(), cells.map(|cell| cell.parse().unwrap()).collect())
    };
    text.lines().skip(1).map(row).collect()
}

pub(crate) fn images(rows: &[(usize, Vec<f32>)]) -> Tensor {
    let values: Vec<f32> = rows.iter().flat_map(|(_, pixels)| pixels.iter().copied()).collect();
    Tensor::new("image", vec![rows.len(), 1, 8, 8], Data::Fp32(values)).unwrap()
}

pub(crate) fn fp32(tensor: &Tensor) -> &[f32] {
    let Data::Fp32(values) = tensor.data() else { panic!("{} is {}", tensor.name(), tensor.datatype()) };
    values
}
