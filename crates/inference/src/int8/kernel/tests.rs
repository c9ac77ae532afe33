//! Every level of this machine against the reference, over random shapes, weights and zero points.

use super::wide::Width;
use super::{
    Act, ActMut, AddSpec, AvgPool, Border, Buffer, Chain, Conv, ConvSpec, Counts, Curve, Layout, Level,
    MaxPool, MulSpec, Requant, Scratch, Table, ToBytes, ToFloat, Weights, Window, to_plain,
};

/// A small generator (xorshift), seeded by the case, so that a failure names what to repeat.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(super) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// An activation with random values, lanes of no meaning included.
pub(super) fn random_act(layout: Layout, random: &mut Random) -> Buffer {
    let mut buffer = Buffer::new(layout.bytes());
    buffer.bytes_mut().iter_mut().for_each(|value| *value = random.byte());
    ActMut::new(layout, buffer.bytes_mut()).fill_border();
    buffer
}

struct Case {
    spec: ConvSpec,
    input: Layout,
    weights: Vec<u8>,
    is_signed: bool,
    zero_points: Vec<i32>,
    requant: Requant,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let spec = random_spec(random);
        let size = random.pick(&[1, 3, 7, 8, 14, 20]) + spec.kernel[1] * spec.dilation[1];
        let height = if spec.kernel[0] == 1 && random.below(4) == 0 { 1 } else { size };
        let extra = Border { top: random.below(2), left: random.below(2), bottom: random.below(2), right: 0 };
        let border = Border {
            top: spec.pads.top + extra.top,
            left: spec.pads.left + extra.left,
            bottom: spec.pads.bottom + extra.bottom,
            right: spec.pads.right,
        };
        let border = if spec.is_pointwise() && random.below(2) == 0 { Border::default() } else { border };
        let batch = random.pick(&[1, 1, 2]);
        let mut input = Layout::new(batch, spec.in_channels, height, size, random.byte()).with_border(border);
        if spec.groups == 1 && random.below(2) == 0 {
            input = input.packed();
        }
        let count = spec.out_channels;
        let weights = (0..count * spec.group_in() * spec.taps()).map(|_| random.byte()).collect();
        let is_signed = random.below(2) == 0;
        let zeroes = if random.below(2) == 0 { 1 } else { count };
        let zero_points = (0..zeroes).map(|_| match (is_signed, random.below(3)) {
            (true, 0 | 1) => 0,
            (true, _) => i32::from(random.byte()) - 128,
            (false, 0) => 128,
            (false, _) => i32::from(random.byte()),
        });
        let zero_points = zero_points.collect();
        let scale = 0.01 / ((spec.group_in() * spec.taps()) as f32).sqrt();
        let requant = Requant {
            multiplier: (0..count).map(|_| scale * (1.0 + random.below(100) as f32 / 50.0)).collect(),
            bias: (0..count).map(|_| i32::try_from(random.below(20000)).unwrap() - 10000).collect(),
            zero_point: random.byte(),
            lo: random.pick(&[0, 0, 20]),
            hi: random.pick(&[255, 255, 200]),
        };
        Self { spec, input, weights, is_signed, zero_points, requant }
    }

    fn signed(&self) -> Vec<i8> {
        self.weights.iter().map(|weight| weight.cast_signed()).collect()
    }

    fn with_weights<T>(&self, pack: impl FnOnce(Weights<'_>) -> T) -> T {
        let signed = self.signed();
        pack(if self.is_signed { Weights::S8(&signed) } else { Weights::U8(&self.weights) })
    }

    fn conv(&self, level: Level) -> Conv {
        let zero = self.input.zero_point;
        self.with_weights(|weights| {
            Conv::pack(&self.spec, weights, &self.zero_points, &self.requant, zero, level).unwrap()
        })
    }
}

