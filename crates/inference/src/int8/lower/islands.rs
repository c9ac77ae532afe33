//! Nodes that stay tract's: gathered as they come, handed over as a small model of their own. Only f32 crosses its
//! border, and the model's own inputs, of whatever type: 8-bit tensors are dequantized on one side and quantized again
//! on the other, which gives the same bytes.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, type_proto};

use super::contrib::result_scale;
use super::graph::Node;
use super::tensor;
use super::walk::{Form, Kind, Lowering, Params, layout};
use super::{Reason, is_only_int8, words_of_onnx};
use crate::engine::{Feed, Plan, Verdict};
use crate::error::chain;
use crate::int8::program::{FloatId, Step};
use crate::int8::report::Runs;
use crate::tensor::volume;

/// Most nodes that are run again in an island behind the one that they were in first.
const MAX_REPEATED: usize = 256;

/// A plan with the values that it takes, and those that it gives out with the parameters of 8-bit ones.
struct Island<'a> {
    plan: Plan,
    from: Vec<(FloatId, Vec<usize>)>,
    outputs: Vec<&'a str>,
    params: Vec<Option<Params>>,
}

impl<'a> Island<'a> {
    /// What can go out: f32, and 8-bit values that an activation holds, which a single number without an axis isn't.
    fn given_out(&self) -> Vec<&'a str> {
        let made = self.outputs.iter().zip(&self.params).zip(self.plan.output_shapes());
        let fits = made.filter(|((_, params), shape)| match (params, shape) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(params), Some(shape)) => layout(shape, Form::Last, params.zero_point).is_ok(),
        });
        fits.map(|((name, _), _)| *name).collect()
    }
}

/// Operators that give some of the values that they get, as these are.
const MOVERS: [&str; 13] = [
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// The model of an island, while it is gathered.
#[derive(Default)]
pub(super) struct Draft<'a> {
    nodes: Vec<NodeProto>,
    constants: Vec<tract_onnx::pb::TensorProto>,
    /// Names that come from outside, what they are called inside, and the type of their numbers.
    pub(super) inputs: Vec<(&'a str, String, DataType)>,
    known: HashSet<&'a str>,
}

impl<'a> Draft<'a> {
    /// An 8-bit tensor comes in as f32. Only the scale and zero point that made it f32 make the same bytes of it
    /// again: its readers may name others.
    fn quantize(&mut self, name: &'a str, params: Params) {
        let inside = format!("{name}/again/dequantized");
        let [scale, zero] = self.params(&format!("{name}/again"), params);
        self.node("QuantizeLinear", vec![inside.clone(), scale, zero], name.to_owned());
        self.inputs.push((name, inside, DataType::Float));
    }

    /// An 8-bit tensor goes out as f32: the name that it has then.
    fn dequantize(&mut self, name: &str, params: Params) -> String {
        let outside = format!("{name}/given/dequantized");
        let [scale, zero] = self.params(&format!("{name}/given"), params);
        self.node("DequantizeLinear", vec![name.to_owned(), scale, zero], outside.clone());
        outside
    }

    fn params(&mut self, stem: &str, params: Params) -> [String; 2] {
        let [scale, zero] = ["scale", "zero_point"].map(|what| format!("{stem}/{what}"));
        self.constants.push(tensor::of_float(&scale, params.scale));
        self.constants.push(tensor::of_byte(&zero, params.zero_point, params.is_signed));
        [scale, zero]
    }

    fn node(&mut self, op: &str, input: Vec<String>, output: String) {
        self.nodes.push(NodeProto {
            op_type: op.to_owned(),
            input,
            output: vec![output],
            ..NodeProto::default()
        });
    }

    /// What is added at the border has names of its own only if the model doesn't have them.
    pub(super) fn names_are_apart(&self) -> Result<(), Reason> {
        let mut taken = HashSet::new();
        let inputs = self.inputs.iter().map(|(_, inside, _)| inside);
        let constants = self.constants.iter().map(|constant| &constant.name);
        let made = self.nodes.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty());
        match inputs.chain(constants).chain(made).find(|name| !taken.insert(*name)) {
            Some(name) => Err(Reason::Twice { name: name.clone() }),
            None => Ok(()),
        }
    }
}

impl<'a> Lowering<'a> {
    /// Leaves a node to tract.
    pub(super) fn leave(&mut self, index: usize, why: Reason) -> Result<(), Reason> {
        let node = self.graph.nodes[index];
        let runs = Runs::Tract { why: chain(&why) };
        if is_only_int8(node.0) && words_of_onnx(node.0, self.graph.opset()).is_none() {
            let (op, name) = (node.0.op_type.clone(), node.shown().to_owned());
            return Err(Reason::Only { op, name, source: Box::new(why) });
        }
        for name in node.0.input.iter().map(String::as_str).filter(|name| !name.is_empty()) {
            let is_known = self.made.contains(name)
                || self.spare.contains(name)
                || self.bound.contains_key(name)
                || self.given.contains_key(name)
                || self.graph.constant(name).is_some()
                || self.graph.producer(name).is_some_and(|maker| self.is_constant_view(maker));
            if !is_known {
                return Err(Reason::Border { name: name.to_owned() });
            }
        }
        self.pending.push(index);
        self.made.extend(node.0.output.iter().map(String::as_str).filter(|name| !name.is_empty()));
        self.runs[index] = Some(runs);
        Ok(())
    }

