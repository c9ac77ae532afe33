//! Who changed what. Each change writes its row in the same transaction ([`record`]), so that there is never a
//! change without a row or a row without a change.

use protocol::{ProjectId, UnixMillis};
use serde::Serialize;
use serde_json::Value;

use crate::store::{Conn, StoreError, audit};

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<'a> {
    /// When.
    pub at: UnixMillis,
    /// Where; `None` for what concerns the whole server.
    pub project: Option<&'a ProjectId>,
    /// Who: [`crate::domain::access::Principal::actor`], or `server` and `device ...` for what no person did.
    pub actor: &'a str,
    /// What was done, e.g. `rollout.pause`.
    pub action: &'a str,
    /// Kind of the object, e.g. `rollout`.
    pub object_kind: &'a str,
    /// Which object.
    pub object: &'a str,
    /// The object before; null when it is new.
    pub before: Value,
    /// The object after; null when it is gone.
    pub after: Value,
}

impl<'a> Change<'a> {
    /// A change without before and after; add them with [`Change::before`] and [`Change::after`].
    pub fn new(
        at: UnixMillis,
        actor: &'a str,
        action: &'a str,
        object_kind: &'a str,
        object: &'a str,
    ) -> Self {
        Self {
            at,
            project: None,
            actor,
            action,
            object_kind,
            object,
            before: Value::Null,
            after: Value::Null,
        }
    }

    /// The project that it belongs to.
    #[must_use]
    pub fn in_project(mut self, project: &'a ProjectId) -> Self {
        self.project = Some(project);
        self
    }

    /// What the object was. Never put a secret in.
    #[must_use]
    pub fn before(mut self, value: impl Serialize) -> Self {
        self.before = serde_json::to_value(value).unwrap_or_default();
        self
    }

    /// What the object is now. Never put a secret in.
    #[must_use]
    pub fn after(mut self, value: impl Serialize) -> Self {
        self.after = serde_json::to_value(value).unwrap_or_default();
        self
    }
}

/// Writes the row; call it in the transaction of the change.
///
/// # Errors
/// [`StoreError`] when the database refuses; the transaction must not be committed then.
pub async fn record(conn: &mut Conn, change: &Change<'_>) -> Result<(), StoreError> {
    audit::insert(conn, &crate::ids::ordered_id(change.at), change).await
}