fn random_spec(random: &mut Random) -> ConvSpec {
    let groups = random.pick(&[1, 1, 1, 2, 4, 0]);
    let kernel = random.pick(&[[1, 1], [1, 1], [3, 3], [3, 3], [5, 5], [7, 7], [1, 7], [2, 3], [3, 1]]);
    let (groups, in_channels, out_channels) = if groups == 0 {
        let channels = random.pick(&[2, 8, 16, 24, 32, 40, 48, 64, 96, 100, 130]);
        (channels, channels, channels)
    } else {
        let inputs = random.pick(&[1, 3, 4, 5, 16, 20, 32, 64, 65, 128, 140]);
        let outputs = random.pick(&[1, 3, 8, 16, 20, 32, 48, 64, 70, 100, 130]);
        (groups, inputs * groups, outputs * groups)
    };
    let stride = random.pick(&[[1, 1], [1, 1], [2, 2], [1, 2]]);
    let dilation = random.pick(&[[1, 1], [1, 1], [1, 1], [2, 2]]);
    let pads = Border {
        top: random.below(kernel[0]),
        left: random.below(kernel[1]),
        bottom: random.below(kernel[0]),
        right: random.below(kernel[1]),
    };
    ConvSpec { in_channels, out_channels, groups, kernel, stride, dilation, pads }
}

fn plain(act: &Act<'_>) -> Vec<u8> {
    let mut values = vec![0; act.layout().elements()];
    to_plain(act, &mut values);
    values
}

#[test]
fn convolutions_give_the_reference_bytes_on_every_level() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let case = Case::new(&mut random);
        let input = random_act(case.input, &mut random);
        let input = Act::new(case.input, input.bytes());
        let Some(layout) = case.spec.output_layout(&case.input, case.requant.zero_point) else { continue };
        let layout = layout.with_border(random.pick(&[Border::default(), Border::all(1)]));
        let (mut scratch, mut output) = (Scratch::default(), Buffer::new(layout.bytes()));
        let mut want = None;
        for level in Level::available() {
            let mut output = ActMut::new(layout, output.bytes_mut());
            output.data_mut().fill(77);
            case.conv(level).run(&input, &mut output, &mut scratch);
            let got = plain(&output.as_act());
            assert!(layout.is_dense() || output.data_mut()[0] == layout.zero_point, "border, seed {seed}");
            assert!(output.data_mut()[layout.bytes() - Layout::SLACK..].iter().all(|v| *v == 77), "slack");
            let want = want.get_or_insert_with(|| got.clone());
            assert!(*want == got, "{level}, seed {seed}: {:?} {:?}", case.spec, case.input);
        }
    }
}

/// Pairs and fours of values that just fit into 16 bits with the furthest weights, and those that just don't.
#[test]
fn values_at_the_edge_of_16_bits_give_the_reference_bytes_on_every_level() {
    const PALETTES: [&[u8]; 8] = [
        &[255],
        &[0, 255],
        &[127, 128],
        &[63, 64],
        &[60, 64, 67],
        &[0, 1, 40, 255],
        &[64, 128, 192],
        &[96, 128, 160],
    ];
    for seed in 0..160 {
        let mut random = Random::new(seed + 70_000);
        let mut case = Case::new(&mut random);
        case.is_signed = true;
        case.zero_points = vec![0];
        case.weights.iter_mut().for_each(|weight| *weight = random.pick(&[0x80, 0x7f, 0x7f]));
        case.input.zero_point = random.pick(&[0, 63, 64, 128, 192, 193, 255]);
        case.requant.multiplier.iter_mut().for_each(|multiplier| *multiplier *= 0.2);
        let palette = random.pick(&PALETTES);
        let mut values = random_act(case.input, &mut random);
        values.bytes_mut().iter_mut().for_each(|value| *value = random.pick(palette));
        ActMut::new(case.input, values.bytes_mut()).fill_border();
        let input = Act::new(case.input, values.bytes());
        let Some(layout) = case.spec.output_layout(&case.input, case.requant.zero_point) else { continue };
        let (mut scratch, mut output) = (Scratch::default(), Buffer::new(layout.bytes()));
        let mut want = None;
        for level in Level::available() {
            let mut output = ActMut::new(layout, output.bytes_mut());
            case.conv(level).run(&input, &mut output, &mut scratch);
            let got = plain(&output.as_act());
            let want = want.get_or_insert_with(|| got.clone());
            assert!(*want == got, "{level}, seed {seed}: {:?} {:?}", case.spec, case.input);
        }
    }
}

