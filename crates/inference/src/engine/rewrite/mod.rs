//! What tract 0.23.9 answers wrongly, or refuses for no reason of the model's, is put into other words of ONNX before
//! tract sees it, where these are few and mean exactly the same; else it is refused, with the node's name. Nothing here
//! changes what a graph means, and the lowering to int8 sees the graph as the file has it, but for f16 and what a file
//! may leave out. Each operator has a small model with ONNX Runtime's answers in `tests/models`.

mod draft;
mod explicit;
mod forest;
mod graph;
mod halves;
mod implied;
mod labels;
mod names;
mod order;
mod recurrent;
mod scales;
mod simple;
mod spelled;
mod tables;
mod twins;

pub(super) use draft::{int, without};
pub(super) use explicit::spell;
pub(super) use graph::{has_words_for, put_in_order, rewrite};
pub(super) use halves::widen;
pub(super) use tables::gather_first;
pub(crate) use twins::RANDOM;
