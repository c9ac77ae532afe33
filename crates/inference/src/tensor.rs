//! A plain tensor: name, shape and typed values. No library's type appears in it, so that the agent, the CLI
//! and the tests share it without meeting tract.

use std::fmt;

/// Element types of the Open Inference Protocol that a release may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Datatype {
    /// 32-bit float.
    Fp32,
    /// 64-bit float.
    Fp64,
    /// 8-bit signed.
    Int8,
    /// 16-bit signed.
    Int16,
    /// 32-bit signed.
    Int32,
    /// 64-bit signed.
    Int64,
    /// 8-bit unsigned.
    Uint8,
    /// 16-bit unsigned.
    Uint16,
    /// 32-bit unsigned.
    Uint32,
    /// 64-bit unsigned.
    Uint64,
    /// True or false.
    Bool,
    /// Text; in JSON a string.
    Bytes,
}

impl Datatype {
    /// All types with their names in the protocol.
    const NAMES: [(Self, &'static str); 12] = [
        (Self::Fp32, "FP32"),
        (Self::Fp64, "FP64"),
        (Self::Int8, "INT8"),
        (Self::Int16, "INT16"),
        (Self::Int32, "INT32"),
        (Self::Int64, "INT64"),
        (Self::Uint8, "UINT8"),
        (Self::Uint16, "UINT16"),
        (Self::Uint32, "UINT32"),
        (Self::Uint64, "UINT64"),
        (Self::Bool, "BOOL"),
        (Self::Bytes, "BYTES"),
    ];

    /// The name in the protocol, e.g. `FP32`.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(datatype, _)| *datatype == self).map_or("", |(_, name)| name)
    }

    /// The type of that name in the protocol.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(datatype, _)| *datatype)
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A tensor's values, flat in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// 32-bit floats.
    Fp32(Vec<f32>),
    /// 64-bit floats.
    Fp64(Vec<f64>),
    /// 8-bit signed.
    Int8(Vec<i8>),
    /// 16-bit signed.
    Int16(Vec<i16>),
    /// 32-bit signed.
    Int32(Vec<i32>),
    /// 64-bit signed.
    Int64(Vec<i64>),
    /// 8-bit unsigned.
    Uint8(Vec<u8>),
    /// 16-bit unsigned.
    Uint16(Vec<u16>),
    /// 32-bit unsigned.
    Uint32(Vec<u32>),
    /// 64-bit unsigned.
    Uint64(Vec<u64>),
    /// True or false.
    Bool(Vec<bool>),
    /// Texts.
    Bytes(Vec<String>),
}

/// Runs one expression for whichever vector a [`Data`] holds.
macro_rules! with_data {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::Fp32($values) => $body,
            $crate::tensor::Data::Fp64($values) => $body,
            $crate::tensor::Data::Int8($values) => $body,
            $crate::tensor::Data::Int16($values) => $body,
            $crate::tensor::Data::Int32($values) => $body,
            $crate::tensor::Data::Int64($values) => $body,
            $crate::tensor::Data::Uint8($values) => $body,
            $crate::tensor::Data::Uint16($values) => $body,
            $crate::tensor::Data::Uint32($values) => $body,
            $crate::tensor::Data::Uint64($values) => $body,
            $crate::tensor::Data::Bool($values) => $body,
            $crate::tensor::Data::Bytes($values) => $body,
        }
    };
}
pub(crate) use with_data;

/// Like [`with_data`], and wraps the result in the same variant.
macro_rules! map_data {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            Data::Fp32($values) => Data::Fp32($body),
            Data::Fp64($values) => Data::Fp64($body),
            Data::Int8($values) => Data::Int8($body),
            Data::Int16($values) => Data::Int16($body),
            Data::Int32($values) => Data::Int32($body),
            Data::Int64($values) => Data::Int64($body),
            Data::Uint8($values) => Data::Uint8($body),
            Data::Uint16($values) => Data::Uint16($body),
            Data::Uint32($values) => Data::Uint32($body),
            Data::Uint64($values) => Data::Uint64($body),
            Data::Bool($values) => Data::Bool($body),
            Data::Bytes($values) => Data::Bytes($body),
        }
    };
}

