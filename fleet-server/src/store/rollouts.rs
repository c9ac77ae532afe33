//! Rollouts: one row with the engine's state, a row per task, the journal and the kept evidence.
//!
//! A transition is one transaction: row (guarded by `row_version`), tasks, journal and each device's Desired
//! change together or not at all.

use std::collections::BTreeMap;

use protocol::message::TaskReport;
use protocol::{DeviceId, ModelName, ProjectId, RolloutId, UnixMillis};
use rollout::{Core, Entry, Rollout, Status, Task};
use serde_json::Value;
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, as_int, to_json};
use super::sql::Sql;
use super::{Conn, Page, StoreError, Window};

/// A rollout without its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The engine's state.
    pub core: Core,
    /// When it last changed.
    pub updated_at: UnixMillis,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
    /// Rises with each change.
    pub row_version: i64,
}

/// Which rollouts are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this model.
    pub model: Option<ModelName>,
    /// Only in this state.
    pub state: Option<String>,
    /// Only those with this device.
    pub device: Option<DeviceId>,
}

/// A piece of evidence that a verdict stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvidence {
    /// From 0.
    pub stage: u16,
    /// The gate's label.
    pub gate: String,
    /// When it was judged.
    pub at: UnixMillis,
    /// The verdict; none while it is open.
    pub is_passed: Option<bool>,
    /// Gate, verdict and numbers.
    pub body: Value,
}

/// Adds a rollout.
///
/// # Errors
/// [`StoreError`] when the database refuses; a conflict when the id is taken.
pub async fn insert(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &Rollout,
    by: &str,
) -> Result<(), StoreError> {
    let core = rollout.core();
    sqlx::query(
        "INSERT INTO rollouts (project, rollout, model, version, plan, state, state_name, is_terminal, created_by, \
         created_at, updated_at, finished_at, row_version) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, $9, NULL, 1)",
    )
    .bind(project.as_str())
    .bind(core.id.as_str())
    .bind(core.plan.model.as_str())
    .bind(core.plan.release.version.as_str())
    .bind(to_json(&core.plan))
    .bind(to_json(core))
    .bind(core.status.name())
    .bind(by)
    .bind(core.created_at.0)
    .execute(conn)
    .await
    .during("add a rollout")?;
    Ok(())
}

/// Writes a changed rollout if nobody else did since `row_version`; `false` otherwise.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn update(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &Rollout,
    row_version: i64,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let core = rollout.core();
    let finished = core.status.is_terminal().then_some(now.0);
    let is_over = core.status.is_terminal() && !rollout.has_work_left();
    let done = sqlx::query(
        "UPDATE rollouts SET state = $3, state_name = $4, is_terminal = $5, updated_at = $6, \
         finished_at = CASE WHEN $9 = 0 THEN NULL ELSE COALESCE(finished_at, $7) END, row_version = row_version + 1 \
         WHERE project = $1 AND rollout = $2 AND row_version = $8",
    )
    .bind(project.as_str())
    .bind(core.id.as_str())
    .bind(to_json(core))
    .bind(core.status.name())
    .bind(i64::from(is_over))
    .bind(now.0)
    .bind(finished)
    .bind(row_version)
    .bind(i64::from(core.status.is_terminal()))
    .execute(conn)
    .await
    .during("change a rollout")?;
    Ok(done.rows_affected() > 0)
}

/// One rollout without its tasks.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
) -> Result<Option<Row>, StoreError> {
    let query = sqlx::query("SELECT * FROM rollouts WHERE project = $1 AND rollout = $2");
    let query = query.bind(project.as_str()).bind(rollout.as_str());
    query.fetch_optional(conn).await.during("read a rollout")?.as_ref().map(read).transpose()
}

/// One rollout with its tasks, and its `row_version`.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn load(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
) -> Result<Option<(Rollout, i64)>, StoreError> {
    let Some(row) = get(conn, project, rollout).await? else { return Ok(None) };
    let query =
        sqlx::query("SELECT task FROM rollout_tasks WHERE project = $1 AND rollout = $2 ORDER BY device");
    let query = query.bind(project.as_str()).bind(rollout.as_str());
    let rows = query.fetch_all(conn).await.during("read a rollout's tasks")?;
    let tasks: Vec<Task> = all(rows, |row| row.json("task"))?;
    Ok(Some((Rollout::assemble(row.core, tasks), row.row_version)))
}

