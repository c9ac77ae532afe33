//! What has to hold after all the kills: everything that was ever given a number is on the server once, or was dropped;
//! and the device reports exactly as many drops, by kind and cause, as there were.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use protocol::message::Loss;
use protocol::telemetry::Kind;
use serde_json::Value;
use testkit::rig::wait_until;

use super::ledger::{Ledger, Said, reported_by_cause};
use super::{DEVICE, World, work};
use crate::rest::Rest;

const PATIENCE: Duration = Duration::from_mins(1);

/// What the emptied spool says of itself.
pub(super) struct Ended {
    last: u64,
    dropped: Vec<Loss>,
}

impl Ended {
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.iter().map(|loss| loss.count).sum()
    }

    pub(super) fn dropped_of(&self, kind: Kind) -> u64 {
        self.dropped.iter().filter(|loss| loss.kind == kind).map(|loss| loss.count).sum()
    }

    pub(super) fn told(&self) -> String {
        let of = |loss: &Loss| format!("{} {:?} {:?}", loss.count, loss.kind, loss.cause).to_lowercase();
        let all: Vec<String> = self.dropped.iter().map(of).collect();
        if all.is_empty() { "nothing".into() } else { all.join(", ") }
    }
}

/// What the server holds.
pub(super) struct Stored {
    /// Events by number.
    numbered: BTreeMap<u64, String>,
    /// Texts of each kind.
    texts: BTreeMap<Kind, BTreeSet<String>>,
}

/// Where the numbers are that were ever given.
#[derive(Debug, Default)]
struct Balance {
    /// Dropped, and not on the server.
    missing: u64,
    /// On the server, and dropped without knowing better: it had stored them, but not said so before it was killed.
    doubled: u64,
}

impl World {
    /// Empties the spool and compares. Returns what there is to tell.
    pub(super) fn reckon(&self, folder: &Path) -> Result<String> {
        let ended = self.drain()?;
        let stored = Stored::read(folder)?;
        let ledger = self.ledger.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        let (seen, reported) = (ledger.dropped_by_cause(), reported_by_cause(&ended.dropped));
        ensure!(seen == reported, "{seen:?} were dropped, reported are {reported:?}");
        let balance = stored.balance(&ledger, ended.last)?;
        let (count, dropped) = (stored.all(), ended.dropped());
        let missing = ended.last.checked_sub(count).context("more is stored than was ever given a number")?;
        ensure!(
            missing == balance.missing && missing + balance.doubled == dropped,
            "of {} numbers {count} are stored and {missing} missing; {dropped} were dropped: {balance:?}",
            ended.last
        );
        self.ensure_told(dropped)?;
        ensure!(!ledger.durable.is_empty(), "nothing was appended");
        Ok(format!(
            "{} numbers became durable before a kill, {} in all; {count} are stored once each, {missing} were dropped \
             unsent; the device reports {dropped} ({}), exactly the {missing} and {} that the server had stored without \
             having said so",
            ledger.durable.len(),
            ended.last,
            ended.told(),
            balance.doubled
        ))
    }

    /// The server knows of the same losses.
    pub(super) fn ensure_told(&self, dropped: u64) -> Result<()> {
        let reported = self.fleet.cli.json(&["device", "show", DEVICE])?;
        let said = reported.pointer("/spool/dropped").cloned().unwrap_or_default();
        let said: u64 = said.as_array().into_iter().flatten().filter_map(|loss| loss["count"].as_u64()).sum();
        ensure!(said == dropped, "the server was told of {said} dropped records, not of {dropped}");
        Ok(())
    }

