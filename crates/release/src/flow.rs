//! What the steps before the model make of an input's shape and type: a step that can't work on what reaches it is
//! found while the manifest is read, not when the first request comes.

use crate::check::ManifestError;
use crate::manifest::{Datatype, TensorSpec};
use crate::steps::PreStep;

/// A tensor on its way through the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Passing {
    shape: Vec<i64>,
    datatype: Datatype,
}

/// Follows every input through all steps.
pub(crate) fn check(
    steps: &[PreStep],
    inputs: &[TensorSpec],
    max_elements: i64,
) -> Result<(), ManifestError> {
    for input in inputs {
        let mut passing = Passing { shape: input.shape.clone(), datatype: input.datatype };
        for step in steps {
            let got = format!("{} {:?} of input {}", passing.datatype.name(), passing.shape, input.name);
            let refused = |expected: String| {
                ManifestError::bound(&format!("what reaches pre.{}", step.name()), &expected, &got)
            };
            passing = after(step, passing).map_err(refused)?;
            let elements = passing.shape.iter().fold(1_i64, |all, dim| all.saturating_mul((*dim).max(1)));
            if elements > max_elements {
                return Err(refused(format!("so small that at most {max_elements} elements come out")));
            }
        }
    }
    Ok(())
}

/// What a step makes of it; else what the step needs.
fn after(step: &PreStep, mut passing: Passing) -> Result<Passing, String> {
    if let PreStep::Vocabulary { columns } = step {
        let width = row_width(&passing)?;
        if passing.datatype != Datatype::Bytes {
            return Err("BYTES".into());
        }
        if columns.iter().any(|words| i64::from(words.column) >= width) {
            return Err("rows with all the columns that have words".into());
        }
        return Ok(Passing { datatype: Datatype::Fp32, ..passing });
    }
    if passing.datatype == Datatype::Bytes {
        return Err("numbers (texts need a vocabulary step)".into());
    }
    match step {
        // What a vocabulary needs is checked above.
        PreStep::Scale { .. } | PreStep::Clip { .. } | PreStep::Vocabulary { .. } => {}
        PreStep::Standardise { mean, .. } => per_axis(&passing, mean.len(), true)?,
        PreStep::Impute { values } => per_axis(&passing, values.len(), false)?,
        PreStep::Cast { datatype } => return Ok(Passing { datatype: *datatype, ..passing }),
        PreStep::OneHot { column, size } => {
            if i64::from(*column) >= row_width(&passing)? {
                return Err(format!("rows with more than {column} columns"));
            }
            passing.shape[1] += i64::from(*size) - 1;
        }
        PreStep::Layout { .. } | PreStep::Resize { .. } | PreStep::Crop { .. } | PreStep::Channels { .. } => {
            return image(step, passing);
        }
    }
    Ok(Passing { datatype: Datatype::Fp32, ..passing })
}

/// Columns of a batch of rows.
fn row_width(passing: &Passing) -> Result<i64, String> {
    match passing.shape.as_slice() {
        [_, width] => Ok(*width),
        _ => Err("a batch of rows, which has two dimensions".into()),
    }
}

/// One entry for all, one per entry of the last axis, or one per channel of the second one.
fn per_axis(passing: &Passing, entries: usize, has_channels: bool) -> Result<(), String> {
    let is_axis = |dim: Option<&i64>| dim.is_some_and(|dim| usize::try_from(*dim) == Ok(entries));
    let fits = entries == 1
        || is_axis(passing.shape.last())
        || (has_channels && passing.shape.len() > 2 && is_axis(passing.shape.get(1)));
    if fits {
        Ok(())
    } else {
        Err(format!("of as many columns or channels as the step has entries, {entries}"))
    }
}

