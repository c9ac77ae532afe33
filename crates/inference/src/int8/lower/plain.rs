//! Operators in f32 around quantized layers, as transformers have them: normalization, arithmetic, functions of each
//! value. What the exporters write in several nodes becomes one pass.

use super::Reason;
use super::graph::Node;
use super::shapes::axis_of;
use super::walk::{Kind, Lowering};
use crate::int8::kernel::{Arith, Curve, LayerNorm};
use crate::int8::program::{FloatId, FloatOp, Step};
use crate::int8::report::Runs;
use crate::tensor::volume;

/// Most elements of a constant that is kept in f32.
const MAX_CONSTANT: usize = 1 << 20;

/// An operand of arithmetic.
enum Operand {
    Value(FloatId, Vec<usize>),
    Constant(Vec<f32>, Vec<usize>),
}

/// Nodes that together are one operator.
struct Pattern<'a, T> {
    nodes: Vec<usize>,
    /// What they make.
    output: &'a str,
    what: T,
}

impl<'a> Lowering<'a> {
    /// LayerNormalization over the last axes.
    pub(super) fn layer_norm(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        if node.0.output.iter().skip(1).any(|name| !name.is_empty()) {
            return Err(Reason::Form("its mean or deviation is wanted"));
        }
        let scale = self.norm_constant(Self::input(node, 1)?)?;
        let bias = node.input(2).map(|name| self.norm_constant(name)).transpose()?;
        let bias = bias.unwrap_or_else(|| vec![0.0; scale.len()]);
        let epsilon = node.float("epsilon").unwrap_or(1e-5);
        let shape = self.shape_of_float(name)?;
        let first = axis_of(node.int("axis").unwrap_or(-1), shape.len()).filter(|axis| *axis > 0);
        let first = first.ok_or(Reason::Form("it normalizes the batch"))?;
        if volume(&shape[first..]) != scale.len() || scale.len() != bias.len() || scale.is_empty() {
            return Err(Reason::Form("its scale isn't one of the axes"));
        }
        self.norm(name, LayerNorm { scale, bias, epsilon }, node.output())
    }

    fn norm(&mut self, name: &'a str, norm: LayerNorm, output: &'a str) -> Result<(), Reason> {
        self.lookup_closing(name)?;
        let (from, shape) = self.float(name)?;
        self.push_float(FloatOp::Norm(Box::new(norm)), vec![from], output, shape);
        Ok(())
    }

    /// BatchNormalization that no tool has folded into the layer before it: a product and a sum for each channel.
    pub(super) fn batch_norm(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let is_training = node.int("training_mode").unwrap_or(0) != 0;
        if is_training || node.0.output.iter().skip(1).any(|name| !name.is_empty()) {
            return Err(Reason::Form("it is trained"));
        }
        let numbers = |slot: usize| self.norm_constant(Self::input(node, slot)?);
        let [scale, bias, mean, variance] = [numbers(1)?, numbers(2)?, numbers(3)?, numbers(4)?];
        let epsilon = node.float("epsilon").unwrap_or(1e-5);
        let (from, shape) = self.float(Self::input(node, 0)?)?;
        let each = scale.len();
        let fits = [&bias, &mean, &variance].iter().all(|values| values.len() == each);
        if !fits || each == 0 || shape.get(1) != Some(&each) {
            return Err(Reason::Form("its scale isn't one of channels"));
        }
        let repeat = volume(&shape[2..]);
        let factors =
            scale.iter().zip(&variance).map(|(scale, variance)| scale / (variance + epsilon).sqrt());
        let factors: Vec<f32> = factors.collect();
        let sums = bias.iter().zip(&mean).zip(&factors).map(|((bias, mean), factor)| bias - mean * factor);
        let sums = sums.collect();
        let scaled = self.values.add_float(volume(&shape), None);
        let op = FloatOp::Arith { op: Arith::Mul, repeat, each, constant: factors };
        self.steps.push(Step::Float { op, from: vec![from], to: scaled });
        let op = FloatOp::Arith { op: Arith::Add, repeat, each, constant: sums };
        self.push_float(op, vec![scaled], node.output(), shape);
        Ok(())
    }

    fn norm_constant(&self, name: &str) -> Result<Vec<f32>, Reason> {
        let is_of_all = !self.graph.is_of_row(name);
        let values = self.float_constant(name).filter(|values| is_of_all && values.len() <= MAX_CONSTANT);
        values.ok_or(Reason::NotConstant { what: "the scale or the bias" })
    }

    fn shape_of_float(&mut self, name: &'a str) -> Result<Vec<usize>, Reason> {
        Ok(self.lookup_closing(name)?.shape)
    }

