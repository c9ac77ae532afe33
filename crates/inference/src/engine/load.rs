//! From ONNX bytes to what runs: a program in int8 where the graph is quantized, else a plan of tract's.

use tract_onnx::Onnx;
use tract_onnx::pb::{ModelProto, NodeProto};
use tract_onnx::prelude::Framework;

use super::apart::Verdict;
use super::counted::counts_rows;
use super::mixing::{rows_of, settle};
use super::plan::{Fed, Feed, PASS_ROWS, Plan, Value, by_parts, is_a_row, text};
use super::{check, guarded, onnx};
use crate::clock::Clock;
use crate::error::{InferError, LoadError, chain};
use crate::int8::Int8;
use crate::int8::kernel::Level;
use crate::int8::lower::{is_only_int8, lower};
use crate::int8::program::{Profile, Program};
use crate::int8::report::Report;

/// Largest model in bytes.
const MAX_MODEL_BYTES: usize = 512 * 1024 * 1024;

/// A loaded model: immutable, shared by reference, one state per run.
pub(crate) struct Engine {
    runs: Runs,
    report: Report,
    /// Whether a row's answer depends on the other rows of its batch.
    mixes: bool,
}

enum Runs {
    Tract(Plan),
    Int8(Box<Program>),
}

impl Engine {
    /// Parses, checks, plans and warms up.
    pub(crate) fn load(bytes: &[u8], feeds: &[Feed], int8: Int8) -> Result<Self, LoadError> {
        if bytes.len() > MAX_MODEL_BYTES {
            return Err(LoadError::TooLarge { got: bytes.len(), max: MAX_MODEL_BYTES });
        }
        guarded(|| Self::load_unguarded(bytes, feeds, int8))
            .unwrap_or_else(|why| Err(LoadError::Runtime { why: format!("it panicked: {why}") }))
    }

    fn load_unguarded(mut bytes: &[u8], feeds: &[Feed], int8: Int8) -> Result<Self, LoadError> {
        let onnx = onnx();
        let proto = onnx.proto_model_for_read(&mut bytes).map_err(|e| LoadError::Parse { why: text(&e) })?;
        Self::of_proto(&onnx, proto, feeds, int8)
    }

    pub(super) fn of_proto(
        onnx: &Onnx,
        mut proto: ModelProto,
        feeds: &[Feed],
        int8: Int8,
    ) -> Result<Self, LoadError> {
        let opset = check::opset(&proto)?;
        super::rewrite::put_in_order(&mut proto)?;
        super::rewrite::spell(&mut proto)?;
        super::rewrite::gather_first(&mut proto);
        super::rewrite::widen(&mut proto);
        let knows = |node: &NodeProto| check::has(onnx, node, opset);
        check::check(&proto, |node| knows(node) || is_only_int8(node))?;
        let rows = rows_of(onnx, &proto, feeds);
        let counts_rows = feeds.iter().any(|feed| feed.is_batched) && counts_rows(&proto);
        let report = match int8 {
            Int8::Off => Report::of_tract("the switch is off"),
            Int8::On => match program(&proto, feeds, rows) {
                Ok((mut program, makes_a_row)) => {
                    let report = std::mem::take(&mut program.report);
                    let mixes = counts_rows || !makes_a_row || settle(rows, &proto, feeds, &mut program);
                    return Ok(Self { runs: Runs::Int8(Box::new(program)), report, mixes });
                }
                Err(report) => report,
            },
        };
        check::check(&proto, knows).map_err(|error| match error {
            LoadError::UnknownOp { op, node, .. } => {
                let (op, node) = report.stuck.clone().unwrap_or((op, node));
                LoadError::OnlyInt8 { op, node, why: report.why_whole() }
            }
            error => error,
        })?;
        let plan = Plan::build_owned(onnx, proto, feeds, Some(rows))?;
        let mixes = plan.mixes() || !plan.joins_rows();
        Ok(Self { runs: Runs::Tract(plan), report, mixes })
    }

    /// What became of the model's nodes.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// Names of the graph's outputs, in its order.
    pub(crate) fn outputs(&self) -> &[String] {
        match &self.runs {
            Runs::Tract(plan) => plan.outputs(),
            Runs::Int8(program) => &program.names,
        }
    }

