//! Steps between the model's output and the application's answer, in the order of the manifest.
//!
//! `softmax` and `sigmoid` change the scores, which are the model's first output. The others derive a new
//! output from the scores; it is appended, and takes its name from the signature by its place.

use release::PostStep;

use crate::columns::Real as _;
use crate::engine::Value;
use crate::error::InferError;
use crate::spec;
use crate::tensor::Data;

/// Runs all steps on the model's outputs. `labels` are the class names of the manifest.
pub(crate) fn apply(
    steps: &[PostStep],
    labels: &[String],
    mut outputs: Vec<Value>,
) -> Result<Vec<Value>, InferError> {
    for step in steps {
        apply_one(step, labels, &mut outputs).map_err(|why| InferError::Post {
            step: spec::post_name(step),
            name: "scores".into(),
            why,
        })?;
    }
    Ok(outputs)
}

fn apply_one(step: &PostStep, labels: &[String], outputs: &mut Vec<Value>) -> Result<(), String> {
    let mut scores = Scores::of(outputs)?;
    let rows = scores.rows();
    match step {
        PostStep::Softmax => {
            scores.values.chunks_mut(scores.width).for_each(softmax);
            outputs[0] = (scores.shape, Data::Fp32(scores.values));
        }
        PostStep::Sigmoid => {
            scores.values.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp()));
            outputs[0] = (scores.shape, Data::Fp32(scores.values));
        }
        PostStep::Argmax => {
            let best: Result<Vec<i64>, String> = scores.each_row().map(|row| index(best_of(row))).collect();
            outputs.push((vec![rows], Data::Int64(best?)));
        }
        PostStep::Labels => {
            let name = |row: &[f32]| {
                let place = best_of(row);
                labels.get(place).cloned().ok_or_else(|| format!("class {place} has no label"))
            };
            let names: Result<Vec<String>, String> = scores.each_row().map(name).collect();
            outputs.push((vec![rows], Data::Bytes(names?)));
        }
        PostStep::TopK { k } => {
            let k = usize::try_from(*k).unwrap_or(usize::MAX).min(scores.width);
            let (mut values, mut places) = (Vec::new(), Vec::new());
            for row in scores.each_row() {
                for place in best_classes(row, k) {
                    values.push(row[place]);
                    places.push(index(place)?);
                }
            }
            outputs.push((vec![rows, k], Data::Fp32(values)));
            outputs.push((vec![rows, k], Data::Int64(places)));
        }
        PostStep::Threshold { min } => {
            // In the scores' own type, as the libraries compare: 0.9 of the manifest is the nearest f32 to 0.9.
            let min = f32::of(*min);
            let is_over = scores.values.iter().map(|x| *x >= min).collect();
            outputs.push((scores.shape, Data::Bool(is_over)));
        }
    }
    Ok(())
}

/// The model's first output as rows of f32.
struct Scores {
    shape: Vec<usize>,
    width: usize,
    values: Vec<f32>,
}

impl Scores {
    fn of(outputs: &[Value]) -> Result<Self, String> {
        let Some((shape, data)) = outputs.first() else { return Err("the model has no output".into()) };
        let Data::Fp32(values) = data else {
            return Err(format!("needs FP32 scores, the model gives {}", data.datatype()));
        };
        match shape.last() {
            Some(width) if *width > 0 => {
                Ok(Self { shape: shape.clone(), width: *width, values: values.clone() })
            }
            _ => Err(format!("needs scores in rows, got shape {shape:?}")),
        }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn each_row(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width)
    }
}

fn softmax(row: &mut [f32]) {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for x in row.iter_mut() {
        *x = (*x - highest).exp();
    }
    let sum: f32 = row.iter().sum();
    for x in row {
        *x /= sum;
    }
}

/// Place of the highest score; the first of equals, and 0 when nothing is comparable.
pub(crate) fn best_of<T: PartialOrd + Copy>(row: &[T]) -> usize {
    let is_nan = |x: T| x.partial_cmp(&x).is_none();
    let is_better =
        |best: usize, place: usize| row[place] > row[best] || (is_nan(row[best]) && !is_nan(row[place]));
    (1..row.len()).fold(0, |best, place| if is_better(best, place) { place } else { best })
}

