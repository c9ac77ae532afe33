//! What a file changes if enough people sign it: field by field against the version that this key folder keeps.
//!
//! A threshold protects only those who see what they sign. The comparison knows nothing of roles, so that nothing that
//! a file says can be left out of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::output::{items, table};

/// Characters of a value that people are shown; programs get all of it.
const MOST_SHOWN: usize = 60;

/// One step on the way to a field. Kept apart until it is shown, so that no name can look like two steps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A key of an object.
    Key(String),
    /// An item of a list, from 1, and its name.
    Item(usize, String),
}

type Place = Vec<Step>;

/// One field that differs; none where it is absent, which is something else than null.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    place: Place,
    before: Option<Value>,
    after: Option<Value>,
}

impl Change {
    /// For programs. What is absent is left out.
    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({ "place": path(&self.place) });
        for (name, value) in [("before", &self.before), ("after", &self.after)] {
            if let Some(value) = value {
                json[name] = value.clone();
            }
        }
        json
    }
}

/// Fields in which signed content differs from what was before, in order; all of them without a file before.
///
/// # Errors
/// When a file is no metadata.
pub(super) fn changes(before: Option<&[u8]>, after: &[u8]) -> Result<Vec<Change>> {
    let mut old = before.map(fields).transpose()?.unwrap_or_default();
    let mut new = fields(after)?;
    let places: BTreeSet<Place> = old.keys().chain(new.keys()).cloned().collect();
    let change = |place: Place| {
        let (before, after) = (old.remove(&place), new.remove(&place));
        (before != after).then_some(Change { place, before, after })
    };
    Ok(places.into_iter().filter_map(change).collect())
}

/// For people: the `changes` of a file that [`Change::to_json`] made.
pub(super) fn show(changes: &Value) -> String {
    let row = |change: &Value| {
        let place = change["place"].as_str().unwrap_or_default().to_owned();
        let side = |name: &str| change.get(name).map_or_else(|| "-".to_owned(), shown);
        vec![place, side("before"), side("after")]
    };
    table(&["field", "before", "after"], items(changes).iter().map(row).collect(), "changes nothing")
}

fn fields(bytes: &[u8]) -> Result<BTreeMap<Place, Value>> {
    let mut file: Value = serde_json::from_slice(bytes).context("not signed metadata")?;
    let mut fields = BTreeMap::new();
    collect(&[], file["signed"].take(), &mut fields);
    Ok(fields)
}

/// Objects are gone through by key, lists of named objects by name; the rest is a field. A key is one, too: nobody
/// compares its parts.
fn collect(place: &[Step], value: Value, fields: &mut BTreeMap<Place, Value>) {
    let inner = |step: Step| [place, &[step]].concat();
    match value {
        Value::Object(object) if !object.is_empty() && !object.contains_key("keyval") => {
            object.into_iter().for_each(|(name, value)| collect(&inner(Step::Key(name)), value, fields));
        }
        Value::Array(list) if !list.is_empty() && have_names(&list) => {
            for (at, value) in list.into_iter().enumerate() {
                // The order of delegations decides who is asked first.
                let name = value["name"].as_str().unwrap_or_default().to_owned();
                collect(&inner(Step::Item(at + 1, name)), value, fields);
            }
        }
        value => drop(fields.insert(place.to_vec(), value)),
    }
}

/// A place for people. Names that hold anything but plain letters stand in quotes, so that each place looks different.
fn path(place: &[Step]) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let quoted = |name: &str| {
        if !name.is_empty() && name.bytes().all(is_plain) { name.to_owned() } else { format!("{name:?}") }
    };
    let mut path = String::new();
    for step in place {
        match step {
            Step::Key(name) if path.is_empty() => path = quoted(name),
            Step::Key(name) => path.extend([".", &quoted(name)]),
            Step::Item(at, name) => path.extend(["[", &at.to_string(), " ", &quoted(name), "]"]),
        }
    }
    path
}

fn have_names(list: &[Value]) -> bool {
    list.iter().all(|value| value["name"].is_string())
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    let is_digest = text.len() >= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let most = if is_digest { 16 } else { MOST_SHOWN };
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use trust::repo::TargetsBuilder;
    use trust::{Ed25519Signer, Signer as _};

    use super::*;

    #[test]
    fn every_difference_is_told_by_its_place() {
        let key = |n: u8| Ed25519Signer::from_seed(&[n; 32]).public_key();
        let model = "digits".parse().unwrap();
        let first = TargetsBuilder::new(UnixMillis(0)).delegate_model(&model, &[key(1)], 1);
        let first = first.target("director.json", b"a", None).sign(&[]).unwrap();
        let next = TargetsBuilder::resume(&first, UnixMillis(1000)).unwrap();
        let next = next.delegate_model(&model, &[key(2)], 1).target("director.json", b"b", None);
        let next = next.sign(&[]).unwrap();
        let found = changes(Some(&first), &next).unwrap();
        let places: Vec<String> = found.iter().map(|change| path(&change.place)).collect();
        let (old, new) = (key(1).id(), key(2).id());
        for place in [
            format!("delegations.keys.{old}"),
            format!("delegations.keys.{new}"),
            "delegations.roles[1 digits].keyids".into(),
            "expires".into(),
            "targets.\"director.json\".hashes.sha256".into(),
            "version".into(),
        ] {
            assert!(places.contains(&place), "{place} is missing in {places:?}");
        }
        assert_eq!(places.len(), 6, "{places:?}");
        assert!(changes(Some(&next), &next).unwrap().is_empty());
        assert!(changes(None, &next).unwrap().len() > 6, "without a file before, all of it is new");
    }

    #[test]
    fn k1_no_field_of_a_file_hides_another() {
        let file = |signed: Value| json!({ "signed": signed }).to_string().into_bytes();
        let roles = |keys: &str| json!({ "roles": [{ "name": "digits", "keyids": [keys] }], "keys": {} });
        let honest = file(json!({ "delegations": roles("ours") }));
        let mut stolen = json!({ "delegations": roles("theirs") });
        stolen["delegations"]["keys"]["theirs"] = json!({ "keyval": "x" });
        // Fields that nobody knows may stand in a file, and their names are free.
        stolen["delegations.roles[1 digits].keyids"] = json!(["ours"]);
        stolen["delegations.keys.theirs"] = Value::Null;
        let found = changes(Some(&honest), &file(stolen)).unwrap();
        let places: Vec<String> = found.iter().map(|change| path(&change.place)).collect();
        for place in ["delegations.roles[1 digits].keyids", "delegations.keys.theirs"] {
            assert!(places.iter().any(|shown| shown == place), "{place} is hidden in {places:?}");
            assert!(places.contains(&format!("{place:?}")), "the odd one is shown, too: {places:?}");
        }
        let made_null = changes(Some(&file(json!({ "a": 1 }))), &file(json!({ "a": 1, "x": null }))).unwrap();
        assert_eq!(made_null.len(), 1, "null is not absent");
    }

    #[test]
    fn what_is_shown_is_short_and_what_is_compared_is_whole() {
        let long = |end: &str| json!({ "signed": { "x": "a".repeat(100) + end } }).to_string().into_bytes();
        let found = changes(Some(&long("1")), &long("2")).unwrap();
        assert_eq!(found.len(), 1);
        let text = show(&Value::Array(found.iter().map(Change::to_json).collect()));
        assert!(text.contains('…') && !text.contains(&"a".repeat(70)), "{text}");
    }
}
