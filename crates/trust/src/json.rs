//! Strict JSON and its canonical form (OLPC): what is signed is the canonical form, never the text as sent.
//!
//! Duplicate keys, fractions and numbers beyond 64 bits are refused, nesting is bounded (attack D6).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Why text is not acceptable JSON.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(#[from] serde_json::Error);

/// A JSON value without fractions and without duplicate keys; objects are sorted by code point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number that fits 64 bits.
    Int(i128),
    /// Text.
    Text(String),
    /// `[...]`
    List(Vec<Json>),
    /// `{...}`
    Map(BTreeMap<String, Json>),
}

impl Json {
    /// Parses with at most `depth` levels of nesting.
    ///
    /// # Errors
    /// [`JsonError`] says what and where.
    pub fn parse(bytes: &[u8], depth: usize) -> Result<Self, JsonError> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let value = Node { depth, fractions: Fractions::Refuse }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    /// The canonical form: sorted keys, no white space, only `"` and `\` escaped.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.write(&mut out);
        out
    }

    /// The member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(map) => map.get(key),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same value for serde.
    pub fn to_value(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(i) => serde_json::Number::from_i128(*i).map_or(Value::Null, Value::Number),
            Self::Text(text) => Value::String(text.clone()),
            Self::List(list) => Value::Array(list.iter().map(Self::to_value).collect()),
            Self::Map(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), v.to_value())).collect()),
        }
    }

    /// From serde's value; `None` when it holds a fraction.
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        use serde_json::Value;
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(number) => Self::Int(number.as_i128()?),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(list) => Self::List(list.iter().map(Self::from_value).collect::<Option<_>>()?),
            Value::Object(map) => Self::Map(
                map.iter().map(|(k, v)| Some((k.clone(), Self::from_value(v)?))).collect::<Option<_>>()?,
            ),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
            Self::Int(i) => out.extend_from_slice(i.to_string().as_bytes()),
            Self::Text(text) => write_text(text, out),
            Self::List(list) => {
                out.push(b'[');
                for (i, item) in list.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Map(map) => {
                out.push(b'{');
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_text(key, out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// Checks nesting and duplicate keys of a document that may hold fractions, such as a manifest.
///
/// # Errors
/// [`JsonError`] says what and where.
pub fn check_document(bytes: &[u8], depth: usize) -> Result<(), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Node { depth, fractions: Fractions::Skip }.deserialize(&mut deserializer)?;
    Ok(deserializer.end()?)
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[derive(Clone, Copy)]
enum Fractions {
    Refuse,
    Skip,
}

#[derive(Clone, Copy)]
struct Node {
    depth: usize,
    fractions: Fractions,
}

impl Node {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Json;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without fractions")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Int(value.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        match self.fractions {
            Fractions::Refuse => Err(E::custom(format_args!("number {value} is no whole number of 64 bits"))),
            Fractions::Skip => Ok(Json::Null),
        }
    }
    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let inner = self.inner()?;
        let mut map = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            map.insert(key, value);
        }
        Ok(Json::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_sorts_and_escapes_only_quote_and_backslash() {
        let json = Json::parse(br#" {"b":[1, -2,true,null], "a":"q\"b\\s\u00e9\n"} "#, 8).unwrap();
        assert_eq!(json.canonical(), "{\"a\":\"q\\\"b\\\\sé\n\",\"b\":[1,-2,true,null]}".as_bytes());
    }

    #[test]
    fn d6_hostile_json_is_refused() {
        let deep = [vec![b'['; 40], vec![b']'; 40]].concat();
        let deepest = vec![b'['; 100_000];
        for bad in [
            &br#"{"a":1,"a":2}"#[..],
            br#"{"a":1.5}"#,
            br#"{"a":18446744073709551616}"#,
            br#"{"a":1e3}"#,
            b"{} x",
            b"",
            b"{\"a\":\"\xff\"}",
            &deep,
            &deepest,
        ] {
            assert!(
                Json::parse(bad, 32).is_err(),
                "{:?}",
                String::from_utf8_lossy(&bad[..bad.len().min(40)])
            );
        }
        assert!(check_document(br#"{"a":1.5}"#, 4).is_ok());
        assert!(check_document(br#"{"a":1.5,"a":2}"#, 4).is_err());
    }
}
