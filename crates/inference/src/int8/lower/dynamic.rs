//! Dynamic quantization: scale and zero point of each operand are found while the model runs.
//!
//! The whole pattern is matched from DynamicQuantizeLinear on: each of its readers must be an integer product
//! whose result is cast, scaled by the two scales, and maybe biased and clipped.

use super::Reason;
use super::graph::Node;
use super::linear::{Bias, Channels, Linear, narrow};
use super::matmul::{matrix, matrix_shape};
use super::tensor;
use super::walk::{Form, Kind, Lowering, Params};
use crate::int8::kernel::Conv;
use crate::int8::program::{ActId, Bounds, FloatId, Step};
use crate::tensor::volume;

/// Where the zero point is not known yet.
const UNKNOWN: Params = Params { scale: 1.0, zero_point: 0, is_signed: false };

/// A product that was matched.
struct Product<'a> {
    index: usize,
    conv: Conv,
    scales: Vec<f32>,
    bias: Vec<f32>,
    bounds: Bounds,
    absorbed: Vec<usize>,
    name: &'a str,
    shape: Vec<usize>,
    form: Form,
    macs: usize,
}

/// What follows a product.
struct Tail<'a> {
    absorbed: Vec<usize>,
    bounds: Bounds,
    bias: Vec<f32>,
    scales: Vec<f32>,
    name: &'a str,
}

impl<'a> Lowering<'a> {
    /// DynamicQuantizeLinear with all that hangs on it.
    pub(super) fn dynamic(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        let shape = self.lookup_closing(name)?.shape;
        let readers = self.graph.consumers(node.output()).to_vec();
        let products: Result<Vec<_>, _> =
            readers.iter().map(|index| self.product(node, *index, &shape)).collect();
        let products = products?;
        // The scale may be read by the products' scalings only.
        let absorbed: Vec<usize> = products.iter().flat_map(|product| product.absorbed.clone()).collect();
        let of_products = |index: &usize| absorbed.contains(index) || readers.contains(index);
        let others = node.0.output.iter().skip(1);
        let is_used =
            |name: &String| self.graph.is_output(name) || !self.graph.consumers(name).iter().all(of_products);
        if products.is_empty() || others.clone().any(is_used) {
            return Err(Reason::Form("its scale or zero point is used otherwise"));
        }
        let (from, _) = self.float(name)?;
        self.products(from, &shape, products)
    }

    /// DynamicQuantizeMatMul.
    pub(super) fn dynamic_matmul(&mut self, index: usize, node: Node<'a>) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        let shape = self.lookup_closing(name)?.shape;
        let tensor =
            self.graph.constant(Self::input(node, 1)?).ok_or(Reason::NotConstant { what: "the weights" })?;
        let (spec, bytes) = matrix(node, tensor, false, &shape)?;
        let (_, scales, zero_points) = self.weights(node, [1, 2, 3])?;
        let bias = self.optional_bias(node.input(4))?;
        let tail = Tail { absorbed: Vec::new(), bounds: Bounds::NONE, bias, scales, name: node.output() };
        let linear = Linear { spec, bytes, scales: tail.scales.clone(), zero_points, bias: Bias::None };
        let product = self.packed_product(index, &linear, tail, (matrix_shape(&shape, &spec), Form::Last))?;
        let (from, _) = self.float(name)?;
        self.products(from, &shape, vec![product])
    }

    fn optional_bias(&self, name: Option<&str>) -> Result<Vec<f32>, Reason> {
        let values = name.map(|name| self.graph.constant(name).and_then(tensor::floats));
        values.map_or(Ok(Vec::new()), |values| values.ok_or(Reason::NotConstant { what: "the bias" }))
    }

