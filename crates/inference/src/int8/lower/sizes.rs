//! What a graph calculates with sizes alone, in f32 or quantized where a quantizer took it for an activation: half of a
//! width that is rounded up, a mask of places. tract works it out at load, for one row; what reads it reads a constant.

use super::graph::Node;
use super::islands::model;
use super::walk::Lowering;
use super::{computed, tensor};
use crate::engine::{Plan, Value, Verdict};
use crate::tensor::volume;

/// Most elements of what such a node reads and of what it makes.
const MAX_SIZES: usize = 4096;
/// Most nodes that are worked out like this.
const MAX_NODES: usize = 2048;

impl<'a> Lowering<'a> {
    /// Whether a node reads constants alone, and among them what was worked out of sizes.
    pub(super) fn reads_sizes(&self, node: Node<'a>) -> bool {
        let mut inputs = node.0.input.iter().map(String::as_str).filter(|name| !name.is_empty());
        let is_small = |name: &str| {
            let is_view = |maker: &Node<'a>| self.is_constant_view(*maker);
            let read = self.graph.producer(name).filter(is_view).and_then(|maker| maker.input(0));
            let shape = self.graph.constant(read.unwrap_or(name)).and_then(tensor::shape);
            shape.is_some_and(|shape| volume(&shape) <= MAX_SIZES)
        };
        inputs.clone().any(|name| self.graph.is_of_row(name)) && inputs.all(is_small)
    }

    /// Works such a node out if tract can; whether it did.
    pub(super) fn run_on_sizes(&mut self, index: usize) -> bool {
        let node = self.graph.nodes[index];
        let is_one = node.0.output.len() == 1 && !self.graph.is_output(node.output());
        let may_run = is_one && self.is_computable(node);
        if !may_run || self.worked_out >= MAX_NODES || !self.reads_sizes(node) {
            return false;
        }
        self.worked_out += 1;
        let Some((shape, data)) = self.made_of_sizes(index) else { return false };
        let made = computed::constant(node.output(), &shape, &data);
        let Some(made) = made.filter(|_| volume(&shape) <= MAX_SIZES) else { return false };
        self.graph.fold(node.output(), made);
        true
    }

    fn made_of_sizes(&mut self, index: usize) -> Option<Value> {
        // No island comes of it: rows are as far apart as they were.
        let is_batched = self.is_batched;
        let draft = self.draft(&[index]);
        self.is_batched = is_batched;
        let draft = draft.ok().filter(|draft| draft.inputs.is_empty())?;
        let ends = [self.graph.nodes[index].output().to_owned()];
        let plan = Plan::build(model(self.graph.model, draft, &ends), &[], Some(Verdict::InPlace)).ok()?;
        plan.run(&[], 1).ok()?.pop()
    }
}
