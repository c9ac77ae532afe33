//! Operators of com.microsoft in ONNX's own words: f32 between DequantizeLinear and QuantizeLinear. So tract runs a form
//! of them that int8 doesn't know. Not the pools: ONNX Runtime's divide by other counts than ONNX's.

use tract_onnx::pb::NodeProto;

use super::graph::Node;

/// Where a node has its 8-bit operands, and what its result is quantized by: each time the place of a scale or of
/// an operand right before its scale, with the zero point behind.
struct Places {
    op: &'static str,
    operands: Vec<usize>,
    result: usize,
}

fn places(node: Node<'_>) -> Option<Places> {
    let (op, operands, result) = match node.op() {
        "QLinearAdd" => ("Add", vec![0, 3], 6),
        "QLinearMul" => ("Mul", vec![0, 3], 6),
        "QLinearConcat" => ("Concat", (2..node.0.input.len()).step_by(3).collect(), 0),
        "QLinearLeakyRelu" => ("LeakyRelu", vec![0], 3),
        "QLinearSigmoid" => ("Sigmoid", vec![0], 3),
        _ => return None,
    };
    Some(Places { op, operands, result })
}

/// The nodes of ONNX that make of the same inputs the same output; none for operators that ONNX can't say like this.
pub(super) fn in_onnx(node: Node<'_>) -> Option<Vec<NodeProto>> {
    let Places { op, operands, result } = places(node)?;
    let output = node.output();
    let made = |op: &str, input: Vec<String>, output: String| NodeProto {
        op_type: op.to_owned(),
        input,
        output: vec![output],
        ..NodeProto::default()
    };
    // A value with its scale, and its zero point where there is one.
    let quantized = |value: String, scale: usize| -> Option<Vec<String>> {
        let zero = node.input(scale + 1).map(str::to_owned);
        Some([value, node.input(scale)?.to_owned()].into_iter().chain(zero).collect())
    };
    let (mut nodes, mut plain) = (Vec::new(), Vec::new());
    for slot in operands {
        let name = format!("{output}/operand_{slot}");
        let input = quantized(node.input(slot)?.to_owned(), slot + 1)?;
        nodes.push(made("DequantizeLinear", input, name.clone()));
        plain.push(name);
    }
    let float = format!("{output}/plain");
    nodes.push(NodeProto { attribute: node.0.attribute.clone(), ..made(op, plain, float.clone()) });
    nodes.push(made("QuantizeLinear", quantized(float, result)?, output.to_owned()));
    Some(nodes)
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::Framework as _;

    use super::*;
    use crate::engine::{Feed, Verdict};
    use crate::int8::kernel::Level;
    use crate::int8::lower::lower;

    #[test]
    fn an_addition_reads_and_writes_as_it_was_quantized() {
        let input = ["a", "as", "az", "b", "bs", "", "ys", "yz"].map(str::to_owned).to_vec();
        let node = NodeProto {
            op_type: "QLinearAdd".to_owned(),
            domain: "com.microsoft".to_owned(),
            input,
            output: vec!["y".to_owned()],
            ..NodeProto::default()
        };
        let nodes = in_onnx(Node(&node)).unwrap();
        let said: Vec<String> =
            nodes.iter().map(|node| format!("{}({})", node.op_type, node.input.join(" "))).collect();
        assert_eq!(said[..2], ["DequantizeLinear(a as az)", "DequantizeLinear(b bs)"]);
        assert_eq!(said[2..], ["Add(y/operand_0 y/operand_3)", "QuantizeLinear(y/plain ys yz)"]);
        assert!(nodes.iter().all(|node| node.domain.is_empty()) && nodes[3].output == ["y"]);
        assert!(in_onnx(Node(&NodeProto { op_type: "QGemm".to_owned(), ..node })).is_none());
    }

    #[test]
    fn a_form_that_nothing_runs_is_named_not_the_layers_around_it() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/made");
        let bytes = std::fs::read(format!("{folder}/qgemm_tensor.onnx")).unwrap();
        let mut model = tract_onnx::onnx().proto_model_for_read(&mut bytes.as_slice()).unwrap();
        let feed = Feed { name: "input".to_owned(), shape: vec![1, 24], is_batched: true };
        assert!(lower(&model, std::slice::from_ref(&feed), Level::detect(), Verdict::InPlace).is_ok());
        let nodes = &mut model.graph.as_mut().unwrap().node;
        let product = nodes.iter_mut().find(|node| node.op_type == "QGemm").unwrap();
        // Weights that the request brings.
        product.input[3] = product.input[0].clone();
        let name = product.name.clone();
        let Err(report) = lower(&model, &[feed], Level::detect(), Verdict::InPlace) else {
            panic!("it was lowered")
        };
        assert_eq!(report.stuck, Some(("QGemm".to_owned(), name.clone())));
        let why = report.why_whole();
        assert!(
            why.contains(&format!("QGemm {name:?} exists in int8 only")) && why.contains("weights"),
            "{why}"
        );
    }
}
