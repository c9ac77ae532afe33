//! Who runs next. A bounded number of requests wait or run, fewer of them run, and neither one model's many requests nor
//! its slow ones keep those of another from either: models that wait get turns in rotation, each its own requests as they
//! came; and when all places are taken, the model that holds most of them gives one up for a model that holds fewer.
//!
//! A [`Place`] gives back what it holds however it ends: answered, refused, or dropped in the moment its turn comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ModelName;
use tokio::sync::{Notify, oneshot};

/// All places and turns.
#[derive(Debug)]
pub(super) struct Turns {
    places: usize,
    state: Mutex<State>,
    /// Told when the last place gets free.
    empty: Notify,
}

#[derive(Debug)]
struct State {
    free_places: usize,
    /// Not 0 only while nobody waits.
    free_turns: usize,
    /// Places of each model that has any.
    held: BTreeMap<ModelName, usize>,
    /// Models with requests that wait; the first one's turn is next.
    lines: VecDeque<Line>,
    next_number: u64,
}

/// One model's requests that wait, as they came.
#[derive(Debug)]
struct Line {
    model: ModelName,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// Dropped: its place is another's.
    turn: oneshot::Sender<()>,
}

/// A request's place, with its turn once that has come.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<Turns>,
    model: ModelName,
    number: u64,
    /// None: it has its turn.
    comes: Option<oneshot::Receiver<()>>,
}

/// Another model needed the place more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Displaced;

impl Turns {
    pub(super) fn new(places: usize, turns: usize) -> Arc<Self> {
        let state = State {
            free_places: places,
            free_turns: turns,
            held: BTreeMap::new(),
            lines: VecDeque::new(),
            next_number: 0,
        };
        Arc::new(Self { places, state: Mutex::new(state), empty: Notify::new() })
    }

    /// None when all places are taken and no other model can give one up.
    pub(super) fn enter(self: &Arc<Self>, model: ModelName) -> Option<Place> {
        let mut state = self.lock();
        if state.free_places == 0 && !state.displace_for(&model) {
            return None;
        }
        let (number, comes) = state.enter(&model);
        drop(state);
        Some(Place { turns: Arc::clone(self), model, number, comes })
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        self.places.saturating_sub(self.lock().free_places)
    }

