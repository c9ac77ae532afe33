//! Maintenance windows in the device's own time: weekdays, a start and a length.

use protocol::UnixMillis;
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: i64 = 24 * 60;

/// A weekly window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = MaintenanceWindow))]
pub struct Window {
    /// Whether it opens on Monday, Tuesday, ... Sunday.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<bool>, min_items = 7, max_items = 7))]
    pub days: [bool; 7],
    /// Minute of the local day at which it opens, 0 to 1439.
    #[cfg_attr(feature = "openapi", schema(maximum = 1439))]
    pub start_minute: u16,
    /// Length in minutes, 1 to 1440; may run past midnight.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1440))]
    pub length_minutes: u16,
}

impl Window {
    /// Whether its numbers make sense.
    pub fn is_valid(&self) -> bool {
        let is_length_ok = (1..=DAY_MINUTES).contains(&i64::from(self.length_minutes));
        self.days.contains(&true) && i64::from(self.start_minute) < DAY_MINUTES && is_length_ok
    }

    /// `None` while the window is open for a device with this offset from UTC; else when it opens next.
    pub fn opens_at(&self, now: UnixMillis, utc_offset_s: i32) -> Option<UnixMillis> {
        let offset_ms = i64::from(utc_offset_s) * 1000;
        let local_minute = now.0.saturating_add(offset_ms).div_euclid(MINUTE_MS);
        let today = local_minute.div_euclid(DAY_MINUTES);
        let start_of = |day: i64| day * DAY_MINUTES + i64::from(self.start_minute);
        let is_open = [today - 1, today].into_iter().any(|day| {
            let end = start_of(day) + i64::from(self.length_minutes);
            self.is_on(day) && (start_of(day)..end).contains(&local_minute)
        });
        if is_open {
            return None;
        }
        let next = (today..today + 8).find(|day| self.is_on(*day) && start_of(*day) > local_minute);
        // A window without days is refused with the plan; "now" keeps this function total.
        Some(next.map_or(now, |day| UnixMillis(start_of(day) * MINUTE_MS - offset_ms)))
    }

    /// Day 0, 1970-01-01, was a Thursday.
    fn is_on(&self, day: i64) -> bool {
        usize::try_from((day + 3).rem_euclid(7)).is_ok_and(|weekday| self.days[weekday])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-16T00:00Z, a Monday.
    const MONDAY: i64 = 1_794_787_200_000;
    const HOUR: i64 = 3_600_000;

    fn nightly(days: [bool; 7]) -> Window {
        Window { days, start_minute: 23 * 60, length_minutes: 180 }
    }

    #[test]
    fn it_opens_in_the_devices_own_time_and_runs_past_midnight() {
        let window = nightly([true; 7]);
        let at = |hours: i64| UnixMillis(MONDAY + hours * HOUR);
        assert_eq!(window.opens_at(at(1), 0), None);
        assert_eq!(window.opens_at(at(2), 0), Some(at(23)));
        assert_eq!(window.opens_at(at(23), 0), None);
        assert_eq!(window.opens_at(at(2), -3 * 3600), None, "23:00 in Porto Alegre");
        assert_eq!(window.opens_at(at(12), 3 * 3600), Some(at(20)));
    }

    #[test]
    fn weekdays_are_counted_from_monday() {
        let mondays = nightly([true, false, false, false, false, false, false]);
        let at = |hours: i64| UnixMillis(MONDAY + hours * HOUR);
        assert_eq!(mondays.opens_at(at(23), 0), None);
        assert_eq!(mondays.opens_at(at(25), 0), None, "past midnight still belongs to Monday");
        assert_eq!(mondays.opens_at(at(26), 0), Some(at(7 * 24 + 23)));
    }
}
