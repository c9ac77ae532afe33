//! Withdrawing: the model's role is signed anew without one release, which is fetched by no device any more.

use anyhow::{Result, bail};
use protocol::{ModelName, Version};
use trust::repo::TargetsBuilder;

use super::super::Context;
use super::super::keys::send;
use crate::keyring::{Keyring, Owner};
use crate::metadata::{TARGETS_DAYS, expiry};
use crate::pending::Pending;

/// Which release.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model's name.
    model: ModelName,
    /// The release's version.
    version: Version,
}

/// Signs the role and publishes it, or keeps it until enough people have signed.
///
/// # Errors
/// When the release is not in the role, a key is missing or locked, or the server refuses.
pub(crate) async fn run(context: &Context, args: &Args) -> Result<()> {
    let mut keyring = Keyring::of(context.client.project())?;
    let (model, version) = (args.model.as_str(), &args.version);
    let owner = Owner::Model(model);
    let current = send::current(context, &keyring).await?;
    let Some(role) = send::current_model(context, &keyring, &current, model).await? else {
        bail!("nothing of {model} is published");
    };
    let role = without(&role, &args.model, version)?;
    let signed = role.sign(&[&keyring.open(owner)?])?;
    let pending = Pending { metadata: vec![(model.to_owned(), signed)], targets: Vec::new() };
    if send::publication(context, &keyring, &pending, &current).await? {
        eprintln!(
            "{model} {version} is withdrawn, and a fence that it set with it; devices that have committed it keep it \
             until they get another release, with a higher counter"
        );
    }
    Ok(())
}

/// The next version of the role, without that release.
fn without(role: &[u8], model: &ModelName, version: &Version) -> Result<TargetsBuilder> {
    let role = TargetsBuilder::resume(role, expiry(TARGETS_DAYS)?)?;
    let path = release::target_path(model, version);
    if !role.has_target(&path) {
        bail!("release {version} of {model} is not among those that its role names");
    }
    Ok(role.without_target(&path))
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use trust::Ed25519Signer;

    use super::*;

    #[test]
    fn a_withdrawn_release_is_gone_from_the_next_version_and_the_others_stay() {
        let role = TargetsBuilder::new(UnixMillis(0))
            .target("models/digits/1.0.0/manifest.json", b"1", None)
            .target("models/digits/9.9.9/manifest.json", b"2", None);
        let role = role.sign(&[&Ed25519Signer::from_seed(&[1; 32])]).unwrap();
        let (digits, version) = ("digits".parse().unwrap(), |text: &str| text.parse().unwrap());
        let next = without(&role, &digits, &version("9.9.9")).unwrap();
        assert_eq!(next.version(), 2);
        assert!(next.has_target("models/digits/1.0.0/manifest.json"));
        assert!(!next.has_target("models/digits/9.9.9/manifest.json"));
        let refused = without(&role, &digits, &version("9.9.8")).unwrap_err().to_string();
        assert_eq!(refused, "release 9.9.8 of digits is not among those that its role names");
    }
}
