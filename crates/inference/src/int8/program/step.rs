//! The steps of a program: what each reads and writes.

use super::floats::FloatOp;
use super::values::{ActId, FloatId};
use crate::engine::Plan;
use crate::int8::kernel::{AddSpec, AvgPool, Bilinear, Chain, Conv, Curve, MaxPool, MulSpec, Product, Table};

/// Lowest and highest f32 of a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    /// Lowest.
    pub(crate) lo: f32,
    /// Highest.
    pub(crate) hi: f32,
}

impl Bounds {
    /// No bounds.
    pub(crate) const NONE: Self = Self { lo: f32::NEG_INFINITY, hi: f32::INFINITY };

    /// A value within them.
    pub(crate) fn apply(self, value: f32) -> f32 {
        value.max(self.lo).min(self.hi)
    }
}

/// Another order of a row's bytes, in ONNX's own order of the elements.
#[derive(Debug)]
pub(crate) enum Shuffle {
    /// The same order, another shape.
    Same,
    /// Pixel after pixel: an image becomes the rows of a matrix, or the other way round.
    Pixels,
    /// For each row of the result the one that it is, in matrices of rows as long.
    Rows(Vec<u32>),
    /// For each byte of the result the one that it is; `u32::MAX` stands for zero.
    Map(Vec<u32>),
}

/// One step.
pub(crate) enum Step {
    /// Writes a constant, given in ONNX's order for one row.
    Constant { values: Vec<u8>, to: ActId },
    /// QuantizeLinear.
    Quantize { from: FloatId, to: ActId },
    /// A function of each value, and QuantizeLinear of it by one scale or one for each channel.
    QuantizeCurve { curve: Option<Curve>, scales: Vec<f32>, from: FloatId, to: ActId },
    /// DynamicQuantizeLinear: scale and zero point are found now.
    DynamicQuantize { from: FloatId, to: ActId },
    /// DequantizeLinear.
    Dequantize { from: ActId, to: FloatId },
    /// Convolution or matrix product, u8 to u8.
    Linear { conv: Box<Conv>, from: ActId, to: ActId },
    /// The same and the addition that follows.
    LinearAdd { conv: Box<Conv>, from: ActId, other: ActId, add: AddSpec, to: ActId },
    /// Convolution or matrix product, u8 to f32: sum * (scale of the input * scales) + bias, within bounds.
    LinearFloat {
        conv: Box<Conv>,
        from: ActId,
        scales: Vec<f32>,
        bias: Vec<f32>,
        bounds: Bounds,
        to: FloatId,
    },
    /// The same, a function of each value, and QuantizeLinear of it by one scale or one for each channel.
    LinearCurve {
        conv: Box<Conv>,
        from: ActId,
        scales: Vec<f32>,
        bias: Vec<f32>,
        bounds: Bounds,
        curve: Option<Curve>,
        divisors: Vec<f32>,
        to: ActId,
    },
    /// Two convolutions, some rows at a time.
    Chain { chain: Box<Chain>, from: ActId, to: ActId },
    /// Addition.
    Add { a: ActId, b: ActId, spec: AddSpec, to: ActId },
    /// Multiplication.
    Mul { a: ActId, b: ActId, spec: MulSpec, to: ActId },
    /// Matrix products of two activations.
    Product { product: Box<Product>, a: ActId, b: ActId, to: ActId },
    /// Concatenation along the channels.
    Concat { parts: Vec<(ActId, Option<Box<Table>>)>, to: ActId },
    /// Any function of one value.
    Lookup { from: ActId, table: Box<Table>, to: ActId },
    /// Average pooling.
    AveragePool { pool: AvgPool, from: ActId, to: ActId },
    /// The mean of each channel, in f32.
    Mean { from: ActId, to: FloatId },
    /// Maximum pooling.
    MaxPool { pool: MaxPool, from: ActId, to: ActId },
    /// Each output pixel is an input pixel: for each axis, which.
    Resize { rows: Vec<usize>, columns: Vec<usize>, from: ActId, to: ActId },
    /// Values in between pixels, of bytes that stand for themselves less `offset`.
    Interpolate { bilinear: Box<Bilinear>, offset: f32, from: ActId, to: ActId },
    /// What lies at channel, row and column `first` and behind, put at row and column `at`, and zeros around it.
    Region { from: ActId, first: [usize; 3], at: [usize; 2], to: ActId },
    /// Another shape or order.
    Shuffle { from: ActId, shuffle: Shuffle, to: ActId },
    /// Something in f32.
    Float { op: FloatOp, from: Vec<FloatId>, to: FloatId },
    /// Nodes that tract runs, and what reports call them.
    Island { plan: Box<Plan>, nodes: Vec<String>, from: Vec<(FloatId, Vec<usize>)>, to: Vec<FloatId> },
}