    /// Hands the gathered nodes to tract.
    pub(super) fn close_island(&mut self) -> Result<(), Reason> {
        let pending = std::mem::take(&mut self.pending);
        let made = std::mem::take(&mut self.made);
        if pending.is_empty() {
            return Ok(());
        }
        let outputs = self.outputs_of(&pending, &made);
        let mut island = self.island(&pending, outputs)?;
        let kept = island.given_out();
        if kept.len() < island.outputs.len() {
            let lost = island.outputs.iter().find(|name| !kept.contains(name) && self.graph.is_output(name));
            if let Some(name) = lost {
                return Err(Reason::Border { name: (*name).to_owned() });
            }
            self.spare.extend(made.iter().filter(|name| !kept.contains(name)));
            if kept.is_empty() {
                return Ok(());
            }
            island = self.island(&pending, kept)?;
        }
        let Island { plan, from, outputs, params } = island;
        // What no row goes into comes out once, whatever its first axis is.
        self.is_batched &= !from.is_empty();
        let mut to = Vec::new();
        for (name, shape) in outputs.iter().zip(plan.output_shapes()) {
            let Some(shape) = shape else { return Err(Reason::Border { name: (*name).to_owned() }) };
            let id = self.values.add_float(volume(shape), None);
            self.bind(name, shape.clone(), Kind::Float(id));
            to.push(id);
        }
        let nodes = pending.iter().map(|index| self.graph.nodes[*index].shown().to_owned()).collect();
        self.steps.push(Step::Island { plan: Box::new(plan), nodes, from, to });
        for (name, params) in outputs.into_iter().zip(params) {
            params.map_or(Ok(()), |params| self.quantize_end(name, params))?;
        }
        Ok(())
    }

    /// The plan of some nodes that gives out these values.
    fn island(&mut self, pending: &[usize], outputs: Vec<&'a str>) -> Result<Island<'a>, Reason> {
        let mut draft = self.draft(pending)?;
        let params: Vec<Option<Params>> =
            outputs.iter().map(|name| self.params_of_bytes(name, pending)).collect();
        let ends = outputs.iter().zip(&params).map(|(name, params)| match params {
            Some(params) => draft.dequantize(name, *params),
            None => (*name).to_owned(),
        });
        let ends: Vec<String> = ends.collect();
        draft.names_are_apart()?;
        let mut from = Vec::new();
        let mut feeds = Vec::new();
        for (name, inside, _) in &draft.inputs {
            let (id, shape) = self.island_input(name)?;
            feeds.push(Feed { name: inside.clone(), shape: shape.clone(), is_batched: true });
            from.push((id, shape));
        }
        // Else each island says it for itself.
        let rows = Some(self.rows).filter(|rows| *rows == Verdict::InPlace);
        let first = pending.first().map_or("", |index| self.graph.nodes[*index].output()).to_owned();
        let failed = |source| Reason::Island { nodes: pending.len(), first, source: Box::new(source) };
        let plan = Plan::build(model(self.graph.model, draft, &ends), &feeds, rows).map_err(failed)?;
        Ok(Island { plan, from, outputs, params })
    }

    /// Scale and zero point of an 8-bit tensor that an island makes.
    pub(super) fn params_of_bytes(&self, name: &str, pending: &[usize]) -> Option<Params> {
        self.params_of_readers(name, pending).or_else(|| self.params_of_source(name))
    }

    /// Those of the 8-bit values that it is a part of, or another order of.
    fn params_of_source(&self, name: &str) -> Option<Params> {
        let mut name = name;
        // Each node stands behind what it reads.
        for _ in 0..=self.graph.nodes.len() {
            if let Some(bound) = self.bound.get(name) {
                let Kind::Bytes(act, _) = bound.kind else { return None };
                return Some(self.values.act(act).into());
            }
            let maker = self.graph.producer(name)?;
            if let Some(slot) = result_scale(maker) {
                return self.params(maker.input(slot)?, maker.input(slot + 1), maker).ok();
            }
            name = maker.input(0).filter(|_| MOVERS.contains(&maker.op()))?;
        }
        None
    }

    /// Scale and zero point of an 8-bit tensor that an island makes: those by which all others read it.
    fn params_of_readers(&self, name: &str, pending: &[usize]) -> Option<Params> {
        let mut all = None;
        for index in self.graph.consumers(name).iter().filter(|index| !pending.contains(index)) {
            let node = self.graph.nodes[*index];
            if !(matches!(node.op(), "DequantizeLinear" | "QGemm") || node.op().starts_with("QLinear")) {
                return None;
            }
            // Each of them names an operand's scale and zero point right behind it.
            let slot = node.0.input.iter().position(|input| input == name)?;
            let params = self.params(node.input(slot + 1)?, Some(node.input(slot + 2)?), node).ok()?;
            if *all.get_or_insert(params) != params {
                return None;
            }
        }
        all
    }

    /// Quantizes what an island gave out dequantized: the bytes that it made.
    fn quantize_end(&mut self, name: &'a str, params: Params) -> Result<(), Reason> {
        let (from, shape) = self.float(name)?;
        let form = self.form_for(name, &shape);
        let to = self.act(&shape, form, params)?;
        self.steps.push(Step::Quantize { from, to });
        self.bind(name, shape, Kind::Bytes(to, form));
        Ok(())
    }

    /// 8-bit operands go to tract dequantized; the island quantizes them again.
    fn island_input(&mut self, name: &'a str) -> Result<(FloatId, Vec<usize>), Reason> {
        if let Some(given) = self.given.get(name) {
            return Ok((given.id, given.shape.clone()));
        }
        let bound = self.lookup(name)?;
        let Kind::Bytes(act, form) = bound.kind else { return self.float(name) };
        let kept =
            self.bound.insert(name, super::walk::Bound { kind: Kind::View(act, form), ..bound.clone() });
        let float = self.float(name);
        self.bound.extend(kept.map(|kept| (name, kept)));
        float
    }

    pub(super) fn draft(&mut self, pending: &[usize]) -> Result<Draft<'a>, Reason> {
        let mut draft = Draft::default();
        for index in pending {
            self.take_node(&mut draft, self.graph.nodes[*index])?;
        }
        Ok(draft)
    }

