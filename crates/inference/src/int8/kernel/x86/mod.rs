//! Kernels for x86-64.

pub(super) mod amx;
pub(super) mod depthwise512;
pub(super) mod detect;
pub(super) mod finish512;
pub(super) mod gemm512;
