//! Who runs next. A bounded number of requests wait or run, fewer of them run, and neither one model's many requests nor
//! its slow ones keep those of another from either: models that wait get turns in rotation, each its own requests as they
//! came; and when all places are taken, the model that holds most of them gives one up for a model that holds fewer.
//!
//! Who ends hands its turn on in its own thread, so that nothing else has to be awake for the next one to begin. A [`Turn`]
//! gives back what it holds however the work ends, and a [`Place`] dropped while it waits leaves nothing behind.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ModelName;
use tokio::sync::Notify;

use super::threads::Threads;

/// What a request asks for: done with its turn, or told that another model needed its place more.
type Work = Box<dyn FnOnce(Option<Turn>) + Send>;

/// All places and turns.
pub(super) struct Turns {
    places: usize,
    state: Mutex<State>,
    /// As many as there are turns.
    threads: Threads,
    /// Told when the last place gets free.
    empty: Notify,
}

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
struct Line {
    model: ModelName,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    number: u64,
    work: Work,
}

/// A request's place, until its turn comes. Dropped before, it is given back.
pub(super) struct Place {
    turns: Arc<Turns>,
    model: ModelName,
    number: u64,
}

/// A request's turn, with its place. Dropped, the next one has it.
pub(super) struct Turn {
    turns: Arc<Turns>,
    model: ModelName,
}

impl Turns {
    pub(super) fn new(places: usize, turns: usize) -> Arc<Self> {
        let state = State {
            free_places: places,
            free_turns: turns,
            held: BTreeMap::new(),
            lines: VecDeque::new(),
            next_number: 0,
        };
        let threads = Threads::new(turns);
        Arc::new(Self { places, state: Mutex::new(state), threads, empty: Notify::new() })
    }

    /// None, and nothing is done, when all places are taken and no other model can give one up. `work` begins on a thread
    /// for inferences when its turn comes; it gets none when it is the one that is displaced.
    pub(super) fn enter(
        self: &Arc<Self>,
        model: ModelName,
        work: impl FnOnce(Option<Turn>) + Send + 'static,
    ) -> Option<Place> {
        let mut state = self.lock();
        let displaced = if state.free_places > 0 { None } else { Some(state.displace_for(&model)?) };
        let (number, begins) = state.enter(&model, Box::new(work));
        drop(state);
        if let Some(work) = displaced {
            work(None);
        }
        if let Some(work) = begins {
            self.begin(model.clone(), work);
        }
        Some(Place { turns: Arc::clone(self), model, number })
    }

    fn begin(self: &Arc<Self>, model: ModelName, work: Work) {
        let turn = Turn { turns: Arc::clone(self), model };
        self.threads.run(move || work(Some(turn)));
    }

    /// Whether a request of `model` would get no place now.
    pub(super) fn is_full_for(&self, model: &ModelName) -> bool {
        let state = self.lock();
        state.free_places == 0 && state.displaced_by(model).is_none()
    }

