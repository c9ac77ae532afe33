//! What the local API adds to an inference, and what it carries. Latencies are of one image of digits, asked again and
//! again on one connection, in turns with the same inference in this process, so that all meet the same machine.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use inference::{Data, Tensor};
use serde_json::json;
use testkit::feeder::read_images;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::MORE;
use super::device::{Device, VERSIONS};
use super::http::{Connection, Prepared};

/// Clients at once, each on its own connection to the unix socket.
const CLIENTS: u32 = 8;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of examples/digits.
    #[arg(long, default_value = "examples/digits")]
    example: PathBuf,
    /// Folder to work in; cleared first.
    #[arg(long)]
    folder: PathBuf,
    /// Turns; in each every way is asked a hundred times.
    #[arg(long, default_value_t = 50)]
    turns: usize,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5)]
    load_s: u64,
}

/// Clients of an overload: more than `serve.queue` has places, fewer than `serve.max_connections`.
const CROWD: u32 = 120;
/// Clients that have a place each.
const SEATED: u32 = 60;
/// Rows of a request that is too long to be answered where it is read: milliseconds.
const LONG_ROWS: usize = 256;
/// Inferences of one way in one turn.
const PER_TURN: usize = 100;

pub(crate) fn main(args: &Args) -> Result<()> {
    let folder = crate::fresh(&args.folder)?;
    let device = Device::start(&folder, &args.example)?;
    device.swap(VERSIONS[0])?;
    let loaded = device.serving()?;
    let images = read_images(&args.example.join("data/held_out.csv"))?;
    let pixels = images.into_iter().next().context("an image to ask")?.pixels;
    let input = [Tensor::new("image", vec![1, 1, 8, 8], Data::Fp32(pixels.clone()))?];
    let scores = scores(&loaded.runtime.infer(&input)?)?;
    let (in_json, in_binary) = (Prepared::json(&pixels), Prepared::binary(&pixels, &scores));
    let mut json_tcp = Connection::tcp(device.address)?;
    let mut binary_tcp = Connection::tcp(device.address)?;
    let mut binary_unix = Connection::unix(&device.unix)?;
    let mut echo = Echo::start()?;
    let [mut inprocess, mut async_echo, mut http_json, mut http_binary, mut unix_binary] =
        [(); 5].map(|()| Micros::default());
    // The first turn warms everything up and isn't counted.
    for turn in 0..=args.turns {
        inprocess.time(turn, || loaded.runtime.infer(&input).map(drop).map_err(Into::into))?;
        async_echo.time(turn, || echo.ask())?;
        http_json.time(turn, || json_tcp.ask(&in_json))?;
        http_binary.time(turn, || binary_tcp.ask(&in_binary))?;
        unix_binary.time(turn, || binary_unix.ask(&in_binary))?;
    }
    let load = Duration::from_secs(args.load_s);
    let full = under_load(&device.unix, &in_binary, load, None)?;
    let per_s = full.0.len() as f64 / load.as_secs_f64();
    let pause = Duration::from_secs_f64(f64::from(CLIENTS) / (per_s / 2.0));
    let half = under_load(&device.unix, &in_binary, load, Some(pause))?;
    let (accepted, refused) = overloaded(&device.unix, &in_binary, load, CROWD)?;
    let long = pixels.repeat(LONG_ROWS);
    let batch = [Tensor::new("image", vec![LONG_ROWS, 1, 8, 8], Data::Fp32(long.clone()))?];
    let in_batch = Prepared::binary(&long, &self::scores(&loaded.runtime.infer(&batch)?)?);
    let (seated, none) = overloaded(&device.unix, &in_batch, load, SEATED)?;
    ensure!(none == 0, "{none} requests were refused though each client had a place");
    let (long_accepted, long_refused) = overloaded(&device.unix, &in_batch, load, CROWD)?;
    ensure!(long_refused > 0, "{CROWD} clients had a place each");
    println!(
        "{:#}",
        json!({
            "inprocess_us": inprocess.percentile(50),
            "http_json_p50_us": http_json.percentile(50),
            "http_binary_p50_us": http_binary.percentile(50),
            "unix_binary_p50_us": unix_binary.percentile(50),
            "requests_per_s_8_clients": per_s.round(),
            "p99_us_at_half_load": half.percentile(99),
            (MORE): {
                "async_echo_p50_us": async_echo.percentile(50),
                "p99_us_8_clients": full.percentile(99),
                "p99_us_at_overload": accepted.percentile(99),
                "refused_at_overload": refused,
                "p99_us_long_60_clients": seated.percentile(99),
                "p99_us_long_at_overload": long_accepted.percentile(99),
                "requests_per_s_long_at_overload":
                    (long_accepted.0.len() as f64 / load.as_secs_f64()).round(),
                "refused_long_at_overload": long_refused,
            },
        })
    );
    Ok(())
}

