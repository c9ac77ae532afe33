//! Constants that the file has worked out while it runs, such as a table of positions that gets an axis for the rows:
//! tract works them out once, at load. They are constants of the graph then, so that what quantizes them folds too,
//! and no row is expected of them where a model is asked for several. What quantizes and dequantizes isn't worked out
//! itself: int8 reads it as it stands.

use std::collections::{BTreeSet, HashSet};

use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::graph::Node;
use super::islands::model;
use super::tensor;
use super::walk::Lowering;
use super::{is_only_int8, words_of_onnx};
use crate::engine::{Plan, RANDOM, Value, Verdict};
use crate::int8::report::Runs;
use crate::tensor::{Data, volume};

/// Most elements of the constants that are read for it, and of what is made of them: 16 MB in f32. What is beyond them
/// is worked out by each island that reads it.
const MAX_COMPUTED: usize = 4 << 20;
/// Most nodes that one value is worked out by.
const MAX_NODES: usize = 256;

impl<'a> Lowering<'a> {
    /// Works out what depends on constants alone; whether there was something.
    pub(super) fn compute_constants(&mut self) -> bool {
        let (computed, made) = self.computed();
        let (wanted, read) = self.wanted(&computed, &made);
        let (chosen, nodes) = self.chosen(&wanted);
        let values = self.values_of(&chosen, &nodes).unwrap_or_default();
        let mut room = MAX_COMPUTED;
        for (name, (shape, data)) in chosen.into_iter().zip(values) {
            let Some(left) = room.checked_sub(volume(&shape)) else { continue };
            if let Some(constant) = constant(name, &shape, &data) {
                room = left;
                self.graph.fold_for_all_rows(name, constant);
            }
        }
        let lost: HashSet<&str> =
            wanted.into_iter().filter(|name| self.graph.constant(name).is_none()).collect();
        for index in &computed {
            self.settle(*index, &lost, &read);
        }
        !nodes.is_empty()
    }

