//! PNG and JPEG files as input tensors: for `run-batch` and the watched folder. A picture is never resized here: what
//! is done to it before the model is the release's own steps, and nothing else.

use std::io::Cursor;

use inference::{Data, Datatype, MAX_ELEMENTS, Tensor, TensorSpec};
use release::{ImageLayout, Manifest, Monitor, PreStep};

/// Longest side that is decoded.
const MAX_SIDE: u32 = 16_384;

/// Why a file is not an input.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// Neither format.
    #[error("it is neither a PNG nor a JPEG")]
    Unknown,
    /// A damaged PNG.
    #[error("the PNG can't be read: {0}")]
    Png(#[source] png::DecodingError),
    /// A damaged JPEG.
    #[error("the JPEG can't be read: {0}")]
    Jpeg(String),
    /// Too many pixels.
    #[error(
        "it has {width} x {height} pixels; at most {MAX_SIDE} to a side and {MAX_ELEMENTS} values are read"
    )]
    TooLarge {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The model takes no pictures.
    #[error("the model's input {name} has shape {shape:?}, which is no batch of images")]
    NoImages {
        /// Of the input.
        name: String,
        /// Of the input.
        shape: Vec<i64>,
    },
    /// Another size.
    #[error("it has {width} x {height} pixels, the model's input {name} takes {expected:?}")]
    Size {
        /// Of the input.
        name: String,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// The input's shape.
        expected: Vec<i64>,
    },
    /// The input is of another type.
    #[error("the model's input {name} is {datatype}, which pixels can't be")]
    Datatype {
        /// Of the input.
        name: String,
        /// Of the input.
        datatype: Datatype,
    },
}

/// A decoded picture: 8 bits per channel, rows from the top, channels last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    height: usize,
    width: usize,
    /// 1, 2, 3 or 4: grey or RGB, each with or without alpha.
    channels: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Whether a file's name says that it is one.
    pub fn is_named(name: &std::path::Path) -> bool {
        let extension = name.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    }

    /// Decodes a file's bytes; its name doesn't matter.
    ///
    /// # Errors
    /// [`PictureError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PictureError> {
        match bytes {
            [0x89, b'P', b'N', b'G', ..] => png(bytes),
            [0xff, 0xd8, ..] => jpeg(bytes),
            _ => Err(PictureError::Unknown),
        }
    }

    /// One row of the batch that `spec` takes. Grey becomes three equal channels and colours become their luma where
    /// the model wants it; alpha is left out.
    ///
    /// # Errors
    /// [`PictureError`] when the size or the type is another.
    pub fn tensor(&self, spec: &TensorSpec, layout: ImageLayout) -> Result<Tensor, PictureError> {
        let no_images = || PictureError::NoImages { name: spec.name.clone(), shape: spec.shape.clone() };
        let &[_, a, b, c] = spec.shape.as_slice() else { return Err(no_images()) };
        let ([height, width], channels) = match layout {
            ImageLayout::Nhwc => ([a, b], c),
            ImageLayout::Nchw => ([b, c], a),
        };
        let wanted = [height, width].map(usize::try_from);
        if wanted != [Ok(self.height), Ok(self.width)] {
            let (name, expected) = (spec.name.clone(), spec.shape.clone());
            return Err(PictureError::Size { name, width: self.width, height: self.height, expected });
        }
        let values = match (channels, layout) {
            (1, _) => self.grey(),
            (3, ImageLayout::Nhwc) => self.colours().into_iter().flatten().collect(),
            (3, ImageLayout::Nchw) => {
                let colours = self.colours();
                (0..3).flat_map(|channel| colours.iter().map(move |pixel| pixel[channel])).collect()
            }
            _ => return Err(no_images()),
        };
        let data = data(spec, values)?;
        let shape = spec.shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(1)).collect();
        Tensor::new(spec.name.clone(), shape, data).map_err(|_| no_images())
    }

    fn colours(&self) -> Vec<[u8; 3]> {
        let of = |pixel: &[u8]| match pixel {
            [red, green, blue, ..] => [*red, *green, *blue],
            [grey, ..] => [*grey; 3],
            [] => [0; 3],
        };
        self.pixels.chunks_exact(self.channels.max(1)).map(of).collect()
    }

    /// ITU-R BT.601 luma in integers, as Pillow's conversion to `L`.
    fn grey(&self) -> Vec<u8> {
        let luma = |[red, green, blue]: [u8; 3]| {
            let sum = u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000;
            u8::try_from(sum >> 16).unwrap_or(u8::MAX)
        };
        let of = |pixel: &[u8]| match pixel {
            [red, green, blue, ..] => luma([*red, *green, *blue]),
            [grey, ..] => *grey,
            [] => 0,
        };
        self.pixels.chunks_exact(self.channels.max(1)).map(of).collect()
    }
}

