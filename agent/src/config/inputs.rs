//! Inputs that the configuration declares: a folder that is watched, a topic of a local broker.

use std::path::PathBuf;
use std::time::Duration;

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
    let out = out.unwrap_or_else(|| watch.join("out"));
    if out == watch {
        r.refuse("folder.out", "another folder than the one that is watched");
    }
    if done.as_ref() == Some(&watch) {
        r.refuse("folder.done", "another folder than the one that is watched");
    }
    Some(Folder { watch, model, out, done, every })
}

pub(super) fn mqtt(r: &mut Reader) -> Option<Mqtt> {
    let broker = r.text("mqtt.broker", "");
    let [model, topic_in, topic_out] =
        ["mqtt.model", "mqtt.topic_in", "mqtt.topic_out"].map(|key| r.text(key, ""));
    if broker.is_empty() {
        return None;
    }
    if [&model, &topic_in, &topic_out].iter().any(|text| text.is_empty()) {
        r.refuse("mqtt.broker", "mqtt.model, mqtt.topic_in and mqtt.topic_out beside it");
    }
    if topic_out.contains(['+', '#']) {
        r.refuse("mqtt.topic_out", "a topic without wildcards");
    }
    if topic_in == topic_out && !topic_in.is_empty() {
        r.refuse("mqtt.topic_out", "another topic than mqtt.topic_in");
    }
    let parsed = broker.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = parsed.filter(|(host, _)| !host.is_empty()) else {
        r.refuse("mqtt.broker", "a host and a port, such as 127.0.0.1:1883");
        return None;
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    Some(Mqtt { host, port, model, topic_in, topic_out })
}
