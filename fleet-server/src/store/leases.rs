//! Leases: one runner at a time for each job, over all replicas.

use std::time::Duration;

use protocol::UnixMillis;

use super::error::During;
use super::row::Columns;
use super::{Store, StoreError};

/// Who may run a job, and until when unless it is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Random name of the process.
    pub holder: String,
    /// By the clock of that process.
    pub until: UnixMillis,
}

/// Takes or renews a lease; `false` when another holder has it and it has not run out.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn take(
    store: &Store,
    lease: &str,
    holder: &str,
    now: UnixMillis,
    validity: Duration,
) -> Result<bool, StoreError> {
    let until = now.plus_millis(i64::try_from(validity.as_millis()).unwrap_or(i64::MAX));
    let mut tx = store.begin().await?;
    let done = sqlx::query(
        "INSERT INTO leases (lease, holder, until_at) VALUES ($1, $2, $3) \
         ON CONFLICT (lease) DO UPDATE SET holder = excluded.holder, until_at = excluded.until_at \
         WHERE leases.holder = excluded.holder OR leases.until_at < $4",
    )
    .bind(lease)
    .bind(holder)
    .bind(until.0)
    .bind(now.0)
    .execute(&mut *tx)
    .await
    .during("take a lease")?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Gives a lease back, so that another replica needn't wait for its end.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn give_back(store: &Store, lease: &str, holder: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let query = sqlx::query("DELETE FROM leases WHERE lease = $1 AND holder = $2").bind(lease).bind(holder);
    query.execute(&mut *tx).await.during("give a lease back")?;
    tx.commit().await
}

/// Who holds a lease; it may have run out.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(store: &Store, lease: &str) -> Result<Option<Lease>, StoreError> {
    let query = sqlx::query("SELECT holder, until_at FROM leases WHERE lease = $1").bind(lease);
    let row = query.fetch_optional(&mut *store.read().await?).await.during("read a lease")?;
    row.map(|row| Ok(Lease { holder: row.text("holder")?, until: row.millis("until_at")? })).transpose()
}

/// Takes a lease from a holder that has not renewed it since; `false` when it has.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn take_over(store: &Store, lease: &str, seen: &Lease, new: &Lease) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let query = sqlx::query(
        "UPDATE leases SET holder = $1, until_at = $2 WHERE lease = $3 AND holder = $4 AND until_at = $5",
    );
    let query = query.bind(new.holder.as_str()).bind(new.until.0).bind(lease);
    let query = query.bind(seen.holder.as_str()).bind(seen.until.0);
    let done = query.execute(&mut *tx).await.during("take a lease over")?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets all leases: for a process that has the database for itself.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn forget_all(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM leases").execute(&mut *tx).await.during("forget leases")?;
    tx.commit().await
}