/// What the system takes to carry a question and an answer over a unix socket to an asynchronous thread, which does
/// nothing with it, as the API's must wait for many clients.
struct Echo(UnixStream);

impl Echo {
    /// About the size of a request of digits.
    const BYTES: usize = 700;

    fn start() -> Result<Self> {
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        std::thread::spawn(move || runtime.block_on(Self::answer(far)));
        Ok(Self(near))
    }

    async fn answer(far: UnixStream) -> std::io::Result<Infallible> {
        let mut far = tokio::net::UnixStream::from_std(far)?;
        let mut question = [0; Self::BYTES];
        loop {
            far.read_exact(&mut question).await?;
            far.write_all(&question).await?;
        }
    }

    fn ask(&mut self) -> Result<()> {
        self.0.write_all(&[0; Self::BYTES])?;
        self.0.read_exact(&mut [0; Self::BYTES])?;
        Ok(())
    }
}

fn scores(outputs: &[Tensor]) -> Result<Vec<f32>> {
    match outputs {
        [scores] => match scores.data() {
            Data::Fp32(values) => Ok(values.clone()),
            other => anyhow::bail!("the scores are {}", other.datatype()),
        },
        other => anyhow::bail!("{} outputs where one was expected", other.len()),
    }
}

/// Latencies in microseconds.
#[derive(Default)]
struct Micros(Vec<f64>);

impl Micros {
    /// Times one turn; turn 0 is not kept.
    fn time(&mut self, turn: usize, mut ask: impl FnMut() -> Result<()>) -> Result<()> {
        for _ in 0..PER_TURN {
            let begun = Instant::now();
            ask()?;
            if turn > 0 {
                self.add(begun.elapsed());
            }
        }
        Ok(())
    }

    fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    /// Rounded to a tenth of a microsecond.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = sorted.len().saturating_sub(1) * percent / 100;
        sorted.get(at).map_or(0.0, |micros| (micros * 10.0).round() / 10.0)
    }
}

/// What all clients measure in `load`: without a pause between requests, or each with a request every `pause`.
fn under_load(unix: &Path, request: &Prepared, load: Duration, pause: Option<Duration>) -> Result<Micros> {
    let is_over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (connection, request, is_over) = (Connection::unix(unix)?, request.clone(), is_over.clone());
            let first = begun + pause.map_or(Duration::ZERO, |pause| pause * client / CLIENTS);
            Ok(std::thread::spawn(move || ask(connection, &request, &is_over, first, pause)))
        })
        .collect::<Result<_>>()?;
    std::thread::sleep(load);
    is_over.store(true, Ordering::Relaxed);
    let mut all = Micros::default();
    for client in clients {
        all.0.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??.0);
    }
    ensure!(!all.0.is_empty(), "nothing was answered");
    Ok(all)
}

/// Many clients, none of which waits when it is told to: what the accepted requests measure, and how many were refused
/// (none, as long as inferences are short enough to run where they are).
fn overloaded(unix: &Path, request: &Prepared, load: Duration, crowd: u32) -> Result<(Micros, u64)> {
    let end = Instant::now() + load;
    let clients: Vec<_> = (0..crowd)
        .map(|_| {
            let (mut connection, request) = (Connection::unix(unix)?, request.clone());
            Ok(std::thread::spawn(move || -> Result<_> {
                let (mut seen, mut refused) = (Micros::default(), 0_u64);
                while Instant::now() < end {
                    let begun = Instant::now();
                    if connection.offer(&request)? {
                        seen.add(begun.elapsed());
                    } else {
                        refused += 1;
                    }
                }
                Ok((seen, refused))
            }))
        })
        .collect::<Result<_>>()?;
    let (mut all, mut refused) = (Micros::default(), 0);
    for client in clients {
        let (seen, more) = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        all.0.extend(seen.0);
        refused += more;
    }
    ensure!(!all.0.is_empty(), "nothing was answered, {refused} were refused");
    Ok((all, refused))
}

fn ask<S: Read + Write>(
    mut connection: Connection<S>,
    request: &Prepared,
    is_over: &AtomicBool,
    mut due: Instant,
    pause: Option<Duration>,
) -> Result<Micros> {
    let mut seen = Micros::default();
    while !is_over.load(Ordering::Relaxed) {
        let begun = match pause {
            None => Instant::now(),
            Some(pause) => {
                let begun = wait_until(due);
                due += pause;
                begun
            }
        };
        connection.ask(request)?;
        seen.add(begun.elapsed());
    }
    Ok(seen)
}

/// When the request that is due begins. One that was due while the one before was still on its way has waited since
/// then; one that the system's timer lets begin late has not.
fn wait_until(due: Instant) -> Instant {
    let wait = due.saturating_duration_since(Instant::now());
    if wait.is_zero() {
        return due;
    }
    std::thread::sleep(wait);
    Instant::now()
}
