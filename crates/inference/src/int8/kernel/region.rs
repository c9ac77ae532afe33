//! A part of an activation, or an activation as a part of a larger one.

use super::layout::{Act, ActMut};

/// Copies what lies in `from` at channel, row and column `first` and behind to row and column `at` of `to`, as far as
/// both reach; all else of `to` holds its zero point.
///
/// # Panics
/// If there are fewer channels behind `first` than `to` has, or one of the two is packed.
pub fn copy_region(from: &Act<'_>, first: [usize; 3], at: [usize; 2], to: &mut ActMut<'_>) {
    let (source, target) = (*from.layout(), *to.layout());
    assert!(!source.is_packed && !target.is_packed, "a region of packed pixels");
    assert_eq!(source.batch, target.batch, "batch of a region");
    let [channel, row, column] = first;
    assert!(channel + target.channels <= source.channels, "channels of a region");
    let height = source.height.saturating_sub(row).min(target.height.saturating_sub(at[0]));
    let width = source.width.saturating_sub(column).min(target.width.saturating_sub(at[1]));
    if [height, width] == [target.height, target.width] {
        to.fill_border();
    } else {
        to.data_mut().fill(target.zero_point);
    }
    let (step, to_step) = (source.pixel_bytes(), target.pixel_bytes());
    for n in 0..target.batch {
        for y in 0..height {
            let line = &from.data()[source.pixel(n, row + y, column)..];
            let to_line = &mut to.data_mut()[target.pixel(n, at[0] + y, at[1])..];
            if source.channels == target.channels {
                let bytes = width * step;
                to_line[..bytes].copy_from_slice(&line[..bytes]);
                continue;
            }
            for x in 0..width {
                let pixel = &line[x * step + channel..][..target.channels];
                to_line[x * to_step..][..target.channels].copy_from_slice(pixel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::copy_region;
    use crate::int8::kernel::tests::{Random, random_act};
    use crate::int8::kernel::{Act, ActMut, Border, Layout};

    #[test]
    fn a_region_is_where_it_was_put_and_zeros_are_around_it() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let (batch, channels, skipped) = (1 + random.below(2), 1 + random.below(40), random.below(20));
            let skipped = random.pick(&[0, skipped]);
            let [height, width, rows, columns] = [(); 4].map(|()| 1 + random.below(7));
            let (cut, pads) = ([random.below(3), random.below(3)], [random.below(3), random.below(3)]);
            let border = random.below(3);
            let source = Layout::new(batch, channels + skipped, height, width, 7);
            let source = source.with_border(Border::all(border));
            let bytes = random_act(source, &mut random);
            let from = Act::new(source, bytes.bytes());
            let target = Layout::new(batch, channels, rows, columns, 9).with_border(Border::all(2 - border));
            let mut made = random_act(target, &mut random);
            made.bytes_mut()[..target.pixel_bytes()].fill(1);
            let mut to = ActMut::new(target, made.bytes_mut());
            copy_region(&from, [skipped, cut[0], cut[1]], pads, &mut to);
            let place = |at: usize, pad: usize, cut: usize, size: usize| {
                at.checked_sub(pad).map(|at| at + cut).filter(|at| *at < size)
            };
            for index in 0..target.elements() {
                let (rest, x) = (index / columns, index % columns);
                let (rest, y, c) = (rest / rows, rest % rows, rest / rows % channels);
                let n = rest / channels;
                let there = place(y, pads[0], cut[0], height).zip(place(x, pads[1], cut[1], width));
                let want = there.map_or(9, |(row, column)| from.get(n, skipped + c, row, column));
                assert_eq!(to.as_act().get(n, c, y, x), want, "seed {seed}, {n} {c} {y} {x}");
            }
            let corner = &made.bytes()[..target.pixel_bytes()];
            assert!(border == 2 || corner.iter().all(|byte| *byte == 9), "seed {seed}: the border");
        }
    }
}
