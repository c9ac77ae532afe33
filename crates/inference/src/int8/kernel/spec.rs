//! What a convolution is given as: shapes and weights in ONNX's own order.

use super::layout::{Border, Layout};

/// The shape of a convolution; one-dimensional ones have kernel `[1, k]` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Groups; both channel counts are multiples of it.
    pub groups: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps of the window.
    pub stride: [usize; 2],
    /// Distance of the taps.
    pub dilation: [usize; 2],
    /// Padding around the input, which must have at least this border.
    pub pads: Border,
}

impl ConvSpec {
    /// A 1x1 convolution, which a matrix product is too.
    pub const fn pointwise(in_channels: usize, out_channels: usize) -> Self {
        let pads = Border { top: 0, left: 0, bottom: 0, right: 0 };
        Self { in_channels, out_channels, groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads }
    }

    /// Height and width of the output, or nothing if the window doesn't fit.
    pub fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let height = self.extent(0, height.checked_add(self.pads.top)?.checked_add(self.pads.bottom)?)?;
        let width = self.extent(1, width.checked_add(self.pads.left)?.checked_add(self.pads.right)?)?;
        Some([height, width])
    }

    fn extent(&self, axis: usize, size: usize) -> Option<usize> {
        let reach = self.kernel[axis].checked_sub(1)?.checked_mul(self.dilation[axis])?.checked_add(1)?;
        Some(size.checked_sub(reach)?.checked_div(self.stride[axis])? + 1)
    }

    /// The output for an input of this layout, without a border, with this zero point.
    pub fn output_layout(&self, input: &Layout, zero_point: u8) -> Option<Layout> {
        let [height, width] = self.output(input.height, input.width)?;
        Some(Layout::new(input.batch, self.out_channels, height, width, zero_point))
    }

    /// The border that the input needs. Where `stride` skips the last padded rows, less would do.
    pub const fn border(&self) -> Border {
        self.pads
    }

    /// Input channels of one group.
    pub const fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of one group.
    pub const fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Places of the kernel.
    pub const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Multiply-accumulates for one image whose output has this many pixels.
    pub const fn macs(&self, pixels: usize) -> usize {
        pixels * self.out_channels * self.group_in() * self.taps()
    }

    /// One channel in, one out, per group.
    pub const fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels && self.groups == self.out_channels
    }

    /// 1x1 at stride 1 without padding.
    pub fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == [1, 1] && self.pads == Border::default()
    }

    pub(super) fn check(&self) -> Result<usize, PackError> {
        let positive = self.in_channels > 0 && self.out_channels > 0 && self.groups > 0;
        let steps = self.kernel.iter().chain(&self.stride).chain(&self.dilation).all(|v| *v > 0);
        let divides = positive
            && self.in_channels.is_multiple_of(self.groups)
            && self.out_channels.is_multiple_of(self.groups);
        if !divides || !steps {
            return Err(PackError::Shape { spec: Box::new(*self) });
        }
        self.kernel[0]
            .checked_mul(self.kernel[1])
            .and_then(|taps| taps.checked_mul(self.group_in()))
            .filter(|length| *length <= MAX_SUM)
            .and_then(|length| length.checked_mul(self.out_channels))
            .filter(|count| *count <= MAX_WEIGHTS)
            .ok_or_else(|| PackError::Shape { spec: Box::new(*self) })
    }
}

/// Products in one sum, at most: values and weights less their zero points are at most 255 off, and i32 holds that.
pub(super) const MAX_SUM: usize = (1 << 31) / (255 * 256) - 1;

/// Weights of one operator, at most.
pub(super) const MAX_WEIGHTS: usize = 1 << 30;

/// Weights as the model has them, in ONNX's order (`[out, in / groups, kh, kw]`, or `[k, n]` for a matrix).
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// Signed.
    S8(&'a [i8]),
    /// Unsigned.
    U8(&'a [u8]),
}

impl Weights<'_> {
    /// How many.
    pub const fn len(&self) -> usize {
        match self {
            Self::S8(values) => values.len(),
            Self::U8(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why weights can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A count is zero, not a multiple of the groups, or over a bound.
    #[error("shape is not possible or over a bound: {spec:?}")]
    Shape {
        /// The shape.
        spec: Box<ConvSpec>,
    },
    /// Something has the wrong number of elements.
    #[error("{what} has {got} elements, {want} are needed")]
    Length {
        /// What.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there should be.
        want: usize,
    },
    /// A zero point outside its type's range.
    #[error("zero point {got} of the weights is out of range")]
    ZeroPoint {
        /// The zero point.
        got: i32,
    },
    /// A multiplier that is negative or not finite.
    #[error("multiplier {got} of output channel {channel} is negative or not finite")]
    Multiplier {
        /// The channel.
        channel: usize,
        /// The multiplier.
        got: f32,
    },
}

pub(super) fn check_length(what: &'static str, got: usize, want: usize) -> Result<(), PackError> {
    if got == want { Ok(()) } else { Err(PackError::Length { what, got, want }) }
}