fn image(step: &PreStep, Passing { mut shape, mut datatype }: Passing) -> Result<Passing, String> {
    if shape.len() != 4 {
        return Err("a batch of images, which has four dimensions".into());
    }
    if datatype != Datatype::Uint8 {
        datatype = Datatype::Fp32;
    }
    match step {
        PreStep::Layout { from, to } => {
            let sizes = from.places().map(|place| shape[place]);
            for (place, size) in to.places().into_iter().zip(sizes) {
                shape[place] = size;
            }
        }
        PreStep::Resize { height, width, layout, .. } => {
            let [h, w, _] = layout.places();
            (shape[h], shape[w]) = (i64::from(*height), i64::from(*width));
            datatype = Datatype::Fp32;
        }
        PreStep::Crop { top, left, height, width, layout } => {
            let [h, w, _] = layout.places();
            let [bottom, right] = [(top, height), (left, width)].map(|(a, b)| i64::from(*a) + i64::from(*b));
            if shape[h] < bottom || shape[w] < right {
                return Err(format!("at least {bottom} rows and {right} columns"));
            }
            (shape[h], shape[w]) = (i64::from(*height), i64::from(*width));
        }
        PreStep::Channels { order, layout } => {
            let [_, _, c] = layout.places();
            if let Some(channel) = order.iter().find(|channel| i64::from(**channel) >= shape[c]) {
                return Err(format!("images with a channel {channel}"));
            }
            shape[c] = i64::try_from(order.len()).map_err(|_| "fewer channels".to_owned())?;
        }
        _ => {}
    }
    Ok(Passing { shape, datatype })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::{ImageLayout, Resampling, Words};

    fn run(steps: &[PreStep], datatype: Datatype, shape: &[i64]) -> Result<Passing, String> {
        steps
            .iter()
            .try_fold(Passing { shape: shape.to_vec(), datatype }, |passing, step| after(step, passing))
    }

    #[test]
    fn images_change_their_shape_step_by_step() {
        let (first, last) = (ImageLayout::Nchw, ImageLayout::Nhwc);
        let steps = [
            PreStep::Resize { height: 256, width: 300, layout: last, method: Resampling::BilinearAntialias },
            PreStep::Crop { top: 16, left: 38, height: 224, width: 224, layout: last },
            PreStep::Channels { order: vec![2, 1, 0], layout: last },
            PreStep::Layout { from: last, to: first },
            PreStep::Standardise { mean: vec![0.0; 3], std: vec![1.0; 3] },
        ];
        let out = run(&steps, Datatype::Uint8, &[-1, 480, 640, 3]).unwrap();
        assert_eq!(out, Passing { shape: vec![-1, 3, 224, 224], datatype: Datatype::Fp32 });
        assert!(run(&steps, Datatype::Uint8, &[-1, 480, 640, 1]).unwrap_err().contains("channel 2"));
        assert!(run(&steps, Datatype::Uint8, &[-1, 10]).unwrap_err().contains("four dimensions"));
        let cut = [PreStep::Crop { top: 1, left: 0, height: 8, width: 8, layout: first }];
        assert!(run(&cut, Datatype::Fp32, &[-1, 1, 8, 8]).unwrap_err().contains("9 rows"));
    }

    #[test]
    fn rows_of_texts_become_numbers_and_grow() {
        let words = |column| Words { column, words: vec!["a".into(), "b".into()] };
        let steps = [
            PreStep::Vocabulary { columns: vec![words(1)] },
            PreStep::Impute { values: vec![0.0; 3] },
            PreStep::OneHot { column: 1, size: 2 },
        ];
        let out = run(&steps, Datatype::Bytes, &[-1, 3]).unwrap();
        assert_eq!(out, Passing { shape: vec![-1, 4], datatype: Datatype::Fp32 });
        assert!(run(&steps, Datatype::Fp32, &[-1, 3]).is_err(), "a vocabulary is for texts");
        assert!(run(&steps[1..], Datatype::Bytes, &[-1, 3]).unwrap_err().contains("vocabulary"));
        assert!(run(&steps, Datatype::Bytes, &[-1, 4]).unwrap_err().contains("entries, 3"));
        assert!(run(&[PreStep::Vocabulary { columns: vec![words(3)] }], Datatype::Bytes, &[-1, 3]).is_err());
        assert!(run(&[PreStep::OneHot { column: 3, size: 2 }], Datatype::Fp32, &[-1, 3]).is_err());
    }
}
