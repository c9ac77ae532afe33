//! Products of two activations, as attention has them: the second operand is packed anew for each pair of matrices.

use super::conv::Scratch;
use super::gemm::Gemm;
use super::layout::{Act, ActMut, Layout};
use super::level::Level;
use super::requant::Requant;
use super::spec::ConvSpec;

/// Matrices of `rows` rows times matrices of as many columns as the requantization has, pair by pair.
#[derive(Debug)]
pub struct Product {
    rows: usize,
    spec: ConvSpec,
    requant: Requant,
    level: Level,
}

/// Highest product of two values less their zero points.
const MOST: f64 = 255.0 * 255.0;

impl Product {
    /// Of `[rows, inner]` and `[inner, columns]`; `multiplier` is the scales of both / that of the output. None if a sum
    /// or what becomes of it may leave i32.
    pub fn new(
        [rows, inner, columns]: [usize; 3],
        multiplier: f32,
        (zero_point, [lo, hi]): (u8, [u8; 2]),
        level: Level,
    ) -> Option<Self> {
        let most = inner as f64 * MOST;
        let fits = most < f64::from(i32::MAX) && f64::from(multiplier) * most < f64::from(1 << 30);
        (fits && rows * inner * columns > 0).then(|| Self {
            rows,
            spec: ConvSpec::pointwise(inner, columns),
            requant: Requant {
                multiplier: vec![multiplier; columns],
                bias: vec![0; columns],
                zero_point,
                lo,
                hi,
            },
            level,
        })
    }

    /// Multiply-accumulates of one pair.
    pub fn macs(&self) -> usize {
        self.spec.macs(self.rows)
    }

    /// Rows of one matrix.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The level that runs.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Multiplies all pairs; both operands and the result are matrices one below the other.
    ///
    /// # Panics
    /// If their sizes don't fit.
    pub fn run(&self, a: &Act<'_>, b: &Act<'_>, to: &mut ActMut<'_>, scratch: &mut Scratch) {
        let (inner, columns) = (self.spec.in_channels, self.spec.out_channels);
        let pairs = a.layout().batch / self.rows;
        let is = |layout: &Layout, rows: usize, channels: usize| {
            *layout == Layout::matrix(pairs * rows, channels, layout.zero_point)
        };
        let fits = is(a.layout(), self.rows, inner) && is(b.layout(), inner, columns);
        assert!(fits && is(to.layout(), self.rows, columns), "sizes of a product");
        for pair in 0..pairs {
            let a = matrix(a, pair, self.rows);
            let b = matrix(b, pair, inner);
            let layout = Layout { batch: self.rows, ..*to.layout() };
            let start = to.layout().pixel(pair * self.rows, 0, 0);
            let mut to = ActMut::new(layout, &mut to.data_mut()[start..]);
            if self.level == Level::Scalar {
                self.plain(&a, &b, &mut to);
            } else {
                let zero = a.layout().zero_point;
                let gemm = Gemm::of_rows(&self.spec, &b, &self.requant, zero, self.level);
                gemm.run(&self.spec, &self.requant, (&a, None), &mut to, scratch);
            }
        }
    }

    /// The definition.
    fn plain(&self, a: &Act<'_>, b: &Act<'_>, to: &mut ActMut<'_>) {
        let value = |act: &Act<'_>, row: usize, column: usize| {
            i64::from(act.get(row, column, 0, 0)) - i64::from(act.layout().zero_point)
        };
        for row in 0..self.rows {
            for column in 0..self.spec.out_channels {
                let products = (0..self.spec.in_channels).map(|k| value(a, row, k) * value(b, k, column));
                to.set(row, column, 0, 0, self.requant.apply(column, products.sum()));
            }
        }
    }
}

/// One of the matrices that lie one below the other.
fn matrix<'a>(all: &Act<'a>, index: usize, rows: usize) -> Act<'a> {
    let layout = Layout { batch: rows, ..*all.layout() };
    Act::new(layout, &all.data()[all.layout().pixel(index * rows, 0, 0)..])
}

#[cfg(test)]
mod tests {
    use super::super::layout::Buffer;
    use super::super::tests::Random;
    use super::super::wide::Width;
    use super::*;

    fn filled(random: &mut Random, layout: Layout) -> Buffer {
        let mut buffer = Buffer::new(layout.bytes());
        buffer.bytes_mut().iter_mut().for_each(|value| *value = random.byte());
        buffer
    }

    #[test]
    fn each_level_multiplies_as_the_definition_does() {
        let mut random = Random::new(11);
        for case in 0..60 {
            let sizes = [(); 3].map(|()| random.pick(&[1, 3, 16, 17, 33, 64, 70, 130]));
            let [rows, inner, columns] = sizes;
            let pairs = random.pick(&[1, 2, 5]);
            let zero = |random: &mut Random| match random.below(3) {
                0 => 128,
                1 => random.pick(&[0, 255]),
                _ => random.byte(),
            };
            let from = Layout::matrix(pairs * rows, inner, zero(&mut random));
            let by = Layout::matrix(pairs * inner, columns, zero(&mut random));
            let out = Layout::matrix(pairs * rows, columns, random.byte());
            let (a, b) = (filled(&mut random, from), filled(&mut random, by));
            let multiplier = 0.02 / (inner as f32).sqrt();
            let run = |level: Level| {
                let limits = (out.zero_point, [3, 250]);
                let product = Product::new(sizes, multiplier, limits, level).unwrap();
                let mut to = Buffer::new(out.bytes());
                let mut act = ActMut::new(out, to.bytes_mut());
                let (a, b) = (Act::new(from, a.bytes()), Act::new(by, b.bytes()));
                product.run(&a, &b, &mut act, &mut Scratch::default());
                let mut plain = vec![0; out.elements()];
                super::super::to_plain(&act.as_act(), &mut plain);
                plain
            };
            let want = run(Level::Scalar);
            for level in Level::available() {
                Width::for_each(|width| {
                    assert_eq!(run(level), want, "case {case} {sizes:?} {level} {width:?}");
                });
            }
        }
    }

    #[test]
    fn sums_that_may_leave_their_type_are_none() {
        let new = |inner, multiplier| {
            Product::new([1, inner, 1], multiplier, (0, [0, 255]), Level::Portable).is_some()
        };
        assert!(new(33_000, 0.001) && !new(33_100, 0.001) && !new(64, 1000.0));
    }
}
