//! Sizes and times as people read them.

use protocol::UnixMillis;

/// A length of time in its two largest units.
pub fn duration(millis: i64) -> String {
    let s = millis.max(0) / 1000;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, min, s) => format!("{min} min {s} s"),
        (0, h, min, _) => format!("{h} h {min} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// A size in its largest binary unit.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time in UTC, to the second.
pub fn instant(at: UnixMillis) -> String {
    trust::format_rfc3339(UnixMillis(at.0.div_euclid(1000) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!([bytes(1023), bytes(9_437_184)], ["1023 B", "9.0 MiB"]);
        assert_eq!([duration(61_000), duration(-1)], ["1 min 1 s", "0 s"]);
        assert_eq!(instant(UnixMillis(1999)), "1970-01-01T00:00:01Z");
    }
}
