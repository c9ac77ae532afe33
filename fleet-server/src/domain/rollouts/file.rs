//! The evidence of a rollout as one signed file: plan, stages, verdicts with their numbers, and the whole journal.
//!
//! The signature covers the payload's exact text after [`PURPOSE`] and a zero byte, by the director's key, which the
//! signed metadata names. The journal replays to the same decisions (`rollout::replay`).

use protocol::{ProjectId, RolloutId};
use serde_json::{Value, json};
use trust::Signer as _;

use super::RolloutError;
use crate::app::AppState;
use crate::store::{Window, rollouts};
use crate::tuf::keys::{self, OnlineRole};

/// What the signature is for.
pub(super) const PURPOSE: &str = "flotilla-rollout-evidence-v1";

/// The file's content.
///
/// # Errors
/// [`RolloutError`] when there is no such rollout, or the director's key can't be used.
pub async fn evidence_file(
    state: &AppState,
    project: &ProjectId,
    rollout: &RolloutId,
) -> Result<Value, RolloutError> {
    keys::ensure(&state.store, &state.clock, &state.seal, project).await?;
    let mut tx = state.store.begin().await?;
    let (loaded, _) = rollouts::load(&mut tx, project, rollout).await?.ok_or(RolloutError::NotFound)?;
    let journal = rollouts::journal(&mut tx, project, rollout, &Window::first(i64::MAX)).await?;
    let verdicts = rollouts::evidence(&mut tx, project, rollout).await?;
    let verdicts: Vec<Value> = verdicts
        .into_iter()
        .map(|v| json!({ "stage": v.stage, "gate": v.gate, "at": v.at, "is_passed": v.is_passed, "body": v.body }))
        .collect();
    let payload = json!({
        "purpose": PURPOSE,
        "project": project,
        "rollout": loaded.core(),
        "tasks": loaded.tasks(),
        "verdicts": verdicts,
        "journal": journal.items,
        "made_at": state.clock.now(),
    });
    let payload = payload.to_string();
    let signer = keys::signer(&mut tx, &state.seal, project, OnlineRole::Director).await?;
    let signature = signer.sign(&[PURPOSE.as_bytes(), b"\0", payload.as_bytes()].concat())?;
    Ok(json!({
        "payload": payload,
        "signatures": [{ "keyid": signer.public_key().id(), "sig": hex::encode(signature) }],
    }))
}
