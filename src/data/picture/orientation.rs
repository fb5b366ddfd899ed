//! Where a file says how it must be turned: everywhere that Pillow's `ImageOps.exif_transpose` looks.
//!
//! That is EXIF data (JPEG's APP1, PNG's `eXIf` and the raw profile of ImageMagick, WebP's `EXIF`), a TIFF file's own
//! tag and, when they carry none, `tiff:Orientation` in XMP data. A value that is none of 1 to 8 turns nothing.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::directory::Directory;
use super::png::chunks;
use super::{Format, jpeg, sniff, webp};

const TAG: u16 = 0x0112;
const XMP_TAG: u16 = 700;

/// The most that compressed metadata may unfold to.
const MAX_TEXT: u64 = 1 << 26;

/// What a file carries beside its pixels.
#[derive(Default)]
pub struct Metadata<'a> {
    /// EXIF data, with or without the header `Exif\0\0`.
    pub exif: Option<Cow<'a, [u8]>>,
    /// XMP data.
    pub xmp: Option<Cow<'a, [u8]>>,
}

/// How the picture in `bytes` must be turned; not at all when nothing says so.
pub fn orientation(bytes: &[u8]) -> Orientation {
    let metadata = match sniff(bytes) {
        Ok(Format::Jpeg) => jpeg::metadata(bytes),
        Ok(Format::Png) => png_metadata(bytes),
        Ok(Format::WebP) => webp::metadata(bytes),
        Ok(Format::Tiff) => {
            let xmp = Directory::read(bytes).and_then(|directory| directory.bytes(XMP_TAG));
            Metadata { exif: Some(bytes.into()), xmp: xmp.map(Cow::from) }
        }
        _ => Metadata::default(),
    };
    metadata
        .exif
        .as_deref()
        .and_then(|exif| in_exif(exif, sniff(bytes) == Ok(Format::Tiff)))
        .or_else(|| metadata.xmp.as_deref().and_then(in_xmp))
        .and_then(|value| u8::try_from(value).ok())
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

fn in_exif(exif: &[u8], is_tiff: bool) -> Option<u64> {
    let heading = b"Exif\0\0";
    // Some programs write it twice.
    let once = exif.strip_prefix(heading).unwrap_or(exif);
    let data = once.strip_prefix(heading).unwrap_or(once);
    // The form for large files is known in TIFF files alone.
    let directory = Directory::read(data).filter(|_| is_tiff || !data[..4].contains(&b'+'))?;
    // A tag that is not a number still counts as present: XMP data is not consulted.
    directory.bytes(TAG).map(|_| directory.integer(TAG).unwrap_or(0))
}

/// The digit behind `tiff:Orientation="` or `tiff:Orientation>`.
fn in_xmp(xmp: &[u8]) -> Option<u64> {
    let name = b"tiff:Orientation";
    let ends = xmp.windows(name.len()).enumerate().filter(|(_, part)| part == name).map(|(at, _)| at + name.len());
    ends.into_iter().find_map(|at| {
        let rest = &xmp[at..];
        let digit = rest.strip_prefix(b"=\"").or(rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| u64::from(digit - b'0'))
    })
}

fn png_metadata(bytes: &[u8]) -> Metadata<'_> {
    let (mut exif, mut raw, mut xmp) = (None, None, None);
    let unfold = |data: &[u8]| {
        let mut text = Vec::new();
        ZlibDecoder::new(data).take(MAX_TEXT).read_to_end(&mut text).ok()?;
        Some(text)
    };
    for (name, data) in chunks(bytes) {
        match &name {
            b"eXIf" => exif = Some(Cow::from(data)),
            b"tEXt" | b"zTXt" => {
                let Some((key, value)) = split(data) else { continue };
                let unfolded = || match (&name, value) {
                    (b"tEXt", value) => Some(value.to_vec()),
                    (_, [0, packed @ ..]) => unfold(packed),
                    _ => None,
                };
                match key {
                    b"exif" if &name == b"tEXt" => exif = Some(Cow::from(value)),
                    b"Raw profile type exif" => raw = unfolded().or(raw),
                    b"XML:com.adobe.xmp" => xmp = unfolded().map(Cow::from).or(xmp),
                    _ => {}
                }
            }
            b"iTXt" => {
                let Some((b"XML:com.adobe.xmp", [packed, method, rest @ ..])) = split(data) else { continue };
                let Some((_, rest)) = split(rest) else { continue };
                let Some((_, text)) = split(rest) else { continue };
                match (packed, method) {
                    (0, _) => xmp = Some(Cow::from(text)),
                    (_, 0) => xmp = unfold(text).map(Cow::from).or(xmp),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Metadata { exif: exif.or_else(|| Some(raw_profile(&raw?)?.into())), xmp }
}

/// `data` before and behind its first zero byte.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|byte| *byte == 0)?;
    Some((&data[..at], &data[at + 1..]))
}

/// EXIF data as ImageMagick writes them: three lines of heading, then hexadecimal digits.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .split(|byte| *byte == b'\n')
        .skip(3)
        .flatten()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits.chunks(2).map(|pair| Some(value(pair[0])? << 4 | value(*pair.get(1)?)?)).collect()
}
