//! What the hardware is, as far as a release or a rollout may ask.

use protocol::message::Hardware;

/// Reads the hardware from the system; `class` comes from the configuration.
pub fn read_hardware(class: &str) -> Hardware {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Hardware {
        arch: arch().to_owned(),
        class: class.to_owned(),
        cpu_features: cpu_features(&cpuinfo),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_bytes: memory_bytes(&meminfo).min(cgroup_limit().unwrap_or(u64::MAX)),
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "arm" => "armv7",
        "riscv64" => "riscv64",
        other => other,
    }
}

/// Names as `/proc/cpuinfo` writes them (`flags` on x86, `Features` on ARM, `isa` on RISC-V), sorted.
fn cpu_features(cpuinfo: &str) -> Vec<String> {
    let line = cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        matches!(name.trim(), "flags" | "Features" | "isa").then_some(value)
    });
    let mut features: Vec<String> = line.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    features.sort_unstable();
    features.dedup();
    features
}

fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// What the service manager allows this process (cgroup version 2); none without a limit.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup/{group}/memory.max")).ok()?;
    limit.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_and_memory_are_found_on_x86_and_arm() {
        assert_eq!(cpu_features("processor : 0\nflags\t\t: sse avx2 avx\n"), ["avx", "avx2", "sse"]);
        assert_eq!(cpu_features("Features\t: fp asimd\n"), ["asimd", "fp"]);
        assert_eq!(memory_bytes("MemTotal:        1024 kB\nMemFree: 1 kB\n"), 1024 * 1024);
        assert_eq!((cpu_features("").len(), memory_bytes("")), (0, 0));
    }
}