    /// Whether a request may get no place now.
    pub(super) fn is_full(&self) -> bool {
        self.lock().free_places == 0
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

    /// Gives a place back.
    fn leave(&self, mut state: MutexGuard<'_, State>, model: &ModelName) {
        state.leave(model);
        let is_empty = state.free_places == self.places;
        drop(state);
        if is_empty {
            self.empty.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Gives it back; false if its turn has come, or another has the place.
    pub(super) fn withdraw(&self) -> bool {
        let mut state = self.turns.lock();
        let Some(_dropped_unlocked) = state.forget(&self.model, self.number) else { return false };
        self.turns.leave(state, &self.model);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let next = state.end_turn();
        self.turns.leave(state, &self.model);
        if let Some((model, work)) = next {
            self.turns.begin(model, work);
        }
    }
}

impl State {
    /// The work is handed back if its turn has come already.
    fn enter(&mut self, model: &ModelName, work: Work) -> (u64, Option<Work>) {
        self.free_places -= 1;
        match self.held.get_mut(model) {
            Some(held) => *held += 1,
            None => drop(self.held.insert(model.clone(), 1)),
        }
        let number = self.next_number;
        self.next_number += 1;
        if self.free_turns > 0 {
            self.free_turns -= 1;
            return (number, Some(work));
        }
        let waiter = Waiter { number, work };
        match self.lines.iter_mut().find(|line| line.model == *model) {
            Some(line) => line.waiters.push_back(waiter),
            None => self.lines.push_back(Line { model: model.clone(), waiters: [waiter].into() }),
        }
        (number, None)
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

    /// Who has the turn next, if anybody waits; that one's model is last then.
    fn end_turn(&mut self) -> Option<(ModelName, Work)> {
        while let Some(mut line) = self.lines.pop_front() {
            let (model, next) = (line.model.clone(), line.waiters.pop_front());
            if !line.waiters.is_empty() {
                self.lines.push_back(line);
            }
            if let Some(waiter) = next {
                return Some((model, waiter.work));
            }
        }
        self.free_turns += 1;
        None
    }

    /// The model that holds most, if it has no fewer than `model` once it has given one up for it.
    fn displaced_by(&self, model: &ModelName) -> Option<&ModelName> {
        let held = |model: &ModelName| self.held.get(model).copied().unwrap_or(0);
        let (most, other) = self.lines.iter().map(|line| (held(&line.model), &line.model)).max()?;
        (most > held(model) + 1).then_some(other)
    }

    /// Takes the last place from that one.
    fn displace_for(&mut self, model: &ModelName) -> Option<Work> {
        let other = self.displaced_by(model)?.clone();
        let displaced = self.remove(&other, VecDeque::pop_back)?;
        self.leave(&other);
        Some(displaced)
    }

    fn forget(&mut self, model: &ModelName, number: u64) -> Option<Work> {
        self.remove(model, |waiters| {
            let at = waiters.binary_search_by_key(&number, |waiter| waiter.number).ok()?;
            waiters.remove(at)
        })
    }

    fn remove(
        &mut self,
        model: &ModelName,
        take: impl FnOnce(&mut VecDeque<Waiter>) -> Option<Waiter>,
    ) -> Option<Work> {
        let at = self.lines.iter().position(|line| line.model == *model)?;
        let taken = take(&mut self.lines[at].waiters);
        if self.lines[at].waiters.is_empty() {
            self.lines.remove(at);
        }
        taken.map(|waiter| waiter.work)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    /// What happened, in order: a number that ran, or one that was displaced.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Ran(usize),
        Displaced(usize),
    }

    /// Notes what happens to those that enter.
    struct Desk {
        turns: Arc<Turns>,
        sender: Sender<Seen>,
        seen: Receiver<Seen>,
    }

    impl Desk {
        fn new(places: usize, turns: usize) -> Self {
            let (sender, seen) = mpsc::channel();
            Self { turns: Turns::new(places, turns), sender, seen }
        }

        fn enter(&self, number: usize, model: &str) -> Option<Place> {
            let sender = self.sender.clone();
            self.turns.enter(name(model), move |turn| {
                let seen = if turn.is_some() { Seen::Ran(number) } else { Seen::Displaced(number) };
                sender.send(seen).unwrap();
            })
        }

        /// One that runs until what it gives is dropped.
        fn hold(&self, model: &str) -> Option<(Place, Sender<()>)> {
            let (held, until) = mpsc::channel::<()>();
            let place = self.turns.enter(name(model), move |turn| {
                if turn.is_some() {
                    let _ = until.recv();
                }
            })?;
            Some((place, held))
        }

        fn next(&self, count: usize) -> Vec<Seen> {
            self.seen.iter().take(count).collect()
        }
    }

    #[test]
    fn models_that_wait_get_turns_in_rotation_and_each_its_own_requests_as_they_came() {
        let desk = Desk::new(100, 1);
        let (_place, runs) = desk.hold("slow").unwrap();
        let asked = ["slow", "slow", "slow", "slow", "fast", "other", "fast"];
        let _places: Vec<_> =
            asked.iter().enumerate().map(|(number, model)| desk.enter(number, model).unwrap()).collect();
        drop(runs);
        assert_eq!(desk.next(7), [0, 4, 5, 1, 6, 2, 3].map(Seen::Ran));
    }

    #[tokio::test]
    async fn who_gives_up_leaves_no_trace() {
        let desk = Desk::new(3, 1);
        let (runs, held) = desk.hold("a").unwrap();
        assert!(!runs.withdraw(), "it runs");
        let (gone, next) = (desk.enter(1, "a").unwrap(), desk.enter(2, "a").unwrap());
        drop(gone);
        assert_eq!(desk.turns.taken(), 2);
        let last = desk.enter(3, "b").unwrap();
        assert!(next.withdraw() && !next.withdraw());
        drop(held);
        assert_eq!(desk.next(1), [Seen::Ran(3)]);
        desk.turns.at_rest().await;
        assert!(!last.withdraw() && desk.seen.try_recv().is_err());
        assert_eq!((desk.turns.taken(), desk.turns.lock().free_turns), (0, 1));
    }

    #[test]
    fn a_full_queue_makes_room_for_the_model_that_holds_less_of_it() {
        let desk = Desk::new(4, 1);
        let (_place, runs) = desk.hold("many").unwrap();
        let _many: Vec<_> = (1..4).map(|number| desk.enter(number, "many").unwrap()).collect();
        assert!(desk.enter(4, "many").is_none(), "its own last one isn't worth less than the next");
        assert!(desk.turns.is_full_for(&name("many")) && !desk.turns.is_full_for(&name("few")));
        let _few = [desk.enter(5, "few").unwrap(), desk.enter(6, "few").unwrap()];
        assert!(desk.turns.is_full() && desk.turns.is_full_for(&name("few")));
        assert!(desk.enter(7, "few").is_none(), "both hold two");
        assert!(desk.enter(8, "many").is_none());
        assert_eq!(desk.turns.taken(), 4, "those who were displaced hold nothing");
        drop(runs);
        let seen = desk.next(5);
        assert_eq!(seen[..2], [Seen::Displaced(3), Seen::Displaced(2)]);
        assert_eq!(seen[2..], [Seen::Ran(1), Seen::Ran(5), Seen::Ran(6)]);
    }

    #[test]
    fn who_runs_is_never_displaced() {
        let desk = Desk::new(3, 3);
        let _run: Vec<_> = (0..3).map(|_| desk.hold("many").unwrap()).collect();
        assert!(desk.enter(1, "few").is_none());
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_turn_only() {
        let desk = Desk::new(2, 1);
        let _dies = desk.turns.enter(name("a"), |_turn| panic!("a panic that the test wants")).unwrap();
        let _next = desk.enter(1, "a").unwrap();
        assert_eq!(desk.next(1), [Seen::Ran(1)]);
        desk.turns.at_rest().await;
    }

    #[tokio::test]
    async fn rest_comes_with_the_last_place() {
        let desk = Desk::new(2, 1);
        desk.turns.at_rest().await;
        let (_place, runs) = desk.hold("a").unwrap();
        let waits = desk.enter(1, "b").unwrap();
        let rest = tokio::spawn({
            let turns = Arc::clone(&desk.turns);
            async move { turns.at_rest().await }
        });
        drop(waits);
        tokio::task::yield_now().await;
        assert!(!rest.is_finished());
        drop(runs);
        rest.await.unwrap();
    }

    /// Whatever comes and goes: no place and no turn is lost or given twice, and none lies idle while somebody waits.
    #[tokio::test]
    async fn places_and_turns_add_up() {
        let desk = Desk::new(6, 2);
        let mut there: Vec<(Place, Sender<()>)> = Vec::new();
        let mut random = 1_usize;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
            let (what, which) = (random >> 8 & 3, random >> 12);
            if what < 2 && !there.is_empty() {
                drop(there.remove(which % there.len()));
            } else {
                there.extend(desk.hold(["a", "b", "c"][which % 3]));
            }
            let state = desk.turns.lock();
            let waiting: usize = state.lines.iter().map(|line| line.waiters.len()).sum();
            let held: usize = state.held.values().sum();
            assert_eq!(held + state.free_places, 6);
            assert_eq!(held - waiting + state.free_turns, 2);
            assert!(waiting == 0 || state.free_turns == 0);
            assert!(state.lines.iter().all(|line| !line.waiters.is_empty()));
        }
        drop(there);
        desk.turns.at_rest().await;
        assert_eq!((desk.turns.taken(), desk.turns.lock().free_turns), (0, 2));
    }
}
