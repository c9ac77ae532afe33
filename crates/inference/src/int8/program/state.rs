//! What changes while a program runs.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::memory::{Need, Rest, place, split};
use super::step::Step;
use super::values::{ActId, FloatId, Values};
use crate::int8::kernel::{Act, ActMut, Buffer, Layout, Scratch};

/// Places of values start at a cache line.
const ALIGN_BYTES: usize = 64;

/// Most states that wait for the next run; further threads make their own and drop it.
const MAX_IDLE_STATES: usize = 4;

/// States between runs: several threads may run one program.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<State>>);

impl Pool {
    /// A state for this batch, if one waits. Where none fits and the pool is full, the oldest makes room.
    pub(super) fn take(&self, batch: usize) -> Option<State> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = idle.iter().position(|state| state.batch == batch);
        if place.is_none() && idle.len() >= MAX_IDLE_STATES {
            idle.remove(0);
        }
        place.map(|place| idle.swap_remove(place))
    }

    /// Keeps a state for the next run.
    pub(super) fn give_back(&self, state: State) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE_STATES {
            idle.push(state);
        }
    }
}

/// The memory of one run.
pub(super) struct State {
    batch: usize,
    pub(super) layouts: Vec<Layout>,
    pub(super) scales: Vec<f32>,
    acts: Vec<Range<usize>>,
    floats: Vec<Range<usize>>,
    bytes: Buffer,
    pub(super) values: Vec<f32>,
    pub(super) work: Work,
}

/// Memory that steps need for themselves.
#[derive(Default)]
pub(super) struct Work {
    pub(super) scratch: Scratch,
    pub(super) plain: Vec<u8>,
    pub(super) turned: Vec<u8>,
}

impl State {
    /// Memory for this batch.
    pub(super) fn new(values: &Values, steps: &[Step], outputs: &[FloatId], batch: usize) -> Self {
        let mut state = Self {
            batch,
            layouts: Vec::new(),
            scales: Vec::new(),
            acts: Vec::new(),
            floats: Vec::new(),
            bytes: Buffer::default(),
            values: Vec::new(),
            work: Work::default(),
        };
        state.plan(values, steps, outputs);
        state
    }

    /// Rows it is planned for.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    fn plan(&mut self, values: &Values, steps: &[Step], outputs: &[FloatId]) {
        let (acts, floats) = lives(values, steps, outputs);
        self.layouts = values.acts.iter().map(|act| batched(&act.layout, self.batch)).collect();
        self.scales = values.acts.iter().map(|act| act.scale).collect();
        // What was fused away has no place.
        let need = |size: usize, life: &(usize, usize)| Need {
            size: if life.0 <= steps.len() { size } else { 0 },
            life: *life,
        };
        let needs = |(layout, life): (&Layout, &(usize, usize))| need(layout.bytes(), life);
        let needs: Vec<Need> = self.layouts.iter().zip(&acts).map(needs).collect();
        let (places, length) = place(&needs, ALIGN_BYTES);
        self.acts = places;
        self.bytes.reserve(length);
        let needs = values.floats.iter().zip(&floats).map(|(float, life)| {
            let is_fed = float.feed.is_some();
            need(if is_fed { 0 } else { float.elements * self.batch }, life)
        });
        let (places, length) = place(&needs.collect::<Vec<_>>(), ALIGN_BYTES / 4);
        self.values.resize(length + ALIGN_BYTES / 4, 0.0);
        // The memory stays where it is until the state is dropped.
        let skip = self.values.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES / 4);
        self.floats = places.into_iter().map(|place| place.start + skip..place.end + skip).collect();
    }

    /// Bytes of the planned memory.
    pub(super) fn planned_bytes(&self) -> usize {
        self.bytes.bytes().len() + self.values.len() * 4
    }

    /// One activation to write, the others to read, and the work memory.
    pub(super) fn write(&mut self, to: ActId) -> (ActMut<'_>, Acts<'_>, &mut Work) {
        let (out, rest) = split(self.bytes.bytes_mut(), &self.acts[to.0]);
        let acts = Acts { layouts: &self.layouts, places: &self.acts, rest };
        (ActMut::new(self.layouts[to.0], out), acts, &mut self.work)
    }

    /// One activation to read, the plain tensors and the work memory.
    pub(super) fn read(&mut self, from: ActId) -> (Act<'_>, &mut [f32], &mut Work) {
        let place = self.acts[from.0].clone();
        (Act::new(self.layouts[from.0], &self.bytes.bytes()[place]), &mut self.values, &mut self.work)
    }

    /// Where a plain tensor lies.
    pub(super) fn place(&self, id: FloatId) -> Range<usize> {
        self.floats[id.0].clone()
    }

    /// An activation to write beside the plain tensors.
    pub(super) fn quantized(&mut self, to: ActId) -> (ActMut<'_>, &[f32]) {
        let place = self.acts[to.0].clone();
        (ActMut::new(self.layouts[to.0], &mut self.bytes.bytes_mut()[place]), &self.values)
    }
}

/// Activations to read.
pub(super) struct Acts<'a> {
    layouts: &'a [Layout],
    places: &'a [Range<usize>],
    rest: Rest<'a, u8>,
}

impl<'a> Acts<'a> {
    /// One of them.
    pub(super) fn get(&self, id: ActId) -> Act<'a> {
        Act::new(self.layouts[id.0], self.rest.get(&self.places[id.0]))
    }
}

fn batched(layout: &Layout, batch: usize) -> Layout {
    Layout { batch: layout.batch * batch, ..*layout }
}

type Lives = Vec<(usize, usize)>;

/// First and last use of each value.
fn lives(values: &Values, steps: &[Step], outputs: &[FloatId]) -> (Lives, Lives) {
    let mut acts = vec![(usize::MAX, 0); values.acts.len()];
    let mut floats = vec![(usize::MAX, 0); values.floats.len()];
    let touch = |life: &mut (usize, usize), index: usize| *life = (life.0.min(index), life.1.max(index));
    for (index, step) in steps.iter().enumerate() {
        for id in step.reads().into_iter().chain(step.writes()) {
            touch(&mut acts[id.0], index);
        }
        for id in step.floats() {
            touch(&mut floats[id.0], index);
        }
    }
    for id in outputs {
        touch(&mut floats[id.0], steps.len());
    }
    // What no step uses any more has an empty life at the end.
    for life in acts.iter_mut().chain(&mut floats).filter(|life| life.0 == usize::MAX) {
        *life = (steps.len() + 1, steps.len() + 1);
    }
    (acts, floats)
}
