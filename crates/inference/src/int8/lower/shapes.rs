//! Operators that move values without changing them: 8-bit values pass through as they are.

use super::Reason;
use super::bilinear::has_region;
use super::graph::Node;
use super::tensor;
use super::walk::{Bound, Form, Kind, Lowering, Quant, layout};
use crate::int8::program::{Shuffle, Step};
use crate::tensor::volume;

/// Most elements of a row for which an order is kept in a table.
const MAX_MAP: usize = 4 << 20;
/// Most elements of all such tables of a model: 64 MiB.
const MAX_MAPS: usize = 16 << 20;
/// Most axes that are named. Stops a list of a million of them, each looked up in it.
const MAX_AXES: usize = 64;

impl<'a> Lowering<'a> {
    /// Reshape, Flatten, Squeeze, Unsqueeze, Identity, Dropout.
    pub(super) fn reshape(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let bound = self.lookup(Self::input(node, 0)?)?;
        let shape = self.new_shape(node, &bound.shape)?;
        if volume(&shape) != volume(&bound.shape) {
            return Err(Reason::Shape { shape });
        }
        let kind = match bound.kind {
            Kind::Float(id) => Kind::Float(id),
            _ => self.moved(&bound, &shape, Shuffle::Same, node)?,
        };
        self.bind(node.output(), shape, kind);
        Ok(())
    }

