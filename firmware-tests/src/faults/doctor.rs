//! `flotilla-agent doctor` and `status` beside a fleet that is well and one that is not, and every exit code.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that is looked at.
const AGENT: usize = 1;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    well(world)?;
    logs_read(world)?;
    let stopped = stopped(world)?;
    without_server(world)?;
    exit_codes(world)?;
    reloaded(world)?;
    Ok(Outcome::Ok(format!(
        "doctor: its log read from afar, well beside a running agent, {stopped} checks beside a stopped one, names a server that is gone; \
         status tells since when and what to do; exit codes 0, 1, 64, 69, 77, 78; SIGHUP applies what it may and names the rest"
    )))
}

fn well(world: &World) -> Result<()> {
    let agent = &world.agents[AGENT];
    let (code, report) = doctor(world)?;
    ensure!(code == 0, "a device that is well is told {code}: {report:#}");
    for check in
        ["config", "state_dir", "agent", "disk", "clock", "certificate", "metadata", "server", "mqtt"]
    {
        level(&report, check, "ok")?;
    }
    let screen = text(&agent.run(&["status"])?)?;
    for part in ["connected since", "digits 1.0.0", "since", "answered, 0 failed", "problems    none"] {
        ensure!(screen.contains(part), "the status screen lacks {part:?}:\n{screen}");
    }
    Ok(())
}

/// Somebody at a desk reads what the agent wrote.
fn logs_read(world: &World) -> Result<()> {
    let device = world.agents[AGENT].device();
    let asked = world.fleet.cli.json(&["device", "logs", device, "--collect", "--lines", "200"])?;
    let said = asked["lines"].to_string();
    ensure!(said.contains("the agent runs"), "the device's log says nothing of its start: {said}");
    let again = world.fleet.cli.json(&["device", "logs", device, "--lines", "1"])?;
    let is_last = again["lines"].as_array().is_some_and(|lines| lines.len() == 1);
    ensure!(is_last && again["command_id"] == asked["command_id"], "another upload was shown: {again}");
    Ok(())
}

/// Returns the number of checks.
fn stopped(world: &mut World) -> Result<usize> {
    world.rest_one(AGENT)?;
    world.agents[AGENT].stop();
    let (code, report) = doctor(world)?;
    ensure!(code == 0, "a device with a stopped agent is told {code}: {report:#}");
    level(&report, "agent", "warn")?;
    level(&report, "models", "ok")?;
    let status = world.agents[AGENT].run(&["status"])?;
    ensure!(status.status.code() == Some(69), "status of a stopped agent: {status:?}");
    root_copies(world)?;
    world.agents[AGENT].start()?;
    world.logged(AGENT, &["one copy of the trusted root was damaged"])?;
    world.fleet.wait_online(3)?;
    world.feed_one(AGENT);
    Ok(report["checks"].as_array().map_or(0, Vec::len))
}

/// One damaged copy of what the device trusts is told, two are a failure; one is left damaged.
fn root_copies(world: &World) -> Result<()> {
    let trusted = world.agents[AGENT].folder().join("state/trusted");
    let [one, other] = ["root.a", "root.b"].map(|copy| trusted.join(copy));
    let whole = std::fs::read(&other).with_context(|| format!("cannot read {}", other.display()))?;
    std::fs::write(&one, "{")?;
    level(&doctor(world)?.1, "metadata", "warn")?;
    std::fs::write(&other, "{")?;
    let (code, report) = doctor(world)?;
    ensure!(code == 78, "a device that has lost its root is told {code}: {report:#}");
    level(&report, "metadata", "fail")?;
    Ok(std::fs::write(&other, whole)?)
}

fn without_server(world: &mut World) -> Result<()> {
    world.fleet.server.kill();
    let told = told_offline(world);
    world.fleet.server.restart()?;
    world.fleet.wait_online(3)?;
    told
}

fn told_offline(world: &World) -> Result<()> {
    let (code, report) = doctor(world)?;
    ensure!(code == 69, "a device without its server is told {code}: {report:#}");
    let server = level(&report, "server", "fail")?;
    ensure!(server["todo"].as_str().is_some_and(|todo| todo.contains("no server listens")), "{server}");
    let mut screen = String::new();
    wait_until("a status screen that says what is wrong and what to do", PATIENCE, || {
        screen = text(&world.agents[AGENT].run(&["status"])?)?;
        let is_told = screen.contains("NOT connected since") && screen.contains("flotilla-agent doctor");
        Ok(is_told.then_some(()))
    })
    .with_context(|| screen.clone())
}

