//! JSON objects that are really written as objects: serde also fills a struct from an array, field by field in an order
//! that is nobody's business outside, and a request that is none would be answered.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A struct that only an object fills.
#[derive(Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Sample<'a> {
        #[serde(borrow)]
        raw: &'a serde_json::value::RawValue,
    }

    #[test]
    fn an_object_is_taken_and_an_array_is_refused_with_words_for_people() {
        let taken: Object<Sample<'_>> = serde_json::from_str(r#"{"raw": [1, 2]}"#).unwrap();
        assert_eq!(taken.0.raw.get(), "[1, 2]");
        let error = serde_json::from_str::<Object<Sample<'_>>>("[[1, 2]]").unwrap_err().to_string();
        assert!(error.starts_with("invalid type: sequence, expected an object"), "{error}");
    }
}
