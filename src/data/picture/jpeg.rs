//! JPEG, through libjpeg-turbo's decoding (the slow integer transform, fancy upsampling), the only one that agrees with
//! Pillow to the bit; of several pictures in a file (MPO) the first.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use mozjpeg::{ColorSpace, DctMethod, Decompress};

use super::orientation::Metadata;
use super::{PictureError, broken, check_size, without_inks};

/// The picture in `bytes`. Four inks are taken to be inverted, as Adobe writes them and Pillow reads them.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let Samples { width, height, count, values } = samples(bytes)?;
    let pixels = match count {
        1 => values.into_iter().flat_map(|gray| [gray; 3]).collect(),
        3 => values,
        _ => values.as_chunks().0.iter().flat_map(|inks: &[u8; 4]| without_inks(inks.map(|ink| 255 - ink))).collect(),
    };
    RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(|| broken("JPEG", "rows are missing"))
}

/// What a JPEG stream holds.
pub struct Samples {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Values a pixel: 1 is gray, 3 is red, green and blue, 4 is inks as they are stored.
    pub count: usize,
    /// `[height, width, count]`.
    pub values: Vec<u8>,
}

/// The values in a stream.
pub fn samples(bytes: &[u8]) -> Result<Samples, PictureError> {
    let exhausted = Cell::new(false);
    // libjpeg reports errors by unwinding.
    let read = catch_unwind(AssertUnwindSafe(|| read(Counted { rest: bytes, exhausted: &exhausted })));
    if exhausted.get() && !matches!(read, Ok(Err(PictureError::TooLarge { .. } | PictureError::TooLong { .. }))) {
        return Err(PictureError::Truncated("JPEG"));
    }
    read.unwrap_or_else(|panic| {
        let cause = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(broken("JPEG", cause.unwrap_or("the decoder gave up").trim_start_matches("libjpeg fatal error: ")))
    })
}

fn read(source: Counted<'_>) -> Result<Samples, PictureError> {
    let fail = |cause: io::Error| broken("JPEG", cause);
    let mut decoder = Decompress::new_reader(source).map_err(fail)?;
    let (width, height) = decoder.size();
    check_size(width as u64, height as u64)?;
    decoder.dct_method(DctMethod::IntegerSlow);
    decoder.do_fancy_upsampling(true);
    let (space, count) = match (decoder.components().len(), decoder.color_space()) {
        (1, _) => (ColorSpace::JCS_GRAYSCALE, 1),
        (3, _) => (ColorSpace::JCS_RGB, 3),
        (4, _) => (ColorSpace::JCS_CMYK, 4),
        (count, _) => return Err(broken("JPEG", format_args!("{count} components are not supported"))),
    };
    let mut started = decoder.to_colorspace(space).map_err(fail)?;
    let values = started.read_scanlines::<u8>().map_err(fail)?;
    Ok(Samples { width, height, count, values })
}

/// Bytes that remember whether more were asked for than there are: libjpeg fills what is missing with gray.
struct Counted<'a> {
    rest: &'a [u8],
    exhausted: &'a Cell<bool>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

impl BufRead for Counted<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.exhausted.set(self.exhausted.get() || self.rest.is_empty());
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = &self.rest[amount..];
    }
}

/// EXIF data, which may be spread over several segments, and XMP data.
pub fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let mut exif: Option<Cow<'_, [u8]>> = None;
    let mut xmp = None;
    for Segment { marker, payload, .. } in segments(bytes) {
        if marker != 0xE1 {
            continue;
        }
        if let Some(more) = payload.strip_prefix(b"Exif\0\0") {
            match &mut exif {
                Some(exif) => exif.to_mut().extend(more),
                None => exif = Some(payload.into()),
            }
        } else if let Some(text) = payload.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            xmp = Some(Cow::from(text));
        }
    }
    Metadata { exif, xmp }
}

/// A part of a file before its first scan.
struct Segment<'a> {
    marker: u8,
    payload: &'a [u8],
    /// All from the marker on.
    whole: &'a [u8],
}

/// The segments up to the first scan, and it with all that follows, as far as the file is sound.
fn segments(bytes: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            match rest {
                [0xFF, 0 | 0xFF, ..] => rest = &rest[1..],
                // These have no length.
                [0xFF, 0x01 | 0xD0..=0xD9, ..] => rest = &rest[2..],
                [0xFF, marker, high, low, ..] => {
                    let end = 2 + usize::from(u16::from_be_bytes([*high, *low]));
                    let (marker, payload) = (*marker, rest.get(4..end)?);
                    let whole = if marker == 0xDA { rest } else { &rest[..end] };
                    rest = &rest[whole.len()..];
                    return Some(Segment { marker, payload, whole });
                }
                [_, behind @ ..] if !behind.is_empty() => rest = behind,
                _ => return None,
            }
        }
    })
}

/// A stream whose colors are what a TIFF file says, regardless of its own markers: luma and chroma, or else colors as
/// they are. `tables` are those that the streams of the file have in common.
pub fn in_tiff(tables: &[u8], stream: &[u8], luma_and_chroma: bool) -> Vec<u8> {
    let mut whole = vec![0xFF, 0xD8, 0xFF, 0xEE, 0, 14];
    whole.extend(b"Adobe\0\x64\0\0\0\0");
    whole.push(luma_and_chroma.into());
    let is_application = |marker: u8| (0xE0..=0xEF).contains(&marker);
    for segment in segments(tables).chain(segments(stream)).filter(|segment| !is_application(segment.marker)) {
        whole.extend(segment.whole);
    }
    whole
}
