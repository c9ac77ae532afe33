//! What the device profiles of a model's input. Features and bin edges come from the reference blob.

use serde::{Deserialize, Serialize};

use crate::steps::ImageLayout;

/// What the device profiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Monitor {
    /// Images: brightness, contrast, sharpness, saturation of each.
    Image {
        /// The input that holds them, as applications send it.
        input: String,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// 1 or 3.
        channels: u32,
        /// Least and greatest value of a pixel as applications send it.
        range: [f64; 2],
        /// Where the channels stand.
        layout: ImageLayout,
    },
    /// Rows of numbers.
    Tabular {
        /// The input that holds them.
        input: String,
        /// Name of each column, in order.
        columns: Vec<String>,
    },
}

impl Monitor {
    /// The input that is profiled.
    pub fn input(&self) -> &str {
        match self {
            Self::Image { input, .. } | Self::Tabular { input, .. } => input,
        }
    }
}
