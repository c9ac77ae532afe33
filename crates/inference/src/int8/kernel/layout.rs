//! How activations lie in memory: channels-last, channels rounded up, with an optional border of zero points.

/// Pixels around the image that hold the zero point, so that a convolution needs no test for its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Border {
    /// Rows above.
    pub top: usize,
    /// Pixels on the left of each row.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Pixels on the right of each row.
    pub right: usize,
}

impl Border {
    /// The same on all four sides.
    pub const fn all(size: usize) -> Self {
        Self { top: size, left: size, bottom: size, right: size }
    }

    /// The smallest border that serves both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }

    /// Whether each side is at least as wide as that of `other`.
    pub fn covers(self, other: Self) -> bool {
        self.union(other) == self
    }

    const fn is_none(self) -> bool {
        self.top == 0 && self.left == 0 && self.bottom == 0 && self.right == 0
    }
}

/// Shape and place of one activation `[batch, channels, height, width]`, u8.
///
/// Pixel (y, x) of image n starts at `pixel(n, y, x)` and has `pixel_bytes()` bytes: the channels, then lanes of
/// no meaning (weights for them are zero) up to a multiple of 16. A matrix is `[rows, features, 1, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Images, or rows of a matrix.
    pub batch: usize,
    /// Channels, or features.
    pub channels: usize,
    /// Rows of pixels; 1 for one-dimensional signals.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// The border; the operation that writes the activation fills it.
    pub border: Border,
    /// The u8 that stands for 0.0.
    pub zero_point: u8,
    /// Up to four channels in 4-byte pixels: what a first convolution reads. Only [`quantize`](super::quantize)
    /// and [`from_plain`](super::from_plain) write it, only [`Conv`](super::Conv) reads it.
    pub is_packed: bool,
}

impl Layout {
    /// Bytes after the last pixel that kernels may read (never write), so that a vector may overhang.
    pub const SLACK: usize = 256;

    /// Without a border.
    pub const fn new(batch: usize, channels: usize, height: usize, width: usize, zero_point: u8) -> Self {
        let border = Border { top: 0, left: 0, bottom: 0, right: 0 };
        Self { batch, channels, height, width, border, zero_point, is_packed: false }
    }

    /// `rows` rows of `features`.
    pub const fn matrix(rows: usize, features: usize, zero_point: u8) -> Self {
        Self::new(rows, features, 1, 1, zero_point)
    }

    /// The same with this border.
    #[must_use]
    pub const fn with_border(self, border: Border) -> Self {
        Self { border, ..self }
    }

    /// The same in 4-byte pixels, if it has at most four channels.
    #[must_use]
    pub const fn packed(self) -> Self {
        Self { is_packed: self.channels <= 4, ..self }
    }

    /// Distance of two neighbouring pixels.
    pub const fn pixel_bytes(&self) -> usize {
        if self.is_packed {
            return 4;
        }
        // Where pixels lie a multiple of 512 bytes apart, some channels of all of them share few sets of the cache.
        let bytes = self.channels.next_multiple_of(16);
        if bytes.is_multiple_of(512) { bytes + Self::APART } else { bytes }
    }

    /// Bytes between pixels that would otherwise be a multiple of 512 bytes.
    const APART: usize = 64;

    /// Distance of two rows.
    pub const fn row_bytes(&self) -> usize {
        (self.border.left + self.width + self.border.right) * self.pixel_bytes()
    }

    /// Distance of two images.
    pub const fn image_bytes(&self) -> usize {
        (self.border.top + self.height + self.border.bottom) * self.row_bytes()
    }

    /// Where pixel (y, x) of image n starts.
    pub const fn pixel(&self, n: usize, y: usize, x: usize) -> usize {
        n * self.image_bytes()
            + (self.border.top + y) * self.row_bytes()
            + (self.border.left + x) * self.pixel_bytes()
    }

    /// Bytes that a buffer for this activation has at least, slack included.
    pub const fn bytes(&self) -> usize {
        self.batch * self.image_bytes() + Self::SLACK
    }

    /// As [`bytes`](Self::bytes), or nothing where that is over `limit` or doesn't fit at all.
    pub fn checked_bytes(&self, limit: usize) -> Option<usize> {
        let channels = self.channels.checked_next_multiple_of(16)?.checked_add(Self::APART)?;
        let rows = self.border.top.checked_add(self.height)?.checked_add(self.border.bottom)?;
        let columns = self.border.left.checked_add(self.width)?.checked_add(self.border.right)?;
        let pixels = rows.checked_mul(columns)?.checked_mul(self.batch)?;
        pixels.checked_mul(channels)?.checked_add(Self::SLACK)?;
        Some(self.bytes()).filter(|bytes| *bytes <= limit)
    }

    /// `batch * height * width`.
    pub const fn pixels(&self) -> usize {
        self.batch * self.height * self.width
    }

    /// `batch * channels * height * width`.
    pub const fn elements(&self) -> usize {
        self.pixels() * self.channels
    }

    /// Whether all pixels lie one behind the other.
    pub const fn is_dense(&self) -> bool {
        self.border.is_none()
    }

    /// Whether both have the same batch, channels, height and width.
    pub const fn same_shape(&self, other: &Self) -> bool {
        self.batch == other.batch
            && self.channels == other.channels
            && self.height == other.height
            && self.width == other.width
    }
}

/// An activation to read.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    layout: Layout,
    data: &'a [u8],
}

