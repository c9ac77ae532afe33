//! Planes of f32 or of bytes enlarged or made smaller, with values in between (ONNX's Resize, mode linear, without
//! antialias).

use super::layout::{Act, ActMut};
use super::wide::wide;

/// Between which two places of the source each place of the result lies, and how much each of the two counts.
#[derive(Debug, Clone)]
struct Taps {
    low: Vec<usize>,
    high: Vec<usize>,
    weights: Vec<[f32; 2]>,
}

impl Taps {
    /// From where each place of the result lies in a source of so many; what lies outside counts as the nearest inside.
    fn new(places: impl Iterator<Item = f32>, size: usize) -> Self {
        let last = size.saturating_sub(1);
        let mut taps = Self { low: Vec::new(), high: Vec::new(), weights: Vec::new() };
        for place in places {
            let place = place.max(0.0).min(last as f32);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the source")]
            let low = (place as usize).min(last);
            let high = (low + 1).min(last);
            let weight = place - low as f32;
            taps.low.push(low);
            taps.high.push(high);
            // One pixel twice: as ONNX Runtime weighs it, which shows where bytes are cut off.
            taps.weights.push(if low == high { [0.5, 0.5] } else { [1.0 - weight, weight] });
        }
        taps
    }
}

/// Planes from one size to another.
#[derive(Debug, Clone)]
pub struct Bilinear {
    from: [usize; 2],
    rows: Taps,
    columns: Taps,
}

impl Bilinear {
    /// From planes of this size, by the places of rows and columns in them.
    pub fn new(
        from: [usize; 2],
        rows: impl Iterator<Item = f32>,
        columns: impl Iterator<Item = f32>,
    ) -> Self {
        Self { from, rows: Taps::new(rows, from[0]), columns: Taps::new(columns, from[1]) }
    }

    /// Plane after plane.
    pub fn run(&self, input: &[f32], output: &mut [f32]) {
        let [height, width] = self.from;
        let (to_height, to_width) = (self.rows.low.len(), self.columns.low.len());
        let planes = input.chunks_exact((height * width).max(1));
        for (plane, to) in planes.zip(output.chunks_exact_mut((to_height * to_width).max(1))) {
            for (y, to) in to.chunks_exact_mut(to_width.max(1)).enumerate() {
                let row = |index: usize| &plane[index * width..][..width];
                let rows = [row(self.rows.low[y]), row(self.rows.high[y])];
                between_rows(to, rows, self.rows.weights[y], &self.columns);
            }
        }
    }

    /// Images of bytes, which stand for themselves less `offset`: sums in f32 in ONNX Runtime's order (of its
    /// `UpsampleBilinear`), cut off towards zero.
    pub fn run_bytes(&self, input: &Act<'_>, offset: f32, output: &mut ActMut<'_>) {
        let (source, target) = (*input.layout(), *output.layout());
        let bytes = source.pixel_bytes().min(target.pixel_bytes());
        if !target.is_dense() {
            output.data_mut().fill(target.zero_point);
        }
        let (rows, columns) = (&self.rows, &self.columns);
        for n in 0..target.batch.min(source.batch) {
            let pixel = |y: usize, x: usize| &input.data()[source.pixel(n, y, x)..][..bytes];
            for y in 0..rows.low.len() {
                for x in 0..columns.low.len() {
                    let [top, bottom] = [rows.low[y], rows.high[y]];
                    let [left, right] = [columns.low[x], columns.high[x]];
                    let four =
                        [pixel(top, left), pixel(top, right), pixel(bottom, left), pixel(bottom, right)];
                    let ([upper, lower], [before, behind]) = (rows.weights[y], columns.weights[x]);
                    let weights = [upper * before, upper * behind, lower * before, lower * behind];
                    let to = &mut output.data_mut()[target.pixel(n, y, x)..][..bytes];
                    between_four(to, four, weights, offset);
                }
            }
        }
    }
}

