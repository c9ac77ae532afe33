//! What a node's attributes and constants may say. tract panics on some values that ONNX forbids, takes all memory for
//! others, and answers wrongly where a scale is too small to divide by.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::attributes::{attribute, attribute_ints, int_or};

/// Largest axis, and furthest step and place. Beyond these nothing can be meant.
const MAX_AXIS: i64 = 64;
const MAX_STEP: i64 = 1 << 31;
/// Most times that a Resize makes a tensor larger, and most elements that a Pad puts around one.
const MAX_GROWTH: f64 = 4096.0;
const MAX_AROUND: u64 = 1 << 20;

/// Which input is the scale that results are divided by.
const DIVISORS: [(&str, usize); 11] = [
    ("QuantizeLinear", 1),
    ("QLinearAdd", 6),
    ("QLinearAveragePool", 3),
    ("QLinearConcat", 0),
    ("QLinearConv", 6),
    ("QLinearGlobalAveragePool", 3),
    ("QLinearLeakyRelu", 3),
    ("QLinearMatMul", 6),
    ("QLinearMul", 6),
    ("QLinearSigmoid", 3),
    ("QLinearSoftmax", 3),
];
/// Which input names axes.
const AXES: [(&str, usize); 3] = [("Slice", 3), ("Squeeze", 1), ("Unsqueeze", 1)];

/// The constants of a graph by name.
pub(super) struct Tensors<'g> {
    tensors: HashMap<&'g str, &'g TensorProto>,
    /// Whole numbers that stand in a node itself.
    listed: HashMap<&'g str, &'g [i64]>,
}

impl<'g> Tensors<'g> {
    pub(super) fn of(graph: &'g GraphProto) -> Self {
        let of_nodes = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            let value = node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?;
            Some((node.output.first()?.as_str(), value))
        });
        let tensors = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).chain(of_nodes);
        let listed = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            let numbers = node.attribute.iter().find_map(|one| match one.name.as_str() {
                "value_int" => Some(std::slice::from_ref(&one.i)),
                "value_ints" => Some(one.ints.as_slice()),
                _ => None,
            })?;
            Some((node.output.first()?.as_str(), numbers))
        });
        Self { tensors: tensors.collect(), listed: listed.collect() }
    }

    fn get(&self, node: &NodeProto, slot: usize) -> Option<&'g TensorProto> {
        node.input.get(slot).and_then(|name| self.tensors.get(name.as_str())).copied()
    }

    /// How many axes a constant has.
    pub(super) fn rank(&self, node: &NodeProto, slot: usize) -> Option<usize> {
        self.get(node, slot).map(|tensor| tensor.dims.len())
    }

    pub(super) fn floats(&self, node: &NodeProto, slot: usize) -> Option<Vec<f32>> {
        let tensor = self.get(node, slot).filter(|tensor| tensor.data_type == DataType::Float as i32)?;
        let words = tensor.raw_data.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word));
        Some(if tensor.raw_data.is_empty() { tensor.float_data.clone() } else { words.collect() })
    }

    /// The sizes of a constant.
    pub(super) fn sizes(&self, node: &NodeProto, slot: usize) -> Option<Vec<Option<usize>>> {
        let dims = &self.get(node, slot)?.dims;
        Some(dims.iter().map(|dim| usize::try_from(*dim).ok()).collect())
    }

    pub(super) fn ints(&self, node: &NodeProto, slot: usize) -> Option<Vec<i64>> {
        let listed = node.input.get(slot).and_then(|name| self.listed.get(name.as_str()));
        if let Some(listed) = listed {
            return Some(listed.to_vec());
        }
        let tensor = self.get(node, slot).filter(|tensor| tensor.data_type == DataType::Int64 as i32)?;
        let words = tensor.raw_data.as_chunks().0.iter().map(|word| i64::from_le_bytes(*word));
        Some(if tensor.raw_data.is_empty() { tensor.int64_data.clone() } else { words.collect() })
    }
}

/// Checks a node; an error says what about it can't be.
pub(super) fn check(node: &NodeProto, tensors: &Tensors<'_>) -> Result<(), String> {
    super::forms::check(node)?;
    axes(node, tensors)?;
    growth(node, tensors)?;
    steps(node, tensors)?;
    bounds(node, tensors)?;
    transposed(node)?;
    super::forest::check(node)?;
    quantization(node, tensors)
}