    /// Whether one plan serves every batch size.
    pub(crate) fn is_batched(&self) -> bool {
        match &self.runs {
            Runs::Tract(plan) => plan.is_batched(),
            Runs::Int8(program) => program.is_batched,
        }
    }

    /// Whether a row's answer depends on the other rows of its batch.
    pub(crate) fn mixes_rows(&self) -> bool {
        self.mixes
    }

    /// Times each step of one row; none where tract runs the whole model.
    pub(crate) fn profile<C: Clock>(
        &self,
        feeds: &[Fed<'_>],
        runs: usize,
        clock: &mut C,
    ) -> Profile<C::Stop> {
        match &self.runs {
            Runs::Tract(_) => Ok(Ok(Vec::new())),
            Runs::Int8(program) => guarded(|| program.profile(feeds, runs, clock))
                .unwrap_or_else(|why| Ok(Err(InferError::Panic { why }))),
        }
    }

    /// Runs values in the order of the feeds; their first dimensions are the batch. Outputs come in the
    /// graph's order.
    pub(crate) fn run(&self, feeds: &[Fed<'_>], batch: usize) -> Result<Vec<Value>, InferError> {
        let program = match &self.runs {
            Runs::Tract(plan) => return plan.run(feeds, batch),
            Runs::Int8(program) => program,
        };
        if batch > 1 && self.mixes {
            return Err(InferError::MixesRows { got: batch });
        }
        let run = || {
            let rows = if program.is_batched { PASS_ROWS } else { 1 };
            if batch <= rows {
                return program.run(feeds, batch);
            }
            by_parts(feeds, &program.batched, (batch, rows), |feeds, count| program.run(feeds, count))
        };
        guarded(run).unwrap_or_else(|why| Err(InferError::Panic { why }))
    }
}

/// The model as a program that has run a row of zeros, and whether it made rows of it; or the report that says why it
/// isn't one.
fn program(proto: &ModelProto, feeds: &[Feed], rows: Verdict) -> Result<(Program, bool), Report> {
    let lowered = guarded(|| {
        let program = lower(proto, feeds, Level::detect(), rows)?;
        let zeros: Vec<Fed<'_>> = feeds.iter().map(|feed| feed.zeros(1)).collect();
        let made = program.run(&zeros, 1).map_err(|error| Report::of_tract(chain(&error)))?;
        let makes_a_row = made.iter().all(is_a_row) || !feeds.iter().any(|feed| feed.is_batched);
        Ok((program, makes_a_row))
    });
    lowered.unwrap_or_else(|panic| Err(Report::of_tract(format!("the lowering panicked: {panic}"))))
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::TensorProto;

    use super::*;
    use crate::engine::plain_f32;
    use crate::engine::plan::tests::{constant, fed, ints, model, node};

    /// A layer of 6 in int8 from `x` to `v`, and what is behind it.
    fn quantized(behind: &[NodeProto], more: &[TensorProto]) -> Engine {
        let engine = quantized_with(behind, more, Int8::On);
        assert!(engine.report().is_int8(), "{}", engine.report());
        engine
    }

    fn quantized_with(behind: &[NodeProto], more: &[TensorProto], int8: Int8) -> Engine {
        let float = |name: &str, value: f32| constant(name, 1, &[], value.to_le_bytes().to_vec());
        let zero = |name: &str, kind: i32, value: u8| constant(name, kind, &[], vec![value]);
        let layer = [
            node("QuantizeLinear", &["x", "s", "z"], "q", &[]),
            node("DequantizeLinear", &["q", "s", "z"], "d", &[]),
            node("DequantizeLinear", &["w", "s", "zw"], "wd", &[]),
            node("MatMul", &["d", "wd"], "m", &[]),
            node("QuantizeLinear", &["m", "s", "z"], "mq", &[]),
            node("DequantizeLinear", &["mq", "s", "z"], "v", &[]),
        ];
        let weights = (0..36_u8).map(|place| place.wrapping_mul(91)).collect();
        let constants = [float("s", 0.02), zero("z", 2, 128), zero("zw", 3, 0)];
        let constants = [&constants[..], &[constant("w", 3, &[6, 6], weights)], more].concat();
        let proto = model([&layer, behind].concat(), constants);
        let feed = Feed { name: "x".to_owned(), shape: vec![1, 6], is_batched: true };
        Engine::of_proto(&onnx(), proto, &[feed], int8).unwrap()
    }

    fn answer(engine: &Engine, rows: std::ops::Range<u16>) -> Result<Vec<Value>, InferError> {
        let values = (rows.start * 6..rows.end * 6).map(|place| f32::from(place * 37 % 64) / 40.0 - 0.8);
        engine.run(&fed(&[rows.len(), 6], values.collect()), rows.len())
    }

    #[test]
    fn int8_never_takes_a_batch_apart_whose_rows_meet_in_an_axis() {
        let softmax = |x: &str, y: &str, axis: i64| node("Softmax", &[x], y, &[("axis", &[axis])]);
        let to = |x: &str, shape: &str, y: &str| node("Reshape", &[x, shape], y, &[]);
        let flat = node("Flatten", &["v"], "f", &[("axis", &[0])]);
        let first = node("Unsqueeze", &["v", "zero"], "f", &[]);
        let gone = node("Squeeze", &["g", "zero"], "y", &[]);
        let mean = node("ReduceMean", &["f"], "g", &[("axes", &[0]), ("keepdims", &[1])]);
        let (all, rows, list) = (to("v", "all", "f"), to("g", "rows", "y"), to("v", "list", "f"));
        let thirds = to("v", "thirds", "f");
        let turned = node("Transpose", &["f"], "t", &[("perm", &[1, 0, 2])]);
        for (behind, is_mixing) in [
            (vec![flat.clone(), softmax("f", "g", -1), rows.clone()], true),
            (vec![all.clone(), softmax("f", "g", 1), rows.clone()], true),
            (vec![list, softmax("f", "g", -1), rows.clone()], true),
            (vec![first.clone(), softmax("f", "g", 1), gone.clone()], true),
            (vec![thirds.clone(), softmax("f", "g", 0), rows.clone()], true),
            (vec![thirds.clone(), mean, node("Sub", &["f", "g"], "h", &[]), to("h", "rows", "y")], true),
            (vec![first.clone(), node("Relu", &["f"], "y", &[])], true),
            // No rule knows it: it is tried.
            (vec![node("MeanVarianceNormalization", &["v"], "y", &[("axes", &[0])])], true),
            (vec![flat, node("Sigmoid", &["f"], "g", &[]), rows.clone()], false),
            (vec![first.clone(), softmax("f", "g", -1), gone], false),
            (vec![thirds, softmax("f", "g", 1), rows], false),
            (vec![softmax("v", "y", -1)], false),
            // An island between two borders at which the rows are another axis than the first.
            (vec![first, turned, node("Relu", &["t"], "y", &[])], false),
        ] {
            let ops: Vec<&str> = behind.iter().map(|node| node.op_type.as_str()).collect();
            let sizes = [("all", &[1, -1][..]), ("rows", &[-1, 6]), ("list", &[-1]), ("zero", &[0])];
            let sizes = sizes.into_iter().chain([("thirds", &[-1, 2][..])]);
            let sizes: Vec<TensorProto> = sizes.map(|(name, sizes)| ints(name, sizes)).collect();
            let engine = quantized(&behind, &sizes);
            assert_eq!(engine.mixes_rows(), is_mixing, "{ops:?}");
            assert!(answer(&engine, 0..1).is_ok(), "{ops:?}");
            let whole = answer(&engine, 0..3);
            if is_mixing {
                assert!(matches!(whole, Err(InferError::MixesRows { got: 3 })), "{ops:?}");
                continue;
            }
            let (shape, data) = whole.unwrap().remove(0);
            let alone = (0..3).map(|row| answer(&engine, row..row + 1).unwrap().remove(0).1);
            let alone: Vec<f32> = alone.flat_map(|data| plain_f32(&data).unwrap().to_vec()).collect();
            assert_eq!((shape[0], data), (3, crate::tensor::Data::Fp32(alone)), "{ops:?}");
        }
    }
    #[test]
    fn a_size_in_32_bits_is_one() {
        let behind = [
            node("Shape", &["v"], "s64", &[]),
            node("Cast", &["s64"], "s32", &[("to", &[6])]),
            node("Gather", &["s32", "zero"], "n", &[("axis", &[0])]),
            node("Concat", &["n", "rest"], "to32", &[("axis", &[0])]),
            node("Cast", &["to32"], "to", &[("to", &[7])]),
            node("Reshape", &["v", "to"], "f", &[]),
            node("Softmax", &["f"], "y", &[("axis", &[-1])]),
        ];
        let rest = [-1_i32, 2].iter().flat_map(|size| size.to_le_bytes()).collect();
        let engine = quantized(&behind, &[ints("zero", &[0]), constant("rest", 6, &[2], rest)]);
        assert_eq!(engine.report().fallbacks().count(), 0, "{}", engine.report());
        assert!(!engine.mixes_rows());
        let (shape, _) = answer(&engine, 0..3).unwrap().remove(0);
        assert_eq!(shape, [3, 3, 2]);
    }

    /// As the mask of a text's words: it is read in front of the first layer and again behind the last.
    #[test]
    fn whole_numbers_on_both_sides_of_a_layer_leave_it_in_int8() {
        let behind = [
            node("Cast", &["x"], "whole", &[("to", &[7])]),
            node("Mul", &["whole", "two"], "doubled", &[]),
            node("Cast", &["doubled"], "float", &[("to", &[1])]),
            node("Add", &["v", "float"], "sum", &[]),
            node("QuantizeLinear", &["sum", "s", "z"], "sq", &[]),
            node("DequantizeLinear", &["sq", "s", "z"], "sd", &[]),
            node("MatMul", &["sd", "wd"], "last", &[]),
            node("QuantizeLinear", &["last", "s", "z"], "lq", &[]),
            node("DequantizeLinear", &["lq", "s", "z"], "ld", &[]),
            node("Add", &["doubled", "two"], "more", &[]),
            node("Cast", &["more"], "again", &[("to", &[1])]),
            node("Sub", &["again", "ld"], "y", &[]),
        ];
        let engine = quantized(&behind, &[ints("two", &[2])]);
        let whole = quantized_with(&behind, &[ints("two", &[2])], Int8::Off);
        assert!(!whole.report().is_int8());
        let of = |engine: &Engine| plain_f32(&answer(engine, 0..3).unwrap().remove(0).1).unwrap().to_vec();
        let off = of(&engine).iter().zip(of(&whole)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.021, "{off}");
    }

    /// Within two steps: each of two layers may round a half the other way.
    fn assert_alike(a: &Engine, b: &Engine, what: &str) {
        let of = |engine: &Engine, rows| {
            let (shape, data) = answer(engine, rows).unwrap().remove(0);
            (shape, plain_f32(&data).unwrap().to_vec())
        };
        for rows in [0..1, 2..5] {
            let ((shape, one), (other_shape, other)) = (of(a, rows.clone()), of(b, rows.clone()));
            let off = one.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(
                off < 0.041 && shape == other_shape,
                "{what}, {rows:?}: {off}, {shape:?} {other_shape:?}"
            );
        }
    }

    #[test]
    fn constants_that_the_graph_works_out_hold_for_all_rows() {
        let floats = |name: &str, dims: &[i64]| {
            let values = (0..dims.iter().product()).map(|place: i64| (place % 7) as f32 / 9.0 - 0.3);
            constant(name, 1, dims, values.flat_map(f32::to_le_bytes).collect())
        };
        let more = [
            floats("list", &[6]),
            floats("row", &[1, 6]),
            floats("rows", &[4, 6]),
            floats("column", &[6, 1]),
            floats("one", &[1, 1]),
            ints("zero", &[0]),
            ints("first", &[1]),
            ints("end", &[2]),
            ints("sizes", &[1, 6]),
        ];
        let axis = |from: &str| node("Unsqueeze", &[from, "zero"], "p", &[]);
        let wide = node("Cast", &["list"], "wide", &[("to", &[11])]);
        for made in [
            vec![axis("list")],
            vec![node("Transpose", &["column"], "t", &[("perm", &[1, 0])]), node("Cos", &["t"], "p", &[])],
            vec![node("Slice", &["rows", "first", "end", "zero"], "p", &[])],
            vec![node("Expand", &["one", "sizes"], "p", &[])],
            vec![node("Div", &["row", "s"], "t", &[]), node("Sin", &["t"], "p", &[])],
            vec![node("ReduceMax", &["list"], "p", &[("keepdims", &[0])])],
            vec![node("Erf", &["wd"], "e", &[]), node("Slice", &["e", "first", "end", "zero"], "p", &[])],
        ] {
            let sum = [
                node("Add", &["v", "p"], "sum", &[]),
                node("QuantizeLinear", &["sum", "s", "z"], "sq", &[]),
                node("DequantizeLinear", &["sq", "s", "z"], "y", &[]),
            ];
            let ops: Vec<&str> = made.iter().map(|node| node.op_type.as_str()).collect();
            let plain = [&made[..], &sum].concat();
            let engine = quantized(&plain, &more);
            assert!(engine.is_batched(), "{ops:?}: {}", engine.report());
            assert_alike(&engine, &quantized_with(&plain, &more, Int8::Off), &format!("{ops:?}"));

            let parts = [
                node("QuantizeLinear", &["p", "s", "z"], "pq", &[]),
                node("DequantizeLinear", &["pq", "s", "z"], "pd", &[]),
                node("Add", &["v", "pd"], "sum", &[]),
            ];
            let int8 = [&made[..], &parts, &sum[1..]].concat();
            let engine = quantized(&int8, &more);
            assert_eq!(engine.report().fallbacks().count(), 0, "{ops:?}: {}", engine.report());
            assert!(engine.is_batched(), "{ops:?}");
            assert_alike(&engine, &quantized_with(&int8, &more, Int8::Off), &format!("{ops:?} in int8"));
        }
        // Of a type that isn't kept: it is worked out where it is read.
        let parts = [
            wide,
            axis("wide"),
            node("Cast", &["v"], "vw", &[("to", &[11])]),
            node("Add", &["vw", "p"], "sum", &[]),
            node("Cast", &["sum"], "y", &[("to", &[1])]),
        ];
        let engine = quantized(&parts, &more);
        assert!(engine.is_batched());
        assert_alike(&engine, &quantized_with(&parts, &more, Int8::Off), "64 bits");
    }

    #[test]
    fn a_type_says_what_a_zero_point_says_and_what_is_left_out_last_is_not_there() {
        let values = (0..36_u16).map(|place| f32::from(place * 37 % 50) / 100.0 - 0.25);
        let weights = constant("wf", 1, &[6, 6], values.flat_map(f32::to_le_bytes).collect());
        let behind = |zero: &[&str], last: &[&str], says: &[(&str, &[i64])]| {
            let by = |op: &str, from: &str, to: &str, more: &[&str], says: &[(&str, &[i64])]| {
                node(op, &[&[from, "s"], more].concat(), to, says)
            };
            vec![
                by("QuantizeLinear", "v", "a", zero, says),
                by("DequantizeLinear", "a", "b", last, &[]),
                by("QuantizeLinear", "wf", "wq", zero, says),
                by("DequantizeLinear", "wq", "wfd", last, &[]),
                node("MatMul", &["b", "wfd"], "ab", &[]),
                by("QuantizeLinear", "ab", "c", zero, says),
                by("DequantizeLinear", "c", "y", last, &[]),
            ]
        };
        let more = [weights, constant("zs", 3, &[], vec![0])];
        let plain = quantized(&behind(&["zs"], &["zs"], &[]), &more);
        for (zero, last, says) in [
            (&[][..], &[][..], &[("output_dtype", &[3_i64][..])][..]),
            (&[], &["zs"], &[("output_dtype", &[3])]),
            (&[""], &[""], &[("output_dtype", &[3])]),
            (&["zs"], &[""], &[("output_dtype", &[3])]),
            (&["zs"], &[""], &[]),
        ] {
            let nodes = behind(zero, last, says);
            let engine = quantized(&nodes, &more);
            assert_eq!(engine.report().fallbacks().count(), 0, "{zero:?} {last:?}: {}", engine.report());
            assert_eq!(answer(&engine, 0..3).unwrap(), answer(&plain, 0..3).unwrap(), "{zero:?} {last:?}");
            let whole = quantized_with(&nodes, &more, Int8::Off);
            assert_alike(&engine, &whole, &format!("{zero:?} {last:?}"));
        }
    }
}
