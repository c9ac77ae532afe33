//! The shapes of all that a graph makes, found node by node: what a node would make is bounded before it is made, and
//! a node that tract fails or panics at is named. tract's own analysis works out constants while it goes, so that one
//! small node takes all memory before anybody saw a shape.

use std::collections::{BTreeSet, HashMap};

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact, InferenceModelExt, InferenceNode, InferenceOp};
use tract_onnx::tract_hir::tract_core::internal::translator::Translate;
use tract_onnx::tract_hir::tract_core::internal::{EvalContext, SymbolValues, TDim, TypedOp};
use tract_onnx::tract_hir::tract_core::ops::cnn::{Conv, Deconv, MaxPool, SumPool};
use tract_onnx::tract_hir::tract_core::ops::einsum::EinSum;

use super::exact::{cut_constant, exact};
use super::forms::Refused;
use super::{guarded, shown};
use crate::error::LoadError;

/// Most elements of a tensor of one row: 256 M, 1 GB of f32.
const MAX_ELEMENTS: u64 = 256 << 20;
/// Most elements of all tensors that are worked out at load, together.
const MAX_CONSTANT_ELEMENTS: u64 = 128 << 20;
/// Most elements of a window's node, counted once for each result: about a minute of one core.
const MAX_WINDOW_WORK: u64 = 1 << 36;

/// Types whose products of matrices tract panics at.
const FAR: [DatumType; 3] = [DatumType::I64, DatumType::U32, DatumType::U64];

/// Most that an output of a transposed convolution is larger than what its windows make.
const MAX_ADJUSTMENT: usize = 1 << 20;

/// tract's graph with types, if nothing in it is larger than it may be. `batch` is the symbol of the rows.
pub(super) fn typed(mut graph: InferenceModel, batch: &TDim) -> Result<TypedModel, LoadError> {
    let rows = match batch {
        TDim::Sym(symbol) => SymbolValues::default().with(symbol, 1),
        _ => SymbolValues::default(),
    };
    Analysis { graph: &mut graph, rows: &rows, constants: 0 }.run()?;
    let typed = graph.incorporate().and_then(|graph| Named.translate_model(&graph));
    let mut typed = typed.map_err(|error| refused(&error))?;
    put_exact(&mut typed).map_err(|error| refused(&error))?;
    for node in &typed.nodes {
        let kind = node.outputs.first().map(|output| output.fact.datum_type);
        if let Some(kind) = kind.filter(|kind| FAR.contains(kind) && node.op_is::<EinSum>()) {
            let why =
                format!("node {:?} sums products of {kind:?}, which the runtime doesn't", shown(&node.name));
            return Err(LoadError::Runtime { why });
        }
        for output in &node.outputs {
            let Some(elements) = elements(output.fact.shape.iter(), &rows) else { continue };
            bounded(elements, MAX_ELEMENTS, "elements", &node.name, &node.op.name())?;
            let pool = node.op_as::<MaxPool>().map(|op| &op.pool_spec);
            let pool = pool.or_else(|| node.op_as::<SumPool>().map(|op| &op.pool_spec));
            let pool = pool.or_else(|| node.op_as::<Conv>().map(|op| &op.pool_spec));
            let window = pool.map_or(1, |pool| pool.kernel_shape.iter().map(|size| *size as u64).product());
            let work = elements.saturating_mul(window);
            bounded(work, MAX_WINDOW_WORK, "reads of its windows", &node.name, &node.op.name())?;
        }
    }
    Ok(typed)
}

/// Finds the shapes of a graph whose rows are so many, within the same bounds.
pub(super) fn find(graph: &mut InferenceModel) -> Result<(), LoadError> {
    Analysis { graph, rows: &SymbolValues::default(), constants: 0 }.run()
}

/// Puts our own operators in the place of those that tract has added to a graph and that are wrong for their types.
fn put_exact(graph: &mut TypedModel) -> TractResult<()> {
    for id in 0..graph.nodes.len() {
        let node = &graph.nodes[id];
        let kinds = node.inputs.iter().map(|input| Ok(graph.outlet_fact(*input)?.datum_type));
        if let Some(op) = exact(node.op.as_ref(), &kinds.collect::<TractResult<Vec<_>>>()?) {
            graph.nodes[id].op = op;
        }
    }
    Ok(())
}