fn axes(node: &NodeProto, tensors: &Tensors<'_>) -> Result<(), String> {
    let perm = attribute_ints(node, "perm");
    let is_axis = |axis: &i64| usize::try_from(*axis).is_ok_and(|axis| axis < perm.len());
    if !perm.iter().all(is_axis) || perm.iter().collect::<HashSet<_>>().len() < perm.len() {
        return Err(format!("orders its axes by the perm {perm:?}, which doesn't name each one once"));
    }
    let slot = AXES.iter().find(|(op, _)| *op == node.op_type).map(|(_, slot)| *slot);
    let named = slot.and_then(|slot| tensors.ints(node, slot)).unwrap_or_default();
    let one = int_or(node, "axis", 0);
    let mut all = attribute_ints(node, "axes").iter().chain(&named).chain([&one]);
    match all.find(|axis| !(-MAX_AXIS..=MAX_AXIS).contains(axis)) {
        Some(axis) => Err(format!("names axis {axis}, which no tensor has")),
        None => Ok(()),
    }
}

fn growth(node: &NodeProto, tensors: &Tensors<'_>) -> Result<(), String> {
    let scales = match node.op_type.as_str() {
        "Resize" if node.input.len() > 2 => tensors.floats(node, 2),
        "Resize" | "Upsample" => tensors.floats(node, 1),
        "Pad" => {
            let pads = attribute_ints(node, "pads");
            if pads.iter().any(|pad| *pad < 0) {
                return Err(format!(
                    "cuts off by the negative pads {pads:?}; that is known from opset 11 on"
                ));
            }
            return around(&tensors.ints(node, 1).unwrap_or_else(|| pads.to_vec()));
        }
        _ => return Ok(()),
    };
    let of_attribute = attribute(node, "scales");
    let scales =
        scales.or_else(|| of_attribute.map(|attribute| attribute.floats.clone())).unwrap_or_default();
    // With two inputs it is that of version 10, whose pixel runtimes choose differently where sizes shrink.
    let is_unclear = |scale: &f32| *scale < 1.0 && (1.0 / scale).fract() != 0.0;
    let is_nearest = attribute(node, "mode").is_none_or(|mode| mode.s == b"nearest");
    if node.input.len() == 2 && node.op_type == "Resize" && is_nearest && scales.iter().any(is_unclear) {
        return Err(format!(
            "takes the nearest pixel at the scales {scales:?}: use opset 11, which says how to round"
        ));
    }
    let growth: f64 = scales.iter().map(|scale| f64::from(*scale).max(1.0)).product();
    if growth <= MAX_GROWTH && scales.iter().all(|scale| scale.is_finite() && *scale > 0.0) {
        return Ok(());
    }
    Err(format!("resizes by {scales:?}; at most {MAX_GROWTH} times as many elements are allowed"))
}

/// What a Slice cuts off: a start, an end, an axis and a step for each other, and no axis twice.
fn bounds(node: &NodeProto, tensors: &Tensors<'_>) -> Result<(), String> {
    if node.op_type != "Slice" {
        return Ok(());
    }
    let list = |slot: usize, name: &str| {
        let said = attribute_ints(node, name);
        tensors.ints(node, slot).or_else(|| (!said.is_empty()).then(|| said.to_vec()))
    };
    let lists = [list(1, "starts"), list(2, "ends"), list(3, "axes"), list(4, "steps")];
    let mut lengths = lists.iter().flatten().map(Vec::len);
    let first = lengths.next();
    if lengths.any(|length| Some(length) != first) {
        return Err("slices by starts, ends, axes and steps that aren't of one number".to_owned());
    }
    let axes = lists[2].as_deref().unwrap_or_default();
    let mut seen = HashSet::new();
    match axes.iter().find(|axis| !seen.insert(**axis)) {
        Some(axis) => Err(format!("slices along axis {axis} twice")),
        None => Ok(()),
    }
}