wide! {
    /// Summed in ONNX Runtime's order: quantized again, ties come out as they do there.
    fn between_rows(to: &mut [f32], rows: [&[f32]; 2], weights: [f32; 2], columns: &Taps) {
        let ([top, bottom], [upper, lower]) = (rows, weights);
        let taps = columns.low.iter().zip(&columns.high).zip(&columns.weights);
        for (to, ((left, right), [before, behind])) in to.iter_mut().zip(taps) {
            let above = upper * before * top[*left] + upper * behind * top[*right];
            *to = above + lower * before * bottom[*left] + lower * behind * bottom[*right];
        }
    }

    fn between_four(to: &mut [u8], four: [&[u8]; 4], weights: [f32; 4], offset: f32) {
        let [a, b, c, d] = four;
        for ((((to, a), b), c), d) in to.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            let weighed = |byte: &u8, weight: f32| weight * (f32::from(*byte) - offset);
            let upper = weighed(a, weights[0]) + weighed(b, weights[1]);
            let sum = upper + weighed(c, weights[2]) + weighed(d, weights[3]);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "that is the rule")]
            let whole = (sum as i32 + offset as i32) as u8;
            *to = whole;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Border, Buffer, Layout};
    use super::super::{from_plain, to_plain};
    use super::{Act, ActMut, Bilinear};

    #[test]
    fn each_value_lies_between_its_four_neighbours() {
        let (from, to) = ([3, 4], [5, 7]);
        let places =
            |from: usize, to: usize| (0..to).map(move |at| (at as f32 + 0.5) * from as f32 / to as f32 - 0.5);
        let bilinear = Bilinear::new(from, places(from[0], to[0]), places(from[1], to[1]));
        let input: Vec<f32> = (0..24).map(|at| (at * 7 % 24) as f32 - 9.0).collect();
        let mut output = vec![f32::NAN; 2 * to[0] * to[1]];
        bilinear.run(&input, &mut output);
        let y: Vec<f32> = places(from[0], to[0]).collect();
        let x: Vec<f32> = places(from[1], to[1]).collect();
        for (index, got) in output.iter().enumerate() {
            let (plane, row, column) = (index / 35, index / 7 % 5, index % 7);
            let at = |y: f32, x: f32| {
                let inside = |at: f32, size: usize| at.clamp(0.0, size as f32 - 1.0) as usize;
                input[plane * 12 + inside(y, 3) * 4 + inside(x, 4)]
            };
            let (y, x) = (y[row].clamp(0.0, 2.0), x[column].clamp(0.0, 3.0));
            let (dy, dx) = (y.fract(), x.fract());
            let upper = at(y.floor(), x.floor()) * (1.0 - dx) + at(y.floor(), x.floor() + 1.0) * dx;
            let lower =
                at(y.floor() + 1.0, x.floor()) * (1.0 - dx) + at(y.floor() + 1.0, x.floor() + 1.0) * dx;
            let want = upper * (1.0 - dy) + lower * dy;
            assert!((got - want).abs() < 1e-4, "{index}: {got} {want}");
        }
    }

    #[test]
    fn bytes_are_cut_off_towards_zero() {
        let bilinear = Bilinear::new([1, 2], [0.0].into_iter(), [0.0, 0.5, 1.0].into_iter());
        for (offset, values, want) in [
            (0, [10, 13, 7, 0], [10, 11, 13, 7, 3, 0]),
            // -3 and 4, -7 and 0.
            (128, [125, 132, 121, 128], [125, 128, 132, 121, 125, 128]),
        ] {
            let [source, target] = [2, 3].map(|width| Layout::new(1, 2, 1, width, offset));
            let target = target.with_border(Border::all(1));
            let [mut from, mut to] = [source, target].map(|layout| Buffer::new(layout.bytes()));
            from_plain(&values, &mut ActMut::new(source, from.bytes_mut()));
            let mut made = ActMut::new(target, to.bytes_mut());
            bilinear.run_bytes(&Act::new(source, from.bytes()), f32::from(offset), &mut made);
            let mut got = [0; 6];
            to_plain(&Act::new(target, to.bytes()), &mut got);
            assert_eq!((got, to.bytes()[0]), (want, offset));
        }
    }

    #[test]
    fn one_pixel_is_all_there_is() {
        let mut output = [0.0; 6];
        let bilinear = Bilinear::new([1, 1], [-0.3, 0.4].into_iter(), [f32::NAN, 0.0, 7.0].into_iter());
        bilinear.run(&[5.0], &mut output);
        assert!(output.iter().all(|value| value.to_bits() == 5.0_f32.to_bits()), "{output:?}");
    }
}
