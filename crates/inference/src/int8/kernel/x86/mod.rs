//! Kernels for x86-64.

pub(super) mod amx;
pub(super) mod depthwise256;
pub(super) mod depthwise512;
pub(super) mod detect;
mod finish256;
mod finish512;
pub(super) mod gemm256;
pub(super) mod gemm512;
pub(super) mod gemm_avx2;
pub(super) mod look;
pub(super) mod planes512;
pub(super) mod table;
