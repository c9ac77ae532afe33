//! A graph, or a part of one, as tract plans and runs it.
//!
//! A free first dimension becomes a symbol, so that one plan serves every batch size and its weights are in
//! memory once. Where a model can't be planned like that, or has windows, the plan is made for one row and larger
//! batches run row by row: tract's fast convolutions need every dimension to be a number.

use std::borrow::Cow;
use std::sync::Arc;

use tract_onnx::Onnx;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{DimFact, DimLike, Factoid, ToDim};
use tract_onnx::tract_hir::tract_core::internal::TDim;

use super::apart::Verdict;
use super::counted::counts_rows;
use super::mixing::rows_of;
use super::rewrite::rewrite;
use super::shapes::{self, refused};
use super::{blame, rows};
use super::{guarded, onnx, shorten};
use crate::error::{InferError, LoadError};
use crate::tensor::{Data, volume};

/// An input as the model will get it: its name in the manifest and its shape for one row.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    /// Name in the manifest.
    pub(crate) name: String,
    /// Shape for a batch of one.
    pub(crate) shape: Vec<usize>,
    /// Its first dimension is the batch; else each request brings one for all its rows.
    pub(crate) is_batched: bool,
}

impl Feed {
    /// Zeros for so many rows.
    pub(super) fn zeros(&self, rows: usize) -> Fed<'static> {
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut().filter(|_| self.is_batched) {
            *first *= rows;
        }
        let count = volume(&shape);
        (shape, Cow::Owned(Data::Fp32(vec![0.0; count])))
    }
}

/// A graph that tract runs: immutable, shared by reference, one state per run.
pub(crate) struct Plan {
    runnable: Arc<TypedRunnableModel>,
    /// For each input of the graph: which feed it takes, and the element type it wants.
    inputs: Vec<(usize, DatumType)>,
    /// For each feed whether it has a row for each one of the batch.
    batched: Vec<bool>,
    outputs: Vec<String>,
    /// For each output its shape for one row, if it is f32.
    shapes: Vec<Option<Vec<usize>>>,
    batching: Batching,
    /// Whether a row's answer depends on the other rows of its batch.
    mixes: bool,
    /// Whether each output has a row for a row.
    makes_a_row: bool,
}

/// What a file's operators say of how to plan it.
#[derive(Debug, Clone, Copy)]
struct Traits {
    /// Batches are run row by row.
    is_by_rows: bool,
    /// What becomes of rows; it is tried where that isn't known.
    rows: Verdict,
}