    /// Lets everything out that waits.
    pub(super) fn drain(&self) -> Result<Ended> {
        let output = Command::new(std::env::current_exe()?)
            .args(["kill-work", "--drain", "--state"])
            .arg(&self.state)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut ledger = self.ledger.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        let mut ended = None;
        for said in text.lines().filter_map(Said::parse) {
            match said {
                Said::Drained { last, dropped } => ended = Some(Ended { last, dropped }),
                said => ledger.note(said),
            }
        }
        ended.with_context(|| format!("nothing drained: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Stored {
    /// Fails where a text stands twice.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let rest = Rest::open(folder)?;
        let list = |what: &str| {
            let mut all = Vec::new();
            wait_until(&format!("the server's list of {what}"), PATIENCE, || {
                all = rest.all(&format!("/devices/{DEVICE}/{what}"))?;
                Ok(Some(()))
            })?;
            anyhow::Ok(all)
        };
        let mut stored = Self { numbered: BTreeMap::new(), texts: BTreeMap::new() };
        for event in list("events")?.iter().filter(|event| event["name"] == work::NUMBERED) {
            let (seq, text) = entry(event).with_context(|| format!("an event without number: {event}"))?;
            stored.add(Kind::Event, &text)?;
            let twice = stored.numbered.insert(seq, text);
            ensure!(twice.is_none(), "number {seq} is stored twice, once as {twice:?}");
        }
        for upload in list("logs")? {
            let text = upload["command_id"].as_str().context("a log without its command")?;
            stored.add(Kind::Log, text)?;
        }
        Ok(stored)
    }

    fn add(&mut self, kind: Kind, text: &str) -> Result<()> {
        let is_new = self.texts.entry(kind).or_default().insert(text.to_owned());
        ensure!(is_new, "{kind:?} {text} is stored twice");
        Ok(())
    }

    /// How many there are of a kind.
    pub(super) fn count(&self, kind: Kind) -> u64 {
        self.texts.get(&kind).map_or(0, |texts| u64::try_from(texts.len()).unwrap_or(0))
    }

    fn all(&self) -> u64 {
        self.texts.keys().map(|kind| self.count(*kind)).sum()
    }

    fn has(&self, kind: Kind, text: &str) -> bool {
        self.texts.get(&kind).is_some_and(|texts| texts.contains(text))
    }

    /// Looks at each number up to the last one: it is here, or it was dropped.
    fn balance(&self, ledger: &Ledger, last: u64) -> Result<Balance> {
        let (mut balance, mut nameless, mut nameless_dropped) = (Balance::default(), 0_u64, 0_u64);
        let beyond = ledger.durable.keys().chain(ledger.dropped.keys()).find(|seq| **seq > last);
        ensure!(beyond.is_none(), "number {beyond:?} was given, the spool ends with {last}");
        for seq in 1..=last {
            let (known, dropped) = (ledger.durable.get(&seq), ledger.dropped.get(&seq));
            let stored = self.numbered.get(&seq);
            if let Some((kind, text)) = known {
                ensure!(
                    stored.is_none_or(|found| found == text),
                    "number {seq} was {text}, stored is {stored:?}"
                );
                let is_it = dropped.is_none_or(|(dropped, _)| *dropped == format!("{kind:?}"));
                ensure!(is_it, "number {seq} was {kind:?}, dropped as {dropped:?}");
            }
            let is_stored = stored.is_some() || known.is_some_and(|(kind, text)| self.has(*kind, text));
            match (is_stored, dropped) {
                (true, None) => {}
                (true, Some(_)) => balance.doubled += 1,
                // The worker was killed before it could print the text, and the server's list of logs has no numbers.
                (false, None) if known.is_none() => nameless += 1,
                (false, None) => anyhow::bail!("number {seq}, {known:?}, is neither stored nor dropped"),
                (false, Some((kind, _))) => {
                    balance.missing += 1;
                    let is_nameless = known.is_none() && *kind == format!("{:?}", Kind::Log);
                    nameless_dropped += u64::from(is_nameless);
                }
            }
        }
        let texts: BTreeSet<&String> = ledger.durable.values().map(|(_, text)| text).collect();
        let logs = self.texts.get(&Kind::Log).into_iter().flatten();
        let unknown = u64::try_from(logs.filter(|text| !texts.contains(text)).count())?;
        // Of logs without a known number those that are left over were stored and dropped.
        let both = unknown.checked_sub(nameless).filter(|both| *both <= nameless_dropped);
        let both = both.with_context(|| {
            format!("{nameless} numbers are neither stored nor dropped but for {unknown} logs")
        })?;
        balance.missing -= both;
        balance.doubled += both;
        Ok(balance)
    }
}

fn entry(event: &Value) -> Option<(u64, String)> {
    let seq = event["id"].as_str()?.rsplit_once(':')?.1.parse().ok()?;
    Some((seq, event["detail"].as_str()?.split(' ').next()?.to_owned()))
}