    /// Ends when no place is taken.
    pub(super) async fn at_rest(&self) {
        loop {
            let empty = self.empty.notified();
            if self.taken() == 0 {
                return;
            }
            empty.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the turn. Dropped, it may be asked again.
    ///
    /// # Errors
    /// [`Displaced`] when another model has the place now.
    pub(super) async fn turn(&mut self) -> Result<(), Displaced> {
        if let Some(comes) = &mut self.comes {
            comes.await.map_err(|_| Displaced)?;
            self.comes = None;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        use oneshot::error::TryRecvError::{Closed, Empty};
        let mut state = self.turns.lock();
        // Turns are given under the lock: what is said here stays true.
        match self.comes.as_mut().map_or(Ok(()), oneshot::Receiver::try_recv) {
            Ok(()) => state.end_turn(),
            Err(Empty) => state.forget(&self.model, self.number),
            Err(Closed) => return,
        }
        state.leave(&self.model);
        let is_empty = state.free_places == self.turns.places;
        drop(state);
        if is_empty {
            self.turns.empty.notify_waiters();
        }
    }
}

impl State {
    fn enter(&mut self, model: &ModelName) -> (u64, Option<oneshot::Receiver<()>>) {
        self.free_places -= 1;
        match self.held.get_mut(model) {
            Some(held) => *held += 1,
            None => drop(self.held.insert(model.clone(), 1)),
        }
        let number = self.next_number;
        self.next_number += 1;
        if self.free_turns > 0 {
            self.free_turns -= 1;
            return (number, None);
        }
        let (turn, comes) = oneshot::channel();
        let waiter = Waiter { number, turn };
        match self.lines.iter_mut().find(|line| line.model == *model) {
            Some(line) => line.waiters.push_back(waiter),
            None => self.lines.push_back(Line { model: model.clone(), waiters: [waiter].into() }),
        }
        (number, Some(comes))
    }

    fn leave(&mut self, model: &ModelName) {
        self.free_places += 1;
        if let Some(held) = self.held.get_mut(model) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(model);
            }
        }
    }

    /// Gives the turn to the next one who waits; that one's model is last now.
    fn end_turn(&mut self) {
        while let Some(mut line) = self.lines.pop_front() {
            let next = line.waiters.pop_front();
            if !line.waiters.is_empty() {
                self.lines.push_back(line);
            }
            if next.is_some_and(|waiter| waiter.turn.send(()).is_ok()) {
                return;
            }
        }
        self.free_turns += 1;
    }

    /// Takes the last place from the model that holds most, if that leaves it no fewer than `model` has then.
    fn displace_for(&mut self, model: &ModelName) -> bool {
        let held = |model: &ModelName| self.held.get(model).copied().unwrap_or(0);
        let most = self.lines.iter().map(|line| (held(&line.model), &line.model)).max();
        match most.filter(|(most, _)| *most > held(model) + 1).map(|(_, model)| model.clone()) {
            Some(most) => {
                self.remove(&most, VecDeque::pop_back);
                self.leave(&most);
                true
            }
            None => false,
        }
    }

    fn forget(&mut self, model: &ModelName, number: u64) {
        self.remove(model, |waiters| {
            let at = waiters.binary_search_by_key(&number, |waiter| waiter.number).ok()?;
            waiters.remove(at)
        });
    }

    fn remove(&mut self, model: &ModelName, take: impl FnOnce(&mut VecDeque<Waiter>) -> Option<Waiter>) {
        let Some(at) = self.lines.iter().position(|line| line.model == *model) else { return };
        drop(take(&mut self.lines[at].waiters));
        if self.lines[at].waiters.is_empty() {
            self.lines.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    fn enter(turns: &Arc<Turns>, model: &str) -> Place {
        turns.enter(name(model)).expect("there is a place")
    }

    /// What a request sees now: none while it waits.
    fn sees(place: &mut Place) -> Option<Result<(), Displaced>> {
        now(place.turn())
    }

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[test]
    fn models_that_wait_get_turns_in_rotation_and_each_its_own_requests_as_they_came() {
        let turns = Turns::new(100, 1);
        let mut runs = enter(&turns, "slow");
        assert_eq!(sees(&mut runs), Some(Ok(())));
        let asked = ["slow", "slow", "slow", "slow", "fast", "other", "fast"];
        let mut waiting: Vec<(usize, Place)> =
            asked.iter().map(|model| enter(&turns, model)).enumerate().collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(runs);
            let next: Vec<usize> =
                (0..waiting.len()).filter(|at| sees(&mut waiting[*at].1).is_some()).collect();
            assert_eq!(next.len(), 1, "one turn, one request");
            let (number, place) = waiting.remove(next[0]);
            order.push(number);
            runs = place;
        }
        assert_eq!(order, [0, 4, 5, 1, 6, 2, 3]);
    }

    #[test]
    fn who_gives_up_leaves_no_trace_and_takes_no_turn_along() {
        let turns = Turns::new(3, 1);
        let runs = enter(&turns, "a");
        let (gone, mut next) = (enter(&turns, "a"), enter(&turns, "a"));
        drop(gone);
        assert_eq!(turns.taken(), 2);
        let mut last = enter(&turns, "b");
        drop(runs);
        assert_eq!((sees(&mut next), sees(&mut last)), (Some(Ok(())), None));
        // Its turn has come, and it goes before it has seen that.
        drop(next);
        let seen_too_late = last;
        let mut one_more = enter(&turns, "c");
        assert_eq!(sees(&mut one_more), None);
        drop(seen_too_late);
        assert_eq!(sees(&mut one_more), Some(Ok(())));
        drop(one_more);
        assert_eq!(turns.taken(), 0);
        assert_eq!(turns.lock().free_turns, 1);
    }

    #[test]
    fn a_full_queue_makes_room_for_the_model_that_holds_less_of_it() {
        let turns = Turns::new(4, 1);
        let mut many: Vec<Place> = (0..4).map(|_| enter(&turns, "many")).collect();
        assert!(turns.enter(name("many")).is_none(), "its own last one isn't worth less than the next");
        let few = [enter(&turns, "few"), enter(&turns, "few")];
        assert!(turns.enter(name("few")).is_none(), "both hold two");
        assert!(turns.enter(name("many")).is_none());
        let seen: Vec<_> = many.iter_mut().map(sees).collect();
        assert_eq!(seen, [Some(Ok(())), None, Some(Err(Displaced)), Some(Err(Displaced))]);
        many.truncate(2);
        assert_eq!(turns.taken(), 4, "those who were displaced hold nothing");
        drop(few);
        drop(many);
        assert_eq!(turns.taken(), 0);
    }

    #[test]
    fn who_runs_is_never_displaced() {
        let turns = Turns::new(3, 3);
        let _runs: Vec<Place> = (0..3).map(|_| enter(&turns, "many")).collect();
        assert!(turns.enter(name("few")).is_none());
    }

    #[tokio::test]
    async fn rest_comes_with_the_last_place() {
        let turns = Turns::new(2, 1);
        turns.at_rest().await;
        let places = [enter(&turns, "a"), enter(&turns, "b")];
        let mut rest = std::pin::pin!(turns.at_rest());
        assert!(now(rest.as_mut()).is_none());
        let [first, last] = places;
        drop(first);
        assert!(now(rest.as_mut()).is_none());
        drop(last);
        rest.await;
    }

    /// Whatever comes and goes: no place and no turn is lost or given twice, and none lies idle while somebody waits.
    #[test]
    fn places_and_turns_add_up() {
        let turns = Turns::new(6, 2);
        let mut there: Vec<Place> = Vec::new();
        let mut random = 1_usize;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
            let (what, which) = (random >> 8 & 3, random >> 12);
            match what {
                0 if !there.is_empty() => drop(there.remove(which % there.len())),
                1 if !there.is_empty() => {
                    let at = which % there.len();
                    if sees(&mut there[at]) == Some(Err(Displaced)) {
                        there.remove(at);
                    }
                }
                _ => there.extend(turns.enter(name(["a", "b", "c"][which % 3]))),
            }
            let state = turns.lock();
            let waiting: usize = state.lines.iter().map(|line| line.waiters.len()).sum();
            let held: usize = state.held.values().sum();
            assert_eq!(held + state.free_places, 6);
            assert_eq!(held - waiting + state.free_turns, 2);
            assert!(waiting == 0 || state.free_turns == 0);
            assert!(state.lines.iter().all(|line| !line.waiters.is_empty()));
        }
        drop(there);
        assert_eq!((turns.taken(), turns.lock().free_turns), (0, 2));
    }
}