    /// Emits the quantization, once per place of the channels, and the products.
    fn products(&mut self, from: FloatId, shape: &[usize], products: Vec<Product<'a>>) -> Result<(), Reason> {
        let mut acts: Vec<(Form, ActId)> = Vec::new();
        // Each row has its own range: a batch runs row by row, and no row's answer depends on its neighbours.
        self.is_batched = false;
        for product in products {
            let known = acts.iter().find(|(form, _)| *form == product.form).map(|(_, act)| *act);
            let act = if let Some(act) = known {
                act
            } else {
                let act = self.act(shape, product.form, UNKNOWN)?;
                self.steps.push(Step::DynamicQuantize { from, to: act });
                acts.push((product.form, act));
                act
            };
            let to = self.values.add_float(volume(&product.shape), None);
            self.work[product.index] = (product.macs, Some(product.conv.level()));
            self.steps.push(Step::LinearFloat {
                conv: Box::new(product.conv),
                from: act,
                scales: product.scales,
                bias: product.bias,
                bounds: product.bounds,
                to,
            });
            self.absorb(&product.absorbed);
            self.absorb(&[product.index]);
            self.bind(product.name, product.shape, Kind::Float(to));
        }
        Ok(())
    }

    fn product(&self, source: Node<'a>, index: usize, shape: &[usize]) -> Result<Product<'a>, Reason> {
        let node = self.graph.nodes[index];
        let zero = source.0.output.get(2).map_or("", String::as_str);
        let wrong = || Reason::Form("one of its readers isn't a known integer product");
        let zero_slot = match node.op() {
            "ConvInteger" | "MatMulInteger" => 2,
            "MatMulIntegerToFloat" => 4,
            _ => return Err(wrong()),
        };
        let scale = source.0.output.get(1).map_or("", String::as_str);
        // It may name another scale than the one by which its operand was quantized.
        let is_scaled = node.op() != "MatMulIntegerToFloat" || node.input(2) == Some(scale);
        let is_own = node.input(0) == Some(source.output()) && node.input(zero_slot) == Some(zero);
        if !is_own || !is_scaled {
            return Err(wrong());
        }
        let constant = node.input(1).and_then(|name| self.graph.constant(name));
        let tensor = constant.ok_or(Reason::NotConstant { what: "the weights" })?;
        let zero_points = match node.input(zero_slot + 1) {
            None => vec![0],
            Some(name) => narrow(&self.int_constant(name, "the weights' zero point")?)?,
        };
        if node.op() == "MatMulIntegerToFloat" {
            let scales = node.input(3).and_then(|name| self.graph.constant(name)).and_then(tensor::floats);
            let scales = scales.ok_or(Reason::NotConstant { what: "the weights' scale" })?;
            let bias = self.optional_bias(node.input(6))?;
            let tail = Tail { absorbed: Vec::new(), bounds: Bounds::NONE, bias, scales, name: node.output() };
            let (spec, bytes) = matrix(node, tensor, false, shape)?;
            let linear = Linear { spec, bytes, scales: tail.scales.clone(), zero_points, bias: Bias::None };
            return self.packed_product(index, &linear, tail, (matrix_shape(shape, &spec), Form::Last));
        }
        let weights_shape = tensor::shape(tensor).ok_or(Reason::NotConstant { what: "the weights" })?;
        let rank = shape.len();
        let is_matrix = node.op() == "MatMulInteger";
        let (count, behind) = if is_matrix {
            (weights_shape.last(), 0)
        } else {
            (weights_shape.first(), rank.saturating_sub(2))
        };
        let count = *count.ok_or(Reason::Form("the weights have no axis"))?;
        let tail = self.tail(node.output(), scale, Channels { count, behind, rank })?;
        if is_matrix {
            let (spec, bytes) = matrix(node, tensor, false, shape)?;
            let linear = Linear { spec, bytes, scales: tail.scales.clone(), zero_points, bias: Bias::None };
            return self.packed_product(index, &linear, tail, (matrix_shape(shape, &spec), Form::Last));
        }
        let (spec, output) = super::pools::conv_spec(node, shape, &weights_shape)?;
        let bytes = tensor::bytes(tensor).ok_or(Reason::NotConstant { what: "the weights" })?;
        let linear = Linear { spec, bytes, scales: tail.scales.clone(), zero_points, bias: Bias::None };
        self.packed_product(index, &linear, tail, (output, Form::First))
    }

    fn packed_product(
        &self,
        index: usize,
        linear: &Linear<'_>,
        tail: Tail<'a>,
        (shape, form): (Vec<usize>, Form),
    ) -> Result<Product<'a>, Reason> {
        linear.check()?;
        let outputs = linear.spec.out_channels;
        if !tail.bias.is_empty() && tail.bias.len() != outputs {
            return Err(Reason::Form("the bias has the wrong length"));
        }
        let spec = linear.spec;
        let conv = Conv::pack_float(&spec, linear.bytes.weights(), &linear.zero_points, self.level)?;
        let Tail { absorbed, bounds, bias, scales, name } = tail;
        let macs = spec.macs(volume(&shape) / outputs);
        Ok(Product { index, conv, scales, bias, bounds, absorbed, name, shape, form, macs })
    }

