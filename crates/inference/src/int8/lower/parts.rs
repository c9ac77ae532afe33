//! Parts of a tensor (Slice, Split), and a tensor as a part of a larger one (Pad).

use std::collections::HashSet;
use std::ops::Range;

use super::Reason;
use super::graph::Node;
use super::shapes::{axis_of, map, same_kind, strides};
use super::tensor;
use super::walk::{Bound, Form, Kind, Lowering, Params, Quant};
use crate::int8::program::{ActId, Shuffle, Step};

impl<'a> Lowering<'a> {
    /// Slice with constant bounds, not of the batch.
    pub(super) fn slice(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let bound = self.lookup(Self::input(node, 0)?)?;
        let list = |slot: usize, name: &str| match node.input(slot) {
            Some(input) => self.int_constant(input, "a bound").map(Some),
            None => Ok(node.ints(name).map(<[i64]>::to_vec)),
        };
        let missing = Reason::NotConstant { what: "a bound" };
        let (starts, ends) = (list(1, "starts")?, list(2, "ends")?);
        let Some((starts, ends)) = starts.zip(ends) else { return Err(missing) };
        let axes = list(3, "axes")?.unwrap_or_else(|| (0_i64..).take(starts.len()).collect());
        let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if [&ends, &axes, &steps].iter().any(|list| list.len() != starts.len()) {
            return Err(Reason::Form("its bounds, axes and steps are of different number"));
        }
        let mut part = whole(&bound.shape);
        let mut cut = HashSet::new();
        for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let wrong = || Reason::Shape { shape: bound.shape.clone() };
            let axis = axis_of(*axis, bound.shape.len()).ok_or_else(wrong)?;
            if !cut.insert(axis) {
                return Err(Reason::Form("it names an axis twice"));
            }
            let size = i64::try_from(bound.shape[axis]).unwrap_or(0);
            let inside =
                |value: i64| if value < 0 { value.saturating_add(size) } else { value }.clamp(0, size);
            let (start, end) = (inside(*start), inside(*end));
            if *step != 1 || end <= start || axis == 0 {
                return Err(Reason::Form("it is empty, of the batch, or leaves values out in between"));
            }
            part[axis] = usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
        }
        self.part(node, &bound, &part, node.output())
    }

    /// Split into parts of constant sizes, not of the batch.
    pub(super) fn split(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let bound = self.lookup(Self::input(node, 0)?)?;
        let wrong = || Reason::Shape { shape: bound.shape.clone() };
        let axis = axis_of(node.int("axis").unwrap_or(0), bound.shape.len()).ok_or_else(wrong)?;
        let size = bound.shape[axis];
        let names = &node.0.output;
        let sizes = match node.input(1) {
            Some(name) => Some(self.int_constant(name, "a size")?),
            None => node.ints("split").map(<[i64]>::to_vec),
        };
        let sizes: Vec<usize> = if let Some(sizes) = sizes {
            let sizes = sizes.iter().map(|size| usize::try_from(*size).ok());
            sizes.collect::<Option<_>>().ok_or_else(wrong)?
        } else {
            // The last one is smaller where they can't be equal.
            let each = size.div_ceil(names.len().max(1));
            (0..names.len()).map(|place| size.saturating_sub(place * each).min(each)).collect()
        };
        let sum = sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size));
        if axis == 0 || sizes.contains(&0) || sizes.len() != names.len() || sum != Some(size) {
            return Err(Reason::Form("it is of the batch, or its parts are empty or not the whole"));
        }
        let mut start = 0;
        for (name, size) in names.iter().zip(sizes) {
            let mut part = whole(&bound.shape);
            part[axis] = start..start + size;
            start += size;
            if !name.is_empty() {
                self.part(node, &bound, &part, name)?;
            }
        }
        Ok(())
    }

    /// Gives a part of a tensor a name.
    fn part(
        &mut self,
        node: Node<'a>,
        bound: &Bound,
        part: &[Range<usize>],
        name: &'a str,
    ) -> Result<(), Reason> {
        let operand = node.input(0).unwrap_or_default();
        let quant = self.quant_of(bound).ok_or_else(|| Reason::NotQuantized { name: operand.to_owned() })?;
        let shape: Vec<usize> = part.iter().map(Range::len).collect();
        if let Some(first) = first_of(quant.form, part, &bound.shape) {
            let to = self.act(&shape, quant.form, quant.params)?;
            self.steps.push(Step::Region { from: quant.act, first, at: [0, 0], to });
            self.bind(name, shape, same_kind(bound.kind, to, quant.form));
            return Ok(());
        }
        self.reserve_table(&shape)?;
        let strides = strides(&bound.shape);
        let place = |((at, range), stride): ((&usize, &Range<usize>), &usize)| (at + range.start) * stride;
        let shuffle =
            Shuffle::Map(map(&shape, |index| Some(index.iter().zip(part).zip(&strides).map(place).sum()))?);
        let form = self.form_for(name, &shape);
        let to = self.act(&shape, form, quant.params)?;
        self.steps.push(Step::Shuffle { from: quant.act, shuffle, to });
        self.bind(name, shape, same_kind(bound.kind, to, form));
        Ok(())
    }

    /// Pad of an image or a signal by zeros around its pixels.
    pub(super) fn pad(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        let bound = self.lookup(name)?;
        let quant = self.quant_of(&bound).ok_or_else(|| Reason::NotQuantized { name: name.to_owned() })?;
        if !matches!(node.text("mode"), None | Some("constant")) {
            return Err(Reason::Form("it pads by the image's own pixels"));
        }
        if !self.pads_zeros(node, bound.kind, quant.params)? {
            return Err(Reason::Form("it pads by another value than zero"));
        }
        let pads = self.pads(node, bound.shape.len())?;
        let [(0, 0), (0, 0), inner @ ..] = &pads[..] else {
            return Err(Reason::Form("it pads the batch or the channels"));
        };
        let at = match inner {
            [columns] => [0, columns.0],
            [rows, columns] => [rows.0, columns.0],
            _ => return Err(Reason::Form("only images and signals are known")),
        };
        let quant: Quant = self.with_form(quant, Form::First)?;
        let larger = bound.shape.iter().zip(&pads).map(|(size, (before, after))| size + before + after);
        let shape: Vec<usize> = larger.collect();
        let to: ActId = self.act(&shape, Form::First, quant.params)?;
        self.steps.push(Step::Region { from: quant.act, first: [0; 3], at, to });
        self.bind(node.output(), shape, same_kind(bound.kind, to, Form::First));
        Ok(())
    }

    /// Whether what it pads by is what stands for 0.0.
    fn pads_zeros(&self, node: Node<'a>, kind: Kind, params: Params) -> Result<bool, Reason> {
        let missing = || Reason::NotConstant { what: "what it pads by" };
        let value = node.input(2).map(|name| self.graph.constant(name).ok_or_else(missing)).transpose()?;
        let Kind::Bytes(..) = kind else {
            let floats = value.map(|value| tensor::floats(value).ok_or_else(missing)).transpose()?;
            return Ok(floats.is_none_or(|floats| floats == [0.0]));
        };
        let ints = value.map(|value| tensor::ints(value).ok_or_else(missing)).transpose()?;
        let zero = i64::from(params.zero_point) - if params.is_signed { 128 } else { 0 };
        Ok(ints.unwrap_or_else(|| vec![0]) == [zero])
    }

    /// How many places are added before and behind, for each axis.
    fn pads(&self, node: Node<'a>, rank: usize) -> Result<Vec<(usize, usize)>, Reason> {
        let list = self.int_constant(Self::input(node, 1)?, "the pads")?;
        let axes = match node.input(3) {
            Some(name) => self.int_constant(name, "the axes")?,
            None => (0_i64..).take(rank).collect(),
        };
        if list.len() != axes.len() * 2 {
            return Err(Reason::Form("its pads aren't two for each axis"));
        }
        let (before, behind) = list.split_at(axes.len());
        let mut pads = vec![(0, 0); rank];
        for ((axis, before), behind) in axes.iter().zip(before).zip(behind) {
            let small = |pad: &i64| usize::try_from(*pad).ok().filter(|pad| *pad <= 1 << 20);
            let own = axis_of(*axis, rank).and_then(|axis| pads.get_mut(axis));
            let own = own.ok_or(Reason::Form("it names an axis that isn't there"))?;
            *own = small(before).zip(small(behind)).ok_or(Reason::Form("it crops, or pads too far"))?;
        }
        Ok(pads)
    }
}

fn whole(shape: &[usize]) -> Vec<Range<usize>> {
    shape.iter().map(|size| 0..*size).collect()
}

/// Channel, row and column where a part begins, if it is one of all images or rows of the layout.
fn first_of(form: Form, part: &[Range<usize>], shape: &[usize]) -> Option<[usize; 3]> {
    match (form, part) {
        (Form::First, [_, c, y, x]) => Some([c.start, y.start, x.start]),
        (Form::First, [_, c, x]) => Some([c.start, 0, x.start]),
        (_, [rows @ .., c]) if rows.iter().zip(shape).all(|(range, size)| range.len() == *size) => {
            Some([c.start, 0, 0])
        }
        _ => None,
    }
}