/// Steps over values that aren't steps.
fn steps(node: &NodeProto, tensors: &Tensors<'_>) -> Result<(), String> {
    let is_far = |value: i64| !(-MAX_STEP..=MAX_STEP).contains(&value);
    match node.op_type.as_str() {
        "Slice" if tensors.ints(node, 4).is_some_and(|steps| steps.contains(&0)) => {
            Err("slices by steps of 0".to_owned())
        }
        "Slice" => match tensors.ints(node, 4).unwrap_or_default().iter().find(|step| is_far(**step)) {
            Some(step) => Err(format!("slices by steps of {step}; -{MAX_STEP} to {MAX_STEP} are known")),
            None => Ok(()),
        },
        "TopK" => {
            let said = attribute(node, "k").map(|k| k.i);
            let counts = tensors.ints(node, 1).unwrap_or_default();
            match counts.into_iter().chain(said).find(|count| *count < 0 || is_far(*count)) {
                Some(count) => Err(format!("takes the first {count} (k); no tensor has as many")),
                None => Ok(()),
            }
        }
        "Range" => {
            let ints = tensors.ints(node, 2).unwrap_or_default();
            let floats = tensors.floats(node, 2).unwrap_or_default();
            let is_step = |step: &f32| step.is_finite() && *step != 0.0;
            if ints.contains(&0) || !floats.iter().all(is_step) {
                return Err("counts in steps of 0".to_owned());
            }
            Ok(())
        }
        "DepthToSpace" | "SpaceToDepth" => match int_or(node, "blocksize", 0) {
            1..=MAX_AXIS => Ok(()),
            size => Err(format!("has the blocksize {size}; 1 to {MAX_AXIS} are known")),
        },
        _ => Ok(()),
    }
}

/// tract subtracts what a transposed convolution's attributes leave without a look at what is left.
fn transposed(node: &NodeProto) -> Result<(), String> {
    if node.op_type != "ConvTranspose" {
        return Ok(());
    }
    let [more, strides, dilations] =
        ["output_padding", "strides", "dilations"].map(|name| attribute_ints(node, name));
    let of = |values: &[i64], axis: usize| values.get(axis).copied().unwrap_or(1);
    let is_less =
        |(axis, more): (usize, &i64)| (0..of(strides, axis).max(of(dilations, axis))).contains(more);
    if more.iter().enumerate().all(is_less) {
        return Ok(());
    }
    Err(format!("has the output_padding {more:?}, which isn't less than its strides or dilations"))
}

fn around(pads: &[i64]) -> Result<(), String> {
    let (before, after) = pads.split_at(pads.len() / 2);
    let each = before.iter().zip(after).map(|(a, b)| a.max(&0).saturating_add(*b.max(&0)).unsigned_abs());
    let made = each.fold(1_u64, |all, size| all.saturating_mul(size.max(1)));
    if made <= MAX_AROUND {
        return Ok(());
    }
    Err(format!("puts {made} elements around its input; at most {MAX_AROUND} are allowed"))
}

fn quantization(node: &NodeProto, tensors: &Tensors<'_>) -> Result<(), String> {
    let op = node.op_type.as_str();
    let is_linear = matches!(op, "QuantizeLinear" | "DequantizeLinear");
    if !is_linear && !op.starts_with("QLinear") {
        return Ok(());
    }
    let mut constants = (0..node.input.len()).filter_map(|slot| tensors.get(node, slot));
    if let Some(empty) = constants.find(|tensor| tensor.dims.contains(&0)) {
        return Err(format!("reads {:?}, which is empty", super::shown(&empty.name)));
    }
    let slot = DIVISORS.iter().find(|(name, _)| *name == op).map(|(_, slot)| *slot);
    let scales = slot.and_then(|slot| tensors.floats(node, slot)).unwrap_or_default();
    if let Some(scale) = scales.iter().find(|scale| !(scale.is_normal() && **scale > 0.0)) {
        return Err(format!("quantizes by the scale {scale:e}, which isn't a normal positive number"));
    }
    let read = (1..node.input.len()).filter_map(|slot| tensors.floats(node, slot)).flatten();
    if let Some(odd) = { read }.find(|scale| !scale.is_finite()) {
        return Err(format!("is quantized by the scale {odd}, which isn't a number"));
    }
    if !is_linear {
        return Ok(());
    }
    let kinds = [0, 2].into_iter().filter_map(|slot| tensors.get(node, slot)).map(|tensor| tensor.data_type);
    let asked = i32::try_from(int_or(node, "output_dtype", 0)).unwrap_or(i32::MAX);
    if let Some(name) = kinds.chain([asked]).find_map(other_width) {
        return Err(format!("is quantized to {name}; 8-bit integers are known"));
    }
    match int_or(node, "block_size", 0) {
        0 => Ok(()),
        _ => Err("is quantized in blocks; one scale for all or one per channel is known".to_owned()),
    }
}