/// A model's open rollout with no more than this device's task in it: enough to ask it about the device.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn open_for(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    device: &DeviceId,
) -> Result<Option<Rollout>, StoreError> {
    let Some((rollout, _)) = open_of(conn, project, model).await? else { return Ok(None) };
    let Some(row) = get(conn, project, &rollout).await? else { return Ok(None) };
    let query =
        sqlx::query("SELECT task FROM rollout_tasks WHERE project = $1 AND rollout = $2 AND device = $3");
    let query = query.bind(project.as_str()).bind(rollout.as_str()).bind(device.as_str());
    let task = query.fetch_optional(conn).await.during("read a device's task")?;
    let task = task.map(|row| row.json::<Task>("task")).transpose()?;
    Ok(Some(Rollout::assemble(row.core, task.into_iter().collect())))
}

/// Rollouts, newest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    filter: &Filter,
    window: &Window,
) -> Result<Page<Row>, StoreError> {
    let mut query = Sql::new("SELECT * FROM rollouts r");
    push_filter(&mut query, project, filter);
    if let Some((at, id)) = window.after.as_deref().and_then(|key| key.split_once(' ')) {
        let at: i64 = at.parse().unwrap_or(i64::MAX);
        query.push(" AND (r.created_at < ").bind(at).push(" OR (r.created_at = ").bind(at);
        query.push(" AND r.rollout < ").bind(id.to_owned()).push("))");
    }
    query.push(" ORDER BY r.created_at DESC, r.rollout DESC LIMIT ").bind(window.limit);
    let rows = query.query().fetch_all(&mut *conn).await.during("list rollouts")?;
    let mut count = Sql::new("SELECT COUNT(*) AS n FROM rollouts r");
    push_filter(&mut count, project, filter);
    let total = count.query().fetch_one(conn).await.during("count rollouts")?.int("n")?;
    Ok(Page { items: all(rows, read)?, total })
}

/// What [`list`] sorts by.
pub fn list_key(row: &Row) -> String {
    format!("{} {}", row.core.created_at.0, row.core.id)
}

/// Rollouts of all projects that still have something to do.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn at_work(conn: &mut Conn) -> Result<Vec<(ProjectId, RolloutId)>, StoreError> {
    let query =
        sqlx::query("SELECT project, rollout FROM rollouts WHERE is_terminal = 0 ORDER BY created_at");
    let rows = query.fetch_all(conn).await.during("list rollouts at work")?;
    all(rows, |row| Ok((row.id("project")?, row.id("rollout")?)))
}

/// Rollouts of a model that still have something to do, with a task of this device.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn at_work_on(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    device: &DeviceId,
) -> Result<Vec<RolloutId>, StoreError> {
    let query = sqlx::query(
        "SELECT r.rollout FROM rollouts r JOIN rollout_tasks t ON t.project = r.project AND t.rollout = r.rollout \
         WHERE r.is_terminal = 0 AND r.project = $1 AND r.model = $2 AND t.device = $3 ORDER BY r.created_at",
    );
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(device.as_str());
    all(query.fetch_all(conn).await.during("find a device's rollouts")?, |row| row.id("rollout"))
}

/// The rollout of a model that hasn't ended, if there is one.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn open_of(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
) -> Result<Option<(RolloutId, String)>, StoreError> {
    let query = sqlx::query(
        "SELECT rollout, state_name FROM rollouts WHERE project = $1 AND model = $2 AND finished_at IS NULL \
         ORDER BY created_at LIMIT 1",
    );
    let row = query.bind(project.as_str()).bind(model.as_str()).fetch_optional(conn).await;
    row.during("find a model's rollout")?.as_ref().map(id_and_state).transpose()
}

/// The newest rollout of a model that began after `created_at` and is open or completed, with its state's name.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn newer_of(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    created_at: UnixMillis,
) -> Result<Option<(RolloutId, String)>, StoreError> {
    let query = sqlx::query(
        "SELECT rollout, state_name FROM rollouts WHERE project = $1 AND model = $2 AND created_at > $3 \
         AND (finished_at IS NULL OR state_name = $4) ORDER BY created_at DESC LIMIT 1",
    );
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(created_at.0);
    let row = query.bind(Status::Completed.name()).fetch_optional(conn).await;
    row.during("find a later rollout")?.as_ref().map(id_and_state).transpose()
}

fn id_and_state(row: &AnyRow) -> Result<(RolloutId, String), StoreError> {
    Ok((row.id("rollout")?, row.text("state_name")?))
}

/// Writes tasks, new or changed. A new one starts after the device's newest report.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn write_tasks(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
    tasks: impl Iterator<Item = &Task>,
) -> Result<(), StoreError> {
    for task in tasks {
        sqlx::query(
            "INSERT INTO rollout_tasks (project, rollout, device, phase, stage, cause, attempt, task, report_counter, \
             is_terminal, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, COALESCE((SELECT MAX(counter) FROM \
             task_reports WHERE project = $1 AND device = $3), 0), $9, $10) \
             ON CONFLICT (project, rollout, device) DO UPDATE SET phase = excluded.phase, stage = excluded.stage, \
             cause = excluded.cause, attempt = excluded.attempt, task = excluded.task, \
             is_terminal = excluded.is_terminal, updated_at = excluded.updated_at",
        )
        .bind(project.as_str())
        .bind(rollout.as_str())
        .bind(task.device.as_str())
        .bind(task.phase.name().as_str())
        .bind(task.stage.map_or(-1, i64::from))
        .bind(to_json(&task.phase))
        .bind(i64::from(task.attempt))
        .bind(to_json(task))
        .bind(i64::from(task.phase.is_terminal() && !task.is_restoring))
        .bind(task.since.0)
        .execute(&mut *conn)
        .await
        .during("write a task")?;
    }
    Ok(())
}

