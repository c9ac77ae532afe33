//! Functions of one value between two quantizations, however many nodes they are written in: one table of 256 bytes.

use super::Reason;
use super::graph::Node;
use super::quant::table;
use super::sink::End;
use super::unary::function;
use super::walk::{Kind, Lowering};
use crate::int8::program::Step;
use crate::tensor::volume;

/// Most nodes of one function.
const MAX_NODES: usize = 64;

type Function = Box<dyn Fn(f32) -> f32>;

impl<'a> Lowering<'a> {
    /// A node that maps each value of a view, and those behind it up to the next quantization.
    pub(super) fn tabled(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let names = node.0.input.iter().map(String::as_str);
        let name = names.clone().find(|name| self.bound.contains_key(name));
        let name = name.ok_or_else(|| Reason::NotQuantized { name: node.output().to_owned() })?;
        let quant = self.view(name)?;
        let rank = quant.shape.len();
        let mut all = self.function_of(node, name, rank).ok_or(Reason::Operator)?;
        let (mut output, mut absorbed) = (node.output(), Vec::new());
        let sink = loop {
            let sink = self.sink(output);
            let End::Float(end) = sink.end else { break sink };
            let next = self.graph.only_consumer(end).filter(|_| absorbed.len() < MAX_NODES);
            let next = next.ok_or(Reason::Form("the result isn't quantized again"))?;
            let node = self.graph.nodes[next];
            let then = self.function_of(node, end, rank);
            let then = then.ok_or(Reason::Form("the result isn't quantized again"))?;
            let (before, bounds) = (all, sink.bounds);
            all = Box::new(move |value| then(bounds.apply(before(value))));
            absorbed.extend(sink.absorbed);
            absorbed.push(next);
            output = node.output();
        };
        let End::Bytes(params, _) = sink.end else { return Err(Reason::Operator) };
        let bounds = sink.bounds;
        let table = Box::new(table(quant.params, params, |value| bounds.apply(all(value))));
        let to = self.act(&quant.shape, quant.form, params)?;
        self.steps.push(Step::Lookup { from: quant.act, table, to });
        self.absorb(&absorbed);
        self.finish(&sink, &quant.shape, Kind::Bytes(to, quant.form));
        Ok(())
    }

    /// What a node makes of each value of one operand, if all else that it reads is one number.
    fn function_of(&self, node: Node<'a>, name: &str, rank: usize) -> Option<Function> {
        if !matches!(node.op(), "Add" | "Sub" | "Mul" | "Div" | "Pow") {
            return function(node);
        }
        let [a, b] = [node.input(0)?, node.input(1)?];
        let is_first = a == name;
        let other = if is_first { b } else { a };
        let number = self.scalar(other, rank).filter(|_| a != b)?;
        Some(match (node.op(), is_first) {
            ("Add", _) => Box::new(move |x| x + number),
            ("Mul", _) => Box::new(move |x| x * number),
            ("Sub", true) => Box::new(move |x| x - number),
            ("Sub", false) => Box::new(move |x| number - x),
            ("Div", true) => Box::new(move |x| x / number),
            ("Div", false) => Box::new(move |x| number / x),
            ("Pow", true) => Box::new(move |x| x.powf(number)),
            _ => return None,
        })
    }

    /// A constant of one number and at most so many axes.
    pub(super) fn scalar(&self, name: &str, rank: usize) -> Option<f32> {
        let shape = self.weights_shape(name).ok()?;
        let is_one = volume(&shape) == 1 && shape.len() <= rank;
        self.float_constant(name).filter(|_| is_one)?.first().copied()
    }
}
