//! The trees of ONNX's classical models. tract goes from node to node as the file says, without end where they point
//! back, and writes weights of classes without a look whether there are such.

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
    let mut counts: HashMap<i64, i64> = HashMap::new();
    for tree in trees {
        *counts.entry(*tree).or_insert(0) += 1;
    }
    if let Some((tree, id)) = all.iter().find(|(tree, id)| !(0..counts[tree]).contains(id)) {
        return Err(format!("calls a node of tree {tree} {id}; nodes are counted from 0, without a gap"));
    }
    let places = trees.iter().copied().zip(ids.iter().copied()).zip(modes);
    let ends = places.filter(|(_, mode)| *mode == b"LEAF").map(|(place, _)| place);
    weights(node, &ends.collect())?;
    // tract goes down from the node 0.
    let mut pointed_at: HashSet<(i64, i64)> = trees.iter().map(|tree| (*tree, 0)).collect();
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

/// Each weight is a leaf's, for a class that there is: tract writes to the class's place without a look.
fn weights(node: &NodeProto, leaves: &HashSet<(i64, i64)>) -> Result<(), String> {
    let texts = attribute(node, "classlabels_strings").map_or(0, |one| one.strings.len());
    let classes = attribute_ints(node, "classlabels_int64s").len() + texts;
    let of_class = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < classes);
    if let Some(id) = attribute_ints(node, "class_ids").iter().find(|id| !of_class(id)) {
        return Err(format!("has a weight for class {id} of {classes}"));
    }
    let [trees, ids] = ["class_treeids", "class_nodeids"].map(|name| attribute_ints(node, name));
    let mut owners = trees.iter().copied().zip(ids.iter().copied());
    match owners.find(|owner| !leaves.contains(owner)) {
        Some((tree, id)) => Err(format!("has a weight for node {id} of tree {tree}, which is no leaf")),
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
    fn weights_are_leaves_for_classes_that_there_are() {
        let of = |class: i64, node: i64| {
            let mut trees = ensemble(&[1, 0, 0], &[2, 0, 0], &["BRANCH_LEQ", "LEAF", "LEAF"]);
            let lists = [("classlabels_int64s", vec![7, 4]), ("class_treeids", vec![0, 0])];
            let lists =
                lists.into_iter().chain([("class_nodeids", vec![1, node]), ("class_ids", vec![0, class])]);
            trees.attribute.extend(lists.map(|(name, ints)| AttributeProto {
                name: name.to_owned(),
                ints,
                ..AttributeProto::default()
            }));
            check(&trees)
        };
        assert_eq!(of(1, 2), Ok(()));
        for class in [2, -1, i64::MAX] {
            assert!(of(class, 2).unwrap_err().contains(&format!("class {class} of 2")), "{class}");
        }
        for node in [0, 3] {
            assert!(of(1, node).unwrap_err().contains("which is no leaf"), "{node}");
        }
    }

    #[test]
    fn nodes_are_counted_from_0() {
        let mut trees = ensemble(&[1, 0, 0], &[9, 0, 0], &["BRANCH_LEQ", "LEAF", "LEAF"]);
        let ids = trees.attribute.iter_mut().find(|one| one.name == "nodes_nodeids").unwrap();
        ids.ints = vec![0, 1, 9];
        assert!(check(&trees).unwrap_err().contains("without a gap"));
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