    /// The shape that a node gives to values of another one.
    pub(super) fn new_shape(&self, node: Node<'a>, from: &[usize]) -> Result<Vec<usize>, Reason> {
        let is_of_rows = self.is_batched && node.input(0).is_some_and(|name| self.bound.contains_key(name));
        let wrong = || Reason::Shape { shape: from.to_vec() };
        let rank = i64::try_from(from.len()).map_err(|_| wrong())?;
        let axes = |slot: usize| match node.input(slot) {
            Some(name) => self.int_constant(name, "the axes").map(Some),
            None => Ok(node.ints("axes").map(<[i64]>::to_vec)),
        };
        match node.op() {
            "Reshape" => {
                let wanted = match node.input(1) {
                    Some(name) => self.int_constant(name, "the shape")?,
                    None => node.ints("shape").unwrap_or_default().to_vec(),
                };
                reshaped(from, &wanted, node.int("allowzero").unwrap_or(0) != 0).ok_or_else(wrong)
            }
            "Flatten" => {
                let axis = node.int("axis").unwrap_or(1);
                let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).map_err(|_| wrong())?;
                let (rows, columns) = from.split_at_checked(axis).ok_or_else(wrong)?;
                Ok(vec![volume(rows), volume(columns)])
            }
            "Squeeze" => {
                let axes = axes(1)?.map(|axes| axes_of(&axes, from.len()).ok_or_else(wrong)).transpose()?;
                let keep = |(place, size): &(usize, &usize)| match &axes {
                    Some(axes) => !axes.contains(place),
                    // The batch is one row here, and as many as are asked for later.
                    None => **size != 1 || (*place == 0 && is_of_rows),
                };
                Ok(from.iter().enumerate().filter(keep).map(|(_, size)| *size).collect())
            }
            "Unsqueeze" => {
                let axes = axes(1)?.ok_or(Reason::NotConstant { what: "the axes" })?;
                let rank = from.len() + axes.len();
                let axes = axes_of(&axes, rank).ok_or_else(wrong)?;
                let mut sizes = from.iter();
                let shape = (0..rank)
                    .map(|place| if axes.contains(&place) { Some(1) } else { sizes.next().copied() });
                shape.collect::<Option<_>>().ok_or_else(wrong)
            }
            _ if node.0.output.iter().skip(1).any(|name| !name.is_empty()) => Err(Reason::Operator),
            _ => Ok(from.to_vec()),
        }
    }

    /// Transpose with the batch in its place.
    pub(super) fn transpose(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let bound = self.lookup(Self::input(node, 0)?)?;
        let rank = bound.shape.len();
        let wrong = || Reason::Shape { shape: bound.shape.clone() };
        let order: Option<Vec<usize>> = match node.ints("perm") {
            Some(order) => order.iter().map(|axis| usize::try_from(*axis).ok()).collect(),
            None => Some((0..rank).rev().collect()),
        };
        let order = order.filter(|order| is_permutation(order, rank)).ok_or_else(wrong)?;
        if order.first() != Some(&0) {
            return Err(Reason::Form("the batch changes its place"));
        }
        let shape: Vec<usize> = order.iter().map(|axis| bound.shape[*axis]).collect();
        let strides = strides(&bound.shape);
        let steps: Vec<usize> = order.iter().map(|axis| strides[*axis]).collect();
        let place = |index: &[usize], unit: usize| {
            Some(index.iter().zip(&steps).map(|(at, step)| at * step / unit).sum())
        };
        let quant = self.quant_of(&bound).filter(|quant| quant.form == Form::Last && rank > 2);
        let keeps_rows =
            order.last() == Some(&(rank - 1)) && self.form_for(node.output(), &shape) == Form::Last;
        if let (Some(quant), Some((last, outer))) = (quant.filter(|_| keeps_rows), shape.split_last()) {
            self.reserve_table(outer)?;
            let shuffle = Shuffle::Rows(map(outer, |index| place(index, *last))?);
            let to = self.act(&shape, Form::Last, quant.params)?;
            self.steps.push(Step::Shuffle { from: quant.act, shuffle, to });
            self.bind(node.output(), shape, same_kind(bound.kind, to, Form::Last));
            return Ok(());
        }
        self.reserve_table(&shape)?;
        let shuffle = Shuffle::Map(map(&shape, |index| place(index, 1))?);
        self.move_bytes(node, &bound, shape, shuffle)
    }

    /// Resize and Upsample to whole multiples, each value repeated.
    pub(super) fn resize(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        let bound = self.lookup(name)?;
        let [n, c, h, w] = bound.shape[..] else { return Err(Reason::Form("only images are known")) };
        if !matches!(node.text("keep_aspect_ratio_policy"), None | Some("stretch")) {
            return Err(Reason::Form("it keeps the aspect ratio"));
        }
        if matches!(node.text("mode"), Some("linear" | "bilinear")) {
            return self.interpolate(node, [n, c, h, w]);
        }
        if !matches!(node.text("mode"), None | Some("nearest")) {
            return Err(Reason::Form("it interpolates other than linearly"));
        }
        if node.ints("axes").is_some_and(|axes| axes != [0, 1, 2, 3]) {
            return Err(Reason::Form("it names its axes"));
        }
        let has_region = has_region(node);
        let scales = node.input(if has_region { 2 } else { 1 });
        let scales = scales.and_then(|name| self.graph.constant(name)).and_then(tensor::floats);
        let sizes = node.input(3).map(|name| self.int_constant(name, "the size")).transpose()?;
        let target = |axis: usize, size: usize| -> Option<usize> {
            let target = match (&scales, &sizes) {
                (_, Some(sizes)) => usize::try_from(*sizes.get(axis)?).ok()?,
                (Some(scales), None) => whole(*scales.get(axis)?)?.checked_mul(size)?,
                (None, None) => return None,
            };
            (target > 0 && target % size == 0).then_some(target)
        };
        let unknown = || Reason::Form("its sizes aren't constant or no multiples");
        let (height, width) = (target(2, h).ok_or_else(unknown)?, target(3, w).ok_or_else(unknown)?);
        if target(0, n) != Some(n) || target(1, c) != Some(c) {
            return Err(unknown());
        }
        if has_region && !repeats_pixels(node) {
            return Err(Reason::Form("it picks other pixels than each one as often"));
        }
        let quant = self.quant_of(&bound).ok_or_else(|| Reason::NotQuantized { name: name.to_owned() })?;
        let quant = self.with_form(quant, Form::First)?;
        let shape = vec![n, c, height, width];
        let to = self.act(&shape, Form::First, quant.params)?;
        let pick = |size: usize, from: usize| (0..size).map(|place| place / (size / from)).collect();
        self.steps.push(Step::Resize { rows: pick(height, h), columns: pick(width, w), from: quant.act, to });
        let kind = same_kind(bound.kind, to, Form::First);
        self.bind(node.output(), shape, kind);
        Ok(())
    }

    /// Counts a table of the order of that many elements.
    pub(super) fn reserve_table(&mut self, shape: &[usize]) -> Result<(), Reason> {
        let elements = self.table_elements.saturating_add(volume(shape));
        if elements > MAX_MAPS {
            return Err(Reason::Form("the tables of orders before it take all the room that they may"));
        }
        self.table_elements = elements;
        Ok(())
    }

    fn move_bytes(
        &mut self,
        node: Node<'a>,
        bound: &Bound,
        shape: Vec<usize>,
        shuffle: Shuffle,
    ) -> Result<(), Reason> {
        let kind = self.moved(bound, &shape, shuffle, node)?;
        self.bind(node.output(), shape, kind);
        Ok(())
    }

    /// The activation behind a name that stands for one.
    pub(super) fn quant_of(&self, bound: &Bound) -> Option<Quant> {
        let (Kind::Bytes(act, form) | Kind::View(act, form)) = bound.kind else { return None };
        Some(Quant { act, form, shape: bound.shape.clone(), params: self.values.act(act).into() })
    }

    pub(super) fn moved(
        &mut self,
        bound: &Bound,
        shape: &[usize],
        shuffle: Shuffle,
        node: Node<'a>,
    ) -> Result<Kind, Reason> {
        let name = node.input(0).unwrap_or_default();
        let quant = self.quant_of(bound).ok_or_else(|| Reason::NotQuantized { name: name.to_owned() })?;
        if let Shuffle::Same = shuffle {
            let own = self.values.act(quant.act).layout;
            let same = [quant.form, Form::First, Form::Last].into_iter().find(|form| {
                layout(shape, *form, own.zero_point).is_ok_and(|layout| layout == own)
                    && (own.height * own.width == 1 || (*form == quant.form && shape == quant.shape))
            });
            if let Some(form) = same {
                return Ok(same_kind(bound.kind, quant.act, form));
            }
        }
        let form = self.form_for(node.output(), shape);
        let to = self.act(shape, form, quant.params)?;
        self.steps.push(Step::Shuffle { from: quant.act, shuffle, to });
        Ok(same_kind(bound.kind, to, form))
    }
}

