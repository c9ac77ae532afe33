//! The run over the steps.

use std::borrow::Cow;

use super::state::{Pool, State};
use super::step::{Shuffle, Step};
use super::values::{ActId, FloatId, Values};
use crate::engine::{Fed, Value, plain_f32};
use crate::error::InferError;
use crate::int8::kernel::{self, Curve, Layout, ToBytes, ToFloat, min_max};
use crate::int8::report::Report;
use crate::tensor::Data;

/// A lowered model.
pub(crate) struct Program {
    pub(crate) values: Values,
    pub(crate) steps: Vec<Step>,
    /// Elements of one row of each feed.
    pub(crate) feeds: Vec<usize>,
    /// For each feed whether it has a row for each one of the batch; if any has not, rows run one by one.
    pub(crate) batched: Vec<bool>,
    /// For each output its value and its shape for one row.
    pub(crate) outputs: Vec<(FloatId, Vec<usize>)>,
    pub(crate) names: Vec<String>,
    /// Whether rows are independent of each other in every step.
    pub(crate) is_batched: bool,
    pub(crate) report: Report,
    pub(crate) idle: Pool,
}

impl Program {
    /// Runs rows; feeds come in the order of the manifest.
    pub(crate) fn run(&self, feeds: &[Fed<'_>], batch: usize) -> Result<Vec<Value>, InferError> {
        self.run_watched(feeds, batch, &mut |_| ())
    }

    /// The same; `done` is told the place of each step after it.
    pub(super) fn run_watched(
        &self,
        feeds: &[Fed<'_>],
        batch: usize,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Value>, InferError> {
        let given = feeds;
        let feeds = self.plain(feeds, batch)?;
        let feeds: Vec<&[f32]> = feeds.iter().map(AsRef::as_ref).collect();
        let mut state = self.take(batch);
        for (index, step) in self.steps.iter().enumerate() {
            Run { state: &mut state, values: &self.values, feeds: &feeds, given }.step(step)?;
            done(index);
        }
        let outputs = self.outputs.iter().map(|(id, shape)| {
            let run = Run { state: &mut state, values: &self.values, feeds: &feeds, given };
            let mut shape = shape.clone();
            if let Some(first) = shape.first_mut() {
                *first *= batch;
            }
            (shape, Data::Fp32(run.float(*id).to_vec()))
        });
        let outputs = outputs.collect();
        self.idle.give_back(state);
        Ok(outputs)
    }

    /// Whether what is left to tract makes a row's answer depend on the other rows of its batch.
    pub(crate) fn mixes_rows(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Island { plan, .. } if plan.mixes()))
    }

    /// Bytes of one run's activations for one row.
    pub(crate) fn planned_bytes(&self) -> usize {
        let state = self.take(1);
        let bytes = state.planned_bytes();
        self.idle.give_back(state);
        bytes
    }

    fn plain<'v>(&self, feeds: &'v [Fed<'_>], batch: usize) -> Result<Vec<Cow<'v, [f32]>>, InferError> {
        let plain: Vec<_> = feeds
            .iter()
            .map(|(_, data)| plain_f32(data))
            .collect::<Option<_>>()
            .ok_or_else(|| InferError::Runtime { why: "text can't be fed to a model".into() })?;
        match plain.iter().zip(&self.feeds).find(|(got, want)| got.len() != **want * batch) {
            Some((got, want)) => {
                let why = format!("an input has {} elements, {} are needed", got.len(), want * batch);
                Err(InferError::Runtime { why })
            }
            None => Ok(plain),
        }
    }

    fn take(&self, batch: usize) -> State {
        self.idle.take(batch).unwrap_or_else(|| {
            let outputs: Vec<FloatId> = self.outputs.iter().map(|(id, _)| *id).collect();
            State::new(&self.values, &self.steps, &outputs, batch)
        })
    }
}

struct Run<'r> {
    state: &'r mut State,
    values: &'r Values,
    feeds: &'r [&'r [f32]],
    /// The feeds as the caller gave them.
    given: &'r [Fed<'r>],
}

