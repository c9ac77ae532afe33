//! Steps between an application's input and the model, in the order of the manifest.

use std::borrow::Cow;

use release::{ImageLayout, PreStep, Resampling};

use crate::columns;
use crate::engine::{Fed, Value};
use crate::error::InferError;
use crate::image::{self, Method, Order};
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
    Ok(value)
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
            columns::impute(&shape, floats(data)?, values).map(|data| (shape, data))
        }
        PreStep::Vocabulary { columns } => {
            columns::vocabulary(&shape, &data, columns).map(|data| (shape, data))
        }
        PreStep::OneHot { column, size } => {
            columns::one_hot(&shape, &floats(data)?, place(*column), place(*size))
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

#[expect(
    clippy::cast_possible_truncation,
    reason = "arithmetic is in f64 and rounded once, to the model's f32"
)]
fn map(data: Cow<'_, Data>, f: impl Fn(f64) -> f64) -> Result<Data, String> {
    let mut values = floats(data)?;
    for value in &mut values {
        *value = f(f64::from(*value)) as f32;
    }
    Ok(Data::Fp32(values))
}

/// One mean and deviation for all values, or one for each entry of an axis: the last one if it has as many
/// entries (features, channels last), else the second (channels first).
#[expect(
    clippy::cast_possible_truncation,
    reason = "arithmetic is in f64 and rounded once, to the model's f32"
)]
fn standardise((shape, data): Fed<'_>, mean: &[f64], std: &[f64]) -> Result<Value, String> {
    if mean.len() != std.len() || mean.is_empty() {
        return Err(format!("has {} means and {} deviations", mean.len(), std.len()));
    }
    let run = match () {
        () if mean.len() == 1 || shape.last() == Some(&mean.len()) => 1,
        () if shape.get(1) == Some(&mean.len()) => shape.iter().skip(2).product(),
        () => return Err(format!("has {} means, which no axis of shape {shape:?} has", mean.len())),
    };
    let mut values = floats(data)?;
    for (chunk, place) in values.chunks_mut(std::cmp::max(run, 1)).zip((0..mean.len()).cycle()) {
        for value in chunk {
            *value = ((f64::from(*value) - mean[place]) / std[place]) as f32;
        }
    }
    Ok((shape, Data::Fp32(values)))
}

fn layout((shape, data): Fed<'_>, from: Order, to: Order) -> Result<Value, String> {
    let dims = from.dims(&shape).ok_or_else(|| four(&shape))?;
    let data = match data.as_ref() {
        Data::Uint8(values) => Data::Uint8(image::reorder(values, dims, from, to)),
        _ => Data::Fp32(image::reorder(&floats(data)?, dims, from, to)),
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
    let values = image::resize(&floats(data)?, dims, order, size, method);
    Ok((order.shape(image::Dims { h: size.0, w: size.1, ..dims }), Data::Fp32(values)))
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
        _ => Data::Fp32(image::crop(&floats(data)?, dims, order, rows, columns)),
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
        _ => Data::Fp32(image::choose(&floats(data)?, dims, order, channels)),
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
    fn text_is_refused_by_arithmetic() {
        let text = Tensor::new("x", vec![1], Data::Bytes(vec!["a".into()])).unwrap();
        assert!(apply(&[PreStep::Scale { factor: 1.0 }], &text).is_err());
    }
}
