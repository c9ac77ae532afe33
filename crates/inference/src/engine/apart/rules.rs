//! What each operator does to rows that lie along an axis.

use tract_onnx::pb::NodeProto;

use super::super::attributes::{attribute, attribute_ints, int_or, text};
use super::super::limits::Tensors;
use super::super::rows::{BY_IMAGE, BY_VALUE};
use super::sizes::{FEW, Lies, lie_by};

/// Since this version a softmax is of one axis; before it was of all from one on.
const SOFTMAX_OF_ONE_AXIS: i64 = 13;

/// What a node reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'s> {
    pub(super) lies: Lies,
    /// Its shape for few rows and for many, empty where that isn't known.
    pub(super) few: &'s [usize],
    pub(super) many: &'s [usize],
}

/// Rows along an axis, so often, in a tensor of so many axes.
#[derive(Debug, Clone, Copy)]
struct At {
    axis: usize,
    outer: usize,
    rank: usize,
}

impl At {
    /// Places count from the last axis on where tensors of other ranks meet.
    fn places_to_end(self) -> usize {
        self.rank - self.axis
    }

    /// Whether rows there meet the same rows here, value by value.
    fn meets(self, other: Self) -> bool {
        self.places_to_end() == other.places_to_end() && self.outer == other.outer
    }

    /// An axis that may be counted from the end.
    fn resolve(self, axis: i64) -> Option<usize> {
        let rank = i64::try_from(self.rank).ok()?;
        usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()
    }
}

/// A node, of which each value it reads is known.
pub(super) struct Asked<'n> {
    pub(super) node: &'n NodeProto,
    /// By their places; none where one is left out.
    pub(super) operands: Vec<Option<Operand<'n>>>,
    /// The shape of its first result for few rows and for many.
    pub(super) made: Option<[&'n [usize]; 2]>,
    pub(super) tensors: &'n Tensors<'n>,
    pub(super) opset: i64,
}

/// What becomes of the rows in a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Becomes {
    /// They lie along the axis that its results' shapes show, so often as before.
    Along { outer: usize },
    /// They lie so in its result.
    Lie(Lies),
    /// They are mixed.
    Mixed,
    /// No rule knows.
    Unknown,
}

/// What becomes of the rows in a node.
pub(super) fn becomes(asked: &Asked<'_>) -> Becomes {
    let op = asked.node.op_type.as_str();
    if matches!(op, "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze") {
        return asked.reshaped();
    }
    if let Some(lies) = asked.in_order() {
        return if is_by_value(op) && asked.is_beside_single_values() {
            Becomes::Lie(lies)
        } else {
            Becomes::Mixed
        };
    }
    let outer = (0..asked.operands.len()).find_map(|slot| asked.at(slot)).map(|at| at.outer);
    match (stay_apart(asked), outer) {
        (Some(true), Some(outer)) => Becomes::Along { outer },
        (Some(false), _) => Becomes::Mixed,
        _ => Becomes::Unknown,
    }
}

fn is_by_value(op: &str) -> bool {
    BY_VALUE.contains(&op) || op == "DynamicQuantizeLinear"
}

/// Whether rows stay apart in a node; none where that isn't known.
fn stay_apart(asked: &Asked<'_>) -> Option<bool> {
    let node = asked.node;
    match node.op_type.as_str() {
        // Each row has a range of its own here.
        "DynamicQuantizeLinear" => Some(true),
        "DequantizeLinear" | "Dropout" | "OneHot" | "QuantizeLinear" | "Transpose" => {
            asked.alone().map(|_| true)
        }
        "Softmax" | "LogSoftmax" | "Hardmax" if asked.opset < SOFTMAX_OF_ONE_AXIS => asked.before("axis", 1),
        "LayerNormalization" => asked.before("axis", -1),
        "Softmax" | "LogSoftmax" | "Hardmax" | "LpNormalization" | "TopK" => asked.beside(-1),
        "ArgMax" | "ArgMin" | "Split" => asked.beside(0),
        "CumSum" => asked.is_apart_from(&asked.tensors.ints(node, 1)?),
        "Concat" => asked.joined(),
        "Gather" => asked.gathered(),
        "GatherElements" | "ScatterElements" => asked.by_elements(),
        "Slice" => asked.sliced(),
        "Pad" => asked.padded(),
        "Expand" | "Tile" => asked.repeated(),
        "MatMul" | "MatMulInteger" => asked.product(0, 1),
        "QLinearMatMul" => asked.product(0, 3),
        "Gemm" => Some(asked.gemm()),
        "Einsum" => asked.einsum(),
        "GRU" | "LSTM" | "RNN" => asked.recurrent(),
        "Trilu" => asked.alone().map(|at| at.places_to_end() > 2),
        op if op.starts_with("Reduce") => asked.reduced(),
        op if BY_VALUE.contains(&op) => asked.side_by_side(),
        op if BY_IMAGE.contains(&op) => asked.windowed(op),
        _ => None,
    }
}