/// As tract gives a graph its types, but a panic is an error of the node that it happened at.
#[derive(Debug)]
struct Named;

impl Translate<InferenceFact, Box<dyn InferenceOp>, TypedFact, Box<dyn TypedOp>> for Named {
    fn translate_node(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        let is_kept =
            InferenceModel::is_source(&node.op) || node.op.state(&EvalContext::out_of_plan())?.is_some();
        let values = node.outputs.iter().map(|output| output.fact.value.concretize());
        if let Some(values) = values.collect::<Option<Vec<_>>>().filter(|_| !is_kept) {
            let places = values.into_iter().enumerate();
            return places
                .map(|(place, value)| target.add_const(format!("{}.{place}", node.name), value))
                .collect();
        }
        let outlets = guarded(|| node.op.to_typed(source, node, target, mapping));
        let outlets = outlets.unwrap_or_else(|why| Err(TractError::msg(format!("it panicked: {why}"))))?;
        for outlet in &outlets {
            target.outlet_fact(*outlet)?.consistent()?;
            // The sum of what is around it went below zero, which only debug builds of tract notice.
            let deconv = target.node(outlet.node).op_as::<Deconv>();
            if deconv.is_some_and(|op| op.adjustments.iter().any(|more| *more > MAX_ADJUSTMENT)) {
                return Err(TractError::msg("its output_shape is smaller than what its window makes"));
            }
        }
        Ok(outlets)
    }
}

struct Analysis<'a> {
    graph: &'a mut InferenceModel,
    rows: &'a SymbolValues,
    /// Elements that were worked out so far.
    constants: u64,
}

type Facts = TVec<InferenceFact>;

