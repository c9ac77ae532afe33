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

impl ImageLayout {
    /// Where the numbers of rows, columns and channels stand in the shape of a batch.
    pub(crate) fn places(self) -> [usize; 3] {
        match self {
            Self::Nhwc => [1, 2, 3],
            Self::Nchw => [2, 3, 1],
        }
    }
}

/// How a pixel between pixels is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// The nearest one.
    Nearest,
    /// Weighted mean of four; as OpenCV's linear.
    #[default]
    Bilinear,
    /// The same, but the mean is of all pixels that a smaller image covers; as Pillow and torchvision shrink.
    BilinearAntialias,
}

/// The words of one column of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Which column, from 0.
    pub column: u32,
    /// Each becomes its place in this list.
    pub words: Vec<String>,
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
    /// Cuts a part out of images.
    Crop {
        /// First row.
        top: u32,
        /// First column.
        left: u32,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Where the channels stand.
        layout: ImageLayout,
    },
    /// Puts the channels of images in another order, or leaves some out: `[2, 1, 0]` makes RGB of BGR.
    Channels {
        /// Channel numbers, from 0.
        order: Vec<u32>,
        /// Where the channels stand.
        layout: ImageLayout,
    },
    /// Fills missing numbers (NaN; null in JSON), with one for all or one per column.
    Impute {
        /// What stands for a missing one.
        values: Vec<f64>,
    },
    /// Makes numbers of rows of texts: of a listed column the place of its word, of every other one the number that
    /// it spells. An empty text or an unknown word becomes a missing number.
    Vocabulary {
        /// The columns with words.
        columns: Vec<Words>,
    },
    /// Replaces a column of class numbers by one column per class, 1 or 0; all 0 for a number that is no class.
    OneHot {
        /// Which column, from 0, as the step before left them.
        column: u32,
        /// Classes.
        size: u32,
    },
}

impl PreStep {
    /// Its name in the manifest.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scale { .. } => "scale",
            Self::Standardise { .. } => "standardise",
            Self::Clip { .. } => "clip",
            Self::Layout { .. } => "layout",
            Self::Resize { .. } => "resize",
            Self::Cast { .. } => "cast",
            Self::Crop { .. } => "crop",
            Self::Channels { .. } => "channels",
            Self::Impute { .. } => "impute",
            Self::Vocabulary { .. } => "vocabulary",
            Self::OneHot { .. } => "one_hot",
        }
    }
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
