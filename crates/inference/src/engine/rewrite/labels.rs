//! Texts as labels of classes, which tract doesn't answer. Where nothing that a graph gives out is made of them, their
//! nodes are left out, and a classifier counts its classes instead.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::super::attributes::{attribute, int_or};
use super::super::shown;
use super::draft::{ints, without};
use super::order::read;
use crate::error::LoadError;

/// A classifier's texts, and what it calls its labels that are numbers.
const CLASSIFIERS: [(&str, &str); 2] =
    [("LinearClassifier", "classlabels_ints"), ("TreeEnsembleClassifier", "classlabels_int64s")];
const TEXTS: &str = "classlabels_strings";

/// Operators that give texts where they get some.
const CARRIERS: [&str; 12] = [
    "ArrayFeatureExtractor",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Leaves texts out that no output is made of; the nodes are in order.
///
/// # Errors
///
/// An output that gives texts.
pub(super) fn leave_out(graph: &mut GraphProto) -> Result<(), LoadError> {
    let texts = texts(graph);
    if texts.is_empty() {
        return Ok(());
    }
    if let Some(output) = graph.output.iter().find(|output| texts.contains(&output.name)) {
        let why = format!(
            "the output {:?} gives texts, which aren't answered here: train with numbers as labels and name the classes \
             in the release, or drop that output and keep the probabilities",
            shown(&output.name)
        );
        return Err(LoadError::Runtime { why });
    }
    let needed = needed(graph);
    let is_needed = |name: &String| needed.contains(name);
    graph.node.retain(|node| {
        let is_of_texts = node.input.iter().chain(&node.output).any(|name| texts.contains(name));
        !is_of_texts || node.output.iter().any(is_needed)
    });
    for node in &mut graph.node {
        let is_unread = node.output.first().is_none_or(|label| !needed.contains(label));
        if let Some(counted) = is_unread.then(|| counted(node)).flatten() {
            *node = counted;
        }
    }
    graph.initializer.retain(|tensor| !is_text(tensor) || is_needed(&tensor.name));
    graph.input.retain(|input| !texts.contains(&input.name) || is_needed(&input.name));
    Ok(())
}

/// Values that are texts.
fn texts(graph: &GraphProto) -> HashSet<String> {
    let constants = graph.initializer.iter().filter(|tensor| is_text(tensor));
    let mut texts: HashSet<String> = constants.map(|tensor| tensor.name.clone()).collect();
    for node in &graph.node {
        let made = match node.op_type.as_str() {
            "Constant" => {
                let is_one = attribute(node, "value").and_then(|value| value.t.as_ref()).is_some_and(is_text);
                is_one || ["value_string", "value_strings"].iter().any(|name| attribute(node, name).is_some())
            }
            "Cast" => int_or(node, "to", 0) == DataType::String as i64,
            op if CARRIERS.contains(&op) => node.input.iter().any(|input| texts.contains(input)),
            _ => labels(node) > 0,
        };
        texts.extend(node.output.first().filter(|_| made).cloned());
    }
    texts
}

fn is_text(tensor: &TensorProto) -> bool {
    tensor.data_type == DataType::String as i32
}

/// How many texts are a classifier's labels.
fn labels(node: &NodeProto) -> usize {
    let is_one = CLASSIFIERS.iter().any(|(op, _)| *op == node.op_type);
    attribute(node, TEXTS).filter(|_| is_one).map_or(0, |texts| texts.strings.len())
}

/// What the graph's outputs are made of, and they.
fn needed(graph: &GraphProto) -> HashSet<String> {
    let mut needed: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    for node in graph.node.iter().rev() {
        if node.output.iter().any(|name| needed.contains(name)) {
            let mut names = Vec::new();
            read(node, &mut names);
            needed.extend(names.into_iter().map(str::to_owned));
        }
    }
    needed
}

/// The same classifier of classes that are counted from 0.
fn counted(node: &NodeProto) -> Option<NodeProto> {
    let (_, numbers) = CLASSIFIERS.iter().find(|(op, _)| *op == node.op_type)?;
    let count = i64::try_from(labels(node)).ok().filter(|count| *count > 0)?;
    let mut node = without(node, &[TEXTS, numbers]);
    node.attribute.push(ints(numbers, &(0..count).collect::<Vec<_>>()));
    Some(node)
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, ModelProto};

    use super::super::super::load::Engine;
    use super::super::super::onnx;
    use super::super::super::plan::Feed;
    use super::super::super::plan::tests::{fed, model, node};
    use super::*;
    use crate::error::chain;
    use crate::int8::Int8;
    use crate::tensor::Data;

    /// A classifier of two values, whose labels are taken from a table again; `y` is one of its results.
    fn classifier(output: &str) -> ModelProto {
        let floats = |name: &str, floats: &[f32]| AttributeProto {
            name: name.to_owned(),
            r#type: 6,
            floats: floats.to_vec(),
            ..AttributeProto::default()
        };
        let strings: Vec<Vec<u8>> = ["worn", "ok", "new"].map(Into::into).to_vec();
        let labels =
            AttributeProto { name: TEXTS.to_owned(), r#type: 8, strings: strings.clone(), ..<_>::default() };
        let weights = floats("coefficients", &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        let mut linear = node("LinearClassifier", &["x"], "label", &[]);
        linear.domain = "ai.onnx.ml".to_owned();
        linear.output.push("scores".to_owned());
        linear.attribute = vec![labels, weights, floats("intercepts", &[0.0; 3])];
        let best = node("ArgMax", &["scores"], "best", &[("axis", &[1])]);
        let taken = NodeProto {
            domain: "ai.onnx.ml".to_owned(),
            ..node("ArrayFeatureExtractor", &["classes", "best"], "taken", &[])
        };
        let last = node("Identity", &[output], "y", &[]);
        let table = TensorProto {
            name: "classes".to_owned(),
            data_type: 8,
            dims: vec![3],
            string_data: strings,
            ..TensorProto::default()
        };
        model(vec![linear, best, taken, last], vec![table])
    }

    fn loaded(output: &str) -> Result<Engine, String> {
        let feed = Feed { name: "x".to_owned(), shape: vec![1, 2], is_batched: true };
        Engine::of_proto(&onnx(), classifier(output), &[feed], Int8::On).map_err(|error| chain(&error))
    }

    #[test]
    fn scores_are_answered_where_no_output_gives_texts() {
        let answers = loaded("scores").unwrap().run(&fed(&[2, 2], vec![1.0, 2.0, 3.0, -1.0]), 2).unwrap();
        assert_eq!(answers[0], (vec![2, 3], Data::Fp32(vec![1.0, 2.0, 3.0, 3.0, -1.0, 2.0])));
        assert!(loaded("best").is_ok());
    }

    #[test]
    fn an_output_of_texts_is_refused_with_what_to_do() {
        for output in ["label", "taken"] {
            let why = loaded(output).err().unwrap_or_default();
            assert!(
                why.contains("the output \"y\" gives texts") && why.contains("drop that output"),
                "{why}"
            );
        }
    }
}
