//! Steps on rows of columns before the model: words to numbers, missing values, one column per class.

use std::cmp::Ordering;
use std::collections::HashMap;

use release::Words;

use crate::tensor::{Data, Datatype, volume};

/// The two float types that arithmetic before the model runs on.
pub(crate) trait Real: Copy + PartialOrd + From<u16> {
    /// Rounds where it must.
    fn of(value: f64) -> Self;
    /// Exactly.
    fn wide(self) -> f64;
}

impl Real for f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what this is for")]
    fn of(value: f64) -> Self {
        value as Self
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self
    }
}

/// Fills missing numbers: with one value for all, or with one for each entry of the last axis.
pub(crate) fn impute<T: Real>(
    shape: &[usize],
    mut numbers: Vec<T>,
    values: &[f64],
) -> Result<Vec<T>, String> {
    if values.len() != 1 && shape.last() != Some(&values.len()) {
        return Err(format!("has {} values, which the last axis of shape {shape:?} has not", values.len()));
    }
    for (number, value) in numbers.iter_mut().zip(values.iter().cycle()) {
        if number.wide().is_nan() {
            *number = T::of(*value);
        }
    }
    Ok(numbers)
}

/// Makes numbers of rows of texts.
pub(crate) fn vocabulary(shape: &[usize], data: &Data, columns: &[Words]) -> Result<Data, String> {
    let (&[rows, width], Data::Bytes(texts)) = (shape, data) else {
        return Err(format!("needs rows of BYTES, got {} of shape {shape:?}", data.datatype()));
    };
    let mut words: Vec<Option<HashMap<&str, f64>>> = vec![None; width];
    for column in columns {
        let place = usize::try_from(column.column).ok().and_then(|place| words.get_mut(place));
        let place =
            place.ok_or_else(|| format!("needs a column {}, the rows have {width}", column.column))?;
        *place = Some(numbered(&column.words));
    }
    // Rows are as wide as the list of columns, which goes round with them.
    let numbers = texts.iter().zip(words.iter().cycle()).enumerate().map(|(at, (text, words))| match words {
        Some(words) => Ok(words.get(text.as_str()).copied().unwrap_or(f64::NAN)),
        None => number(text).ok_or_else(|| {
            let shown: String = text.trim().chars().take(40).collect();
            let column = at % width + 1;
            // The line of a file is a row by itself, and not its first one.
            let row = if rows == 1 { String::new() } else { format!(" of row {}", at / width + 1) };
            format!("needs finite numbers in columns without a vocabulary, got {shown:?} in column {column}{row}, from 1")
        }),
    });
    Ok(Data::Fp64(numbers.collect::<Result<_, _>>()?))
}

fn numbered(words: &[String]) -> HashMap<&str, f64> {
    // A vocabulary's length is bounded far below what u16 counts.
    words.iter().zip(0_u16..).map(|(word, place)| (word.as_str(), f64::from(place))).collect()
}

/// What an empty text stands for is missing; none for what is no finite number.
fn number(text: &str) -> Option<f64> {
    match text.trim() {
        "" => Some(f64::NAN),
        text => text.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}

/// Replaces one column by `size` columns.
pub(crate) fn one_hot<T: Real>(
    shape: &[usize],
    numbers: &[T],
    column: usize,
    size: usize,
) -> Result<(Vec<usize>, Vec<T>), String> {
    let Some((rows, width)) =
        shape.first().zip(shape.get(1)).filter(|(_, width)| shape.len() == 2 && column < **width)
    else {
        return Err(format!("needs rows with a column {column}, got shape {shape:?}"));
    };
    let out = vec![*rows, width - 1 + size];
    if volume(&out) > crate::MAX_ELEMENTS {
        return Err(format!("would make {} of shape {out:?}", Datatype::Fp32));
    }
    let mut values = Vec::with_capacity(volume(&out));
    for row in numbers.chunks_exact(*width) {
        let (before, rest) = row.split_at(column);
        values.extend_from_slice(before);
        let (class, after) = rest.split_first().ok_or("needs a column")?;
        let is_class = |place: u16| T::from(place).partial_cmp(class) == Some(Ordering::Equal);
        values.extend((0..).take(size).map(|place| T::from(u16::from(is_class(place)))));
        values.extend_from_slice(after);
    }
    Ok((out, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Data {
        Data::Bytes(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn words_and_numbers_come_out_of_texts_and_the_rest_is_missing() {
        let words = [Words { column: 1, words: vec!["red".into(), "blue".into()] }];
        let rows = texts(&["1.5", "blue", " -2 ", "red", "", "green"]);
        let Data::Fp64(numbers) = vocabulary(&[3, 2], &rows, &words).unwrap() else { panic!("not FP64") };
        assert_eq!(numbers[..4], [1.5, 1.0, -2.0, 0.0]);
        assert!(numbers[4].is_nan() && numbers[5].is_nan());
        for no_number in ["inf", "-infinity", "nan", "1e400"] {
            let refused = vocabulary(&[1, 2], &texts(&[no_number, "red"]), &words).unwrap_err();
            assert!(refused.contains("finite") && refused.contains(no_number), "{refused}");
        }
        let error = vocabulary(&[1, 2], &texts(&["many", "red"]), &words).unwrap_err();
        assert!(error.ends_with("got \"many\" in column 1, from 1"), "{error}");
        let error = vocabulary(&[2, 2], &texts(&["1", "red", "inf", "red"]), &words).unwrap_err();
        assert!(error.ends_with("got \"inf\" in column 1 of row 2, from 1"), "{error}");
        assert!(vocabulary(&[1, 1], &texts(&["1"]), &words).unwrap_err().contains("column 1"));
        assert!(vocabulary(&[1, 1], &Data::Fp32(vec![1.0]), &[]).unwrap_err().contains("BYTES"));
    }

    #[test]
    fn missing_numbers_are_filled_by_column_or_all_alike() {
        let numbers = vec![f32::NAN, 1.0, f32::NAN, f32::NAN];
        assert_eq!(impute(&[2, 2], numbers.clone(), &[7.0, 8.0]).unwrap(), [7.0, 1.0, 7.0, 8.0]);
        assert_eq!(impute(&[2, 2], numbers.clone(), &[9.0]).unwrap(), [9.0, 1.0, 9.0, 9.0]);
        assert!(impute(&[2, 2], numbers, &[1.0; 3]).is_err());
    }

    #[test]
    fn a_column_becomes_one_per_class_and_no_class_is_all_zero() {
        let out = one_hot(&[2, 3], &[5.0, 1.0, 6.0, 7.0, f64::NAN, 8.0], 1, 2).unwrap();
        assert_eq!(out, (vec![2, 4], vec![5.0, 0.0, 1.0, 6.0, 7.0, 0.0, 0.0, 8.0]));
        assert!(one_hot(&[1, 1], &[0.0_f32], 1, 2).is_err());
        assert!(one_hot(&[1], &[0.0_f32], 0, 2).is_err());
    }
}
