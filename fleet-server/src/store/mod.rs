//! The database: SQLite by default, PostgreSQL to scale. The only room with SQL.
//!
//! Accessors are free functions over a [`Conn`], one file per resource, so that the same function serves a
//! plain read ([`Store::read`]) and a transaction ([`Store::begin`]). SQL is portable: `$1` placeholders, times
//! as Unix milliseconds, JSON as text, truth values as 0 or 1. `tests/store.rs` runs on both databases.

pub mod alerts;
pub mod audit;
pub mod blobs;
pub mod certificates;
pub mod devices;
pub mod drift;
pub mod enrollment;
pub mod history;
pub mod leases;
pub mod logs;
pub mod measurements;
pub mod metadata;
pub mod overview;
pub mod projects;
pub mod quarantine;
pub mod releases;
pub mod retention;
pub mod rollouts;
pub mod samples;
pub mod sessions;
pub mod tasks;
pub mod telemetry;
pub mod tokens;
pub mod users;

mod arrival;
mod error;
mod open;
mod packed;
mod row;
mod sql;

pub use error::StoreError;
pub use open::{Dialect, Store, Tx, keep, mark, undo};

/// A connection, inside a transaction or not.
pub type Conn = sqlx::AnyConnection;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// How many items match in all.
    pub total: i64,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Key of the last item of the page before; `None` for the first page.
    pub after: Option<String>,
    /// At most so many items.
    pub limit: i64,
}

impl Window {
    /// The first page with at most `limit` items.
    pub fn first(limit: i64) -> Self {
        Self { after: None, limit }
    }
}
