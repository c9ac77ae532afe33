//! Steps between an application's input and the model, in the order of the manifest.
//!
//! Arithmetic keeps what an input says: numbers that f32 doesn't hold exactly (FP64, integers of 32 and 64 bits, texts)
//! are f64 until the last step, and are rounded once, to the model's FP32. 8-bit images stay 8-bit until arithmetic: they
//! are resized to whole values. Tests: here, and [`crate::parity`].

use std::borrow::Cow;

use release::{ImageLayout, PreStep, Resampling};

use crate::columns::{self, Real};
use crate::engine::{Fed, Value};
use crate::error::InferError;
use crate::image::{self, Method, Order};
use crate::image8;
use crate::spec;
use crate::tensor::{Data, Datatype, Tensor};

/// Runs all steps on one input, which the first step copies; without one it is fed as it lies.
pub(crate) fn apply<'a>(steps: &[PreStep], input: &'a Tensor) -> Result<Fed<'a>, InferError> {
    let mut value = (input.shape().to_vec(), Cow::Borrowed(input.data()));
    for step in steps {
        let (shape, data) = apply_one(step, value).map_err(|why| InferError::Pre {
            step: step.name(),
            name: input.name().to_owned(),
            why,
        })?;
        value = (shape, Cow::Owned(data));
    }
    Ok((value.0, fed(steps, value.1)))
}

