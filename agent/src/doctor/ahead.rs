//! Something that has expired for this device only, because its clock is ahead.

use std::fmt;

use protocol::UnixMillis;

use crate::shown::instant;

/// What this device's clock and the server's say.
pub(super) struct ClockAhead {
    here: UnixMillis,
    server: UnixMillis,
}

impl ClockAhead {
    /// What to do about it.
    pub(super) const ADVICE: &str =
        "set the clock or give the device a time server first; with the right time it holds";

    /// If it is why what holds until `expires` holds no more; `heard` is the time that the server says it is.
    pub(super) fn of(expires: UnixMillis, here: UnixMillis, heard: Option<UnixMillis>) -> Option<Self> {
        let server = heard.filter(|server| *server < expires && expires <= here)?;
        Some(Self { here, server })
    }
}

impl fmt::Display for ClockAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [here, server] = [self.here, self.server].map(instant);
        write!(f, "has expired by this device's clock ({here}), but not by the server's ({server})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_blamed_only_where_the_server_says_so() {
        let is_blamed = |expires, here, heard: Option<i64>| {
            ClockAhead::of(UnixMillis(expires), UnixMillis(here), heard.map(UnixMillis)).is_some()
        };
        assert!(is_blamed(50, 100, Some(49)));
        assert!(!is_blamed(50, 100, Some(50)), "it has expired");
        assert!(!is_blamed(50, 49, Some(10)), "it holds here as well");
        assert!(!is_blamed(50, 100, None), "nobody says so");
    }
}
