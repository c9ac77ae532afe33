//! Constants of an ONNX file as numbers. Their lengths were held against their shapes before the graph got here.

use std::borrow::Cow;

use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use crate::int8::kernel::Weights;

/// 8-bit constants.
pub(super) enum Bytes<'a> {
    /// Signed.
    S8(Vec<i8>),
    /// Unsigned.
    U8(Cow<'a, [u8]>),
}

impl Bytes<'_> {
    /// As the kernels take them.
    pub(super) fn weights(&self) -> Weights<'_> {
        match self {
            Self::S8(values) => Weights::S8(values),
            Self::U8(values) => Weights::U8(values),
        }
    }

    /// As activations: signed values move up by 128.
    pub(super) fn shifted(&self) -> Vec<u8> {
        match self {
            Self::S8(values) => values.iter().map(|value| value.cast_unsigned() ^ 0x80).collect(),
            Self::U8(values) => values.to_vec(),
        }
    }
}

/// The element type, if it is one that ONNX names.
pub(super) fn data_type(tensor: &TensorProto) -> Option<DataType> {
    DataType::try_from(tensor.data_type).ok()
}

/// The shape.
pub(super) fn shape(tensor: &TensorProto) -> Option<Vec<usize>> {
    tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect()
}

/// 32-bit floats.
pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if data_type(tensor)? != DataType::Float {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.float_data.clone());
    }
    Some(words(&tensor.raw_data).map(f32::from_le_bytes).collect())
}

/// Whole numbers of 8, 32 or 64 bits.
pub(super) fn ints(tensor: &TensorProto) -> Option<Vec<i64>> {
    let raw = &tensor.raw_data;
    let narrow = || tensor.int32_data.iter().map(|value| i64::from(*value)).collect();
    Some(match data_type(tensor)? {
        DataType::Int64 if raw.is_empty() => tensor.int64_data.clone(),
        DataType::Int64 => words(raw).map(i64::from_le_bytes).collect(),
        DataType::Int32 | DataType::Int8 | DataType::Uint8 if raw.is_empty() => narrow(),
        DataType::Int32 => words(raw).map(|word| i64::from(i32::from_le_bytes(word))).collect(),
        DataType::Int8 => raw.iter().map(|byte| i64::from(byte.cast_signed())).collect(),
        DataType::Uint8 => raw.iter().map(|byte| i64::from(*byte)).collect(),
        _ => return None,
    })
}

/// 8-bit numbers.
pub(super) fn bytes(tensor: &TensorProto) -> Option<Bytes<'_>> {
    let raw = &tensor.raw_data;
    let listed = tensor.int32_data.iter();
    match data_type(tensor)? {
        DataType::Uint8 if raw.is_empty() => {
            Some(Bytes::U8(listed.map(|value| u8::try_from(*value).ok()).collect::<Option<Vec<_>>>()?.into()))
        }
        DataType::Uint8 => Some(Bytes::U8(Cow::Borrowed(raw))),
        DataType::Int8 if raw.is_empty() => {
            Some(Bytes::S8(listed.map(|value| i8::try_from(*value).ok()).collect::<Option<_>>()?))
        }
        DataType::Int8 => Some(Bytes::S8(raw.iter().map(|byte| byte.cast_signed()).collect())),
        _ => None,
    }
}

/// A constant of whole numbers that the lowering worked out itself; none if the type doesn't hold them.
pub(super) fn of_ints(name: &str, kind: DataType, shape: &[usize], values: Vec<i64>) -> Option<TensorProto> {
    let dims = shape.iter().map(|size| i64::try_from(*size).ok()).collect::<Option<_>>()?;
    let tensor =
        TensorProto { name: name.to_owned(), dims, data_type: kind as i32, ..TensorProto::default() };
    match kind {
        DataType::Int64 => Some(TensorProto { int64_data: values, ..tensor }),
        DataType::Int32 | DataType::Int8 | DataType::Uint8 => {
            let values = values.into_iter().map(|value| i32::try_from(value).ok());
            Some(TensorProto { int32_data: values.collect::<Option<_>>()?, ..tensor })
        }
        _ => None,
    }
}

/// One f32.
pub(super) fn of_float(name: &str, value: f32) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: DataType::Float as i32,
        float_data: vec![value],
        ..TensorProto::default()
    }
}

/// A list of f32.
pub(super) fn of_floats(name: &str, values: Vec<f32>) -> Option<TensorProto> {
    let dims = vec![i64::try_from(values.len()).ok()?];
    Some(TensorProto { dims, float_data: values, ..of_float(name, 0.0) })
}

/// One 8-bit number, given as it is in memory: signed ones have moved up by 128.
pub(super) fn of_byte(name: &str, value: u8, is_signed: bool) -> TensorProto {
    let (kind, value) = if is_signed { (DataType::Int8, value ^ 0x80) } else { (DataType::Uint8, value) };
    TensorProto {
        name: name.to_owned(),
        data_type: kind as i32,
        raw_data: vec![value],
        ..TensorProto::default()
    }
}

fn words<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> {
    raw.as_chunks::<N>().0.iter().copied()
}
