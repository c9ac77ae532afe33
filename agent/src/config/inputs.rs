//! Inputs that the configuration declares: a folder that is watched, a topic of a local broker.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use protocol::ModelName;

use super::reader::Reader;

/// A folder whose files are asked as they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The folder. Default none: nothing is watched.
    pub watch: PathBuf,
    /// The model that is asked; needed.
    pub model: String,
    /// Where answers go, as NAME.json. Default: `out` in the folder.
    pub out: PathBuf,
    /// Where asked files go. Default none: they are removed.
    pub done: Option<PathBuf>,
    /// How often it is looked at. Default 1000 ms.
    pub every: Duration,
}

/// Topics of a broker on the device or its own network; plain TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// The broker's host, from `broker`, e.g. `127.0.0.1:1883`. Default none: no broker is used.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// The model that is asked; needed.
    pub model: String,
    /// Requests come here; needed.
    pub topic_in: String,
    /// Answers go here; needed.
    pub topic_out: String,
}

pub(super) fn folder(r: &mut Reader) -> Option<Folder> {
    let watch = r.optional_path("folder.watch");
    let model = r.text("folder.model", "");
    let out = r.optional_path("folder.out");
    let done = r.optional_path("folder.done");
    let every = r.millis("folder.every_ms", 1000, 10..=3_600_000);
    let watch = watch?;
    if model.is_empty() {
        r.refuse("folder.watch", "folder.model beside it");
    }
    check_model(r, "folder.model", &model);
    let out = out.unwrap_or_else(|| watch.join("out"));
    if is_same(&out, &watch) {
        r.refuse("folder.out", "another folder than the one that is watched");
    }
    if done.as_ref().is_some_and(|done| is_same(done, &watch)) {
        r.refuse("folder.done", "another folder than the one that is watched");
    }
    Some(Folder { watch, model, out, done, every })
}

/// A name that no model can have would leave what comes waiting for ever.
fn check_model(r: &mut Reader, key: &str, model: &str) {
    if !model.is_empty() && ModelName::new(model).is_err() {
        r.refuse(key, "a model's name, as in the release");
    }
}

/// Whether two names mean one folder: an answer that is written into the watched folder would be asked in its turn.
fn is_same(one: &Path, other: &Path) -> bool {
    canonical(one) == canonical(other)
}

/// Without links and `..`, also where the last parts don't exist yet.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let mut parts = path.components();
        let last = parts.next_back();
        let above = parts.as_path();
        match last {
            Some(Component::Normal(name)) => canonical(above).join(name),
            Some(Component::ParentDir) => canonical(above).parent().unwrap_or(Path::new("/")).to_owned(),
            Some(_) | None => path.to_owned(),
        }
    })
}

pub(super) fn mqtt(r: &mut Reader) -> Option<Mqtt> {
    let broker = r.text("mqtt.broker", "");
    let [model, topic_in, topic_out] =
        ["mqtt.model", "mqtt.topic_in", "mqtt.topic_out"].map(|key| r.text(key, ""));
    if broker.is_empty() {
        return None;
    }
    check_model(r, "mqtt.model", &model);
    if [&model, &topic_in, &topic_out].iter().any(|text| text.is_empty()) {
        r.refuse("mqtt.broker", "mqtt.model, mqtt.topic_in and mqtt.topic_out beside it");
    }
    if topic_out.contains(['+', '#']) {
        r.refuse("mqtt.topic_out", "a topic without wildcards");
    }
    if !topic_in.is_empty() && !is_filter(&topic_in) {
        r.refuse(
            "mqtt.topic_in",
            "a topic in which + and # stand for whole levels, # only for the last ones",
        );
    }
    if covers(&topic_in, &topic_out) && !topic_out.is_empty() {
        r.refuse(
            "mqtt.topic_out",
            "another topic than those of mqtt.topic_in: answers would be asked in turn",
        );
    }
    let parsed = broker.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = parsed.filter(|(host, _)| !host.is_empty()) else {
        r.refuse("mqtt.broker", "a host and a port, such as 127.0.0.1:1883");
        return None;
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    Some(Mqtt { host, port, model, topic_in, topic_out })
}

/// Whether the wildcards of a topic filter stand where MQTT 5 (4.7.1) has them.
fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    levels.iter().enumerate().all(|(place, level)| match *level {
        "+" => true,
        "#" => place + 1 == levels.len(),
        level => !level.contains(['+', '#', '\0']),
    })
}

/// Whether a message on `topic` comes to whoever subscribes to `filter` (MQTT 5, 4.7 and 4.8.2).
fn covers(filter: &str, topic: &str) -> bool {
    let shared = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    let filter = shared.map_or(filter, |(_group, filter)| filter);
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            (_, Some(_) | None) => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_covers_what_a_broker_would_deliver_for_it() {
        for (filter, topic) in [
            ("a", "a"),
            ("a/#", "a/b/c"),
            ("a/#", "a"),
            ("#", "a/b"),
            ("+/b", "a/b"),
            ("a/+/c", "a/b/c"),
            ("+", "a"),
            ("a/+", "a/"),
            ("$share/g/a/#", "a/b"),
            ("$SYS/#", "$SYS/b"),
        ] {
            assert!(is_filter(filter) && covers(filter, topic), "{filter} covers {topic}");
        }
        for (filter, topic) in [
            ("a", "b"),
            ("a", "a/b"),
            ("a/b", "a"),
            ("+", "a/b"),
            ("a/+", "a"),
            ("a/+/c", "a/b/d"),
            ("#", "$SYS/a"),
            ("+/a", "$SYS/a"),
            ("$share/g/a", "b"),
            ("a/b/#", "a"),
        ] {
            assert!(!covers(filter, topic), "{filter} does not cover {topic}");
        }
        for filter in ["a#", "a/#/b", "a+/b", "#/a", "a\0"] {
            assert!(!is_filter(filter), "{filter}");
        }
    }

    #[test]
    fn one_folder_is_recognised_by_any_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let watch = dir.path().join("watch");
        std::fs::create_dir(&watch).unwrap();
        std::os::unix::fs::symlink(&watch, dir.path().join("link")).unwrap();
        for name in ["watch/", "./watch", "watch/../watch", "missing/../watch", "link", "link/../watch"] {
            assert!(is_same(&dir.path().join(name), &watch), "{name}");
        }
        for name in ["watch/out", "link/out", "missing", "watch/.."] {
            assert!(!is_same(&dir.path().join(name), &watch), "{name}");
        }
    }
}
