//! Tensors of the Open Inference Protocol v2 as JSON: `{"name", "datatype", "shape", "data"}`, with `data`
//! flat or nested as deep as the shape. Reading is bounded and streams straight into the typed vector: no tree
//! of JSON values is built.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::binary::{self, BinaryError, Pieces};
use crate::tensor::{Data, Datatype, ShapeError, Tensor, volume, with_data};

/// Most elements in one tensor: 64 MB of f32, over any camera's frame. Stops a shape that promises more
/// memory than the device has.
pub const MAX_ELEMENTS: usize = 16 * 1024 * 1024;
/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// Why JSON is not a tensor.
#[derive(Debug, thiserror::Error)]
pub enum TensorJsonError {
    /// A datatype that this build doesn't know.
    #[error(
        "tensor {tensor:?}: datatype {got:?} is not one of FP32, FP64, INT8 to INT64, UINT8 to UINT64, BOOL, BYTES"
    )]
    Datatype {
        /// Which tensor.
        tensor: String,
        /// The name that was given.
        got: String,
    },
    /// Too many dimensions or elements.
    #[error(
        "tensor {tensor:?}: shape {shape:?} is over the bound of {MAX_RANK} dimensions or {MAX_ELEMENTS} elements"
    )]
    TooLarge {
        /// Which tensor.
        tensor: String,
        /// The shape that was given.
        shape: Vec<usize>,
    },
    /// The data doesn't fit the datatype or the shape.
    #[error("tensor {tensor:?}: data doesn't fit {datatype} of shape {shape:?}")]
    Data {
        /// Which tensor.
        tensor: String,
        /// The datatype that was given.
        datatype: Datatype,
        /// The shape that was given.
        shape: Vec<usize>,
        /// What was met instead.
        #[source]
        source: serde_json::Error,
    },
    /// The binary data doesn't fit.
    #[error("tensor {tensor:?}: its binary data doesn't fit")]
    Binary {
        /// Which tensor.
        tensor: String,
        /// What was met instead.
        #[source]
        source: BinaryError,
    },
    /// The values don't fill the shape.
    #[error(transparent)]
    Shape(ShapeError),
    /// There is no data, or both forms of it.
    #[error(
        "tensor {tensor:?} needs either data or the parameter binary_data_size with bytes behind the JSON"
    )]
    NoData {
        /// Which tensor.
        tensor: String,
    },
}

/// A tensor as it stands in a request: its data is not yet parsed. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub struct TensorJson<'a> {
    name: String,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Shape,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// At most one dimension more than a tensor may have, so that a longer one is refused by its name.
#[derive(Debug)]
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dimensions;

        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut dimensions = Vec::new();
                while dimensions.len() <= MAX_RANK {
                    let Some(dimension) = seq.next_element()? else { return Ok(Shape(dimensions)) };
                    dimensions.push(dimension);
                }
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Shape(dimensions))
            }
        }

        deserializer.deserialize_seq(Dimensions)
    }
}

/// What is said about a tensor beside its data; unknown parameters are ignored.
#[derive(Debug, Default, Deserialize)]
struct Parameters {
    /// Its values stand behind the JSON and take so many bytes.
    binary_data_size: Option<usize>,
}

impl TensorJson<'_> {
    /// The name that it claims.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says of its data: the type, none if this build doesn't know it, and the shape.
    pub(crate) fn head(&self) -> (Option<Datatype>, &[usize]) {
        (Datatype::from_name(&self.datatype), &self.shape.0)
    }

    /// Parses the data by the datatype and the shape. Binary data is taken from `behind`, which holds the bytes
    /// behind the JSON: call this for every tensor in the order of the request.
    ///
    /// # Errors
    /// [`TensorJsonError`] names the tensor and what is wrong with it.
    pub fn parse(self, behind: &mut Pieces<'_>) -> Result<Tensor, TensorJsonError> {
        let Self { name: tensor, datatype, shape: Shape(shape), parameters, data } = self;
        let Some(known) = Datatype::from_name(&datatype) else {
            let got = datatype.chars().take(40).collect();
            return Err(TensorJsonError::Datatype { tensor, got });
        };
        if shape.len() > MAX_RANK || volume(&shape) > MAX_ELEMENTS {
            return Err(TensorJsonError::TooLarge { tensor, shape });
        }
        let read = match (data, parameters.binary_data_size) {
            (Some(json), None) => parse_data(known, &shape, json.get()).map_err(Misfit::Json),
            (None, Some(size)) => {
                let parts = behind.take(size);
                parts.and_then(|parts| binary::read(known, &shape, &parts)).map_err(Misfit::Binary)
            }
            (Some(_), Some(_)) | (None, None) => return Err(TensorJsonError::NoData { tensor }),
        };
        match read {
            Ok(data) => Tensor::new(tensor, shape, data).map_err(TensorJsonError::Shape),
            Err(Misfit::Json(source)) => {
                Err(TensorJsonError::Data { tensor, datatype: known, shape, source })
            }
            Err(Misfit::Binary(source)) => Err(TensorJsonError::Binary { tensor, source }),
        }
    }
}

