//! From a file to a program: the walk, and what is improved once all steps are known.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, NodeProto, ValueInfoProto, tensor_shape_proto, type_proto};

use super::Reason;
use super::graph::Graph;
use super::pads::fold_pads;
use super::walk::{Given, Kind, Lowering, MAX_ACT_BYTES};
use crate::engine::{Feed, Verdict};
use crate::error;
use crate::int8::kernel::{AddSpec, Chain, Conv, Curve, Level};
use crate::int8::program::{ActId, FloatId, FloatOp, Pool, Program, Step, Values};
use crate::int8::report::{NodeReport, Report, Runs};
use crate::tensor::volume;

/// Most values of a program.
const MAX_VALUES: usize = 8192;
/// What lies between two convolutions is made as a whole up to so many bytes: they stay in any second-level cache.
const CHAIN_BYTES: usize = 256 << 10;
/// Types of numbers that a model may be given.
const GIVEN: [DataType; 12] = [
    DataType::Float,
    DataType::Double,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Uint8,
    DataType::Uint16,
    DataType::Uint32,
    DataType::Uint64,
    DataType::Bool,
    DataType::Float16,
];
/// Lowers a file that was checked, or says why not. `feeds` are the inputs in the manifest's order,
/// `rows` is what becomes of their rows.
pub(crate) fn lower(
    model: &ModelProto,
    feeds: &[Feed],
    level: Level,
    rows: Verdict,
) -> Result<Program, Report> {
    let first = attempt(model, feeds, level, rows, false);
    first.or_else(|failed| {
        let (why, report) = *failed;
        // What sizes crossed there in whole numbers, or as something that tract doesn't take: known, nobody hands them over.
        let may_differ = matches!(why, Reason::Island { .. } | Reason::Border { .. });
        let again = may_differ.then(|| attempt(model, feeds, level, rows, true).ok());
        again.flatten().ok_or(report)
    })
}

/// One walk and what follows it. Where `knows_sizes`, an island ends at each value whose shape is asked for.
fn attempt(
    model: &ModelProto,
    feeds: &[Feed],
    level: Level,
    rows: Verdict,
    knows_sizes: bool,
) -> Result<Program, Box<(Reason, Report)>> {
    let failed = |nodes: Vec<NodeReport>| {
        move |why: Reason| {
            let report = Report { nodes, stuck: why.stuck(), ..Report::of_tract(error::chain(&why)) };
            Box::new((why, report))
        }
    };
    let mut walk = begin(model, feeds, level, rows).map_err(failed(Vec::new()))?;
    walk.knows_sizes = knows_sizes;
    let outputs = all(&mut walk);
    let nodes: Vec<NodeReport> = walk.node_reports().collect();
    let left = nodes.iter().filter(|node| matches!(node.runs, Runs::Tract { .. })).cloned().collect();
    outputs.and_then(|outputs| finish(walk, feeds, outputs, nodes)).map_err(failed(left))
}

fn begin<'a>(
    model: &'a ModelProto,
    feeds: &[Feed],
    level: Level,
    rows: Verdict,
) -> Result<Lowering<'a>, Reason> {
    let graph = Graph::new(model).ok_or(Reason::NothingToDo)?;
    if !graph.proto.node.iter().any(is_quantized) {
        return Err(Reason::NothingToDo);
    }
    let mut attributes = graph.proto.node.iter().flat_map(|node| &node.attribute);
    if attributes.any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty()) {
        return Err(Reason::Model("it has subgraphs"));
    }
    let mut walk = Lowering::new(graph, level, rows);
    bind_inputs(&mut walk, feeds)?;
    Ok(walk)
}

/// Walks all nodes; the graph's outputs in f32.
fn all(walk: &mut Lowering<'_>) -> Result<Vec<(FloatId, Vec<usize>)>, Reason> {
    walk.walk(walk.graph.opset())?;
    let mut outputs = Vec::new();
    for output in &walk.graph.proto.output {
        outputs.push(walk.float(&output.name)?);
    }
    if walk.values.len() > MAX_VALUES {
        return Err(Reason::TooMany { got: walk.values.len(), max: MAX_VALUES });
    }
    Ok(outputs)
}

