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
    /// A copy is damaged.
    #[error("database: the copy is not whole: {0}")]
    Copy(String),
    /// What must never change is stored already, and is something else.
    #[error("database: {what} is stored already with other content")]
    Taken {
        /// What it is.
        what: String,
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

    /// Whether a value holds what PostgreSQL stores in no text: the character NUL.
    pub fn is_unstorable_text(&self) -> bool {
        self.database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "22021")
    }

    /// Whether the database may take the same later: everything but what lies in the statement or its values. A full
    /// disk, a restart, a lock or a lost connection end some time.
    pub fn is_retryable(&self) -> bool {
        use sqlx::Error as E;
        match self {
            Self::Query { source: E::Database(e), .. } => {
                !e.code().is_some_and(|code| is_about_values(&code))
            }
            Self::Query { source, .. } => matches!(
                source,
                E::Io(_)
                    | E::Tls(_)
                    | E::Protocol(_)
                    | E::PoolTimedOut
                    | E::PoolClosed
                    | E::WorkerCrashed
                    | E::BeginFailed
                    | E::InvalidSavePointStatement
            ),
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
            Self::Open { .. }
            | Self::Migrate(_)
            | Self::Query { .. }
            | Self::Copy(_)
            | Self::Taken { .. }
            | Self::Corrupt { .. } => false,
        }
    }

    fn database_error(&self) -> Option<&dyn sqlx::error::DatabaseError> {
        let Self::Query { source, .. } = self else { return None };
        source.as_database_error()
    }
}

/// SQLite: 1 error in the statement, 18 too big, 19 constraint, 20 mismatch, 25 range. PostgreSQL's classes: 0A, 21, 22, 23,
/// 42, 44 and 54.
fn is_about_values(code: &str) -> bool {
    match sqlite_code(code) {
        Some(sqlite) => [1, 18, 19, 20, 25].contains(&sqlite),
        None => ["0A", "21", "22", "23", "42", "44", "54"].iter().any(|class| code.starts_with(class)),
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

#[cfg(test)]
mod tests {
    use super::is_about_values;

    #[test]
    fn what_can_end_some_time_is_not_about_the_values() {
        let full_locked_io_restart = ["13", "5", "517", "266", "57P01", "53100", "40001", "08006"];
        assert!(full_locked_io_restart.iter().all(|code| !is_about_values(code)));
        let constraint_syntax_range = ["19", "1299", "2067", "1", "23505", "22003", "42P01"];
        assert!(constraint_syntax_range.iter().all(|code| is_about_values(code)));
    }
}
