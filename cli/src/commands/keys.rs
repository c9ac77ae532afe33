//! `flotilla keys ...`: the publisher's keys of a project and the roles that they hold.

mod delegate;
mod group;
mod list;
mod passphrase;
mod rotate;
pub(super) mod send;
mod undelegate;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use trust::repo::{RootBuilder, TargetsBuilder};
use trust::{PublicKey, Signer as _, director, format_rfc3339};

use super::Context;
use crate::keyring::{Keyring, Owner};
use crate::metadata::{self, ROOT_DAYS, TARGETS_DAYS, claims, expiry, kept_name};
use crate::output::{Format, facts, text};
use crate::pending::Pending;
use crate::rotation::Current;
use crate::settings;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make the project's root and targets keys and publish root and targets, version 1.
    Init {
        /// Keep the private keys in the clear.
        #[arg(long)]
        no_passphrase: bool,
        #[command(flatten)]
        group: group::Group,
    },
    /// Make this person's root and targets keys and publish nothing; others name them in `keys init`.
    New {
        /// Make the key of this model only, for a colleague to name in `keys delegate`.
        #[arg(long)]
        model: Option<protocol::ModelName>,
        /// Keep the private keys in the clear.
        #[arg(long)]
        no_passphrase: bool,
    },
    /// Replace a key: `root`, `targets`, a model's, or `server` for the server's own as they are now.
    Rotate {
        /// Whose key.
        role: String,
    },
    /// Name the people who hold a role from now on, and how many of them must sign.
    Delegate {
        /// `root`, `targets` or a model.
        role: String,
        /// Public key of one of them (a `.pub.json` file); repeat it for each, one's own too.
        #[arg(long = "key", required = true, value_name = "FILE")]
        keys: Vec<std::path::PathBuf>,
        /// How many of them must sign.
        #[arg(long, default_value_t = 1)]
        threshold: usize,
    },
    /// Trust nobody with a model any more; only one without releases.
    Undelegate {
        /// The model's name.
        model: protocol::ModelName,
    },
    /// Send what waits for signatures, once there are enough.
    Publish,
    /// Change the passphrase of keys in this machine's folder.
    ///
    /// Scripts give the present one as FLOTILLA_PASSPHRASE and the next one as FLOTILLA_NEW_PASSPHRASE.
    Passphrase {
        /// Which, named as `keys list` names them; all without a name.
        keys: Vec<String>,
    },
    /// Keys in this machine's folder and the roles that they hold, as far as this folder knows.
    List,
}

/// Runs one of them.
///
/// # Errors
/// What could not be done.
pub(crate) async fn run(
    context: impl FnOnce() -> Result<Context>,
    project: Option<&str>,
    format: Format,
    command: Command,
) -> Result<()> {
    match command {
        Command::Init { no_passphrase, group } => init(&context()?, no_passphrase, &group).await,
        // Keys may be made on a machine that never sees a server.
        Command::New { model, no_passphrase } => {
            group::make_own(&settings::project(project)?, format, model.as_ref(), no_passphrase)
        }
        Command::Rotate { role } => rotate::run(&context()?, &role).await,
        Command::Delegate { role, keys, threshold } => {
            delegate::run(&context()?, &role, &keys, threshold).await
        }
        Command::Undelegate { model } => undelegate::run(&context()?, &model).await,
        Command::Publish => send::waiting(&context()?).await,
        Command::Passphrase { keys } => passphrase::run(&settings::project(project)?, format, &keys),
        Command::List => list::run(&settings::project(project)?, format),
    }
}