impl<'a> Act<'a> {
    /// Takes the first `layout.bytes()` of `data`.
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(layout: Layout, data: &'a [u8]) -> Self {
        let bytes = layout.bytes();
        assert!(data.len() >= bytes, "activation of {} bytes, {bytes} are needed", data.len());
        Self { layout, data: &data[..bytes] }
    }

    /// Shape and place.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All bytes, border and slack included.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Some rows of one image for a window that is padded with `above` and `below` rows: those become the border,
    /// though they may be rows of the image. `first` counts from the first row of the padding.
    pub(super) fn rows(&self, image: usize, first: usize, [above, height, below]: [usize; 3]) -> Act<'a> {
        let whole = self.layout.border;
        let border = Border { top: above, bottom: below, ..whole };
        let layout = Layout { batch: 1, height, border, ..self.layout };
        let start = image * self.layout.image_bytes() + (whole.top - above + first) * layout.row_bytes();
        Act::new(layout, &self.data[start..])
    }

    /// One value.
    pub fn get(&self, n: usize, c: usize, y: usize, x: usize) -> u8 {
        self.data[self.layout.pixel(n, y, x) + c]
    }
}

/// An activation to write.
#[derive(Debug)]
pub struct ActMut<'a> {
    layout: Layout,
    data: &'a mut [u8],
}

impl<'a> ActMut<'a> {
    /// Takes the first `layout.bytes()` of `data`.
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(layout: Layout, data: &'a mut [u8]) -> Self {
        let bytes = layout.bytes();
        assert!(data.len() >= bytes, "activation of {} bytes, {bytes} are needed", data.len());
        Self { layout, data: &mut data[..bytes] }
    }

    /// Shape and place.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// To read what was written.
    pub fn as_act(&self) -> Act<'_> {
        Act { layout: self.layout, data: self.data }
    }

    /// All bytes, border and slack included.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.data
    }

    /// Sets one value.
    pub fn set(&mut self, n: usize, c: usize, y: usize, x: usize, value: u8) {
        self.data[self.layout.pixel(n, y, x) + c] = value;
    }

    /// Some rows of one image, with the border on their left and right alone.
    pub(super) fn rows(&mut self, image: usize, first: usize, height: usize) -> ActMut<'_> {
        let border = Border { top: 0, bottom: 0, ..self.layout.border };
        let layout = Layout { batch: 1, height, border, ..self.layout };
        let start = self.layout.pixel(image, first, 0) - border.left * layout.pixel_bytes();
        ActMut::new(layout, &mut self.data[start..])
    }

    /// Writes the zero point into the border; every operation does so for its result.
    pub(super) fn fill_border(&mut self) {
        let layout = self.layout;
        if layout.is_dense() {
            return;
        }
        let Border { top, bottom, right, .. } = layout.border;
        let (row, pixel) = (layout.row_bytes(), layout.pixel_bytes());
        for n in 0..layout.batch {
            let image = &mut self.data[n * layout.image_bytes()..][..layout.image_bytes()];
            image[..top * row].fill(layout.zero_point);
            for line in image[top * row..].chunks_exact_mut(row).take(layout.height) {
                line[..layout.border.left * pixel].fill(layout.zero_point);
                let end = line.len() - right * pixel;
                line[end..].fill(layout.zero_point);
            }
            let below = image.len() - bottom * row;
            image[below..].fill(layout.zero_point);
        }
    }
}

/// Bytes that start on a cache line.
#[derive(Debug, Default)]
pub struct Buffer {
    data: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    const ALIGN: usize = 64;

    /// `len` zeroes.
    pub fn new(len: usize) -> Self {
        let data = vec![0; len + Self::ALIGN];
        let start = data.as_ptr().align_offset(Self::ALIGN).min(Self::ALIGN);
        Self { data, start, len }
    }

    /// Makes it at least `len` long; the contents are lost if it has to grow.
    pub fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Self::new(len);
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.start + self.len]
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::{ActMut, Border, Buffer, Layout};

    #[test]
    fn the_border_holds_the_zero_point_and_nothing_else_is_touched() {
        let border = Border { top: 1, left: 2, bottom: 0, right: 1 };
        let layout = Layout::new(2, 3, 2, 3, 9).with_border(border);
        let mut data = vec![1; layout.bytes()];
        let mut act = ActMut::new(layout, &mut data);
        act.fill_border();
        for n in 0..2 {
            for y in 0..2 {
                for x in 0..3 {
                    assert_eq!(act.as_act().get(n, 0, y, x), 1);
                }
            }
        }
        let zeroes: usize = data.iter().filter(|v| **v == 9).map(|v| usize::from(*v) / 9).sum();
        assert_eq!(zeroes, 2 * (3 * 6 - 2 * 3) * 16);
        assert!(data[layout.bytes() - Layout::SLACK..].iter().all(|v| *v == 1));
    }

    #[test]
    fn a_buffer_starts_on_a_cache_line() {
        let mut buffer = Buffer::new(100);
        assert_eq!(buffer.bytes().as_ptr().align_offset(64), 0);
        buffer.reserve(1000);
        assert_eq!(buffer.bytes().as_ptr().align_offset(64), 0);
        assert_eq!(buffer.bytes_mut().len(), 1000);
    }

    #[test]
    fn a_size_that_does_not_fit_is_refused() {
        assert_eq!(Layout::new(1, usize::MAX, 4, 4, 0).checked_bytes(1 << 30), None);
        assert_eq!(Layout::new(1, 20, 4, 4, 0).checked_bytes(1 << 30), Some(16 * 32 + Layout::SLACK));
    }
}