fn is_quantized(node: &NodeProto) -> bool {
    let op = node.op_type.as_str();
    op.starts_with("QLinear")
        || matches!(
            op,
            "QGemm"
                | "DequantizeLinear"
                | "DynamicQuantizeLinear"
                | "DynamicQuantizeMatMul"
                | "QuantizeLinear"
        )
}

/// Feeds by name, or by place where there are as many.
fn bind_inputs<'a>(walk: &mut Lowering<'a>, feeds: &[Feed]) -> Result<(), Reason> {
    let names: Vec<&'a str> = walk.graph.inputs().collect();
    if names.len() != feeds.len() {
        return Err(Reason::Model("it has other inputs than the manifest"));
    }
    let place = |name: &str| feeds.iter().position(|feed| feed.name == name);
    let places: Option<Vec<usize>> = names.iter().map(|name| place(name)).collect();
    let places = places.unwrap_or_else(|| (0..feeds.len()).collect());
    let graph = walk.graph.proto;
    for (name, place) in names.into_iter().zip(places) {
        let feed = &feeds[place];
        let info = graph.input.iter().find(|input| input.name == name);
        let Some(kind) = info.and_then(|info| admitted(info, &feed.shape)) else {
            return Err(Reason::Model("an input holds no numbers or has another shape than the manifest's"));
        };
        // Steps take as many rows of everything: what has none comes again with each row.
        walk.is_batched &= feed.is_batched;
        let id = walk.values.add_float(volume(&feed.shape), Some(place));
        if kind == DataType::Float {
            walk.bind(name, feed.shape.clone(), Kind::Float(id));
        } else {
            walk.is_batched &= feed.shape.first() == Some(&1);
            walk.given.insert(name, Given { id, shape: feed.shape.clone(), kind });
        }
    }
    Ok(())
}

/// The type of an input's numbers, if it takes the shape.
fn admitted(input: &ValueInfoProto, shape: &[usize]) -> Option<DataType> {
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return None;
    };
    let kind = DataType::try_from(tensor.elem_type).ok().filter(|kind| GIVEN.contains(kind))?;
    let Some(dims) = tensor.shape.as_ref().map(|shape| &shape.dim) else { return Some(kind) };
    let fits = dims.iter().zip(shape).all(|(dim, size)| match &dim.value {
        Some(tensor_shape_proto::dimension::Value::DimValue(fixed)) => usize::try_from(*fixed) == Ok(*size),
        _ => true,
    });
    (dims.len() == shape.len() && fits).then_some(kind)
}

fn finish(
    walk: Lowering<'_>,
    feeds: &[Feed],
    outputs: Vec<(FloatId, Vec<usize>)>,
    nodes: Vec<NodeReport>,
) -> Result<Program, Reason> {
    let Lowering { graph, mut values, steps, is_batched, .. } = walk;
    let steps = fuse_additions(needed(steps, &outputs), &values);
    let steps = fuse_stores(fuse_curves(steps, &outputs), &outputs, &values);
    let steps = fold_pads(steps, &values);
    widen(&steps, &mut values)?;
    pack_pixels(&steps, &mut values);
    let steps = chain(steps, &values);
    if !steps.iter().any(Step::has_bytes) {
        return Err(Reason::NoneLowered);
    }
    let report = Report {
        nodes,
        weight_bytes: steps.iter().flat_map(Step::convs).map(Conv::weight_bytes).sum::<usize>()
            + steps.iter().map(Step::table_bytes).sum::<usize>(),
        ..Report::default()
    };
    let names = graph.proto.output.iter().map(|output| output.name.clone()).collect();
    let mut program = Program {
        values,
        steps,
        feeds: feeds.iter().map(|feed| volume(&feed.shape)).collect(),
        batched: feeds.iter().map(|feed| feed.is_batched).collect(),
        outputs,
        names,
        is_batched,
        report,
        idle: Pool::default(),
    };
    program.report.activation_bytes = program.planned_bytes();
    Ok(program)
}

/// The steps whose results are used.
fn needed(steps: Vec<Step>, outputs: &[(FloatId, Vec<usize>)]) -> Vec<Step> {
    let mut acts: Vec<ActId> = Vec::new();
    let mut floats: Vec<FloatId> = outputs.iter().map(|(id, _)| *id).collect();
    let mut kept = Vec::new();
    for step in steps.into_iter().rev() {
        let is_used = match step.writes() {
            Some(act) => acts.contains(&act),
            None => step.floats().iter().any(|id| floats.contains(id)),
        };
        if is_used {
            acts.extend(step.reads());
            floats.extend(step.floats());
            kept.push(step);
        }
    }
    kept.reverse();
    kept
}