/// Bit for bit: the sums are exact, and the scaling is the same everywhere.
#[test]
fn floats_are_those_of_the_reference_on_every_level() {
    for seed in 0..300 {
        let mut random = Random::new(seed + 10_000);
        let case = Case::new(&mut random);
        let input = random_act(case.input, &mut random);
        let input = Act::new(case.input, input.bytes());
        let Some(layout) = case.spec.output_layout(&case.input, 0) else { continue };
        let count = case.spec.out_channels;
        let mut reals = |count: usize| -> Vec<f32> {
            (0..count).map(|_| random.below(2000) as f32 / 700.0 - 1.0).collect()
        };
        let (scales, bias) = (reals(count), reals(count));
        let bounds = random.pick(&[[f32::NEG_INFINITY, f32::INFINITY], [0.0, f32::INFINITY], [0.0, 600.0]]);
        let by = ToFloat {
            scale: 0.37,
            scales: &scales[..random.pick(&[1, count])],
            bias: &bias[..random.pick(&[0, count])],
            bounds,
        };
        let mut scratch = Scratch::default();
        let mut want = None;
        for level in Level::available() {
            let zeroes = &case.zero_points;
            let conv =
                case.with_weights(|weights| Conv::pack_float(&case.spec, weights, zeroes, level).unwrap());
            Width::for_each(|width| {
                let mut values = vec![f32::NAN; layout.elements()];
                conv.run_float(&input, &by, &mut values, &mut scratch);
                if seed % 12 == 0 {
                    compare_curved(&conv, (&input, &by), (&values, layout), &mut scratch);
                }
                let values: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
                let want = want.get_or_insert_with(|| values.clone());
                assert!(*want == values, "{level}, {width:?}, seed {seed}: {:?} {:?}", case.spec, case.input);
            });
        }
    }
}

/// A function of the results, quantized: as if they had been written down in f32.
fn compare_curved(
    conv: &Conv,
    (input, by): (&Act<'_>, &ToFloat<'_>),
    (values, layout): (&[f32], Layout),
    scratch: &mut Scratch,
) {
    let layout = Layout { zero_point: 77, ..layout }.with_border(Border::all(1));
    let each: Vec<f32> = (0..layout.channels).map(|channel| 0.3 + 0.1 * channel as f32).collect();
    for (curve, scales) in [(Some(Curve::Silu), &[2.7][..]), (None, &each), (Some(Curve::HardSwish), &each)] {
        let [mut want, mut got] = [0; 2].map(|_| Buffer::new(layout.bytes()));
        super::quantize(values, (curve, scales), &mut ActMut::new(layout, want.bytes_mut()));
        let then = ToBytes { curve, scales };
        conv.run_curve(input, (by, &then), &mut ActMut::new(layout, got.bytes_mut()), scratch);
        let [want, got] = [&want, &got].map(|buffer| plain(&Act::new(layout, buffer.bytes())));
        assert!(want == got, "{curve:?}, {scales:?}: {layout:?}");
    }
}

/// Less their zero point they need nine bits; what makes them fit is a few numbers for each channel.
#[test]
fn unsigned_weights_are_held_once_on_every_level() {
    let spec = ConvSpec { kernel: [3, 3], ..ConvSpec::pointwise(64, 64) };
    let mut random = Random::new(6);
    let unsigned: Vec<u8> = (0..64 * 64 * 9).map(|_| random.byte().min(250)).collect();
    let signed: Vec<i8> = unsigned.iter().map(|weight| weight.wrapping_sub(125).cast_signed()).collect();
    let requant = Requant { multiplier: vec![1e-4; 64], bias: vec![0; 64], zero_point: 9, lo: 0, hi: 255 };
    for level in Level::available().into_iter().filter(|level| *level != Level::Scalar) {
        let bytes = |weights, zero| {
            let known = Conv::pack(&spec, weights, &[zero], &requant, 7, level).unwrap().weight_bytes();
            [known, Conv::pack_float(&spec, weights, &[zero], level).unwrap().weight_bytes()]
        };
        let [plain, shifted] = [bytes(Weights::S8(&signed), 0), bytes(Weights::U8(&unsigned), 3)];
        for (plain, shifted) in plain.into_iter().zip(shifted) {
            assert!(shifted <= plain + 4 * 64, "{level}: {shifted} bytes, not {plain}");
        }
    }
}

