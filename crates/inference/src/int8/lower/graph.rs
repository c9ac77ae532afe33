//! A graph of an ONNX file with its names resolved: who makes a tensor, who reads it, what is constant.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::tensor;

/// Most bytes of a name that reports repeat.
const MAX_SHOWN: usize = 100;

/// The graph of a file.
pub(super) struct Graph<'a> {
    /// Nodes in the file's order, which is one that can be run.
    pub(super) nodes: Vec<Node<'a>>,
    constants: HashMap<&'a str, Cow<'a, TensorProto>>,
    /// Constants that were worked out and may hold for one row only.
    of_row: HashSet<&'a str>,
    consumers: HashMap<&'a str, Vec<usize>>,
    producers: HashMap<&'a str, usize>,
    outputs: HashSet<&'a str>,
    /// Ranks of the tensors over which windows slide; none where that isn't known.
    image_ranks: HashSet<Option<usize>>,
    /// The file, for what islands take over.
    pub(super) model: &'a ModelProto,
    /// The graph, for its inputs and outputs.
    pub(super) proto: &'a GraphProto,
}

/// A node.
#[derive(Clone, Copy)]
pub(super) struct Node<'a>(pub(super) &'a NodeProto);

impl<'a> Node<'a> {
    /// The operator; those of ONNX and of com.microsoft have no name in common that means another thing.
    pub(super) fn op(self) -> &'a str {
        match self.0.domain.as_str() {
            "" | "ai.onnx" | "com.microsoft" => &self.0.op_type,
            _ => "",
        }
    }

    /// Whether it takes an image as channels of pixels.
    fn slides_windows(self) -> bool {
        let op = self.op();
        op.contains("Conv") || op.contains("Pool") || matches!(op, "Resize" | "Upsample")
    }

    /// An input's name; none where it is left out.
    pub(super) fn input(self, slot: usize) -> Option<&'a str> {
        self.0.input.get(slot).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The first output's name.
    pub(super) fn output(self) -> &'a str {
        self.0.output.first().map_or("", String::as_str)
    }

    /// What reports call it: its name, or that of its first output where it has none.
    pub(super) fn shown(self) -> &'a str {
        let name = if self.0.name.is_empty() { self.output() } else { &self.0.name };
        &name[..name.floor_char_boundary(MAX_SHOWN)]
    }

    /// An attribute.
    pub(super) fn attribute(self, name: &str) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// An integer attribute.
    pub(super) fn int(self, name: &str) -> Option<i64> {
        self.attribute(name).map(|attribute| attribute.i)
    }

    /// A float attribute.
    pub(super) fn float(self, name: &str) -> Option<f32> {
        self.attribute(name).map(|attribute| attribute.f)
    }

    /// A list of integers.
    pub(super) fn ints(self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// A Constant's numbers where they stand in the node itself: one, or a list.
    fn listed_constant(self) -> Option<TensorProto> {
        let found = |name: &str| self.attribute(name).filter(|_| self.op() == "Constant");
        let output = self.output();
        if let Some(one) = found("value_int") {
            return tensor::of_ints(output, DataType::Int64, &[], vec![one.i]);
        }
        if let Some(list) = found("value_ints") {
            return tensor::of_ints(output, DataType::Int64, &[list.ints.len()], list.ints.clone());
        }
        if let Some(one) = found("value_float") {
            return Some(tensor::of_float(output, one.f));
        }
        found("value_floats").and_then(|list| tensor::of_floats(output, list.floats.clone()))
    }

    /// A text.
    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.attribute(name).and_then(|attribute| std::str::from_utf8(&attribute.s).ok())
    }
}