impl Step {
    /// Activations that are read.
    pub(crate) fn reads(&self) -> Vec<ActId> {
        match self {
            Self::Dequantize { from, .. }
            | Self::Mean { from, .. }
            | Self::Linear { from, .. }
            | Self::Chain { from, .. }
            | Self::LinearFloat { from, .. }
            | Self::LinearCurve { from, .. }
            | Self::Lookup { from, .. }
            | Self::AveragePool { from, .. }
            | Self::MaxPool { from, .. }
            | Self::Resize { from, .. }
            | Self::Interpolate { from, .. }
            | Self::Region { from, .. }
            | Self::Shuffle { from, .. } => vec![*from],
            Self::LinearAdd { from, other, .. } => vec![*from, *other],
            Self::Add { a, b, .. } | Self::Mul { a, b, .. } | Self::Product { a, b, .. } => vec![*a, *b],
            Self::Concat { parts, .. } => parts.iter().map(|(part, _)| *part).collect(),
            Self::Constant { .. }
            | Self::Quantize { .. }
            | Self::QuantizeCurve { .. }
            | Self::DynamicQuantize { .. }
            | Self::Float { .. }
            | Self::Island { .. } => Vec::new(),
        }
    }

    /// The activation that is written.
    pub(crate) fn writes(&self) -> Option<ActId> {
        match self {
            Self::Constant { to, .. }
            | Self::Quantize { to, .. }
            | Self::QuantizeCurve { to, .. }
            | Self::DynamicQuantize { to, .. }
            | Self::Linear { to, .. }
            | Self::LinearAdd { to, .. }
            | Self::LinearCurve { to, .. }
            | Self::Chain { to, .. }
            | Self::Add { to, .. }
            | Self::Mul { to, .. }
            | Self::Product { to, .. }
            | Self::Concat { to, .. }
            | Self::Lookup { to, .. }
            | Self::AveragePool { to, .. }
            | Self::MaxPool { to, .. }
            | Self::Resize { to, .. }
            | Self::Interpolate { to, .. }
            | Self::Region { to, .. }
            | Self::Shuffle { to, .. } => Some(*to),
            Self::Dequantize { .. }
            | Self::Mean { .. }
            | Self::LinearFloat { .. }
            | Self::Float { .. }
            | Self::Island { .. } => None,
        }
    }

    /// Plain tensors that are read or written.
    pub(crate) fn floats(&self) -> Vec<FloatId> {
        match self {
            Self::Quantize { from, .. }
            | Self::QuantizeCurve { from, .. }
            | Self::DynamicQuantize { from, .. } => vec![*from],
            Self::Dequantize { to, .. } | Self::Mean { to, .. } | Self::LinearFloat { to, .. } => vec![*to],
            Self::Float { from, to, .. } => from.iter().chain([to]).copied().collect(),
            Self::Island { from, to, .. } => from.iter().map(|(id, _)| id).chain(to).copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it has to do with 8-bit values. Rounding alone counts, too: tract's own optimiser has answered
    /// wrongly where nothing but a softmax stands between two quantizations.
    pub(crate) fn has_bytes(&self) -> bool {
        self.writes().is_some() || !self.reads().is_empty()
    }

    /// Bytes of the table of an order.
    pub(crate) fn table_bytes(&self) -> usize {
        match self {
            Self::Shuffle { shuffle: Shuffle::Map(map) | Shuffle::Rows(map), .. } => {
                size_of_val(map.as_slice())
            }
            _ => 0,
        }
    }

    /// The convolutions or the matrix product in it, in order.
    pub(crate) fn convs(&self) -> Vec<&Conv> {
        match self {
            Self::Linear { conv, .. }
            | Self::LinearAdd { conv, .. }
            | Self::LinearFloat { conv, .. }
            | Self::LinearCurve { conv, .. } => vec![conv],
            Self::Chain { chain, .. } => chain.convs().to_vec(),
            _ => Vec::new(),
        }
    }
}
