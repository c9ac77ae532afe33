//! From ONNX bytes to what runs: a program in int8 where the graph is quantized, else a plan of tract's.

use tract_onnx::pb::{ModelProto, NodeProto};
use tract_onnx::prelude::Framework;

use super::counted::counts_rows;
use super::plan::{Fed, Feed, Plan, Value, by_rows, is_a_row, text};
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
        let mut proto =
            onnx.proto_model_for_read(&mut bytes).map_err(|e| LoadError::Parse { why: text(&e) })?;
        let opset = check::opset(&proto)?;
        super::rewrite::widen(&mut proto);
        let knows = |node: &NodeProto| check::has(&onnx, node, opset);
        check::check(&proto, |node| knows(node) || is_only_int8(node))?;
        let counts_rows = feeds.iter().any(|feed| feed.is_batched) && counts_rows(&proto);
        let report = match int8 {
            Int8::Off => Report::of_tract("the switch is off"),
            Int8::On => match program(&proto, feeds) {
                Ok((mut program, makes_a_row)) => {
                    let report = std::mem::take(&mut program.report);
                    let mixes = counts_rows || !makes_a_row || program.mixes_rows();
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
        let plan = Plan::build_owned(&onnx, proto, feeds)?;
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
            if batch == 1 || program.is_batched {
                return program.run(feeds, batch);
            }
            by_rows(feeds, &program.batched, batch, |feeds| program.run(feeds, 1))
        };
        guarded(run).unwrap_or_else(|why| Err(InferError::Panic { why }))
    }
}

/// The model as a program that has run a row of zeros, and whether it made rows of it; or the report that says why it
/// isn't one.
fn program(proto: &ModelProto, feeds: &[Feed]) -> Result<(Program, bool), Report> {
    let lowered = guarded(|| {
        let program = lower(proto, feeds, Level::detect())?;
        let zeros: Vec<Fed<'_>> = feeds.iter().map(|feed| feed.zeros(1)).collect();
        let made = program.run(&zeros, 1).map_err(|error| Report::of_tract(chain(&error)))?;
        let makes_a_row = made.iter().all(is_a_row) || !feeds.iter().any(|feed| feed.is_batched);
        Ok((program, makes_a_row))
    });
    lowered.unwrap_or_else(|panic| Err(Report::of_tract(format!("the lowering panicked: {panic}"))))
}
