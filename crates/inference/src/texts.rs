//! Values from the texts of a table, such as a row of a CSV file, by the rules of the protocol's JSON: what doesn't fit
//! exactly is refused, never bent.

use crate::oip::Element;
use crate::tensor::{Data, Datatype};

/// A text that is none of a datatype's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got}")]
pub struct TextError {
    expected: &'static str,
    got: String,
}

impl Data {
    /// Values from the texts of a table, such as a row of a CSV file.
    ///
    /// # Errors
    /// [`TextError`] for the first text that is none of the type's values, with its place.
    pub fn from_texts(datatype: Datatype, texts: Vec<String>) -> Result<Self, (usize, TextError)> {
        Ok(match datatype {
            Datatype::Fp32 => Self::Fp32(texts_as(&texts)?),
            Datatype::Fp64 => Self::Fp64(texts_as(&texts)?),
            Datatype::Int8 => Self::Int8(texts_as(&texts)?),
            Datatype::Int16 => Self::Int16(texts_as(&texts)?),
            Datatype::Int32 => Self::Int32(texts_as(&texts)?),
            Datatype::Int64 => Self::Int64(texts_as(&texts)?),
            Datatype::Uint8 => Self::Uint8(texts_as(&texts)?),
            Datatype::Uint16 => Self::Uint16(texts_as(&texts)?),
            Datatype::Uint32 => Self::Uint32(texts_as(&texts)?),
            Datatype::Uint64 => Self::Uint64(texts_as(&texts)?),
            Datatype::Bool => Self::Bool(texts_as(&texts)?),
            Datatype::Bytes => Self::Bytes(texts),
        })
    }
}

/// Texts of a table as values, by the rules of the protocol: what doesn't fit exactly is refused. An empty text is a
/// missing number; a whole number may be written with decimals, as tables with gaps have it.
fn texts_as<T: Element>(texts: &[String]) -> Result<Vec<T>, (usize, TextError)> {
    let one = |(place, text): (usize, &String)| text_as(text.trim()).map_err(|error| (place, error));
    texts.iter().enumerate().map(one).collect()
}

fn text_as<T: Element>(text: &str) -> Result<T, TextError> {
    let value = match text {
        "" => T::missing(),
        text => match (text.parse::<i128>(), text.parse::<f64>()) {
            (Ok(integer), _) => T::from_integer(integer),
            (Err(_), Ok(float)) if float.is_infinite() => None,
            (Err(_), Ok(float)) => T::from_float(float).or_else(|| T::from_integer(whole(float)?)),
            (Err(_), Err(_)) => truth(text).and_then(T::from_bool),
        },
    };
    value.or_else(|| truth(text).and_then(T::from_bool)).ok_or_else(|| TextError {
        expected: T::EXPECTED,
        got: match text {
            "" => "an empty field".to_owned(),
            text => text.chars().take(40).collect(),
        },
    })
}

/// Tables have 1 and 0 as well.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A float without decimals, where it names exactly one integer.
#[expect(clippy::cast_possible_truncation, reason = "within 2^53 a whole float is an integer")]
fn whole(value: f64) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (value.abs() < EXACT && value.fract().abs() <= 0.0).then_some(value as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_table_are_taken_exactly_or_not_at_all() {
        let read = |datatype, text: &str| Data::from_texts(datatype, vec![text.to_owned()]);
        for (datatype, text, why) in [
            (Datatype::Uint8, "300", "expected an integer of 0 to 255, got 300"),
            (Datatype::Uint8, "-5", "expected an integer of 0 to 255, got -5"),
            (Datatype::Uint8, "1.7", "got 1.7"),
            (Datatype::Uint8, "", "got an empty field"),
            (Datatype::Uint8, "nan", "got nan"),
            (Datatype::Int64, "1e300", "got 1e300"),
            (Datatype::Int64, "inf", "got inf"),
            (Datatype::Fp64, "1e400", "got 1e400"),
            (Datatype::Fp32, "red", "expected a number of 32 bits, or null for a missing one, got red"),
            (Datatype::Bool, "2", "expected true or false, got 2"),
        ] {
            let error = read(datatype, text).unwrap_err().1.to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(read(Datatype::Int64, "9007199254740993").unwrap(), Data::Int64(vec![(1 << 53) + 1]));
        assert_eq!(read(Datatype::Uint8, " 7.0 ").unwrap(), Data::Uint8(vec![7]));
        assert_eq!(read(Datatype::Bool, "True").unwrap(), Data::Bool(vec![true]));
        assert_eq!(read(Datatype::Bool, "0").unwrap(), Data::Bool(vec![false]));
        assert_eq!(read(Datatype::Fp32, "3").unwrap(), Data::Fp32(vec![3.0]));
        assert_eq!(read(Datatype::Fp64, "").unwrap().first_missing(), Some(0));
        assert_eq!(read(Datatype::Bytes, " a").unwrap(), Data::Bytes(vec![" a".into()]));
    }
}