/// Quantizes what a function makes of each value while it makes it, where nothing else reads it.
fn fuse_curves(mut steps: Vec<Step>, outputs: &[(FloatId, Vec<usize>)]) -> Vec<Step> {
    let curves = steps.iter().filter_map(|step| match step {
        Step::Float { op: FloatOp::Curve(curve), from, to } => Some((from[0], *curve, *to)),
        _ => None,
    });
    let curves: Vec<(FloatId, Curve, FloatId)> = curves.collect();
    for (value, made, result) in curves {
        let is_used = |step: &&Step| step.floats().contains(&result);
        // What makes it, and one that reads it.
        if steps.iter().filter(is_used).count() != 2 || outputs.iter().any(|(id, _)| *id == result) {
            continue;
        }
        let mut is_fused = false;
        for step in &mut steps {
            match step {
                Step::Quantize { from, to } if *from == result => {
                    let (curve, scales) = (Some(made), Vec::new());
                    *step = Step::QuantizeCurve { curve, scales, from: value, to: *to };
                    is_fused = true;
                }
                Step::QuantizeCurve { curve: curve @ None, from, .. } if *from == result => {
                    (*curve, *from) = (Some(made), value);
                    is_fused = true;
                }
                _ => {}
            }
        }
        if is_fused {
            steps.retain(|step| !matches!(step, Step::Float { to, .. } if *to == result));
        }
    }
    steps
}

/// Lets a convolution do what becomes of its results in f32, and quantize that, where nothing else reads them.
fn fuse_stores(steps: Vec<Step>, outputs: &[(FloatId, Vec<usize>)], values: &Values) -> Vec<Step> {
    let mut uses: HashMap<FloatId, usize> = HashMap::new();
    let ends = outputs.iter().map(|(id, _)| *id);
    steps.iter().flat_map(Step::floats).chain(ends).for_each(|id| *uses.entry(id).or_default() += 1);
    let mut kept: Vec<Option<Step>> = Vec::with_capacity(steps.len());
    let mut made: HashMap<FloatId, usize> = HashMap::new();
    for step in steps {
        let step = match step {
            Step::QuantizeCurve { curve, scales: divisors, from: value, to } => {
                let fits = |maker: &mut Step| match maker {
                    Step::LinearFloat { conv, from, .. } => {
                        let of = values.act(*from).layout;
                        let layout = conv.spec().output_layout(&of, 0);
                        layout.is_some_and(|layout| layout.same_shape(&values.act(to).layout))
                    }
                    _ => false,
                };
                // What makes it, and this.
                let maker = made.get(&value).filter(|_| uses.get(&value) == Some(&2));
                match maker.and_then(|index| kept[*index].take_if(fits)) {
                    Some(Step::LinearFloat { conv, from, scales, bias, bounds, .. }) => {
                        Step::LinearCurve { conv, from, scales, bias, bounds, curve, divisors, to }
                    }
                    _ => Step::QuantizeCurve { curve, scales: divisors, from: value, to },
                }
            }
            step => step,
        };
        if let Step::LinearFloat { to, .. } = step {
            made.insert(to, kept.len());
        }
        kept.push(Some(step));
    }
    kept.into_iter().flatten().collect()
}

