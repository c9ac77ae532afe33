//! A loaded model with its pre- and post-processing: what the self-test tries and what serves requests.

use crate::clock::Clock;
use crate::engine::{Engine, Fed, Feed, Makeup, Value, count_makeup, trim_heap};
use crate::error::{InferError, LoadError};
use crate::int8::report::Report;
use crate::int8::{Int8, StepTime};
use crate::spec::{Spec, TensorSpec};
use crate::tensor::{Data, Tensor, volume};
use crate::{post, pre};

/// Most rows in one request; larger ones are split by the caller.
pub const MAX_BATCH_ROWS: usize = 256;

/// A model ready to answer. Immutable: share it by `Arc`, call it from any thread; dropping the last reference
/// frees its memory.
pub struct Model {
    engine: Engine,
    spec: Spec,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Model {
    /// Parses ONNX bytes, holds them against the signature and warms the model up, so that the first request
    /// is no slower than the next.
    ///
    /// # Errors
    /// [`LoadError`] by cause; an operator that the runtime lacks is named. Never panics and takes no
    /// more memory than the file and its plan need.
    pub fn load(bytes: &[u8], spec: Spec) -> Result<Self, LoadError> {
        Self::load_with(bytes, spec, Int8::from_env())
    }

    /// The same with quantized graphs lowered or not, whatever the environment says.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(bytes: &[u8], spec: Spec, int8: Int8) -> Result<Self, LoadError> {
        let model = Self::warmed_up(bytes, spec, int8);
        trim_heap();
        model
    }

    fn warmed_up(bytes: &[u8], spec: Spec, int8: Int8) -> Result<Self, LoadError> {
        let example = zeros(&spec, 1)?;
        let feeds = feeds(&spec, &example)?;
        let engine = Engine::load(bytes, &feeds, int8)?;
        let model = Self { engine, spec };
        model.check_outputs(&example)?;
        Ok(model)
    }

    /// Counts what a model file is made of, without loading it to run.
    ///
    /// # Errors
    /// [`LoadError`] when it is no ONNX file, or doesn't fit the signature.
    pub fn makeup(bytes: &[u8], spec: &Spec) -> Result<Makeup, LoadError> {
        let example = zeros(spec, 1)?;
        let feeds = feeds(spec, &example)?;
        count_makeup(bytes, &feeds)
    }

    /// So many rows of zeros. It was warmed up with one.
    pub fn example(&self, rows: usize) -> Vec<Tensor> {
        self.spec.inputs.iter().filter_map(|input| zeros_of(input, rows).ok()).collect()
    }

    /// Signature, steps and labels.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Which nodes run in int8, which fell back and why.
    pub fn report(&self) -> &Report {
        self.engine.report()
    }

    /// Whether larger batches run in one pass; else they run row by row.
    pub fn is_batched(&self) -> bool {
        self.engine.is_batched()
    }

    /// Whether a row's answer depends on the other rows of its batch, or shows signs of it that no trial cleared.
    /// tract's plans for any number of rows answer a batch as a whole then; all others answer one row and refuse more.
    pub fn mixes_rows(&self) -> bool {
        self.engine.mixes_rows()
    }

    /// Runs one row so often and times each step by the caller's clock; nothing where tract runs the whole model.
    ///
    /// # Errors
    /// The clock's word to end; within it as [`Model::infer`].
    pub fn profile<C: Clock>(
        &self,
        inputs: &[Tensor],
        runs: usize,
        clock: &mut C,
    ) -> Result<Result<Vec<StepTime>, InferError>, C::Stop> {
        match self.one_row(inputs) {
            Ok(feeds) => self.engine.profile(&feeds, runs, clock),
            Err(error) => Ok(Err(error)),
        }
    }

