//! A watched folder: every `.json` file is a request of the protocol, every picture is an image of the model's one
//! input. The answer is written before the file goes: after a power cut a file may be asked twice, never not at all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use inference::Tensor;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Troubles;
use super::files::{Answer, Files, Stamp, Stuck};
use crate::config;
use crate::durable::{self, DurableError, Readers};
use crate::picture::{self, Picture, PictureError};
use crate::serve::{Api, Refused};
use crate::slots::Loaded;

/// Largest file.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// After so many looks in a row it is a problem that files wait for a model or a place in the queue.
const TOLD_AFTER_LOOKS: u32 = 30;
/// What a refused file's name ends with beside its answer.
const REFUSED: &str = ".refused";
/// So much of a name that is too long is told.
const SHOWN_CHARS: usize = 60;

/// Asks files as they come until `stop`.
pub async fn watch(config: config::Folder, api: Api, troubles: Troubles, stop: CancellationToken) {
    let every = config.every;
    let mut watched = Watched { config: Arc::new(config), api, files: Files::default(), unanswered: None };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let problem = match watched.look().await {
            Ok(()) => {
                let stuck = watched.files.problem().or_else(|| watched.waiting());
                let empties = watched.files.empties(TOLD_AFTER_LOOKS.into());
                stuck.into_iter().chain(empties).reduce(|one, other| format!("{one}; {other}"))
            }
            Err(error) => Some(crate::chain(&error)),
        };
        troubles.set("watched folder", problem);
    }
}

struct Watched {
    config: Arc<config::Folder>,
    api: Api,
    files: Files,
    /// Looks in a row that ended at a file which can't be asked yet, files that waited then, and what was said.
    unanswered: Option<(u32, usize, String)>,
}

impl Watched {
    /// Files that wait for long are told: the model's name may be wrong.
    fn waiting(&self) -> Option<String> {
        let (_, files, why) = self.unanswered.as_ref().filter(|(looks, ..)| *looks >= TOLD_AFTER_LOOKS)?;
        let waiting =
            if *files == 1 { "a file waits".to_owned() } else { format!("{files} files or more wait") };
        Some(format!("{waiting}: {why}"))
    }

    /// One look: asks the files that don't change any more, so that none is read half-written. One that can't be read
    /// or put away waits; the others go on.
    async fn look(&mut self) -> Result<(), DurableError> {
        let config = self.config.clone();
        self.files.found(blocking(move || list(&config.watch)).await?);
        for (path, stamp, answer) in self.files.due() {
            self.put_away(path, stamp, answer).await;
        }
        let ready = self.files.ready();
        let files = ready.len();
        let before = self.unanswered.take().map_or(0, |(looks, ..)| looks);
        for (path, stamp) in ready {
            let file = path.clone();
            let asked = match blocking(move || durable::read_no_link(&file, MAX_FILE_BYTES)).await {
                Ok(Some(bytes)) => ask(&self.api, &self.config, &path, bytes).await,
                Ok(None) => continue,
                Err(error @ DurableError::TooLarge { .. }) => Err(refused(&error.to_string())),
                Err(error) => {
                    self.files.stick(&path, Stuck::Unread, crate::chain(&error));
                    continue;
                }
            };
            let answer = match asked {
                Ok(json) => Answer { json, is_refusal: false },
                // Overloaded, or no model yet: the file stays for a later look.
                Err(refused) if refused.is_later => {
                    let why = refused.why();
                    self.unanswered = Some((before.saturating_add(1), files, why));
                    break;
                }
                Err(refused) => Answer { json: refused.json, is_refusal: true },
            };
            self.put_away(path, stamp, Arc::new(answer)).await;
        }
        Ok(())
    }

    async fn put_away(&mut self, path: PathBuf, stamp: Stamp, answer: Arc<Answer>) {
        let (config, file, json) = (self.config.clone(), path.clone(), answer.clone());
        match blocking(move || put_away(&config, &file, stamp, &json)).await {
            Ok(()) => self.files.forget(&path),
            Err(error) => self.files.stick(&path, Stuck::Held(answer), why_not_put_away(&path, &error)),
        }
    }
}