impl Data {
    /// The type of the values.
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::Fp32(_) => Datatype::Fp32,
            Self::Fp64(_) => Datatype::Fp64,
            Self::Int8(_) => Datatype::Int8,
            Self::Int16(_) => Datatype::Int16,
            Self::Int32(_) => Datatype::Int32,
            Self::Int64(_) => Datatype::Int64,
            Self::Uint8(_) => Datatype::Uint8,
            Self::Uint16(_) => Datatype::Uint16,
            Self::Uint32(_) => Datatype::Uint32,
            Self::Uint64(_) => Datatype::Uint64,
            Self::Bool(_) => Datatype::Bool,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// `count` zeros of a type; empty texts for [`Datatype::Bytes`].
    pub fn zeros(datatype: Datatype, count: usize) -> Self {
        match datatype {
            Datatype::Fp32 => Self::Fp32(vec![0.0; count]),
            Datatype::Fp64 => Self::Fp64(vec![0.0; count]),
            Datatype::Int8 => Self::Int8(vec![0; count]),
            Datatype::Int16 => Self::Int16(vec![0; count]),
            Datatype::Int32 => Self::Int32(vec![0; count]),
            Datatype::Int64 => Self::Int64(vec![0; count]),
            Datatype::Uint8 => Self::Uint8(vec![0; count]),
            Datatype::Uint16 => Self::Uint16(vec![0; count]),
            Datatype::Uint32 => Self::Uint32(vec![0; count]),
            Datatype::Uint64 => Self::Uint64(vec![0; count]),
            Datatype::Bool => Self::Bool(vec![false; count]),
            Datatype::Bytes => Self::Bytes(vec![String::new(); count]),
        }
    }

