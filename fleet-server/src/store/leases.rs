//! Leases: one runner at a time for each job, over all replicas.

use std::time::Duration;

use protocol::UnixMillis;

use super::error::During;
use super::{Store, StoreError};

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