/// Places of the `count` highest scores, the best first; of equals the first one, and NaN after all numbers.
pub fn best_classes(row: &[f32], count: usize) -> Vec<usize> {
    // Zeroes are equal whatever their sign.
    let key = |place: usize| {
        let is_number = !row[place].is_nan();
        (is_number, if is_number { row[place] + 0.0 } else { 0.0 })
    };
    let better = |a: &usize, b: &usize| {
        let ((a_is_number, a_score), (b_is_number, b_score)) = (key(*a), key(*b));
        b_is_number.cmp(&a_is_number).then(b_score.total_cmp(&a_score)).then(a.cmp(b))
    };
    let mut places: Vec<usize> = (0..row.len()).collect();
    if count < places.len() && count > 0 {
        places.select_nth_unstable_by(count - 1, better);
    }
    places.truncate(count);
    places.sort_unstable_by(better);
    places
}

fn index(place: usize) -> Result<i64, String> {
    i64::try_from(place).map_err(|_| format!("class {place} is no INT64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: &[PostStep], scores: Vec<f32>) -> Result<Vec<Value>, InferError> {
        let labels = ["a", "b", "c"].map(String::from);
        apply(steps, &labels, vec![(vec![scores.len() / 3, 3], Data::Fp32(scores))])
    }

    #[test]
    fn softmax_sums_to_one_and_survives_large_scores() {
        let out = run(&[PostStep::Softmax], vec![1000.0, 1000.0, -1000.0]).unwrap();
        assert_eq!(out[0].1, Data::Fp32(vec![0.5, 0.5, 0.0]));
    }

    #[test]
    fn derived_outputs_are_appended_in_order() {
        let steps =
            [PostStep::Argmax, PostStep::Labels, PostStep::TopK { k: 2 }, PostStep::Threshold { min: 0.5 }];
        let out = run(&steps, vec![0.1, 0.3, 0.6, 0.8, 0.1, 0.1]).unwrap();
        assert_eq!(out[1], (vec![2], Data::Int64(vec![2, 0])));
        assert_eq!(out[2], (vec![2], Data::Bytes(vec!["c".into(), "a".into()])));
        assert_eq!(out[3], (vec![2, 2], Data::Fp32(vec![0.6, 0.3, 0.8, 0.1])));
        assert_eq!(out[4], (vec![2, 2], Data::Int64(vec![2, 1, 0, 1])));
        assert_eq!(out[5].1, Data::Bool(vec![false, false, true, true, false, false]));
    }

    #[test]
    fn of_equal_scores_the_first_goes_first_whatever_the_sign_of_a_zero() {
        let row = [-0.0, 0.0, f32::NAN, -0.0];
        assert_eq!((best_of(&row), best_classes(&row, 4)), (0, vec![0, 1, 3, 2]));
        let masked = [f32::NAN, f32::NEG_INFINITY, f32::NAN];
        assert_eq!((best_of(&masked), best_classes(&masked, 3)), (1, vec![1, 0, 2]));
    }

    #[test]
    fn a_score_on_the_threshold_is_over_it() {
        let out = run(&[PostStep::Threshold { min: 0.9 }], vec![0.9, 0.899_999, 0.900_001]).unwrap();
        assert_eq!(out[1].1, Data::Bool(vec![true, false, true]));
    }

    #[test]
    fn scores_that_are_not_numbers_do_not_crash() {
        let out = run(&[PostStep::Argmax, PostStep::TopK { k: 9 }], vec![f32::NAN, f32::NAN, 1.0]).unwrap();
        assert_eq!(out[1].1, Data::Int64(vec![2]));
        assert_eq!((best_of(&[f32::NAN; 3]), best_of(&[f32::NAN, 0.0, f32::NAN])), (0, 1));
    }

    #[test]
    fn integers_are_no_scores() {
        let outputs = vec![(vec![1], Data::Int64(vec![1]))];
        assert!(matches!(apply(&[PostStep::Softmax], &[], outputs), Err(InferError::Post { .. })));
    }
}