pub(super) fn same_kind(kind: Kind, act: crate::int8::program::ActId, form: Form) -> Kind {
    match kind {
        Kind::Bytes(..) => Kind::Bytes(act, form),
        Kind::View(..) | Kind::Float(_) => Kind::View(act, form),
    }
}

/// The place of an axis that may be counted from the end; none if the tensor has no such axis.
pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let place = if axis < 0 { axis.checked_add(rank)? } else { axis };
    usize::try_from(place).ok().filter(|_| place < rank)
}

fn axes_of(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    (axes.len() <= MAX_AXES).then(|| axes.iter().map(|axis| axis_of(*axis, rank)).collect())?
}

/// Reshape's rules: 0 keeps a size, -1 is what is left.
pub(super) fn reshaped(from: &[usize], wanted: &[i64], allows_zero: bool) -> Option<Vec<usize>> {
    let size = |(place, size): (usize, &i64)| match size {
        0 if !allows_zero => from.get(place).copied().map(Some),
        -1 => Some(None),
        size => usize::try_from(*size).ok().map(Some),
    };
    let sizes: Vec<Option<usize>> = wanted.iter().enumerate().map(size).collect::<Option<_>>()?;
    let known = sizes.iter().flatten().try_fold(1_usize, |all, size| all.checked_mul(*size))?;
    if sizes.iter().filter(|size| size.is_none()).count() > 1 {
        return None;
    }
    let rest = volume(from).checked_div(known);
    sizes.into_iter().map(|size| size.or(rest)).collect()
}

/// Whether a Resize to a whole multiple repeats each pixel that often: places are centred and rounded, or counted from
/// the corner and cut off. With tf_half_pixel_for_nn they are half a pixel further than centred.
fn repeats_pixels(node: Node<'_>) -> bool {
    let places = node.text("coordinate_transformation_mode").unwrap_or("half_pixel");
    let rounding = node.text("nearest_mode").unwrap_or("round_prefer_floor");
    match places {
        "half_pixel" | "pytorch_half_pixel" | "half_pixel_symmetric" => {
            matches!(rounding, "round_prefer_floor" | "round_prefer_ceil")
        }
        "asymmetric" | "tf_half_pixel_for_nn" => rounding == "floor",
        _ => false,
    }
}

fn is_permutation(order: &[usize], rank: usize) -> bool {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted == (0..rank).collect::<Vec<_>>()
}

pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// For each element of a shape the place that it comes from.
pub(super) fn map(shape: &[usize], place: impl Fn(&[usize]) -> Option<usize>) -> Result<Vec<u32>, Reason> {
    let count = volume(shape);
    if count > MAX_MAP {
        return Err(Reason::Shape { shape: shape.to_vec() });
    }
    let mut index = vec![0; shape.len()];
    let mut map = Vec::with_capacity(count);
    for _ in 0..count {
        let place = place(&index).and_then(|place| u32::try_from(place).ok());
        map.push(place.unwrap_or(u32::MAX));
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(map)
}

/// A whole number as it stands in a list of scales.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
fn whole(scale: f32) -> Option<usize> {
    let is_whole = (1.0..=64.0).contains(&scale) && scale.fract() == 0.0;
    is_whole.then_some(scale as usize)
}
