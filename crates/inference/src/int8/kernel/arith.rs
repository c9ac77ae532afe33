//! Arithmetic of f32 tensors, element by element, where the second operand may be smaller than the first.

use super::curves::{erf, sigmoid, tanh};
use super::wide::wide;

/// What is made of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arith {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// b - a.
    SubFrom,
    /// a * b.
    Mul,
    /// a / b.
    Div,
    /// b / a.
    DivInto,
}

/// What is made of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// The error function.
    Erf,
    /// x * (1 + erf(x / sqrt 2)) / 2.
    Gelu,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// x / (1 + e^-x).
    Silu,
    /// x * (x / 6 + 1 / 2), the second factor between 0 and 1.
    HardSwish,
    /// The square root.
    Sqrt,
    /// The square.
    Square,
    /// One divided by it.
    Reciprocal,
}

impl Arith {
    /// Of each value of `a` and its value of `b`: the same one for `repeat` neighbours, and from the first again after
    /// the last.
    ///
    /// # Panics
    /// If there are other numbers of results than of values, or `b` is empty.
    pub fn run(self, a: &[f32], (b, repeat): (&[f32], usize), to: &mut [f32]) {
        assert!(a.len() == to.len() && !b.is_empty() && repeat > 0, "operands of arithmetic");
        if repeat == 1 && b.len() > 1 {
            for (to, a) in to.chunks_mut(b.len()).zip(a.chunks(b.len())) {
                line(self, to, a, b);
            }
        } else if b.len() == 1 {
            scalar(self, to, a, b[0]);
        } else {
            for ((to, a), b) in to.chunks_mut(repeat).zip(a.chunks(repeat)).zip(b.iter().cycle()) {
                scalar(self, to, a, *b);
            }
        }
    }
}

impl Curve {
    /// Of each value.
    ///
    /// # Panics
    /// If there are other numbers of results than of values.
    pub fn run(self, values: &[f32], to: &mut [f32]) {
        assert_eq!(values.len(), to.len(), "lengths of a curve");
        curve(self, to, values);
    }

    /// Of one value.
    pub fn of(self, value: f32) -> f32 {
        let mut to = [0.0];
        self.run(&[value], &mut to);
        to[0]
    }
}

#[inline(always)]
fn zip(to: &mut [f32], a: &[f32], b: &[f32], each: impl Fn(f32, f32) -> f32) {
    to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = each(*a, *b));
}

#[inline(always)]
fn map(to: &mut [f32], values: &[f32], each: impl Fn(f32) -> f32) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to = each(*value));
}

wide! {
    fn line(op: Arith, to: &mut [f32], a: &[f32], b: &[f32]) {
        match op {
            Arith::Add => zip(to, a, b, |a, b| a + b),
            Arith::Sub => zip(to, a, b, |a, b| a - b),
            Arith::SubFrom => zip(to, a, b, |a, b| b - a),
            Arith::Mul => zip(to, a, b, |a, b| a * b),
            Arith::Div => zip(to, a, b, |a, b| a / b),
            Arith::DivInto => zip(to, a, b, |a, b| b / a),
        }
    }

    fn scalar(op: Arith, to: &mut [f32], a: &[f32], b: f32) {
        match op {
            Arith::Add => map(to, a, |a| a + b),
            Arith::Sub => map(to, a, |a| a - b),
            Arith::SubFrom => map(to, a, |a| b - a),
            Arith::Mul => map(to, a, |a| a * b),
            Arith::Div => map(to, a, |a| a / b),
            Arith::DivInto => map(to, a, |a| b / a),
        }
    }

    fn curve(op: Curve, to: &mut [f32], values: &[f32]) {
        match op {
            Curve::Erf => map(to, values, erf),
            Curve::Gelu => {
                map(to, values, |x| x * (0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))));
            }
            Curve::Tanh => map(to, values, tanh),
            Curve::Sigmoid => map(to, values, sigmoid),
            Curve::Silu => map(to, values, |x| x * sigmoid(x)),
            Curve::HardSwish => map(to, values, |x| {
                let gate = x / 6.0 + 0.5;
                let gate = if gate < 0.0 { 0.0 } else { gate };
                x * if gate > 1.0 { 1.0 } else { gate }
            }),
            Curve::Sqrt => map(to, values, f32::sqrt),
            Curve::Square => map(to, values, |x| x * x),
            Curve::Reciprocal => map(to, values, |x| 1.0 / x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wide::Width;
    use super::{Arith, Curve};

    type Each = fn(f32, f32) -> f32;

    #[test]
    fn each_value_meets_its_own() {
        let a: Vec<f32> = (0..60).map(|at| at as f32 + 1.0).collect();
        for (length, repeat) in [(60, 1), (1, 60), (1, 1), (5, 1), (4, 5), (20, 3), (12, 5)] {
            let b: Vec<f32> = (0..length).map(|at| at as f32 * 0.5 + 2.0).collect();
            let own = |at: usize| b[at / repeat % length];
            let all: [(Arith, Each); 6] = [
                (Arith::Add, |a, b| a + b),
                (Arith::Sub, |a, b| a - b),
                (Arith::SubFrom, |a, b| b - a),
                (Arith::Mul, |a, b| a * b),
                (Arith::Div, |a, b| a / b),
                (Arith::DivInto, |a, b| b / a),
            ];
            for (op, each) in all {
                let want: Vec<f32> = a.iter().enumerate().map(|(at, a)| each(*a, own(at))).collect();
                Width::for_each(|width| {
                    let mut got = vec![0.0; 60];
                    op.run(&a, (&b, repeat), &mut got);
                    assert_eq!(got, want, "{op:?} {length} {repeat} {width:?}");
                });
            }
        }
    }

    #[test]
    fn curves_go_through_known_points() {
        for (curve, x, want) in [
            (Curve::Erf, 0.5, 0.520_499_9),
            (Curve::Gelu, 1.0, 0.841_344_8),
            (Curve::Gelu, -30.0, 0.0),
            (Curve::Tanh, 1.0, 0.761_594_2),
            (Curve::Sigmoid, -2.0, 0.119_202_92),
            (Curve::Silu, -2.0, -0.238_405_84),
            (Curve::HardSwish, -2.0, -0.333_333_34),
            (Curve::HardSwish, -7.0, 0.0),
            (Curve::HardSwish, 7.0, 7.0),
            (Curve::Sqrt, 2.0, std::f32::consts::SQRT_2),
            (Curve::Square, 3.0, 9.0),
            (Curve::Reciprocal, 4.0, 0.25),
        ] {
            let mut got = [0.0; 19];
            curve.run(&[x; 19], &mut got);
            assert!(got.iter().all(|got| (got - want).abs() < 5e-7), "{curve:?} {got:?}");
        }
    }
}
