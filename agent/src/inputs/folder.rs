//! A watched folder: every `.json` file is a request of the protocol, every picture is an image of the model's one
//! input. The answer is written before the file goes: after a power cut a file may be asked twice, never not at all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use inference::Tensor;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::durable::{self, DurableError};
use crate::picture::{self, Picture, PictureError};
use crate::serve::{Api, Refused};
use crate::slots::Loaded;

/// Largest file.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Files that one look takes; the others come with the next ones.
const PER_LOOK: usize = 64;

/// Length and time of change.
type Stamp = (u64, Option<SystemTime>);

/// Asks files as they come until `stop`.
pub async fn watch(config: config::Folder, api: Api, stop: CancellationToken) {
    let config = Arc::new(config);
    let mut seen = BTreeMap::new();
    let mut last_problem = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(config.every) => {}
        }
        let problem = look(&config, &api, &mut seen).await.err().map(|error| crate::chain(&error));
        if let Some(problem) = problem.as_ref().filter(|problem| Some(*problem) != last_problem.as_ref()) {
            tracing::warn!(folder = %config.watch.display(), error = problem, "the watched folder can't be served");
        }
        last_problem = problem;
    }
}

/// One look: asks the files that have not changed since the look before, so that none is read half-written.
async fn look(
    config: &Arc<config::Folder>,
    api: &Api,
    seen: &mut BTreeMap<PathBuf, Stamp>,
) -> Result<(), DurableError> {
    let folder = config.clone();
    let found = blocking(move || list(&folder.watch)).await?;
    let ready = found.iter().filter(|(path, stamp)| seen.get(*path) == Some(*stamp));
    let mut first_problem = Ok(());
    for (path, _) in ready.take(PER_LOOK) {
        let file = path.clone();
        let asked = match blocking(move || durable::read_bounded(&file, MAX_FILE_BYTES)).await {
            Ok(Some(bytes)) => ask(api, config, path, bytes).await,
            Ok(None) => continue,
            Err(error @ DurableError::TooLarge { .. }) => Err(refused(&error.to_string())),
            // One file that can't be read doesn't stop the others.
            Err(error) => {
                first_problem = first_problem.and(Err(error));
                continue;
            }
        };
        let answer = match asked {
            Ok(answer) => answer,
            // Overloaded, or no model yet: the file stays for a later look.
            Err(refused) if refused.is_later => break,
            Err(refused) => refused.json,
        };
        let (folder, file) = (config.clone(), path.clone());
        blocking(move || put_away(&folder, &file, &answer)).await?;
    }
    *seen = found;
    first_problem
}

fn refused(why: &str) -> Refused {
    Refused { json: json!({ "error": why }).to_string().into_bytes(), is_later: false }
}

async fn ask(api: &Api, config: &config::Folder, path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, Refused> {
    if !Picture::is_named(path) {
        return api.ask(&config.model, bytes.into(), Bytes::new()).await;
    }
    let loaded = api.release(&config.model)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let made = blocking(move || Ok(request(&loaded, &bytes))).await;
    let unable = |why: &dyn std::error::Error| refused(&format!("{name}: {why}"));
    let (json, behind) = made.map_err(|error| unable(&error))?.map_err(|error| unable(&error))?;
    api.ask(&config.model, json, behind).await
}

/// Why a picture can't be asked.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the model has several inputs, a picture is only one")]
    SeveralInputs,
    #[error("{0}")]
    Picture(PictureError),
}

/// A picture as a request in the protocol's binary form.
fn request(loaded: &Loaded, bytes: &[u8]) -> Result<(Bytes, Bytes), AskError> {
    let [input] = loaded.runtime.spec().inputs.as_slice() else {
        return Err(AskError::SeveralInputs);
    };
    let picture = Picture::decode(bytes).map_err(AskError::Picture)?;
    let layout = picture::layout_of(&loaded.manifest, input);
    let tensor = picture.tensor(input, layout).map_err(AskError::Picture)?;
    let mut behind = Vec::with_capacity(tensor.binary_len());
    tensor.write_binary(&mut behind);
    Ok((head(&tensor).into(), behind.into()))
}

fn head(tensor: &Tensor) -> Vec<u8> {
    let input = json!({
        "name": tensor.name(),
        "datatype": tensor.datatype().name(),
        "shape": tensor.shape(),
        "parameters": { "binary_data_size": tensor.binary_len() },
    });
    json!({ "inputs": [input] }).to_string().into_bytes()
}

/// Files that are requests: pictures and `.json`, none that is hidden.
fn list(folder: &Path) -> Result<BTreeMap<PathBuf, Stamp>, DurableError> {
    let failed = |source| DurableError::Io { operation: "list", path: folder.to_owned(), source };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let is_request =
            Picture::is_named(&path) || path.extension().is_some_and(|extension| extension == "json");
        if !is_request || name.starts_with('.') {
            continue;
        }
        // One that is gone again was somebody else's.
        if let Some(meta) = fs::metadata(&path).ok().filter(fs::Metadata::is_file) {
            found.insert(path, (meta.len(), meta.modified().ok()));
        }
    }
    Ok(found)
}

/// Writes the answer, then moves the file away or removes it.
fn put_away(config: &config::Folder, path: &Path, answer: &[u8]) -> Result<(), DurableError> {
    let Some(name) = path.file_name() else { return Ok(()) };
    durable::make_dir(&config.out)?;
    let mut answer_name = OsString::from(name);
    answer_name.push(".json");
    durable::write_atomic(&config.out.join(answer_name), answer)?;
    match &config.done {
        Some(done) => {
            durable::make_dir(done)?;
            durable::rename(path, &done.join(name))
        }
        None => fs::remove_file(path).map_err(|source| DurableError::Io {
            operation: "remove",
            path: path.to_owned(),
            source,
        }),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DurableError> + Send + 'static,
) -> Result<T, DurableError> {
    let ended = |_| DurableError::Io {
        operation: "look at",
        path: PathBuf::new(),
        source: std::io::ErrorKind::Interrupted.into(),
    };
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}