fn data(spec: &TensorSpec, values: Vec<u8>) -> Result<Data, PictureError> {
    match spec.datatype {
        Datatype::Uint8 => Ok(Data::Uint8(values)),
        Datatype::Fp32 => Ok(Data::Fp32(values.into_iter().map(f32::from).collect())),
        datatype => Err(PictureError::Datatype { name: spec.name.clone(), datatype }),
    }
}

/// Where the channels stand in what applications send to `input`: as the monitor says, else as the first step that
/// says it, else where 1 or 3 stands in the shape.
pub fn layout_of(manifest: &Manifest, input: &TensorSpec) -> ImageLayout {
    if let Some(Monitor::Image { input: name, layout, .. }) = &manifest.monitor
        && *name == input.name
    {
        return *layout;
    }
    let of_step = manifest.pre.iter().find_map(|step| match step {
        PreStep::Layout { from, .. } => Some(*from),
        PreStep::Resize { layout, .. } | PreStep::Crop { layout, .. } | PreStep::Channels { layout, .. } => {
            Some(*layout)
        }
        _ => None,
    });
    let is_last = matches!(input.shape.last(), Some(1 | 3));
    of_step.unwrap_or(if is_last { ImageLayout::Nhwc } else { ImageLayout::Nchw })
}

fn bounded(width: usize, height: usize) -> Result<(), PictureError> {
    let side = usize::try_from(MAX_SIDE).unwrap_or(usize::MAX);
    let is_small = width <= side && height <= side && width.saturating_mul(height) <= MAX_ELEMENTS;
    if is_small { Ok(()) } else { Err(PictureError::TooLarge { width, height }) }
}

fn png(bytes: &[u8]) -> Result<Picture, PictureError> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(PictureError::Png)?;
    let [width, height] =
        [reader.info().width, reader.info().height].map(|side| usize::try_from(side).unwrap_or(usize::MAX));
    bounded(width, height)?;
    let size = reader.output_buffer_size().ok_or(PictureError::TooLarge { width, height })?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(PictureError::Png)?;
    pixels.truncate(frame.buffer_size());
    Ok(Picture { height, width, channels: frame.color_type.samples(), pixels })
}

fn jpeg(bytes: &[u8]) -> Result<Picture, PictureError> {
    let failed = |error: &dyn std::fmt::Display| PictureError::Jpeg(error.to_string());
    let mut decoder = zune_jpeg::JpegDecoder::new(Cursor::new(bytes));
    decoder.decode_headers().map_err(|error| failed(&error))?;
    let info = decoder.info().ok_or_else(|| failed(&"it has no head"))?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    bounded(width, height)?;
    let pixels = decoder.decode().map_err(|error| failed(&error))?;
    Ok(Picture { height, width, channels: pixels.len() / (width * height).max(1), pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(color: png::ColorType, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        bytes
    }

    fn spec(shape: [i64; 4], datatype: Datatype) -> TensorSpec {
        TensorSpec { name: "image".into(), datatype, shape: shape.to_vec() }
    }

    #[test]
    fn colours_and_greys_become_what_the_model_takes() {
        let colour = Picture::decode(&encoded(png::ColorType::Rgba, &[255, 0, 10, 9, 1, 2, 3, 4])).unwrap();
        let planes = colour.tensor(&spec([-1, 3, 1, 2], Datatype::Uint8), ImageLayout::Nchw).unwrap();
        assert_eq!(planes.data(), &Data::Uint8(vec![255, 1, 0, 2, 10, 3]));
        let grey = colour.tensor(&spec([-1, 1, 2, 1], Datatype::Fp32), ImageLayout::Nhwc).unwrap();
        assert_eq!(grey.data(), &Data::Fp32(vec![77.0, 2.0]));
        let grey = Picture::decode(&encoded(png::ColorType::Grayscale, &[7, 9])).unwrap();
        let pixels = grey.tensor(&spec([-1, 1, 2, 3], Datatype::Uint8), ImageLayout::Nhwc).unwrap();
        assert_eq!(pixels.data(), &Data::Uint8(vec![7, 7, 7, 9, 9, 9]));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let picture = Picture::decode(&encoded(png::ColorType::Grayscale, &[7, 9])).unwrap();
        let refused = |spec: &TensorSpec| picture.tensor(spec, ImageLayout::Nchw).unwrap_err().to_string();
        assert!(refused(&spec([-1, 1, 8, 8], Datatype::Uint8)).contains("2 x 1 pixels"));
        assert!(refused(&spec([-1, 2, 1, 2], Datatype::Uint8)).contains("no batch of images"));
        assert!(refused(&spec([-1, 1, 1, 2], Datatype::Int64)).contains("INT64"));
        assert!(matches!(Picture::decode(b"GIF89a"), Err(PictureError::Unknown)));
        assert!(matches!(Picture::decode(&[0x89, b'P', b'N', b'G', 0]), Err(PictureError::Png(_))));
        assert!(matches!(Picture::decode(&[0xff, 0xd8, 0xff, 0, 1]), Err(PictureError::Jpeg(_))));
    }
}
