//! Kernels for aarch64. Values are taken as signed (less 128, which the biases make up for).

mod bytes;
pub(super) mod depthwise;
mod finish;
pub(super) mod gemm;
pub(super) mod gemm_dot;

pub(super) use bytes::{larger, turn};
pub(super) mod table;