/// Beside a name that a file system permits there may be none for its answer.
fn why_not_put_away(path: &Path, error: &DurableError) -> String {
    if !error.is_name_too_long() {
        return crate::chain(error);
    }
    let name = path.file_name().unwrap_or_default();
    let shown: String = name.to_string_lossy().chars().take(SHOWN_CHARS).collect();
    format!(
        "{shown}... has a name of {} bytes, too long for the one of its answer (NAME.json): rename the file",
        name.len()
    )
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
        let is_request = Picture::is_named(&path)
            || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if !is_request || name.starts_with('.') {
            continue;
        }
        // One that is gone again was somebody else's.
        if let Some(stamp) = stamp_of(&path) {
            found.insert(path, stamp);
        }
    }
    Ok(found)
}

/// None when it is no file, or gone. A link is none: it names something outside that nobody put here.
fn stamp_of(path: &Path) -> Option<Stamp> {
    let meta = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((meta.len(), meta.modified().ok()))
}

/// Writes the answer, then moves the file away or removes it. A refused file is never removed: it may be all that there
/// is of a picture that was still being written.
fn put_away(config: &config::Folder, path: &Path, stamp: Stamp, answer: &Answer) -> Result<(), DurableError> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let mut answered = OsString::from(name);
    answered.push(".json");
    durable::make_group_dir(&config.out)?;
    durable::write_atomic_for(Readers::Group, &config.out.join(answered), &answer.json)?;
    // Written again while it was asked: it is a new request.
    if stamp_of(path) != Some(stamp) {
        return Ok(());
    }
    match &config.done {
        Some(done) => {
            durable::make_group_dir(done)?;
            durable::move_file(path, &free(done, Path::new(name)))
        }
        None if answer.is_refusal => {
            let mut stem = OsString::from(name);
            stem.push(REFUSED);
            durable::move_file(path, &free(&config.out, Path::new(&stem)))
        }
        None => fs::remove_file(path).map_err(|source| DurableError::Io {
            operation: "remove",
            path: path.to_owned(),
            source,
        }),
    }
}

/// A place for a file that replaces none: its name, else the name with a number before its ending. Cameras write the
/// same name again and again, so the number is searched for in steps that double.
fn free(folder: &Path, name: &Path) -> PathBuf {
    let numbered = |number: u64| {
        let mut numbered = OsString::from(name.file_stem().unwrap_or_default());
        numbered.push(format!(".{number}"));
        if let Some(ending) = name.extension() {
            numbered.push(".");
            numbered.push(ending);
        }
        folder.join(numbered)
    };
    let is_taken = |path: &Path| fs::symlink_metadata(path).is_ok();
    let plain = folder.join(name);
    if !is_taken(&plain) {
        return plain;
    }
    let (mut taken, mut free) = (0, 1);
    while is_taken(&numbered(free)) {
        (taken, free) = (free, free.saturating_mul(2));
    }
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        if is_taken(&numbered(middle)) {
            taken = middle;
        } else {
            free = middle;
        }
    }
    numbered(free)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_too_long_for_its_answer_is_what_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (watch, out) = (folder.path().to_owned(), folder.path().join("out"));
        let every = std::time::Duration::from_secs(1);
        let model = "m".to_owned();
        let config = config::Folder { watch, model, out, done: None, every };
        let path = folder.path().join("a".repeat(250) + ".json");
        fs::write(&path, "{}").unwrap();
        let answer = Answer { json: b"{}".to_vec(), is_refusal: true };
        let error = put_away(&config, &path, stamp_of(&path).unwrap(), &answer).unwrap_err();
        let why = why_not_put_away(&path, &error);
        assert!(why.contains("a name of 255 bytes") && why.ends_with("rename the file"), "{why}");
        assert!(path.is_file(), "it is not lost");
        let error = put_away(&config, &folder.path().join("b"), (0, None), &answer);
        assert!(error.is_ok(), "{error:?}");
    }

    #[test]
    fn a_name_that_comes_again_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for expected in ["a.jpg", "a.1.jpg", "a.2.jpg", "a.3.jpg", "a.4.jpg", "a.5.jpg", "a.6.jpg"] {
            let path = free(folder.path(), Path::new("a.jpg"));
            assert_eq!(path, folder.path().join(expected));
            fs::write(path, expected).unwrap();
        }
        fs::write(folder.path().join("b.json.refused"), "1").unwrap();
        let next = free(folder.path(), Path::new("b.json.refused"));
        assert_eq!(next, folder.path().join("b.json.1.refused"));
    }
}
