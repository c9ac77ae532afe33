//! Times in metadata: RFC 3339 in UTC with whole seconds, `2026-01-31T12:00:00Z` (specification, section 4.2).

use protocol::UnixMillis;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Reads `YYYY-MM-DDTHH:MM:SSZ` and nothing else.
pub fn parse_rfc3339(text: &str) -> Option<UnixMillis> {
    // The parser takes other separators and other zones too.
    if text.len() != 20 || text.as_bytes()[10] != b'T' || !text.ends_with('Z') {
        return None;
    }
    let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(UnixMillis(instant.unix_timestamp().checked_mul(1000)?))
}

/// Writes the same form; what it can't express (years before 0 or after 9999) becomes the nearest that it can.
pub fn format_rfc3339(at: UnixMillis) -> String {
    const FIRST: i64 = -62_167_219_200;
    const LAST: i64 = 253_402_300_799;
    let seconds = at.0.div_euclid(1000).clamp(FIRST, LAST);
    let instant = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let instant = instant.to_offset(UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        instant.year(),
        u8::from(instant.month()),
        instant.day(),
        instant.hour(),
        instant.minute(),
        instant.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_in_utc_round_trip_and_other_forms_are_refused() {
        let at = parse_rfc3339("2026-11-21T01:46:54Z").unwrap();
        assert_eq!(format_rfc3339(at), "2026-11-21T01:46:54Z");
        for bad in
            ["2026-11-21T01:46:54+00:00", "2026-11-21T01:46:54.1Z", "2026-11-21", "", "2026-13-21T01:46:54Z"]
        {
            assert!(parse_rfc3339(bad).is_none(), "{bad}");
        }
    }
}
