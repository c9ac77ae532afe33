//! Windows: the shapes of convolutions and pools, and the pools themselves.

use super::Reason;
use super::graph::Node;
use super::sink::End;
use super::walk::{Form, Kind, Lowering, Quant};
use crate::int8::kernel::{AvgPool, Border, ConvSpec, Counts, MAX_MEAN_PIXELS, MaxPool, Window};
use crate::int8::program::{FloatId, FloatOp, Step};
use crate::tensor::volume;

/// Most values of all windows together: about a minute of one core.
#[cfg(target_pointer_width = "64")]
const MAX_WORK: usize = 1 << 36;
#[cfg(not(target_pointer_width = "64"))]
const MAX_WORK: usize = 1 << 31;

/// A window over one or two axes, as the attributes say.
struct Frame {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: Border,
    /// Size of the output.
    output: [usize; 2],
}

fn frame(node: Node<'_>, shape: &[usize], kernel: &[usize], is_ceil: bool) -> Result<Frame, Reason> {
    let wrong = || Reason::Shape { shape: shape.to_vec() };
    let axes = kernel.len();
    if shape.len() != axes + 2 || !(axes == 1 || axes == 2) {
        return Err(Reason::Form("only one and two axes are known"));
    }
    // Large numbers are impossible anyway; below this nothing overflows.
    let small = |value: i64| usize::try_from(value).ok().filter(|value| *value <= 1 << 20);
    let list = |name: &str, default: usize, count: usize| -> Result<Vec<usize>, Reason> {
        let Some(values) = node.ints(name).filter(|values| !values.is_empty()) else {
            return Ok(vec![default; count]);
        };
        let values: Option<Vec<usize>> = values.iter().map(|value| small(*value)).collect();
        values.filter(|values| values.len() == count).ok_or_else(wrong)
    };
    let (stride, dilation) = (list("strides", 1, axes)?, list("dilations", 1, axes)?);
    let mut pads = list("pads", 0, axes * 2)?;
    let mut output = Vec::new();
    for axis in 0..axes {
        let size = shape[axis + 2];
        let reach =
            kernel[axis].checked_sub(1).and_then(|n| n.checked_mul(dilation[axis])).ok_or_else(wrong)? + 1;
        if stride[axis] == 0 {
            return Err(wrong());
        }
        auto_pads(node, &mut pads, axis, (size, reach, stride[axis]))?;
        let room = (size + pads[axis] + pads[axes + axis]).checked_sub(reach).ok_or_else(wrong)?;
        let last = if is_ceil {
            // A window that starts in the padding behind the image isn't one.
            let last = room.div_ceil(stride[axis]);
            if last * stride[axis] >= size + pads[axis] { last - 1 } else { last }
        } else {
            room / stride[axis]
        };
        output.push(last + 1);
    }
    let work = output.iter().chain(kernel).fold(shape[1], |all, size| all.saturating_mul(*size));
    if work > MAX_WORK {
        return Err(wrong());
    }
    let two =
        |values: &[usize], one: usize| if axes == 1 { [one, values[0]] } else { [values[0], values[1]] };
    let [top, left] = two(&pads[..axes], 0);
    let [bottom, right] = two(&pads[axes..], 0);
    Ok(Frame {
        kernel: two(kernel, 1),
        stride: two(&stride, 1),
        dilation: two(&dilation, 1),
        pads: Border { top, left, bottom, right },
        output: two(&output, 1),
    })
}

fn auto_pads(
    node: Node<'_>,
    pads: &mut [usize],
    axis: usize,
    (size, reach, stride): (usize, usize, usize),
) -> Result<(), Reason> {
    let axes = pads.len() / 2;
    let total = (size.div_ceil(stride).saturating_sub(1) * stride + reach).saturating_sub(size);
    let (before, after) = match node.text("auto_pad") {
        None | Some("NOTSET" | "") => return Ok(()),
        Some("VALID") => (0, 0),
        Some("SAME_UPPER") => (total / 2, total - total / 2),
        Some("SAME_LOWER") => (total - total / 2, total / 2),
        Some(_) => return Err(Reason::Form("auto_pad has an unknown value")),
    };
    (pads[axis], pads[axes + axis]) = (before, after);
    Ok(())
}

