//! What has to hold after all the kills: everything that was ever given a number is on the server once, or reported
//! as dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use protocol::message::Loss;
use protocol::telemetry::Kind;
use serde_json::Value;
use testkit::rig::wait_until;

use super::{DEVICE, World, work};
use crate::rest::Rest;

const PATIENCE: Duration = Duration::from_mins(1);

/// What the emptied spool says of itself.
#[derive(serde::Deserialize)]
struct Ended {
    last: u64,
    dropped: Vec<Loss>,
}

impl Ended {
    fn dropped(&self) -> u64 {
        self.dropped.iter().map(|loss| loss.count).sum()
    }

    fn dropped_of(&self, kind: Kind) -> u64 {
        self.dropped.iter().filter(|loss| loss.kind == kind).map(|loss| loss.count).sum()
    }

    fn told(&self) -> String {
        let of = |loss: &Loss| format!("{} {:?} {:?}", loss.count, loss.kind, loss.cause).to_lowercase();
        let all: Vec<String> = self.dropped.iter().map(of).collect();
        if all.is_empty() { "nothing".into() } else { all.join(", ") }
    }
}

/// What the server holds.
struct Stored {
    /// Events by number.
    numbered: BTreeMap<u64, String>,
    /// Texts of each kind.
    texts: BTreeMap<Kind, BTreeSet<String>>,
}

impl World {
    /// Empties the spool and compares. Returns what there is to tell.
    pub(super) fn reckon(&self, folder: &Path) -> Result<String> {
        let ended = self.drain()?;
        let stored = Stored::read(folder)?;
        let count: u64 = stored.texts.values().map(|texts| u64::try_from(texts.len()).unwrap_or(0)).sum();
        let durable = self.durable.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        let mut missing_of: BTreeMap<Kind, u64> = BTreeMap::new();
        for (seq, (kind, text)) in durable.iter() {
            ensure!(*seq <= ended.last, "number {seq} was durable, the spool ends with {}", ended.last);
            let other = stored.numbered.get(seq).filter(|found| *found != text);
            ensure!(other.is_none(), "number {seq} was {text}, stored is {other:?}");
            let is_missing = !stored.texts.get(kind).is_some_and(|texts| texts.contains(text));
            *missing_of.entry(*kind).or_default() += u64::from(is_missing);
        }
        for (kind, missing) in missing_of {
            let dropped = ended.dropped_of(kind);
            ensure!(
                missing <= dropped,
                "{missing} {kind:?} are missing, only {dropped} were reported as dropped"
            );
        }
        let missing = ended.last.checked_sub(count).context("more is stored than was ever given a number")?;
        // What the server had stored, but had not said before it was killed, the device drops without knowing better.
        let dropped = ended.dropped();
        ensure!(
            missing <= dropped,
            "of {} numbers {count} are stored: {missing} are missing, only {dropped} were reported as dropped",
            ended.last
        );
        self.ensure_told(dropped)?;
        ensure!(!durable.is_empty(), "nothing was appended");
        Ok(format!(
            "{} numbers became durable before a kill, {} in all; {count} are stored once each, {missing} were dropped \
             unsent; the device reports {dropped} ({}), {} of which the server had stored without having said so; none is \
             missing unreported",
            durable.len(),
            ended.last,
            ended.told(),
            dropped - missing
        ))
    }

    /// The server knows of the same losses.
    fn ensure_told(&self, dropped: u64) -> Result<()> {
        let reported = self.fleet.cli.json(&["device", "show", DEVICE])?;
        let said = reported.pointer("/spool/dropped").cloned().unwrap_or_default();
        let said: u64 = said.as_array().into_iter().flatten().filter_map(|loss| loss["count"].as_u64()).sum();
        ensure!(said == dropped, "the server was told of {said} dropped records, not of {dropped}");
        Ok(())
    }

    /// Lets everything out that waits.
    fn drain(&self) -> Result<Ended> {
        let output = Command::new(std::env::current_exe()?)
            .args(["kill-work", "--drain", "--state"])
            .arg(&self.state)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("drained "));
        let line =
            line.with_context(|| format!("nothing drained: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(serde_json::from_str(line)?)
    }
}

impl Stored {
    /// Fails where a text stands twice.
    fn read(folder: &Path) -> Result<Self> {
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
}

fn entry(event: &Value) -> Option<(u64, String)> {
    let seq = event["id"].as_str()?.rsplit_once(':')?.1.parse().ok()?;
    Some((seq, event["detail"].as_str()?.split(' ').next()?.to_owned()))
}
