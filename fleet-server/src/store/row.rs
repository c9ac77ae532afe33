//! Reading columns as checked types.

use std::str::FromStr;

use protocol::UnixMillis;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::StoreError;

/// Typed column access with named errors.
pub(super) trait Columns {
    /// A text column.
    fn text(&self, column: &'static str) -> Result<String, StoreError>;
    /// A text column that may be NULL.
    fn text_opt(&self, column: &'static str) -> Result<Option<String>, StoreError>;
    /// An integer column.
    fn int(&self, column: &'static str) -> Result<i64, StoreError>;
    /// An integer column that may be NULL.
    fn int_opt(&self, column: &'static str) -> Result<Option<i64>, StoreError>;
    /// A floating-point column.
    fn float(&self, column: &'static str) -> Result<f64, StoreError>;
    /// A floating-point column that may be NULL.
    fn float_opt(&self, column: &'static str) -> Result<Option<f64>, StoreError>;
    /// A bytes column.
    fn bytes(&self, column: &'static str) -> Result<Vec<u8>, StoreError>;
    /// A bytes column that may be NULL.
    fn bytes_opt(&self, column: &'static str) -> Result<Option<Vec<u8>>, StoreError>;

    /// A truth value stored as 0 or 1.
    fn truth(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    /// A count or counter, never negative.
    fn count(&self, column: &'static str) -> Result<u64, StoreError> {
        u64::try_from(self.int(column)?).map_err(|_| corrupt(column, "negative"))
    }

    /// A point in time.
    fn millis(&self, column: &'static str) -> Result<UnixMillis, StoreError> {
        self.int(column).map(UnixMillis)
    }

    /// A point in time that may be NULL.
    fn millis_opt(&self, column: &'static str) -> Result<Option<UnixMillis>, StoreError> {
        Ok(self.int_opt(column)?.map(UnixMillis))
    }

    /// A checked id.
    fn id<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T::Err: std::fmt::Display,
    {
        self.text(column)?.parse().map_err(|e: T::Err| corrupt(column, &e.to_string()))
    }

    /// A checked id that may be NULL.
    fn id_opt<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: String| text.parse().map_err(|e: T::Err| corrupt(column, &e.to_string()));
        self.text_opt(column)?.map(parse).transpose()
    }

    /// A JSON column.
    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|e| corrupt(column, &e.to_string()))
    }

    /// A JSON column that may be NULL.
    fn json_opt<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let parse = |text: String| serde_json::from_str(&text).map_err(|e| corrupt(column, &e.to_string()));
        self.text_opt(column)?.map(parse).transpose()
    }
}

fn corrupt(column: &'static str, why: &str) -> StoreError {
    StoreError::Corrupt { column: column.to_owned(), why: why.to_owned() }
}

macro_rules! get {
    ($($name:ident -> $type:ty),+ $(,)?) => {
        $(fn $name(&self, column: &'static str) -> Result<$type, StoreError> {
            self.try_get(column).map_err(|e| corrupt(column, &e.to_string()))
        })+
    };
}

impl Columns for AnyRow {
    get!(
        text -> String,
        text_opt -> Option<String>,
        int -> i64,
        int_opt -> Option<i64>,
        float -> f64,
        float_opt -> Option<f64>,
        bytes -> Vec<u8>,
        bytes_opt -> Option<Vec<u8>>,
    );
}

/// Reads every row with `read`.
pub(super) fn all<T>(
    rows: Vec<AnyRow>,
    read: impl Fn(&AnyRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    rows.into_iter().map(|row| read(&row)).collect()
}

/// Writes a value as the JSON text of a column.
pub(super) fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have only string keys and finite numbers")
}

/// A counter of ours as the database holds it; they never come near the bound. What others chose is no such counter.
pub(super) fn as_int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