/// Rounds what arithmetic kept as f64, and hands resized 8-bit images over as FP32. An input that no step touched, or
/// that the last step casts, is what it says.
fn fed<'a>(steps: &[PreStep], data: Cow<'a, Data>) -> Cow<'a, Data> {
    let is_cast = |step: &&PreStep| matches!(step, PreStep::Cast { .. });
    let is_resize = |step: &PreStep| matches!(step, PreStep::Resize { .. });
    let is_as_cast = steps.last().as_ref().is_none_or(is_cast);
    match data {
        Cow::Owned(Data::Fp64(values)) if !is_as_cast => Cow::Owned(Data::Fp32(rounded(&values))),
        Cow::Owned(Data::Uint8(values))
            if steps.iter().rev().take_while(|step| !is_cast(step)).any(is_resize) =>
        {
            Cow::Owned(Data::Fp32(values.into_iter().map(f32::from).collect()))
        }
        data => data,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the model's numbers are f32")]
fn rounded(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

fn apply_one(step: &PreStep, (shape, data): Fed<'_>) -> Result<Value, String> {
    match step {
        PreStep::Scale { factor } => Ok((shape, map(data, |x| x * factor)?)),
        PreStep::Clip { min, max } => Ok((shape, map(data, |x| x.clamp(*min, *max))?)),
        PreStep::Standardise { mean, std } => standardise((shape, data), mean, std),
        PreStep::Layout { from, to } => layout((shape, data), order(*from), order(*to)),
        PreStep::Resize { height, width, layout, method } => {
            resize((shape, data), (place(*height), place(*width)), order(*layout), *method)
        }
        PreStep::Cast { datatype } => {
            let known = spec::datatype(*datatype).ok_or_else(|| format!("can't make {}", datatype.name()))?;
            Ok((shape, cast(data, known)?))
        }
        PreStep::Crop { top, left, height, width, layout } => {
            let part = [(*top, *height), (*left, *width)].map(|(from, count)| (place(from), place(count)));
            crop((shape, data), part, order(*layout))
        }
        PreStep::Channels { order: channels, layout } => {
            let channels: Vec<usize> = channels.iter().map(|channel| place(*channel)).collect();
            choose((shape, data), &channels, order(*layout))
        }
        PreStep::Impute { values } => {
            let data = match numbers(data)? {
                Numbers::Single(found) => Data::Fp32(columns::impute(&shape, found, values)?),
                Numbers::Double(found) => Data::Fp64(columns::impute(&shape, found, values)?),
            };
            Ok((shape, data))
        }
        PreStep::Vocabulary { columns } => {
            columns::vocabulary(&shape, &data, columns).map(|data| (shape, data))
        }
        PreStep::OneHot { column, size } => {
            let (column, size) = (place(*column), place(*size));
            match numbers(data)? {
                Numbers::Single(found) => columns::one_hot(&shape, &found, column, size)
                    .map(|(shape, out)| (shape, Data::Fp32(out))),
                Numbers::Double(found) => columns::one_hot(&shape, &found, column, size)
                    .map(|(shape, out)| (shape, Data::Fp64(out))),
            }
        }
    }
}

/// A number of the manifest as one of this machine's; one that is too large is no place of any tensor.
fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn order(layout: ImageLayout) -> Order {
    match layout {
        ImageLayout::Nhwc => Order::ChannelsLast,
        ImageLayout::Nchw => Order::ChannelsFirst,
    }
}

/// The values as f32, without a copy where a step before made them f32 already.
fn floats(data: Cow<'_, Data>) -> Result<Vec<f32>, String> {
    match cast(data, Datatype::Fp32)? {
        Data::Fp32(values) => Ok(values),
        other => Err(format!("needs numbers, got {}", other.datatype())),
    }
}

/// Numbers as arithmetic takes them: as f32 where that holds each of them exactly.
enum Numbers {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

/// The values as numbers, without a copy where a step before made them floats already.
fn numbers(data: Cow<'_, Data>) -> Result<Numbers, String> {
    match data.datatype() {
        Datatype::Bytes => Err("needs numbers, got text".into()),
        Datatype::Fp64 | Datatype::Int32 | Datatype::Uint32 | Datatype::Int64 | Datatype::Uint64 => {
            match cast(data, Datatype::Fp64)? {
                Data::Fp64(values) => Ok(Numbers::Double(values)),
                other => Err(format!("needs numbers, got {}", other.datatype())),
            }
        }
        _ => floats(data).map(Numbers::Single),
    }
}

fn map(data: Cow<'_, Data>, f: impl Fn(f64) -> f64) -> Result<Data, String> {
    Ok(match numbers(data)? {
        Numbers::Single(values) => Data::Fp32(mapped(values, f)),
        Numbers::Double(values) => Data::Fp64(mapped(values, f)),
    })
}

fn mapped<T: Real>(mut values: Vec<T>, f: impl Fn(f64) -> f64) -> Vec<T> {
    for value in &mut values {
        *value = T::of(f(value.wide()));
    }
    values
}

/// One mean and deviation for all values, or one for each entry of an axis: the last one if it has as many
/// entries (features, channels last), else the second (channels first).
fn standardise((shape, data): Fed<'_>, mean: &[f64], std: &[f64]) -> Result<Value, String> {
    if mean.len() != std.len() || mean.is_empty() {
        return Err(format!("has {} means and {} deviations", mean.len(), std.len()));
    }
    let run: usize = match () {
        () if mean.len() == 1 || shape.last() == Some(&mean.len()) => 1,
        () if shape.get(1) == Some(&mean.len()) => shape.iter().skip(2).product(),
        () => return Err(format!("has {} means, which no axis of shape {shape:?} has", mean.len())),
    };
    let terms: Vec<(f64, f64)> = mean.iter().copied().zip(std.iter().copied()).collect();
    let data = match numbers(data)? {
        Numbers::Single(values) => Data::Fp32(standardised(values, &terms, run)),
        Numbers::Double(values) => Data::Fp64(standardised(values, &terms, run)),
    };
    Ok((shape, data))
}

/// `run` values in a row have the same mean and deviation; then comes the next pair, and after the last the first.
fn standardised<T: Real>(mut values: Vec<T>, terms: &[(f64, f64)], run: usize) -> Vec<T> {
    for (chunk, (mean, std)) in values.chunks_mut(std::cmp::max(run, 1)).zip(terms.iter().cycle()) {
        for value in chunk {
            *value = T::of((value.wide() - mean) / std);
        }
    }
    values
}

fn layout((shape, data): Fed<'_>, from: Order, to: Order) -> Result<Value, String> {
    let dims = from.dims(&shape).ok_or_else(|| four(&shape))?;
    let data = match data.as_ref() {
        Data::Uint8(values) => Data::Uint8(image::reorder(values, dims, from, to)),
        _ => match numbers(data)? {
            Numbers::Single(values) => Data::Fp32(image::reorder(&values, dims, from, to)),
            Numbers::Double(values) => Data::Fp64(image::reorder(&values, dims, from, to)),
        },
    };
    Ok((to.shape(dims), data))
}

fn resize(
    (shape, data): Fed<'_>,
    size: (usize, usize),
    order: Order,
    method: Resampling,
) -> Result<Value, String> {
    let dims = order.dims(&shape).ok_or_else(|| four(&shape))?;
    let method = match method {
        Resampling::Nearest => Method::Nearest,
        Resampling::Bilinear => Method::Bilinear,
        Resampling::BilinearAntialias => Method::Antialias,
    };
    let data = match data.as_ref() {
        Data::Uint8(values) => Data::Uint8(image8::resize(values, dims, order, size, method)),
        _ => Data::Fp32(image::resize(&floats(data)?, dims, order, size, method)),
    };
    Ok((order.shape(image::Dims { h: size.0, w: size.1, ..dims }), data))
}

/// Rows and columns: where the part begins, and how many.
fn crop((shape, data): Fed<'_>, part: [(usize, usize); 2], order: Order) -> Result<Value, String> {
    let dims = order.dims(&shape).ok_or_else(|| four(&shape))?;
    let [rows, columns] = part.map(|(from, count)| from..from.saturating_add(count));
    if rows.end > dims.h || columns.end > dims.w {
        return Err(format!("needs images of at least {} rows and {} columns", rows.end, columns.end));
    }
    let target = image::Dims { h: rows.len(), w: columns.len(), ..dims };
    let data = match data.as_ref() {
        Data::Uint8(values) => Data::Uint8(image::crop(values, dims, order, rows, columns)),
        _ => match numbers(data)? {
            Numbers::Single(values) => Data::Fp32(image::crop(&values, dims, order, rows, columns)),
            Numbers::Double(values) => Data::Fp64(image::crop(&values, dims, order, rows, columns)),
        },
    };
    Ok((order.shape(target), data))
}

fn choose((shape, data): Fed<'_>, channels: &[usize], order: Order) -> Result<Value, String> {
    let dims = order.dims(&shape).ok_or_else(|| four(&shape))?;
    if let Some(channel) = channels.iter().find(|channel| **channel >= dims.c) {
        return Err(format!("needs images with a channel {channel}, they have {}", dims.c));
    }
    let data = match data.as_ref() {
        Data::Uint8(values) => Data::Uint8(image::choose(values, dims, order, channels)),
        _ => match numbers(data)? {
            Numbers::Single(values) => Data::Fp32(image::choose(&values, dims, order, channels)),
            Numbers::Double(values) => Data::Fp64(image::choose(&values, dims, order, channels)),
        },
    };
    Ok((order.shape(image::Dims { c: channels.len(), ..dims }), data))
}

fn four(shape: &[usize]) -> String {
    format!("needs a batch of images, which has four dimensions, got shape {shape:?}")
}

fn cast(data: Cow<'_, Data>, datatype: Datatype) -> Result<Data, String> {
    if data.datatype() == datatype {
        return Ok(data.into_owned());
    }
    if data.datatype() == Datatype::Bytes {
        return Err("needs numbers, got text".into());
    }
    Data::from_f64(datatype, &data.to_f64()).ok_or_else(|| format!("can't make {datatype}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: &[PreStep], shape: &[usize], values: Vec<f32>) -> Result<Value, InferError> {
        let input = Tensor::new("x", shape.to_vec(), Data::Fp32(values)).unwrap();
        apply(steps, &input).map(|(shape, data)| (shape, data.into_owned()))
    }

    #[test]
    fn steps_run_in_order() {
        let steps = [PreStep::Scale { factor: 0.5 }, PreStep::Clip { min: 0.0, max: 1.0 }];
        assert_eq!(run(&steps, &[1, 3], vec![-1.0, 1.0, 9.0]).unwrap().1, Data::Fp32(vec![0.0, 0.5, 1.0]));
    }

    #[test]
    fn standardise_finds_features_and_channels() {
        let step = [PreStep::Standardise { mean: vec![1.0, 2.0], std: vec![1.0, 2.0] }];
        let rows = run(&step, &[2, 2], vec![1.0, 2.0, 2.0, 4.0]).unwrap().1;
        assert_eq!(rows, Data::Fp32(vec![0.0, 0.0, 1.0, 1.0]));
        let first = run(&step, &[1, 2, 1, 3], vec![1.0, 1.0, 2.0, 2.0, 2.0, 4.0]).unwrap().1;
        assert_eq!(first, Data::Fp32(vec![0.0, 0.0, 1.0, 0.0, 0.0, 1.0]));
        let error = run(&step, &[1, 3], vec![0.0; 3]).unwrap_err();
        assert!(error.to_string().contains("standardise") && error.to_string().contains("[1, 3]"), "{error}");
    }

    #[test]
    fn bytes_keep_their_type_until_arithmetic_needs_floats() {
        let steps = [PreStep::Layout { from: ImageLayout::Nhwc, to: ImageLayout::Nchw }];
        let image = Tensor::new("x", vec![1, 1, 2, 3], Data::Uint8(vec![1, 2, 3, 4, 5, 6])).unwrap();
        let (shape, data) = apply(&steps, &image).unwrap();
        assert_eq!((shape, data.into_owned()), (vec![1, 3, 1, 2], Data::Uint8(vec![1, 4, 2, 5, 3, 6])));
    }

    #[test]
    fn an_image_step_on_rows_is_an_error() {
        let steps =
            [PreStep::Resize { height: 2, width: 2, layout: ImageLayout::Nchw, method: Resampling::Nearest }];
        assert!(matches!(run(&steps, &[1, 3], vec![0.0; 3]), Err(InferError::Pre { step: "resize", .. })));
    }

    #[test]
    fn numbers_that_f32_does_not_hold_are_rounded_after_the_last_step() {
        let scaled = [PreStep::Standardise { mean: vec![1_732_275_000.0], std: vec![3600.0] }];
        let expected = Data::Fp32(vec![71.0 / 3600.0]);
        for data in [
            Data::Fp64(vec![1_732_275_071.0]),
            Data::Int64(vec![1_732_275_071]),
            Data::Int32(vec![1_732_275_071]),
            Data::Uint32(vec![1_732_275_071]),
            Data::Uint64(vec![1_732_275_071]),
        ] {
            let datatype = data.datatype();
            let input = Tensor::new("x", vec![1, 1], data).unwrap();
            assert_eq!(apply(&scaled, &input).unwrap().1.into_owned(), expected, "{datatype}");
        }
        let wide = Tensor::new("x", vec![1], Data::Fp64(vec![0.1])).unwrap();
        let same = PreStep::Cast { datatype: release::Datatype::Fp64 };
        for (steps, expected) in [
            (vec![], Data::Fp64(vec![0.1])),
            (vec![PreStep::Scale { factor: 1.0 }], Data::Fp32(vec![0.1])),
            (vec![PreStep::Scale { factor: 1.0 }, same], Data::Fp64(vec![0.1])),
        ] {
            assert_eq!(apply(&steps, &wide).unwrap().1.into_owned(), expected, "{steps:?}");
        }
    }

    #[test]
    fn text_is_refused_by_arithmetic() {
        let text = Tensor::new("x", vec![1], Data::Bytes(vec!["a".into()])).unwrap();
        assert!(apply(&[PreStep::Scale { factor: 1.0 }], &text).is_err());
    }
}
