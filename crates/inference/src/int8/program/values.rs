//! The values of a program, as they are for one row; the run scales the first dimension.

use crate::int8::kernel::Layout;

/// A quantized activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ActId(pub(super) usize);

/// A plain f32 tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FloatId(pub(super) usize);

/// What is known of a quantized activation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActInfo {
    /// Shape and zero point; those of dynamic ones are found at run time.
    pub(crate) layout: Layout,
    /// Size of one step.
    pub(crate) scale: f32,
    /// ONNX has it as s8: 128 less than what is in memory.
    pub(crate) is_signed: bool,
}

/// What is known of a plain tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatInfo {
    /// Elements of one row.
    pub(crate) elements: usize,
    /// Which feed it is, if it comes from outside.
    pub(crate) feed: Option<usize>,
}

/// All values of a program.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(super) acts: Vec<ActInfo>,
    pub(super) floats: Vec<FloatInfo>,
}

impl Values {
    /// Adds an activation.
    pub(crate) fn add_act(&mut self, info: ActInfo) -> ActId {
        self.acts.push(info);
        ActId(self.acts.len() - 1)
    }

    /// Adds a plain tensor.
    pub(crate) fn add_float(&mut self, elements: usize, feed: Option<usize>) -> FloatId {
        self.floats.push(FloatInfo { elements, feed });
        FloatId(self.floats.len() - 1)
    }

    /// What is known of an activation.
    pub(crate) fn act(&self, id: ActId) -> &ActInfo {
        &self.acts[id.0]
    }

    /// The same, to change.
    pub(crate) fn act_mut(&mut self, id: ActId) -> &mut ActInfo {
        &mut self.acts[id.0]
    }

    /// What is known of a plain tensor.
    pub(crate) fn float(&self, id: FloatId) -> &FloatInfo {
        &self.floats[id.0]
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.acts.len() + self.floats.len()
    }
}