    /// A step in f32, and the name of what it makes.
    pub(super) fn push_float(&mut self, op: FloatOp, from: Vec<FloatId>, output: &'a str, shape: Vec<usize>) {
        let to = self.values.add_float(volume(&shape), None);
        self.steps.push(Step::Float { op, from, to });
        self.bind(output, shape, Kind::Float(to));
    }

    /// ReduceMean over all pixels, or over the last axis: with what follows a whole normalization, or by itself.
    pub(super) fn mean(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        if let Some(Pattern { nodes, output, what }) = self.spelled_norm(node) {
            let length = what.scale.len();
            if self.shape_of_float(name)?.last() == Some(&length) {
                self.norm(name, what, output)?;
                self.settle_floats(&nodes);
                return Ok(());
            }
        }
        let axes = self.axes_of_mean(node)?;
        if let [_, _, height, width] = self.lookup(name)?.shape[..] {
            let mut places: Vec<_> = axes.iter().map(|axis| axis_of(*axis, 4)).collect();
            places.sort_unstable();
            if places == [Some(2), Some(3)] && height > 0 && width > 0 {
                return self.averaged(node, node.int("keepdims") != Some(0));
            }
        }
        let (from, mut shape) = self.float(name)?;
        let rank = shape.len();
        let is_last = matches!(axes[..], [axis] if axis_of(axis, rank) == Some(rank - 1));
        let Some(last) = shape.last_mut().filter(|last| is_last && rank > 1 && **last > 0) else {
            return Err(Reason::Form("it isn't over the last axis"));
        };
        let op = FloatOp::Mean(*last);
        *last = 1;
        if node.int("keepdims") == Some(0) {
            shape.pop();
        }
        self.push_float(op, vec![from], node.output(), shape);
        Ok(())
    }