    /// The nodes that read nothing but constants, in order, and what they make.
    fn computed(&self) -> (Vec<usize>, HashSet<&'a str>) {
        let (mut computed, mut made) = (Vec::new(), HashSet::new());
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let mut inputs = node.0.input.iter().map(String::as_str).filter(|name| !name.is_empty());
            let is_constant = |name: &str| self.graph.constant(name).is_some() || made.contains(name);
            let reads_something = inputs.clone().next().is_some();
            let is_done = self.graph.constant(node.output()).is_some();
            if reads_something && !is_done && inputs.all(is_constant) && self.is_computable(*node) {
                computed.push(index);
                made.extend(node.0.output.iter().map(String::as_str).filter(|name| !name.is_empty()));
            }
        }
        (computed, made)
    }

    pub(super) fn is_computable(&self, node: Node<'a>) -> bool {
        let is_stuck = is_only_int8(node.0) && words_of_onnx(node.0, self.graph.opset()).is_none();
        !node.op().is_empty() && !is_stuck && !RANDOM.contains(&node.op())
    }

    /// Of these those that others read, and with them what is read as it stands. A result of the graph stays what it
    /// is.
    fn wanted(&self, computed: &[usize], made: &HashSet<&'a str>) -> (Vec<&'a str>, HashSet<&'a str>) {
        let mut read: HashSet<&'a str> = HashSet::new();
        let nodes = self.graph.nodes.iter().enumerate();
        let others = nodes.filter(|(index, _)| computed.binary_search(index).is_err());
        read.extend(others.flat_map(|(_, node)| node.0.input.iter().map(String::as_str)));
        read.retain(|name| made.contains(name));
        let mut wanted = Vec::new();
        for index in computed.iter().rev() {
            let node = self.graph.nodes[*index];
            let outputs = node.0.output.iter().map(String::as_str);
            let outputs: Vec<&'a str> = outputs.filter(|name| read.contains(name)).collect();
            if outputs.is_empty() {
                continue;
            }
            if self.is_read_as_it_stands(node) {
                read.extend(node.0.input.iter().map(String::as_str).filter(|name| made.contains(name)));
            } else {
                wanted.extend(outputs.into_iter().filter(|name| !self.graph.is_output(name)));
            }
        }
        wanted.reverse();
        (wanted, read)
    }

    /// Of these those that are worked out here, and the nodes that do it.
    fn chosen(&self, wanted: &[&'a str]) -> (Vec<&'a str>, BTreeSet<usize>) {
        let (mut chosen, mut nodes, mut room) = (Vec::new(), BTreeSet::new(), MAX_COMPUTED);
        for name in wanted {
            let Some((more, elements)) = self.makers(name, &nodes) else { continue };
            let Some(left) = room.checked_sub(elements) else { continue };
            room = left;
            nodes.extend(more);
            chosen.push(*name);
        }
        (chosen, nodes)
    }

    /// The nodes that make a value, beside those that are there, and how many elements they read.
    fn makers(&self, name: &'a str, there: &BTreeSet<usize>) -> Option<(BTreeSet<usize>, usize)> {
        let (mut more, mut elements, mut names) = (BTreeSet::new(), 0_usize, vec![name]);
        while let Some(name) = names.pop() {
            if let Some(constant) = self.graph.constant(name) {
                elements = elements.saturating_add(volume(&tensor::shape(constant)?));
                continue;
            }
            let index = self.graph.producer_index(name)?;
            if there.contains(&index) || !more.insert(index) {
                continue;
            }
            if more.len() > MAX_NODES {
                return None;
            }
            let inputs = self.graph.nodes[index].0.input.iter().map(String::as_str);
            names.extend(inputs.filter(|name| !name.is_empty()));
        }
        Some((more, elements))
    }

    /// Whether a node quantizes a constant that nothing else reads, dequantizes one, or turns one of these.
    fn is_read_as_it_stands(&self, node: Node<'a>) -> bool {
        match node.op() {
            "DequantizeLinear" => true,
            "QuantizeLinear" => node.input(0).is_some_and(|name| self.graph.only_consumer(name).is_some()),
            _ => self.turned.contains_key(node.output()),
        }
    }

    fn values_of(&mut self, wanted: &[&'a str], nodes: &BTreeSet<usize>) -> Option<Vec<Value>> {
        if wanted.is_empty() {
            return None;
        }
        let nodes: Vec<usize> = nodes.iter().copied().collect();
        let draft = self.draft(&nodes).ok()?;
        draft.names_are_apart().ok()?;
        let ends: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let plan = Plan::build(model(self.graph.model, draft, &ends), &[], Some(Verdict::InPlace)).ok()?;
        plan.run(&[], 1).ok()
    }

    /// A node that was worked out runs no more; one that wasn't runs with each that reads it, so that tract sees
    /// constants there. What makes a result of the graph runs as it always did.
    fn settle(&mut self, index: usize, lost: &HashSet<&str>, read: &HashSet<&str>) {
        let node = self.graph.nodes[index];
        let outputs = || node.0.output.iter().map(String::as_str).filter(|name| !name.is_empty());
        let is_quantization = self.is_read_as_it_stands(node) && outputs().any(|name| read.contains(name));
        if is_quantization || outputs().any(|name| self.graph.is_output(name)) {
            return;
        }
        let is_lost = outputs().any(|name| lost.contains(name));
        let why = || "what it makes of constants isn't kept".to_owned();
        self.runs[index] = Some(if is_lost { Runs::Tract { why: why() } } else { Runs::Float });
        self.spare.extend(outputs());
    }
}

/// Numbers as a constant of the graph; none for types that no int8 rule and no island reads.
pub(super) fn constant(name: &str, shape: &[usize], data: &Data) -> Option<TensorProto> {
    let (kind, raw_data) = match data {
        Data::Fp32(values) => {
            (DataType::Float, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        Data::Int8(values) => (DataType::Int8, values.iter().map(|value| value.cast_unsigned()).collect()),
        Data::Uint8(values) => (DataType::Uint8, values.clone()),
        Data::Int32(values) => {
            (DataType::Int32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        Data::Int64(values) => {
            (DataType::Int64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        Data::Bool(values) => (DataType::Bool, values.iter().map(|value| u8::from(*value)).collect()),
        _ => return None,
    };
    let dims = shape.iter().map(|size| i64::try_from(*size).ok()).collect::<Option<_>>()?;
    Some(TensorProto {
        name: name.to_owned(),
        dims,
        data_type: kind as i32,
        raw_data,
        ..TensorProto::default()
    })
}
