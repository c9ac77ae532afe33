//! Additions, multiplications and concatenations of quantized tensors.

use super::Reason;
use super::graph::Node;
use super::shapes::axis_of;
use super::sink::{End, Sink, limits};
use super::tensor;
use super::walk::{Form, Kind, Lowering, Params, Quant};
use crate::int8::kernel::{AddSpec, Arith, MulSpec};
use crate::int8::program::{FloatOp, Step};
use crate::tensor::volume;

impl<'a> Lowering<'a> {
    /// Add, Mul, Sub, Div and Pow in f32 notation.
    pub(super) fn binary(&mut self, node: Node<'a>) -> Result<(), Reason> {
        if self.tabled(node).is_ok() {
            return Ok(());
        }
        match node.op() {
            "Pow" => self.curve(node),
            "Sub" | "Div" => self.arithmetic(node),
            // What has no form in bytes is calculated in f32.
            _ => self.sum_or_product(node).or_else(|why| match self.arithmetic(node) {
                Err(Reason::NotQuantized { .. } | Reason::NotConstant { .. }) => Err(why),
                done => done,
            }),
        }
    }

    /// Add or Mul.
    fn sum_or_product(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let names = [Self::input(node, 0)?, Self::input(node, 1)?];
        let sink = self.sink(node.output());
        let End::Bytes(params, _) = sink.end else { return self.float_add(node, names, &sink) };
        let shapes = [self.shape_of(names[0])?, self.shape_of(names[1])?];
        let first = usize::from(self.view(names[0]).is_err());
        let form = self.view(names[first])?.form;
        let a = self.view_or_constant(names[0], &shapes[first], form)?;
        let b = self.view_or_constant(names[1], &shapes[first], form)?;
        self.combine(node, [a, b], &sink, params)
    }

    /// QLinearAdd and QLinearMul.
    pub(super) fn qlinear_binary(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let sink = self.named_sink(node, 6)?;
        let End::Bytes(params, _) = sink.end else { return Err(Reason::Operator) };
        let names = [Self::input(node, 0)?, Self::input(node, 3)?];
        let is_first = self.bytes(names[0]).is_ok();
        let model = self.bytes(names[usize::from(!is_first)])?;
        if self.tabled_constant(node, &model, params)? {
            return Ok(());
        }
        let a = self.operand_or_constant(node, 0, &model)?;
        let b = self.operand_or_constant(node, 3, &model)?;
        let is_add = node.op() == "QLinearAdd";
        match self.combine(node, [a.clone(), b.clone()], &sink, params) {
            Err(Reason::Form(_)) if a.shape != b.shape => self.broadcast(is_add, [a, b], &sink, params),
            done => done,
        }
    }

    /// QLinearAdd or QLinearMul of an activation and one constant number: a table.
    fn tabled_constant(&mut self, node: Node<'a>, model: &Quant, params: Params) -> Result<bool, Reason> {
        let slot = if self.graph.constant(Self::input(node, 0)?).is_some() { 0 } else { 3 };
        let name = Self::input(node, slot)?;
        let Some(bytes) = self.graph.constant(name).and_then(tensor::bytes).map(|bytes| bytes.shifted())
        else {
            return Ok(false);
        };
        let own = self.params(Self::input(node, slot + 1)?, node.input(slot + 2), node)?;
        let is_one = bytes.len() == 1 && self.weights_shape(name)?.len() <= model.shape.len();
        let read = self.operand(node, 3 - slot)?;
        if !is_one {
            return Ok(false);
        }
        let number = (f32::from(bytes[0]) - f32::from(own.zero_point)) * own.scale;
        if node.op() == "QLinearAdd" {
            self.map(&read, params, |value| value + number, node)?;
        } else {
            self.map(&read, params, |value| value * number, node)?;
        }
        Ok(true)
    }

    /// A sum or product with an operand that is smaller in a way that no kernel for bytes knows, in f32.
    fn broadcast(
        &mut self,
        is_add: bool,
        [a, b]: [Quant; 2],
        sink: &Sink<'a>,
        params: Params,
    ) -> Result<(), Reason> {
        let (a, b) = if volume(&a.shape) < volume(&b.shape) { (b, a) } else { (a, b) };
        let spread = super::plain::spread(&b.shape, &a.shape).filter(|_| a.shape.len() == b.shape.len());
        let (repeat, each) = spread.ok_or(Reason::Form("the operands have different shapes"))?;
        let op = if is_add { Arith::Add } else { Arith::Mul };
        let [left, right] = [&a, &b].map(|quant| self.values.add_float(volume(&quant.shape), None));
        let made = self.values.add_float(volume(&a.shape), None);
        self.steps.push(Step::Dequantize { from: a.act, to: left });
        self.steps.push(Step::Dequantize { from: b.act, to: right });
        let op = FloatOp::Arith { op, repeat, each, constant: Vec::new() };
        self.steps.push(Step::Float { op, from: vec![left, right], to: made });
        let to = self.act(&a.shape, a.form, params)?;
        self.steps.push(Step::Quantize { from: made, to });
        self.finish(sink, &a.shape, Kind::Bytes(to, a.form));
        Ok(())
    }

