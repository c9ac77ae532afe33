//! From a quantized ONNX graph to a program.
//!
//! The graph is walked once, in its own order. A tensor that a DequantizeLinear makes is a *view* of its quantized
//! source; an operator over views whose result is quantized again becomes one int8 step. What isn't understood
//! is gathered into islands for tract. The file is from outside: nothing here panics on what it says, sizes are
//! bounded before memory is taken, and any doubt means the node is not lowered.

mod assemble;
mod bilinear;
mod channels;
mod computed;
mod constants;
mod contrib;
mod dispatch;
mod dynamic;
mod eltwise;
mod fold;
mod graph;
mod islands;
mod linear;
mod matmul;
mod nhwc;
mod pads;
mod parts;
mod plain;
mod pools;
mod product;
mod quant;
mod shapes;
mod sink;
mod sizes;
mod tables;
mod tensor;
mod unary;
mod walk;

pub(crate) use assemble::lower;
pub(crate) use contrib::quantized_places;

use tract_onnx::pb::NodeProto;

use super::kernel::PackError;
use crate::error::LoadError;

/// The domain of the operators that ONNX Runtime adds to ONNX's.
pub(crate) const CONTRIB: &str = "com.microsoft";

/// Operators of it that only the lowering knows.
const CONTRIB_OPS: [&str; 12] = [
    "QLinearAdd",
    "QLinearMul",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
    "QLinearLeakyRelu",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "NhwcMaxPool",
    "QGemm",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
];

/// Whether the lowering alone knows what a node means: tract doesn't have the operator, or takes one of ONNX's own of the
/// same name for it.
pub(crate) fn is_only_int8(node: &NodeProto) -> bool {
    let is_of_images = || node.op_type == "QLinearConv" && nhwc::is_channels_last(graph::Node(node));
    node.domain == CONTRIB && (CONTRIB_OPS.contains(&node.op_type.as_str()) || is_of_images())
}

/// The nodes of ONNX that mean the same as one of com.microsoft, where there are some.
pub(crate) fn words_of_onnx(node: &NodeProto, opset: i64) -> Option<Vec<NodeProto>> {
    is_only_int8(node).then(|| contrib::in_onnx(node, opset)).flatten()
}

/// Why a node isn't lowered, in words for the report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    /// No step does this.
    #[error("no int8 step for it")]
    Operator,
    /// The operator is known, this form of it isn't.
    #[error("{0}")]
    Form(&'static str),
    /// An input that should be quantized isn't.
    #[error("input {name:?} isn't quantized")]
    NotQuantized {
        /// The input.
        name: String,
    },
    /// An input that should be constant isn't, or has a type that doesn't fit.
    #[error("{what} isn't a constant of a known type")]
    NotConstant {
        /// What it is for.
        what: &'static str,
    },
    /// A shape that the operator can't have, or one over a bound.
    #[error("shape {shape:?} is not possible here or over a bound")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
    },
    /// The weights can't be packed.
    #[error("weights can't be packed")]
    Pack(#[from] PackError),
    /// Tract can't take the nodes that are left to it.
    #[error("tract can't run an island of {nodes} nodes from {first:?} on")]
    Island {
        /// How many.
        nodes: usize,
        /// The first one's name.
        first: String,
        /// Tract's words.
        #[source]
        source: Box<LoadError>,
    },
    /// Neither int8 nor tract has it.
    #[error("{op} {name:?} exists in int8 only, and not in this form")]
    Only {
        /// Its operator.
        op: String,
        /// Its name.
        name: String,
        /// Why it isn't lowered.
        source: Box<Reason>,
    },
    /// A value crosses between an island and int8 steps that isn't f32.
    #[error("{name:?} isn't f32 where tract hands it over")]
    Border {
        /// The value.
        name: String,
    },
    /// Two things of an island have one name.
    #[error("{name:?} is the name of two things in what is left to tract")]
    Twice {
        /// The name.
        name: String,
    },
    /// More values than can be planned.
    #[error("{got} values, at most {max} can be planned")]
    TooMany {
        /// How many.
        got: usize,
        /// Bound.
        max: usize,
    },
    /// The graph takes or gives something that programs don't.
    #[error("{0}")]
    Model(&'static str),
    /// Nothing in the graph is quantized.
    #[error("nothing in it is quantized")]
    NothingToDo,
    /// It is quantized, but no step has to do with 8-bit values.
    #[error("none of its nodes could be lowered")]
    NoneLowered,
}

impl Reason {
    /// Scales whose quotient f32 doesn't hold.
    const FAR_SCALES: Self = Self::Form("its scales are too far apart");
}

impl Reason {
    /// Operator and name of the node that nothing here can run, if that is the reason.
    fn stuck(&self) -> Option<(String, String)> {
        match self {
            Self::Only { op, name, .. } => Some((op.clone(), name.clone())),
            _ => None,
        }
    }

    /// Whether it ends the whole lowering, not that of one node.
    fn is_final(&self) -> bool {
        match self {
            Self::Island { .. }
            | Self::Only { .. }
            | Self::Border { .. }
            | Self::Twice { .. }
            | Self::TooMany { .. }
            | Self::Model(_)
            | Self::NothingToDo
            | Self::NoneLowered => true,
            Self::Operator
            | Self::Form(_)
            | Self::NotQuantized { .. }
            | Self::NotConstant { .. }
            | Self::Shape { .. }
            | Self::Pack(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;
    use crate::error::{InferError, LoadError, chain};

    #[test]
    fn a_failed_island_is_reported_with_the_words_of_the_runtime() {
        let source = LoadError::WarmUp(InferError::Runtime { why: "no kernel for it".into() });
        let reason = Reason::Island { nodes: 2, first: "a".into(), source: Box::new(source) };
        let words = chain(&reason);
        let order = ["island of 2 nodes from \"a\"", "warm-up", "no kernel for it"];
        let places: Vec<Option<usize>> = order.iter().map(|part| words.find(part)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{words}");
    }
}
