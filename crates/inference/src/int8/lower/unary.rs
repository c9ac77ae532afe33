//! Functions of one value: tables between two quantizations, and the few that exist in f32.

use super::Reason;
use super::graph::Node;
use super::quant::table;
use super::shapes::axis_of;
use super::sink::{End, limits};
use super::walk::{Kind, Lowering, Params, Quant};
use crate::int8::kernel::{Curve, Table};
use crate::int8::program::{Bounds, FloatOp, Step};
use crate::tensor::volume;

impl<'a> Lowering<'a> {
    /// Relu and Clip.
    pub(super) fn relu(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        let bounds = self.clip(node).ok_or(Reason::NotConstant { what: "a bound" })?;
        if let Ok(quant) = self.view(name) {
            return self.clip_view(node, &quant, bounds);
        }
        let (from, shape) = self.float(name)?;
        let to = self.values.add_float(volume(&shape), None);
        self.steps.push(Step::Float { op: FloatOp::Clip(bounds), from: vec![from], to });
        self.bind(node.output(), shape, Kind::Float(to));
        Ok(())
    }

    fn clip_view(&mut self, node: Node<'a>, quant: &Quant, bounds: Bounds) -> Result<(), Reason> {
        let sink = self.sink(node.output());
        if let End::Bytes(params, _) = sink.end {
            let rest = sink.bounds;
            let all = |value: f32| rest.apply(bounds.apply(value));
            let to = self.act(&quant.shape, quant.form, params)?;
            let table = Box::new(table(quant.params, params, all));
            self.steps.push(Step::Lookup { from: quant.act, table, to });
            self.finish(&sink, &quant.shape, Kind::Bytes(to, quant.form));
            return Ok(());
        }
        // Without a quantization of its own the result is exact only where the bounds are whole steps.
        let [lo, hi] = limits(bounds, quant.params);
        let real = |value: u8| (f32::from(value) - f32::from(quant.params.zero_point)) * quant.params.scale;
        let near = |value: u8, bound: f32| (real(value) - bound).abs() <= quant.params.scale * 1e-5;
        let is_exact =
            (bounds.lo <= real(0) || near(lo, bounds.lo)) && (bounds.hi >= real(255) || near(hi, bounds.hi));
        if !is_exact {
            return Err(Reason::Form("its bounds aren't whole steps, and the result isn't quantized again"));
        }
        let to = self.act(&quant.shape, quant.form, quant.params)?;
        let mut values = [0; 256];
        (0..=u8::MAX).for_each(|value| values[usize::from(value)] = value.clamp(lo, hi));
        self.steps.push(Step::Lookup { from: quant.act, table: Box::new(Table(values)), to });
        self.bind(node.output(), quant.shape.clone(), Kind::View(to, quant.form));
        Ok(())
    }

    /// Any other function: a table between two quantizations, or a pass in f32.
    pub(super) fn unary(&mut self, node: Node<'a>) -> Result<(), Reason> {
        self.tabled(node).or_else(|why| match self.curve(node) {
            Ok(()) => Ok(()),
            // What is no curve at all isn't one where it is quantized, either.
            Err(Reason::Form(_)) => Err(why),
            Err(other) => Err(other),
        })
    }

    /// QLinearLeakyRelu and QLinearSigmoid.
    pub(super) fn qlinear_unary(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let quant = self.operand(node, 0)?;
        let sink = self.named_sink(node, 3)?;
        let End::Bytes(params, _) = sink.end else { return Err(Reason::Operator) };
        let function = function(node).ok_or(Reason::Operator)?;
        self.map(&quant, params, function, node)
    }

    /// A table for 8-bit values.
    pub(super) fn map(
        &mut self,
        quant: &Quant,
        params: Params,
        function: impl Fn(f32) -> f32,
        node: Node<'a>,
    ) -> Result<(), Reason> {
        let to = self.act(&quant.shape, quant.form, params)?;
        let table = Box::new(table(quant.params, params, function));
        self.steps.push(Step::Lookup { from: quant.act, table, to });
        self.bind(node.output(), quant.shape.clone(), Kind::Bytes(to, quant.form));
        Ok(())
    }

    /// Softmax over the last axis, in f32.
    pub(super) fn softmax(&mut self, node: Node<'a>, opset: i64) -> Result<(), Reason> {
        let (from, shape) = self.float(Self::input(node, 0)?)?;
        let op = last_axis(node, &shape, opset)?;
        let to = self.values.add_float(volume(&shape), None);
        self.steps.push(Step::Float { op, from: vec![from], to });
        self.bind(node.output(), shape, Kind::Float(to));
        Ok(())
    }

    /// QLinearSoftmax: the same between two quantizations.
    pub(super) fn qlinear_softmax(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let quant = self.operand(node, 0)?;
        let params = self.params(Self::input(node, 3)?, node.input(4), node)?;
        let op = last_axis(node, &quant.shape, super::contrib::softmax_version(node))?;
        let to = self.act(&quant.shape, quant.form, params)?;
        let [plain, shares] = [(); 2].map(|()| self.values.add_float(volume(&quant.shape), None));
        self.steps.push(Step::Dequantize { from: quant.act, to: plain });
        self.steps.push(Step::Float { op, from: vec![plain], to: shares });
        self.steps.push(Step::Quantize { from: shares, to });
        self.bind(node.output(), quant.shape, Kind::Bytes(to, quant.form));
        Ok(())
    }
}

/// A softmax over the last axis of the shape; before opset 13 all axes from the named one on count as one, which is
/// the same for the last one.
fn last_axis(node: Node<'_>, shape: &[usize], opset: i64) -> Result<FloatOp, Reason> {
    let axis = axis_of(node.int("axis").unwrap_or(if opset < 13 { 1 } else { -1 }), shape.len());
    let is_last = axis.is_some_and(|axis| axis > 0 && axis + 1 == shape.len());
    let run = shape.last().copied().filter(|_| is_last);
    run.map(FloatOp::Softmax).ok_or(Reason::Form("it isn't over the last axis"))
}

/// The function that an operator applies to each value.
pub(super) fn function(node: Node<'_>) -> Option<Box<dyn Fn(f32) -> f32>> {
    let alpha = |default: f32| node.float("alpha").unwrap_or(default);
    Some(match node.op() {
        "Sigmoid" | "QLinearSigmoid" => Box::new(sigmoid),
        "Tanh" => Box::new(f32::tanh),
        "HardSwish" => Box::new(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "HardSigmoid" => {
            let (alpha, beta) = (alpha(0.2), node.float("beta").unwrap_or(0.5));
            Box::new(move |x| (alpha * x + beta).clamp(0.0, 1.0))
        }
        "LeakyRelu" | "QLinearLeakyRelu" => {
            let alpha = alpha(0.01);
            Box::new(move |x| if x < 0.0 { alpha * x } else { x })
        }
        "Elu" => {
            let alpha = alpha(1.0);
            Box::new(move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
        }
        "Abs" => Box::new(f32::abs),
        "Erf" => Box::new(|x| Curve::Erf.of(x)),
        "Gelu" if node.text("approximate").is_none_or(|kind| kind == "none") => {
            Box::new(|x| Curve::Gelu.of(x))
        }
        "Sqrt" => Box::new(f32::sqrt),
        "Reciprocal" => Box::new(f32::recip),
        "Neg" => Box::new(|x| -x),
        "Exp" => Box::new(f32::exp),
        "Softplus" => Box::new(softplus),
        "Softsign" => Box::new(|x| x / (1.0 + x.abs())),
        _ => return None,
    })
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + e^x), by an exponential that can't overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
