//! Opening the database, its schema, and transactions.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Connection, Executor, SqlSafeStr, Transaction};

use super::error::During;
use super::row::Columns as _;
use super::{Conn, StoreError};

/// Schema steps, in order: number, name, SQL for SQLite, SQL for PostgreSQL.
const MIGRATIONS: &[(i64, &str, &str, &str)] = &[
    (
        1,
        "init",
        include_str!("../../migrations/sqlite/0001_init.sql"),
        include_str!("../../migrations/postgres/0001_init.sql"),
    ),
    (
        2,
        "samples",
        include_str!("../../migrations/sqlite/0002_samples.sql"),
        include_str!("../../migrations/postgres/0002_samples.sql"),
    ),
    (
        3,
        "quarantine",
        include_str!("../../migrations/sqlite/0003_quarantine.sql"),
        include_str!("../../migrations/postgres/0003_quarantine.sql"),
    ),
    (
        4,
        "compact_windows",
        include_str!("../../migrations/sqlite/0004_compact_windows.sql"),
        include_str!("../../migrations/postgres/0004_compact_windows.sql"),
    ),
    (
        5,
        "blob_ages",
        include_str!("../../migrations/sqlite/0005_blob_ages.sql"),
        include_str!("../../migrations/postgres/0005_blob_ages.sql"),
    ),
    (
        6,
        "measurements",
        include_str!("../../migrations/sqlite/0006_measurements.sql"),
        include_str!("../../migrations/postgres/0006_measurements.sql"),
    ),
    (
        7,
        "measurement_failures",
        include_str!("../../migrations/sqlite/0007_measurement_failures.sql"),
        include_str!("../../migrations/postgres/0007_measurement_failures.sql"),
    ),
    (
        8,
        "grain",
        include_str!("../../migrations/sqlite/0008_grain.sql"),
        include_str!("../../migrations/postgres/0008_grain.sql"),
    ),
];

/// SQLite: readers never wait for the writer, a commit survives a power cut, and a file that is new gives back what
/// becomes free (first: the mode is fixed with the first page).
const SQLITE_PRAGMAS: &str = "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000; \
     PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 67108864;";

/// Free pages up to this part of the file are kept for what comes next.
const SPARE_PART: i64 = 16;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// One file, one machine.
    Sqlite,
    /// A server, many replicas.
    Postgres,
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    dialect: Dialect,
    last_commit: Arc<Mutex<Instant>>,
}

/// A transaction; dropping it without [`Tx::commit`] rolls back.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Any>,
    last_commit: Arc<Mutex<Instant>>,
}

impl Store {
    /// Opens the database at `url` (`sqlite://path` or `postgres://...`) and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Open`] when it can't be reached, [`StoreError::Migrate`] when its schema is from a newer
    /// build or was changed by hand.
    pub async fn open(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let dialect = if url.starts_with("sqlite:") { Dialect::Sqlite } else { Dialect::Postgres };
        let options = AnyPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(15))
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    if dialect == Dialect::Sqlite {
                        conn.execute(SQLITE_PRAGMAS).await?;
                    }
                    Ok(())
                })
            })
            // A transaction that SQLite ended by itself (disk full, input or output error) leaves the library in the
            // belief that it goes on, and no new one would ever begin on such a connection.
            .before_acquire(|conn, _| Box::pin(async move { Ok(!conn.is_in_transaction()) }));
        let open = |source| StoreError::Open { url: without_password(url), source };
        let pool = options.connect(&creating(url)).await.map_err(open)?;
        migrator(dialect).run(&pool).await.map_err(StoreError::Migrate)?;
        Ok(Self { pool, dialect, last_commit: Arc::new(Mutex::new(Instant::now())) })
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// [`StoreError`] when no connection is free in time.
    pub async fn read(&self) -> Result<PoolConnection<Any>, StoreError> {
        self.pool.acquire().await.during("get a connection")
    }

    /// A transaction for writing. On SQLite it takes the write lock at once, so that it can't fail half-way
    /// because another writer came first.
    ///
    /// # Errors
    /// [`StoreError`] when no connection is free, or the write lock isn't, in time.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let tx = match self.dialect {
            Dialect::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await,
            Dialect::Postgres => self.pool.begin().await,
        };
        let inner = tx.during("begin a transaction")?;
        Ok(Tx { inner, last_commit: Arc::clone(&self.last_commit) })
    }

    /// How long ago something was written. The server's own jobs write every few seconds.
    pub fn since_last_commit(&self) -> Duration {
        self.last_commit.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Writes SQLite's database, as it is at this moment, to the new file `to`; others go on reading and writing. The
    /// copy is looked through afterwards.
    ///
    /// # Errors
    /// [`StoreError`] when the database refuses, or the copy is not whole.
    pub async fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        let text = to.display().to_string();
        let mut conn = self.read().await?;
        let copied = sqlx::query("VACUUM INTO $1").bind(text.clone()).execute(&mut *conn).await;
        copied.during("copy the database")?;
        let copy = Self::open(&format!("sqlite://{text}"), 1).await?;
        let said = sqlx::query("PRAGMA quick_check").fetch_one(&mut *copy.read().await?).await;
        let said = said.during("look the copy through")?.text("quick_check")?;
        copy.close().await;
        if said == "ok" { Ok(()) } else { Err(StoreError::Copy(said)) }
    }

    /// SQLite's files, which change while the server runs; none for PostgreSQL.
    ///
    /// # Errors
    /// [`StoreError`] when the database refuses.
    pub async fn files(&self) -> Result<Vec<PathBuf>, StoreError> {
        if self.dialect != Dialect::Sqlite {
            return Ok(Vec::new());
        }
        let row = sqlx::query("PRAGMA database_list").fetch_one(&mut *self.read().await?).await;
        let file = row.during("find the database's files")?.text("file")?;
        Ok(["", "-wal", "-shm", "-journal"].map(|end| PathBuf::from(format!("{file}{end}"))).to_vec())
    }

    /// Gives free pages of an SQLite file back to the disk, a part at a time, when they are many; returns how many.
    /// A file made by an earlier version keeps them for what comes next, as PostgreSQL does.
    ///
    /// # Errors
    /// [`StoreError`] when the database refuses.
    pub async fn give_back_space(&self) -> Result<i64, StoreError> {
        if self.dialect != Dialect::Sqlite {
            return Ok(0);
        }
        let mut conn = self.read().await?;
        let pages = pragma(&mut conn, "PRAGMA page_count").await?;
        let free = pragma(&mut conn, "PRAGMA freelist_count").await?;
        let is_incremental = pragma(&mut conn, "PRAGMA auto_vacuum").await? == 2;
        if !is_incremental || free < pages / SPARE_PART {
            return Ok(0);
        }
        let mut left = free;
        while left > 0 {
            let vacuum = sqlx::query("PRAGMA incremental_vacuum(1000)").execute(&mut *conn).await;
            vacuum.during("give back space")?;
            let now = pragma(&mut conn, "PRAGMA freelist_count").await?;
            if now >= left {
                break;
            }
            left = now;
        }
        Ok(free - left)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&mut *self.read().await?).await.during("ask for a sign of life")?;
        Ok(())
    }

    /// Ends all connections; waits for those in use.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Tx {
    /// Makes the changes durable.
    ///
    /// # Errors
    /// [`StoreError`] when the database refuses; nothing is changed then.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await.during("commit")?;
        *self.last_commit.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(())
    }
}