/// May be repeated after a failed upload: keys and files that are there are used again.
async fn init(context: &Context, no_passphrase: bool, group: &group::Group) -> Result<()> {
    let client = &context.client;
    let mut keyring = Keyring::of(client.project())?;
    let server_root = metadata::fetch(client, "root").await?;
    let local_root = keyring.read("root.json")?;
    match (&server_root, &local_root) {
        (None, _) => {}
        (Some(server), Some(local)) if server == local => return finish(context, &keyring, local).await,
        (Some(_), _) => {
            bail!(
                "project {} has a root already; its keys are with whoever made them. To join them, run \
                 flotilla keys new and give them the .pub.json files that it names",
                client.project()
            )
        }
    }
    let online = client.get("/online-keys").await?;
    // What can fail without keys fails before there are any.
    group.check()?;
    if local_root.is_none() {
        keyring.create_missing(&[Owner::Root, Owner::Targets], no_passphrase)?;
    }
    let targets = first_targets(&mut keyring, &online)?;
    let root = first_root(&mut keyring, &online, group)?;
    if group.is_given() {
        let metadata = vec![("root".to_owned(), root), ("targets".to_owned(), targets.signed)];
        let targets = vec![(director::TARGET.to_owned(), targets.director)];
        let pending = Pending { metadata, targets };
        return send::publication(context, &keyring, &pending, &Current::default()).await.map(drop);
    }
    let body = json!({
        "metadata": [{ "name": "root", "content": STANDARD.encode(&root) },
                     { "name": "targets", "content": STANDARD.encode(&targets.signed) }],
        "targets": [{ "name": director::TARGET, "content": STANDARD.encode(&targets.director) }],
    });
    // Kept first: if the answer gets lost, the next try sends exactly the same again.
    keyring.keep("root.json", &root)?;
    client.post("/publications", &body).await?;
    keyring.keep(&kept_name("targets"), &targets.signed)?;
    told(context, &keyring, &root)
}

/// The publication arrived but its answer did not: what the server has is what was sent.
async fn finish(context: &Context, keyring: &Keyring, root: &[u8]) -> Result<()> {
    let accepted = [metadata::own(keyring.public(Owner::Targets)?)];
    let targets = metadata::newest(&context.client, keyring, "targets", &accepted).await?;
    keyring.keep(&kept_name("targets"), &targets.context("the server has a root but no targets")?)?;
    told(context, keyring, root)
}

fn told(context: &Context, keyring: &Keyring, root: &[u8]) -> Result<()> {
    let client = &context.client;
    let said = json!({
        "project": client.project(),
        "folder": keyring.folder(),
        "root_sha256": crate::keyring::root_pin(None, client.project())?,
        "root_expires": format_rfc3339(claims(root)?.expires),
    });
    eprintln!("keep a copy of {} offline: whoever loses it loses the fleet", keyring.folder().display());
    context.format.print(&said, |said| {
        facts(&[
            ("project", text(said, "/project")),
            ("keys in", text(said, "/folder")),
            ("root (SHA-256)", text(said, "/root_sha256")),
            ("root valid until", text(said, "/root_expires")),
        ])
    })
}

fn online_key(online: &Value, role: &str) -> Result<PublicKey> {
    let key: PublicKey = serde_json::from_value(online[role].clone())
        .with_context(|| format!("the server's {role} key can't be read"))?;
    key.check().with_context(|| format!("the server's {role} key is not usable"))?;
    Ok(key)
}

fn first_root(keyring: &mut Keyring, online: &Value, group: &group::Group) -> Result<Vec<u8>> {
    let (snapshot, timestamp) = (online_key(online, "snapshot")?, online_key(online, "timestamp")?);
    if let Some(kept) = keyring.read("root.json")? {
        return Ok(kept);
    }
    let root = keyring.open(Owner::Root)?;
    let builder = RootBuilder::new(expiry(ROOT_DAYS)?)
        .role("root", &group.root_keys(root.public_key())?, group.root_threshold)
        .role("targets", &group.targets_keys(keyring.public(Owner::Targets)?)?, group.targets_threshold)
        .role("snapshot", &[snapshot], 1)
        .role("timestamp", &[timestamp], 1);
    Ok(builder.sign(&[&root])?)
}

struct FirstTargets {
    signed: Vec<u8>,
    director: Vec<u8>,
}

fn first_targets(keyring: &mut Keyring, online: &Value) -> Result<FirstTargets> {
    let director = director::target_bytes(&[online_key(online, "director")?], 1);
    let signer = keyring.open(Owner::Targets)?;
    let builder = TargetsBuilder::new(expiry(TARGETS_DAYS)?).target(director::TARGET, &director, None);
    Ok(FirstTargets { signed: builder.sign(&[&signer])?, director })
}