impl Run<'_> {
    fn float(&self, id: FloatId) -> &[f32] {
        match self.values.float(id).feed {
            Some(feed) => self.feeds[feed],
            None => &self.state.values[self.state.place(id)],
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), InferError> {
        match step {
            Step::Constant { values, to } => self.constant(values, *to),
            Step::Quantize { from, to } => self.quantize(*from, *to, (None, &[])),
            Step::QuantizeCurve { curve, scales, from, to } => self.quantize(*from, *to, (*curve, scales)),
            Step::DynamicQuantize { from, to } => {
                let (scale, zero_point) = min_max(self.float(*from)).scale_and_zero_point();
                self.state.layouts[to.0].zero_point = zero_point;
                self.state.scales[to.0] = scale;
                self.quantize(*from, *to, (None, &[]));
            }
            Step::Dequantize { from, to } => {
                let (place, scale) = (self.state.place(*to), self.state.scales[from.0]);
                let (act, values, _) = self.state.read(*from);
                kernel::dequantize(&act, scale, &mut values[place]);
            }
            Step::Mean { from, to } => {
                let (place, scale) = (self.state.place(*to), self.state.scales[from.0]);
                let (act, values, _) = self.state.read(*from);
                kernel::mean(&act, scale, &mut values[place]);
            }
            Step::LinearFloat { .. } => self.linear_float(step),
            Step::LinearCurve { .. } => self.linear_curve(step),
            Step::Float { op, from, to } => self.float_op(op, from, *to),
            Step::Island { plan, from, to, .. } => self.island(plan, from, to)?,
            Step::Linear { .. }
            | Step::LinearAdd { .. }
            | Step::Chain { .. }
            | Step::Add { .. }
            | Step::Mul { .. }
            | Step::Product { .. }
            | Step::Concat { .. }
            | Step::Lookup { .. }
            | Step::AveragePool { .. }
            | Step::MaxPool { .. }
            | Step::Resize { .. }
            | Step::Interpolate { .. }
            | Step::Region { .. }
            | Step::Shuffle { .. } => self.bytes(step),
        }
        Ok(())
    }

    /// The steps from u8 to u8.
    fn bytes(&mut self, step: &Step) {
        let Some(to) = step.writes() else { return };
        let (mut to, acts, work) = self.state.write(to);
        match step {
            Step::Linear { conv, from, .. } => conv.run(&acts.get(*from), &mut to, &mut work.scratch),
            Step::LinearAdd { conv, from, other, add, .. } => {
                conv.run_add(&acts.get(*from), &acts.get(*other), add, &mut to, &mut work.scratch);
            }
            Step::Chain { chain, from, .. } => chain.run(&acts.get(*from), &mut to, &mut work.scratch),
            Step::Add { a, b, spec, .. } => kernel::add(&acts.get(*a), &acts.get(*b), spec, &mut to),
            Step::Mul { a, b, spec, .. } => kernel::mul(&acts.get(*a), &acts.get(*b), spec, &mut to),
            Step::Product { product, a, b, .. } => {
                product.run(&acts.get(*a), &acts.get(*b), &mut to, &mut work.scratch);
            }
            Step::Concat { parts, .. } => {
                let parts: Vec<_> =
                    parts.iter().map(|(id, table)| (acts.get(*id), table.as_deref())).collect();
                kernel::concat(&parts, &mut to);
            }
            Step::Lookup { from, table, .. } => kernel::lookup(&acts.get(*from), table, &mut to),
            Step::AveragePool { pool, from, .. } => pool.run(&acts.get(*from), &mut to),
            Step::MaxPool { pool, from, .. } => pool.run(&acts.get(*from), &mut to),
            Step::Resize { rows, columns, from, .. } => resize(&acts.get(*from), (rows, columns), &mut to),
            Step::Interpolate { bilinear, offset, from, .. } => {
                bilinear.run_bytes(&acts.get(*from), *offset, &mut to);
            }
            Step::Region { from, first, at, .. } => {
                kernel::copy_region(&acts.get(*from), *first, *at, &mut to);
            }
            Step::Shuffle { from, shuffle: Shuffle::Pixels, .. } => copy_pixels(&acts.get(*from), &mut to),
            Step::Shuffle { from, shuffle: Shuffle::Rows(map), .. } => {
                copy_rows(&acts.get(*from), map, &mut to);
            }
            Step::Shuffle { from, shuffle, .. } => {
                let from = acts.get(*from);
                work.plain.resize(from.layout().elements(), 0);
                kernel::to_plain(&from, &mut work.plain);
                let zero = from.layout().zero_point;
                let turned = turn(shuffle, &work.plain, zero, to.layout(), &mut work.turned);
                kernel::from_plain(turned, &mut to);
            }
            _ => {}
        }
    }

    fn constant(&mut self, values: &[u8], to: ActId) {
        let (mut to, _, work) = self.state.write(to);
        let rows = to.layout().elements() / values.len().max(1);
        work.plain.clear();
        for _ in 0..rows {
            work.plain.extend_from_slice(values);
        }
        kernel::from_plain(&work.plain, &mut to);
    }

    /// By the activation's own scale where no other is given.
    fn quantize(&mut self, from: FloatId, to: ActId, (curve, scales): (Option<Curve>, &[f32])) {
        let (feed, place) = (self.values.float(from).feed, self.state.place(from));
        let own = [self.state.scales[to.0]];
        let by = (curve, if scales.is_empty() { &own } else { scales });
        let (mut act, values) = self.state.quantized(to);
        let values = feed.map_or_else(|| &values[place], |feed| self.feeds[feed]);
        kernel::quantize(values, by, &mut act);
    }

    fn linear_curve(&mut self, step: &Step) {
        let Step::LinearCurve { conv, from, scales, bias, bounds, curve, divisors, to } = step else {
            return;
        };
        let (scale, own) = (self.state.scales[from.0], [self.state.scales[to.0]]);
        let divisors = if divisors.is_empty() { &own } else { divisors.as_slice() };
        let (mut output, acts, work) = self.state.write(*to);
        let by = ToFloat { scale, scales, bias, bounds: [bounds.lo, bounds.hi] };
        let then = ToBytes { curve: *curve, scales: divisors };
        conv.run_curve(&acts.get(*from), (&by, &then), &mut output, &mut work.scratch);
    }

    fn linear_float(&mut self, step: &Step) {
        let Step::LinearFloat { conv, from, scales, bias, bounds, to } = step else { return };
        let (place, scale) = (self.state.place(*to), self.state.scales[from.0]);
        let (act, values, work) = self.state.read(*from);
        let by = ToFloat { scale, scales, bias, bounds: [bounds.lo, bounds.hi] };
        conv.run_float(&act, &by, &mut values[place], &mut work.scratch);
    }

    fn float_op(&mut self, op: &super::floats::FloatOp, from: &[FloatId], to: FloatId) {
        let places: Vec<_> =
            from.iter().map(|id| (self.values.float(*id).feed, self.state.place(*id))).collect();
        let place = self.state.place(to);
        let (out, rest) = super::memory::split(&mut self.state.values, &place);
        let inputs: Vec<&[f32]> = places
            .iter()
            .map(|(feed, place)| feed.map_or_else(|| rest.get(place), |feed| self.feeds[feed]))
            .collect();
        op.run(&inputs, out);
    }

    fn island(
        &mut self,
        plan: &crate::engine::Plan,
        from: &[(FloatId, Vec<usize>)],
        to: &[FloatId],
    ) -> Result<(), InferError> {
        let (batch, given) = (self.state.batch(), self.given);
        let feed = |(id, shape): &(FloatId, Vec<usize>)| {
            let mut shape = shape.clone();
            if let Some(first) = shape.first_mut() {
                *first *= batch;
            }
            // What comes from outside goes in as it is: not all of its numbers need be f32's.
            let data = match self.values.float(*id).feed {
                Some(feed) => Cow::Borrowed(given[feed].1.as_ref()),
                None => Cow::Owned(Data::Fp32(self.float(*id).to_vec())),
            };
            (shape, data)
        };
        let feeds: Vec<Fed<'_>> = from.iter().map(feed).collect();
        for ((shape, data), id) in plan.run(&feeds, batch)?.into_iter().zip(to) {
            let place = self.state.place(*id);
            let wanted = place.len();
            let Data::Fp32(values) = &data else { return Err(not_wanted(&shape, &data, wanted)) };
            // What hangs on the rows' sizes alone, such as a table of positions, comes out once for all rows.
            let is_once = shape.first() == Some(&1) && values.len() * batch == wanted;
            if values.len() != wanted && !is_once {
                return Err(not_wanted(&shape, &data, wanted));
            }
            for row in self.state.values[place].chunks_exact_mut(values.len().max(1)) {
                row.copy_from_slice(values);
            }
        }
        Ok(())
    }
}