/// A rollout's tasks by device, all or in one phase.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn tasks(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
    phase: Option<&str>,
    window: &Window,
) -> Result<Page<Task>, StoreError> {
    let (phase, after) = (phase.unwrap_or_default(), window.after.as_deref().unwrap_or_default());
    let query = sqlx::query(
        "SELECT task FROM rollout_tasks WHERE project = $1 AND rollout = $2 AND ($3 = '' OR phase = $3) \
         AND device > $4 ORDER BY device LIMIT $5",
    );
    let query =
        query.bind(project.as_str()).bind(rollout.as_str()).bind(phase).bind(after).bind(window.limit);
    let rows = query.fetch_all(&mut *conn).await.during("list tasks")?;
    let count = sqlx::query_scalar(
        "SELECT COUNT(*) FROM rollout_tasks WHERE project = $1 AND rollout = $2 AND ($3 = '' OR phase = $3)",
    );
    let count = count.bind(project.as_str()).bind(rollout.as_str()).bind(phase);
    let total = count.fetch_one(conn).await.during("count tasks")?;
    Ok(Page { items: all(rows, |row| row.json("task"))?, total })
}

/// Tasks of a rollout by phase.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn counts(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let query = sqlx::query(
        "SELECT phase, COUNT(*) AS n FROM rollout_tasks WHERE project = $1 AND rollout = $2 GROUP BY phase",
    );
    let query = query.bind(project.as_str()).bind(rollout.as_str());
    let rows = query.fetch_all(conn).await.during("count tasks by phase")?;
    rows.iter().map(|row| Ok((row.text("phase")?, row.count("n")?))).collect()
}

/// Stored reports of a rollout's devices about its model that the rollout hasn't taken in, in their order.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn unread_reports(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
    model: &ModelName,
) -> Result<Vec<(DeviceId, u64, TaskReport)>, StoreError> {
    let query = sqlx::query(
        "SELECT s.device, s.counter, s.report FROM rollout_tasks t JOIN task_reports s ON s.project = t.project \
         AND s.device = t.device AND s.counter > t.report_counter \
         WHERE t.project = $1 AND t.rollout = $2 AND s.model = $3 ORDER BY s.device, s.counter LIMIT 1000",
    );
    let query = query.bind(project.as_str()).bind(rollout.as_str()).bind(model.as_str());
    let rows = query.fetch_all(conn).await.during("find reports for a rollout")?;
    all(rows, |row| Ok((row.id("device")?, row.count("counter")?, row.json("report")?)))
}

/// Releases of a model that devices have committed since their last hello, oldest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn committed_since_hello(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
) -> Result<Vec<(DeviceId, TaskReport)>, StoreError> {
    let query = sqlx::query(
        "SELECT s.device, s.report FROM devices d JOIN task_reports s ON s.project = d.project AND s.device = d.device \
         AND s.received_at >= COALESCE(d.hello_at, 0) \
         WHERE d.project = $1 AND s.model = $2 AND s.phase = 'committed' ORDER BY s.device, s.counter",
    );
    let query = query.bind(project.as_str()).bind(model.as_str());
    let rows = query.fetch_all(conn).await.during("find committed releases")?;
    all(rows, |row| Ok((row.id("device")?, row.json("report")?)))
}

/// Devices of unfinished tasks that were taken out of service.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn gone_devices(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
) -> Result<Vec<DeviceId>, StoreError> {
    let query = sqlx::query(
        "SELECT t.device FROM rollout_tasks t JOIN devices d ON d.project = t.project AND d.device = t.device \
         WHERE t.project = $1 AND t.rollout = $2 AND t.is_terminal = 0 AND d.decommissioned_at IS NOT NULL \
         ORDER BY t.device",
    );
    let query = query.bind(project.as_str()).bind(rollout.as_str());
    all(query.fetch_all(conn).await.during("find devices that left a rollout")?, |row| row.id("device"))
}

/// Notes that a rollout has taken in a device's reports up to this counter.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_read(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
    device: &DeviceId,
    counter: u64,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE rollout_tasks SET report_counter = $4 WHERE project = $1 AND rollout = $2 AND device = $3 \
         AND report_counter < $4",
    );
    let query =
        query.bind(project.as_str()).bind(rollout.as_str()).bind(device.as_str()).bind(as_int(counter));
    query.execute(conn).await.during("note a read report")?;
    Ok(())
}

