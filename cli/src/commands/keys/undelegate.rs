//! `flotilla keys undelegate`: a model that nobody publishes any more, or whose name was a slip.

use anyhow::{Result, ensure};
use protocol::ModelName;
use trust::repo::TargetsBuilder;

use super::super::Context;
use super::send;
use crate::keyring::{Keyring, Owner};
use crate::metadata::{TARGETS_DAYS, claims, expiry};
use crate::pending::Pending;

/// Signs targets without the delegation and publishes them, or keeps them until enough people have signed.
///
/// # Errors
/// When the model is not delegated or has releases, a key is missing, or the server refuses.
pub(super) async fn run(context: &Context, model: &ModelName) -> Result<()> {
    let mut keyring = Keyring::of(context.client.project())?;
    let current = send::current(context, &keyring).await?;
    ensure!(send::is_delegated(&current.targets, model.as_str())?, "model {model} is not delegated");
    let role = send::current_model(context, &keyring, &current, model.as_str()).await?;
    let targets = without(&current.targets, role.as_deref(), model)?;
    let targets = targets.sign(&[&keyring.open(Owner::Targets)?])?;
    let pending = Pending { metadata: vec![("targets".into(), targets)], targets: Vec::new() };
    send::publication(context, &keyring, &pending, &current).await.map(drop)
}

/// The next version of targets, which trusts nobody with the model. Devices would find its releases no more.
fn without(targets: &[u8], role: Option<&[u8]>, model: &ModelName) -> Result<TargetsBuilder> {
    let releases = role.map(claims).transpose()?.map_or(0, |role| role.targets.len());
    ensure!(
        releases == 0,
        "{model} has {releases} release(s); take each out first with: flotilla release withdraw {model} VERSION"
    );
    Ok(TargetsBuilder::resume(targets, expiry(TARGETS_DAYS)?)?.without_delegation(model.as_str()))
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use trust::{Ed25519Signer, Signer as _};

    use super::*;

    #[test]
    fn a_delegation_is_taken_back_only_when_no_release_needs_it() {
        let key = Ed25519Signer::from_seed(&[1; 32]);
        let model = |name: &str| name.parse::<ModelName>().unwrap();
        let (digits, slip) = (model("digits"), model("digit"));
        let holder = [key.public_key()];
        let targets = TargetsBuilder::new(UnixMillis(0)).delegate_model(&digits, &holder, 1);
        let targets = targets.delegate_model(&slip, &holder, 1).sign(&[&key]).unwrap();
        let next = without(&targets, None, &slip).unwrap();
        assert!(next.keys_of("digit").is_none() && next.keys_of("digits").is_some());
        let left = claims(&next.sign(&[&key]).unwrap()).unwrap();
        assert_eq!((left.version, left.delegations.len()), (2, 1));
        let role = TargetsBuilder::new(UnixMillis(0)).target("models/digits/1.0.0/manifest.json", b"1", None);
        let role = role.sign(&[&key]).unwrap();
        let error = without(&targets, Some(&role), &digits).unwrap_err().to_string();
        assert!(error.contains("digits has 1 release(s)"), "{error}");
    }
}