fn not_wanted(shape: &[usize], data: &Data, wanted: usize) -> InferError {
    let why = format!("an island gave {} {shape:?}, {wanted} FP32 are needed", data.datatype());
    InferError::Runtime { why }
}

/// The bytes in the order that a shuffle wants, all rows.
fn turn<'w>(shuffle: &Shuffle, plain: &'w [u8], zero: u8, to: &Layout, turned: &'w mut Vec<u8>) -> &'w [u8] {
    let Shuffle::Map(map) = shuffle else { return plain };
    let rows = to.elements() / map.len().max(1);
    let from_row = plain.len() / rows.max(1);
    turned.clear();
    for row in plain.chunks_exact(from_row.max(1)).take(rows) {
        let byte = |index: &u32| usize::try_from(*index).ok().and_then(|index| row.get(index)).copied();
        turned.extend(map.iter().map(|index| byte(index).unwrap_or(zero)));
    }
    turned
}

/// Each pixel as it is, in the order in which both layouts count them.
fn copy_pixels(from: &kernel::Act<'_>, to: &mut kernel::ActMut<'_>) {
    let (source, target) = (*from.layout(), *to.layout());
    let bytes = source.pixel_bytes().min(target.pixel_bytes());
    if !target.is_dense() {
        to.data_mut().fill(target.zero_point);
    }
    let place = |layout: &Layout, index: usize| {
        let (image, pixel) = (index / (layout.height * layout.width), index % (layout.height * layout.width));
        layout.pixel(image, pixel / layout.width, pixel % layout.width)
    };
    for index in 0..source.pixels().min(target.pixels()) {
        let pixel = &from.data()[place(&source, index)..][..bytes];
        to.data_mut()[place(&target, index)..][..bytes].copy_from_slice(pixel);
    }
}