/// Marks a point in the transaction that [`undo`] goes back to. Ended by [`undo`] or [`keep`].
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn mark(conn: &mut Conn) -> Result<(), StoreError> {
    sqlx::query("SAVEPOINT mark").execute(conn).await.during("mark a point in a transaction")?;
    Ok(())
}

/// Takes back what happened since [`mark`]; what was done before stays, also on PostgreSQL, where a failed statement
/// otherwise voids the whole transaction.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn undo(conn: &mut Conn) -> Result<(), StoreError> {
    sqlx::query("ROLLBACK TO SAVEPOINT mark").execute(&mut *conn).await.during("undo to the mark")?;
    keep(conn).await
}

/// Keeps what happened since [`mark`].
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn keep(conn: &mut Conn) -> Result<(), StoreError> {
    sqlx::query("RELEASE SAVEPOINT mark").execute(conn).await.during("forget the mark")?;
    Ok(())
}

impl Deref for Tx {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.inner
    }
}

async fn pragma(conn: &mut Conn, pragma: &'static str) -> Result<i64, StoreError> {
    sqlx::query_scalar(pragma).fetch_one(conn).await.during("read a setting of the database")
}

fn migrator(dialect: Dialect) -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, name, sqlite, postgres)| {
        let sql = match dialect {
            Dialect::Sqlite => *sqlite,
            Dialect::Postgres => *postgres,
        };
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// SQLite makes its file only when asked to.
fn creating(url: &str) -> String {
    let is_plain_file = url.starts_with("sqlite:") && !url.contains('?');
    if is_plain_file { format!("{url}?mode=rwc") } else { url.to_owned() }
}

fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_reach_errors() {
        assert_eq!(without_password("postgres://u:secret@db/x"), "postgres://***@db/x");
        assert_eq!(without_password("sqlite:///tmp/x.db"), "sqlite:///tmp/x.db");
    }

    /// Both folders say the same once the three type names are mapped.
    #[test]
    fn both_databases_have_the_same_schema() {
        for (number, name, sqlite, postgres) in MIGRATIONS {
            let mapped = |sql: &str| {
                sql.lines()
                    .filter(|line| !line.starts_with("--"))
                    .map(|line| {
                        line.replace("INTEGER", "BIGINT")
                            .replace("REAL", "DOUBLE PRECISION")
                            .replace("BLOB", "BYTEA")
                            .replace(") STRICT;", ");")
                    })
                    .collect::<Vec<_>>()
            };
            assert_eq!(mapped(sqlite), mapped(postgres), "migration {number} {name} differs");
        }
    }
}
