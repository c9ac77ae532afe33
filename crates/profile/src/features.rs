//! From a model's input to rows of features. Device and publisher run this same code, so that a distance can
//! never come from two ways of computing a feature.

use serde::{Deserialize, Serialize};

use crate::counters::Observed;

/// Where the channels stand in an image tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `[N, C, H, W]`.
    Nchw,
    /// `[N, H, W, C]`.
    Nhwc,
}

/// How features come from a model's input, as the application sent it, before any pre-processing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extractor {
    /// Brightness, contrast, sharpness and (with three channels) saturation of an image.
    Image {
        /// Name of the input tensor.
        input: String,
        /// Where the channels stand.
        layout: Layout,
        /// 1 or 3.
        channels: usize,
    },
    /// Each column of `[N, columns]` is a feature.
    Columns {
        /// Name of the input tensor.
        input: String,
        /// One name per column.
        names: Vec<String>,
    },
    /// No features.
    Nothing,
}

/// Features of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Image {
    /// Mean over all pixels.
    pub brightness: f64,
    /// Standard deviation over all pixels.
    pub contrast: f64,
    /// Mean squared Laplacian divided by the variance: falls with blur, rises with noise.
    pub sharpness: f64,
    /// Mean over pixels of (largest - smallest channel) / largest; 0 with one channel.
    pub saturation: f64,
}

/// An input's shape does not fit the extractor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an input of shape {shape:?} with {values} values does not fit the reference's features")]
pub struct ShapeError {
    shape: Vec<usize>,
    values: usize,
}

impl Extractor {
    /// Names of the features in the order of a row.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Image { channels, .. } => {
                let names = ["brightness", "contrast", "sharpness", "saturation"];
                let wanted = if *channels >= 3 { 4 } else { 3 };
                names[..wanted].iter().map(|name| (*name).to_owned()).collect()
            }
            Self::Columns { names, .. } => names.clone(),
            Self::Nothing => Vec::new(),
        }
    }

    /// The input tensor that the features come from.
    pub fn input(&self) -> Option<&str> {
        match self {
            Self::Image { input, .. } | Self::Columns { input, .. } => Some(input),
            Self::Nothing => None,
        }
    }

    /// One row of features per item of the batch.
    ///
    /// # Errors
    /// [`ShapeError`] if the shape is not the extractor's or the values are not as many as it says.
    pub fn rows(&self, shape: &[usize], values: &[f64]) -> Result<Vec<Vec<Observed<'static>>>, ShapeError> {
        let error = || ShapeError { shape: shape.to_vec(), values: values.len() };
        let whole =
            shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side)).ok_or_else(error)?;
        if whole != values.len() || whole == 0 {
            return Err(error());
        }
        match self {
            Self::Nothing => Ok(vec![Vec::new(); shape.first().copied().unwrap_or(1)]),
            Self::Columns { names, .. } if shape.len() == 2 && shape[1] == names.len() => Ok(values
                .chunks(names.len())
                .map(|row| row.iter().map(|v| Observed::Number(*v)).collect())
                .collect()),
            Self::Image { layout, channels, .. } if shape.len() == 4 => {
                let (c, h, w) = match layout {
                    Layout::Nchw => (shape[1], shape[2], shape[3]),
                    Layout::Nhwc => (shape[3], shape[1], shape[2]),
                };
                if c != *channels {
                    return Err(error());
                }
                let row = |item: &[f64]| {
                    let image = image(item, *layout, h, w, c);
                    let all = [image.brightness, image.contrast, image.sharpness, image.saturation];
                    let wanted = if *channels >= 3 { 4 } else { 3 };
                    all[..wanted].iter().map(|v| Observed::Number(*v)).collect()
                };
                Ok(values.chunks(c * h * w).map(row).collect())
            }
            Self::Columns { .. } | Self::Image { .. } => Err(error()),
        }
    }
}

