//! The steps of a release against the libraries that models are trained with: `tests/parity/make.py` made the vectors
//! with OpenCV, Pillow, scikit-learn and SciPy.

use release::{PostStep, PreStep};
use serde::Deserialize;

use crate::tensor::{Data, Tensor};
use crate::{post, pre};

/// How far arithmetic in another order may lie off, relative to values above 1.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    pre: Vec<PreStep>,
    #[serde(default)]
    post: Vec<PostStep>,
    labels: Vec<String>,
    input: Tensor,
    outputs: Vec<Tensor>,
}

#[test]
fn steps_make_what_the_training_libraries_make() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../tests/parity/vectors.json")).unwrap();
    assert!(cases.len() > 10, "only {} cases", cases.len());
    for case in cases {
        let (shape, between) = pre::apply(&case.pre, &case.input).unwrap();
        let outputs = post::apply(&case.post, &case.labels, vec![(shape, between.into_owned())]).unwrap();
        assert_eq!(outputs.len(), case.outputs.len(), "{}", case.name);
        for ((shape, data), expected) in outputs.iter().zip(&case.outputs) {
            assert_eq!(shape, expected.shape(), "{}", case.name);
            assert_same(&case.name, data, expected.data());
        }
    }
}

fn assert_same(name: &str, got: &Data, expected: &Data) {
    if matches!(expected, Data::Bytes(_)) {
        assert_eq!(got, expected, "{name}");
        return;
    }
    assert_eq!(got.datatype(), expected.datatype(), "{name}");
    for (place, (got, expected)) in got.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        let is_same = (got.is_nan() && expected.is_nan())
            || (got - expected).abs() <= TOLERANCE * expected.abs().max(1.0);
        assert!(is_same, "{name}: value {place} is {got}, not {expected}");
    }
}
