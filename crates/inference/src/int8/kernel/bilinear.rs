//! Planes of f32 enlarged or made smaller, with values in between (ONNX's Resize, mode linear, without antialias).

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
            taps.weights.push(if low == high { [1.0, 0.0] } else { [1.0 - weight, weight] });
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
        let mut line = vec![0.0; width];
        for (plane, to) in planes.zip(output.chunks_exact_mut((to_height * to_width).max(1))) {
            for (y, to) in to.chunks_exact_mut(to_width.max(1)).enumerate() {
                let row = |index: usize| &plane[index * width..][..width];
                between(&mut line, row(self.rows.low[y]), row(self.rows.high[y]), self.rows.weights[y]);
                along(to, &line, &self.columns.low, &self.columns.high, &self.columns.weights);
            }
        }
    }
}

wide! {
    fn between(to: &mut [f32], low: &[f32], high: &[f32], weights: [f32; 2]) {
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            *to = weights[0] * low + weights[1] * high;
        }
    }

    fn along(to: &mut [f32], line: &[f32], low: &[usize], high: &[usize], weights: &[[f32; 2]]) {
        for (((to, low), high), weights) in to.iter_mut().zip(low).zip(high).zip(weights) {
            *to = weights[0] * line[*low] + weights[1] * line[*high];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bilinear;

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
    fn one_pixel_is_all_there_is() {
        let mut output = [0.0; 6];
        let bilinear = Bilinear::new([1, 1], [-0.3, 0.4].into_iter(), [f32::NAN, 0.0, 7.0].into_iter());
        bilinear.run(&[5.0], &mut output);
        assert!(output.iter().all(|value| value.to_bits() == 5.0_f32.to_bits()), "{output:?}");
    }
}