/// The name of an element type that values are quantized to elsewhere, not here.
pub(super) fn other_width(data_type: i32) -> Option<&'static str> {
    match data_type {
        4 | 5 => Some("16-bit integers"),
        17..=20 => Some("8-bit floats"),
        21 | 22 => Some("4-bit integers"),
        23 => Some("4-bit floats"),
        24 => Some("8-bit powers of two"),
        25 | 26 => Some("2-bit integers"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;

    use super::*;

    fn node(op: &str, attributes: &[(&str, &[i64])]) -> NodeProto {
        let attribute = attributes.iter().map(|(name, ints)| AttributeProto {
            name: (*name).to_owned(),
            i: ints[0],
            ints: ints.to_vec(),
            ..AttributeProto::default()
        });
        NodeProto {
            op_type: op.to_owned(),
            input: ["x", "a", "b", "c"].map(str::to_owned).to_vec(),
            attribute: attribute.collect(),
            ..NodeProto::default()
        }
    }

    fn why(node: &NodeProto, initializer: Vec<TensorProto>) -> String {
        let graph = GraphProto { initializer, ..GraphProto::default() };
        check(node, &Tensors::of(&graph)).map_or_else(|why| why, |()| String::new())
    }

    fn ints(name: &str, values: &[i64]) -> TensorProto {
        let dims = vec![i64::try_from(values.len()).unwrap()];
        TensorProto {
            name: name.to_owned(),
            data_type: 7,
            dims,
            int64_data: values.to_vec(),
            ..TensorProto::default()
        }
    }

    fn float(name: &str, value: f32) -> TensorProto {
        TensorProto { name: name.to_owned(), data_type: 1, float_data: vec![value], ..TensorProto::default() }
    }

    #[test]
    fn an_order_of_axes_names_each_one_once() {
        assert_eq!(why(&node("Transpose", &[("perm", &[0, 2, 1])]), vec![]), "");
        for perm in [&[0_i64, 1, 1, 3][..], &[0, 1, 2, 9], &[0, -1], &[1, 2, 3]] {
            assert!(
                why(&node("Transpose", &[("perm", perm)]), vec![]).contains("orders its axes"),
                "{perm:?}"
            );
        }
        assert!(
            why(&node("Softmax", &[("axis", &[i64::MIN])]), vec![]).contains("axis -9223372036854775808")
        );
        assert!(why(&node("Slice", &[]), vec![ints("c", &[i64::MIN])]).contains("which no tensor has"));
    }

    #[test]
    fn a_slice_has_a_bound_for_each_axis_and_each_axis_once() {
        let slice = |starts: &[i64], ends: &[i64], axes: &[i64]| {
            why(&node("Slice", &[]), vec![ints("a", starts), ints("b", ends), ints("c", axes)])
        };
        assert_eq!(slice(&[1, 1], &[5, 5], &[2, 1]), "");
        for (starts, ends, axes) in [(2, 2, 1), (2, 1, 2), (1, 2, 2)] {
            let [starts, ends] = [starts, ends].map(|count| vec![1; count]);
            assert!(slice(&starts, &ends, &[2, 1][..axes]).contains("aren't of one number"));
        }
        assert!(slice(&[1, 2], &[5, 4], &[2, 2]).contains("along axis 2 twice"));
        let old = node("Slice", &[("starts", &[1, 1]), ("ends", &[5, 5]), ("axes", &[2, 2])]);
        assert!(why(&old, vec![]).contains("along axis 2 twice"));
    }

    #[test]
    fn a_window_has_sizes_and_steps() {
        let kernel = ("kernel_shape", &[3_i64, 3][..]);
        assert_eq!(why(&node("Conv", &[kernel, ("strides", &[2, 2]), ("pads", &[1; 4])]), vec![]), "");
        for odd in [
            ("strides", &[0_i64, 0][..]),
            ("dilations", &[0, 0]),
            ("pads", &[1]),
            ("strides", &[i64::MAX, 1]),
            ("strides", &[1]),
        ] {
            let why = why(&node("Conv", &[kernel, odd]), vec![]);
            assert!(why.contains(odd.0), "{odd:?}: {why}");
        }
        assert!(why(&node("MaxPool", &[("kernel_shape", &[0, 0])]), vec![]).contains("kernel_shape"));
    }

    #[test]
    fn what_constants_make_larger_is_bounded() {
        assert_eq!(why(&node("Pad", &[]), vec![ints("a", &[0, 0, 3, 3, 0, 0, 3, 3])]), "");
        assert_ne!(why(&node("Pad", &[]), vec![ints("a", &[0, 0, 131_072, 131_072, 0, 0, 1, 1])]), "");
        assert_eq!(why(&node("Resize", &[]), vec![float("b", 64.0)]), "");
        for scale in [1e9, -1.0, f32::NAN, f32::INFINITY] {
            assert!(why(&node("Resize", &[]), vec![float("b", scale)]).contains("resizes by"), "{scale}");
            assert!(why(&node("Upsample", &[]), vec![float("a", scale)]).contains("resizes by"), "{scale}");
        }
    }

    #[test]
    fn steps_and_blocks_are_some() {
        assert_eq!(why(&node("Range", &[]), vec![ints("b", &[1])]), "");
        assert_ne!(why(&node("Range", &[]), vec![ints("b", &[0])]), "");
        assert_ne!(why(&node("Range", &[]), vec![float("b", f32::NAN)]), "");
        let slice = NodeProto {
            op_type: "Slice".to_owned(),
            input: ["x", "a", "b", "c", "d"].map(str::to_owned).to_vec(),
            ..NodeProto::default()
        };
        assert_eq!(why(&slice, vec![ints("d", &[-1])]), "");
        assert!(why(&slice, vec![ints("d", &[1, 0])]).contains("steps of 0"));
        assert_eq!(why(&node("DepthToSpace", &[("blocksize", &[2])]), vec![]), "");
        for size in [0, -1, 1 << 40] {
            assert!(why(&node("DepthToSpace", &[("blocksize", &[size])]), vec![]).contains("blocksize"));
        }
        assert_eq!(why(&node("Pad", &[]), vec![ints("a", &[0, -1, 0, 0])]), "");
        assert!(why(&node("Pad", &[("pads", &[0, -1, 0, 0])]), vec![]).contains("negative pads"));
    }

    #[test]
    fn a_transposed_convolution_grows_by_less_than_a_step() {
        let of = |name, values| why(&node("ConvTranspose", &[("strides", &[2, 2]), (name, values)]), vec![]);
        assert_eq!(of("output_padding", &[1, 1]), "");
        assert!(of("output_padding", &[2, 1]).contains("isn't less"));
        assert!(of("output_padding", &[-1, 1]).contains("isn't less"));
        assert_eq!(of("output_shape", &[9, 9]), "");
    }

    #[test]
    fn values_are_quantized_to_8_bits_by_a_scale() {
        assert_eq!(why(&node("QuantizeLinear", &[]), vec![float("a", 0.1)]), "");
        for scale in [0.0, 1e-42, -0.1, f32::NAN, f32::INFINITY] {
            assert!(why(&node("QuantizeLinear", &[]), vec![float("a", scale)]).contains("scale"), "{scale}");
        }
        for scale in [f32::NAN, f32::INFINITY] {
            assert!(
                why(&node("DequantizeLinear", &[]), vec![float("a", scale)]).contains("scale"),
                "{scale}"
            );
            assert!(why(&node("QLinearMatMul", &[]), vec![float("a", scale)]).contains("scale"), "{scale}");
            assert!(why(&node("QLinearConcat", &[]), vec![float("x", scale)]).contains("scale"), "{scale}");
        }
        // Weights that are all zero may have any scale.
        assert_eq!(why(&node("DequantizeLinear", &[]), vec![float("a", 0.0)]), "");
        assert!(why(&node("DequantizeLinear", &[]), vec![ints("b", &[])]).contains("\"b\", which is empty"));
        for (data_type, name) in [(4, "16-bit"), (5, "16-bit"), (22, "4-bit")] {
            let zero = TensorProto { data_type, ..float("b", 0.0) };
            assert!(why(&node("QuantizeLinear", &[]), vec![zero]).contains(name), "{data_type}");
        }
        assert!(why(&node("QuantizeLinear", &[("output_dtype", &[5])]), vec![]).contains("16-bit"));
        assert!(why(&node("DequantizeLinear", &[("block_size", &[32])]), vec![]).contains("in blocks"));
    }
}
