//! Models and their releases. A release is written once; only its state changes.

use protocol::{Counter, Digest, ModelName, ProjectId, UnixMillis, Version};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, as_int};
use super::{Conn, StoreError};

/// A model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub model: ModelName,
    /// When its first release was published.
    pub created_at: UnixMillis,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Which model.
    pub model: ModelName,
    /// As people write it.
    pub version: Version,
    /// SHA-256 of the manifest.
    pub digest: Digest,
    /// Order within the model.
    pub counter: Counter,
    /// The manifest's exact bytes.
    pub manifest: Vec<u8>,
    /// Whether it may be rolled out.
    pub state: ReleaseState,
    /// When it was published.
    pub published_at: UnixMillis,
    /// Who published it.
    pub published_by: String,
}

impl Release {
    /// Whether the manifest names such a variant.
    pub fn has_variant(&self, name: &str) -> bool {
        let manifest: serde_json::Value = serde_json::from_slice(&self.manifest).unwrap_or_default();
        manifest["variants"].as_array().is_some_and(|all| all.iter().any(|variant| variant["name"] == name))
    }
}

/// Whether a release may be rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// Yes.
    Published,
    /// No longer named by the signed metadata, or fenced off by `min_counter`.
    Withdrawn,
}

impl ReleaseState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl std::str::FromStr for ReleaseState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Published, Self::Withdrawn];
        all.into_iter().find(|s| s.as_str() == text).ok_or_else(|| format!("{text:?} is no release state"))
    }
}

/// Models of a project by name.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn models(conn: &mut Conn, project: &ProjectId) -> Result<Vec<Model>, StoreError> {
    let query = sqlx::query("SELECT model, created_at FROM models WHERE project = $1 ORDER BY model");
    let rows = query.bind(project.as_str()).fetch_all(conn).await.during("list models")?;
    all(rows, |row| Ok(Model { model: row.id("model")?, created_at: row.millis("created_at")? }))
}

/// One model.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn model(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
) -> Result<Option<Model>, StoreError> {
    let query = sqlx::query("SELECT model, created_at FROM models WHERE project = $1 AND model = $2");
    let row = query
        .bind(project.as_str())
        .bind(model.as_str())
        .fetch_optional(conn)
        .await
        .during("read a model")?;
    let read = |row: &AnyRow| Ok(Model { model: row.id("model")?, created_at: row.millis("created_at")? });
    row.as_ref().map(read).transpose()
}

/// Releases of a model, highest counter first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
) -> Result<Vec<Release>, StoreError> {
    let query = sqlx::query(
        "SELECT * FROM releases WHERE project = $1 AND model = $2 ORDER BY counter DESC, version DESC",
    );
    let rows =
        query.bind(project.as_str()).bind(model.as_str()).fetch_all(conn).await.during("list releases")?;
    all(rows, read)
}

/// One release.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    version: &Version,
) -> Result<Option<Release>, StoreError> {
    let query = sqlx::query("SELECT * FROM releases WHERE project = $1 AND model = $2 AND version = $3");
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(version.as_str());
    query.fetch_optional(conn).await.during("read a release")?.as_ref().map(read).transpose()
}

/// The release with this manifest.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn by_digest(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    digest: &Digest,
) -> Result<Option<Release>, StoreError> {
    let query = sqlx::query("SELECT * FROM releases WHERE project = $1 AND model = $2 AND digest = $3");
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(digest.to_hex());
    query.fetch_optional(conn).await.during("read a release")?.as_ref().map(read).transpose()
}

/// Adds a release, and its model if it is the first.
///
/// # Errors
/// [`StoreError`] when the database refuses; a conflict when version or manifest is there already.
pub async fn insert(conn: &mut Conn, project: &ProjectId, release: &Release) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO models (project, model, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(project.as_str())
        .bind(release.model.as_str())
        .bind(release.published_at.0)
        .execute(&mut *conn)
        .await
        .during("add a model")?;
    sqlx::query(
        "INSERT INTO releases (project, model, version, digest, counter, manifest, state, published_at, published_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(project.as_str())
    .bind(release.model.as_str())
    .bind(release.version.as_str())
    .bind(release.digest.to_hex())
    .bind(as_int(release.counter.0))
    .bind(release.manifest.clone())
    .bind(release.state.as_str())
    .bind(release.published_at.0)
    .bind(release.published_by.as_str())
    .execute(conn)
    .await
    .during("add a release")?;
    Ok(())
}

/// Changes whether a release may be rolled out.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_state(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    version: &Version,
    state: ReleaseState,
) -> Result<(), StoreError> {
    let query =
        sqlx::query("UPDATE releases SET state = $4 WHERE project = $1 AND model = $2 AND version = $3");
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(version.as_str()).bind(state.as_str());
    query.execute(conn).await.during("change a release's state")?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Release, StoreError> {
    Ok(Release {
        model: row.id("model")?,
        version: row.id("version")?,
        digest: row.id("digest")?,
        counter: Counter(row.count("counter")?),
        manifest: row.bytes("manifest")?,
        state: row.id("state")?,
        published_at: row.millis("published_at")?,
        published_by: row.text("published_by")?,
    })
}