impl Analysis<'_> {
    /// Goes over all nodes, and again over those whose neighbours came to know more, until none does.
    fn run(&mut self) -> Result<(), LoadError> {
        let mut to_visit: BTreeSet<usize> = (0..self.graph.nodes.len()).collect();
        let mut watchers: HashMap<OutletId, Vec<usize>> = HashMap::new();
        for node in &self.graph.nodes {
            let watched = node.op.observe_outlets(self.graph, node).map_err(|error| refused(&error))?;
            for outlet in watched {
                watchers.entry(outlet).or_default().push(node.id);
            }
        }
        while let Some(node) = to_visit.pop_first() {
            for outlet in self.node(node)? {
                let readers = &self.graph.nodes[outlet.node].outputs[outlet.slot].successors;
                to_visit.extend(readers.iter().map(|reader| reader.node).filter(|reader| *reader != node));
                to_visit.extend(Some(outlet.node).filter(|maker| *maker != node));
                to_visit
                    .extend(watchers.get(&outlet).into_iter().flatten().filter(|reader| **reader != node));
            }
        }
        Ok(())
    }

    /// Looks at one node; the outlets of which more is known then.
    fn node(&mut self, id: usize) -> Result<Vec<OutletId>, LoadError> {
        let (name, op) = (self.graph.nodes[id].name.clone(), self.graph.nodes[id].op.name().into_owned());
        let found = guarded(|| self.infer(id, &name, &op)).unwrap_or_else(|why| {
            let why = format!("node {:?} ({op}): it panicked: {why}", shown(&name));
            Err(LoadError::Runtime { why })
        })?;
        let mut changed = Vec::new();
        for (outlet, fact) in found {
            let known = self.graph.outlet_fact(outlet).map_err(|error| refused(&error))?;
            let both = fact.unify(known).map_err(|error| named(&name, &op, &error))?;
            if both != *known {
                self.graph.set_outlet_fact(outlet, both).map_err(|error| refused(&error))?;
                changed.push(outlet);
            }
        }
        Ok(changed)
    }

    /// What a node says of its neighbours, and what it makes where all it reads is known.
    fn infer(
        &mut self,
        id: usize,
        name: &str,
        op: &str,
    ) -> Result<Vec<(OutletId, InferenceFact)>, LoadError> {
        let failed = |error: TractError| named(name, op, &error);
        let node = &self.graph.nodes[id];
        let watched = node.op.observe_outlets(self.graph, node).map_err(failed)?;
        let outlets = |slot| OutletId::new(id, slot);
        let outputs: Vec<OutletId> = (0..node.outputs.len()).map(outlets).collect();
        let mut refined = node.op.clone();
        let inputs = node.inputs.clone();
        let fact = |outlet: &OutletId| self.graph.outlet_fact(*outlet).cloned();
        let facts = |outlets: &[OutletId]| outlets.iter().map(fact).collect::<TractResult<Facts>>();
        let known = (
            facts(&inputs).map_err(failed)?,
            facts(&outputs).map_err(failed)?,
            facts(&watched).map_err(failed)?,
        );
        if let Some(why) = cut_constant(op, &known.0) {
            return Err(LoadError::Runtime { why: format!("node {:?} ({op}) {why}", shown(name)) });
        }
        let all = || (known.0.iter().collect(), known.1.iter().collect(), known.2.iter().collect());
        let (of_inputs, of_outputs, of_watched) = all();
        let mut found = refined.infer_facts(of_inputs, of_outputs, of_watched).map_err(failed)?;
        let places = self.places(&found, op);
        bounded(places, MAX_ELEMENTS, "elements if nothing is zero", name, op)?;
        let made = self.bound(&found.1, name, op)?.max(places);
        if !found.0.is_empty() && found.0.iter().all(|fact| fact.value.concretize().is_some()) {
            let all_made = self.constants.saturating_add(made);
            let what = "elements at load, with the nodes before it";
            bounded(all_made, MAX_CONSTANT_ELEMENTS, what, name, op)?;
            let (of_inputs, of_outputs, of_watched) = all();
            found = refined.infer(of_inputs, of_outputs, of_watched).map_err(failed)?;
            self.bound(&found.1, name, op)?;
            self.constants = all_made;
        }
        self.graph.nodes[id].op = refined;
        let (of_inputs, of_outputs, of_watched): (Facts, Facts, Facts) = found;
        let both = inputs.into_iter().zip(of_inputs).chain(outputs.into_iter().zip(of_outputs));
        Ok(both.chain(watched.into_iter().zip(of_watched)).collect())
    }

    /// Most elements of what NonZero makes, of which its rules say no number: a place along each axis for each element.
    fn places(&self, found: &(Facts, Facts, Facts), op: &str) -> u64 {
        let read = found.0.first().filter(|_| op == "NonZero").and_then(|fact| fact.shape.concretize());
        let Some(shape) = read else { return 0 };
        elements(shape.iter(), self.rows).unwrap_or(0).saturating_mul(shape.len() as u64)
    }

    /// Elements of all that a node makes, as far as that is known.
    fn bound(&self, facts: &[InferenceFact], name: &str, op: &str) -> Result<u64, LoadError> {
        let mut all: u64 = 0;
        for fact in facts {
            let dims: Option<TVec<TDim>> = fact.shape.dims().map(Factoid::concretize).collect();
            let Some(dims) = dims.filter(|_| !fact.shape.is_open()) else { continue };
            let Some(elements) = elements(dims.iter(), self.rows) else { continue };
            bounded(elements, MAX_ELEMENTS, "elements", name, op)?;
            all = all.saturating_add(elements);
        }
        Ok(all)
    }
}

/// Elements of a tensor of one row; none where a size isn't known.
fn elements<'d>(dims: impl Iterator<Item = &'d TDim>, rows: &SymbolValues) -> Option<u64> {
    let mut all: u64 = 1;
    for dim in dims {
        // What is negative or doesn't fit is a size that a sum went over.
        let size = dim.eval(rows).to_i64().ok()?;
        all = all.saturating_mul(u64::try_from(size).unwrap_or(u64::MAX));
    }
    Some(all)
}

fn bounded(got: u64, most: u64, what: &str, name: &str, op: &str) -> Result<(), LoadError> {
    if got <= most {
        return Ok(());
    }
    let why = format!("node {:?} ({op}) makes {got} {what}; at most {most} are allowed", shown(name));
    Err(LoadError::Malformed { why })
}

fn named(name: &str, op: &str, error: &TractError) -> LoadError {
    if let Some(Refused { op, why }) = error.chain().find_map(|cause| cause.downcast_ref()) {
        return LoadError::Malformed { why: format!("node {:?} ({}) {why}", shown(name), shown(op)) };
    }
    LoadError::Runtime { why: format!("node {:?} ({op}): {}", shown(name), super::plan::text(error)) }
}

pub(super) fn refused(error: &TractError) -> LoadError {
    LoadError::Runtime { why: super::plan::text(error) }
}
