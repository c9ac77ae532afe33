//! Operators of com.microsoft over images whose channels come last (`[n, h, w, c]`), as ONNX Runtime writes them
//! where it saves a model that it optimised. A pixel's bytes lie together in either form, so that pixels are copied
//! one after the other; between two such operators nothing is.

use super::Reason;
use super::graph::Node;
use super::pools::pool_window;
use super::walk::{Form, Kind, Lowering, Quant};
use crate::int8::kernel::MaxPool;
use crate::int8::program::{Shuffle, Step};

/// Whether the operator takes and gives images with their channels last.
pub(super) fn is_channels_last(node: Node<'_>) -> bool {
    node.op() == "NhwcMaxPool" || node.int("channels_last").unwrap_or(0) != 0
}

impl<'a> Lowering<'a> {
    /// The operand of such a node as `[n, c, h, w]`; of other nodes as it is.
    pub(super) fn images(&mut self, node: Node<'a>, quant: Quant) -> Result<Quant, Reason> {
        if !is_channels_last(node) {
            return Ok(quant);
        }
        let [n, pixels @ .., c] = &quant.shape[..] else { return Err(Reason::Shape { shape: quant.shape }) };
        let shape: Vec<usize> = [*n, *c].iter().chain(pixels).copied().collect();
        let last = self.with_form(quant, Form::Last)?;
        if let Some(act) = self.images.get(&last.act) {
            return Ok(Quant { act: *act, form: Form::First, shape, params: last.params });
        }
        let act = self.act(&shape, Form::First, last.params)?;
        self.steps.push(Step::Shuffle { from: last.act, shuffle: Shuffle::Pixels, to: act });
        self.images.insert(last.act, act);
        Ok(Quant { act, form: Form::First, shape, params: last.params })
    }

    /// Gives the result of such a node, made as `[n, c, h, w]`, its own shape; those of other nodes have it.
    pub(super) fn channels_back(&mut self, node: Node<'a>) -> Result<(), Reason> {
        if !is_channels_last(node) {
            return Ok(());
        }
        let quant = self.bytes(node.output())?;
        let [n, c, pixels @ ..] = &quant.shape[..] else { return Err(Reason::Shape { shape: quant.shape }) };
        let shape: Vec<usize> = [*n].iter().chain(pixels).chain([c]).copied().collect();
        let act = self.act(&shape, Form::Last, quant.params)?;
        self.steps.push(Step::Shuffle { from: quant.act, shuffle: Shuffle::Pixels, to: act });
        self.images.insert(act, quant.act);
        self.bind(node.output(), shape, Kind::Bytes(act, Form::Last));
        Ok(())
    }

    /// NhwcMaxPool.
    pub(super) fn nhwc_max_pool(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let quant = self.bytes(Self::input(node, 0)?)?;
        let quant = self.images(node, quant)?;
        let (window, output) = pool_window(node, &quant.shape)?;
        let to = self.act(&output, Form::First, quant.params)?;
        self.steps.push(Step::MaxPool { pool: MaxPool { window }, from: quant.act, to });
        self.bind(node.output(), output, Kind::Bytes(to, Form::First));
        self.channels_back(node)
    }
}
