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
            // SQLite busy and locked; PostgreSQL serialisation failure and deadlock.
            sqlx::Error::Database(e) => {
                matches!(e.code().as_deref(), Some("5" | "6" | "517" | "40001" | "40P01"))
            }
            _ => false,
        }
    }

    fn database_error(&self) -> Option<&dyn sqlx::error::DatabaseError> {
        let Self::Query { source, .. } = self else { return None };
        source.as_database_error()
    }
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