    /// LayerNormalization as torch writes it before opset 17: x less its mean, divided by the root of the mean of its
    /// squares, times the scale, and the bias.
    fn spelled_norm(&self, mean: Node<'a>) -> Option<Pattern<'a, LayerNorm>> {
        let x = mean.input(0)?;
        let (mut nodes, centred) = (Vec::new(), self.next(mean.output(), "Sub")?);
        let minus = self.graph.nodes[centred];
        (minus.input(0) == Some(x)).then_some(())?;
        let [first, second] = self.graph.consumers(minus.output()) else { return None };
        let power = [*first, *second].into_iter().find(|index| self.is_square(self.graph.nodes[*index]))?;
        let end = if power == *first { *second } else { *first };
        nodes.extend([centred, power, end]);
        let mut follow = |name: &'a str, op: &str| {
            let next = self.next(name, op)?;
            nodes.push(next);
            Some(self.graph.nodes[next])
        };
        let variance = follow(self.graph.nodes[power].output(), "ReduceMean")?;
        let raised = follow(variance.output(), "Add")?;
        let [epsilon] = self.other_constant(raised, variance.output())?[..] else { return None };
        let root = follow(raised.output(), "Sqrt")?;
        let divided = follow(root.output(), "Div")?;
        let is_own =
            divided.input(0) == Some(minus.output()) && std::ptr::eq(divided.0, self.graph.nodes[end].0);
        let is_over_last = |node: Node<'a>| {
            node.int("keepdims") != Some(0) && self.axes_of_mean(node).is_ok_and(|axes| axes == [-1])
        };
        let is_alike = is_over_last(mean) && is_over_last(variance);
        (is_own && is_alike).then_some(())?;
        let scaled = follow(divided.output(), "Mul")?;
        let scale = self.other_constant(scaled, divided.output())?;
        let moved = follow(scaled.output(), "Add")?;
        let bias = self.other_constant(moved, scaled.output())?;
        let fits = scale.len() == bias.len() && !scale.is_empty() && !self.graph.is_output(minus.output());
        fits.then(|| Pattern { nodes, output: moved.output(), what: LayerNorm { scale, bias, epsilon } })
    }

    /// The axes of a mean; none where it doesn't name them.
    fn axes_of_mean(&self, node: Node<'a>) -> Result<Vec<i64>, Reason> {
        match node.input(1) {
            Some(name) => self.int_constant(name, "the axes"),
            None => Ok(node.ints("axes").unwrap_or_default().to_vec()),
        }
    }

    fn is_square(&self, node: Node<'a>) -> bool {
        let is_two = |name| matches!(self.float_constant(name).as_deref(), Some([two]) if two.to_bits() == 2_f32.to_bits());
        match node.op() {
            "Pow" => node.input(1).is_some_and(is_two),
            "Mul" => node.input(0) == node.input(1),
            _ => false,
        }
    }

    /// The only reader of a tensor, if it is such an operator.
    fn next(&self, name: &str, op: &str) -> Option<usize> {
        self.graph.only_consumer(name).filter(|index| self.graph.nodes[*index].op() == op)
    }

    /// The constant row, or number, that a node takes beside another operand.
    fn other_constant(&self, node: Node<'a>, name: &str) -> Option<Vec<f32>> {
        let [a, b] = [node.input(0)?, node.input(1)?];
        let other = if a == name { b } else { a };
        let shape = self.weights_shape(other).ok()?;
        let is_row = shape.iter().rev().skip(1).all(|size| *size == 1) && volume(&shape) <= MAX_CONSTANT;
        self.float_constant(other).filter(|_| is_row && !self.graph.is_of_row(other))
    }

    /// Notes that these run in f32, in a step that is there.
    fn settle_floats(&mut self, nodes: &[usize]) {
        for index in nodes {
            self.runs[*index] = Some(Runs::Float);
        }
    }

    /// A function of each value, in f32.
    pub(super) fn curve(&mut self, node: Node<'a>) -> Result<(), Reason> {
        if self.spelled_gate(node)? {
            return Ok(());
        }
        let is_exact = !matches!(node.text("approximate"), Some(kind) if kind != "none");
        let curve = match node.op() {
            "Erf" => Curve::Erf,
            "Gelu" if is_exact => Curve::Gelu,
            "Tanh" => Curve::Tanh,
            "Sigmoid" => Curve::Sigmoid,
            "HardSwish" => Curve::HardSwish,
            "Sqrt" => Curve::Sqrt,
            "Reciprocal" => Curve::Reciprocal,
            "Pow" if self.is_square(node) => Curve::Square,
            _ => return Err(Reason::Form("the result isn't quantized again")),
        };
        let (from, shape) = self.float(Self::input(node, 0)?)?;
        self.push_float(FloatOp::Curve(curve), vec![from], node.output(), shape);
        Ok(())
    }

    /// What is multiplied by its own Sigmoid or HardSigmoid; whether this node is that.
    fn spelled_gate(&mut self, node: Node<'a>) -> Result<bool, Reason> {
        let near =
            |name: &str, default: f32, want: f32| (node.float(name).unwrap_or(default) - want).abs() < 1e-6;
        let curve = match node.op() {
            "Sigmoid" => Curve::Silu,
            "HardSigmoid" if near("alpha", 0.2, 1.0 / 6.0) && near("beta", 0.5, 0.5) => Curve::HardSwish,
            _ => return Ok(false),
        };
        let name = Self::input(node, 0)?;
        let Some(index) = self.next(node.output(), "Mul") else { return Ok(false) };
        let product = self.graph.nodes[index];
        if !product.0.input.iter().any(|input| input == name) {
            return Ok(false);
        }
        let (from, shape) = self.float(name)?;
        self.push_float(FloatOp::Curve(curve), vec![from], product.output(), shape);
        self.settle_floats(&[index]);
        Ok(true)
    }

    /// Gelu as torch writes it: x / sqrt 2, its error function, one more, times x, times a half.
    fn spelled_gelu(&mut self, node: Node<'a>) -> bool {
        let Some(Pattern { nodes, output, what: x }) = self.find_gelu(node) else { return false };
        let Ok((from, shape)) = self.float(x) else { return false };
        self.push_float(FloatOp::Curve(Curve::Gelu), vec![from], output, shape);
        self.settle_floats(&nodes);
        true
    }

    fn find_gelu(&self, node: Node<'a>) -> Option<Pattern<'a, &'a str>> {
        let near = |got: Option<Vec<f32>>, want: f32| {
            got.is_some_and(|got| matches!(got[..], [got] if (got - want).abs() < 1e-6))
        };
        let x = node.input(0)?;
        let (divisor, factor) = (std::f32::consts::SQRT_2, std::f32::consts::FRAC_1_SQRT_2);
        let by = self.other_constant(node, x);
        let is_begin = match node.op() {
            "Div" => near(by, divisor),
            "Mul" => near(by, factor),
            _ => false,
        };
        is_begin.then_some(())?;
        let erf = self.next(node.output(), "Erf")?;
        let made = |index: usize| self.graph.nodes[index].output();
        let add = self.next(made(erf), "Add")?;
        near(self.other_constant(self.graph.nodes[add], made(erf)), 1.0).then_some(())?;
        let product = self.next(made(add), "Mul")?;
        self.graph.nodes[product].0.input.iter().any(|input| input == x).then_some(())?;
        let half = self.next(made(product), "Mul")?;
        near(self.other_constant(self.graph.nodes[half], made(product)), 0.5).then_some(())?;
        Some(Pattern { nodes: vec![erf, add, product, half], output: made(half), what: x })
    }

    /// Add, Sub, Mul and Div of two tensors, of which one may be smaller.
    pub(super) fn arithmetic(&mut self, node: Node<'a>) -> Result<(), Reason> {
        if self.spelled_gelu(node) {
            return Ok(());
        }
        let names = [Self::input(node, 0)?, Self::input(node, 1)?];
        let (op, turned) = match node.op() {
            "Add" => (Arith::Add, Arith::Add),
            "Sub" => (Arith::Sub, Arith::SubFrom),
            "Mul" => (Arith::Mul, Arith::Mul),
            "Div" => (Arith::Div, Arith::DivInto),
            _ => return Err(Reason::Operator),
        };
        let is_swapped = self.is_smaller(names[0], names[1])?;
        let (op, [a, b]) = if is_swapped { (turned, [names[1], names[0]]) } else { (op, names) };
        let Operand::Value(a, shape) = self.operand_of(a)? else {
            return Err(Reason::Form("a constant is larger than what it is added to"));
        };
        let (operand, of) = match self.operand_of(b)? {
            Operand::Value(id, of) if of.len() == shape.len() => ((Some(id), Vec::new()), of),
            Operand::Constant(values, of) => ((None, values), of),
            Operand::Value(..) => return Err(Reason::Form("the operands are of different rank")),
        };
        let (repeat, each) = spread(&of, &shape).ok_or(Reason::Form("the operands have different shapes"))?;
        let from = [Some(a), operand.0].into_iter().flatten().collect();
        self.push_float(FloatOp::Arith { op, repeat, each, constant: operand.1 }, from, node.output(), shape);
        Ok(())
    }

    fn is_smaller(&mut self, a: &'a str, b: &'a str) -> Result<bool, Reason> {
        let size = |this: &Self, name: &str| -> Result<(u8, usize), Reason> {
            match this.bound.get(name) {
                Some(bound) => Ok((1, volume(&bound.shape))),
                None => Ok((0, volume(&this.weights_shape(name)?))),
            }
        };
        Ok(size(self, a)? < size(self, b)?)
    }

    fn operand_of(&mut self, name: &'a str) -> Result<Operand, Reason> {
        if self.bound.contains_key(name) {
            return self.float(name).map(|(id, shape)| Operand::Value(id, shape));
        }
        let shape = self.weights_shape(name)?;
        let is_kept = volume(&shape) <= MAX_CONSTANT && !self.graph.is_of_row(name);
        let values = self.float_constant(name).filter(|values| is_kept && !values.is_empty());
        values
            .map(|values| Operand::Constant(values, shape))
            .ok_or(Reason::NotConstant { what: "an operand" })
    }
}

