//! Two convolutions, some rows at a time: what lies between them never exists as a whole.
//!
//! The result of an expansion is several times as large as what goes into it and what the depthwise convolution
//! behind it makes of it. Here only the rows are kept that the second convolution's window stands on.

use super::conv::{Conv, Scratch};
use super::layout::{Act, ActMut, Border, Buffer, Layout};
use super::spec::ConvSpec;

/// Bytes between the two, about, at most: they stay in the second-level cache.
const MOST: usize = 64 << 10;

/// A convolution and the one that reads its result.
#[derive(Debug)]
pub struct Chain {
    first: Conv,
    then: Conv,
    middle: Layout,
}

impl Chain {
    /// Whether two convolutions can be run so: each window is higher than its padding.
    pub fn fits(first: &ConvSpec, then: &ConvSpec) -> bool {
        [first, then].iter().all(|spec| reach(spec) > spec.pads.top + spec.pads.bottom)
    }

    /// Both, and the layout of what is between them, for one image; its border serves the second.
    ///
    /// # Panics
    /// If they don't fit.
    pub fn new(first: Conv, then: Conv, middle: Layout) -> Self {
        assert!(Self::fits(first.spec(), then.spec()), "windows that are all padding");
        assert_eq!(first.spec().out_channels, middle.channels, "channels between two convolutions");
        assert!(
            middle.border.covers(then.spec().border()),
            "the border between two convolutions is too small"
        );
        Self { first, then, middle: Layout { batch: 1, ..middle } }
    }

    /// Both, in order.
    pub const fn convs(&self) -> [&Conv; 2] {
        [&self.first, &self.then]
    }

    /// What is between them.
    pub const fn middle(&self) -> &Layout {
        &self.middle
    }

    /// Runs both, as [`Conv::run`] would one after the other.
    ///
    /// # Panics
    /// If a layout doesn't fit the shapes.
    pub fn run(&self, input: &Act<'_>, output: &mut ActMut<'_>, scratch: &mut Scratch) {
        let size = self.first.spec().output(input.layout().height, input.layout().width);
        assert_eq!(size, Some([self.middle.height, self.middle.width]), "size between two convolutions");
        let size = self.then.spec().output(self.middle.height, self.middle.width);
        assert_eq!(size, Some([output.layout().height, output.layout().width]), "size of the output");
        assert_eq!(input.layout().batch, output.layout().batch, "batch of the output");
        output.fill_border();
        let mut rows = std::mem::take(&mut scratch.middle);
        rows.reserve(self.most_rows() * self.middle.row_bytes() + Layout::SLACK);
        for image in 0..input.layout().batch {
            self.image(image, input, output, (&mut rows, scratch));
        }
        scratch.middle = rows;
    }

    fn image(
        &self,
        image: usize,
        input: &Act<'_>,
        output: &mut ActMut<'_>,
        (rows, scratch): (&mut Buffer, &mut Scratch),
    ) {
        let spec = *self.then.spec();
        let (stride, row, height) = (spec.stride[0], self.middle.row_bytes(), output.layout().height);
        let at_once = (self.most_rows() - reach(&spec)) / stride + 1;
        // How many rows, from the one on that the next window starts with, are there already.
        let mut there = 0;
        for y in (0..height).step_by(at_once) {
            let count = at_once.min(height - y);
            let need = (count - 1) * stride + reach(&spec);
            let fresh = &mut rows.bytes_mut()[there * row..];
            self.fill(image, input, [y * stride + there, y * stride + need], (fresh, scratch));
            let Border { top, bottom, .. } = spec.pads;
            let layout = Layout { height: need - top - bottom, ..self.middle };
            let border = Border { top, bottom, ..self.middle.border };
            let window = Act::new(layout.with_border(border), rows.bytes());
            self.then.run(&window, &mut output.rows(image, y, count), scratch);
            there = need.saturating_sub(count * stride);
            rows.bytes_mut().copy_within((need - there) * row..need * row, 0);
        }
    }

    /// Writes rows between the two, counted from the first of the padding on.
    fn fill(
        &self,
        image: usize,
        input: &Act<'_>,
        [from, to]: [usize; 2],
        (rows, scratch): (&mut [u8], &mut Scratch),
    ) {
        let (top, row) = (self.then.spec().pads.top, self.middle.row_bytes());
        let real = [from, to].map(|place| place.clamp(top, top + self.middle.height));
        let [before, after] = [real[0] - from, real[1] - from];
        rows[..before * row].fill(self.middle.zero_point);
        rows[after * row..(to - from) * row].fill(self.middle.zero_point);
        let count = after - before;
        if count == 0 {
            return;
        }
        let spec = self.first.spec();
        let (first, Border { top: pad, bottom, .. }) = ((real[0] - top) * spec.stride[0], spec.pads);
        let height = (count - 1) * spec.stride[0] + reach(spec) - pad - bottom;
        let input = input.rows(image, first, [pad, height, bottom]);
        let Border { left, right, .. } = self.middle.border;
        let border = Border { top: 0, left, bottom: 0, right };
        let layout = Layout { height: count, ..self.middle }.with_border(border);
        self.first.run(&input, &mut ActMut::new(layout, &mut rows[before * row..]), scratch);
    }

    /// Rows between the two that are kept at once.
    fn most_rows(&self) -> usize {
        let (spec, row) = (self.then.spec(), self.middle.row_bytes());
        (MOST / row.max(1)).max(reach(spec)).min(self.middle.height + spec.pads.top + spec.pads.bottom)
    }
}

/// Rows from the first to the last of a window.
const fn reach(spec: &ConvSpec) -> usize {
    (spec.kernel[0] - 1) * spec.dilation[0] + 1
}