    /// Cast, Mul by both scales, maybe Add and clips.
    fn tail(&self, name: &'a str, scale: &str, channels: Channels) -> Result<Tail<'a>, Reason> {
        let wrong = || Reason::Form("the product isn't scaled in a known way");
        let cast = self.graph.only_consumer(name).ok_or_else(wrong)?;
        let node = self.graph.nodes[cast];
        // FLOAT = 1
        if node.op() != "Cast" || node.int("to") != Some(1) {
            return Err(wrong());
        }
        let mul = self.graph.only_consumer(node.output()).ok_or_else(wrong)?;
        let scaled = self.graph.nodes[mul];
        let other = scaled.0.input.iter().find(|input| *input != node.output()).ok_or_else(wrong)?;
        if scaled.op() != "Mul" {
            return Err(wrong());
        }
        let (scales, of_scales) = self.scale_product(other, scale, channels).ok_or_else(wrong)?;
        let mut absorbed = vec![cast, mul];
        absorbed.extend(of_scales);
        let mut name = scaled.output();
        let mut bias = Vec::new();
        if let Some((values, next)) = self.channel_bias(name, channels) {
            bias = values;
            absorbed.push(next);
            name = self.graph.nodes[next].output();
        }
        let mut bounds = Bounds::NONE;
        while let Some(next) = self.graph.only_consumer(name) {
            let Some(clip) = self.clip(self.graph.nodes[next]) else { break };
            bounds = Bounds { lo: clip.apply(bounds.lo), hi: clip.apply(bounds.hi) };
            absorbed.push(next);
            name = self.graph.nodes[next].output();
        }
        Ok(Tail { absorbed, bounds, bias, scales, name })
    }

    /// The weights' scales in a product of both scales, and the node that makes it.
    fn scale_product(
        &self,
        name: &str,
        scale: &str,
        channels: Channels,
    ) -> Option<(Vec<f32>, Option<usize>)> {
        let node = self.graph.producer(name).filter(|node| node.op() == "Mul")?;
        let other = node.0.input.iter().find(|input| *input != scale)?;
        if !node.0.input.iter().any(|input| input == scale) || self.graph.is_output(name) {
            return None;
        }
        let index =
            self.graph.consumers(scale).iter().find(|index| self.graph.nodes[**index].output() == name);
        let constant = self.graph.constant(other)?;
        let scales = tensor::floats(constant)
            .filter(|_| tensor::shape(constant).is_some_and(|shape| channels.fit(&shape)))?;
        Some((scales, index.copied()))
    }

    /// The addition of one constant per channel.
    fn channel_bias(&self, name: &'a str, channels: Channels) -> Option<(Vec<f32>, usize)> {
        let next = self.graph.only_consumer(name)?;
        let node = self.graph.nodes[next];
        let other = node.0.input.iter().find(|input| *input != name)?;
        let constant = (node.op() == "Add").then(|| self.graph.constant(other))??;
        let shape = tensor::shape(constant)?;
        let values = tensor::floats(constant)?;
        (channels.fit(&shape) && values.len() > 1).then_some((values, next))
    }
}
