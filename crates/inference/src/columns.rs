//! Steps on rows of columns before the model: words to numbers, missing values, one column per class.

use std::cmp::Ordering;
use std::collections::HashMap;

use release::Words;

use crate::engine::Value;
use crate::tensor::{Data, Datatype, volume};

/// Fills missing numbers: with one value for all, or with one for each entry of the last axis.
#[expect(clippy::cast_possible_truncation, reason = "what fills is rounded to the model's f32")]
pub(crate) fn impute(shape: &[usize], mut numbers: Vec<f32>, values: &[f64]) -> Result<Data, String> {
    if values.len() != 1 && shape.last() != Some(&values.len()) {
        return Err(format!("has {} values, which the last axis of shape {shape:?} has not", values.len()));
    }
    for (number, value) in numbers.iter_mut().zip(values.iter().cycle()) {
        if number.is_nan() {
            *number = *value as f32;
        }
    }
    Ok(Data::Fp32(numbers))
}

/// Makes numbers of rows of texts.
pub(crate) fn vocabulary(shape: &[usize], data: &Data, columns: &[Words]) -> Result<Data, String> {
    let (&[_, width], Data::Bytes(texts)) = (shape, data) else {
        return Err(format!("needs rows of BYTES, got {} of shape {shape:?}", data.datatype()));
    };
    let mut words: Vec<Option<HashMap<&str, f32>>> = vec![None; width];
    for column in columns {
        let place = usize::try_from(column.column).ok().and_then(|place| words.get_mut(place));
        let place =
            place.ok_or_else(|| format!("needs a column {}, the rows have {width}", column.column))?;
        *place = Some(numbered(&column.words));
    }
    // Rows are as wide as the list of columns, which goes round with them.
    let numbers = texts.iter().zip(words.iter().cycle()).map(|(text, words)| match words {
        Some(words) => Ok(words.get(text.as_str()).copied().unwrap_or(f32::NAN)),
        None => number(text),
    });
    Ok(Data::Fp32(numbers.collect::<Result<_, _>>()?))
}

fn numbered(words: &[String]) -> HashMap<&str, f32> {
    // A vocabulary's length is bounded far below what f32 counts exactly.
    words.iter().zip(0_u16..).map(|(word, place)| (word.as_str(), f32::from(place))).collect()
}

fn number(text: &str) -> Result<f32, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(f32::NAN);
    }
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        format!("needs numbers in columns without a vocabulary, got {shown:?}")
    })
}

/// Replaces one column by `size` columns.
pub(crate) fn one_hot(shape: &[usize], numbers: &[f32], column: usize, size: usize) -> Result<Value, String> {
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
        let is_class = |place: u16| f32::from(place).partial_cmp(class) == Some(Ordering::Equal);
        values.extend((0..).take(size).map(|place| f32::from(u8::from(is_class(place)))));
        values.extend_from_slice(after);
    }
    Ok((out, Data::Fp32(values)))
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
        let Data::Fp32(numbers) = vocabulary(&[3, 2], &rows, &words).unwrap() else { panic!("not FP32") };
        assert_eq!(numbers[..4], [1.5, 1.0, -2.0, 0.0]);
        assert!(numbers[4].is_nan() && numbers[5].is_nan());
        let error = vocabulary(&[1, 2], &texts(&["many", "red"]), &words).unwrap_err();
        assert!(error.contains("\"many\""), "{error}");
        assert!(vocabulary(&[1, 1], &texts(&["1"]), &words).unwrap_err().contains("column 1"));
        assert!(vocabulary(&[1, 1], &Data::Fp32(vec![1.0]), &[]).unwrap_err().contains("BYTES"));
    }

    #[test]
    fn missing_numbers_are_filled_by_column_or_all_alike() {
        let numbers = vec![f32::NAN, 1.0, f32::NAN, f32::NAN];
        assert_eq!(
            impute(&[2, 2], numbers.clone(), &[7.0, 8.0]).unwrap(),
            Data::Fp32(vec![7.0, 1.0, 7.0, 8.0])
        );
        assert_eq!(impute(&[2, 2], numbers.clone(), &[9.0]).unwrap(), Data::Fp32(vec![9.0, 1.0, 9.0, 9.0]));
        assert!(impute(&[2, 2], numbers, &[1.0; 3]).is_err());
    }

    #[test]
    fn a_column_becomes_one_per_class_and_no_class_is_all_zero() {
        let out = one_hot(&[2, 3], &[5.0, 1.0, 6.0, 7.0, f32::NAN, 8.0], 1, 2).unwrap();
        assert_eq!(out, (vec![2, 4], Data::Fp32(vec![5.0, 0.0, 1.0, 6.0, 7.0, 0.0, 0.0, 8.0])));
        assert!(one_hot(&[1, 1], &[0.0], 1, 2).is_err());
        assert!(one_hot(&[1], &[0.0], 0, 2).is_err());
    }
}