#[test]
fn a_sum_with_a_residual_is_convolution_then_addition() {
    for seed in 0..60 {
        let mut random = Random::new(seed + 20_000);
        let case = Case::new(&mut random);
        let input = random_act(case.input, &mut random);
        let input = Act::new(case.input, input.bytes());
        let zero_point = random.byte();
        let Some(layout) = case.spec.output_layout(&case.input, zero_point) else { continue };
        let other = random_act(layout, &mut random);
        let other = Act::new(layout, other.bytes());
        let add = AddSpec { a_multiplier: 0.7, b_multiplier: 0.4, lo: 3, hi: 250 };
        let own = Layout { zero_point: case.requant.zero_point, ..layout };
        for level in Level::available() {
            let (mut scratch, conv) = (Scratch::default(), case.conv(level));
            let (mut first, mut both) = (Buffer::new(layout.bytes()), Buffer::new(layout.bytes()));
            let mut steps = ActMut::new(own, first.bytes_mut());
            conv.run(&input, &mut steps, &mut scratch);
            let mut sum = Buffer::new(layout.bytes());
            let mut sum = ActMut::new(layout, sum.bytes_mut());
            super::add(&steps.as_act(), &other, &add, &mut sum);
            let mut fused = ActMut::new(layout, both.bytes_mut());
            conv.run_add(&input, &other, &add, &mut fused, &mut scratch);
            assert!(plain(&fused.as_act()) == plain(&sum.as_act()), "{level}, seed {seed}");
        }
    }
}

#[test]
fn a_chain_is_both_convolutions() {
    for seed in 0..60 {
        let mut random = Random::new(seed + 60_000);
        let case = Case::new(&mut random);
        let channels = case.spec.out_channels;
        let kernel = random.pick(&[[3, 3], [5, 3], [2, 2]]);
        let stride = random.pick(&[[1, 1], [2, 2], [3, 1]]);
        let pads = Border { top: random.below(2), left: 1, bottom: random.below(2), right: 0 };
        let pads = if kernel[0] == 2 { Border { bottom: 0, ..pads } } else { pads };
        let then = ConvSpec {
            in_channels: channels,
            groups: channels,
            kernel,
            stride,
            pads,
            dilation: [1, 1],
            ..case.spec
        };
        let size = case.spec.output(case.input.height, case.input.width);
        let Some([height, width]) = size else { continue };
        let zero = case.requant.zero_point;
        // Wide rows, so that few of them are kept at once.
        let border = Border { right: random.pick(&[0, 60, 600]), ..pads };
        let middle = Layout::new(2, channels, height, width, zero).with_border(border);
        let Some(to) = then.output_layout(&middle, 9).filter(|_| Chain::fits(&case.spec, &then)) else {
            continue;
        };
        let (input, to) = (Layout { batch: 2, ..case.input }, to.with_border(Border::all(1)));
        let values = random_act(input, &mut random);
        let values = Act::new(input, values.bytes());
        let weights: Vec<i8> = (0..channels * then.taps()).map(|_| random.byte().cast_signed()).collect();
        let requant = Requant { zero_point: 9, ..case.requant.clone() };
        for level in Level::available() {
            let second = || Conv::pack(&then, Weights::S8(&weights), &[0], &requant, zero, level).unwrap();
            let mut scratch = Scratch::default();
            let (mut between, mut want) = (Buffer::new(middle.bytes()), Buffer::new(to.bytes()));
            case.conv(level).run(&values, &mut ActMut::new(middle, between.bytes_mut()), &mut scratch);
            let between = Act::new(middle, between.bytes());
            second().run(&between, &mut ActMut::new(to, want.bytes_mut()), &mut scratch);
            let mut got = Buffer::new(to.bytes());
            let chain = Chain::new(case.conv(level), second(), middle);
            chain.run(&values, &mut ActMut::new(to, got.bytes_mut()), &mut scratch);
            let same = |place: usize| got.bytes()[place] == want.bytes()[place];
            let [from, end] = [0, to.bytes() - Layout::SLACK];
            let pixels = plain(&Act::new(to, got.bytes())) == plain(&Act::new(to, want.bytes()));
            assert!(pixels && same(from) && same(end - 1), "{level}, seed {seed}: {:?} {then:?}", case.spec);
        }
    }
}

/// Zero points, sizes and windows of a pool, and the definition of both pools.
#[test]
fn pools_are_as_onnx_defines_them() {
    Width::for_each(|width| (0..60).for_each(|seed| compare_pools(seed, width)));
}

