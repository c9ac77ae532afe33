//! The trees of ONNX's classical models. tract goes from node to node as the file says, without end where they point
//! back, counts nodes where the file numbers them, and adds weights to classes without a look whether there are such.

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
    numbers(trees, ids)?;
    let is_leaf = |(_, mode): &(_, &Vec<u8>)| mode.as_slice() == b"LEAF";
    let nodes = trees.iter().copied().zip(ids.iter().copied()).zip(modes);
    weights(node, &nodes.filter(is_leaf).map(|(node, _)| node).collect())
}

/// tract takes the number of a node for its place among those of its tree.
fn numbers(trees: &[i64], ids: &[i64]) -> Result<(), String> {
    let mut counts: HashMap<i64, i64> = HashMap::new();
    for tree in trees {
        *counts.entry(*tree).or_insert(0) += 1;
    }
    match trees.iter().zip(ids).find(|(tree, id)| !(0..counts[tree]).contains(id)) {
        Some((tree, id)) => {
            Err(format!("has a node {id} in tree {tree} of {}; they are counted from 0", counts[tree]))
        }
        None => Ok(()),
    }
}

/// Weights are those of leaves, for classes that there are.
fn weights(node: &NodeProto, leaves: &HashSet<(i64, i64)>) -> Result<(), String> {
    let [trees, ids, classes, ints] = ["class_treeids", "class_nodeids", "class_ids", "classlabels_int64s"]
        .map(|name| attribute_ints(node, name));
    let texts = attribute(node, "classlabels_strings").map_or(0, |labels| labels.strings.len());
    let count = i64::try_from(ints.len().max(texts)).unwrap_or(i64::MAX);
    if let Some(class) = classes.iter().find(|class| !(0..count).contains(*class)) {
        return Err(format!("has a weight for class {class} of {count}"));
    }
    match trees.iter().copied().zip(ids.iter().copied()).find(|leaf| !leaves.contains(leaf)) {
        Some((tree, id)) => Err(format!("has a weight at node {id} of tree {tree}, which is no leaf")),
        None => Ok(()),
    }
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

    #[test]
    fn weights_are_those_of_leaves_for_classes_that_there_are() {
        let ints = |name: &str, int: i64| AttributeProto {
            name: name.to_owned(),
            ints: vec![int],
            ..AttributeProto::default()
        };
        let of = |leaf: i64, class: i64| {
            let mut node = ensemble(&[1, 0, 0], &[2, 0, 0], &["BRANCH_LEQ", "LEAF", "LEAF"]);
            let more = [("class_treeids", 0), ("class_nodeids", leaf), ("class_ids", class)];
            node.attribute.extend(more.map(|(name, int)| ints(name, int)));
            node.attribute.push(ints("classlabels_int64s", 7));
            check(&node)
        };
        assert_eq!(of(1, 0), Ok(()));
        for (leaf, class, word) in
            [(1, 1, "class 1 of 1"), (1, -1, "class -1"), (0, 0, "no leaf"), (9, 0, "no leaf")]
        {
            assert!(of(leaf, class).unwrap_err().contains(word), "{leaf} {class}");
        }
    }

    #[test]
    fn nodes_are_counted_from_0() {
        let mut node = ensemble(&[2, 0, 0], &[3, 0, 0], &["BRANCH_LEQ", "LEAF", "LEAF"]);
        for one in node.attribute.iter_mut().filter(|one| one.name == "nodes_nodeids") {
            one.ints = vec![1, 2, 3];
        }
        assert!(check(&node).unwrap_err().contains("counted from 0"));
    }
}
