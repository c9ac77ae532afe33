//! The trees of ONNX's classical models. tract goes from node to node as the file says, without end where they point
//! back.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::NodeProto;

use super::attributes::{attribute, attribute_ints};

/// Checks a tree ensemble's nodes; others pass. In a tree no two nodes point at the same one and none at the first,
/// so that each way down ends.
pub(super) fn check(node: &NodeProto) -> Result<(), String> {
    if !node.op_type.starts_with("TreeEnsemble") {
        return Ok(());
    }
    let [trees, ids, ifs, elses] =
        ["nodes_treeids", "nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids"]
            .map(|name| attribute_ints(node, name));
    let modes = attribute(node, "nodes_modes");
    let modes = modes.map_or(&[][..], |attribute| attribute.strings.as_slice());
    if [ids.len(), ifs.len(), elses.len(), modes.len()].iter().any(|count| *count != trees.len()) {
        return Err("has lists of tree nodes that aren't equally long".to_owned());
    }
    let all: HashSet<(i64, i64)> = trees.iter().copied().zip(ids.iter().copied()).collect();
    if all.len() < trees.len() {
        return Err("has the same tree node twice".to_owned());
    }
    let mut roots = HashMap::new();
    trees.iter().zip(ids).for_each(|(tree, id)| {
        roots.entry(*tree).or_insert(*id);
    });
    let mut pointed_at: HashSet<(i64, i64)> = roots.into_iter().collect();
    for place in (0..trees.len()).filter(|place| modes[*place] != b"LEAF") {
        for next in [ifs[place], elses[place]] {
            let (tree, id) = (trees[place], ids[place]);
            if !all.contains(&(tree, next)) || !pointed_at.insert((tree, next)) {
                return Err(format!(
                    "points from node {id} of tree {tree} to {next}, which isn't below it alone"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;

    use super::*;

    fn ensemble(ifs: &[i64], elses: &[i64], modes: &[&str]) -> NodeProto {
        let ids: Vec<i64> = (0..).take(ifs.len()).collect();
        let ints = |name: &str, ints: &[i64]| AttributeProto {
            name: name.to_owned(),
            ints: ints.to_vec(),
            ..AttributeProto::default()
        };
        let modes = AttributeProto {
            name: "nodes_modes".to_owned(),
            strings: modes.iter().map(|mode| mode.as_bytes().to_vec()).collect(),
            ..AttributeProto::default()
        };
        NodeProto {
            op_type: "TreeEnsembleClassifier".to_owned(),
            attribute: vec![
                ints("nodes_treeids", &vec![0; ifs.len()]),
                ints("nodes_nodeids", &ids),
                ints("nodes_truenodeids", ifs),
                ints("nodes_falsenodeids", elses),
                modes,
            ],
            ..NodeProto::default()
        }
    }

    #[test]
    fn each_way_down_a_tree_ends() {
        let modes = ["BRANCH_LEQ", "LEAF", "LEAF"];
        assert_eq!(check(&ensemble(&[1, 0, 0], &[2, 0, 0], &modes)), Ok(()));
        for (ifs, elses, modes) in [
            // To itself, to the first one, to one that isn't there, both to the same.
            ([0, 0, 0], [2, 0, 0], modes),
            ([1, 0, 0], [2, 0, 0], ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"]),
            ([1, 0, 0], [77, 0, 0], modes),
            ([1, 0, 0], [1, 0, 0], modes),
        ] {
            assert!(check(&ensemble(&ifs, &elses, &modes)).unwrap_err().contains("points from"), "{ifs:?}");
        }
        assert!(check(&ensemble(&[1], &[2, 3], &["LEAF"])).unwrap_err().contains("equally long"));
    }
}