/// How a tensor of one shape meets a larger one: how many neighbours share a value, and how many values there are; none
/// if the axes that both have don't lie side by side.
pub(super) fn spread(small: &[usize], large: &[usize]) -> Option<(usize, usize)> {
    let missing = large.len().checked_sub(small.len())?;
    let own = |axis: usize| axis.checked_sub(missing).map_or(1, |axis| small[axis]);
    let is_shared = |axis: &usize| own(*axis) == large[*axis] && large[*axis] != 1;
    let first = (0..large.len()).find(is_shared);
    let last = (0..large.len()).rfind(is_shared);
    let fits = |axis: usize| {
        let is_inside = first.zip(last).is_some_and(|(first, last)| (first..=last).contains(&axis));
        if is_inside { own(axis) == large[axis] } else { own(axis) == 1 }
    };
    (0..large.len()).all(fits).then(|| match first.zip(last) {
        Some((first, last)) => (volume(&large[last + 1..]), volume(&large[first..=last])),
        None => (volume(large).max(1), 1),
    })
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn axes_that_both_have_lie_side_by_side() {
        let large = [1, 12, 64, 32];
        for (small, want) in [
            (&[1, 12, 64, 32][..], Some((1, 12 * 64 * 32))),
            (&[32], Some((1, 32))),
            (&[], Some((12 * 64 * 32, 1))),
            (&[1, 1, 1, 32], Some((1, 32))),
            (&[12, 1, 1], Some((64 * 32, 12))),
            (&[64, 1], Some((32, 64))),
            (&[1, 12, 64, 1], Some((32, 12 * 64))),
            (&[1, 12, 1, 32], None),
            (&[7], None),
            (&[1, 1, 12, 64, 32], None),
        ] {
            assert_eq!(spread(small, &large), want, "{small:?}");
        }
    }
}