fn exit_codes(world: &World) -> Result<()> {
    let folder = world.folder.join("exit-codes");
    std::fs::create_dir_all(&folder)?;
    let state = folder.join("state").display().to_string();
    let bare = |words: &[&str]| run(world.agent_binary(), words);
    let port_in_use = world.agents[AGENT].url().replace("http://", "serve.listen=");
    let token = world.fleet.token("exit-codes", &[])?;
    let enroll = ["enroll", "--state-dir", &state, "--token", &token, "--device-id", "exit-codes"];
    let cases: [(i32, &[&str]); 9] = [
        (0, &["--version"]),
        (0, &["check-config", "--state-dir", &state]),
        (64, &["dance"]),
        (64, &["enroll", "--state-dir", &state, "--token", "nonsense"]),
        (78, &["check-config", "--set", "link.speed=3"]),
        (78, &["run", "--state-dir", &state]),
        (0, &enroll),
        (78, &enroll),
        (69, &["run", "--state-dir", &state, "--set", &port_in_use]),
    ];
    for (expected, words) in cases {
        let output = bare(words)?;
        ensure!(output.status.code() == Some(expected), "{words:?} should end with {expected}: {output:?}");
    }
    let used = bare(&[&enroll[..], &["--force"]].concat())?;
    ensure!(used.status.code() == Some(77), "a used token should end with 77: {used:?}");
    let locked = world.agents[AGENT].run(&["run", "--set", "serve.listen=127.0.0.1:0"])?;
    ensure!(locked.status.code() == Some(69), "a second agent on one state directory: {locked:?}");
    let wrong = bare(&["doctor", "--json", "--set", "link.speed=3"])?;
    ensure!(wrong.status.code() == Some(78), "the doctor of a wrong configuration: {wrong:?}");
    internal(world, &state)
}

/// What nobody foresaw: a counter without which nothing may be reported can't be read, and is not known to be damaged.
fn internal(world: &World, state: &str) -> Result<()> {
    let counter = Path::new(state).join("report-counter.a");
    let _none_yet = std::fs::remove_file(&counter);
    std::os::unix::fs::symlink(&counter, &counter)?;
    let words = ["run", "--state-dir", state, "--set", "serve.listen=127.0.0.1:0"];
    let mut agent = Command::new(world.agent_binary()).args(words).stderr(Stdio::null()).spawn()?;
    let ended = wait_until("the end of an agent that can't report", PATIENCE, || Ok(agent.try_wait()?));
    // If it hasn't ended.
    let _over = agent.kill();
    agent.wait()?;
    let ended = ended?;
    ensure!(ended.code() == Some(1), "an agent that can't report ended with {ended}, not with 1");
    Ok(())
}

/// SIGHUP: a wrong configuration changes nothing, a right one what may change; nobody notices in between.
fn reloaded(world: &mut World) -> Result<()> {
    let file = world.agents[AGENT].folder().join("agent.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("hello_every_s = 5", "hello_every_s = 0"))?;
    world.agents[AGENT].process()?.signal("HUP");
    world.logged(AGENT, &["the configuration is wrong; nothing was changed"])?;
    std::fs::write(
        &file,
        text.replace("hello_every_s = 5", "hello_every_s = 6")
            + "\n[log]\nfilter = \"debug\"\ntime = false\n",
    )?;
    world.agents[AGENT].process()?.signal("HUP");
    let line = world.logged(AGENT, &["the configuration was read again"])?;
    ensure!(line.contains("log.filter") && line.contains("link") && line.contains("log.time"), "{line}");
    std::fs::write(&file, text)?;
    world.agents[AGENT].process()?.signal("HUP");
    Ok(())
}

fn run(binary: &Path, words: &[&str]) -> Result<Output> {
    Command::new(binary).args(words).output().context("the agent can't be started")
}

fn doctor(world: &World) -> Result<(i32, Value)> {
    let output = world.agents[AGENT].run(&["doctor", "--json"])?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the doctor printed no JSON: {output:?}"))?;
    Ok((output.status.code().unwrap_or(-1), report))
}

/// The first finding of `check` with this level.
fn level(report: &Value, check: &str, level: &str) -> Result<Value> {
    let all = report["checks"].as_array().into_iter().flatten();
    let found = all.clone().find(|finding| finding["check"] == check && finding["level"] == level);
    found.cloned().with_context(|| format!("the doctor does not call {check} {level}: {report:#}"))
}

fn text(output: &Output) -> Result<String> {
    Ok(String::from_utf8(output.stdout.clone())?)
}