/// The shape of a convolution and of its output.
pub(super) fn conv_spec(
    node: Node<'_>,
    input: &[usize],
    weights: &[usize],
) -> Result<(ConvSpec, Vec<usize>), Reason> {
    let wrong = || Reason::Shape { shape: weights.to_vec() };
    let [out_channels, group_in, kernel @ ..] = weights else { return Err(wrong()) };
    let said = node.ints("kernel_shape").filter(|said| !said.is_empty());
    if said.is_some_and(|said| {
        !said.iter().map(|size| usize::try_from(*size).ok()).eq(kernel.iter().copied().map(Some))
    }) {
        return Err(Reason::Form("its kernel_shape isn't that of the weights"));
    }
    let frame = frame(node, input, kernel, false)?;
    let groups = usize::try_from(node.int("group").unwrap_or(1)).map_err(|_| wrong())?;
    let in_channels = input.get(1).copied().unwrap_or(0);
    if group_in.checked_mul(groups) != Some(in_channels) {
        return Err(wrong());
    }
    let spec = ConvSpec {
        in_channels,
        out_channels: *out_channels,
        groups,
        kernel: frame.kernel,
        stride: frame.stride,
        dilation: frame.dilation,
        pads: frame.pads,
    };
    let mut output = vec![input[0], *out_channels];
    output.extend(&frame.output[2 - kernel.len()..]);
    Ok((spec, output))
}

impl<'a> Lowering<'a> {
    /// MaxPool of 8-bit values, of views or of f32.
    pub(super) fn max_pool(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        if node.0.output.len() > 1 || node.int("storage_order").unwrap_or(0) != 0 {
            return Err(Reason::Form("the places of the maxima are wanted"));
        }
        let bound = self.lookup(name)?;
        let (window, output) = pool_window(node, &bound.shape)?;
        let kind = match bound.kind {
            Kind::Float(from) => {
                let spatial = |shape: &[usize]| match shape[2..] {
                    [width] => [1, width],
                    _ => [shape[2], shape[3]],
                };
                let to = self.values.add_float(volume(&output), None);
                let op = FloatOp::MaxPool { window, from: spatial(&bound.shape), to: spatial(&output) };
                self.steps.push(Step::Float { op, from: vec![from], to });
                Kind::Float(to)
            }
            Kind::Bytes(act, form) | Kind::View(act, form) => {
                let params = self.view(name).or_else(|_| self.bytes(name))?.params;
                let quant = Quant { act, form, shape: bound.shape, params };
                let quant = self.with_form(quant, Form::First)?;
                let to = self.act(&output, Form::First, params)?;
                self.steps.push(Step::MaxPool { pool: MaxPool { window }, from: quant.act, to });
                match bound.kind {
                    Kind::Bytes(..) => Kind::Bytes(to, Form::First),
                    _ => Kind::View(to, Form::First),
                }
            }
        };
        self.bind(node.output(), output, kind);
        Ok(())
    }

    /// AveragePool and GlobalAveragePool over a view, quantized again; the latter over f32 too.
    pub(super) fn average_pool(&mut self, node: Node<'a>) -> Result<(), Reason> {
        self.averaged(node, true)
    }

    /// The same, and a ReduceMean over all pixels, of which nothing may be left but the channels.
    pub(super) fn averaged(&mut self, node: Node<'a>, keeps_axes: bool) -> Result<(), Reason> {
        let name = Self::input(node, 0)?;
        let left = |mut shape: Vec<usize>| {
            shape.truncate(if keeps_axes { shape.len() } else { 2 });
            shape
        };
        if let Ok(quant) = self.view(name) {
            let sink = self.sink(node.output());
            if let End::Bytes(params, _) = sink.end {
                let limits = sink.limits(params);
                if limits != [0, 255] {
                    return Err(Reason::Form("a clip stands between the pool and its quantization"));
                }
                let (to, shape) = self.average(node, quant, params)?;
                self.finish(&sink, &left(shape), Kind::Bytes(to, Form::First));
                return Ok(());
            }
        }
        if node.op() == "AveragePool" {
            return Err(Reason::Form("the result isn't quantized again"));
        }
        let (to, shape) = self.float_mean(name)?;
        self.bind(node.output(), left(shape), Kind::Float(to));
        Ok(())
    }