/// What doesn't fit, before the tensor's name is put to it.
enum Misfit {
    Json(serde_json::Error),
    Binary(BinaryError),
}

fn parse_data(datatype: Datatype, shape: &[usize], text: &str) -> Result<Data, serde_json::Error> {
    Ok(match datatype {
        Datatype::Fp32 => Data::Fp32(flatten(shape, text)?),
        Datatype::Fp64 => Data::Fp64(flatten(shape, text)?),
        Datatype::Int8 => Data::Int8(flatten(shape, text)?),
        Datatype::Int16 => Data::Int16(flatten(shape, text)?),
        Datatype::Int32 => Data::Int32(flatten(shape, text)?),
        Datatype::Int64 => Data::Int64(flatten(shape, text)?),
        Datatype::Uint8 => Data::Uint8(flatten(shape, text)?),
        Datatype::Uint16 => Data::Uint16(flatten(shape, text)?),
        Datatype::Uint32 => Data::Uint32(flatten(shape, text)?),
        Datatype::Uint64 => Data::Uint64(flatten(shape, text)?),
        Datatype::Bool => Data::Bool(flatten(shape, text)?),
        Datatype::Bytes => Data::Bytes(flatten(shape, text)?),
    })
}

fn flatten<T: Element>(shape: &[usize], text: &str) -> Result<Vec<T>, serde_json::Error> {
    let mut flat =
        Flat { shape, values: Vec::with_capacity(volume(shape).min(text.len() / 2 + 1)), scalar_level: None };
    let mut json = serde_json::Deserializer::from_str(text);
    Level { flat: &mut flat, level: 0 }.deserialize(&mut json)?;
    json.end()?;
    Ok(flat.values)
}

/// What has been read so far, and at which depth the values stand.
struct Flat<'s, T> {
    shape: &'s [usize],
    values: Vec<T>,
    scalar_level: Option<usize>,
}

impl<T> Flat<'_, T> {
    fn push<E: serde::de::Error>(&mut self, level: usize, value: T) -> Result<(), E> {
        if level == 0 || *self.scalar_level.get_or_insert(level) != level {
            return Err(E::custom("values stand at different depths, or outside an array"));
        }
        if self.values.len() == volume(self.shape) {
            return Err(E::custom(format!("more than {} values", self.values.len())));
        }
        self.values.push(value);
        Ok(())
    }

    /// Data is one flat array, or nested exactly as the shape says.
    fn close<E: serde::de::Error>(&self, level: usize, count: usize) -> Result<(), E> {
        let is_flat = level == 0 && self.scalar_level == Some(1);
        let expected = if is_flat { volume(self.shape) } else { self.shape.get(level).copied().unwrap_or(0) };
        if count == expected {
            return Ok(());
        }
        Err(E::custom(format!("expected {expected} entries at depth {}, got {count}", level + 1)))
    }
}

/// One level of nesting.
struct Level<'f, 's, T> {
    flat: &'f mut Flat<'s, T>,
    level: usize,
}

impl<'de, T: Element> DeserializeSeed<'de> for Level<'_, '_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for Level<'_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or an array of it", T::EXPECTED)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { flat, level } = self;
        if level >= flat.shape.len().max(1) {
            return Err(A::Error::custom(format!("nested deeper than the {} dimensions", flat.shape.len())));
        }
        let mut count = 0;
        while seq.next_element_seed(Level { flat: &mut *flat, level: level + 1 })?.is_some() {
            count += 1;
        }
        flat.close(level, count)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        let value = T::from_bool(value).ok_or_else(|| wrong::<T, E>(&value))?;
        self.flat.push(self.level, value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let parsed = T::from_integer(i128::from(value)).ok_or_else(|| wrong::<T, E>(&value))?;
        self.flat.push(self.level, parsed)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let parsed = T::from_integer(i128::from(value)).ok_or_else(|| wrong::<T, E>(&value))?;
        self.flat.push(self.level, parsed)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let parsed = T::from_float(value).ok_or_else(|| wrong::<T, E>(&value))?;
        self.flat.push(self.level, parsed)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        let parsed = T::from_text(value).ok_or_else(|| wrong::<T, E>(&"a string"))?;
        self.flat.push(self.level, parsed)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        let parsed = T::missing().ok_or_else(|| wrong::<T, E>(&"null"))?;
        self.flat.push(self.level, parsed)
    }
}

