//! Sums of the values that rows of a product are made of.
//!
//! Weights less their zero points may need nine bits. Less one number more for each channel they fit into a byte,
//! and what that takes from a sum is the number times the sum of the row's values, less the input's zero point.

use super::layout::{Act, Layout};
use super::spec::ConvSpec;
use super::tile::{NOWHERE, Places};
use super::wide::wide;

/// What each row adds to its sums, `rows[row] * factors[column]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extra<'a> {
    /// The sum of each row's values less the zero point.
    pub(super) rows: &'a [i32],
    /// One for each column.
    pub(super) factors: &'a [i32],
}

impl Extra<'_> {
    /// What is added to one sum.
    #[inline(always)]
    pub(super) fn of(&self, row: usize, column: usize) -> i32 {
        self.rows[row].wrapping_mul(self.factors[column])
    }
}

/// Memory for the sums.
#[derive(Debug, Default)]
pub(super) struct RowSums {
    pixels: Vec<i32>,
    rows: Vec<i32>,
    corners: Places,
}

impl RowSums {
    /// Adds up the channels of each pixel, the border's included.
    pub(super) fn start(&mut self, input: &Act<'_>) {
        let layout = input.layout();
        let pixel = layout.pixel_bytes();
        self.pixels.clear();
        self.pixels.resize(layout.batch * layout.image_bytes() / pixel, 0);
        add_channels(&mut self.pixels, input.data(), pixel, layout.channels);
    }

    /// Adds up the windows of rows that `places` finds: it is given the distances of images, rows and pixels of the
    /// output and where the first starts, all counted in the input's pixels. A row without a place has no sum.
    pub(super) fn rows(
        &mut self,
        spec: &ConvSpec,
        layout: &Layout,
        places: impl FnOnce([usize; 3], usize, &mut Places),
    ) -> &[i32] {
        let [image, row] =
            [layout.image_bytes(), layout.row_bytes()].map(|bytes| bytes / layout.pixel_bytes());
        let [top, left] = [layout.border.top - spec.pads.top, layout.border.left - spec.pads.left];
        places([image, row * spec.stride[0], spec.stride[1]], top * row + left, &mut self.corners);
        let [height, width] = spec.kernel;
        let zeroes = i32::from(layout.zero_point) * (spec.taps() * spec.in_channels) as i32;
        let pixels = &self.pixels;
        let sum = |corner: &usize| {
            if *corner == NOWHERE {
                return 0;
            }
            let taps = (0..height).flat_map(|ky| (0..width).map(move |kx| [ky, kx]));
            let values =
                taps.map(|[ky, kx]| pixels[corner + ky * spec.dilation[0] * row + kx * spec.dilation[1]]);
            values.sum::<i32>() - zeroes
        };
        self.rows.clear();
        self.rows.extend(self.corners.at().iter().map(sum));
        &self.rows
    }

    pub(super) fn bytes(&self) -> usize {
        (self.pixels.len() + self.rows.len()) * 4
    }
}

wide! {
    fn add_channels(to: &mut [i32], data: &[u8], pixel: usize, channels: usize) {
        for (to, pixel) in to.iter_mut().zip(data.chunks_exact(pixel)) {
            *to = pixel[..channels].iter().map(|value| i32::from(*value)).sum();
        }
    }
}
