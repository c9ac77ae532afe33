//! `cargo xtask bench footprint`: what the agent costs a device.
//!
//! PSS (the process's private memory and its share of what it shares), sampled once a second after a warm-up, as
//! `/proc/PID/smaps_rollup` tells it; the median is printed. The agent is built as it ships to a device (profile
//! `size`), but for this machine's CPU and C library. One agent stays idle and then serves digits; a second one serves
//! MobileNet v2 in int8, so that neither carries what the other has loaded. Above a ceiling of memory or wake-ups it fails.

mod mobilenet;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testkit::feeder::{Feeder, read_images};
use testkit::rig::{Agent, AgentOptions, Binaries, Fleet, ServerOptions};

use crate::builds;
use crate::demo::example;
use crate::run::{cargo, prepare, target_folder};

/// Nothing is measured before this.
const WARM_UP: Duration = Duration::from_secs(20);
/// Samples, one a second.
const SAMPLES: usize = 20;

pub(crate) fn main(is_json: bool) -> Result<()> {
    let mut binaries = builds::binaries()?;
    eprintln!("building flotilla-agent as it ships: many minutes the first time");
    prepare(cargo().args(["build", "--profile", "size", "--locked", "--package", "flotilla-agent"]))?;
    binaries.agent = target_folder()?.join("size/flotilla-agent");
    let measured = measure(&binaries)?;
    if is_json {
        println!("{measured:#}");
    } else {
        for (name, value) in measured.as_object().into_iter().flatten() {
            println!("{name:<22}{value}");
        }
    }
    within_ceilings(&measured)
}

/// What no agent may cost, whatever the machine: how fast that is plays no part in it.
const CEILINGS: [(&str, f64); 3] =
    [("idle_pss_mib", mib(12.0)), ("mobilenet_v2_int8_pss_mib", mib(20.0)), ("idle_wakeups_per_s", 5.0)];

/// Of megabytes.
const fn mib(megabytes: f64) -> f64 {
    megabytes * 1e6 / 1_048_576.0
}

fn within_ceilings(measured: &serde_json::Value) -> Result<()> {
    for (name, ceiling) in CEILINGS {
        let figure = measured[name].as_f64().with_context(|| format!("{name} was not measured"))?;
        ensure!(figure < ceiling, "{name} is {figure}, it must be below {ceiling:.2}");
    }
    Ok(())
}

fn measure(binaries: &Binaries) -> Result<serde_json::Value> {
    let folder = target_folder()?.join("bench-footprint");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let config = "[jobs]\nrollout_tick_s = 1\n".to_owned();
    let fleet =
        Fleet::start(binaries, &folder, &ServerOptions { extra_config: config, ..ServerOptions::default() })?;
    let mut agent = fleet.add_device(device("idle"), &[], None)?;
    fleet.wait_online(1)?;
    std::thread::sleep(WARM_UP);
    let idle = sample(&mut agent)?;
    fleet.publish(&example("1.0.0/release.toml"))?;
    complete(&fleet, "digits", "1.0.0", "idle")?;
    let images = read_images(&example("data/held_out.csv"))?.into();
    let feeder = Feeder::start(&agent.url(), "digits", images, 20.0, Duration::from_secs(2));
    std::thread::sleep(WARM_UP);
    let digits = sample(&mut agent)?;
    drop((feeder, agent));
    let mobilenet = serving_mobilenet(&fleet, &folder)?;
    Ok(json!({
        "idle_pss_mib": idle.pss_mib,
        "digits_pss_mib": digits.pss_mib,
        "mobilenet_v2_int8_pss_mib": mobilenet.pss_mib,
        "idle_cpu_percent": idle.cpu_percent,
        "idle_wakeups_per_s": idle.wakeups_per_s,
        "binary_mib": round(binaries.agent.metadata()?.len() as f64 / f64::from(1 << 20)),
    }))
}

fn serving_mobilenet(fleet: &Fleet, folder: &Path) -> Result<Sample> {
    let mut agent = fleet.add_device(device("mobilenet"), &[], None)?;
    let image = mobilenet::publish(fleet, folder)?;
    complete(fleet, mobilenet::MODEL, mobilenet::VERSION, "mobilenet")?;
    let asking = mobilenet::Asking::start(&agent.url(), &image);
    std::thread::sleep(WARM_UP);
    let before = asking.answered();
    let serving = sample(&mut agent)?;
    ensure!(asking.answered() > before, "the agent answered nothing for {}", mobilenet::MODEL);
    Ok(serving)
}

fn device(name: &str) -> AgentOptions {
    let extra_config = "[update]\nprobation_s = 3\n".to_owned();
    AgentOptions { device: name.into(), extra_config, ..AgentOptions::default() }
}

/// Rolls a release out to one device and waits until it is committed there.
fn complete(fleet: &Fleet, model: &str, version: &str, device: &str) -> Result<()> {
    let plan = json!({ "target": format!("device = \"{device}\""), "stages": ["100%"] });
    let rollout = fleet.rollout_of(model, version, &plan)?;
    let ended = fleet.wait_ended(&rollout, Duration::from_mins(2), |_| {})?;
    ensure!(ended["state"] == "completed", "the rollout of {model} did not complete: {ended:#}");
    Ok(())
}

struct Sample {
    pss_mib: f64,
    cpu_percent: f64,
    wakeups_per_s: f64,
}

fn sample(agent: &mut Agent) -> Result<Sample> {
    let process = agent.process()?;
    process.check_running()?;
    let before = Spent::of(process.pid())?;
    let mut pss = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        std::thread::sleep(Duration::from_secs(1));
        pss.push(process.pss_kib()?);
    }
    let after = Spent::of(process.pid())?;
    pss.sort_unstable();
    let seconds = SAMPLES as f64;
    Ok(Sample {
        pss_mib: round(pss[SAMPLES / 2] as f64 / 1024.0),
        cpu_percent: round((after.cpu_s - before.cpu_s) / seconds * 100.0),
        wakeups_per_s: round((after.switches - before.switches) as f64 / seconds),
    })
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// What a process has used since its start.
struct Spent {
    cpu_s: f64,
    /// Voluntary context switches of all its threads: each is one wake-up from waiting.
    switches: u64,
}

impl Spent {
    fn of(pid: u32) -> Result<Self> {
        let (mut switches, mut cpu_ns) = (0, 0_u64);
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let folder = thread?.path();
            let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            switches += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
            let spent = std::fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
            cpu_ns += spent
                .split_whitespace()
                .next()
                .and_then(|ns| ns.parse::<u64>().ok())
                .context("no schedstat")?;
        }
        Ok(Self { cpu_s: cpu_ns as f64 / 1e9, switches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_above_its_ceiling_or_none_is_a_failure() {
        let figures = |pss: f64| {
            let rest = json!({ "mobilenet_v2_int8_pss_mib": 18.8, "idle_wakeups_per_s": 3.2 });
            let mut all = rest;
            all["idle_pss_mib"] = pss.into();
            within_ceilings(&all)
        };
        assert!(figures(6.9).is_ok());
        let error = figures(11.5).unwrap_err().to_string();
        assert_eq!(error, "idle_pss_mib is 11.5, it must be below 11.44");
        assert!(within_ceilings(&json!({ "idle_pss_mib": 6.9 })).is_err());
    }
}