    fn take_node(&mut self, draft: &mut Draft<'a>, node: Node<'a>) -> Result<(), Reason> {
        for name in node.0.input.iter().map(String::as_str).filter(|name| !name.is_empty()) {
            self.take_in(draft, name)?;
        }
        draft.known.extend(node.0.output.iter().map(String::as_str));
        match words_of_onnx(node.0, self.graph.opset()) {
            Some(nodes) => draft.nodes.extend(nodes),
            None => draft.nodes.push(node.0.clone()),
        }
        Ok(())
    }

    fn take_in(&mut self, draft: &mut Draft<'a>, name: &'a str) -> Result<(), Reason> {
        if !draft.known.insert(name) {
            return Ok(());
        }
        if let Some(constant) = self.graph.constant(name) {
            let mut constant = constant.clone();
            name.clone_into(&mut constant.name);
            draft.constants.push(constant);
            // What was worked out for one row may hold for one row only.
            self.is_batched &= !self.graph.is_of_row(name);
            return Ok(());
        }
        let is_spare = self.spare.contains(name);
        let maker = self.graph.producer(name).filter(|maker| is_spare || self.is_constant_view(*maker));
        if let Some(maker) = maker {
            self.repeated += usize::from(is_spare);
            if self.repeated > MAX_REPEATED {
                return Err(Reason::Border { name: name.to_owned() });
            }
            return self.take_node(draft, maker);
        }
        if let Some(Kind::Bytes(act, _)) = self.bound.get(name).map(|bound| bound.kind) {
            draft.quantize(name, self.values.act(act).into());
        } else {
            let kind = self.given.get(name).map_or(DataType::Float, |given| given.kind);
            draft.inputs.push((name, name.to_owned(), kind));
        }
        Ok(())
    }

    /// What is read outside of an island.
    fn outputs_of(&self, pending: &[usize], made: &HashSet<&'a str>) -> Vec<&'a str> {
        let is_read = |name: &&str| {
            let outside = |index: &usize| !pending.contains(index);
            self.graph.is_output(name) || self.graph.consumers(name).iter().any(outside)
        };
        let mut outputs: Vec<&'a str> = made.iter().copied().filter(is_read).collect();
        outputs.sort_unstable();
        outputs
    }
}

pub(super) fn model(whole: &ModelProto, draft: Draft<'_>, outputs: &[String]) -> ModelProto {
    let graph = GraphProto {
        name: "island".to_owned(),
        node: draft.nodes,
        initializer: draft.constants,
        input: draft.inputs.iter().map(|(_, inside, kind)| value(inside, *kind)).collect(),
        output: outputs.iter().map(|name| value(name, DataType::Float)).collect(),
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: whole.ir_version,
        opset_import: whole.opset_import.clone(),
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn value(name: &str, kind: DataType) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: kind as i32, shape: None };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}
