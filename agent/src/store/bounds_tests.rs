//! Laws of the bounds, over random work: no kind is ever over its bound, the newest of a kind stay, and of each kind
//! what was put in is there, acknowledged, merged or counted as lost: exactly, also where a sync fails in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use protocol::telemetry::Kind;

use super::merge::tests::pane;
use super::{Spool, SpoolHandle, faults};
use crate::config;
use crate::health::Clock;

const MIB: u64 = 1024 * 1024;
const KINDS: [Kind; 5] = [Kind::Pane, Kind::Event, Kind::Measurement, Kind::Resources, Kind::Log];
const ROUNDS: u64 = 25;

/// The same seed plays the same work.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn kind(&mut self) -> Kind {
        KINDS[usize::try_from(self.below(5)).unwrap()]
    }

    fn config(&mut self, encrypt: bool) -> config::Spool {
        let max_bytes = MIB + self.below(MIB);
        let mut bound = || 512 * 1024 + self.below(max_bytes - 512 * 1024);
        let max_bytes_of = KINDS.into_iter().map(|kind| (kind, bound())).filter(|(_, n)| n % 3 > 0).collect();
        let commit_after = Duration::from_millis(1);
        config::Spool {
            max_bytes,
            max_bytes_of,
            commit_after,
            encrypt,
            write_bytes_per_day: 0,
            ..config::Spool::default()
        }
    }
}

struct World {
    spool: Option<Spool>,
    config: config::Spool,
    clock: Clock,
    runtime: tokio::runtime::Runtime,
    /// Kind of each number.
    pushed: BTreeMap<u64, Kind>,
    acknowledged: BTreeMap<Kind, u64>,
    /// Of earlier openings.
    merged: u64,
}

impl World {
    fn new(dir: &Path, config: config::Spool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = Clock::open(dir).unwrap();
        let (spool, report) = Spool::open(dir, &config, &clock).unwrap();
        assert_eq!(report, None);
        let (pushed, acknowledged) = (BTreeMap::new(), BTreeMap::new());
        Self { spool: Some(spool), config, clock, runtime, pushed, acknowledged, merged: 0 }
    }

    fn handle(&self) -> SpoolHandle {
        self.spool.as_ref().unwrap().handle()
    }

    /// Several at once; returns when all of them, and every order before them, are done.
    fn push(&mut self, kinds: &[Kind], bytes: usize) {
        let handle = self.handle();
        let first = self.pushed.keys().last().map_or(1, |last| last + 1);
        self.pushed.extend((first..).zip(kinds.iter().copied()));
        let (last, before) = kinds.split_last().unwrap();
        let body = |kind: Kind, n: usize| match kind {
            Kind::Pane => pane("m", i64::try_from(n).unwrap(), 1),
            _ => vec![7; bytes],
        };
        before.iter().enumerate().for_each(|(n, kind)| handle.offer(*kind, body(*kind, n)));
        let seq = self.runtime.block_on(handle.append(*last, body(*last, before.len()))).unwrap();
        assert_eq!(Some(&seq), self.pushed.keys().last(), "also what is dropped at once has a number");
    }

    fn stored(&self) -> BTreeMap<Kind, BTreeSet<u64>> {
        let mut stored: BTreeMap<Kind, BTreeSet<u64>> = BTreeMap::new();
        let mut from = 0;
        loop {
            let chunk = self.handle().read(from, 1000, 1 << 20).unwrap();
            let Some(last) = chunk.records.last() else { return stored };
            from = last.seq + 1;
            chunk.records.iter().for_each(|record| {
                stored.entry(record.kind).or_default().insert(record.seq);
            });
        }
    }

    fn acknowledge(&mut self, dice: &mut Dice) {
        let last = self.pushed.keys().last().copied().unwrap_or(0);
        let upto = last.saturating_sub(dice.below(40));
        for (kind, seqs) in self.stored() {
            let gone = u64::try_from(seqs.range(..=upto).count()).unwrap();
            *self.acknowledged.entry(kind).or_default() += gone;
        }
        self.handle().acknowledge(upto);
    }

    fn reopen(&mut self, dir: &Path) {
        let before = (self.handle().waiting(), self.handle().state());
        self.merged += self.handle().figures().merged_panes;
        self.spool = None;
        let (spool, report) = Spool::open(dir, &self.config, &self.clock).unwrap();
        let after = (spool.handle().waiting(), spool.handle().state());
        assert_eq!((report, after), (None, before), "what was kept is found, kind by kind");
        self.spool = Some(spool);
    }