    fn combine(
        &mut self,
        node: Node<'a>,
        [a, b]: [Quant; 2],
        sink: &Sink<'a>,
        params: Params,
    ) -> Result<(), Reason> {
        // The kernels take an operand of one pixel as the second one.
        let (a, b) = if volume(&a.shape) < volume(&b.shape) { (b, a) } else { (a, b) };
        let b = self.with_form(b, a.form)?;
        let is_pixel = a.form == Form::First
            && a.shape.len() == b.shape.len()
            && a.shape[..2] == b.shape[..2]
            && b.shape[2..].iter().all(|size| *size == 1);
        if a.shape != b.shape && !is_pixel {
            return Err(Reason::Form("the operands have different shapes"));
        }
        let [lo, hi] = sink.limits(params);
        let [sa, sb] = [a.params.scale, b.params.scale];
        let add = AddSpec { a_multiplier: sa / params.scale, b_multiplier: sb / params.scale, lo, hi };
        let mul = MulSpec { multiplier: sa * sb / params.scale, lo, hi };
        let is_add = matches!(node.op(), "Add" | "QLinearAdd");
        if !(if is_add { add.is_finite() } else { mul.is_finite() }) {
            return Err(Reason::FAR_SCALES);
        }
        let to = self.act(&a.shape, a.form, params)?;
        self.steps.push(if is_add {
            Step::Add { a: a.act, b: b.act, spec: add, to }
        } else {
            Step::Mul { a: a.act, b: b.act, spec: mul, to }
        });
        self.finish(sink, &a.shape, Kind::Bytes(to, a.form));
        Ok(())
    }

