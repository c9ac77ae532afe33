//! Tensors of the Open Inference Protocol v2 in its binary form: values one after the other in little-endian
//! order, texts each with its length before it. A request's bytes come in pieces, as the socket gave them; values
//! go from the pieces straight into the typed vector, so a tensor is copied once.

use crate::tensor::{Data, Datatype, Tensor, volume};

/// Bytes of the length before each text.
const LENGTH_BYTES: usize = 4;

/// Why bytes are not the values of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// Fewer bytes follow than were promised.
    #[error("{promised} bytes were promised, {left} are left")]
    Short {
        /// What the tensor's `binary_data_size` says.
        promised: usize,
        /// What is left of the body.
        left: usize,
    },
    /// Not as many bytes as the values take.
    #[error("{datatype} of shape {shape:?} takes {expected} bytes, got {got}")]
    Size {
        /// The element type.
        datatype: Datatype,
        /// The shape.
        shape: Vec<usize>,
        /// Bytes that the values take.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// Texts whose lengths don't fit the bytes or the shape.
    #[error("text {place} of {count} doesn't fit its bytes")]
    Text {
        /// Which text, from 0.
        place: usize,
        /// Texts that the shape asks for.
        count: usize,
    },
    /// A text that is not UTF-8.
    #[error("text {place} is not UTF-8")]
    Encoding {
        /// Which text, from 0.
        place: usize,
    },
}

/// The bytes behind a request's JSON, in pieces; each tensor takes its part.
#[derive(Debug, Default)]
pub struct Pieces<'a> {
    /// The next piece stands last.
    rest: Vec<&'a [u8]>,
    left: usize,
}

impl<'a> Pieces<'a> {
    /// Pieces in their order.
    pub fn new(pieces: impl DoubleEndedIterator<Item = &'a [u8]>) -> Self {
        let rest: Vec<&[u8]> = pieces.rev().filter(|piece| !piece.is_empty()).collect();
        let left = rest.iter().map(|piece| piece.len()).sum();
        Self { rest, left }
    }

    /// Bytes that nobody took yet.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`BinaryError::Short`]; nothing is taken then.
    pub fn take(&mut self, count: usize) -> Result<Vec<&'a [u8]>, BinaryError> {
        if count > self.left {
            return Err(BinaryError::Short { promised: count, left: self.left });
        }
        self.left -= count;
        let (mut taken, mut missing) = (Vec::new(), count);
        while missing > 0 {
            let Some(piece) = self.rest.pop() else { break };
            let (now, later) = piece.split_at(missing.min(piece.len()));
            missing -= now.len();
            taken.push(now);
            if !later.is_empty() {
                self.rest.push(later);
            }
        }
        Ok(taken)
    }
}

/// Reads the values of a tensor.
pub(crate) fn read(datatype: Datatype, shape: &[usize], parts: &[&[u8]]) -> Result<Data, BinaryError> {
    let count = volume(shape);
    let got = parts.iter().map(|part| part.len()).sum();
    let Some(width) = width(datatype) else { return texts(count, &parts.concat()).map(Data::Bytes) };
    let expected = count.saturating_mul(width);
    if got != expected {
        return Err(BinaryError::Size { datatype, shape: shape.to_vec(), expected, got });
    }
    Ok(match datatype {
        Datatype::Fp32 => Data::Fp32(numbers(count, parts, f32::from_le_bytes)),
        Datatype::Fp64 => Data::Fp64(numbers(count, parts, f64::from_le_bytes)),
        Datatype::Int8 => Data::Int8(numbers(count, parts, i8::from_le_bytes)),
        Datatype::Int16 => Data::Int16(numbers(count, parts, i16::from_le_bytes)),
        Datatype::Int32 => Data::Int32(numbers(count, parts, i32::from_le_bytes)),
        Datatype::Int64 => Data::Int64(numbers(count, parts, i64::from_le_bytes)),
        Datatype::Uint8 => Data::Uint8(parts.concat()),
        Datatype::Uint16 => Data::Uint16(numbers(count, parts, u16::from_le_bytes)),
        Datatype::Uint32 => Data::Uint32(numbers(count, parts, u32::from_le_bytes)),
        Datatype::Uint64 => Data::Uint64(numbers(count, parts, u64::from_le_bytes)),
        Datatype::Bool | Datatype::Bytes => Data::Bool(numbers(count, parts, |[byte]| byte != 0)),
    })
}

/// Bytes of one value; none for texts, which differ.
fn width(datatype: Datatype) -> Option<usize> {
    Some(match datatype {
        Datatype::Int8 | Datatype::Uint8 | Datatype::Bool => 1,
        Datatype::Int16 | Datatype::Uint16 => 2,
        Datatype::Fp32 | Datatype::Int32 | Datatype::Uint32 => 4,
        Datatype::Fp64 | Datatype::Int64 | Datatype::Uint64 => 8,
        Datatype::Bytes => return None,
    })
}

/// Values of `N` bytes each; one may stand across the end of a part.
fn numbers<const N: usize, T>(count: usize, parts: &[&[u8]], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    let mut values = Vec::with_capacity(count);
    let (mut split, mut held) = ([0; N], 0);
    for part in parts {
        let mut part = *part;
        if held > 0 {
            let (head, rest) = part.split_at((N - held).min(part.len()));
            split[held..held + head.len()].copy_from_slice(head);
            (held, part) = (held + head.len(), rest);
            if held < N {
                continue;
            }
            values.push(value(split));
        }
        let (whole, rest) = part.as_chunks();
        values.extend(whole.iter().map(|bytes| value(*bytes)));
        split[..rest.len()].copy_from_slice(rest);
        held = rest.len();
    }
    values
}

