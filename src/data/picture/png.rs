//! PNG, APNG included, of which the picture that every reader shows counts: the one in `IDAT`.

use std::io::Cursor;

use image::RgbImage;
use png::{ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::{MAX_MEMORY, PictureError, Pixels, broken, check_size, clipped, palette, unpacked};

/// The parts of an interlaced picture: first column and row, steps between columns and rows.
const PASSES: [(usize, usize, usize, usize); 7] =
    [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];

/// The picture in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    // The file begins with its size; the decoder tells it only once pixels have begun.
    if let Some(&[a, b, c, d, e, f, g, h]) = bytes.get(16..24) {
        check_size(u32::from_be_bytes([a, b, c, d]).into(), u32::from_be_bytes([e, f, g, h]).into())?;
    }
    let mut options = DecodeOptions::default();
    options.set_ignore_adler32(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits { bytes: MAX_MEMORY });
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(fail)?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let (color, depth) = (info.color_type, info.bit_depth as u8);
    let palette = palette(info.palette.as_deref().unwrap_or_default().as_chunks().0.iter().copied());
    let passes = if info.interlaced { &PASSES[..] } else { &[(0, 0, 1, 1)] };

    let mut pixels = Pixels::new(width, height);
    for &(x0, y0, dx, dy) in passes.iter().filter(|(x0, ..)| *x0 < width) {
        for y in (y0..height).step_by(dy) {
            let row = reader.next_interlaced_row().map_err(fail)?.ok_or(PictureError::Truncated("PNG"))?;
            let places = pixels.row(y).iter_mut().skip(x0).step_by(dx);
            read_row(row.data(), color, depth, &palette, places);
        }
    }
    // What is damaged without being malformed, the checksums behind the pixels tell. That nothing follows is no harm.
    match reader.finish() {
        Err(error @ DecodingError::Format(_)) => Err(fail(error)),
        _ => Ok(pixels.into()),
    }
}

/// Drops alpha, and bits beyond eight as Pillow does: of colors and of gray with alpha the low ones; gray of 16 bits,
/// which Pillow holds as integers, is cut off at 255.
fn read_row<'a>(
    row: &[u8],
    color: ColorType,
    depth: u8,
    palette: &[[u8; 3]],
    places: impl Iterator<Item = &'a mut [u8; 3]>,
) {
    let bytes = usize::from(depth / 8).max(1);
    let gray = |samples: &[u8]| [samples[0]; 3];
    let rgb = |samples: &[u8]| [samples[0], samples[bytes], samples[2 * bytes]];
    let samples = row.chunks_exact(bytes * color.samples());
    match (color, depth) {
        (ColorType::Indexed, _) => set(places, unpacked(row, depth).map(|index| palette[usize::from(index)])),
        (ColorType::Grayscale, 16) => {
            set(places, samples.map(|word| [clipped(u16::from_be_bytes([word[0], word[1]])); 3]))
        }
        (ColorType::Grayscale, _) => {
            let step = 255 / ((1u16 << depth) - 1) as u8;
            set(places, unpacked(row, depth).map(|value| [value * step; 3]));
        }
        (ColorType::GrayscaleAlpha, _) => set(places, samples.map(gray)),
        (ColorType::Rgb | ColorType::Rgba, _) => set(places, samples.map(rgb)),
    }
}

fn set<'a>(places: impl Iterator<Item = &'a mut [u8; 3]>, values: impl Iterator<Item = [u8; 3]>) {
    places.zip(values).for_each(|(place, value)| *place = value);
}

fn fail(error: DecodingError) -> PictureError {
    match error {
        DecodingError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated("PNG")
        }
        other => broken("PNG", other),
    }
}

/// The chunks of a PNG file with their names, as far as the file goes.
pub fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk()?;
        let (name, behind) = behind.split_first_chunk()?;
        let data = behind.get(..u32::from_be_bytes(*length) as usize)?;
        rest = behind.get(data.len() + 4..).unwrap_or_default();
        Some((*name, data))
    })
}
