//! Which nodes of a model run how, and what that costs.

use std::fmt;

use super::kernel::Level;

/// Most nodes that an error names with their reasons.
const MAX_NAMED: usize = 3;

/// How one node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// In int8, or folded into a neighbour that does.
    Int8,
    /// In f32 between int8 nodes, by this crate.
    Float,
    /// As tract runs it.
    Tract {
        /// Why it isn't lowered.
        why: String,
    },
}

/// One node of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Its name, or that of its first output where it has none.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// How it runs.
    pub runs: Runs,
    /// Multiply-accumulates for one row, where int8 kernels do them.
    pub macs: usize,
    /// The level of the kernels that do them.
    pub level: Option<Level>,
}

/// What became of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// All nodes but constants, in the file's order; of a model that tract runs as a whole those which alone would
    /// have been left to it.
    pub nodes: Vec<NodeReport>,
    /// Bytes of the packed weights, and of the tables by which values change their order.
    pub weight_bytes: usize,
    /// Bytes of one run's memory for one row.
    pub activation_bytes: usize,
    /// Why the whole model is tract's, where it is.
    pub why_not: Option<String>,
    /// Operator and name of the node that neither int8 nor tract can run, where that is why.
    pub(crate) stuck: Option<(String, String)>,
}

impl Report {
    /// The report of a model that tract runs as a whole.
    pub(crate) fn of_tract(why: impl Into<String>) -> Self {
        Self { why_not: Some(why.into()), ..Self::default() }
    }

    /// Whether anything runs in int8.
    pub fn is_int8(&self) -> bool {
        self.nodes.iter().any(|node| node.runs == Runs::Int8)
    }

    /// Nodes that tract runs.
    pub fn fallbacks(&self) -> impl Iterator<Item = &NodeReport> {
        self.nodes.iter().filter(|node| matches!(node.runs, Runs::Tract { .. }))
    }

    /// In one line why tract runs the whole model, with the first few nodes that have a reason of their own.
    pub(crate) fn why_whole(&self) -> String {
        let node = |node: &NodeReport| match &node.runs {
            Runs::Tract { why } => Some(format!("{} {:?}: {why}", node.op, node.name)),
            Runs::Int8 | Runs::Float => None,
        };
        // A node that stands in the way says it all; what else is left to tract doesn't matter then.
        let most = if self.stuck.is_some() { 0 } else { MAX_NAMED };
        let nodes = self.nodes.iter().filter_map(node).take(most);
        self.why_not.iter().cloned().chain(nodes).collect::<Vec<_>>().join("; ")
    }

    /// Multiply-accumulates of one row that int8 kernels do.
    pub fn macs(&self) -> usize {
        self.nodes.iter().map(|node| node.macs).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.why_not {
            write!(f, "tract runs the whole model: {why}")?;
        } else {
            let int8 = self.nodes.iter().filter(|node| node.runs == Runs::Int8).count();
            write!(f, "{int8} of {} nodes in int8, {} MACs", self.nodes.len(), self.macs())?;
            write!(f, ", {} bytes of weights, {} of activations", self.weight_bytes, self.activation_bytes)?;
        }
        for node in self.fallbacks() {
            if let Runs::Tract { why } = &node.runs {
                write!(f, "\n{} {:?} runs in f32: {why}", node.op, node.name)?;
            }
        }
        Ok(())
    }
}