/// Features of one image of `h` x `w` pixels with `c` channels; `values` holds exactly `h * w * c` values.
pub fn image(values: &[f64], layout: Layout, h: usize, w: usize, c: usize) -> Image {
    let at = |y: usize, x: usize, channel: usize| match layout {
        Layout::Nchw => values[(channel * h + y) * w + x],
        Layout::Nhwc => values[(y * w + x) * c + channel],
    };
    let pixels = (h * w) as f64;
    let n = pixels * c as f64;
    let brightness = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - brightness).powi(2)).sum::<f64>() / n;
    let grey = |y: usize, x: usize| (0..c).map(|channel| at(y, x, channel)).sum::<f64>() / c as f64;
    let mut roughness = 0.0;
    for y in 0..h {
        for x in 0..w {
            let around = grey(y.saturating_sub(1), x)
                + grey((y + 1).min(h - 1), x)
                + grey(y, x.saturating_sub(1))
                + grey(y, (x + 1).min(w - 1));
            roughness += (around - 4.0 * grey(y, x)).powi(2);
        }
    }
    let sharpness = if variance > 0.0 { roughness / pixels / variance } else { 0.0 };
    let saturation = if c >= 3 { mean_saturation(&at, h, w, c) / pixels } else { 0.0 };
    Image { brightness, contrast: variance.sqrt(), sharpness, saturation }
}

fn mean_saturation(at: &impl Fn(usize, usize, usize) -> f64, h: usize, w: usize, c: usize) -> f64 {
    let mut sum = 0.0;
    for y in 0..h {
        for x in 0..w {
            let channels = || (0..c).map(|channel| at(y, x, channel));
            let (high, low) = (channels().fold(f64::MIN, f64::max), channels().fold(f64::MAX, f64::min));
            if high > 0.0 {
                sum += (high - low) / high;
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(blur: bool) -> Vec<f64> {
        let pixel = |i: usize| if (i / 4 + i % 4).is_multiple_of(2) { 16.0 } else { 0.0 };
        (0..16).map(|i| if blur { 8.0 + (pixel(i) - 8.0) / 4.0 } else { pixel(i) }).collect()
    }

    #[test]
    fn a_board_has_the_brightness_and_contrast_that_one_computes_by_hand() {
        let sharp = image(&board(false), Layout::Nchw, 4, 4, 1);
        assert!((sharp.brightness - 8.0).abs() < 1e-12 && (sharp.contrast - 8.0).abs() < 1e-12);
        let faint = image(&board(true), Layout::Nchw, 4, 4, 1);
        assert!(faint.contrast < sharp.contrast);
    }

    #[test]
    fn a_smooth_ramp_is_less_sharp_than_a_board() {
        let ramp: Vec<f64> = (0..16).map(|i| f64::from(i % 4)).collect();
        assert!(
            image(&ramp, Layout::Nchw, 4, 4, 1).sharpness
                < image(&board(false), Layout::Nchw, 4, 4, 1).sharpness
        );
        assert!(image(&[3.0; 16], Layout::Nchw, 4, 4, 1).sharpness.abs() < 1e-12);
    }

    #[test]
    fn both_layouts_give_the_same_features() {
        let nchw: Vec<f64> = (0..12).map(f64::from).collect();
        let nhwc: Vec<f64> = (0..4).flat_map(|pixel| (0..3).map(move |c| f64::from(c * 4 + pixel))).collect();
        let (a, b) = (image(&nchw, Layout::Nchw, 2, 2, 3), image(&nhwc, Layout::Nhwc, 2, 2, 3));
        assert!((a.sharpness - b.sharpness).abs() < 1e-12 && (a.saturation - b.saturation).abs() < 1e-12);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let extractor = Extractor::Image { input: "image".into(), layout: Layout::Nchw, channels: 1 };
        assert_eq!(extractor.rows(&[2, 1, 2, 2], &[0.0; 8]).unwrap().len(), 2);
        for shape in [&[2, 1, 2][..], &[2, 3, 2, 2], &[0, 1, 2, 2], &[usize::MAX, 2, 2, 2]] {
            assert!(extractor.rows(shape, &[0.0; 8]).is_err(), "{shape:?}");
        }
    }
}