/// Appends to the journal.
///
/// # Errors
/// [`StoreError`] when the database refuses; a conflict when another writer was first.
pub async fn append(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
    entries: &[Entry],
) -> Result<(), StoreError> {
    for entry in entries {
        sqlx::query(
            "INSERT INTO rollout_journal (project, rollout, seq, at, actor, cause, transition) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(project.as_str())
        .bind(rollout.as_str())
        .bind(as_int(entry.seq))
        .bind(entry.at.0)
        .bind(entry.actor.to_string())
        .bind(entry.cause.as_str())
        .bind(to_json(entry))
        .execute(&mut *conn)
        .await
        .during("append to a journal")?;
    }
    Ok(())
}

/// The journal in order.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn journal(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
    window: &Window,
) -> Result<Page<Entry>, StoreError> {
    let after = window.after.as_deref().and_then(|key| key.parse::<i64>().ok()).unwrap_or(0);
    let query = sqlx::query(
        "SELECT transition FROM rollout_journal WHERE project = $1 AND rollout = $2 AND seq > $3 ORDER BY seq LIMIT $4",
    );
    let query = query.bind(project.as_str()).bind(rollout.as_str()).bind(after).bind(window.limit);
    let rows = query.fetch_all(&mut *conn).await.during("read a journal")?;
    let count =
        sqlx::query_scalar("SELECT COUNT(*) FROM rollout_journal WHERE project = $1 AND rollout = $2");
    let total = count.bind(project.as_str()).bind(rollout.as_str()).fetch_one(conn).await;
    Ok(Page { items: all(rows, |row| row.json("transition"))?, total: total.during("count a journal")? })
}

/// Keeps what a verdict stands on.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn keep_evidence(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
    evidence: &StoredEvidence,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO evidence (project, rollout, stage, gate, at, passed, body) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (project, rollout, stage, gate, at) DO UPDATE SET passed = excluded.passed, body = excluded.body",
    )
    .bind(project.as_str())
    .bind(rollout.as_str())
    .bind(i64::from(evidence.stage))
    .bind(evidence.gate.as_str())
    .bind(evidence.at.0)
    .bind(evidence.is_passed.map(i64::from))
    .bind(to_json(&evidence.body))
    .execute(conn)
    .await
    .during("keep evidence")?;
    Ok(())
}

/// What the verdicts of a rollout stand on, in order of time.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn evidence(
    conn: &mut Conn,
    project: &ProjectId,
    rollout: &RolloutId,
) -> Result<Vec<StoredEvidence>, StoreError> {
    let query =
        sqlx::query("SELECT * FROM evidence WHERE project = $1 AND rollout = $2 ORDER BY at, stage, gate");
    let rows = query.bind(project.as_str()).bind(rollout.as_str()).fetch_all(conn).await;
    all(rows.during("read evidence")?, |row| {
        Ok(StoredEvidence {
            stage: u16::try_from(row.int("stage")?).unwrap_or(u16::MAX),
            gate: row.text("gate")?,
            at: row.millis("at")?,
            is_passed: row.int_opt("passed")?.map(|passed| passed != 0),
            body: row.json("body")?,
        })
    })
}

fn push_filter(query: &mut Sql, project: &ProjectId, filter: &Filter) {
    query.push(" WHERE r.project = ").bind(project.as_str().to_owned());
    if let Some(model) = &filter.model {
        query.push(" AND r.model = ").bind(model.as_str().to_owned());
    }
    if let Some(state) = &filter.state {
        query.push(" AND r.state_name = ").bind(state.clone());
    }
    if let Some(device) = &filter.device {
        query.push(
            " AND EXISTS (SELECT 1 FROM rollout_tasks t WHERE t.project = r.project AND t.rollout = r.rollout \
             AND t.device = ",
        );
        query.bind(device.as_str().to_owned()).push(")");
    }
}

fn read(row: &AnyRow) -> Result<Row, StoreError> {
    Ok(Row {
        core: row.json("state")?,
        updated_at: row.millis("updated_at")?,
        finished_at: row.millis_opt("finished_at")?,
        row_version: row.int("row_version")?,
    })
}

/// Whether a status name is one of the engine's, for filters from outside.
pub fn is_state_name(name: &str) -> bool {
    let names = [
        Status::Draft.name(),
        Status::AwaitingApproval.name(),
        Status::Scheduled.name(),
        Status::Completed.name(),
        "denied",
        "running",
        "paused",
        "aborted",
        "rolling_back",
        "rolled_back",
        "superseded",
        "invalidated",
    ];
    names.contains(&name)
}