fn texts(count: usize, mut bytes: &[u8]) -> Result<Vec<String>, BinaryError> {
    // A text takes at least its length's bytes: that bounds what a wrong shape can ask for.
    let mut all = Vec::with_capacity(count.min(bytes.len() / LENGTH_BYTES));
    for place in 0..count {
        let misfit = BinaryError::Text { place, count };
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Err(misfit) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((text, rest)) = rest.split_at_checked(length) else { return Err(misfit) };
        let text = std::str::from_utf8(text).map_err(|_| BinaryError::Encoding { place })?;
        all.push(text.to_owned());
        bytes = rest;
    }
    if bytes.is_empty() { Ok(all) } else { Err(BinaryError::Text { place: count, count }) }
}

impl Tensor {
    /// Bytes that the values take in the protocol's binary form.
    pub fn binary_len(&self) -> usize {
        match (self.data(), width(self.datatype())) {
            (Data::Bytes(texts), _) => texts.iter().map(|text| LENGTH_BYTES + text.len()).sum(),
            (values, width) => values.len().saturating_mul(width.unwrap_or(1)),
        }
    }

    /// Appends the values in the protocol's binary form.
    pub fn write_binary(&self, out: &mut Vec<u8>) {
        match self.data() {
            Data::Fp32(v) => write(out, v, f32::to_le_bytes),
            Data::Fp64(v) => write(out, v, f64::to_le_bytes),
            Data::Int8(v) => write(out, v, i8::to_le_bytes),
            Data::Int16(v) => write(out, v, i16::to_le_bytes),
            Data::Int32(v) => write(out, v, i32::to_le_bytes),
            Data::Int64(v) => write(out, v, i64::to_le_bytes),
            Data::Uint8(v) => out.extend_from_slice(v),
            Data::Uint16(v) => write(out, v, u16::to_le_bytes),
            Data::Uint32(v) => write(out, v, u32::to_le_bytes),
            Data::Uint64(v) => write(out, v, u64::to_le_bytes),
            Data::Bool(v) => out.extend(v.iter().map(|x| u8::from(*x))),
            Data::Bytes(texts) => {
                for text in texts {
                    // No text reaches 4 GiB: a request's body is bounded far below.
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    out.extend_from_slice(&length.to_le_bytes());
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
    }
}

fn write<const N: usize, T: Copy>(out: &mut Vec<u8>, values: &[T], bytes: impl Fn(T) -> [u8; N]) {
    let start = out.len();
    out.resize(start + values.len() * N, 0);
    for (place, value) in out[start..].as_chunks_mut().0.iter_mut().zip(values) {
        *place = bytes(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_types() -> Vec<Data> {
        vec![
            Data::Fp32(vec![0.1, f32::MAX, f32::NEG_INFINITY]),
            Data::Fp64(vec![0.1, -1e300, 0.0]),
            Data::Int8(vec![-128, 0, 127]),
            Data::Int16(vec![i16::MIN, 1, i16::MAX]),
            Data::Int32(vec![i32::MIN, 1, i32::MAX]),
            Data::Int64(vec![i64::MIN, 1, i64::MAX]),
            Data::Uint8(vec![0, 1, 255]),
            Data::Uint16(vec![0, 1, u16::MAX]),
            Data::Uint32(vec![0, 1, u32::MAX]),
            Data::Uint64(vec![0, 1, u64::MAX]),
            Data::Bool(vec![true, false, true]),
            Data::Bytes(vec![String::new(), "a".into(), "é\n".into()]),
        ]
    }

    #[test]
    fn every_type_survives_every_way_to_cut_the_bytes() {
        for data in all_types() {
            let tensor = Tensor::new("t", vec![3], data).unwrap();
            let mut bytes = Vec::new();
            tensor.write_binary(&mut bytes);
            assert_eq!(bytes.len(), tensor.binary_len());
            for size in 1..=bytes.len() {
                let mut pieces = Pieces::new(bytes.chunks(size));
                let parts = pieces.take(bytes.len()).unwrap();
                assert_eq!(
                    &read(tensor.datatype(), &[3], &parts).unwrap(),
                    tensor.data(),
                    "pieces of {size}"
                );
                assert_eq!(pieces.left(), 0);
            }
        }
    }

    #[test]
    fn tensors_take_their_parts_in_turn() {
        let bytes: Vec<u8> = (0..10).collect();
        let mut pieces = Pieces::new([&bytes[..3], &bytes[3..3], &bytes[3..]].into_iter());
        assert_eq!(pieces.take(5).unwrap().concat(), [0, 1, 2, 3, 4]);
        assert_eq!(pieces.take(6), Err(BinaryError::Short { promised: 6, left: 5 }));
        assert_eq!(pieces.take(5).unwrap().concat(), [5, 6, 7, 8, 9]);
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let size = read(Datatype::Fp32, &[2], &[&[0; 7]]).unwrap_err();
        assert_eq!(size.to_string(), "FP32 of shape [2] takes 8 bytes, got 7");
        let text = |bytes: &[u8], count: usize| read(Datatype::Bytes, &[count], &[bytes]).unwrap_err();
        assert_eq!(text(&[9, 0, 0, 0, b'a'], 1), BinaryError::Text { place: 0, count: 1 });
        assert_eq!(text(&[1, 0, 0, 0, b'a', 0], 1), BinaryError::Text { place: 1, count: 1 });
        assert_eq!(text(&[255, 255, 255, 255], 1), BinaryError::Text { place: 0, count: 1 });
        let many = usize::MAX >> 4;
        assert_eq!(text(&[], many), BinaryError::Text { place: 0, count: many });
        assert_eq!(text(&[1, 0, 0, 0, 0xff], 1), BinaryError::Encoding { place: 0 });
    }
}
