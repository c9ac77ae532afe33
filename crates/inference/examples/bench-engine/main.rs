//! Runs one model under our runtime, or under tract as it comes, for `cargo xtask bench int8`; told by lines on
//! standard input, so that one driver interleaves it with the other engines.
//!
//! `bench-engine ours|tract FOLDER NET VARIANT` with FOLDER as `examples/bench-models/make.py` makes it, or
//! `bench-engine peak`. Commands: `about`, `load`, `run N` (once to warm the caches, then N times, each with the time
//! on the wall and on the CPU), `repeat N` (the same without figures: for counting instructions), `profile N` (the
//! time of each step), `outputs`, `peak`. Each answers one line of JSON; the end of input ends the program. `examples/bench-models/engine.py`
//! speaks the same for other engines.

mod engines;
mod memory;
mod peak;

use std::io::{BufRead as _, Write as _};
use std::time::{Duration, Instant};

use engines::{Engine, Job, Ours, Tract};
use inference::int8::StepTime;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (engine, job): (Box<dyn Engine>, Option<Job>) = match words.as_slice() {
        ["peak"] => (Box::new(Ours::default()), None),
        ["ours", folder, net, variant] => (Box::new(Ours::default()), Some(Job::read(folder, net, variant)?)),
        ["tract", folder, net, variant] => {
            (Box::new(Tract::default()), Some(Job::read(folder, net, variant)?))
        }
        _ => return Err("usage: bench-engine peak | ours|tract FOLDER NET VARIANT".into()),
    };
    let mut commands = Commands { engine, job };
    let mut stdout = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = commands.answer(&line?)?;
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

struct Commands {
    engine: Box<dyn Engine>,
    job: Option<Job>,
}

impl Commands {
    fn answer(&mut self, line: &str) -> Result<Value, Fault> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let times = words.next().map(str::parse::<u32>).transpose()?.unwrap_or(1);
        match verb {
            "about" => Ok(json!({ "version": self.engine.version(), "level": self.engine.level() })),
            "peak" => Ok(peak::measure()),
            "load" => self.load(),
            "run" => self.run(times),
            "repeat" => {
                for _ in 0..times {
                    self.once()?;
                }
                Ok(json!({}))
            }
            "outputs" => self.outputs(),
            "profile" => self.profile(times),
            other => Err(format!("unknown command {other:?}").into()),
        }
    }

    fn load(&mut self) -> Result<Value, Fault> {
        let job = self.job.as_ref().ok_or("there is no model")?;
        self.engine.warm()?;
        // The input is the request's, not the model's.
        self.engine.prepare(job.first_row()?, job)?;
        let before = memory::pss_mib();
        let cpu = cpu_ms();
        let start = Instant::now();
        let bytes = std::fs::read(&job.file)?;
        self.engine.load(&bytes, job)?;
        drop(bytes);
        let load_ms = start.elapsed().as_secs_f64() * 1e3;
        let load_cpu_ms = cpu_ms() - cpu;
        self.engine.run()?;
        let loaded_mib = memory::pss_mib().zip(before).map(|(after, before)| after - before);
        Ok(json!({ "load_ms": load_ms, "load_cpu_ms": load_cpu_ms, "loaded_mib": loaded_mib }))
    }

    fn run(&mut self, times: u32) -> Result<Value, Fault> {
        self.once()?;
        let (mut wall, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let (wall_ms, cpu_ms) = self.once()?;
            wall.push(wall_ms);
            cpu.push(cpu_ms);
        }
        Ok(json!({ "ms": wall, "cpu_ms": cpu }))
    }

    /// One inference on the first row: milliseconds on the wall and on the CPU.
    fn once(&mut self) -> Result<(f64, f64), Fault> {
        let job = self.job.as_ref().ok_or("there is no model")?;
        self.engine.prepare(job.first_row()?, job)?;
        let cpu = cpu_ms();
        let start = Instant::now();
        self.engine.run()?;
        let wall_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok((wall_ms, cpu_ms() - cpu))
    }

    /// Each step with the median of its times, in milliseconds.
    fn profile(&mut self, times: u32) -> Result<Value, Fault> {
        let job = self.job.as_ref().ok_or("there is no model")?;
        self.engine.prepare(job.first_row()?, job)?;
        let steps = self.engine.profile(usize::try_from(times)?)?;
        let step = |mut step: StepTime| {
            step.times.sort_unstable();
            let ms = step.times.get(step.times.len() / 2).map(|time| time.as_secs_f64() * 1e3);
            json!({ "what": step.what, "macs": step.macs, "ms": ms })
        };
        Ok(json!({ "steps": steps.into_iter().map(step).collect::<Vec<_>>() }))
    }

    fn outputs(&mut self) -> Result<Value, Fault> {
        let job = self.job.as_ref().ok_or("there is no model")?;
        let mut all = Vec::new();
        for row in &job.rows {
            self.engine.prepare(row.clone(), job)?;
            all.push(self.engine.run()?);
        }
        Ok(json!({ "outputs": all }))
    }
}

/// What this process has had of the CPU so far.
fn cpu_ms() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let whole = Duration::try_from(spent).unwrap_or_default();
    whole.as_secs_f64() * 1e3
}
