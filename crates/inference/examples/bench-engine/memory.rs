//! Memory of this process.

/// Private memory and the share of what is shared, in MiB; none where the kernel doesn't tell (emulation).
pub(crate) fn pss_mib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}