fn wrong<T: Element, E: serde::de::Error>(got: &dyn fmt::Display) -> E {
    E::custom(format!("expected {}, got {got}", T::EXPECTED))
}

/// What a JSON value may become. A value that doesn't fit exactly is refused, never bent.
pub(crate) trait Element: Sized {
    const EXPECTED: &'static str;

    fn from_integer(_: i128) -> Option<Self> {
        None
    }
    fn from_float(_: f64) -> Option<Self> {
        None
    }
    fn from_bool(_: bool) -> Option<Self> {
        None
    }
    fn from_text(_: &str) -> Option<Self> {
        None
    }
    /// What null stands for: a missing value, where the type has one.
    fn missing() -> Option<Self> {
        None
    }
}

macro_rules! integer_elements {
    ($($t:ty => $expected:literal),+) => {
        $(impl Element for $t {
            const EXPECTED: &'static str = $expected;
            fn from_integer(value: i128) -> Option<Self> {
                Self::try_from(value).ok()
            }
        })+
    };
}
integer_elements!(
    i8 => "an integer of -128 to 127", i16 => "an integer of 16 bits", i32 => "an integer of 32 bits",
    i64 => "an integer of 64 bits", u8 => "an integer of 0 to 255", u16 => "an unsigned integer of 16 bits",
    u32 => "an unsigned integer of 32 bits", u64 => "an unsigned integer of 64 bits"
);

impl Element for f64 {
    const EXPECTED: &'static str = "a number, or null for a missing one";

    #[expect(clippy::cast_precision_loss, reason = "a float takes the nearest value of an integer literal")]
    fn from_integer(value: i128) -> Option<Self> {
        Some(value as Self)
    }
    fn from_float(value: f64) -> Option<Self> {
        Some(value)
    }
    fn missing() -> Option<Self> {
        Some(Self::NAN)
    }
}

impl Element for f32 {
    const EXPECTED: &'static str = "a number of 32 bits, or null for a missing one";

    fn from_integer(value: i128) -> Option<Self> {
        f64::from_integer(value).and_then(Self::from_float)
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what FP32 asks for")]
    fn from_float(value: f64) -> Option<Self> {
        // JSON has no infinity: what becomes one was a number that f32 doesn't have.
        Some(value as Self).filter(|value| value.is_finite())
    }
    fn missing() -> Option<Self> {
        Some(Self::NAN)
    }
}

impl Element for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Element for String {
    const EXPECTED: &'static str = "a string";

    fn from_text(value: &str) -> Option<Self> {
        Some(value.into())
    }
}

impl Serialize for Tensor {
    /// As the protocol writes it, with flat data. NaN and infinities become null: JSON has no name for them.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Tensor", 4)?;
        out.serialize_field("name", self.name())?;
        out.serialize_field("datatype", self.datatype().name())?;
        out.serialize_field("shape", self.shape())?;
        with_data!(self.data(), values => out.serialize_field("data", values)?);
        out.end()
    }
}

impl<'de> Deserialize<'de> for Tensor {
    /// For files such as golden samples. Requests go through [`TensorJson`], whose errors are typed.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let owned = OwnedJson::deserialize(deserializer)?;
        let borrowed = TensorJson {
            name: owned.name,
            datatype: owned.datatype.into(),
            shape: Shape(owned.shape),
            parameters: Parameters::default(),
            data: Some(&owned.data),
        };
        borrowed.parse(&mut Pieces::default()).map_err(|e| {
            let source = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
            D::Error::custom(format!("{e}{source}"))
        })
    }
}

#[derive(Deserialize)]
struct OwnedJson {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    data: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Tensor, TensorJsonError> {
        serde_json::from_str::<TensorJson<'_>>(json).unwrap().parse(&mut Pieces::default())
    }

