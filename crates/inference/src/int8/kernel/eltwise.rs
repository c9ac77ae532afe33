//! Element by element: addition and multiplication with requantization, tables, concatenation, copies.

use super::layout::{Act, ActMut, Layout};
use super::requant::round;
use super::table;
use super::wide::wide;

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
    #[inline(always)]
    pub fn apply(&self, a: u8, b: u8, [za, zb, z]: [u8; 3]) -> u8 {
        let a = (i32::from(a) - i32::from(za)) as f32 * self.a_multiplier;
        let b = (i32::from(b) - i32::from(zb)) as f32 * self.b_multiplier;
        round(a + b, z).max(self.lo).min(self.hi)
    }

    /// Whether every sum is a number: zero times what is beyond f32 is none, nor is the difference of two such.
    pub fn is_finite(&self) -> bool {
        (255.0 * (self.a_multiplier.abs() + self.b_multiplier.abs())).is_finite()
    }

    /// Whether no sum leaves i32, which the vector units' conversion would get wrong.
    pub(super) fn fits(&self) -> bool {
        255.0 * (self.a_multiplier.abs() + self.b_multiplier.abs()) < (1 << 30) as f32
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
    /// Whether every product is a number: zero times what is beyond f32 is none.
    pub fn is_finite(&self) -> bool {
        self.multiplier.is_finite()
    }

    /// One product; the zero points are those of a, b and the output.
    #[inline(always)]
    pub fn apply(&self, a: u8, b: u8, [za, zb, z]: [u8; 3]) -> u8 {
        let product = (i32::from(a) - i32::from(za)) * (i32::from(b) - i32::from(zb));
        round(product as f32 * self.multiplier, z).max(self.lo).min(self.hi)
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
    zip(a, b, output, |to, a, b| add_line(to, a, b, spec, zeroes));
}

/// Adds `other` to what is there, whose zero point is `own_zero_point`.
pub(super) fn add_to(output: &mut ActMut<'_>, own_zero_point: u8, other: &Act<'_>, spec: &AddSpec) {
    let layout = *output.layout();
    let zeroes = [own_zero_point, other.layout().zero_point, layout.zero_point];
    for n in 0..layout.batch {
        for y in 0..layout.height {
            let (from, to) = (other.layout().pixel(n, y, 0), layout.pixel(n, y, 0));
            let bytes = layout.width * layout.pixel_bytes();
            let from = &other.data()[from..][..bytes];
            add_to_line(&mut output.data_mut()[to..][..bytes], from, spec, zeroes);
        }
    }
}

/// Multiplies two activations of one shape, or one whose second operand is one pixel for each image.
///
/// # Panics
/// If the shapes differ otherwise.
pub fn mul(a: &Act<'_>, b: &Act<'_>, spec: &MulSpec, output: &mut ActMut<'_>) {
    let zeroes = [a.layout().zero_point, b.layout().zero_point, output.layout().zero_point];
    zip(a, b, output, |to, a, b| mul_line(to, a, b, spec, zeroes));
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
        // Where pixels are as large, a row is one line, lanes of no meaning included.
        let is_alone = parts.len() == 1 && from.pixel_bytes() == layout.pixel_bytes();
        let (bytes, pixels) =
            if is_alone { (layout.width * layout.pixel_bytes(), layout.width) } else { (from.channels, 1) };
        for n in 0..layout.batch {
            for y in 0..layout.height {
                for x in (0..layout.width).step_by(pixels.max(1)) {
                    let source = &part.data()[from.pixel(n, y, x)..][..bytes];
                    let target = &mut output.data_mut()[layout.pixel(n, y, x) + first..][..bytes];
                    match table {
                        None => target.copy_from_slice(source),
                        Some(Table(table)) => table::map(target, source, table),
                    }
                }
            }
        }
        first += from.channels;
    }
}

fn zip(a: &Act<'_>, b: &Act<'_>, output: &mut ActMut<'_>, line: impl Fn(&mut [u8], &[u8], &[u8])) {
    let layout = *output.layout();
    let one = Layout { height: 1, width: 1, ..layout };
    let is_one = b.layout().same_shape(&one);
    assert!(is_one || b.layout().same_shape(&layout), "the second operand differs in shape");
    assert!(a.layout().same_shape(&layout), "the first operand differs in shape");
    assert!(![a.layout(), b.layout(), &layout].iter().any(|layout| layout.is_packed), "packed pixels");
    output.fill_border();
    let pixel = layout.pixel_bytes();
    for n in 0..layout.batch {
        for y in 0..layout.height {
            let (left, bytes) = (a.layout().pixel(n, y, 0), layout.width * pixel);
            let left = &a.data()[left..][..bytes];
            let target = &mut output.data_mut()[layout.pixel(n, y, 0)..][..bytes];
            let right = if is_one { b.layout().pixel(n, 0, 0) } else { b.layout().pixel(n, y, 0) };
            let right = &b.data()[right..];
            if is_one {
                for (target, left) in target.chunks_exact_mut(pixel).zip(left.chunks_exact(pixel)) {
                    line(target, left, &right[..pixel]);
                }
            } else {
                line(target, left, &right[..bytes]);
            }
        }
    }
}

wide! {
    fn add_line(to: &mut [u8], a: &[u8], b: &[u8], spec: &AddSpec, zeroes: [u8; 3]) {
        for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
            *to = spec.apply(*a, *b, zeroes);
        }
    }

    fn add_to_line(to: &mut [u8], b: &[u8], spec: &AddSpec, zeroes: [u8; 3]) {
        for (to, b) in to.iter_mut().zip(b) {
            *to = spec.apply(*to, *b, zeroes);
        }
    }

    fn mul_line(to: &mut [u8], a: &[u8], b: &[u8], spec: &MulSpec, zeroes: [u8; 3]) {
        for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
            *to = spec.apply(*a, *b, zeroes);
        }
    }
}
