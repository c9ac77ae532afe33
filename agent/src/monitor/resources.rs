//! Readings of the device from /proc and /sys. What can't be read is 0 or none: a reading never fails the agent.

use std::fs;
use std::path::Path;

use protocol::telemetry::Resources;

use crate::health::{free_bytes, resident_bytes, used_bytes};

/// Milliseconds per clock tick of /proc: USER_HZ is 100 on every architecture that Linux has today.
const TICK_MS: u64 = 10;

/// Reads everything; `state_dir` is where the disk figures are about. Blocks on small files and a walk through
/// the state directory.
pub fn read(state_dir: &Path) -> Resources {
    Resources {
        rss_bytes: resident_bytes().unwrap_or(0),
        cpu_ms: cpu_ticks(&text("/proc/self/stat")).unwrap_or(0).saturating_mul(TICK_MS),
        disk_free_bytes: free_bytes(state_dir).unwrap_or(0),
        disk_used_bytes: used_bytes(state_dir),
        load1: text("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        temperature_c: temperature_c(Path::new("/sys/class/thermal")),
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// User and system time; the fields are counted after the command's name, which may hold spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user.saturating_add(system))
}

/// The hottest zone, in degrees Celsius.
fn temperature_c(zones: &Path) -> Option<f64> {
    let zones = fs::read_dir(zones)
        .ok()?
        .flatten()
        .filter(|zone| zone.file_name().to_str().is_some_and(|name| name.starts_with("thermal_zone")));
    let millidegrees = zones
        .filter_map(|zone| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse::<i32>().ok());
    millidegrees.max().map(|hottest| f64::from(hottest) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let read = read(dir.path());
        assert!(read.rss_bytes > 100_000 && read.disk_free_bytes > 0, "{read:?}");
        assert_eq!(cpu_ticks("1 (a ) b) S 1 1 1 0 -1 0 1 2 3 4 70 30 0 0"), Some(100));
    }

    #[test]
    fn the_hottest_zone_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(temperature_c(dir.path()), None);
        for (zone, temp) in
            [("thermal_zone0", "41000\n"), ("thermal_zone1", "55500\n"), ("cooling_device0", "99000")]
        {
            fs::create_dir(dir.path().join(zone)).unwrap();
            fs::write(dir.path().join(zone).join("temp"), temp).unwrap();
        }
        assert_eq!(temperature_c(dir.path()), Some(55.5));
    }
}