    #[test]
    fn flat_and_nested_data_are_the_same_tensor() {
        let flat = parse(r#"{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2.5,null,-4e0]}"#).unwrap();
        let nested =
            parse(r#"{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2.5],[3,-4]]}"#).unwrap();
        assert_eq!(nested.data(), &Data::Fp32(vec![1.0, 2.5, 3.0, -4.0]));
        let Data::Fp32(values) = flat.data() else { panic!("wrong type") };
        assert!(values[2].is_nan());
        assert_eq!(values[3].to_string(), "-4");
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        for (datatype, shape, data) in [
            ("UINT8", "[1]", "[256]"),
            ("UINT8", "[1]", "[-1]"),
            ("UINT8", "[1]", "[1.5]"),
            ("INT32", "[1]", "[true]"),
            ("BOOL", "[1]", "[1]"),
            ("FP32", "[1]", "[\"1\"]"),
            ("UINT8", "[1]", "[null]"),
            ("FP32", "[2,2]", "[[1,2],[3]]"),
            ("FP32", "[2,2]", "[[1,2],3]"),
            ("FP32", "[2,2]", "[1,2,3]"),
            ("FP32", "[2,2]", "[1,2,3,4,5]"),
            ("FP32", "[2,2]", "[[[1],[2]],[[3],[4]]]"),
            ("FP32", "[4]", "[[1,2],[3,4]]"),
            ("FP32", "[]", "1"),
            ("FP32", "[2]", "{}"),
        ] {
            let json = format!(r#"{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}"#);
            assert!(matches!(parse(&json), Err(TensorJsonError::Data { .. })), "{json} was accepted");
        }
    }

    #[test]
    fn a_shape_that_promises_gigabytes_is_refused_before_memory_is_taken() {
        for shape in ["[4294967295,4294967295,4294967295]", "[1,1,1,1,1,1,1,1,1]", "[16777217]"] {
            let json = format!(r#"{{"name":"x","datatype":"FP32","shape":{shape},"data":[]}}"#);
            assert!(matches!(parse(&json), Err(TensorJsonError::TooLarge { .. })), "{shape} was accepted");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let json = format!(r#"{{"name":"x","datatype":"FP32","shape":[1],"data":{deep}}}"#);
        assert!(parse(&json).is_err());
    }

    #[test]
    fn unknown_datatype_and_missing_data_are_named() {
        let unknown = parse(r#"{"name":"x","datatype":"FP8","shape":[1],"data":[1]}"#).unwrap_err();
        assert!(unknown.to_string().contains("FP8"));
        assert!(matches!(
            parse(r#"{"name":"x","datatype":"FP32","shape":[1]}"#),
            Err(TensorJsonError::NoData { .. })
        ));
    }

    #[test]
    fn values_behind_the_json_are_taken_by_their_size() {
        let json = r#"{"name":"x","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}}"#;
        let parse = |bytes: &[u8]| {
            let mut pieces = Pieces::new(std::iter::once(bytes));
            serde_json::from_str::<TensorJson<'_>>(json).unwrap().parse(&mut pieces)
        };
        assert_eq!(parse(&[1, 0, 2, 0]).unwrap().data(), &Data::Int16(vec![1, 2]));
        assert!(matches!(parse(&[1, 0]), Err(TensorJsonError::Binary { .. })));
        let both = json.replace("\"shape\"", "\"data\":[1,2],\"shape\"");
        let both = serde_json::from_str::<TensorJson<'_>>(&both).unwrap();
        assert!(matches!(both.parse(&mut Pieces::default()), Err(TensorJsonError::NoData { .. })));
    }

    #[test]
    fn every_type_survives_writing_and_reading() {
        for data in [
            Data::Fp32(vec![0.1, f32::MAX]),
            Data::Fp64(vec![0.1, -1e300]),
            Data::Int64(vec![i64::MIN, i64::MAX]),
            Data::Uint64(vec![0, u64::MAX]),
            Data::Int8(vec![-128, 127]),
            Data::Bool(vec![true, false]),
            Data::Bytes(vec!["a".into(), "é\n".into()]),
        ] {
            let tensor = Tensor::new("t", vec![2, 1], data).unwrap();
            let json = serde_json::to_string(&tensor).unwrap();
            assert_eq!(serde_json::from_str::<Tensor>(&json).unwrap(), tensor);
        }
    }
}
