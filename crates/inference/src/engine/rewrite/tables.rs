//! Rows of a table that is stored in bytes, as the words of a text model are: taken first and made numbers of then. As
//! quantizers write it all of the table is made numbers of for each inference, of which it reads a few rows.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::order::read;

/// Turns `DequantizeLinear` of a constant and `Gather` of its rows around, where one scale holds for all of it: what is
/// read is the same.
pub(in super::super) fn gather_first(proto: &mut ModelProto) {
    if let Some(graph) = &mut proto.graph {
        gather_first_in(graph);
    }
}

fn gather_first_in(graph: &mut GraphProto) {
    let stored: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let scalars: HashSet<&str> = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.dims.is_empty())
        .map(|tensor| tensor.name.as_str())
        .collect();
    let is_table = |node: &NodeProto| match &node.input[..] {
        [table, described @ ..] if !described.is_empty() => {
            let is_plain = node.domain.is_empty() && node.op_type == "DequantizeLinear";
            let has_axis_only = node.attribute.iter().all(|one| one.name == "axis");
            let has_one_scale = described.iter().all(|name| scalars.contains(name.as_str()));
            is_plain && has_axis_only && has_one_scale && stored.contains(table.as_str())
        }
        _ => false,
    };
    let tables: Vec<NodeProto> = graph.node.iter().filter(|node| is_table(node)).cloned().collect();
    if tables.is_empty() {
        return;
    }
    let names: HashSet<String> = graph.node.iter().flat_map(|node| node.output.iter().cloned()).collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        let table = tables.iter().find(|table| reads_rows_of(&node, table));
        let Some((table, output)) = table.zip(node.output.first().cloned()) else {
            nodes.push(node);
            continue;
        };
        let rows = format!("{output}.rows");
        if names.contains(&rows) {
            nodes.push(node);
            continue;
        }
        node.input[0].clone_from(&table.input[0]);
        node.output[0].clone_from(&rows);
        let mut numbers = NodeProto { name: rows.clone(), output: vec![output], ..table.clone() };
        numbers.input[0] = rows;
        nodes.extend([node, numbers]);
    }
    graph.node = nodes;
    drop_unread(graph, &tables);
}

fn reads_rows_of(node: &NodeProto, table: &NodeProto) -> bool {
    node.domain.is_empty() && node.op_type == "Gather" && node.input.first() == table.output.first()
}

/// The tables that nothing reads any more as a whole.
fn drop_unread(graph: &mut GraphProto, tables: &[NodeProto]) {
    let mut names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    graph.node.iter().for_each(|node| read(node, &mut names));
    let read: HashSet<String> = names.into_iter().map(str::to_owned).collect();
    let is_table = |node: &NodeProto| tables.iter().any(|table| table.output == node.output);
    graph.node.retain(|node| !is_table(node) || node.output.iter().any(|output| read.contains(output)));
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::tests::{constant, model, node};
    use super::*;

    fn words(nodes: Vec<NodeProto>, scale_dims: &[i64]) -> Vec<String> {
        let table = constant("table", 3, &[3, 2], vec![1, 2, 3, 4, 5, 6]);
        let scale = constant("scale", 1, scale_dims, 0.5_f32.to_le_bytes().to_vec());
        let zero = constant("zero", 3, scale_dims, vec![1]);
        let mut file = model(nodes, vec![table, scale, zero]);
        gather_first(&mut file);
        file.graph
            .unwrap()
            .node
            .into_iter()
            .map(|node| format!("{}({})", node.op_type, node.input.join(",")))
            .collect()
    }

    fn table() -> NodeProto {
        node("DequantizeLinear", &["table", "scale", "zero"], "numbers", &[])
    }

    fn gather() -> NodeProto {
        node("Gather", &["numbers", "x"], "y", &[])
    }

    #[test]
    fn rows_are_taken_of_bytes_where_one_scale_holds_for_all() {
        let turned = ["Gather(table,x)", "DequantizeLinear(y.rows,scale,zero)"];
        assert_eq!(words(vec![table(), gather()], &[]), turned);
        let kept = ["DequantizeLinear(table,scale,zero)", "Gather(numbers,x)"];
        assert_eq!(words(vec![table(), gather()], &[1]), kept, "a scale for each of something");
    }

    #[test]
    fn what_reads_the_whole_table_still_finds_it() {
        let product = node("MatMul", &["z", "numbers"], "w", &[]);
        let all = words(vec![table(), gather(), product], &[]);
        let expected = [
            "DequantizeLinear(table,scale,zero)",
            "Gather(table,x)",
            "DequantizeLinear(y.rows,scale,zero)",
            "MatMul(z,numbers)",
        ];
        assert_eq!(all, expected);
    }
}
