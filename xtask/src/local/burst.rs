//! Messages that come at once, far more than are asked at once: each is answered exactly once, none is lost on the way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::feeder::Image;
use testkit::rig::{Agent, Process, wait_until};

use super::{TOPICS, digit, ensure_right, request};
use crate::run::program;

/// As many as the broker keeps for a client that does not read (mosquitto's `max_queued_messages`).
const MESSAGES: usize = 1000;
const LIMIT: Duration = Duration::from_mins(2);
const PROBE: &str = "probe";

pub(super) fn play(place: &[String], agent: &Agent, images: &[Image], folder: &Path) -> Result<()> {
    let heard = folder.join("answers.jsonl");
    let listen = [place, &["-q", "1", "-t", TOPICS[1]].map(str::to_owned)].concat();
    // What it hears goes to its log.
    let _listener = Process::start("mosquitto_sub", Path::new("mosquitto_sub"), listen, &[], &heard)?;
    wait_until("a listener on the local broker", LIMIT, || {
        publish(place, &[named(&images[0], PROBE)?])?;
        std::thread::sleep(Duration::from_millis(200));
        Ok(fs::read_to_string(&heard)?.contains('\n').then_some(()))
    })?;
    let before = metric(agent, "flotilla_overloads_total")?;
    let requests: Result<Vec<String>> =
        (0..MESSAGES).map(|number| named(&images[number % images.len()], &number.to_string())).collect();
    publish(place, &requests?)?;
    let mut answers = BTreeMap::new();
    let seen = wait_until("an answer to each of the messages", LIMIT, || {
        answers = answers_in(&heard)?;
        Ok((answers.len() >= MESSAGES).then_some(()))
    });
    seen.with_context(|| format!("{} of {MESSAGES} were answered", answers.len()))?;
    ensure!(answers.values().all(|of_one| of_one.len() == 1), "a message was answered twice");
    let refused = answers.values().flatten().filter(|answer| answer["error"].is_string()).count();
    let counted = metric(agent, "flotilla_overloads_total")? - before;
    ensure!(refused == counted, "{refused} were refused, {counted} are counted");
    ensure!(metric(agent, "flotilla_answers_lost_total")? == 0, "answers are counted as lost");
    let mut right = 0;
    for (number, of_one) in &answers {
        let image = &images[number % images.len()];
        let Some(answer) = of_one.iter().find(|answer| answer["error"].is_null()) else { continue };
        right += usize::from(digit(answer)? == usize::from(image.label));
    }
    ensure_right(right, MESSAGES - refused)
}

fn named(image: &Image, id: &str) -> Result<String> {
    let mut named: Value = serde_json::from_str(&request(image))?;
    named["id"] = json!(id);
    Ok(named.to_string())
}

/// Publishes each as a message of its own, all over one connection.
fn publish(place: &[String], messages: &[String]) -> Result<()> {
    let mut publisher = program("mosquitto_pub")
        .args(place)
        .args(["-q", "1", "-t", TOPICS[0], "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start mosquitto_pub")?;
    let lines = messages.iter().fold(String::new(), |mut lines, message| {
        let _infallible = writeln!(lines, "{message}");
        lines
    });
    publisher.stdin.take().context("it has an input")?.write_all(lines.as_bytes())?;
    let ended = publisher.wait()?;
    ensure!(ended.success(), "mosquitto_pub ended with {ended}");
    Ok(())
}

/// Answers by the number of their message; a line that is not whole yet comes with the next look.
fn answers_in(heard: &Path) -> Result<BTreeMap<usize, Vec<Value>>> {
    let mut text = std::io::read_to_string(File::open(heard)?)?;
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    let mut answers: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let answer: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        // Others are answers to what was asked before.
        if let Some(number) = answer["id"].as_str().and_then(|id| id.parse().ok()) {
            answers.entry(number).or_default().push(answer);
        }
    }
    Ok(answers)
}

fn metric(agent: &Agent, name: &str) -> Result<usize> {
    let page = ureq::get(format!("{}/metrics", agent.url())).call()?.body_mut().read_to_string()?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("/metrics has no {name}"))
}
