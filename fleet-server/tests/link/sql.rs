//! What tests do to the database behind the server's back.

use flotilla_server::store::Store;

/// Executes one statement.
pub(crate) async fn execute(store: &Store, statement: &'static str) {
    let mut tx = store.begin().await.unwrap();
    sqlx::query(statement).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

/// Number of rows that a `SELECT COUNT(*)` tells.
pub(crate) async fn count(store: &Store, query: &'static str) -> i64 {
    let mut conn = store.read().await.unwrap();
    sqlx::query_scalar(query).fetch_one(&mut *conn).await.unwrap()
}