    /// The sum of two f32 tensors of one shape.
    fn float_add(&mut self, node: Node<'a>, names: [&'a str; 2], sink: &Sink<'a>) -> Result<(), Reason> {
        let shapes = [self.shape_of(names[0])?, self.shape_of(names[1])?];
        if node.op() != "Add" || shapes[0] != shapes[1] {
            return Err(Reason::Form("the result isn't quantized again"));
        }
        let (a, shape) = self.float(names[0])?;
        let (b, _) = self.float(names[1])?;
        let to = self.values.add_float(volume(&shape), None);
        self.steps.push(Step::Float { op: FloatOp::Add(sink.bounds), from: vec![a, b], to });
        self.finish(sink, &shape, Kind::Float(to));
        Ok(())
    }

    fn shape_of(&mut self, name: &str) -> Result<Vec<usize>, Reason> {
        match self.weights_shape(name) {
            Ok(shape) => Ok(shape),
            Err(_) => Ok(self.lookup(name)?.shape),
        }
    }

    fn view_or_constant(&mut self, name: &str, model: &[usize], form: Form) -> Result<Quant, Reason> {
        if let Ok(quant) = self.view(name) {
            return Ok(quant);
        }
        let (values, shape, params) = {
            let constant = self.dequantized_constant(name)?;
            let [scale] = constant.scales[..] else { return Err(Reason::Form("a constant has many scales")) };
            let bytes = tensor::bytes(constant.tensor).ok_or(Reason::NotConstant { what: "an operand" })?;
            let is_signed = matches!(bytes, tensor::Bytes::S8(_));
            let zero = constant.zero_points.first().copied().unwrap_or(0) + if is_signed { 128 } else { 0 };
            let zero_point = u8::try_from(zero).map_err(|_| Reason::Form("a zero point is out of range"))?;
            (bytes.shifted(), self.weights_shape(name)?, Params { scale, zero_point, is_signed })
        };
        self.constant(&values, &shape, model, (form, params))
    }

    fn operand_or_constant(&mut self, node: Node<'a>, slot: usize, model: &Quant) -> Result<Quant, Reason> {
        let name = Self::input(node, slot)?;
        if self.graph.constant(name).is_none() {
            return self.operand(node, slot);
        }
        let params = self.params(Self::input(node, slot + 1)?, node.input(slot + 2), node)?;
        let bytes = self.graph.constant(name).and_then(tensor::bytes);
        let values = bytes.ok_or(Reason::NotConstant { what: "an operand" })?.shifted();
        let shape = self.weights_shape(name)?;
        self.constant(&values, &shape, &model.shape.clone(), (model.form, params))
    }

    /// A constant as an activation of the shape of the other operand, or of one pixel of it.
    fn constant(
        &mut self,
        values: &[u8],
        shape: &[usize],
        model: &[usize],
        (form, params): (Form, Params),
    ) -> Result<Quant, Reason> {
        let wrong = || Reason::Shape { shape: shape.to_vec() };
        let missing = model.len().checked_sub(shape.len()).ok_or_else(wrong)?;
        let mut own = vec![1; missing];
        own.extend(shape);
        let fits = own.iter().zip(model).all(|(own, model)| *own == 1 || own == model);
        if !fits || own.first() != Some(&1) || values.is_empty() {
            return Err(wrong());
        }
        let is_pixel = form == Form::First && own[1..2] == model[1..2] && volume(&own[2..]) == 1;
        let target: Vec<usize> = if is_pixel { own.clone() } else { model.to_vec() };
        let act = self.act(&target, form, params)?;
        let values = spread(values, &own, &target);
        self.steps.push(Step::Constant { values, to: act });
        Ok(Quant { act, form, shape: target, params })
    }

    /// Concat of views and QLinearConcat, along the channels.
    pub(super) fn concat(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let is_qlinear = node.op() == "QLinearConcat";
        let (sink, quants) = if is_qlinear {
            let slots = (2..node.0.input.len()).step_by(3);
            let quants: Result<Vec<_>, _> = slots.map(|slot| self.operand(node, slot)).collect();
            (self.named_sink(node, 0)?, quants?)
        } else {
            let names = 0..node.0.input.len();
            let quants: Result<Vec<_>, _> = names.map(|slot| self.view(Self::input(node, slot)?)).collect();
            (self.sink(node.output()), quants?)
        };
        let End::Bytes(params, _) = sink.end else {
            return Err(Reason::Form("the result isn't quantized again"));
        };
        let Some(first) = quants.first() else { return Err(Reason::Operator) };
        let axis = axis_of(node.int("axis").unwrap_or(1), first.shape.len());
        let axis = axis.ok_or_else(|| Reason::Shape { shape: first.shape.clone() })?;
        let form = match first.shape.len() {
            2 => Form::Last,
            _ if axis == 1 => Form::First,
            rank if axis == rank - 1 => Form::Last,
            _ => return Err(Reason::Form("it isn't along the channels")),
        };
        if axis == 0 {
            return Err(Reason::Form("it is along the batch"));
        }
        let mut shape = first.shape.clone();
        shape[axis] = 0;
        let mut parts = Vec::new();
        let is_clipped = limits(sink.bounds, params) != [0, 255];
        for quant in quants {
            let fits = quant.shape.len() == shape.len()
                && (0..shape.len()).all(|place| place == axis || shape[place] == quant.shape[place]);
            if !fits {
                return Err(Reason::Shape { shape: quant.shape });
            }
            shape[axis] += quant.shape[axis];
            let quant = self.with_form(quant, form)?;
            let is_same = (quant.params.scale, quant.params.zero_point) == (params.scale, params.zero_point);
            let bounds = sink.bounds;
            let table = (!is_same || is_clipped)
                .then(|| Box::new(super::quant::table(quant.params, params, |value| bounds.apply(value))));
            parts.push((quant.act, table));
        }
        let to = self.act(&shape, form, params)?;
        self.steps.push(Step::Concat { parts, to });
        self.finish(&sink, &shape, Kind::Bytes(to, form));
        Ok(())
    }
}

/// A constant repeated along the axes in which it is 1.
fn spread(values: &[u8], own: &[usize], target: &[usize]) -> Vec<u8> {
    let mut strides = vec![0; own.len()];
    let mut stride = 1;
    for axis in (0..own.len()).rev() {
        strides[axis] = if own[axis] == 1 { 0 } else { stride };
        stride *= own[axis];
    }
    let place = |mut index: usize| {
        let mut at = 0;
        for axis in (0..target.len()).rev() {
            at += index % target[axis] * strides[axis];
            index /= target[axis];
        }
        at
    };
    (0..volume(target)).map(|index| values[place(index)]).collect()
}
