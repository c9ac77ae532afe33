//! What the lowering knows while it walks the graph: names and the values that they stand for.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::Reason;
use super::graph::{Graph, Node};
use crate::engine::Verdict;
use crate::int8::kernel::{Layout, Level};
use crate::int8::program::{ActId, ActInfo, FloatId, Shuffle, Step, Values};
use crate::int8::report::{NodeReport, Runs};
use crate::tensor::volume;

/// Most bytes of one activation for one row.
pub(super) const MAX_ACT_BYTES: usize = 256 << 20;

/// Which axis of a tensor are the channels of its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The second, as convolutions have it: `[n, c]`, `[n, c, w]`, `[n, c, h, w]`.
    First,
    /// The last, as matrix products have it: all others are rows.
    Last,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// 8-bit values.
    Bytes(ActId, Form),
    /// What DequantizeLinear would make of an activation.
    View(ActId, Form),
    /// A plain f32 tensor.
    Float(FloatId),
}

/// A tensor that a name stands for, for one row.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
}

/// An input of the model that isn't f32. Islands alone read it, as the caller gave it.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) id: FloatId,
    pub(super) shape: Vec<usize>,
    pub(super) kind: DataType,
}

/// Scale and zero point of a whole tensor, the zero point as it is in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Params {
    pub(super) scale: f32,
    pub(super) zero_point: u8,
    pub(super) is_signed: bool,
}

impl From<&ActInfo> for Params {
    fn from(info: &ActInfo) -> Self {
        Self { scale: info.scale, zero_point: info.layout.zero_point, is_signed: info.is_signed }
    }
}

/// A quantized operand.
#[derive(Debug, Clone)]
pub(super) struct Quant {
    pub(super) act: ActId,
    pub(super) form: Form,
    pub(super) shape: Vec<usize>,
    pub(super) params: Params,
}

