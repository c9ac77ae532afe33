//! Shapes that many resources share.

use protocol::{DeviceId, ModelName, ProjectId, RolloutId, UnixMillis, Version};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, ApiResult};
use super::extract::cursor;
use crate::store::Page;

/// Longest title in characters.
const MAX_TITLE_CHARS: usize = 200;

/// Refuses titles that nobody could read or show.
///
/// # Errors
/// 422 `bad_title`.
pub fn check_title(title: &str) -> ApiResult<()> {
    // Text direction marks can make one title look like another.
    let is_hidden =
        |c: char| c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    if title.trim().is_empty() || title.chars().count() > MAX_TITLE_CHARS || title.contains(is_hidden) {
        return Err(ApiError::unprocessable(
            "bad_title",
            "A title has 1 to 200 characters and no control characters.",
        ));
    }
    Ok(())
}

/// A point in time, RFC 3339 with `Z` and milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T12:00:00.000Z")]
pub struct Timestamp(pub UnixMillis);

impl From<UnixMillis> for Timestamp {
    fn from(at: UnixMillis) -> Self {
        Self(at)
    }
}

impl Timestamp {
    /// The time as text.
    pub fn text(self) -> String {
        let nanos = i128::from(self.0.0) * 1_000_000;
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (date, clock) = (at.date(), at.time());
        format!(
            "{date}T{:02}:{:02}:{:02}.{:03}Z",
            clock.hour(),
            clock.minute(),
            clock.second(),
            clock.millisecond()
        )
    }

    /// Reads RFC 3339 with any offset.
    pub fn parse(text: &str) -> Option<Self> {
        let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
        i64::try_from(nanos / 1_000_000).ok().map(|millis| Self(UnixMillis(millis)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("expected an RFC 3339 time such as 2026-01-31T12:00:00Z"))
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
    /// `cursor` of the next page; null on the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
    /// How many items match in all.
    pub total: i64,
}

impl<T> List<T> {
    /// A page of stored rows; `key` is what the store sorts by.
    pub fn page<R>(page: Page<R>, limit: i64, key: impl Fn(&R) -> String, map: impl Fn(R) -> T) -> Self {
        let is_full = i64::try_from(page.items.len()).is_ok_and(|n| n == limit);
        let next_cursor = page.items.last().filter(|_| is_full).map(|last| cursor(&key(last)));
        Self { items: page.items.into_iter().map(map).collect(), next_cursor, total: page.total }
    }

    /// A list that is always whole.
    pub fn whole(items: Vec<T>) -> Self {
        let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
        Self { items, next_cursor: None, total }
    }
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),+ $(,)? })+) => {
        $($(#[$doc])*
        #[derive(Debug, Deserialize, IntoParams)]
        #[into_params(parameter_in = Path)]
        pub struct $name {
            $($(#[$field_doc])*
            #[param(value_type = String)]
            pub $field: $type,)+
        })+
    };
}

paths! {
    /// One project.
    ProjectPath {
        /// The project's id.
        project: ProjectId,
    }
    /// One device.
    DevicePath {
        /// The project's id.
        project: ProjectId,
        /// The device's id.
        device: DeviceId,
    }
    /// One model.
    ModelPath {
        /// The project's id.
        project: ProjectId,
        /// The model's name.
        model: ModelName,
    }
    /// One release.
    ReleasePath {
        /// The project's id.
        project: ProjectId,
        /// The model's name.
        model: ModelName,
        /// The release's version.
        version: Version,
    }
    /// One rollout.
    RolloutPath {
        /// The project's id.
        project: ProjectId,
        /// The rollout's id.
        rollout: RolloutId,
    }
    /// One alert.
    AlertPath {
        /// The project's id.
        project: ProjectId,
        /// The alert's id.
        alert: String,
    }
    /// One enrolment token.
    EnrollmentTokenPath {
        /// The project's id.
        project: ProjectId,
        /// The token's id.
        id: String,
    }
    /// One user.
    UserPath {
        /// The user's name.
        user: String,
    }
    /// One API token.
    TokenPath {
        /// The token's id.
        token: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_z() {
        assert_eq!(Timestamp(UnixMillis(0)).text(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(UnixMillis(1_769_860_800_123)).text(), "2026-01-31T12:00:00.123Z");
        assert_eq!(Timestamp::parse("2026-01-31T13:00:00.123+01:00").unwrap().0.0, 1_769_860_800_123);
        assert!(Timestamp::parse("yesterday").is_none());
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = |items: Vec<i32>| Page { items, total: 3 };
        let list = |items| List::page(page(items), 2, ToString::to_string, |n| n);
        assert!(list(vec![1, 2]).next_cursor.is_some());
        assert!(list(vec![3]).next_cursor.is_none());
        assert!(list(vec![]).next_cursor.is_none());
    }
}
