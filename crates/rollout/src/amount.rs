//! Exact amounts: a count, or a percentage held in thousandths of a percent. No floating point takes part in
//! a comparison, so limits are exact for a group of one device as for a million.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Thousandths of a percent in the whole.
const WHOLE: u32 = 100_000;

/// A percentage from 0 to 100 with at most three decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

/// A number of devices, or a share of a group. Written `3` or `"12.5%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Amount {
    /// So many devices.
    Count(u64),
    /// A share of the group.
    Percent(Percent),
}

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a count such as 3 nor a percentage such as 12.5% (0 to 100, at most three decimals)"
)]
pub struct AmountError(String);

impl Percent {
    /// All of it.
    pub const ALL: Self = Self(WHOLE);

    /// From whole percent, capped at 100.
    pub fn whole(percent: u8) -> Self {
        Self((u32::from(percent) * 1000).min(WHOLE))
    }

    /// The part of `self` that is missing to 100 %.
    #[must_use]
    pub fn rest(self) -> Self {
        Self(WHOLE - self.0)
    }

    /// Share of `total`, rounded up.
    pub fn ceil_of(self, total: u64) -> u64 {
        narrow((u128::from(self.0) * u128::from(total)).div_ceil(u128::from(WHOLE)))
    }

    /// Share of `total`, rounded down.
    pub fn floor_of(self, total: u64) -> u64 {
        narrow(u128::from(self.0) * u128::from(total) / u128::from(WHOLE))
    }
}

fn narrow(share: u128) -> u64 {
    u64::try_from(share).expect("a share of a u64 is at most that u64")
}

impl Amount {
    /// Whether `part` of `total` is more than this allows. Exact: compares products, never quotients.
    pub fn is_exceeded_by(self, part: u64, total: u64) -> bool {
        match self {
            Self::Count(max) => part > max,
            Self::Percent(p) => u128::from(part) * u128::from(WHOLE) > u128::from(p.0) * u128::from(total),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        write!(f, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => percent.fmt(f),
        }
    }
}

impl FromStr for Percent {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let bad = || AmountError(text.chars().take(40).collect());
        let digits = text.trim().strip_suffix('%').ok_or_else(bad)?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |s: &str| !s.is_empty() && s.len() <= 3 && s.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return Err(bad());
        }
        let thousandths = format!("{whole}{fraction:0<3}").parse().map_err(|_| bad())?;
        if thousandths > WHOLE { Err(bad()) } else { Ok(Self(thousandths)) }
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        if text.trim().ends_with('%') {
            return text.parse().map(Self::Percent);
        }
        text.trim().parse().map(Self::Count).map_err(|_| AmountError(text.chars().take(40).collect()))
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Percent(percent) => percent.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Count(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Count(count) => Ok(Self::Count(count)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_exact_for_groups_of_one_to_twenty() {
        for total in 1..=20_u64 {
            for percent in 0..=100_u8 {
                let limit = Amount::Percent(Percent::whole(percent));
                for part in 0..=total {
                    let expected = part * 100 > u64::from(percent) * total;
                    assert_eq!(
                        limit.is_exceeded_by(part, total),
                        expected,
                        "{part} of {total} against {percent}%"
                    );
                }
            }
        }
    }

    #[test]
    fn a_stage_above_zero_percent_is_never_empty_by_rounding() {
        assert_eq!(Percent::whole(1).ceil_of(3), 1);
        assert_eq!("0.001%".parse::<Percent>().unwrap().ceil_of(1), 1);
        assert_eq!(Percent::whole(0).ceil_of(3), 0);
        assert_eq!(Percent::ALL.ceil_of(u64::MAX), u64::MAX);
    }

    #[test]
    fn amounts_round_trip_as_people_write_them() {
        for text in ["0", "3", "0%", "12.5%", "0.001%", "100%"] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!(amount.to_string(), text);
            let json = serde_json::to_string(&amount).unwrap();
            assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
        }
        for bad in ["", "%", "-1", "101%", "1.0001%", "1e2%", "x", "100.001%", "+5%", "1.%"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad:?} was accepted");
        }
    }
}
