//! Matrix products of two activations, as attention has them.

use super::Reason;
use super::graph::Node;
use super::sink::{End, Sink};
use super::walk::{Form, Kind, Lowering, Quant};
use crate::int8::kernel::Product;
use crate::int8::program::Step;
use crate::tensor::volume;

impl<'a> Lowering<'a> {
    /// MatMul of two views between quantizations; none where the second isn't one.
    pub(super) fn view_product(&mut self, index: usize, node: Node<'a>) -> Option<Result<(), Reason>> {
        let [a, b] = [node.input(0)?, node.input(1)?];
        let (a, b) = (self.view(a).ok()?, self.view(b).ok()?);
        let sink = self.sink(node.output());
        (node.op() == "MatMul").then(|| self.product_of(index, [a, b], &sink))
    }

    /// QLinearMatMul of two 8-bit tensors; none where the second is constant.
    pub(super) fn bytes_product(&mut self, index: usize, node: Node<'a>) -> Option<Result<(), Reason>> {
        let is_constant = self.graph.constant(node.input(3)?).is_some();
        if is_constant || node.op() != "QLinearMatMul" {
            return None;
        }
        let operands = self.operand(node, 0).and_then(|a| Ok([a, self.operand(node, 3)?]));
        let sink = self.named_sink(node, 6);
        Some(operands.and_then(|operands| self.product_of(index, operands, &sink?)))
    }

    fn product_of(&mut self, index: usize, [a, b]: [Quant; 2], sink: &Sink<'a>) -> Result<(), Reason> {
        let End::Bytes(params, _) = sink.end else {
            return Err(Reason::Form("the result isn't quantized again"));
        };
        let wrong = || Reason::Form("the matrices don't come in pairs");
        let ([pairs @ .., rows, inner], [others @ .., height, columns]) = (&a.shape[..], &b.shape[..]) else {
            return Err(wrong());
        };
        if pairs != others || pairs.is_empty() || inner != height {
            return Err(wrong());
        }
        let (sizes, count) = ([*rows, *inner, *columns], volume(pairs));
        let multiplier = a.params.scale * b.params.scale / params.scale;
        let limits = sink.limits(params);
        let product = Product::new(sizes, multiplier, (params.zero_point, limits), self.level);
        let product = product.filter(|_| multiplier.is_finite()).ok_or(Reason::FAR_SCALES)?;
        let mut shape = a.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = *columns;
        }
        self.work[index] = (product.macs() * count, Some(product.level()));
        let (a, b) = (self.with_form(a, Form::Last)?, self.with_form(b, Form::Last)?);
        let to = self.act(&shape, Form::Last, params)?;
        self.steps.push(Step::Product { product: Box::new(product), a: a.act, b: b.act, to });
        self.finish(sink, &shape, Kind::Bytes(to, Form::Last));
        Ok(())
    }
}
