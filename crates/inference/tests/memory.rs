//! What a loaded model keeps, counted by the allocator: its packed weights, the memory of one run and little else;
//! neither the file's bytes nor the graph that was read from them. A large batch takes no more than some rows do. One test alone, since all that the process
//! allocates meanwhile counts.
#![expect(clippy::unwrap_used, reason = "a missing fixture must fail the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use inference::int8::Int8;
use inference::{Data, Datatype, MAX_BATCH_ROWS, Model, Spec, Tensor, TensorSpec};
use serde_json::Value;

/// What is allocated and not freed yet, in bytes.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most that it was.
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[expect(unsafe_code, reason = "an allocator that counts what the system's hands out")]
// SAFETY: all is the system's allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    /// # Safety
    /// As the system's allocator.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let before = LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(before + layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    /// # Safety
    /// As the system's allocator.
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// For each node: its step, its place in the report, its values.
const OF_A_NODE: usize = 500;
/// Rows that kernels copy, and what they need else while they run.
const OF_A_MODEL: usize = 128 << 10;
/// Rows that go through a model at once.
const PASS_ROWS: usize = 16;

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/made"));
    std::fs::read(folder.join(name)).unwrap()
}

/// The file with what a loaded model has no use for, as fields that follow: a text, and a constant that nothing reads.
fn with_ballast(mut file: Vec<u8>) -> Vec<u8> {
    const BYTES: usize = 4 << 20;
    let field = |number: u8, content: &[u8]| {
        let mut field = vec![number << 3 | 2];
        let mut rest = content.len();
        while rest >= 0x80 {
            field.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        field.push(rest.to_le_bytes()[0]);
        field.extend_from_slice(content);
        field
    };
    // TensorProto: dims = 1, data_type = 2 (UINT8 = 2), name = 8, raw_data = 9; 0x80 0x80 0x80 0x02 is 4 Mi.
    let mut tensor = vec![0x08, 0x80, 0x80, 0x80, 0x02, 0x10, 0x02];
    tensor.extend(field(8, b"ballast"));
    tensor.extend(field(9, &vec![1; BYTES]));
    // ModelProto: doc_string = 6, graph = 7; GraphProto: initializer = 5.
    file.extend(field(6, &vec![b'x'; BYTES]));
    file.extend(field(7, &field(5, &tensor)));
    file
}

fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|size| usize::try_from(size.as_u64().unwrap()).unwrap()).collect()
}

fn loaded(name: &str, case: &Value) -> Model {
    let of = |name: &str, shape: &[usize]| TensorSpec {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: [-1].into_iter().chain(shape[1..].iter().map(|size| i64::try_from(*size).unwrap())).collect(),
    };
    let inputs = vec![of("input", &sizes(&case["input"]))];
    let outputs = vec![of("output", &sizes(&case["output"]))];
    let spec = Spec { inputs, outputs, pre: vec![], post: vec![], labels: vec![] };
    Model::load_with(&with_ballast(file(&format!("{name}.onnx"))), spec, Int8::On).unwrap()
}

/// What a batch of so many rows takes beside what it brings and what it is answered, each of it twice: as it came, and as
/// the rows that run or have run.
fn a_whole_batch_takes(model: &Model, row: &Tensor) -> usize {
    let mut shape = row.shape().to_vec();
    shape[0] = MAX_BATCH_ROWS;
    let values = Data::Fp32(vec![0.5; shape.iter().product()]);
    let input = Tensor::new("input", shape, values).unwrap();
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let answers = model.infer(std::slice::from_ref(&input)).unwrap();
    let most = PEAK.load(Ordering::Relaxed) - before;
    let of_caller = |tensor: &Tensor| 2 * 4 * tensor.shape().iter().product::<usize>();
    most.saturating_sub(answers.iter().chain([&input]).map(of_caller).sum())
}

#[test]
fn a_loaded_model_keeps_its_weights_and_one_runs_memory() {
    let cases: BTreeMap<String, Value> = serde_json::from_slice(&file("models.json")).unwrap();
    let mut wrong = Vec::new();
    // What tract keeps of its islands is tract's.
    let is_ours =
        |case: &&Value| case["tract"].as_array().is_some_and(Vec::is_empty) && case["more"].is_null();
    for (name, case) in cases.iter().filter(|(_, case)| is_ours(case)) {
        let mut shape = sizes(&case["input"]);
        shape[0] = 1;
        let values = Data::Fp32(vec![0.5; shape.iter().product()]);
        let input = Tensor::new("input", shape, values).unwrap();
        let before = LIVE.load(Ordering::Relaxed);
        let model = loaded(name, case);
        drop(model.infer(std::slice::from_ref(&input)).unwrap());
        let kept = LIVE.load(Ordering::Relaxed).saturating_sub(before);
        let report = model.report();
        let planned = report.weight_bytes + report.activation_bytes;
        let most = planned + OF_A_MODEL + report.nodes.len() * OF_A_NODE;
        if kept > most {
            wrong.push(format!("{name}: {kept} bytes, {most} are expected, {planned} of them planned"));
        }
        let whole = a_whole_batch_takes(&model, &input);
        let most = PASS_ROWS * report.activation_bytes + 2 * OF_A_MODEL;
        if whole > most {
            wrong.push(format!("{name}: {whole} bytes for a batch, {most} are expected"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