impl Traits {
    fn of(onnx: &Onnx, proto: &ModelProto, feeds: &[Feed], rows: Option<Verdict>) -> Self {
        let is_dynamic = proto.graph.as_ref().is_some_and(rows::is_dynamic);
        let rows = if feeds.iter().any(|feed| feed.is_batched) && counts_rows(proto) {
            Verdict::Mixes
        } else {
            rows.unwrap_or_else(|| rows_of(onnx, proto, feeds))
        };
        // There each row is to have a range of its own, which a batch that is tried hasn't.
        let is_left = is_dynamic && rows != Verdict::Mixes;
        Self {
            is_by_rows: is_dynamic || has_windows(proto),
            rows: if is_left { Verdict::Apart } else { rows },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batching {
    /// The plan takes any number of rows.
    Any,
    /// The plan takes one row.
    Single,
    /// The plan takes so many rows; only to see what they do to each other.
    Fixed(usize),
}

/// Values with their shape.
pub(crate) type Value = (Vec<usize>, Data);

/// What a model is fed: the caller's own values, or those that were made of them.
pub(crate) type Fed<'a> = (Vec<usize>, Cow<'a, Data>);

impl Plan {
    /// Plans a graph that was checked and warms it up; `rows` is what becomes of its rows, if that is known.
    pub(crate) fn build(proto: ModelProto, feeds: &[Feed], rows: Option<Verdict>) -> Result<Self, LoadError> {
        let built = guarded(|| Self::build_owned(&onnx(), proto, feeds, rows));
        built.unwrap_or_else(|why| Err(LoadError::Runtime { why: format!("it panicked: {why}") }))
    }

    /// The same, unguarded. The file is dropped before the plan is made.
    pub(super) fn build_owned(
        onnx: &Onnx,
        mut proto: ModelProto,
        feeds: &[Feed],
        rows: Option<Verdict>,
    ) -> Result<Self, LoadError> {
        rewrite(&mut proto)?;
        let graph = onnx.model_for_proto_model(&proto).map_err(|e| refused(&e))?;
        let traits = Traits::of(onnx, &proto, feeds, rows);
        drop(proto);
        Self::of_graph(&graph, feeds, traits)
    }

    fn of_graph(graph: &InferenceModel, feeds: &[Feed], traits: Traits) -> Result<Self, LoadError> {
        let feeds_of = match_inputs(graph, feeds)?;
        let planned = |batching| Self::of_shapes(graph.clone(), &feeds_of, feeds, batching);
        // tract panics where it plans a loop over a sequence for a symbol of rows.
        let any = || guarded(|| planned(Batching::Any)).ok().and_then(Result::ok);
        let symbolic = if traits.is_by_rows { None } else { any() };
        let mut chosen = match symbolic.filter(|plan| plan.keeps_rows(feeds)) {
            Some(plan) => plan,
            None => guarded(|| planned(Batching::Single)).unwrap_or_else(|why| {
                let typed = Self::typed(graph.clone(), &feeds_of, feeds, Batching::Single);
                let culprit = typed.ok().and_then(|(typed, _)| blame::culprit(&typed));
                let node = culprit.map_or_else(String::new, |node| format!("{node}: "));
                Err(LoadError::Runtime { why: format!("{node}it panicked: {why}") })
            })?,
        };
        let outputs = chosen.can_run(feeds, 1).map_err(LoadError::WarmUp)?;
        let has_rows = feeds.iter().any(|feed| feed.is_batched);
        chosen.makes_a_row = !has_rows || outputs.iter().all(is_a_row);
        let shape = |(shape, data): Value| matches!(data, Data::Fp32(_)).then_some(shape);
        chosen.shapes = outputs.into_iter().map(shape).collect();
        let several = || guarded(|| planned(Batching::Fixed(rows::ROWS))).ok().and_then(Result::ok);
        chosen.mixes = match (traits.rows, chosen.batching) {
            (Verdict::InPlace | Verdict::Apart, _) => false,
            (Verdict::Mixes, _) => true,
            (_, Batching::Any) => chosen.mixes_rows(feeds),
            (_, Batching::Single | Batching::Fixed(_)) => {
                several().is_some_and(|plan| plan.mixes_rows(feeds))
            }
        };
        Ok(chosen)
    }

    fn of_shapes(
        graph: InferenceModel,
        feeds_of: &[usize],
        feeds: &[Feed],
        batching: Batching,
    ) -> Result<Self, LoadError> {
        let outputs = output_names(&graph);
        let (typed, inputs) = Self::typed(graph, feeds_of, feeds, batching)?;
        let runnable = blame::plan(typed).map_err(|error| refused(&error))?;
        let batched = feeds.iter().map(|feed| feed.is_batched).collect();
        Ok(Self {
            runnable,
            inputs,
            batched,
            outputs,
            shapes: Vec::new(),
            batching,
            mixes: false,
            makes_a_row: true,
        })
    }

    /// A graph with its types, and what its inputs take.
    fn typed(
        mut graph: InferenceModel,
        feeds_of: &[usize],
        feeds: &[Feed],
        batching: Batching,
    ) -> Result<(TypedModel, Vec<(usize, DatumType)>), LoadError> {
        let refused = |e: TractError| refused(&e);
        let batch: TDim = match batching {
            Batching::Any => graph.symbols.sym("batch").to_dim(),
            Batching::Single => 1.to_dim(),
            Batching::Fixed(rows) => rows.to_dim(),
        };
        let mut inputs = Vec::new();
        for (slot, feed) in feeds_of.iter().enumerate() {
            let fact = graph.input_fact(slot).map_err(refused)?;
            let datum_type = fact.datum_type.concretize().unwrap_or(DatumType::F32);
            let shape = planned_shape(fact, &feeds[*feed], &batch)?;
            graph.set_input_fact(slot, InferenceFact::dt_shape(datum_type, shape)).map_err(refused)?;
            inputs.push((*feed, datum_type));
        }
        Ok((shapes::typed(graph, &batch)?, inputs))
    }

    /// Names of the graph's outputs, in its order.
    pub(crate) fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Whether one plan serves every batch size.
    pub(crate) fn is_batched(&self) -> bool {
        self.batching == Batching::Any
    }

    /// Runs values in the order of the feeds; the first dimensions of batched ones are the batch. Outputs come in the
    /// graph's order.
    pub(crate) fn run(&self, feeds: &[Fed<'_>], batch: usize) -> Result<Vec<Value>, InferError> {
        if batch == 1 || self.is_batched() && (batch <= PASS_ROWS || self.mixes || !self.makes_a_row) {
            return self.run_plan(feeds);
        }
        if self.mixes {
            return Err(InferError::MixesRows { got: batch });
        }
        let rows = if self.is_batched() { PASS_ROWS } else { 1 };
        let parts = by_parts(feeds, &self.batched, (batch, rows), |feeds, _| self.run_plan(feeds));
        match parts {
            // Something is as long for several rows as for one.
            Err(InferError::MixesRows { .. }) if self.is_batched() => self.run_plan(feeds),
            answered => answered,
        }
    }

    fn run_plan(&self, feeds: &[Fed<'_>]) -> Result<Vec<Value>, InferError> {
        let inputs = || self.inputs.iter().map(|(feed, dt)| to_tract(&feeds[*feed], *dt)).collect();
        let outputs = blame::run(&self.runnable, inputs)?;
        let values = guarded(|| outputs.iter().map(|value| from_tract(value)).collect::<TractResult<_>>());
        let values = values.map_err(|why| InferError::Panic { why })?;
        values.map_err(|error| InferError::Runtime { why: text(&error) })
    }

    /// Runs rows of zeros once: takes the first-use costs and proves that the plan works.
    fn can_run(&self, feeds: &[Feed], batch: usize) -> Result<Vec<Value>, InferError> {
        self.run_plan(&feeds.iter().map(|feed| feed.zeros(batch)).collect::<Vec<_>>())
    }

    /// Whether it can run one row and several.
    fn keeps_rows(&self, feeds: &[Feed]) -> bool {
        self.can_run(feeds, 1).is_ok() && self.can_run(feeds, 3).is_ok()
    }

    /// Whether a row's answer depends on the other rows of its batch.
    pub(crate) fn mixes(&self) -> bool {
        self.mixes
    }

    /// Whether it takes batches apart, and puts the rows' answers together as a batch's.
    pub(super) fn joins_rows(&self) -> bool {
        self.is_batched() || self.makes_a_row
    }

    fn mixes_rows(&self, feeds: &[Feed]) -> bool {
        let is_whole = |feed: usize| {
            let kind = self.inputs.iter().find(|(of, _)| *of == feed).map(|(_, kind)| *kind);
            kind.is_some_and(|kind| !kind.is_float())
        };
        let are_whole: Vec<bool> = (0..feeds.len()).map(is_whole).collect();
        rows::mixes(feeds, &are_whole, |fed| self.run_plan(fed))
    }

    /// For each output its shape for one row, if it is f32.
    pub(crate) fn output_shapes(&self) -> &[Option<Vec<usize>>] {
        &self.shapes
    }
}

/// Operators that slide a window over an image or a signal: with a symbol among the dimensions tract ran nets of them
/// five times slower.
const WINDOWED: [&str; 7] =
    ["AveragePool", "Conv", "ConvInteger", "ConvTranspose", "LpPool", "MaxPool", "QLinearConv"];

fn has_windows(proto: &ModelProto) -> bool {
    let mut nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    nodes.any(|node| WINDOWED.contains(&node.op_type.as_str()))
}

/// For each input of the graph the feed of the same name, or, where both have as many, of the same place.
pub(super) fn match_inputs(graph: &InferenceModel, feeds: &[Feed]) -> Result<Vec<usize>, LoadError> {
    let names: Vec<&str> = graph
        .input_outlets()
        .map_err(|e| refused(&e))?
        .iter()
        .map(|outlet| graph.node(outlet.node).name.as_str())
        .collect();
    feeds_of(&names, feeds)
}

/// The same by the names of the graph's inputs.
pub(super) fn feeds_of(names: &[&str], feeds: &[Feed]) -> Result<Vec<usize>, LoadError> {
    if names.len() != feeds.len() {
        let expected: Vec<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
        return Err(LoadError::Signature {
            why: format!("the manifest has inputs {expected:?}, the model {names:?}"),
        });
    }
    let by_name: Option<Vec<usize>> =
        names.iter().map(|name| feeds.iter().position(|feed| feed.name == *name)).collect();
    Ok(by_name.unwrap_or_else(|| (0..feeds.len()).collect()))
}

fn output_names(graph: &InferenceModel) -> Vec<String> {
    let Ok(outlets) = graph.output_outlets() else { return Vec::new() };
    let name = |outlet: &OutletId| {
        graph.outlet_label(*outlet).map_or_else(|| graph.node(outlet.node).name.clone(), ToOwned::to_owned)
    };
    outlets.iter().map(name).collect()
}

/// The shape to plan for: what the model fixes must equal what it will be fed.
pub(super) fn planned_shape(
    fact: &InferenceFact,
    feed: &Feed,
    batch: &TDim,
) -> Result<TVec<TDim>, LoadError> {
    let declared: Vec<DimFact> = fact.shape.dims().cloned().collect();
    let differs = || LoadError::Signature {
        why: format!(
            "input {:?} reaches the model as {:?}, but it takes {:?}",
            feed.name, feed.shape, fact.shape
        ),
    };
    let is_closed = !fact.shape.is_open();
    if is_closed && declared.len() != feed.shape.len() {
        return Err(differs());
    }
    let mut shape = TVec::new();
    for (place, size) in feed.shape.iter().enumerate() {
        let fixed = declared.get(place).and_then(Factoid::concretize).and_then(|dim| dim.to_usize().ok());
        match fixed {
            Some(fixed) if fixed != *size => return Err(differs()),
            Some(fixed) => shape.push(fixed.to_dim()),
            None if place == 0 && *size == 1 && feed.is_batched => shape.push(batch.clone()),
            None => shape.push(size.to_dim()),
        }
    }
    Ok(shape)
}

fn to_tract((shape, data): &Fed<'_>, wanted: DatumType) -> TractResult<TValue> {
    let tensor = match data.as_ref() {
        Data::Fp32(v) => Tensor::from_shape(shape, v),
        Data::Fp64(v) => Tensor::from_shape(shape, v),
        Data::Int8(v) => Tensor::from_shape(shape, v),
        Data::Int16(v) => Tensor::from_shape(shape, v),
        Data::Int32(v) => Tensor::from_shape(shape, v),
        Data::Int64(v) => Tensor::from_shape(shape, v),
        Data::Uint8(v) => Tensor::from_shape(shape, v),
        Data::Uint16(v) => Tensor::from_shape(shape, v),
        Data::Uint32(v) => Tensor::from_shape(shape, v),
        Data::Uint64(v) => Tensor::from_shape(shape, v),
        Data::Bool(v) => Tensor::from_shape(shape, v),
        Data::Bytes(_) => Err(TractError::msg("text can't be fed to a model")),
    }?;
    if tensor.datum_type() == wanted {
        return Ok(tensor.into());
    }
    Ok(tensor.cast_to_dt(wanted)?.into_owned().into())
}

fn from_tract(tensor: &Tensor) -> TractResult<Value> {
    let data = match tensor.datum_type().unquantized() {
        DatumType::F64 => Data::Fp64(values(tensor)?),
        DatumType::I8 => Data::Int8(values(tensor)?),
        DatumType::I16 => Data::Int16(values(tensor)?),
        DatumType::I32 => Data::Int32(values(tensor)?),
        DatumType::I64 => Data::Int64(values(tensor)?),
        // What tract casts to INT64, in case it is a shape.
        DatumType::TDim => Data::Int64(values(tensor.cast_to::<i64>()?.as_ref())?),
        DatumType::U8 => Data::Uint8(values(tensor)?),
        DatumType::U16 => Data::Uint16(values(tensor)?),
        DatumType::U32 => Data::Uint32(values(tensor)?),
        DatumType::U64 => Data::Uint64(values(tensor)?),
        DatumType::Bool => Data::Bool(values(tensor)?),
        _ => Data::Fp32(values(tensor.cast_to::<f32>()?.as_ref())?),
    };
    Ok((tensor.shape().to_vec(), data))
}

fn values<T: Datum + Copy>(tensor: &Tensor) -> TractResult<Vec<T>> {
    Ok(tensor.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
}

/// Most rows that go through a model at once: a larger batch takes no more memory than these, but for what it brings and
/// what it is answered. Rows are independent wherever batches are taken apart.
pub(super) const PASS_ROWS: usize = 16;

/// Runs some rows of a batch after the other, each time with all of what has no rows.
pub(super) fn by_parts(
    feeds: &[Fed<'_>],
    batched: &[bool],
    (batch, rows): (usize, usize),
    run: impl Fn(&[Fed<'_>], usize) -> Result<Vec<Value>, InferError>,
) -> Result<Vec<Value>, InferError> {
    let mut all: Vec<Vec<Value>> = Vec::with_capacity(batch.div_ceil(rows));
    for from in (0..batch).step_by(rows) {
        let count = rows.min(batch - from);
        let part = |(feed, is_batched): (&_, &bool)| {
            if *is_batched { part_of(feed, from, count, batch) } else { Fed::clone(feed) }
        };
        let feeds: Vec<Fed<'_>> = feeds.iter().zip(batched).map(part).collect();
        let answer = run(&feeds, count)?;
        if !answer.iter().all(|(shape, _)| shape.first() == Some(&count)) {
            return Err(InferError::MixesRows { got: batch });
        }
        all.push(answer);
    }
    Ok(join_rows(all))
}

/// Whether what came out for a row is one. Else a batch's answer isn't those of its rows put together.
pub(super) fn is_a_row((shape, _): &Value) -> bool {
    shape.first() == Some(&1)
}

fn part_of<'a>((shape, data): &Fed<'a>, from: usize, count: usize, batch: usize) -> Fed<'a> {
    let mut shape = shape.clone();
    if let Some(first) = shape.first_mut() {
        *first = count;
    }
    let width = data.len() / batch;
    (shape, Cow::Owned(data.slice(from * width, count * width)))
}

/// Puts the outputs of some rows each back together along the first dimension.
fn join_rows(rows: Vec<Vec<Value>>) -> Vec<Value> {
    let mut rows = rows.into_iter();
    let mut all = rows.next().unwrap_or_default();
    for row in rows {
        for ((shape, data), (row_shape, row_data)) in all.iter_mut().zip(row) {
            data.append(row_data);
            if let (Some(first), Some(more)) = (shape.first_mut(), row_shape.first()) {
                *first += more;
            }
        }
    }
    all
}

pub(super) fn text(error: &TractError) -> String {
    shorten(&format!("{error:#}"))
}

/// Values as f32, copied only if they aren't; none for text.
pub(crate) fn plain_f32(data: &Data) -> Option<Cow<'_, [f32]>> {
    match data {
        Data::Fp32(values) => Some(Cow::Borrowed(values)),
        Data::Bytes(_) => None,
        #[expect(clippy::cast_possible_truncation, reason = "what tract's own cast to f32 does")]
        other => Some(other.to_f64().into_iter().map(|value| value as f32).collect()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tract_onnx::pb::type_proto::{Tensor, Value};
    use tract_onnx::pb::{
        AttributeProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
    };

    use super::*;

    pub(in super::super) fn node(
        op: &str,
        input: &[&str],
        output: &str,
        attributes: &[(&str, &[i64])],
    ) -> NodeProto {
        let attribute = attributes.iter().map(|(name, ints)| AttributeProto {
            name: (*name).to_owned(),
            // 2 is INT, 7 is INTS.
            r#type: if ints.len() == 1 && *name != "axes" { 2 } else { 7 },
            i: ints[0],
            ints: ints.to_vec(),
            ..AttributeProto::default()
        });
        NodeProto {
            name: format!("of_{output}"),
            op_type: op.to_owned(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attribute.collect(),
            ..NodeProto::default()
        }
    }

    /// From `x` in f32 to `y`.
    pub(in super::super) fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
        let value = |name: &str| ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(TypeProto {
                value: Some(Value::TensorType(Tensor { elem_type: 1, shape: None })),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        };
        let graph = GraphProto {
            node,
            initializer,
            input: vec![value("x")],
            output: vec![value("y")],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { version: 13, ..OperatorSetIdProto::default() };
        ModelProto { opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
    }

    pub(in super::super) fn constant(
        name: &str,
        data_type: i32,
        dims: &[i64],
        raw_data: Vec<u8>,
    ) -> TensorProto {
        TensorProto {
            name: name.to_owned(),
            data_type,
            dims: dims.to_vec(),
            raw_data,
            ..TensorProto::default()
        }
    }

    pub(in super::super) fn ints(name: &str, values: &[i64]) -> TensorProto {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        constant(name, 7, &[i64::try_from(values.len()).unwrap()], raw)
    }

    pub(in super::super) fn plan(model: &ModelProto, shape: &[usize]) -> Result<Plan, LoadError> {
        let feed = Feed { name: "x".to_owned(), shape: shape.to_vec(), is_batched: true };
        Plan::build(model.clone(), &[feed], None)
    }

    pub(in super::super) fn fed(shape: &[usize], values: Vec<f32>) -> [Fed<'static>; 1] {
        [(shape.to_vec(), Cow::Owned(Data::Fp32(values)))]
    }

    #[test]
    fn what_is_cast_to_whole_numbers_comes_out_as_such() {
        let cast = node("Cast", &["x"], "y", &[("to", &[7])]);
        let plan = plan(&model(vec![cast], vec![]), &[1, 2]).unwrap();
        let fed = (vec![2, 2], Cow::Owned(Data::Fp32(vec![16_777_216.0, -3.7, 1_099_511_627_776.0, -3e9])));
        let (shape, data) = plan.run(&[fed], 2).unwrap().remove(0);
        let whole = Data::Int64(vec![16_777_216, -3, 1_099_511_627_776, -3_000_000_000]);
        assert_eq!((shape, data), (vec![2, 2], whole));
    }

    #[test]
    fn rows_that_are_mixed_are_answered_as_a_whole_or_one_by_one() {
        let minus_mean = |x: &str| {
            let mean = [("axes", &[0_i64][..]), ("keepdims", &[1])];
            vec![node("ReduceMean", &[x], "mean", &mean), node("Sub", &[x, "mean"], "y", &[])]
        };
        let whole = plan(&model(minus_mean("x"), vec![]), &[1, 2, 1, 1]).unwrap();
        assert!(whole.mixes() && whole.is_batched());
        let batch = || fed(&[2, 2, 1, 1], vec![1.0, 5.0, 3.0, 9.0]);
        assert_eq!(whole.run(&batch(), 2).unwrap()[0].1, Data::Fp32(vec![-1.0, -2.0, 1.0, 2.0]));

        let pool = node("MaxPool", &["x"], "p", &[("kernel_shape", &[1, 1])]);
        let nodes = [vec![pool.clone()], minus_mean("p")].concat();
        let by_rows = plan(&model(nodes, vec![]), &[1, 2, 1, 1]).unwrap();
        assert!(by_rows.mixes() && !by_rows.is_batched());
        assert!(matches!(by_rows.run(&batch(), 2), Err(InferError::MixesRows { got: 2 })));
        assert!(by_rows.run(&fed(&[1, 2, 1, 1], vec![1.0, 5.0]), 1).is_ok());

        let pool = NodeProto { output: vec!["y".to_owned()], ..pool };
        let alone = plan(&model(vec![pool], vec![]), &[1, 2, 1, 1]).unwrap();
        assert!(!alone.mixes());
        assert_eq!(alone.run(&batch(), 2).unwrap()[0].1, Data::Fp32(vec![1.0, 5.0, 3.0, 9.0]));
    }

    #[test]
    fn what_a_node_makes_is_bounded_and_the_node_is_named() {
        let ones = |shape: &[i64]| {
            let made = node("ConstantOfShape", &["s"], "c", &[]);
            model(vec![made, node("Add", &["x", "c"], "y", &[])], vec![ints("s", shape)])
        };
        assert!(plan(&ones(&[2, 2]), &[1, 1]).is_ok());
        let tile = model(vec![node("Tile", &["x", "r"], "y", &[])], vec![ints("r", &[1, 1 << 28])]);
        let reshape = |to: &str, shape| node("Reshape", &["x", shape], to, &[]);
        let outer = model(
            vec![reshape("a", "sa"), reshape("b", "sb"), node("Add", &["a", "b"], "y", &[])],
            vec![ints("sa", &[-1, 1]), ints("sb", &[1, -1])],
        );
        for (model, shape, name) in [
            (ones(&[1 << 14, 1 << 14]), vec![1, 1], "of_c"),
            (tile, vec![1, 2], "of_y"),
            (outer, vec![1, 1 << 15], "of_y"),
        ] {
            let why = plan(&model, &shape).err().unwrap().to_string();
            assert!(why.contains(name) && why.contains("at most"), "{why}");
        }
        let pool = [("kernel_shape", &[1000_i64, 1000][..]), ("pads", &[500; 4])];
        let pool = model(vec![node("MaxPool", &["x"], "y", &pool)], vec![]);
        let why = plan(&pool, &[1, 1, 400, 400]).err().unwrap().to_string();
        assert!(why.contains("of_y") && why.contains("windows"), "{why}");
    }

    #[test]
    fn a_transposed_convolution_smaller_and_larger_than_its_windows_is_named() {
        let of = |size: i64, other: i64| {
            let attributes = [("strides", &[2_i64, 2][..]), ("output_shape", &[size, other])];
            let weights = constant("w", 1, &[1, 1, 3, 3], 1_f32.to_le_bytes().repeat(9));
            let node = node("ConvTranspose", &["x", "w"], "y", &attributes);
            plan(&model(vec![node], vec![weights]), &[1, 1, 4, 4])
        };
        assert!(of(9, 9).is_ok() && of(10, 10).is_ok() && of(8, 9).is_ok());
        let why = of(8, 10).err().unwrap().to_string();
        assert!(why.contains("of_y") && why.contains("[8, 10]"), "{why}");
    }

    #[test]
    fn what_nonzero_makes_is_bounded_before_it_is_made() {
        let mut shape = [1_i64; 16];
        shape[15] = 17 << 20;
        let nodes = vec![
            node("ConstantOfShape", &["s"], "c", &[]),
            node("NonZero", &["c"], "places", &[]),
            node("Cast", &["places"], "floats", &[("to", &[1])]),
            node("Add", &["x", "floats"], "y", &[]),
        ];
        let why = plan(&model(nodes, vec![ints("s", &shape)]), &[1, 1]).err().unwrap().to_string();
        assert!(why.contains("\"of_places\" (NonZero)") && why.contains("at most"), "{why}");
    }

    #[test]
    fn a_product_of_matrices_of_64_bits_is_refused_by_its_name() {
        let nodes =
            vec![node("Cast", &["x"], "whole", &[("to", &[7])]), node("MatMul", &["whole", "w"], "y", &[])];
        let weights = constant("w", 7, &[2, 2], vec![0; 32]);
        let why = plan(&model(nodes, vec![weights]), &[1, 2]).err().unwrap().to_string();
        assert!(why.contains("\"of_y") && !why.contains("panicked"), "{why}");
    }

    /// On a machine with AMX tract's own kernel read behind these weights, which ended the process.
    #[test]
    fn a_long_integer_product_ends_well() {
        let count = 130_000;
        let nodes = vec![
            node("Cast", &["x"], "q", &[("to", &[3])]),
            node("MatMulInteger", &["q", "w"], "p", &[]),
            node("Cast", &["p"], "y", &[("to", &[1])]),
        ];
        let weights = constant("w", 3, &[130_000, 2], vec![1; count * 2]);
        let plan = plan(&model(nodes, vec![weights]), &[1, count]).unwrap();
        for _ in 0..4 {
            let (_, data) = plan.run(&fed(&[1, count], vec![1.0; count]), 1).unwrap().remove(0);
            assert_eq!(data, Data::Fp32(vec![130_000.0; 2]));
        }
    }
}
