//! Where the tensors of an ONNX file lie, by name. Looks at the outer structure only; anything unexpected ends the
//! search, and a delta is made without it. The server's guess at what belongs together needs no trust.

use std::collections::BTreeMap;
use std::ops::Range;

/// Most tensors that are looked at.
const MAX_TENSORS: usize = 32_768;

/// Field numbers of `onnx.proto3`.
mod field {
    pub(super) const MODEL_GRAPH: u64 = 7;
    pub(super) const GRAPH_INITIALIZER: u64 = 5;
    pub(super) const TENSOR_TYPE: u64 = 2;
    pub(super) const TENSOR_FLOATS: u64 = 4;
    pub(super) const TENSOR_NAME: u64 = 8;
    pub(super) const TENSOR_RAW: u64 = 9;
}

/// A tensor's numbers within the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Where its bytes are.
    pub(super) bytes: Range<usize>,
    /// Bytes of one number.
    pub(super) width: usize,
}

/// The file's tensors by name; empty when it is no ONNX file.
pub(super) fn tensors(file: &[u8]) -> BTreeMap<&[u8], Tensor> {
    let mut found = BTreeMap::new();
    for (_, graph) in Fields::of(file, 0..file.len()).messages(field::MODEL_GRAPH) {
        for (_, tensor) in Fields::of(file, graph).messages(field::GRAPH_INITIALIZER).take(MAX_TENSORS) {
            if let Some((name, tensor)) = read(file, tensor) {
                found.insert(name, tensor);
            }
        }
    }
    found
}

fn read(file: &[u8], at: Range<usize>) -> Option<(&[u8], Tensor)> {
    let (mut name, mut kind, mut bytes) = (None, 0, None);
    for (number, value) in Fields::of(file, at) {
        match (number, value) {
            (field::TENSOR_TYPE, Value::Number(got)) => kind = got,
            (field::TENSOR_NAME, Value::Bytes(at)) => name = file.get(at),
            (field::TENSOR_RAW | field::TENSOR_FLOATS, Value::Bytes(at)) => bytes = Some(at),
            _ => {}
        }
    }
    // TensorProto.DataType: 1 float, 6 int32, 7 int64, 10 float16, 11 double, 12 uint32, 13 uint64, 16 bfloat16.
    let width = match kind {
        1 | 6 | 12 => 4,
        7 | 11 | 13 => 8,
        4 | 5 | 10 | 16 => 2,
        _ => 1,
    };
    let bytes = bytes.filter(|bytes| !bytes.is_empty() && bytes.len().is_multiple_of(width))?;
    Some((name?, Tensor { bytes, width }))
}

enum Value {
    Number(u64),
    Bytes(Range<usize>),
}

/// Fields of one message, as (number, value).
struct Fields<'a> {
    file: &'a [u8],
    rest: Range<usize>,
}

impl<'a> Fields<'a> {
    fn of(file: &'a [u8], rest: Range<usize>) -> Self {
        Self { file, rest }
    }

    fn messages(self, wanted: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
        self.filter_map(move |(number, value)| match value {
            Value::Bytes(at) if number == wanted => Some((number, at)),
            Value::Bytes(_) | Value::Number(_) => None,
        })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.file.get(self.rest.clone())?.first()?;
            self.rest.start += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<Range<usize>> {
        let start = self.rest.start;
        let end = start.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= self.rest.end)?;
        self.rest.start = end;
        Some(start..end)
    }
}

impl Iterator for Fields<'_> {
    type Item = (u64, Value);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}