    fn one_row<'a>(&self, inputs: &'a [Tensor]) -> Result<Vec<Fed<'a>>, InferError> {
        let inputs = self.in_order(inputs)?;
        match self.batch_of(&inputs)? {
            1 => inputs.into_iter().map(|input| pre::apply(&self.spec.pre, input)).collect(),
            got => Err(InferError::Batch { got, max: 1 }),
        }
    }

    /// Answers one request. Inputs may come in any order; they are only read, so that whoever counts them later
    /// needs no copy.
    ///
    /// # Errors
    /// [`InferError`]; [`InferError::is_caller_fault`] tells a wrong input from a failing model.
    pub fn infer(&self, inputs: impl AsRef<[Tensor]>) -> Result<Vec<Tensor>, InferError> {
        let inputs = self.in_order(inputs.as_ref())?;
        let batch = self.batch_of(&inputs)?;
        let feeds = inputs.iter().map(|input| pre::apply(&self.spec.pre, input));
        let feeds = feeds.collect::<Result<Vec<_>, _>>()?;
        let raw = self.engine.run(&feeds, batch)?;
        let outputs = post::apply(&self.spec.post, &self.spec.labels, raw)?;
        outputs.into_iter().enumerate().map(|(place, output)| self.named(place, output)).collect()
    }

    /// Sorts inputs into the order of the signature and checks each one.
    fn in_order<'a>(&self, inputs: &'a [Tensor]) -> Result<Vec<&'a Tensor>, InferError> {
        let mut rest: Vec<&Tensor> = inputs.iter().collect();
        let mut sorted = Vec::with_capacity(inputs.len());
        for spec in &self.spec.inputs {
            let Some(place) = rest.iter().position(|input| input.name() == spec.name) else {
                return Err(InferError::MissingInput {
                    name: spec.name.clone(),
                    expected: self.spec.input_names(),
                });
            };
            let input = rest.swap_remove(place);
            spec.check(input.datatype(), input.shape())?;
            if !self.spec.fills_gaps()
                && let Some(place) = input.data().first_missing()
            {
                return Err(InferError::MissingValue { name: spec.name.clone(), place });
            }
            sorted.push(input);
        }
        match rest.first() {
            Some(extra) => Err(InferError::UnexpectedInput {
                name: extra.name().to_owned(),
                expected: self.spec.input_names(),
            }),
            None => Ok(sorted),
        }
    }

    fn batch_of(&self, inputs: &[&Tensor]) -> Result<usize, InferError> {
        let batched = self.spec.inputs.iter().zip(inputs).filter(|(spec, _)| spec.is_batched());
        let mut rows = batched.filter_map(|(_, input)| input.shape().first().copied());
        let Some(batch) = rows.next() else { return Ok(1) };
        let odd = rows.find(|other| *other != batch);
        match odd.unwrap_or(batch) {
            0 => Err(InferError::Batch { got: 0, max: MAX_BATCH_ROWS }),
            got if got > MAX_BATCH_ROWS || odd.is_some() => {
                Err(InferError::Batch { got, max: MAX_BATCH_ROWS })
            }
            batch => Ok(batch),
        }
    }

    /// Outputs take the signature's names by their place.
    fn named(&self, place: usize, (shape, data): Value) -> Result<Tensor, InferError> {
        let signature = self.spec.outputs.get(place).map(|spec| spec.name.clone());
        let name = signature.or_else(|| self.engine.outputs().get(place).cloned());
        let name = name.unwrap_or_else(|| format!("output_{place}"));
        Tensor::new(name, shape, data).map_err(InferError::Result)
    }

    /// The answer to one row of zeros must be what the signature says.
    fn check_outputs(&self, example: &[Tensor]) -> Result<(), LoadError> {
        let outputs = self.infer(example).map_err(LoadError::WarmUp)?;
        let own = |(place, o): (usize, &Tensor)| {
            let name = self.engine.outputs().get(place).map_or(o.name(), String::as_str);
            format!("{name} {} {:?}", o.datatype(), o.shape())
        };
        let got = || outputs.iter().enumerate().map(own).collect::<Vec<_>>();
        let specs = &self.spec.outputs;
        if outputs.len() == specs.len()
            && specs.iter().zip(&outputs).all(|(spec, output)| spec.admits(output))
        {
            return Ok(());
        }
        let expected: Vec<String> =
            specs.iter().map(|s| format!("{} {} {:?}", s.name, s.datatype, s.shape)).collect();
        Err(LoadError::Signature { why: format!("outputs should be {expected:?}, they are {:?}", got()) })
    }
}

/// What the model is fed for an example of each input.
fn feeds(spec: &Spec, example: &[Tensor]) -> Result<Vec<Feed>, LoadError> {
    let one = |(input, example): (&TensorSpec, &Tensor)| {
        let (shape, _) = pre::apply(&spec.pre, example).map_err(LoadError::WarmUp)?;
        Ok(Feed { name: input.name.clone(), shape, is_batched: input.is_batched() })
    };
    spec.inputs.iter().zip(example).map(one).collect()
}

/// So many rows of zeros for each input.
fn zeros(spec: &Spec, rows: usize) -> Result<Vec<Tensor>, LoadError> {
    spec.inputs.iter().map(|input| zeros_of(input, rows)).collect()
}

/// So many rows of zeros of the signature's type and shape; one of an input without a batch.
fn zeros_of(spec: &TensorSpec, rows: usize) -> Result<Tensor, LoadError> {
    let free = spec.shape.iter().skip(1).any(|dim| *dim < 0);
    if free {
        let why = format!("input {:?}: only the first dimension may be -1", spec.name);
        return Err(LoadError::Signature { why });
    }
    let shape: Vec<usize> = spec.shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(rows)).collect();
    if volume(&shape) > crate::oip::MAX_ELEMENTS {
        return Err(LoadError::Signature {
            why: format!("input {:?} has {} elements per row", spec.name, volume(&shape)),
        });
    }
    let data = Data::zeros(spec.datatype, volume(&shape));
    Tensor::new(spec.name.clone(), shape, data).map_err(|e| LoadError::Signature { why: e.to_string() })
}