    fn check(&self) {
        let handle = self.handle();
        let (waiting, state, stored) = (handle.waiting(), handle.state(), self.stored());
        for one in &waiting {
            assert_eq!(one.max_bytes, self.config.bound(one.kind));
            assert!(one.bytes <= one.max_bytes, "{one:?}");
        }
        assert!(state.depth_bytes <= self.config.max_bytes, "{state:?}");
        assert_eq!(waiting.iter().map(|one| one.bytes).sum::<u64>(), state.depth_bytes);
        let merged = self.merged + handle.figures().merged_panes;
        for kind in KINDS {
            let seqs = stored.get(&kind).cloned().unwrap_or_default();
            let held = waiting.iter().find(|one| one.kind == kind).map_or(0, |one| one.records);
            assert_eq!(held, u64::try_from(seqs.len()).unwrap(), "{kind:?}");
            let lost: u64 =
                state.dropped.iter().filter(|loss| loss.kind == kind).map(|loss| loss.count).sum();
            let acknowledged = self.acknowledged.get(&kind).copied().unwrap_or(0);
            let merged = if kind == Kind::Pane { merged } else { 0 };
            let pushed = self.pushed.values().filter(|pushed| **pushed == kind).count();
            assert_eq!(
                held + lost + acknowledged + merged,
                u64::try_from(pushed).unwrap(),
                "{kind:?}: {state:?}"
            );
            if let Some(oldest) = seqs.first().filter(|_| kind != Kind::Pane) {
                let newest = self.pushed.range(oldest..).filter(|(_, pushed)| **pushed == kind);
                assert!(
                    newest.map(|(seq, _)| *seq).eq(seqs.iter().copied()),
                    "{kind:?}: the oldest go first"
                );
            }
        }
    }
}

fn play(seed: u64) {
    let (dir, mut dice) = (tempfile::tempdir().unwrap(), Dice(seed));
    let encrypt = seed.is_multiple_of(2);
    let mut world = World::new(dir.path(), dice.config(encrypt));
    for round in 0..ROUNDS {
        let kinds: Vec<Kind> = (0..=dice.below(20)).map(|_| dice.kind()).collect();
        let bytes = usize::try_from(dice.below(90_000)).unwrap();
        match dice.below(5) {
            0 => world.acknowledge(&mut dice),
            1 => {
                world.config = dice.config(encrypt);
                assert!(world.handle().reconfigure(world.config.clone()));
            }
            2 => world.reopen(dir.path()),
            3 if round % 3 == 0 => faults::set(dir.path(), faults::SYNC, 1),
            _ => {}
        }
        world.push(&kinds, bytes);
        world.check();
    }
    let dropped = world.handle().state().dropped;
    assert!(!dropped.is_empty(), "the bounds were never reached");
}

#[test]
fn of_each_kind_nothing_is_over_its_bound_and_nothing_goes_uncounted() {
    (1..=4).map(|n| n * 0x9e37_79b9).for_each(play);
}

#[test]
fn a_flood_of_one_kind_costs_no_record_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Spool { max_bytes: 8 * MIB, ..config::Spool::default() };
    let mut world = World::new(dir.path(), config);
    world.push(&[Kind::Resources; 20], 10_000);
    world.push(&[Kind::Measurement; 3], 10_000);
    (0..20).for_each(|_| world.push(&[Kind::Log; 20], 10_000));
    world.check();
    let handle = world.handle();
    let lost: Vec<Kind> = handle.state().dropped.iter().map(|loss| loss.kind).collect();
    assert_eq!(lost, [Kind::Log], "an eighth of all is theirs, and the rest is nearly empty");
    let waiting: BTreeMap<Kind, u64> = handle.waiting().iter().map(|one| (one.kind, one.records)).collect();
    assert_eq!((waiting[&Kind::Resources], waiting[&Kind::Measurement]), (20, 3));
    assert!(waiting[&Kind::Log] >= 90, "{waiting:?}");
}

#[test]
fn a_lower_bound_holds_at_once_without_a_new_record() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Spool { max_bytes: 8 * MIB, ..config::Spool::default() };
    let mut world = World::new(dir.path(), config.clone());
    (0..5).for_each(|_| world.push(&[Kind::Event; 20], 20_000));
    assert!(world.handle().state().dropped.is_empty());
    let max_bytes_of = BTreeMap::from([(Kind::Event, MIB)]);
    world.config = config::Spool { max_bytes_of, ..config };
    assert!(world.handle().reconfigure(world.config.clone()));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while world.handle().state().depth_bytes > MIB {
        assert!(std::time::Instant::now() < deadline, "{:?}", world.handle().waiting());
        std::thread::sleep(Duration::from_millis(5));
    }
    world.check();
}