impl<'a> Graph<'a> {
    /// Reads a file that was checked; none if it has no graph.
    pub(super) fn new(model: &'a ModelProto) -> Option<Self> {
        let proto = model.graph.as_ref()?;
        let mut graph = Self {
            nodes: Vec::new(),
            constants: proto.initializer.iter().map(|t| (t.name.as_str(), Cow::Borrowed(t))).collect(),
            of_row: HashSet::new(),
            consumers: HashMap::new(),
            producers: HashMap::new(),
            outputs: proto.output.iter().map(|output| output.name.as_str()).collect(),
            image_ranks: HashSet::new(),
            model,
            proto,
        };
        for node in &proto.node {
            graph.add(node);
        }
        let windowed = graph.nodes.iter().filter(|node| node.slides_windows());
        graph.image_ranks = windowed.map(|node| graph.image_rank(*node)).collect();
        Some(graph)
    }

    /// The rank of the images that a node slides windows over.
    fn image_rank(&self, node: Node<'a>) -> Option<usize> {
        let sizes = node.ints("kernel_shape").map(|sizes| sizes.len() + 2);
        let slots = [1, 3].into_iter().filter_map(|slot| node.input(slot));
        let weights = slots.filter_map(|name| self.constant(name)).map(|weights| weights.dims.len());
        sizes.or_else(|| weights.max()).filter(|rank| *rank > 2)
    }

    /// Whether tensors of that rank may be images: channels first, then pixels.
    pub(super) fn has_images(&self, rank: usize) -> bool {
        self.image_ranks.contains(&None) || self.image_ranks.contains(&Some(rank))
    }

    fn add(&mut self, node: &'a NodeProto) {
        let node = Node(node);
        let value = node.attribute("value").and_then(|attribute| attribute.t.as_ref());
        let value = value.map(Cow::Borrowed).or_else(|| node.listed_constant().map(Cow::Owned));
        if let ("Constant", Some(value)) = (node.op(), value) {
            self.constants.insert(node.output(), value);
            return;
        }
        let index = self.nodes.len();
        for input in node.0.input.iter().filter(|name| !name.is_empty()) {
            self.consumers.entry(input).or_default().push(index);
        }
        for output in &node.0.output {
            self.producers.insert(output, index);
        }
        self.nodes.push(node);
    }

    /// Version of ONNX's own operators.
    pub(super) fn opset(&self) -> i64 {
        let own = |domain: &str| matches!(domain, "" | "ai.onnx");
        self.model.opset_import.iter().find(|set| own(&set.domain)).map_or(1, |set| set.version)
    }

    /// A constant by name.
    pub(super) fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.constants.get(name).map(Cow::as_ref)
    }

    /// Makes a name constant: something that was worked out from shapes.
    pub(super) fn fold(&mut self, name: &'a str, value: TensorProto) {
        self.constants.insert(name, Cow::Owned(value));
        self.of_row.insert(name);
    }

    /// Makes a name constant: something that was worked out from the file's constants alone.
    pub(super) fn fold_for_all_rows(&mut self, name: &'a str, value: TensorProto) {
        self.constants.insert(name, Cow::Owned(value));
    }

    /// Whether a constant was worked out and may hold for one row only.
    pub(super) fn is_of_row(&self, name: &str) -> bool {
        self.of_row.contains(name)
    }

    /// The nodes that read a tensor.
    pub(super) fn consumers(&self, name: &str) -> &[usize] {
        self.consumers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The only node that reads a tensor, if the graph doesn't give it out.
    pub(super) fn only_consumer(&self, name: &str) -> Option<usize> {
        match self.consumers(name) {
            [one] if !self.is_output(name) => Some(*one),
            _ => None,
        }
    }

    /// The node that makes a tensor.
    pub(super) fn producer(&self, name: &str) -> Option<Node<'a>> {
        self.producer_index(name).map(|index| self.nodes[index])
    }

    /// Its place among the nodes.
    pub(super) fn producer_index(&self, name: &str) -> Option<usize> {
        self.producers.get(name).copied()
    }

    /// Whether the graph gives the tensor out.
    pub(super) fn is_output(&self, name: &str) -> bool {
        self.outputs.contains(name)
    }

    /// Names of the inputs that are fed.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &'a str> {
        let names = self.proto.input.iter().map(|input| input.name.as_str());
        names.filter(|name| !self.constants.contains_key(name))
    }
}