/// Lets a convolution do the addition that is all that reads its result.
fn fuse_additions(steps: Vec<Step>, values: &Values) -> Vec<Step> {
    let mut readers: HashMap<ActId, usize> = HashMap::new();
    steps.iter().flat_map(Step::reads).for_each(|act| *readers.entry(act).or_default() += 1);
    let mut fused: Vec<Option<Step>> = Vec::with_capacity(steps.len());
    let mut made: HashMap<ActId, usize> = HashMap::new();
    for step in steps {
        let step = match step {
            Step::Add { a, b, spec, to } if values.act(a).layout.same_shape(&values.act(b).layout) => {
                let swapped =
                    AddSpec { a_multiplier: spec.b_multiplier, b_multiplier: spec.a_multiplier, ..spec };
                let mut choices = [(a, b, spec), (b, a, swapped)];
                // The later one of two: the other's result lies in memory anyway.
                choices.sort_by_key(|(own, ..)| std::cmp::Reverse(made.get(own).copied()));
                let choice = choices.into_iter().find(|(own, ..)| {
                    let maker = made.get(own).and_then(|index| fused[*index].as_ref());
                    readers.get(own) == Some(&1) && matches!(maker, Some(Step::Linear { .. }))
                });
                let maker = choice.and_then(|(own, ..)| fused[*made.get(&own)?].take());
                match (choice, maker) {
                    (Some((_, other, add)), Some(Step::Linear { conv, from, .. })) => {
                        Step::LinearAdd { conv, from, other, add, to }
                    }
                    _ => Step::Add { a, b, spec, to },
                }
            }
            step => step,
        };
        if let Some(act) = step.writes() {
            made.insert(act, fused.len());
        }
        fused.push(Some(step));
    }
    fused.into_iter().flatten().collect()
}

/// Runs a depthwise convolution together with the one that alone it reads, where what is between them is large.
fn chain(steps: Vec<Step>, values: &Values) -> Vec<Step> {
    let mut readers: HashMap<ActId, usize> = HashMap::new();
    steps.iter().flat_map(Step::reads).for_each(|act| *readers.entry(act).or_default() += 1);
    let mut kept: Vec<Option<Step>> = Vec::with_capacity(steps.len());
    let mut made: HashMap<ActId, usize> = HashMap::new();
    for step in steps {
        let step = match step {
            Step::Linear { conv: then, from: middle, to } => {
                let layout = values.act(middle).layout;
                let is_worth = then.spec().is_depthwise() && layout.bytes() > CHAIN_BYTES;
                let maker =
                    made.get(&middle).copied().filter(|_| is_worth && readers.get(&middle) == Some(&1));
                let fits = |step: &mut Step| match step {
                    Step::Linear { conv, .. } => Chain::fits(conv.spec(), then.spec()),
                    _ => false,
                };
                match maker.and_then(|index| kept[index].take_if(fits)) {
                    Some(Step::Linear { conv: first, from, .. }) => {
                        Step::Chain { chain: Box::new(Chain::new(*first, *then, layout)), from, to }
                    }
                    _ => Step::Linear { conv: then, from: middle, to },
                }
            }
            step => step,
        };
        if let Some(act) = step.writes() {
            made.insert(act, kept.len());
        }
        kept.push(Some(step));
    }
    kept.into_iter().flatten().collect()
}

/// Puts what a quantization writes and only whole convolutions read into 4-byte pixels, where four channels
/// suffice: images are a quarter as large as in 16-byte ones, and so is the first convolution's work.
fn pack_pixels(steps: &[Step], values: &mut Values) {
    let is_written = |step: &&Step| matches!(step, Step::Quantize { .. } | Step::DynamicQuantize { .. });
    let packs = |step: &Step, act: ActId| match step {
        Step::Linear { conv, .. } | Step::LinearFloat { conv, .. } | Step::LinearCurve { conv, .. } => {
            conv.spec().groups == 1
        }
        Step::LinearAdd { conv, from, other, .. } => conv.spec().groups == 1 && *from == act && *other != act,
        _ => false,
    };
    for act in steps.iter().filter(is_written).filter_map(Step::writes) {
        let mut readers = steps.iter().filter(|step| step.reads().contains(&act));
        if readers.all(|step| packs(step, act)) {
            let layout = &mut values.act_mut(act).layout;
            *layout = layout.packed();
        }
    }
}

/// Gives each activation the border that its readers need.
fn widen(steps: &[Step], values: &mut Values) -> Result<(), Reason> {
    for step in steps {
        let convs = step.convs();
        let (Some(conv), Some(from)) = (convs.first(), step.reads().first().copied()) else { continue };
        let layout = &mut values.act_mut(from).layout;
        layout.border = layout.border.union(conv.spec().border());
        if layout.checked_bytes(MAX_ACT_BYTES).is_none() {
            return Err(Reason::Shape {
                shape: vec![layout.batch, layout.channels, layout.height, layout.width],
            });
        }
    }
    Ok(())
}