fn compare_pools(seed: u64, width: Width) {
    let mut random = Random::new(seed + 30_000);
    let from = Layout::new(2, random.pick(&[3, 16, 40, 80]), 9, 7, random.byte());
    let buffer = random_act(from, &mut random);
    let input = Act::new(from, buffer.bytes());
    let window = Window {
        kernel: random.pick(&[[3, 3], [2, 2], [9, 7], [1, 3]]),
        stride: random.pick(&[[1, 1], [2, 2]]),
        dilation: [1, 1],
        pads: Border::default(),
    };
    let is_padded = window.kernel[0] > 1 && random.below(2) == 0;
    let window = Window { pads: Border::all(usize::from(is_padded)), ..window };
    let pads = [window.pads.top, window.pads.left];
    let size =
        |axis: usize, size: usize| (size + 2 * pads[axis] - window.kernel[axis]) / window.stride[axis] + 1;
    let to = Layout::new(2, from.channels, size(0, 9), size(1, 7), random.byte()).with_border(Border::all(1));
    let counts = random.pick(&[Counts::Image, Counts::Padding, Counts::Window]);
    let average = AvgPool { window, counts, multiplier: 0.9 };
    let (mut averages, mut highest) = (Buffer::new(to.bytes()), Buffer::new(to.bytes()));
    average.run(&input, &mut ActMut::new(to, averages.bytes_mut()));
    MaxPool { window }.run(&input, &mut ActMut::new(to, highest.bytes_mut()));
    let mut means = vec![f32::NAN; 2 * from.channels];
    super::mean(&input, 0.3, &mut means);
    for (values, mean) in plain(&input).chunks_exact(9 * 7).zip(&means) {
        let sum: i32 = values.iter().map(|value| i32::from(*value) - i32::from(from.zero_point)).sum();
        assert!((mean - sum as f32 * 0.3 / 63.0).abs() < 1e-5, "mean, seed {seed}, {width:?}");
    }
    let (averages, highest) = (Act::new(to, averages.bytes()), Act::new(to, highest.bytes()));
    for (c, y, x) in
        (0..to.channels).flat_map(|c| (0..to.height).flat_map(move |y| (0..to.width).map(move |x| (c, y, x))))
    {
        let (mut values, [kh, kw]) = (Vec::new(), window.kernel);
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let place = [y * window.stride[0] + ky, x * window.stride[1] + kx];
            if (pads[0]..9 + pads[0]).contains(&place[0]) && (pads[1]..7 + pads[1]).contains(&place[1]) {
                values.push(input.get(1, c, place[0] - pads[0], place[1] - pads[1]));
            }
        }
        let count = if average.counts == Counts::Image { values.len() } else { kh * kw };
        let sum: i32 = values.iter().map(|v| i32::from(*v) - i32::from(from.zero_point)).sum();
        let mean = (sum as f32 * (0.9 / count as f32)).round_ties_even() as i32;
        let mean = (mean + i32::from(to.zero_point)).clamp(0, 255);
        assert_eq!(i32::from(averages.get(1, c, y, x)), mean, "average, seed {seed}, {width:?}");
        assert_eq!(
            highest.get(1, c, y, x),
            values.into_iter().max().unwrap(),
            "highest, seed {seed}, {width:?}"
        );
    }
}

/// A window of dilation 0 is many places of one pixel.
#[test]
fn the_mean_of_more_places_than_i32_can_sum_is_right() {
    let side = 2_920;
    for (value, zero_point) in [(255, 0), (0, 255), (200, 3), (9, 210)] {
        let from = Layout::new(1, 1, 1, 1, zero_point);
        let mut buffer = Buffer::new(from.bytes());
        buffer.bytes_mut().fill(value);
        let window = Window { kernel: [side; 2], dilation: [0, 0], ..Window::global(1, 1) };
        let pool = AvgPool { window, counts: Counts::Image, multiplier: 0.5 };
        let to = Layout::new(1, 1, 1, 1, 128);
        let mut mean = Buffer::new(to.bytes());
        pool.run(&Act::new(from, buffer.bytes()), &mut ActMut::new(to, mean.bytes_mut()));
        let want = (f32::from(value) - f32::from(zero_point)) * 0.5;
        assert_eq!(mean.bytes()[0], (want.round_ties_even() + 128.0).clamp(0.0, 255.0) as u8);
    }
}