/// The rows of a matrix in another order, each one's bytes as they are.
fn copy_rows(from: &kernel::Act<'_>, map: &[u32], to: &mut kernel::ActMut<'_>) {
    let (source, target) = (*from.layout(), *to.layout());
    let bytes = source.channels.min(target.channels);
    let per_row = map.len().max(1);
    for row in 0..target.batch {
        let place = usize::try_from(map[row % per_row]).unwrap_or(0) + row / per_row * per_row;
        let line = &from.data()[source.pixel(place, 0, 0)..][..bytes];
        to.data_mut()[target.pixel(row, 0, 0)..][..bytes].copy_from_slice(line);
    }
}

fn resize(from: &kernel::Act<'_>, (rows, columns): (&[usize], &[usize]), to: &mut kernel::ActMut<'_>) {
    let layout = *to.layout();
    let pixel = layout.pixel_bytes().min(from.layout().pixel_bytes());
    if !layout.is_dense() {
        to.data_mut().fill(layout.zero_point);
    }
    for n in 0..layout.batch {
        for (y, row) in rows.iter().enumerate() {
            for (x, column) in columns.iter().enumerate() {
                let source = &from.data()[from.layout().pixel(n, *row, *column)..][..pixel];
                to.data_mut()[layout.pixel(n, y, x)..][..pixel].copy_from_slice(source);
            }
        }
    }
}