/// The state of the walk.
pub(super) struct Lowering<'a> {
    pub(super) graph: Graph<'a>,
    pub(super) level: Level,
    /// What becomes of the rows in the whole graph.
    pub(super) rows: Verdict,
    pub(super) values: Values,
    pub(super) steps: Vec<Step>,
    pub(super) bound: HashMap<&'a str, Bound>,
    pub(super) given: HashMap<&'a str, Given>,
    /// Dequantized constants that a Transpose turns, by its output: their bytes, turned.
    pub(super) turned: HashMap<&'a str, TensorProto>,
    /// How each node runs; none before it is reached.
    pub(super) runs: Vec<Option<Runs>>,
    /// Multiply-accumulates of each node's steps.
    pub(super) work: Vec<(usize, Option<Level>)>,
    /// Nodes gathered for the next island, and what they make.
    pub(super) pending: Vec<usize>,
    pub(super) made: HashSet<&'a str>,
    /// What islands made and gave to nobody, as it isn't f32: who reads it makes it again.
    pub(super) spare: HashSet<&'a str>,
    /// Nodes that are in more than one island.
    pub(super) repeated: usize,
    /// An island ends at each value whose shape is asked for.
    pub(super) knows_sizes: bool,
    /// Nodes that tract ran at load as they read sizes alone.
    pub(super) worked_out: usize,
    /// f32 forms of views that were needed already.
    pub(super) plain: HashMap<(ActId, Vec<usize>), FloatId>,
    /// Scales of the channels of views that have one for each: only depthwise convolutions read those.
    pub(super) scales_of: HashMap<ActId, Vec<f32>>,
    /// Images that are the rows of an activation pixel by pixel.
    pub(super) images: HashMap<ActId, ActId>,
    /// Elements of the tables of orders that steps keep.
    pub(super) table_elements: usize,
    /// Rows don't influence each other so far.
    pub(super) is_batched: bool,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(graph: Graph<'a>, level: Level, rows: Verdict) -> Self {
        let count = graph.nodes.len();
        Self {
            graph,
            level,
            rows,
            values: Values::default(),
            steps: Vec::new(),
            bound: HashMap::new(),
            given: HashMap::new(),
            turned: HashMap::new(),
            runs: vec![None; count],
            work: vec![(0, None); count],
            pending: Vec::new(),
            made: HashSet::new(),
            spare: HashSet::new(),
            repeated: 0,
            knows_sizes: false,
            worked_out: 0,
            plain: HashMap::new(),
            scales_of: HashMap::new(),
            images: HashMap::new(),
            table_elements: 0,
            is_batched: true,
        }
    }

    /// Gives a name to a value.
    pub(super) fn bind(&mut self, name: &'a str, shape: Vec<usize>, kind: Kind) {
        if shape.first() != Some(&1) {
            self.is_batched = false;
        }
        self.bound.insert(name, Bound { shape, kind });
    }

    /// What a name stands for; not what a pending island makes.
    pub(super) fn lookup(&self, name: &str) -> Result<Bound, Reason> {
        let bound = self.bound.get(name).cloned();
        bound.ok_or_else(|| Reason::NotQuantized { name: name.to_owned() })
    }

    /// What a name stands for; an island that makes it is closed first.
    pub(super) fn lookup_closing(&mut self, name: &str) -> Result<Bound, Reason> {
        if self.made.contains(name) {
            self.close_island()?;
        }
        self.lookup(name)
    }

    /// The node's input of that place.
    pub(super) fn input(node: Node<'a>, slot: usize) -> Result<&'a str, Reason> {
        node.input(slot).ok_or(Reason::Form("an input is missing"))
    }

    /// A dequantized operand of an operator that is written in f32.
    pub(super) fn view(&self, name: &str) -> Result<Quant, Reason> {
        let is_of_channels = |act| self.scales_of.contains_key(&act);
        self.quantized(name, |kind| match kind {
            Kind::View(act, form) if !is_of_channels(act) => Some((act, form)),
            Kind::View(..) | Kind::Bytes(..) | Kind::Float(_) => None,
        })
    }

    /// An 8-bit operand; an island that makes it is closed first if it can give it out.
    pub(super) fn bytes(&mut self, name: &str) -> Result<Quant, Reason> {
        if self.made.contains(name) && self.params_of_bytes(name, &self.pending).is_some() {
            self.close_island()?;
        }
        self.quantized(name, |kind| match kind {
            Kind::Bytes(act, form) => Some((act, form)),
            Kind::View(..) | Kind::Float(_) => None,
        })
    }

    fn quantized(&self, name: &str, pick: impl Fn(Kind) -> Option<(ActId, Form)>) -> Result<Quant, Reason> {
        let found = self.bound.get(name).and_then(|bound| Some((bound.shape.clone(), pick(bound.kind)?)));
        let (shape, (act, form)) = found.ok_or_else(|| Reason::NotQuantized { name: name.to_owned() })?;
        Ok(Quant { act, form, shape, params: self.values.act(act).into() })
    }

    /// An f32 operand; a view is dequantized.
    pub(super) fn float(&mut self, name: &str) -> Result<(FloatId, Vec<usize>), Reason> {
        let Bound { shape, kind } = self.lookup(name)?;
        match kind {
            Kind::Float(id) => Ok((id, shape)),
            Kind::View(act, _) => {
                let key = (act, shape.clone());
                if let Some(id) = self.plain.get(&key) {
                    return Ok((*id, shape));
                }
                let id = self.values.add_float(volume(&shape), None);
                self.steps.push(Step::Dequantize { from: act, to: id });
                let id = self.scaled_by_channel(act, id, &shape);
                self.plain.insert(key, id);
                Ok((id, shape))
            }
            Kind::Bytes(..) => Err(Reason::Border { name: name.to_owned() }),
        }
    }

    /// A new activation.
    pub(super) fn act(&mut self, shape: &[usize], form: Form, params: Params) -> Result<ActId, Reason> {
        let layout = layout(shape, form, params.zero_point)?;
        Ok(self.values.add_act(ActInfo { layout, scale: params.scale, is_signed: params.is_signed }))
    }

    /// The operand with its channels in the other place, if it must be.
    pub(super) fn with_form(&mut self, quant: Quant, form: Form) -> Result<Quant, Reason> {
        if quant.form == form || quant.shape.len() <= 2 {
            return Ok(Quant { form, ..quant });
        }
        let act = self.act(&quant.shape, form, quant.params)?;
        self.steps.push(Step::Shuffle { from: quant.act, shuffle: Shuffle::Same, to: act });
        Ok(Quant { act, form, ..quant })
    }

    /// How each node runs, as far as the walk came.
    pub(super) fn node_reports(&self) -> impl Iterator<Item = NodeReport> {
        let nodes = self.graph.nodes.iter().zip(&self.runs).zip(&self.work);
        nodes.map(|((node, runs), (macs, level))| NodeReport {
            name: node.shown().to_owned(),
            op: node.0.op_type.clone(),
            runs: runs.clone().unwrap_or(Runs::Float),
            macs: *macs,
            level: *level,
        })
    }

    /// Notes how nodes run that were folded into another's step.
    pub(super) fn absorb(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.runs[*node] = Some(Runs::Int8);
        }
    }
}

/// The layout of a shape.
pub(super) fn layout(shape: &[usize], form: Form, zero_point: u8) -> Result<Layout, Reason> {
    let wrong = || Reason::Shape { shape: shape.to_vec() };
    let layout = match (form, shape) {
        (Form::First, [n, c, h, w]) => Layout::new(*n, *c, *h, *w, zero_point),
        (Form::First, [n, c, w]) => Layout::new(*n, *c, 1, *w, zero_point),
        (_, [n, c]) => Layout::matrix(*n, *c, zero_point),
        (_, [c]) => Layout::matrix(1, *c, zero_point),
        (Form::Last, [rows @ .., c]) => Layout::matrix(volume(rows), *c, zero_point),
        (Form::First, _) | (Form::Last, []) => return Err(wrong()),
    };
    let is_empty = shape.contains(&0);
    if is_empty || layout.checked_bytes(MAX_ACT_BYTES).is_none() {
        return Err(wrong());
    }
    Ok(layout)
}
