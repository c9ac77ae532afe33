//! The two engines of this program, and what they are to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use inference::int8::StepTime;
use inference::int8::kernel::Level;
use inference::{Data, Datatype, Model, Spec, Tensor, TensorSpec};
use serde_json::Value;
use tract_onnx::prelude::{Framework as _, InferenceModelExt as _, IntoRunnable, TValue, TVec};
use tract_onnx::prelude::{Tensor as TractTensor, TypedRunnableModel, tvec};

use crate::Fault;

/// A net in one variant, with the rows to feed, as `models.json` describes it.
pub(crate) struct Job {
    pub(crate) file: PathBuf,
    input: String,
    input_shape: Vec<usize>,
    output: String,
    output_shape: Vec<usize>,
    /// Each fills the input's shape.
    pub(crate) rows: Vec<Vec<f32>>,
}

impl Job {
    pub(crate) fn read(folder: &str, net: &str, variant: &str) -> Result<Self, Fault> {
        let folder = Path::new(folder);
        let index: Value = serde_json::from_slice(&std::fs::read(folder.join("models.json"))?)?;
        let net = &index[net];
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("models.json lacks a name");
        let shape =
            |value: &Value| -> Result<Vec<usize>, Fault> { Ok(serde_json::from_value(value.clone())?) };
        let input_shape = shape(&net["input_shape"])?;
        let bytes = std::fs::read(folder.join(text(&net["rows_file"])?))?;
        let (values, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Ok(Self {
            file: folder.join(text(&net["variants"][variant]["file"])?),
            input: text(&net["input"])?,
            output: text(&net["output"])?,
            output_shape: shape(&net["output_shape"])?,
            rows: values.chunks(input_shape.iter().product()).map(<[f32]>::to_vec).collect(),
            input_shape,
        })
    }

    pub(crate) fn first_row(&self) -> Result<Vec<f32>, Fault> {
        Ok(self.rows.first().ok_or("there is no row")?.clone())
    }

    fn spec(&self) -> Result<Spec, Fault> {
        let fp32 = |name: &str, shape: &[usize]| -> Result<TensorSpec, Fault> {
            let shape = shape.iter().map(|dim| i64::try_from(*dim)).collect::<Result<_, _>>()?;
            Ok(TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape })
        };
        Ok(Spec {
            inputs: vec![fp32(&self.input, &self.input_shape)?],
            outputs: vec![fp32(&self.output, &self.output_shape)?],
            pre: Vec::new(),
            post: Vec::new(),
            labels: Vec::new(),
        })
    }
}

/// Models of the tests, with the shapes of their outputs: a first convolution, one of each kind and a pool.
const TINY: [(&[u8], &[i64]); 4] = [
    (include_bytes!("../../tests/models/made/qdq_conv_same.onnx"), &[-1, 12, 3, 3]),
    (include_bytes!("../../tests/models/made/qdq_conv_pointwise.onnx"), &[-1, 20, 6, 6]),
    (include_bytes!("../../tests/models/made/qdq_conv_depthwise.onnx"), &[-1, 8, 6, 6]),
    (include_bytes!("../../tests/models/made/qdq_pool_global_.onnx"), &[-1, 8, 1, 1]),
];

/// What can run a model. Making the input ready isn't measured: every engine takes it in its own type.
pub(crate) trait Engine {
    fn version(&self) -> String;
    /// The level of the int8 kernels that are in use.
    fn level(&self) -> Option<&'static str>;
    fn load(&mut self, bytes: &[u8], job: &Job) -> Result<(), Fault>;
    fn prepare(&mut self, row: Vec<f32>, job: &Job) -> Result<(), Fault>;
    /// Times each step of what was made ready, so often.
    fn profile(&mut self, runs: usize) -> Result<Vec<StepTime>, Fault>;
    /// Loads and runs a tiny model, so that the pages of the program's code are in memory.
    fn warm(&mut self) -> Result<(), Fault>;
    /// Runs what was made ready and gives the first output.
    fn run(&mut self) -> Result<Vec<f32>, Fault>;
}

