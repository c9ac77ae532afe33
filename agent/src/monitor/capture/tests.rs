use std::sync::mpsc;
use std::time::{Duration, Instant};

use protocol::sample::SampleHead;

use super::draft::tests::{inputs, origin};
use super::*;
use crate::config::RawConfig;

struct Device {
    capture: Capture,
    dir: tempfile::TempDir,
}

fn rules(flags: &[&str]) -> config::Capture {
    RawConfig::default().with_flags(flags.iter().copied()).check().unwrap().capture
}

fn samples(dir: &std::path::Path) -> Samples {
    Samples::open(dir, &config::Spool::default(), origin("a", 1).at)
}

fn device(flags: &[&str]) -> Device {
    let dir = tempfile::tempdir().unwrap();
    let capture = Capture::new(rules(flags), samples(dir.path()), 1);
    Device { capture, dir }
}

impl Device {
    fn rules(&self) -> Arc<config::Capture> {
        self.capture.inner.lock().rules.clone()
    }

    fn disagree(&self, id: &str) {
        let label = |text: &str| Said { label: Some(text.into()), ..Said::default() };
        self.capture.disagreed(&self.rules(), &origin(id, 1), &inputs(1), 0, (label("a"), label("b")));
    }

    /// Waits until so many items have been taken or dropped.
    fn settled(&self, count: u64) -> CaptureFigures {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let figures = self.capture.figures();
            if figures.taken.values().chain(figures.dropped.values()).sum::<u64>() >= count {
                return figures;
            }
            assert!(Instant::now() < until, "never settled: {figures:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn heads(&self) -> Vec<SampleHead> {
        let mut heads = Vec::new();
        while let Some(held) = self.capture.samples().next() {
            heads.push(SampleHead::split(&self.capture.samples().read(&held).unwrap().unwrap()).unwrap().0);
            self.capture.samples().remove(&held).unwrap();
        }
        heads
    }
}

const ON: &str = "capture.consent=true";

#[test]
fn a_disagreement_is_kept_with_both_answers() {
    let device = device(&[ON]);
    device.disagree("q");
    assert_eq!(device.settled(1).taken, [(Strategy::Disagreement, 1)].into());
    let [head] = &device.heads()[..] else { panic!("one sample") };
    let label = |said: &Said| said.label.clone().unwrap();
    assert_eq!((label(&head.answer), label(head.beside.as_ref().unwrap())), ("a".into(), "b".into()));
    assert!((head.probability - 1.0).abs() < 1e-9);
}

#[test]
fn a_contradicted_item_is_kept_with_its_true_label_whichever_comes_first() {
    let device = device(&[ON, "capture.contradiction_rate=1"]);
    let kept = |id: &str| Kept { origin: origin(id, 2), inputs: inputs(2), said: vec![Said::default(); 2] };
    assert!(device.capture.inner.lock().recent.remember(0, kept("a"), 10_000).is_none());
    device.capture.labelled(0, vec![None, Some("7".into())]);
    device.capture.labelled(1, vec![Some("8".into()), None]);
    let (kept, truths) = device.capture.inner.lock().recent.remember(1, kept("b"), 10_000).unwrap();
    device.capture.contradicted(&device.rules(), &kept, &truths);
    device.capture.labelled(2, vec![None, None]);
    device.settled(2);
    let seen: Vec<_> = device.heads().into_iter().map(|head| (head.id, head.label.unwrap())).collect();
    assert_eq!(seen, [("a#1".into(), "7".into()), ("b#0".into(), "8".into())]);
}

#[test]
fn all_of_a_batch_that_is_labelled_at_once_is_kept() {
    let device = device(&[ON]);
    let kept = Kept { origin: origin("q", 40), inputs: inputs(40), said: vec![Said::default(); 40] };
    assert!(device.capture.inner.lock().recent.remember(0, kept, 10_000).is_none());
    device.capture.labelled(0, vec![Some("7".into()); 40]);
    let figures = device.settled(40);
    assert_eq!((figures.taken, figures.dropped), ([(Strategy::Contradiction, 40)].into(), [].into()));
}

#[test]
fn rows_are_looked_at_from_a_random_one_on_and_each_once() {
    let device = device(&[ON]);
    let orders: Vec<Vec<usize>> = (0..50).map(|_| device.capture.inner.order(10).collect()).collect();
    let firsts: std::collections::BTreeSet<usize> = orders.iter().map(|order| order[0]).collect();
    assert!(firsts.len() > 5, "{firsts:?}");
    for mut order in orders {
        order.sort_unstable();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
    }
    assert_eq!(device.capture.inner.order(0).count(), 0);
}

#[test]
fn what_is_not_kept_is_counted_by_its_cause() {
    let device = device(&[ON, "capture.max_per_day=1", "capture.max_bytes=1024"]);
    device.disagree("a");
    device.settled(1);
    device.disagree("b");
    let large = vec![Tensor::new("x", vec![1, 2000], inference::Data::Int8(vec![0; 2000])).unwrap()];
    let reason = Reason::new(Strategy::Random, 1.0);
    device.capture.keep(&device.rules(), &origin("c", 1), &large, 0, Said::default(), reason);
    let figures = device.settled(3);
    assert_eq!(figures.dropped, [(Cause::Day, 1), (Cause::TooLarge, 1)].into());
    assert_eq!((figures.waiting, figures.taken.len()), (1, 1));
}

#[test]
fn a_strategy_that_has_had_its_share_of_the_day_leaves_the_item_to_the_next_one() {
    let device =
        device(&[ON, "capture.max_per_day=1", "capture.random_rate=1", "capture.uncertainty_rate=1"]);
    let seen = Seen { confidence: Some(0.1), is_outside: false };
    let wanted = [1, 2, 3].map(|count| {
        let origin = origin("a", 1);
        let strategy = device.capture.inner.decide(&device.rules(), seen, origin.at).unwrap();
        let reason = Reason::new(strategy, 1.0);
        device.capture.keep(&device.rules(), &origin, &inputs(1), 0, Said::default(), reason);
        device.settled(count);
        strategy
    });
    assert_eq!(wanted, [Strategy::Random, Strategy::Uncertainty, Strategy::Random]);
    assert_eq!(device.capture.figures().dropped, [(Cause::Day, 1)].into(), "nobody has a share of the third");
}

#[test]
fn a_rate_of_zero_keeps_nothing_and_counts_nothing() {
    let device = device(&[ON, "capture.disagreement_rate=0"]);
    device.disagree("a");
    assert_eq!(device.capture.figures().dropped, [].into());
}

#[test]
fn a_withdrawn_consent_takes_what_is_here_with_it() {
    let device = device(&[ON]);
    device.disagree("a");
    device.settled(1);
    device.capture.reconfigure(rules(&[]));
    assert_eq!(device.capture.samples().next(), None, "at once");
    let figures = device.settled(2);
    assert_eq!((figures.is_on, figures.waiting, figures.dropped), (false, 0, [(Cause::Withdrawn, 1)].into()));
    device.capture.labelled(0, vec![Some("b".into())]);
    assert!(device.capture.inner.lock().recent.labelled(0, vec![]).is_none());
}

#[test]
fn a_sample_that_is_on_its_way_when_the_consent_goes_is_counted_once() {
    let device = device(&[ON]);
    device.disagree("a");
    device.disagree("b");
    device.settled(2);
    let (capture, sent) = (&device.capture, device.capture.samples().next().unwrap());
    capture.end(&sent, None).unwrap();
    capture.end(&sent, None).unwrap();
    assert_eq!((capture.figures().uploaded, capture.figures().waiting), (1, 1));
    let on_its_way = capture.samples().next().unwrap();
    capture.reconfigure(rules(&[]));
    for given_up in [None, Some(Cause::Refused)] {
        capture.end(&on_its_way, given_up).unwrap();
    }
    let figures = device.settled(3);
    assert_eq!((figures.uploaded, figures.dropped), (1, [(Cause::Withdrawn, 1)].into()));
}

#[test]
fn a_lower_quota_holds_at_once_and_at_the_next_start() {
    let device = device(&[ON]);
    for id in ["a", "b", "c"] {
        device.disagree(id);
    }
    let size = device.settled(3).waiting_bytes / 3;
    let with = |samples: u64| config::Capture { quota_bytes: size * samples + 8, ..rules(&[ON]) };
    device.capture.reconfigure(with(3));
    device.capture.reconfigure(with(2));
    let figures = device.settled(4);
    assert_eq!((figures.waiting, figures.dropped), (2, [(Cause::Displaced, 1)].into()));
    let (capture, dir) = (device.capture, device.dir);
    drop(capture);
    let figures = Capture::new(with(1), samples(dir.path()), 1).figures();
    assert_eq!((figures.waiting, figures.dropped), (1, [(Cause::Displaced, 1)].into()));
}

#[test]
fn a_start_without_consent_removes_what_an_earlier_run_has_kept() {
    let device = device(&[ON]);
    device.disagree("a");
    device.settled(1);
    let (capture, dir) = (device.capture, device.dir);
    drop(capture);
    let capture = Capture::new(rules(&[]), samples(dir.path()), 1);
    assert_eq!((capture.figures().waiting, samples(dir.path()).depth()), (0, (0, 0)));
}

#[test]
fn a_disk_that_hangs_holds_up_neither_who_asks_nor_who_withdraws() {
    let device = device(&[ON]);
    device.disagree("a");
    device.settled(1);
    let (disk, writing) = (mpsc::channel(), mpsc::channel());
    let (samples, bounds) = (device.capture.samples().clone(), bounds(&device.rules()));
    let writer = std::thread::spawn(move || {
        crate::durable::cut::hold(writing.0, disk.1);
        samples.put(Strategy::Random, origin("b", 1).at, b"b", bounds).unwrap()
    });
    writing.1.recv().unwrap();
    let done = mpsc::channel();
    let capture = Arc::new(device.capture);
    let asked = capture.clone();
    std::thread::spawn(move || {
        let before = asked.figures().waiting;
        asked.reconfigure(rules(&[]));
        done.0.send((before, asked.figures().waiting, asked.is_on())).unwrap();
    });
    let answer = done.1.recv_timeout(Duration::from_secs(20)).expect("it waits for the disk");
    assert_eq!(answer, (1, 0, false));
    drop(disk.0);
    assert_eq!(writer.join().unwrap(), Put::Kept { displaced: 0 });
}