    /// Numbers as another type: floats become integers by saturating and rounding toward zero. None for
    /// [`Datatype::Bytes`].
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturating is the documented rule"
    )]
    pub fn from_f64(datatype: Datatype, values: &[f64]) -> Option<Self> {
        let values = values.iter().copied();
        Some(match datatype {
            Datatype::Fp32 => Self::Fp32(values.map(|x| x as f32).collect()),
            Datatype::Fp64 => Self::Fp64(values.collect()),
            Datatype::Int8 => Self::Int8(values.map(|x| x as i8).collect()),
            Datatype::Int16 => Self::Int16(values.map(|x| x as i16).collect()),
            Datatype::Int32 => Self::Int32(values.map(|x| x as i32).collect()),
            Datatype::Int64 => Self::Int64(values.map(|x| x as i64).collect()),
            Datatype::Uint8 => Self::Uint8(values.map(|x| x as u8).collect()),
            Datatype::Uint16 => Self::Uint16(values.map(|x| x as u16).collect()),
            Datatype::Uint32 => Self::Uint32(values.map(|x| x as u32).collect()),
            Datatype::Uint64 => Self::Uint64(values.map(|x| x as u64).collect()),
            Datatype::Bool => Self::Bool(values.map(|x| x != 0.0).collect()),
            Datatype::Bytes => return None,
        })
    }

    /// How many values.
    pub fn len(&self) -> usize {
        with_data!(self, values => values.len())
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `count` values from `start` on, as a copy.
    pub(crate) fn slice(&self, start: usize, count: usize) -> Self {
        map_data!(self, values => values[start..start + count].to_vec())
    }

    /// Adds values of the same type at the end; values of another type are dropped.
    pub(crate) fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Fp32(all), Self::Fp32(more)) => all.extend(more),
            (Self::Fp64(all), Self::Fp64(more)) => all.extend(more),
            (Self::Int8(all), Self::Int8(more)) => all.extend(more),
            (Self::Int16(all), Self::Int16(more)) => all.extend(more),
            (Self::Int32(all), Self::Int32(more)) => all.extend(more),
            (Self::Int64(all), Self::Int64(more)) => all.extend(more),
            (Self::Uint8(all), Self::Uint8(more)) => all.extend(more),
            (Self::Uint16(all), Self::Uint16(more)) => all.extend(more),
            (Self::Uint32(all), Self::Uint32(more)) => all.extend(more),
            (Self::Uint64(all), Self::Uint64(more)) => all.extend(more),
            (Self::Bool(all), Self::Bool(more)) => all.extend(more),
            (Self::Bytes(all), Self::Bytes(more)) => all.extend(more),
            (all, more) => debug_assert_eq!(all.datatype(), more.datatype(), "one output keeps its type"),
        }
    }

    /// Place of the first number that is missing: NaN, which is null in JSON.
    pub fn first_missing(&self) -> Option<usize> {
        match self {
            Self::Fp32(values) => first(values, f32::is_nan),
            Self::Fp64(values) => first(values, f64::is_nan),
            _ => None,
        }
    }

    /// The values as 64-bit floats: what profiles and comparisons work on. Text becomes NaN; integers beyond
    /// 2^53 are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Self::Fp32(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Self::Fp64(v) => v.clone(),
            Self::Int8(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Self::Int16(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Self::Int32(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Self::Int64(v) => v.iter().map(|x| *x as f64).collect(),
            Self::Uint8(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Self::Uint16(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Self::Uint32(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Self::Uint64(v) => v.iter().map(|x| *x as f64).collect(),
            Self::Bool(v) => v.iter().map(|x| f64::from(u8::from(*x))).collect(),
            Self::Bytes(v) => vec![f64::NAN; v.len()],
        }
    }
}

/// Looks at whole blocks first: almost always there is nothing to find.
fn first<T: Copy>(values: &[T], is_it: impl Fn(T) -> bool) -> Option<usize> {
    const BLOCK: usize = 1024;
    let holds = |block: &[T]| block.iter().fold(false, |any, value| any | is_it(*value));
    let (number, block) = values.chunks(BLOCK).enumerate().find(|(_, block)| holds(block))?;
    block.iter().position(|value| is_it(*value)).map(|place| number * BLOCK + place)
}

/// A named tensor. The number of values equals the product of the shape: [`Tensor::new`] checks it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    name: String,
    shape: Vec<usize>,
    data: Data,
}

/// The values don't fill the shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tensor {name:?} of shape {shape:?} needs {expected} values, got {got}")]
pub struct ShapeError {
    name: String,
    shape: Vec<usize>,
    expected: usize,
    got: usize,
}

impl Tensor {
    /// Joins a name, a shape and values.
    ///
    /// # Errors
    /// [`ShapeError`] when the number of values is not the product of the shape.
    pub fn new(name: impl Into<String>, shape: Vec<usize>, data: Data) -> Result<Self, ShapeError> {
        let name = name.into();
        let expected = volume(&shape);
        if expected == data.len() {
            return Ok(Self { name, shape, data });
        }
        Err(ShapeError { name, shape, expected, got: data.len() })
    }

    /// The tensor's name in the signature.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sizes of its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its values, flat in row-major order.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Its element type.
    pub fn datatype(&self) -> Datatype {
        self.data.datatype()
    }

    /// Item `index` of a batch, as a batch of one; none if there is no such item.
    pub fn item(&self, index: usize) -> Option<Self> {
        let count = *self.shape.first()?;
        if index >= count {
            return None;
        }
        let width = self.data.len() / count;
        let mut shape = self.shape.clone();
        shape[0] = 1;
        Some(Self { name: self.name.clone(), shape, data: self.data.slice(index * width, width) })
    }

    /// Takes it apart: name, shape, values.
    pub fn into_parts(self) -> (String, Vec<usize>, Data) {
        (self.name, self.shape, self.data)
    }
}

/// Number of elements of a shape, saturating.
pub(crate) fn volume(shape: &[usize]) -> usize {
    shape.iter().fold(1, |all: usize, dim| all.saturating_mul(*dim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_must_fill_the_shape() {
        assert!(Tensor::new("x", vec![2, 2], Data::Fp32(vec![0.0; 4])).is_ok());
        let error = Tensor::new("x", vec![2, 2], Data::Fp32(vec![0.0; 3])).unwrap_err();
        assert_eq!(error.to_string(), r#"tensor "x" of shape [2, 2] needs 4 values, got 3"#);
        assert!(Tensor::new("x", vec![usize::MAX, usize::MAX], Data::Fp32(vec![])).is_err());
    }

    #[test]
    fn the_first_missing_number_is_found_in_any_block() {
        for place in [0, 1, 1023, 1024, 2999] {
            let mut values = vec![0.5; 3000];
            assert_eq!(Data::Fp32(values.clone()).first_missing(), None);
            values[place] = f32::NAN;
            values[2999] = f32::NAN;
            assert_eq!(Data::Fp32(values.clone()).first_missing(), Some(place));
            assert_eq!(
                Data::Fp64(values.iter().map(|x| f64::from(*x)).collect()).first_missing(),
                Some(place)
            );
        }
        assert_eq!(Data::Fp32(vec![f32::INFINITY]).first_missing(), None);
        assert_eq!(Data::Uint8(vec![0]).first_missing(), None);
    }

    #[test]
    fn an_item_of_a_batch_is_a_batch_of_one() {
        let batch = Tensor::new("x", vec![2, 2], Data::Int8(vec![1, 2, 3, 4])).unwrap();
        let item = batch.item(1).unwrap();
        assert_eq!((item.shape(), item.data()), (&[1, 2][..], &Data::Int8(vec![3, 4])));
        assert!(batch.item(2).is_none());
        assert!(Tensor::new("x", vec![], Data::Int8(vec![1])).unwrap().item(0).is_none());
        assert!(Tensor::new("x", vec![0, 2], Data::Int8(vec![])).unwrap().item(0).is_none());
    }

    #[test]
    fn every_datatype_has_a_name_that_leads_back() {
        for (datatype, name) in Datatype::NAMES {
            assert_eq!(Datatype::from_name(name), Some(datatype));
            assert_eq!(datatype.to_string(), name);
        }
        assert_eq!(Datatype::from_name("FP8"), None);
    }
}
