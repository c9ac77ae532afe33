//! What a node's attributes say, and what stands for one that is left out.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, NodeProto};

/// An attribute by name.
pub(super) fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// Whole numbers; none where it is left out.
pub(super) fn attribute_ints<'n>(node: &'n NodeProto, name: &str) -> &'n [i64] {
    attribute(node, name).map_or(&[][..], |attribute| attribute.ints.as_slice())
}

/// Numbers; none where it is left out.
pub(super) fn attribute_floats<'n>(node: &'n NodeProto, name: &str) -> &'n [f32] {
    attribute(node, name).map_or(&[][..], |attribute| attribute.floats.as_slice())
}

/// A whole number, or what stands for it where it is left out.
pub(super) fn int_or(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

/// A number, or what stands for it where it is left out; none for something else under that name, which tract refuses.
pub(super) fn float_or(node: &NodeProto, name: &str, default: f32) -> Option<f32> {
    let is_float = |one: &AttributeProto| one.r#type == AttributeType::Float as i32;
    attribute(node, name).map_or(Some(default), |one| is_float(one).then_some(one.f))
}

/// A text, or nothing.
pub(super) fn text<'n>(node: &'n NodeProto, name: &str) -> &'n str {
    attribute(node, name).and_then(|attribute| std::str::from_utf8(&attribute.s).ok()).unwrap_or("")
}
