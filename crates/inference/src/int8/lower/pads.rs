//! Pads that become those of the convolutions behind them.

use crate::int8::kernel::{Border, Layout};
use crate::int8::program::{ActId, Step, Values};

/// Lets convolutions pad their input themselves where they alone read what was padded by zeros: nothing is copied.
pub(super) fn fold_pads(mut steps: Vec<Step>, values: &Values) -> Vec<Step> {
    let pads = steps.iter().filter_map(|step| match step {
        Step::Region { from, first: [0, 0, 0], at, to } => {
            let border = around(&values.act(*from).layout, &values.act(*to).layout, *at)?;
            Some((*from, border, *to))
        }
        _ => None,
    });
    let pads: Vec<(ActId, Border, ActId)> = pads.collect();
    // The last one first: a pad of what is padded goes into the convolution as well.
    for (from, border, to) in pads.into_iter().rev() {
        let mut readers = steps.iter().filter(|step| step.reads().contains(&to));
        if !readers.all(|step| slides_over(step, to)) {
            continue;
        }
        steps.retain(|step| step.writes() != Some(to));
        for step in &mut steps {
            if let Step::Linear { conv, from: own, .. }
            | Step::LinearAdd { conv, from: own, .. }
            | Step::LinearFloat { conv, from: own, .. }
            | Step::LinearCurve { conv, from: own, .. } = step
                && *own == to
            {
                *own = from;
                conv.pad(border);
            }
        }
    }
    steps
}

/// What a region adds around all of its source, if it does.
fn around(from: &Layout, to: &Layout, [top, left]: [usize; 2]) -> Option<Border> {
    let bottom = to.height.checked_sub(from.height + top)?;
    let right = to.width.checked_sub(from.width + left)?;
    (from.channels == to.channels).then_some(Border { top, left, bottom, right })
}

/// Whether all that a step does with an activation is to slide windows of several places over it.
fn slides_over(step: &Step, act: ActId) -> bool {
    match step {
        Step::Linear { conv, .. } | Step::LinearFloat { conv, .. } | Step::LinearCurve { conv, .. } => {
            conv.spec().taps() > 1
        }
        Step::LinearAdd { conv, other, .. } => conv.spec().taps() > 1 && *other != act,
        _ => false,
    }
}
