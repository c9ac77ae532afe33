//! Why the database could not do it.

/// A failed operation of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened.
    #[error("cannot open database {url}")]
    Open {
        /// Its address, without a password.
        url: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the database schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("database: cannot {what}")]
    Query {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A stored value is not what this build writes.
    #[error("database: column {column} holds an invalid value: {why}")]
    Corrupt {
        /// Where.
        column: String,
        /// What is wrong.
        why: String,
    },
}

impl StoreError {
    /// Whether a unique or primary key stands in the way.
    pub fn is_conflict(&self) -> bool {
        self.database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    /// Whether the row still has dependents, or names something that isn't there.
    pub fn is_reference(&self) -> bool {
        self.database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
    }

    /// Whether trying the same again soon can help.
    pub fn is_retryable(&self) -> bool {
        let Self::Query { source, .. } = self else { return false };
        match source {
            sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => true,
            sqlx::Error::Database(e) => e.code().is_some_and(|code| match sqlite_code(&code) {
                // Busy, locked, input/output error, disk full.
                Some(code) => matches!(code, 5 | 6 | 10 | 13),
                // Serialisation failure and deadlock, connection lost, resources short, shutdown.
                None => {
                    matches!(&*code, "40001" | "40P01")
                        || ["08", "53", "57P"].iter().any(|class| code.starts_with(class))
                }
            }),
            _ => false,
        }
    }

    /// Whether it is the value that the database refuses, for good: the same statement with another value goes through.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Query { source: sqlx::Error::Encode(_), .. } => true,
            Self::Query { source: sqlx::Error::Database(e), .. } => {
                e.code().is_some_and(|code| match sqlite_code(&code) {
                    // Too big, constraint, mismatch of types.
                    Some(code) => matches!(code, 18..=20),
                    // Unfit data, constraint, a bound of the program.
                    None => ["22", "23", "54"].iter().any(|class| code.starts_with(class)),
                })
            }
            Self::Open { .. } | Self::Migrate(_) | Self::Query { .. } | Self::Corrupt { .. } => false,
        }
    }

    fn database_error(&self) -> Option<&dyn sqlx::error::DatabaseError> {
        let Self::Query { source, .. } = self else { return None };
        source.as_database_error()
    }
}

/// SQLite's primary result code, which is the low byte of an extended one. PostgreSQL's codes have five characters.
fn sqlite_code(code: &str) -> Option<u32> {
    (code.len() < 5).then(|| code.parse::<u32>().ok()).flatten().map(|code| code & 0xff)
}

/// Names the operation that a database error belongs to.
pub(super) trait During<T> {
    /// Wraps the error with what was tried: "cannot {what}".
    fn during(self, what: &'static str) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, what: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Query { what, source })
    }
}
