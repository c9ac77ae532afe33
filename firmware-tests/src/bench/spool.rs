//! The spool under load: how many records a second are durable (a true fsync per group), what a million waiting ones
//! take in memory, and how much disk a byte of them takes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flotilla_agent::config;
use flotilla_agent::health::Clock;
use flotilla_agent::store::{Spool, SpoolHandle};
use protocol::telemetry::Kind;
use serde_json::json;

use super::MORE;

/// Who waits for durability at the same time: as many as one group takes.
const WRITERS: u64 = 512;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder to work in, on the disk to measure; cleared first.
    #[arg(long)]
    folder: PathBuf,
    /// Records to store; all of them wait at the end.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of each.
    #[arg(long, default_value_t = 1000)]
    bytes: usize,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let folder = crate::fresh(&args.folder)?;
    let clock = Clock::open(&folder)?;
    let config = config::Spool {
        max_bytes: u64::MAX / 32,
        commit_after: Duration::from_millis(20),
        ttl: Duration::from_hours(24),
        write_bytes_per_day: 0,
        ..config::Spool::default()
    };
    let (spool, report) = Spool::open(&folder, &config, &clock)?;
    ensure!(report.is_none(), "a new spool has something to report: {report:?}");
    let handle = spool.handle();
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(write(&handle, args.records, args.bytes))?;
    let seconds = begun.elapsed().as_secs_f64();
    let state = handle.state();
    ensure!(state.depth_records >= args.records, "only {} records are held", state.depth_records);
    ensure!(state.dropped.is_empty(), "records were dropped: {:?}", state.dropped);
    let rss_mib = resident_kib()? as f64 / 1024.0;
    drop(runtime);
    drop(spool);
    let on_disk = disk_bytes(&folder.join("spool"))?;
    println!(
        "{:#}",
        json!({
            "durable_records_per_s": (state.depth_records as f64 / seconds).round(),
            "rss_mib_at_1e6": (rss_mib * 10.0).round() / 10.0,
            "disk_per_live_byte": (on_disk as f64 / state.depth_bytes as f64 * 100.0).round() / 100.0,
            (MORE): { "records": state.depth_records, "record_bytes": args.bytes },
        })
    );
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))
}

async fn write(spool: &SpoolHandle, records: u64, bytes: usize) -> Result<()> {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let spool = spool.clone();
        // The remainder is shared out too.
        let share = records / WRITERS + u64::from(writer < records % WRITERS);
        writers.spawn(async move {
            for n in 0..share {
                spool.append(Kind::Pane, body(writer, n, bytes)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

/// Bytes that no compression would shrink much.
fn body(writer: u64, n: u64, bytes: usize) -> Vec<u8> {
    let mut number = (writer << 40 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut body = Vec::with_capacity(bytes + 8);
    while body.len() < bytes {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.truncate(bytes);
    body
}

fn resident_kib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is not a number")
}

fn disk_bytes(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        total += if meta.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            std::os::unix::fs::MetadataExt::blocks(&meta) * 512
        };
    }
    Ok(total)
}
