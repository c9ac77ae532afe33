//! Steps before and after the model, as the manifest names them.

use serde::{Deserialize, Serialize};

use crate::manifest::Datatype;

/// Where the channels of an image stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageLayout {
    /// `[N, H, W, C]`.
    Nhwc,
    /// `[N, C, H, W]`.
    Nchw,
}

/// How a pixel between pixels is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// The nearest one.
    Nearest,
    /// Weighted mean of four.
    #[default]
    Bilinear,
}

/// One step on every input before the model, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PreStep {
    /// Multiplies every value.
    Scale {
        /// By this.
        factor: f64,
    },
    /// Subtracts a mean and divides by a deviation, one for all or one per feature or channel.
    Standardise {
        /// Means.
        mean: Vec<f64>,
        /// Deviations, above 0.
        std: Vec<f64>,
    },
    /// Keeps every value between two bounds.
    Clip {
        /// Lower bound.
        min: f64,
        /// Upper bound.
        max: f64,
    },
    /// Moves the channels.
    Layout {
        /// Where they stand.
        from: ImageLayout,
        /// Where they shall stand.
        to: ImageLayout,
    },
    /// Resizes images.
    Resize {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Where the channels stand.
        layout: ImageLayout,
        /// How.
        #[serde(default)]
        method: Resampling,
    },
    /// Changes the element type.
    Cast {
        /// Into this.
        datatype: Datatype,
    },
}

/// One step after the model, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PostStep {
    /// Turns each row of scores into probabilities.
    Softmax,
    /// Turns each score into a probability of its own.
    Sigmoid,
    /// Adds the number of the best class.
    Argmax,
    /// Adds the label of the best class.
    Labels,
    /// Adds the best scores and their classes.
    TopK {
        /// How many.
        k: u32,
    },
    /// Adds whether each score reaches a bound.
    Threshold {
        /// The bound.
        min: f64,
    },
}
