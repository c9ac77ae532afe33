//! Which rule lowers which operator.

use super::Reason;
use super::graph::Node;
use super::walk::Lowering;
use crate::int8::report::Runs;

impl<'a> Lowering<'a> {
    /// Walks all nodes.
    pub(super) fn walk(&mut self, opset: i64) -> Result<(), Reason> {
        self.fold_constants();
        if self.compute_constants() {
            // What quantizes them.
            self.fold_constants();
        }
        for index in 0..self.graph.nodes.len() {
            if self.runs[index].is_some() {
                continue;
            }
            let node = self.graph.nodes[index];
            let is_asked = || node.input(0).is_some_and(|name| self.made.contains(name));
            if self.knows_sizes && node.op() == "Shape" && is_asked() {
                self.close_island()?;
            }
            if self.is_constant_view(node) && !self.reads_sizes(node) {
                self.runs[index] = Some(Runs::Int8);
            } else if self.fold(node) || self.run_on_sizes(index) {
                self.runs[index] = Some(Runs::Float);
            } else {
                self.node(index, node, opset)?;
            }
        }
        self.close_island()
    }

    fn node(&mut self, index: usize, node: Node<'a>, opset: i64) -> Result<(), Reason> {
        let before = self.steps.len();
        match self.dispatch(index, node, opset) {
            Ok(()) => {
                let is_float = |step: &crate::int8::program::Step| {
                    matches!(step, crate::int8::program::Step::Float { .. })
                };
                let runs = if self.steps[before..].iter().any(is_float) { Runs::Float } else { Runs::Int8 };
                self.runs[index] = Some(runs);
                Ok(())
            }
            Err(reason) if reason.is_final() => Err(reason),
            Err(reason) => self.leave(index, reason),
        }
    }

    fn dispatch(&mut self, index: usize, node: Node<'a>, opset: i64) -> Result<(), Reason> {
        match node.op() {
            "QuantizeLinear" => self.quantize(node),
            "DequantizeLinear" => self.dequantize(node),
            "Conv" => self.conv(index, node),
            "QLinearConv" => self.qlinear_conv(index, node),
            "Gemm" | "MatMul" => self.matmul(index, node),
            "QGemm" | "QLinearMatMul" => self.qlinear_matmul(index, node),
            "DynamicQuantizeLinear" => self.dynamic(node),
            "DynamicQuantizeMatMul" => self.dynamic_matmul(index, node),
            "Add" | "Mul" | "Sub" | "Div" | "Pow" => self.binary(node),
            "QLinearAdd" | "QLinearMul" => self.qlinear_binary(node),
            "Concat" | "QLinearConcat" => self.concat(node),
            "MaxPool" => self.max_pool(node),
            "NhwcMaxPool" => self.nhwc_max_pool(node),
            "AveragePool" | "GlobalAveragePool" => self.average_pool(node),
            "QLinearAveragePool" | "QLinearGlobalAveragePool" => self.qlinear_average_pool(node),
            "Relu" | "Clip" => self.relu(node),
            "QLinearLeakyRelu" | "QLinearSigmoid" => self.qlinear_unary(node),
            "Sigmoid" | "Tanh" | "HardSwish" | "HardSigmoid" | "LeakyRelu" | "Elu" | "Abs" | "Neg"
            | "Exp" | "Softplus" | "Softsign" | "Erf" | "Gelu" | "Sqrt" | "Reciprocal" => self.unary(node),
            "LayerNormalization" => self.layer_norm(node),
            "BatchNormalization" => self.batch_norm(node),
            "ReduceMean" => self.mean(node),
            "Softmax" => self.softmax(node, opset),
            "QLinearSoftmax" => self.qlinear_softmax(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" | "Dropout" => self.reshape(node),
            "Transpose" => self.transpose(node),
            "Slice" => self.slice(node),
            "Split" => self.split(node),
            "Pad" => self.pad(node),
            "Resize" | "Upsample" => self.resize(node),
            _ => Err(Reason::Operator),
        }
    }
}
