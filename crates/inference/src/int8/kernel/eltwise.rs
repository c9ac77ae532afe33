//! Element by element: addition and multiplication with requantization, tables, concatenation, copies.

use super::layout::{Act, ActMut, Layout};
use super::requant::round;

/// QLinearAdd: round((a - za) * ma + (b - zb) * mb) + z, within `lo..=hi`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AddSpec {
    /// Scale of a / scale of the output.
    pub a_multiplier: f32,
    /// Scale of b / scale of the output.
    pub b_multiplier: f32,
    /// Lowest output.
    pub lo: u8,
    /// Highest output.
    pub hi: u8,
}

impl AddSpec {
    /// One sum; the zero points are those of a, b and the output.
    pub fn apply(&self, a: u8, b: u8, [za, zb, z]: [u8; 3]) -> u8 {
        let a = (i32::from(a) - i32::from(za)) as f32 * self.a_multiplier;
        let b = (i32::from(b) - i32::from(zb)) as f32 * self.b_multiplier;
        round(a + b, z).clamp(self.lo, self.hi)
    }
}

/// QLinearMul: round((a - za) * (b - zb) * m) + z, within `lo..=hi`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MulSpec {
    /// Scale of a * scale of b / scale of the output.
    pub multiplier: f32,
    /// Lowest output.
    pub lo: u8,
    /// Highest output.
    pub hi: u8,
}

impl MulSpec {
    /// One product; the zero points are those of a, b and the output.
    pub fn apply(&self, a: u8, b: u8, [za, zb, z]: [u8; 3]) -> u8 {
        let product = (i32::from(a) - i32::from(za)) * (i32::from(b) - i32::from(zb));
        round(product as f32 * self.multiplier, z).clamp(self.lo, self.hi)
    }
}

/// Any function of one value, by its 256 results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(pub [u8; 256]);

impl Table {
    /// The table of `function` between two scales and zero points.
    pub fn new(from: (f32, u8), to: (f32, u8), function: impl Fn(f32) -> f32) -> Self {
        let mut table = [0; 256];
        for (value, result) in table.iter_mut().enumerate() {
            let real = (value as i32 - i32::from(from.1)) as f32 * from.0;
            *result = round(function(real) / to.0, to.1);
        }
        Self(table)
    }
}

/// Adds two activations of one shape, or one whose second operand is one pixel for each image.
///
/// # Panics
/// If the shapes differ otherwise.
pub fn add(a: &Act<'_>, b: &Act<'_>, spec: &AddSpec, output: &mut ActMut<'_>) {
    let zeroes = [a.layout().zero_point, b.layout().zero_point, output.layout().zero_point];
    zip(a, b, output, |a, b| spec.apply(a, b, zeroes));
}

/// Multiplies two activations of one shape, or one whose second operand is one pixel for each image.
///
/// # Panics
/// If the shapes differ otherwise.
pub fn mul(a: &Act<'_>, b: &Act<'_>, spec: &MulSpec, output: &mut ActMut<'_>) {
    let zeroes = [a.layout().zero_point, b.layout().zero_point, output.layout().zero_point];
    zip(a, b, output, |a, b| spec.apply(a, b, zeroes));
}

/// Maps each value; the border of the result holds its own zero point.
///
/// # Panics
/// If the shapes differ.
pub fn lookup(input: &Act<'_>, table: &Table, output: &mut ActMut<'_>) {
    concat(&[(*input, Some(table))], output);
}

/// Copies, for another border.
///
/// # Panics
/// If the shapes differ.
pub fn copy(input: &Act<'_>, output: &mut ActMut<'_>) {
    concat(&[(*input, None)], output);
}

/// Puts the channels of several activations one behind the other; a table requantizes one.
///
/// # Panics
/// If the shapes don't fit.
pub fn concat(parts: &[(Act<'_>, Option<&Table>)], output: &mut ActMut<'_>) {
    let channels: usize = parts.iter().map(|(part, _)| part.layout().channels).sum();
    let layout = *output.layout();
    assert_eq!(channels, layout.channels, "channels of a concatenation");
    output.fill_border();
    let mut first = 0;
    for (part, table) in parts {
        let from = part.layout();
        assert!(from.same_shape(&Layout { channels: from.channels, ..layout }), "sizes of a concatenation");
        for n in 0..layout.batch {
            for y in 0..layout.height {
                for x in 0..layout.width {
                    let source = &part.data()[from.pixel(n, y, x)..][..from.channels];
                    let target = &mut output.data_mut()[layout.pixel(n, y, x) + first..][..from.channels];
                    match table {
                        None => target.copy_from_slice(source),
                        Some(Table(table)) => {
                            for (to, value) in target.iter_mut().zip(source) {
                                *to = table[usize::from(*value)];
                            }
                        }
                    }
                }
            }
        }
        first += from.channels;
    }
}

fn zip(a: &Act<'_>, b: &Act<'_>, output: &mut ActMut<'_>, map: impl Fn(u8, u8) -> u8) {
    let layout = *output.layout();
    assert!(a.layout().same_shape(&layout), "the first operand differs in shape");
    let one = Layout { height: 1, width: 1, ..layout };
    let is_one = b.layout().same_shape(&one);
    assert!(is_one || b.layout().same_shape(&layout), "the second operand differs in shape");
    output.fill_border();
    for n in 0..layout.batch {
        for y in 0..layout.height {
            for x in 0..layout.width {
                let right = if is_one { b.layout().pixel(n, 0, 0) } else { b.layout().pixel(n, y, x) };
                let right = &b.data()[right..][..layout.channels];
                let left = &a.data()[a.layout().pixel(n, y, x)..][..layout.channels];
                let target = &mut output.data_mut()[layout.pixel(n, y, x)..][..layout.channels];
                for ((to, left), right) in target.iter_mut().zip(left).zip(right) {
                    *to = map(*left, *right);
                }
            }
        }
    }
}
