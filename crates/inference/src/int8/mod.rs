//! Quantized models in int8 from end to end: the kernels now, the lowering of graphs onto them beside.

pub mod kernel;
