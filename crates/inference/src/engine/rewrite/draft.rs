//! The nodes that stand for another one, while they are written down.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

/// Types of attributes, as ONNX numbers them.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const TENSOR: i32 = 4;
const INTS: i32 = 7;

/// Nodes that together make what `node` makes.
pub(super) struct Draft<'n> {
    node: &'n NodeProto,
    nodes: Vec<NodeProto>,
}

impl<'n> Draft<'n> {
    /// Nothing yet.
    pub(super) fn of(node: &'n NodeProto) -> Self {
        Self { node, nodes: Vec::new() }
    }

    /// Adds a node of ONNX's own; the name of what it makes.
    pub(super) fn op(&mut self, op: &str, input: &[&str], attribute: Vec<AttributeProto>) -> String {
        let name = self.fresh(op);
        self.nodes.push(NodeProto {
            name: name.clone(),
            op_type: op.to_owned(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![name.clone()],
            attribute,
            ..NodeProto::default()
        });
        name
    }

    /// Adds a node as it is.
    pub(super) fn add(&mut self, node: NodeProto) {
        self.nodes.push(node);
    }

    /// A name that nothing else has: outputs have names of their own, and this one begins with one.
    pub(super) fn fresh(&self, what: &str) -> String {
        let output = self.node.output.iter().find(|name| !name.is_empty());
        format!("{}/{}_{what}", output.map_or("", String::as_str), self.nodes.len())
    }

    /// One f32.
    pub(super) fn float(&mut self, value: f32) -> String {
        self.constant(TensorProto {
            data_type: DataType::Float as i32,
            float_data: vec![value],
            ..TensorProto::default()
        })
    }

    /// A list of f32.
    pub(super) fn floats(&mut self, values: &[f32]) -> String {
        self.constant(TensorProto {
            data_type: DataType::Float as i32,
            dims: vec![i64::try_from(values.len()).unwrap_or(i64::MAX)],
            float_data: values.to_vec(),
            ..TensorProto::default()
        })
    }

    /// One INT64.
    pub(super) fn int(&mut self, value: i64) -> String {
        self.whole(Vec::new(), vec![value])
    }

    /// A list of INT64.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        self.whole(vec![i64::try_from(values.len()).unwrap_or(i64::MAX)], values.to_vec())
    }

    fn whole(&mut self, dims: Vec<i64>, int64_data: Vec<i64>) -> String {
        let data_type = DataType::Int64 as i32;
        self.constant(TensorProto { data_type, dims, int64_data, ..TensorProto::default() })
    }

    fn constant(&mut self, value: TensorProto) -> String {
        let value =
            AttributeProto { name: "value".to_owned(), r#type: TENSOR, t: Some(value), ..<_>::default() };
        self.op("Constant", &[], vec![value])
    }

    /// The nodes; the last one makes the node's only output.
    pub(super) fn end(mut self) -> Vec<NodeProto> {
        if let Some(last) = self.nodes.last_mut() {
            last.output.clone_from(&self.node.output);
            if !self.node.name.is_empty() {
                last.name.clone_from(&self.node.name);
            }
        }
        self.nodes
    }

    /// The nodes, which make outputs of the node's by name.
    pub(super) fn into_nodes(self) -> Vec<NodeProto> {
        self.nodes
    }

    /// Gives the result of the node that was added last a name.
    pub(super) fn rename_last(&mut self, output: &str) {
        if let Some(last) = self.nodes.last_mut() {
            last.output = vec![output.to_owned()];
        }
    }
}

/// An attribute of one whole number.
pub(in super::super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: INT, i, ..AttributeProto::default() }
}

/// An attribute of one number.
pub(super) fn real(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: FLOAT, f, ..AttributeProto::default() }
}

/// An attribute of text.
pub(super) fn words(name: &str, text: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: STRING,
        s: text.as_bytes().to_vec(),
        ..AttributeProto::default()
    }
}

/// An attribute of several.
pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: INTS, ints: ints.to_vec(), ..AttributeProto::default() }
}

/// A node without some of its attributes.
pub(in super::super) fn without(node: &NodeProto, names: &[&str]) -> NodeProto {
    let mut node = node.clone();
    node.attribute.retain(|attribute| !names.contains(&attribute.name.as_str()));
    node
}