    /// The mean of all pixels of each channel, which nothing quantizes.
    fn float_mean(&mut self, name: &'a str) -> Result<(FloatId, Vec<usize>), Reason> {
        if let Ok(quant) = self.view(name)
            && volume(quant.shape.get(2..).unwrap_or_default()) <= MAX_MEAN_PIXELS
        {
            let quant = self.with_form(quant, Form::First)?;
            let (to, shape) = self.one_pixel(quant.shape);
            self.steps.push(Step::Mean { from: quant.act, to });
            return Ok((to, shape));
        }
        let (from, shape) = self.float(name)?;
        let run = volume(shape.get(2..).unwrap_or_default());
        let (to, shape) = self.one_pixel(shape);
        self.steps.push(Step::Float { op: FloatOp::Mean(run), from: vec![from], to });
        Ok((to, shape))
    }

    fn one_pixel(&mut self, mut shape: Vec<usize>) -> (FloatId, Vec<usize>) {
        shape.iter_mut().skip(2).for_each(|size| *size = 1);
        (self.values.add_float(volume(&shape), None), shape)
    }

    /// QLinearGlobalAveragePool and QLinearAveragePool.
    pub(super) fn qlinear_average_pool(&mut self, node: Node<'a>) -> Result<(), Reason> {
        let quant = self.operand(node, 0)?;
        let quant = self.images(node, quant)?;
        let sink = self.named_sink(node, 3)?;
        let End::Bytes(params, _) = sink.end else { return Err(Reason::Operator) };
        let (to, shape) = self.average(node, quant, params)?;
        self.finish(&sink, &shape, Kind::Bytes(to, Form::First));
        self.channels_back(node)
    }

    fn average(
        &mut self,
        node: Node<'a>,
        quant: Quant,
        params: super::walk::Params,
    ) -> Result<(crate::int8::program::ActId, Vec<usize>), Reason> {
        let multiplier = quant.params.scale / params.scale;
        let is_global = matches!(node.op(), "GlobalAveragePool" | "QLinearGlobalAveragePool" | "ReduceMean");
        let (window, output) = if is_global {
            let (height, width) = match quant.shape[..] {
                [_, _, height, width] => (height, width),
                [_, _, width] => (1, width),
                _ => return Err(Reason::Shape { shape: quant.shape }),
            };
            let mut output = quant.shape.clone();
            output.iter_mut().skip(2).for_each(|size| *size = 1);
            (Window::global(height, width), output)
        } else {
            pool_window(node, &quant.shape)?
        };
        // Where sizes are rounded up, the last window may reach beyond the padding.
        let counts = match node.int("count_include_pad").unwrap_or(0) {
            0 => Counts::Image,
            _ if node.op() == "AveragePool" => Counts::Padding,
            _ => Counts::Window,
        };
        let pool = AvgPool { window, counts, multiplier };
        if !pool.is_finite() {
            return Err(Reason::FAR_SCALES);
        }
        let quant = self.with_form(quant, Form::First)?;
        let to = self.act(&output, Form::First, params)?;
        self.steps.push(Step::AveragePool { pool, from: quant.act, to });
        Ok((to, output))
    }
}

/// The window of a pool and its output's shape.
pub(super) fn pool_window(node: Node<'_>, shape: &[usize]) -> Result<(Window, Vec<usize>), Reason> {
    let kernel = node.ints("kernel_shape").unwrap_or_default();
    let kernel =
        kernel.iter().map(|size| usize::try_from(*size).ok().filter(|size| (1..1 << 20).contains(size)));
    let kernel: Option<Vec<usize>> = kernel.collect();
    let kernel = kernel.ok_or_else(|| Reason::Shape { shape: shape.to_vec() })?;
    let frame = frame(node, shape, &kernel, node.int("ceil_mode").unwrap_or(0) != 0)?;
    let window =
        Window { kernel: frame.kernel, stride: frame.stride, dilation: frame.dilation, pads: frame.pads };
    let mut output = shape[..2].to_vec();
    output.extend(&frame.output[2 - kernel.len()..]);
    Ok((window, output))
}