impl Asked<'_> {
    fn at(&self, slot: usize) -> Option<At> {
        let operand = self.operands.get(slot).copied().flatten()?;
        match operand.lies {
            Lies::Along { axis, outer } => Some(At { axis, outer, rank: operand.few.len() }),
            Lies::Nowhere | Lies::InOrder { .. } | Lies::Unknown => None,
        }
    }

    /// Where the rows lie in the first operand, if they lie in no other.
    fn alone(&self) -> Option<At> {
        let others = (1..self.operands.len()).all(|slot| self.at(slot).is_none());
        self.at(0).filter(|_| others)
    }

    /// Whether the rows' axis isn't the one that the node works along.
    fn beside(&self, default: i64) -> Option<bool> {
        let at = self.alone()?;
        Some(at.resolve(int_or(self.node, "axis", default))? != at.axis)
    }

    /// Whether the rows' axis is before the ones that the node works along.
    fn before(&self, name: &str, default: i64) -> Option<bool> {
        let at = self.alone()?;
        Some(at.axis < at.resolve(int_or(self.node, name, default))?)
    }

    /// Whether the rows' axis is none of these.
    fn is_apart_from(&self, axes: &[i64]) -> Option<bool> {
        let at = self.alone()?;
        let axes: Vec<usize> = axes.iter().map(|axis| at.resolve(*axis)).collect::<Option<_>>()?;
        Some(!axes.contains(&at.axis))
    }

    /// A list of whole numbers that an input or an attribute has; empty where neither is there.
    fn list(&self, slot: usize, name: &str) -> Option<Vec<i64>> {
        match self.operands.get(slot).copied().flatten() {
            Some(_) => self.tensors.ints(self.node, slot),
            None => Some(attribute_ints(self.node, name).to_vec()),
        }
    }

    /// Values stay in their order in memory.
    fn reshaped(&self) -> Becomes {
        let (Some(Some(from)), Some(made)) = (self.operands.first(), self.made) else {
            return Becomes::Unknown;
        };
        let size = |shape: &[usize], axis: usize| shape.iter().take(axis).product::<usize>();
        let before = match from.lies {
            Lies::Along { axis, outer } => size(from.few, axis) * outer,
            Lies::InOrder { before } => before,
            Lies::Nowhere | Lies::Unknown => return Becomes::Unknown,
        };
        let Lies::Along { axis, .. } = lie_by(made) else { return Becomes::Lie(Lies::InOrder { before }) };
        let outside = size(made[0], axis).max(1);
        let outer = before / outside;
        let is_along = before % outside == 0 && outer > 0 && made[0][axis] % (outer * FEW) == 0;
        Becomes::Lie(if is_along { Lies::Along { axis, outer } } else { Lies::InOrder { before } })
    }

    /// Rows that lie along no axis.
    fn in_order(&self) -> Option<Lies> {
        let mut all = self.operands.iter().flatten().map(|operand| operand.lies);
        all.find(|lies| matches!(lies, Lies::InOrder { .. }))
    }

    /// Whether all but one operand are the same single value for all.
    fn is_beside_single_values(&self) -> bool {
        let is_single = |operand: &&Operand<'_>| {
            operand.lies == Lies::Nowhere && operand.few.iter().product::<usize>() == 1
        };
        self.operands.iter().flatten().filter(|operand| !is_single(operand)).count() == 1
    }

    fn joined(&self) -> Option<bool> {
        let mut all = (0..self.operands.len()).filter_map(|slot| self.at(slot));
        let first = all.next()?;
        let axis = first.resolve(attribute(self.node, "axis")?.i)?;
        Some(all.all(|at| at.meets(first)) && axis != first.axis)
    }

    /// From a table by the rows' places, or the same places from each row.
    fn gathered(&self) -> Option<bool> {
        match (self.at(0), self.at(1)) {
            (Some(_), None) => self.beside(0),
            (None, Some(_)) => Some(true),
            _ => None,
        }
    }

    fn by_elements(&self) -> Option<bool> {
        let at = self.at(0)?;
        let is_same = (1..self.operands.len()).all(|slot| self.at(slot).is_some_and(|it| it.meets(at)));
        let axis = at.resolve(int_or(self.node, "axis", 0))?;
        is_same.then_some(axis != at.axis)
    }

    fn sliced(&self) -> Option<bool> {
        let at = self.alone()?;
        let starts = self.list(1, "starts");
        let axes = match self.list(3, "axes")? {
            axes if axes.is_empty() => (0..i64::try_from(at.rank).ok()?).collect(),
            axes => axes,
        };
        let axes: Vec<usize> = axes.iter().map(|axis| at.resolve(*axis)).collect::<Option<_>>()?;
        let Some(place) = axes.iter().position(|axis| *axis == at.axis) else { return Some(true) };
        let (starts, ends, steps) = (starts?, self.list(2, "ends")?, self.list(4, "steps")?);
        let Some((start, end)) = starts.get(place).zip(ends.get(place)) else { return Some(true) };
        // All of it.
        Some(*start == 0 && *end >= i64::from(i32::MAX) && steps.get(place).is_none_or(|step| *step == 1))
    }

    fn padded(&self) -> Option<bool> {
        let at = self.alone()?;
        let pads = self.list(1, "pads")?;
        let axes = match self.list(3, "") {
            Some(axes) if axes.is_empty() => (0..at.rank).collect(),
            axes => axes?.iter().map(|axis| at.resolve(*axis)).collect::<Option<Vec<_>>>()?,
        };
        let (before, after) = pads.split_at_checked(axes.len())?;
        let mut all = axes.iter().zip(before.iter().zip(after));
        Some(all.all(|(axis, pads)| *axis != at.axis || pads == (&0, &0)))
    }

    /// Each axis stays where it is, counted from the end, and the rows' is as long as before.
    fn repeated(&self) -> Option<bool> {
        let (at, from, [few, many]) = (self.alone()?, self.operands.first().copied().flatten()?, self.made?);
        let axis = few.len().checked_sub(at.places_to_end())?;
        let is_kept = few.get(axis) == from.few.get(at.axis) && many.get(axis) == from.many.get(at.axis);
        Some(is_kept)
    }

    /// Value by value: rows must meet rows, and nothing that has a value for each of them.
    fn side_by_side(&self) -> Option<bool> {
        let mut all = (0..self.operands.len()).filter_map(|slot| self.at(slot));
        let first = all.next()?;
        if !all.all(|at| at.meets(first)) {
            return Some(false);
        }
        let place = first.places_to_end();
        let is_one_for_all = |operand: &Operand<'_>| {
            let axis = operand.few.len().checked_sub(place);
            operand.lies != Lies::Nowhere || axis.is_none_or(|axis| operand.few[axis] == 1)
        };
        self.operands.iter().flatten().all(is_one_for_all).then_some(true)
    }

    /// A product of matrices: it sums over the last axis of the one and the one before the last of the other.
    fn product(&self, left: usize, right: usize) -> Option<bool> {
        let is_list = self.operands.get(right).copied().flatten().is_some_and(|right| right.few.len() == 1);
        match (self.at(left), self.at(right)) {
            (Some(left), None) => Some(left.places_to_end() != 1),
            (None, Some(right)) => Some(right.places_to_end() != 2 && !is_list),
            (Some(left), Some(right)) => Some(left.meets(right) && left.places_to_end() > 2),
            (None, None) => None,
        }
    }

    fn gemm(&self) -> bool {
        let sums = |name: &str, plain: usize| if int_or(self.node, name, 0) == 0 { plain } else { 1 - plain };
        let place = match (self.at(0), self.at(1)) {
            (Some(a), None) if a.axis != sums("transA", 1) => 2,
            (None, Some(b)) if b.axis != sums("transB", 0) => 1,
            _ => return false,
        };
        self.at(2).is_none_or(|added| added.places_to_end() == place && added.outer == 1)
    }

    /// The rows' letter must be one in all operands that have them, in no other one, and in the result.
    fn einsum(&self) -> Option<bool> {
        let equation: String = text(self.node, "equation").chars().filter(|c| !c.is_whitespace()).collect();
        let (operands, result) = equation.split_once("->")?;
        let operands: Vec<&str> = operands.split(',').collect();
        if equation.contains('.') || operands.len() != self.operands.len() {
            return None;
        }
        let letter = |slot: usize| operands[slot].chars().nth(self.at(slot)?.axis);
        let rows = (0..operands.len()).find_map(letter)?;
        let is_apart = |slot: usize| match self.at(slot) {
            Some(_) => letter(slot) == Some(rows) && operands[slot].matches(rows).count() == 1,
            None => !operands[slot].contains(rows),
        };
        Some((0..operands.len()).all(is_apart) && result.contains(rows))
    }

    /// Steps of time are the first axis, rows the second; with a `layout` it is the other way round.
    fn recurrent(&self) -> Option<bool> {
        let at = self.at(0)?;
        Some(at.axis == usize::from(int_or(self.node, "layout", 0) == 0))
    }

    fn reduced(&self) -> Option<bool> {
        match self.list(1, "axes")? {
            axes if axes.is_empty() => Some(int_or(self.node, "noop_with_empty_axes", 0) != 0),
            axes => self.is_apart_from(&axes),
        }
    }

    /// Images and signals: the first axis counts them. What sums over no channels leaves the second one apart, too.
    fn windowed(&self, op: &str) -> Option<bool> {
        let is_by_channel =
            op.contains("Pool") || matches!(op, "InstanceNormalization" | "Resize" | "Upsample");
        Some(match self.alone()?.axis {
            0 => true,
            1 => is_by_channel,
            _ => false,
        })
    }
}
