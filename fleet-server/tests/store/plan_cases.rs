//! What the databases do for the queries that run all the time: none may read a whole table. SQLite plans on empty
//! tables as on full ones, because it is never told how full they are; PostgreSQL gets rows and counts them.

use sqlx::{AssertSqlSafe, Row};

use super::*;

const FILL: [&str; 3] = [
    "INSERT INTO panes SELECT 'a', 'cam-' || (i % 20), 's', i, 'digits', '1.0.0', 'x', '', i * 10, i * 10 + 10, 1, \
     CAST('x' AS BYTEA), i * 10 FROM generate_series(1, 10000) AS i",
    "INSERT INTO drift_windows SELECT 'a', 'digits', '1.0.0', 'x', 'cam-' || (i % 20), '', i * 10, i * 10 + 10, 1, 0, \
     '', CAST('x' AS BYTEA), i * 10 FROM generate_series(1, 10000) AS i",
    "ANALYZE",
];

/// A query, its values, and what its plan has to say on SQLite and on PostgreSQL.
const HOT: &[(&str, &[&str], &str, &str)] = &[
    (
        drift::TOUCHED,
        &["50000", "50100"],
        "SEARCH panes USING INDEX panes_by_arrival (received_at>? AND received_at<?)",
        "panes_by_arrival",
    ),
    (
        telemetry::PANES_OF_SPAN,
        &["'a'", "'digits'", "50000", "50100"],
        "SEARCH panes USING INDEX panes_by_model (project=? AND model=? AND window_start>? AND window_start<?)",
        "panes_by_model",
    ),
    (
        telemetry::PANES_OF_RELEASES,
        &["'a'", "'digits'", "50000", "50100", "'x'", "'y'", "''"],
        "SEARCH panes USING INDEX panes_by_model (project=? AND model=? AND window_start>? AND window_start<?)",
        "panes_by_model",
    ),
    (
        drift::LAST_UPDATE,
        &["50000"],
        "SEARCH drift_windows USING COVERING INDEX drift_windows_by_update (updated_at<?)",
        "drift_windows_by_update",
    ),
    (
        drift::OF_DEVICES,
        &["'a'", "'digits'", "50000", "50100"],
        "SEARCH drift_windows USING INDEX drift_windows_by_time (project=? AND model=? AND window_start>? AND window_start<?)",
        "drift_windows_by_time",
    ),
];

pub(crate) async fn hot_queries_read_no_whole_table(store: Store) {
    let mut conn = store.read().await.unwrap();
    if store.dialect() == Dialect::Postgres {
        for sql in FILL {
            sqlx::query(sql).execute(&mut *conn).await.unwrap();
        }
    }
    for (query, values, on_sqlite, on_postgres) in HOT {
        let explain = if store.dialect() == Dialect::Sqlite { "EXPLAIN QUERY PLAN" } else { "EXPLAIN" };
        let query = values
            .iter()
            .enumerate()
            .fold((*query).to_owned(), |query, (at, value)| query.replace(&format!("${}", at + 1), value));
        let rows =
            sqlx::query(AssertSqlSafe(format!("{explain} {query}"))).fetch_all(&mut *conn).await.unwrap();
        let column = if store.dialect() == Dialect::Sqlite { "detail" } else { "QUERY PLAN" };
        let plan: Vec<String> = rows.iter().map(|row| row.get(column)).collect();
        let plan = plan.join("\n");
        match store.dialect() {
            Dialect::Sqlite => {
                assert!(plan.contains(on_sqlite) && !plan.contains("SCAN"), "{query}\n{plan}");
                let is_sorting_all = plan.contains("USE TEMP B-TREE FOR ORDER BY");
                assert!(!is_sorting_all || !query.contains("digest IN"), "{query}\n{plan}");
            }
            Dialect::Postgres => {
                assert!(plan.contains(on_postgres) && !plan.contains("Seq Scan"), "{query}\n{plan}");
            }
        }
    }
}
