//! Softmax in f32 along any axis, in place.

use super::curves::exp_below;
use super::wide::wide;

/// Values beside each other at a time, of an inner axis.
const COLUMNS: usize = 64;

/// Rows at a time, where they are short.
const ROWS: usize = 16;

/// Longest row of which several are taken at once.
const SHORT: usize = 24;

/// The softmax of each run of `length` values that lie `step` apart.
///
/// # Panics
/// If the values aren't a whole number of such runs.
pub fn softmax(values: &mut [f32], length: usize, step: usize) {
    let whole = length * step;
    if whole == 0 {
        return;
    }
    assert!(values.len().is_multiple_of(whole), "length of the values");
    match step {
        1 if length <= SHORT => short_rows(values, length),
        1 => rows(values, length),
        _ => values.chunks_exact_mut(whole).for_each(|block| columns(block, step)),
    }
}

wide! {
    fn rows(values: &mut [f32], length: usize) {
        values.chunks_exact_mut(length).for_each(row);
    }

    /// Several rows side by side: each lane of a vector is one.
    fn short_rows(values: &mut [f32], length: usize) {
        let mut block = [0.0; ROWS * SHORT];
        let mut parts = values.chunks_exact_mut(ROWS * length);
        for part in &mut parts {
            let block = block.as_chunks_mut::<ROWS>().0;
            for (lane, row) in part.chunks_exact(length).enumerate() {
                block.iter_mut().zip(row).for_each(|(line, value)| line[lane] = *value);
            }
            lanes(&mut block[..length]);
            for (lane, row) in part.chunks_exact_mut(length).enumerate() {
                block.iter().zip(row).for_each(|(line, value)| *value = line[lane]);
            }
        }
        parts.into_remainder().chunks_exact_mut(length).for_each(row);
    }

    fn columns(block: &mut [f32], step: usize) {
        for start in (0..step).step_by(COLUMNS) {
            let count = COLUMNS.min(step - start);
            let (mut most, mut sums) = ([f32::NEG_INFINITY; COLUMNS], [0.0_f32; COLUMNS]);
            for line in block.chunks_exact(step) {
                for (most, value) in most.iter_mut().zip(&line[start..start + count]) {
                    *most = greater(*most, *value);
                }
            }
            for line in block.chunks_exact_mut(step) {
                let line = line[start..start + count].iter_mut();
                for ((value, most), sum) in line.zip(&most).zip(&mut sums) {
                    *value = exp_below(*value - *most);
                    *sum += *value;
                }
            }
            for sum in &mut sums {
                *sum = sum.recip();
            }
            for line in block.chunks_exact_mut(step) {
                let line = line[start..start + count].iter_mut();
                line.zip(&sums).for_each(|(value, share)| *value *= share);
            }
        }
    }
}

/// Each lane by itself.
#[inline(always)]
fn lanes(lines: &mut [[f32; ROWS]]) {
    let (mut most, mut sums) = ([f32::NEG_INFINITY; ROWS], [0.0_f32; ROWS]);
    for line in &*lines {
        (0..ROWS).for_each(|lane| most[lane] = greater(most[lane], line[lane]));
    }
    for line in &mut *lines {
        for lane in 0..ROWS {
            line[lane] = exp_below(line[lane] - most[lane]);
            sums[lane] += line[lane];
        }
    }
    for sum in &mut sums {
        *sum = sum.recip();
    }
    for line in lines {
        (0..ROWS).for_each(|lane| line[lane] *= sums[lane]);
    }
}

/// The greater one, without a look at what is no number: that shows in the sum.
#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// All lanes as one, half of them at a time.
#[inline(always)]
fn fold(mut lanes: [f32; ROWS], both: impl Fn(f32, f32) -> f32) -> f32 {
    for width in [8, 4, 2, 1] {
        (0..width).for_each(|lane| lanes[lane] = both(lanes[lane], lanes[lane + width]));
    }
    lanes[0]
}

/// One row, in so many lanes.
#[inline(always)]
fn row(values: &mut [f32]) {
    let mut most = [f32::NEG_INFINITY; ROWS];
    let (whole, rest) = values.as_chunks::<ROWS>();
    for chunk in whole {
        (0..ROWS).for_each(|lane| most[lane] = greater(most[lane], chunk[lane]));
    }
    let most = rest.iter().copied().fold(fold(most, greater), greater);
    let mut sums = [0.0_f32; ROWS];
    let (whole, rest) = values.as_chunks_mut::<ROWS>();
    for chunk in whole {
        for lane in 0..ROWS {
            chunk[lane] = exp_below(chunk[lane] - most);
            sums[lane] += chunk[lane];
        }
    }
    for (value, sum) in rest.iter_mut().zip(&mut sums) {
        *value = exp_below(*value - most);
        *sum += *value;
    }
    let share = fold(sums, |a, b| a + b).recip();
    for value in values {
        *value *= share;
    }
}

#[cfg(test)]
mod tests {
    use super::super::wide::Width;
    use super::softmax;

    #[test]
    fn each_run_is_what_it_is_in_64_bits() {
        for [outer, length, step] in
            [[3, 16, 1], [37, 5, 1], [2, 200, 1], [1, 64, 1], [2, 16, 75], [1, 3, 64], [2, 7, 3], [4, 1, 1]]
        {
            let count = outer * length * step;
            let numbers: Vec<f32> = (0..count).map(|at| (at * 37 % 101) as f32 / 3.0 - 15.0).collect();
            let mut want = vec![0.0; count];
            for run in 0..outer * step {
                let place = |at: usize| run / step * length * step + at * step + run % step;
                let sum: f64 = (0..length).map(|at| f64::from(numbers[place(at)]).exp()).sum();
                (0..length).for_each(|at| want[place(at)] = f64::from(numbers[place(at)]).exp() / sum);
            }
            Width::for_each(|width| {
                let mut got = numbers.clone();
                softmax(&mut got, length, step);
                for (got, want) in got.iter().zip(&want) {
                    let off = (f64::from(*got) - want).abs();
                    assert!(off < 1e-6 * want + 1e-12, "{width:?} {outer}x{length}x{step}: {got} {want}");
                }
            });
        }
    }

    #[test]
    fn what_is_masked_gets_nothing_and_large_values_do_not_overflow() {
        for step in [1, 2] {
            let mut values = vec![1000.0, 1000.0, f32::NEG_INFINITY, -1e30, 1000.0, 1000.0];
            softmax(&mut values, 6 / step, step);
            assert!(values[2] + values[3] == 0.0 && values[0] > 0.0, "{values:?}");
        }
        let mut values = vec![f32::NEG_INFINITY; 3];
        softmax(&mut values, 3, 1);
        assert!(values[0].is_nan(), "there is nothing to share");
        let mut values = vec![1.0, f32::NAN];
        softmax(&mut values, 2, 1);
        assert!(values[0].is_nan() && values[1].is_nan(), "what is no number isn't hidden");
    }
}
