//! Resize between pixels, in f32 or of bytes, as ONNX Runtime counts the places and rounds.

use super::Reason;
use super::graph::Node;
use super::shapes::axis_of;
use super::tensor;
use super::walk::{Bound, Form, Kind, Lowering};
use crate::int8::kernel::Bilinear;
use crate::int8::program::{FloatOp, Step};

/// Most pixels of all channels of a row's result.
const MAX_ELEMENTS: usize = 64 << 20;

/// One axis: its size before and after, and the scale that places are counted by.
#[derive(Clone, Copy)]
struct Axis {
    from: usize,
    to: usize,
    scale: f32,
}

impl Axis {
    fn with_size(self, size: i64) -> Option<Self> {
        let to = usize::try_from(size).ok().filter(|_| self.from > 0)?;
        Some(Self { to, scale: to as f32 / self.from as f32, ..self })
    }

    fn with_scale(self, scale: f32) -> Option<Self> {
        let to = (scale * self.from as f32).floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
        let to = (1.0..=MAX_ELEMENTS as f32).contains(&to).then_some(to as usize)?;
        Some(Self { to, scale, ..self })
    }

    /// Where each place of the result lies in the source; none for an unknown way to count.
    fn places(self, mode: &str) -> Option<impl Iterator<Item = f32>> {
        let Self { from, to, scale } = self;
        let counted = match mode {
            "half_pixel" => 0,
            "pytorch_half_pixel" if to > 1 => 0,
            "asymmetric" => 1,
            "align_corners" if to > 1 => 2,
            "pytorch_half_pixel" | "align_corners" => 3,
            _ => return None,
        };
        let place = move |at: usize| match (at as f32, counted) {
            (at, _) if scale.to_bits() == 1.0_f32.to_bits() => at,
            (at, 0) => (at + 0.5) / scale - 0.5,
            (at, 1) => at / scale,
            (at, 2) => at * (from as f32 - 1.0) / (to as f32 - 1.0),
            _ => 0.0,
        };
        Some((0..to).map(place))
    }
}

impl<'a> Lowering<'a> {
    /// Resize and Upsample of images, mode linear.
    pub(super) fn interpolate(&mut self, node: Node<'a>, shape: [usize; 4]) -> Result<(), Reason> {
        if node.int("antialias").unwrap_or(0) != 0 {
            return Err(Reason::Form("it smooths what it makes smaller"));
        }
        let axes = self.resized_axes(node, shape)?;
        let [images, channels, rows, columns] = axes;
        if images.to != images.from || channels.to != channels.from {
            return Err(Reason::Form("it changes more than the pixels"));
        }
        let to = axes.map(|axis| axis.to).to_vec();
        let elements = to.iter().try_fold(1_usize, |all, size| all.checked_mul(*size));
        if elements.is_none_or(|elements| elements == 0 || elements > MAX_ELEMENTS) {
            return Err(Reason::Shape { shape: to });
        }
        // Before opset 11 places are counted from the corner.
        let mode = node.text("coordinate_transformation_mode");
        let mode = if has_region(node) { mode.unwrap_or("half_pixel") } else { "asymmetric" };
        let (Some(y), Some(x)) = (rows.places(mode), columns.places(mode)) else {
            return Err(Reason::Form("it counts places in a way that isn't known"));
        };
        let bilinear = Bilinear::new([rows.from, columns.from], y, x);
        let name = Self::input(node, 0)?;
        let bound = self.lookup(name)?;
        if let Kind::Bytes(..) = bound.kind {
            return self.interpolate_bytes(node, &bound, bilinear, to);
        }
        let (from, _) = self.float(name)?;
        self.push_float(FloatOp::Bilinear(Box::new(bilinear)), vec![from], node.output(), to);
        Ok(())
    }

    /// In the QOperator form: what the bytes stand for doesn't count.
    fn interpolate_bytes(
        &mut self,
        node: Node<'a>,
        bound: &Bound,
        bilinear: Bilinear,
        shape: Vec<usize>,
    ) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        let quant = self.quant_of(bound).ok_or_else(|| Reason::NotQuantized { name: name.to_owned() })?;
        let quant = self.with_form(quant, Form::First)?;
        let offset = if quant.params.is_signed { 128.0 } else { 0.0 };
        let to = self.act(&shape, Form::First, quant.params)?;
        self.steps.push(Step::Interpolate { bilinear: Box::new(bilinear), offset, from: quant.act, to });
        self.bind(node.output(), shape, Kind::Bytes(to, Form::First));
        Ok(())
    }

    fn resized_axes(&self, node: Node<'a>, shape: [usize; 4]) -> Result<[Axis; 4], Reason> {
        let unknown = || Reason::Form("its sizes aren't constant");
        let scales = node.input(if has_region(node) { 2 } else { 1 });
        let scales = scales.and_then(|name| self.graph.constant(name)).and_then(tensor::floats);
        let sizes = node.input(3).map(|name| self.int_constant(name, "the size")).transpose()?;
        let named = node.ints("axes").map_or_else(|| (0..4).collect(), <[i64]>::to_vec);
        let mut axes = shape.map(|size| Axis { from: size, to: size, scale: 1.0 });
        for (place, axis) in named.iter().enumerate() {
            let axis = &mut axes[axis_of(*axis, 4).ok_or_else(unknown)?];
            let said = match (&sizes, &scales) {
                (Some(sizes), _) => sizes.get(place).and_then(|size| axis.with_size(*size)),
                (None, Some(scales)) => scales.get(place).and_then(|scale| axis.with_scale(*scale)),
                (None, None) => None,
            };
            *axis = said.ok_or_else(unknown)?;
        }
        Ok(axes)
    }
}

/// Whether the node has a place for a region of interest before its scales, as it has from opset 11 on.
pub(super) fn has_region(node: Node<'_>) -> bool {
    node.op() == "Resize" && node.0.input.len() > 2
}
