//! The int8 kernels: layouts, packed weights and the compute functions of each CPU level, chosen at run time.
//!
//! Activations are u8, weights s8, sums i32; every level gives the very bytes of [`Level::Scalar`], which is a
//! direct reading of the ONNX definitions. Nothing here knows tract or ONNX files, and nothing else that computes
//! is `unsafe`: each compute function is entered only after its bounds are asserted. The tests compare all levels
//! that the machine has over random shapes.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::inline_always,
    reason = "kernels convert between u8, i32 and f32 by definition, with ranges checked when weights are packed; \
              loops become vector code only where their bodies are inlined"
)]

mod ahead;
mod arith;
#[cfg(target_arch = "aarch64")]
mod arm;
mod bilinear;
mod chain;
mod conv;
mod convert;
mod curved;
mod curves;
mod depthwise;
mod divide;
mod eltwise;
mod floats;
mod fold;
mod gemm;
mod layout;
mod level;
mod norm;
mod panels;
mod pool;
mod portable;
mod product;
mod region;
mod requant;
mod rows;
mod scalar;
mod softmax;
mod spec;
mod strip;
mod table;
#[cfg(test)]
mod tests;
mod tile;
mod wide;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use arith::{Arith, Curve};
pub use bilinear::Bilinear;
pub use chain::Chain;
pub use conv::{Conv, Scratch};
pub use convert::{Range, dequantize, from_plain, min_max, quantize, to_plain};
pub use curved::ToBytes;
pub use eltwise::{AddSpec, MulSpec, Table, add, concat, copy, lookup, mul};
pub use floats::ToFloat;
pub use layout::{Act, ActMut, Border, Buffer, Layout};
pub use level::{LEVEL_VARIABLE, Level};
pub use norm::{LayerNorm, means};
pub use pool::{AvgPool, Counts, MAX_MEAN_PIXELS, MaxPool, Window, mean};
pub use product::Product;
pub use region::copy_region;
pub use requant::Requant;
pub use softmax::softmax;
pub use spec::{ConvSpec, PackError, Weights};