/// Our runtime, just as the agent calls it.
#[derive(Default)]
pub(crate) struct Ours {
    model: Option<Model>,
    ready: Vec<Tensor>,
}

impl Engine for Ours {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn level(&self) -> Option<&'static str> {
        Some(Level::detect().name())
    }

    fn load(&mut self, bytes: &[u8], job: &Job) -> Result<(), Fault> {
        self.model = Some(Model::load(bytes, job.spec()?)?);
        Ok(())
    }

    fn prepare(&mut self, row: Vec<f32>, job: &Job) -> Result<(), Fault> {
        self.ready = vec![Tensor::new(job.input.clone(), job.input_shape.clone(), Data::Fp32(row))?];
        Ok(())
    }

    fn warm(&mut self) -> Result<(), Fault> {
        for (bytes, output) in TINY {
            let spec = |name: &str, shape: &[i64]| TensorSpec {
                name: name.into(),
                datatype: Datatype::Fp32,
                shape: shape.to_vec(),
            };
            let (inputs, outputs) = (vec![spec("x", &[-1, 8, 6, 6])], vec![spec("y", output)]);
            Model::load(
                bytes,
                Spec { inputs, outputs, pre: Vec::new(), post: Vec::new(), labels: Vec::new() },
            )?;
        }
        Ok(())
    }

    fn profile(&mut self, runs: usize) -> Result<Vec<StepTime>, Fault> {
        let model = self.model.as_ref().ok_or("nothing is loaded")?;
        let start = Instant::now();
        let Ok(times) = model.profile(&self.ready, runs, &mut || start.elapsed());
        Ok(times?)
    }

    fn run(&mut self) -> Result<Vec<f32>, Fault> {
        let model = self.model.as_ref().ok_or("nothing is loaded")?;
        let outputs = model.infer(&self.ready)?;
        match outputs.first().map(Tensor::data) {
            Some(Data::Fp32(values)) => Ok(values.clone()),
            _ => Err("the first output isn't FP32".into()),
        }
    }
}

/// tract as its own documentation uses it.
#[derive(Default)]
pub(crate) struct Tract {
    plan: Option<Arc<TypedRunnableModel>>,
    ready: TVec<TValue>,
}

impl Engine for Tract {
    fn version(&self) -> String {
        inference::TRACT_VERSION.into()
    }

    fn level(&self) -> Option<&'static str> {
        None
    }

    fn load(&mut self, mut bytes: &[u8], _: &Job) -> Result<(), Fault> {
        let fault = |e: tract_onnx::prelude::TractError| format!("{e:#}");
        let model = tract_onnx::onnx().model_for_read(&mut bytes).map_err(fault)?;
        self.plan = Some(model.into_optimized().and_then(IntoRunnable::into_runnable).map_err(fault)?);
        Ok(())
    }

    fn prepare(&mut self, row: Vec<f32>, job: &Job) -> Result<(), Fault> {
        let input = TractTensor::from_shape(&job.input_shape, &row).map_err(|e| format!("{e:#}"))?;
        self.ready = tvec!(input.into());
        Ok(())
    }

    fn warm(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn profile(&mut self, _: usize) -> Result<Vec<StepTime>, Fault> {
        Err("tract's steps aren't timed".into())
    }

    fn run(&mut self) -> Result<Vec<f32>, Fault> {
        let plan = self.plan.as_ref().ok_or("nothing is loaded")?;
        let outputs = plan.run(self.ready.clone()).map_err(|e| format!("{e:#}"))?;
        let output = outputs.first().ok_or("there is no output")?;
        let values = output.try_as_plain_ram().and_then(|plain| plain.as_slice::<f32>());
        Ok(values.map_err(|e| format!("{e:#}"))?.to_vec())
    }
}