#[test]
fn what_is_put_into_pixels_comes_out_again() {
    Width::for_each(|width| (0..40).for_each(|seed| put_in_and_out(seed, width)));
}

fn put_in_and_out(seed: u64, lanes: Width) {
    let mut random = Random::new(seed + 40_000);
    let [height, width] = random.pick(&[[1, 1], [5, 7], [1, 40], [20, 33]]);
    let layout = Layout::new(2, random.pick(&[1, 3, 4, 17, 40]), height, width, random.byte());
    let layout = layout.with_border(random.pick(&[Border::default(), Border::all(1)]));
    let layout = if random.below(2) == 0 { layout.packed() } else { layout };
    let values: Vec<u8> = (0..layout.elements()).map(|_| random.byte()).collect();
    let mut buffer = Buffer::new(layout.bytes());
    super::from_plain(&values, &mut ActMut::new(layout, buffer.bytes_mut()));
    let act = Act::new(layout, buffer.bytes());
    assert!(plain(&act) == values, "bytes, seed {seed}, {lanes:?}");
    let last = [1, layout.channels - 1, height - 1, width - 1];
    assert_eq!(
        act.get(last[0], last[1], last[2], last[3]),
        values[values.len() - 1],
        "seed {seed}, {lanes:?}"
    );
    let mut reals = vec![0.0; values.len()];
    super::dequantize(&act, 0.37, &mut reals);
    let mut again = Buffer::new(layout.bytes());
    super::quantize(&reals, (None, &[0.37]), &mut ActMut::new(layout, again.bytes_mut()));
    assert!(plain(&Act::new(layout, again.bytes())) == values, "reals, seed {seed}, {lanes:?}");
}

#[test]
fn element_wise_operators_agree_with_their_definitions() {
    Width::for_each(|width| (0..40).for_each(|seed| compare_element_wise(seed, width)));
}

fn compare_element_wise(seed: u64, width: Width) {
    let mut random = Random::new(seed + 50_000);
    let layout = Layout::new(2, random.pick(&[3, 16, 70]), 5, 6, random.byte());
    let is_one = random.below(2) == 0;
    let right = Layout { zero_point: random.byte(), ..layout };
    let right =
        if is_one { Layout { height: 1, width: 1, ..right } } else { right.with_border(Border::all(1)) };
    let (a, b) = (random_act(layout, &mut random), random_act(right, &mut random));
    let (a, b) = (Act::new(layout, a.bytes()), Act::new(right, b.bytes()));
    let to = Layout { zero_point: random.byte(), ..layout }.with_border(Border::all(1));
    let zeroes = [layout.zero_point, right.zero_point, to.zero_point];
    let (add, mul) = (
        AddSpec { a_multiplier: 0.8, b_multiplier: 0.3, lo: 0, hi: 240 },
        MulSpec { multiplier: 0.011, lo: 5, hi: 255 },
    );
    let table = Table::new((0.1, layout.zero_point), (0.05, to.zero_point), |value| value.max(0.0));
    let mut results: [Buffer; 3] = std::array::from_fn(|_| Buffer::new(to.bytes()));
    let [sum, product, mapped] = &mut results;
    super::add(&a, &b, &add, &mut ActMut::new(to, sum.bytes_mut()));
    super::mul(&a, &b, &mul, &mut ActMut::new(to, product.bytes_mut()));
    super::lookup(&a, &table, &mut ActMut::new(to, mapped.bytes_mut()));
    let [sum, product, mapped] = results.each_ref().map(|buffer| Act::new(to, buffer.bytes()));
    for (c, y, x) in
        (0..layout.channels).flat_map(|c| (0..5).flat_map(move |y| (0..6).map(move |x| (c, y, x))))
    {
        let (left, right) = (a.get(1, c, y, x), if is_one { b.get(1, c, 0, 0) } else { b.get(1, c, y, x) });
        assert_eq!(sum.get(1, c, y, x), add.apply(left, right, zeroes), "sum, seed {seed}, {width:?}");
        assert_eq!(
            product.get(1, c, y, x),
            mul.apply(left, right, zeroes),
            "product, seed {seed}, {width:?}"
        );
        assert_eq!(mapped.get(1, c, y, x), table.0[usize::from(left)], "table, seed {seed}, {width:?}");
    }
}
