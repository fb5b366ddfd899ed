//! Bytes → an 8-bit RGB picture, as Pillow's `convert("RGB")` reads them, turned as their metadata say.
//!
//! What a file is, is reported by its content, never by its name. Alpha is dropped, palettes are expanded, of several
//! frames or pages the first counts. A file that Pillow reads otherwise than its format's other readers is read as
//! Pillow reads it; one that we cannot read so is refused. This module does not know where bytes come from.

mod bmp;
mod directory;
mod gif;
mod jpeg;
mod orientation;
mod png;
mod pnm;
mod tiff;
mod webp;

use std::fs::File;
use std::io::Read;
use std::panic::catch_unwind;
use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageEncoder, RgbImage};
use weezl::{LzwError, LzwStatus};

pub use orientation::orientation;

use super::sniff::WrongContent;

/// The most pixels that a picture may have: Pillow's limit against decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The longest side that a picture may have: that of JPEG files.
pub const MAX_SIDE: u64 = 65_535;

/// The most memory that a decoder of a library may take: 16 bits of four channels, and some.
const MAX_MEMORY: usize = 2 << 30;

/// The bytes at the beginning of a file that [`is_picture`] looks at.
pub const HEAD: usize = 32;

/// Whether a file that begins with `head` says that it is a picture of a format that is read.
pub fn is_picture(head: &[u8]) -> bool {
    sniff(head).is_ok()
}

/// Checks the beginning of a file: an empty file, or an unsupported format, is not a picture regardless of its name.
///
/// # Errors
/// Why it is none ([`PictureError`], as [`std::io::ErrorKind::InvalidData`]), or that it cannot be read.
pub fn check_beginning(path: &Path) -> std::io::Result<()> {
    /// What tells a page or an archive from a picture.
    const LOOKED_AT: u64 = 4096;
    let mut head = Vec::new();
    File::open(path)?.take(LOOKED_AT).read_to_end(&mut head)?;
    sniff(&head).map(drop).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are not those of a format that is read.
    #[error("not a picture: {0}")]
    Unknown(&'static str),
    /// The file is something else.
    #[error("not a picture: {}; {}", .0.what, .0.help)]
    Instead(WrongContent),
    /// The bytes end before the picture does.
    #[error("the {0} file is truncated")]
    Truncated(&'static str),
    /// The header asks for no pixels.
    #[error("the picture has no pixels")]
    NoPixels,
    /// The header asks for more pixels than are allowed.
    #[error("{width} × {height} pixels exceed the limit of {MAX_PIXELS}")]
    TooLarge {
        /// Pixels across.
        width: u64,
        /// Pixels down.
        height: u64,
    },
    /// The header asks for a side that is longer than allowed.
    #[error("{width} × {height} pixels: a side exceeds the limit of {MAX_SIDE}")]
    TooLong {
        /// Pixels across.
        width: u64,
        /// Pixels down.
        height: u64,
    },
    /// The bytes contradict themselves.
    #[error("the {format} file is broken: {cause}")]
    Broken {
        /// The format.
        format: &'static str,
        /// What the decoder says.
        cause: String,
    },
}

/// The picture in `bytes`, turned as its metadata say.
///
/// # Errors
/// See [`PictureError`]; no allocation is made for a picture that is too large.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let picture = decode_unturned(bytes)?;
    let turn = catch_unwind(|| orientation(bytes)).unwrap_or(Orientation::NoTransforms);
    Ok(match turn {
        Orientation::NoTransforms => picture,
        turn => {
            let mut picture = DynamicImage::ImageRgb8(picture);
            picture.apply_orientation(turn);
            picture.into_rgb8()
        }
    })
}

/// The picture in `bytes` as it is stored, its orientation ignored.
///
/// # Errors
/// As [`decode`].
pub fn decode_unturned(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let format = sniff(bytes)?;
    // No decoder is known to panic, but a file must never end us.
    catch_unwind(|| read(format, bytes)).unwrap_or_else(|_| Err(broken(format.name(), "the decoder gave up")))
}

fn read(format: Format, bytes: &[u8]) -> Result<RgbImage, PictureError> {
    match format {
        Format::Bmp => bmp::decode(bytes),
        Format::Gif => gif::decode(bytes),
        Format::Jpeg => jpeg::decode(bytes),
        Format::Png => png::decode(bytes),
        Format::Pnm => pnm::decode(bytes),
        Format::Tiff => tiff::decode(bytes),
        Format::WebP => webp::decode(bytes),
    }
}

/// Whether the picture in `bytes` is gray of more than eight bits. Pillow makes every value from 255 on white.
pub fn has_deep_gray(bytes: &[u8]) -> bool {
    match sniff(bytes) {
        Ok(Format::Png) => bytes.get(24..26) == Some(&[16, 0]),
        Ok(Format::Pnm) => pnm::has_deep_gray(bytes),
        Ok(Format::Tiff) => tiff::has_deep_gray(bytes),
        _ => false,
    }
}

/// `picture` as a PNG file, without loss.
pub fn encode_png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .expect("memory takes every byte, and a picture has as many as it says");
    bytes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Bmp,
    Gif,
    Jpeg,
    Png,
    Pnm,
    Tiff,
    WebP,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Pnm => "PNM",
            Self::Tiff => "TIFF",
            Self::WebP => "WebP",
        }
    }
}

/// The format that the first bytes announce.
fn sniff(bytes: &[u8]) -> Result<Format, PictureError> {
    let starts = |prefix: &[u8]| bytes.starts_with(prefix);
    match bytes {
        [] => Err(PictureError::Empty),
        [0xFF, 0xD8, 0xFF, ..] => Ok(Format::Jpeg),
        _ if starts(b"\x89PNG\r\n\x1a\n") => Ok(Format::Png),
        _ if starts(b"GIF87a") || starts(b"GIF89a") => Ok(Format::Gif),
        _ if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => Ok(Format::WebP),
        _ if starts(b"BM") || bmp::is_dib(bytes) => Ok(Format::Bmp),
        [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Ok(Format::Tiff),
        [b'I', b'I', 0, b'*', ..] | [b'M', b'M', b'*', 0, ..] => Ok(Format::Tiff),
        [b'P', b'1'..=b'6' | b'f', space, ..] if space.is_ascii_whitespace() => Ok(Format::Pnm),
        _ => Err(match (unread(bytes), WrongContent::in_any(bytes)) {
            (Some(format), _) => PictureError::Unknown(format),
            (None, Some(found)) => PictureError::Instead(found),
            (None, None) => PictureError::Unknown("the content is not JPEG, PNG, GIF, WebP, BMP, TIFF or PNM"),
        }),
    }
}

/// The message on unsupported picture formats.
fn unread(bytes: &[u8]) -> Option<&'static str> {
    let starts = |prefix: &[u8]| bytes.starts_with(prefix);
    match bytes.get(4..8) {
        Some(b"ftyp") => Some("HEIF, AVIF and video files are not supported; convert it to JPEG or PNG"),
        Some(b"jP  ") => Some("JPEG 2000 is not supported; convert it to JPEG or PNG"),
        _ if starts(b"\xFF\x0A") => Some("JPEG XL is not supported; convert it to JPEG or PNG"),
        _ if starts(b"P7\n") || starts(b"PF\n") => Some("PAM and color PFM are not supported; convert it to PNG"),
        _ if starts(b"8BPS") => Some("Photoshop files are not supported; convert it to JPEG or PNG"),
        _ if starts(b"%PDF") => Some("a PDF file; convert its pages to JPEG or PNG"),
        _ if starts(b"\0\0\x01\0") => Some("icons are not supported; convert it to PNG"),
        _ if bytes.trim_ascii_start().starts_with(b"<") && bytes.windows(4).take(4096).any(|part| part == b"<svg") => {
            Some("SVG is not supported; convert it to PNG")
        }
        _ => None,
    }
}

fn broken(format: &'static str, cause: impl ToString) -> PictureError {
    PictureError::Broken { format, cause: cause.to_string() }
}

fn check_size(width: u64, height: u64) -> Result<(), PictureError> {
    if width == 0 || height == 0 {
        return Err(PictureError::NoPixels);
    }
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    if width.max(height) > MAX_SIDE {
        return Err(PictureError::TooLong { width, height });
    }
    Ok(())
}

/// A picture in the making, black at first. Its size is checked before.
struct Pixels {
    width: usize,
    values: Vec<[u8; 3]>,
}

impl Pixels {
    fn new(width: usize, height: usize) -> Self {
        Self { width, values: vec![[0; 3]; width * height] }
    }

    fn fill(&mut self, color: [u8; 3]) {
        self.values.fill(color);
    }

    fn width(&self) -> usize {
        self.width
    }

    fn height(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&mut self, y: usize) -> &mut [[u8; 3]] {
        &mut self.values[y * self.width..(y + 1) * self.width]
    }

    /// Row by row.
    fn all(&mut self) -> impl Iterator<Item = &mut [u8; 3]> {
        self.values.iter_mut()
    }
}

impl From<Pixels> for RgbImage {
    fn from(pixels: Pixels) -> Self {
        let (width, height) = (pixels.width() as u32, pixels.height() as u32);
        Self::from_raw(width, height, pixels.values.into_flattened()).expect("three bytes a pixel")
    }
}

/// The numbers of 1, 2, 4 or 8 bits in `row`, the most significant bits first.
fn unpacked(row: &[u8], bits: u8) -> impl Iterator<Item = u8> {
    let mask = ((1u16 << bits) - 1) as u8;
    row.iter().flat_map(move |byte| (0..8 / bits).map(move |at| byte >> (8 - bits * (at + 1)) & mask))
}

/// What `codes` decode to, at most `size` bytes.
fn lzw(mut decoder: weezl::decode::Decoder, codes: &[u8], size: usize) -> Result<Vec<u8>, LzwError> {
    let mut out = vec![0; size];
    let (mut at, mut filled) = (0, 0);
    while filled < size {
        let read = decoder.decode_bytes(&codes[at..], &mut out[filled..]);
        (at, filled) = (at + read.consumed_in, filled + read.consumed_out);
        if !matches!(read.status?, LzwStatus::Ok) {
            break;
        }
    }
    out.truncate(filled);
    Ok(out)
}

/// What Pillow makes of integers.
fn clipped(value: u16) -> u8 {
    value.min(255) as u8
}

/// What Pillow makes of signed integers and of real ones: cut off, what is no number at 0.
fn clipped_real(value: impl Into<f64>) -> u8 {
    value.into() as u8
}

/// A palette of `colors`; entries beyond them are black.
fn palette(colors: impl Iterator<Item = [u8; 3]>) -> [[u8; 3]; 256] {
    let mut palette = [[0; 3]; 256];
    palette.iter_mut().zip(colors).for_each(|(entry, color)| *entry = color);
    palette
}

/// What Pillow takes for no palette.
fn gray_ramp() -> [[u8; 3]; 256] {
    std::array::from_fn(|index| [index as u8; 3])
}

/// Pillow's arithmetic for cyan, magenta, yellow and black.
fn without_inks([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let light = 255 - black;
    [cyan, magenta, yellow].map(|ink| {
        let product = u32::from(ink) * u32::from(light) + 128;
        light.saturating_sub((((product >> 8) + product) >> 8) as u8)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::LazyLock;

    use super::*;
    use crate::data::resample::tests::ramps;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    fn reference() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
    }

    fn odd(name: &str) -> Vec<u8> {
        std::fs::read(reference().join("odd").join(name)).unwrap()
    }

    /// The digest that `tests/reference/pictures.py` writes: of width, height and pixels.
    pub(crate) fn pixels(picture: &RgbImage) -> String {
        let mut hasher = Sha256::new();
        hasher.update(picture.width().to_le_bytes());
        hasher.update(picture.height().to_le_bytes());
        hasher.update(picture.as_raw());
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[derive(serde::Deserialize)]
    struct Digests {
        stored: Option<String>,
        turned: String,
    }

    /// What `tests/reference/pictures.py` finds: `None` where Pillow itself refuses a file.
    fn table() -> BTreeMap<String, Option<Digests>> {
        serde_json::from_slice(&std::fs::read(reference().join("odd.json")).unwrap()).unwrap()
    }

    /// Files that Pillow reads and we refuse, with a part of the message.
    const REFUSED: [(&str, &str); 8] = [
        ("avif.avif", "HEIF, AVIF and video files are not supported"),
        ("icon.ico", "icons are not supported"),
        ("jpeg2000.jp2", "JPEG 2000 is not supported"),
        ("rows_missing.png", "does not have enough data"),
        ("tiff_jpeg_old.tif", "old-style JPEG compression is not supported"),
        ("tiff_lab.tif", "the Lab color space is not supported"),
        ("tiff_lzma_rgb.tif", "LZMA compression is not supported"),
        ("tiff_tiff_ccitt.tif", "modified Huffman compression is not supported"),
    ];

    /// Files that Pillow garbles: bytes taken for bits, and numbers swapped once too often.
    const GARBLED: [&str; 2] = ["bmp_two_colours_of_8_bits.bmp", "tiff_predictor_float_big.tif"];

    #[test]
    fn files_of_every_kind_have_pillows_pixels() {
        let refused = BTreeMap::from(REFUSED);
        let mut wrong = Vec::new();
        let table = table();
        for (name, digests) in &table {
            let stored = decode_unturned(&odd(name)).map(|picture| pixels(&picture));
            let turned = decode(&odd(name)).map(|picture| pixels(&picture));
            match (digests, stored, turned) {
                // What Pillow refuses may be read, but must not end us.
                (None, ..) => {}
                (Some(_), _, Err(error)) => {
                    if !refused.get(name.as_str()).is_some_and(|reported| error.to_string().contains(reported)) {
                        wrong.push(format!("{name}: {error}"));
                    }
                }
                (Some(digests), stored, Ok(turned)) => {
                    let same = digests.stored.as_ref().is_none_or(|expected| stored.as_ref() == Ok(expected));
                    if refused.contains_key(name.as_str()) {
                        wrong.push(format!("{name}: read, but said to be refused"));
                    } else if (same && turned == digests.turned) == GARBLED.contains(&name.as_str()) {
                        wrong.push(format!("{name}: other pixels"));
                    }
                }
            }
        }
        assert!(table.len() > 500 && wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    }

    #[test]
    fn photographs_have_pillows_pixels() {
        let table: BTreeMap<String, String> =
            serde_json::from_slice(&std::fs::read(reference().join("photos.json")).unwrap()).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/photos");
        let mut seen = 0;
        for entry in walkdir::WalkDir::new(folder) {
            let entry = entry.unwrap();
            if let Some(digest) = table.get(entry.file_name().to_str().unwrap()) {
                let picture = decode(&std::fs::read(entry.path()).unwrap()).unwrap();
                assert_eq!(pixels(&picture), *digest, "{}", entry.path().display());
                seen += 1;
            }
        }
        assert_eq!((seen, table.len()), (40, 40));
    }

    #[test]
    fn a_png_gives_back_the_pixels_it_was_made_of() {
        let picture = ramps(37, 23);
        assert_eq!(decode(&encode_png(&picture)), Ok(picture));
    }

    #[test]
    fn what_is_no_picture_is_named() {
        let cause = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert_eq!(cause(b""), "the file is empty");
        assert_eq!(cause(b"hello"), "not a picture: the content is not JPEG, PNG, GIF, WebP, BMP, TIFF or PNM");
        assert!(cause(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        assert!(cause(b"<!DOCTYPE html>").contains("an HTML page instead of the file; "));
        assert!(cause(b"<?xml version=\"1.0\"?>\n<svg>").contains("SVG is not supported"));
        assert!(cause(b"\0\0\0\x18ftypheic").contains("HEIF"));
        assert!(cause(b"\xFF\xD8\xFF").contains("truncated"));
        assert!(cause(b"\x89PNG\r\n\x1a\n").contains("truncated"));
    }

    #[test]
    fn half_a_file_is_no_picture_unless_it_holds_the_whole_picture() {
        for (name, _) in table().into_iter().filter(|(_, digests)| digests.is_some()) {
            let bytes = odd(&name);
            if let Ok(half) = decode_unturned(&bytes[..bytes.len() / 2]) {
                assert_eq!(Ok(half), decode_unturned(&bytes), "{name}");
            }
        }
    }

    #[test]
    fn a_jpeg_file_without_its_last_byte_is_truncated_and_one_with_more_is_not() {
        for name in ["jpeg_420.jpg", "jpeg_progressive.jpg", "jpeg_restarts.jpg", "jpeg_grey.jpg"] {
            let mut bytes = odd(name);
            assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(PictureError::Truncated("JPEG")), "{name}");
            bytes.extend(b"trailing bytes");
            assert!(decode(&bytes).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused_before_anything_is_allocated() {
        let mut png = odd("rgb.png");
        png[16..24].copy_from_slice(&[0, 0, 0xC3, 0x50, 0, 0, 0xC3, 0x50]);
        let sum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&sum.to_be_bytes());
        let mut jpeg = odd("jpeg_444.jpg");
        let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0xC3, 0x50, 0xC3, 0x50]);
        let mut gif = odd("gif.gif");
        gif[6..10].copy_from_slice(&[0x50, 0xC3, 0x50, 0xC3]);
        let mut bmp = odd("bmp.bmp");
        bmp[18..26].copy_from_slice(&[0x50, 0xC3, 0, 0, 0x50, 0xC3, 0, 0]);
        for bytes in [png, jpeg, gif, bmp, b"P6 50000 50000 255\n".to_vec()] {
            assert_eq!(decode(&bytes), Err(PictureError::TooLarge { width: 50_000, height: 50_000 }));
        }
    }

    #[test]
    fn a_header_with_an_endless_side_is_refused() {
        assert_eq!(decode(b"P6 1 100000 255\n"), Err(PictureError::TooLong { width: 1, height: 100_000 }));
    }

    /// The checksum of PNG chunks, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 })
        })
    }

    #[test]
    fn gray_of_more_than_eight_bits_is_distinguished_from_the_header() {
        let deep: Vec<String> = table().into_keys().filter(|name| has_deep_gray(&odd(name))).collect();
        for name in
            ["grey_16_bits.png", "pnm_grey_1000.pgm", "pnm_grey_256_text.pgm", "tiff_float.tif", "tiff_16_bits.tif"]
        {
            assert!(deep.iter().any(|deep| deep == name), "{name}");
        }
        for name in ["rgb_16_bits.png", "pnm_1000.ppm", "pnm_grey_255.pgm", "tiff_little_rgb_16.tif", "tiff_grey.tif"] {
            assert!(!deep.iter().any(|deep| deep == name), "{name}");
        }
    }

    #[test]
    fn the_name_of_a_file_says_nothing() {
        assert_eq!(sniff(&odd("jpeg_444.jpg")), Ok(Format::Jpeg));
        assert_eq!(decode(&odd("rgb.png")), decode(&odd("bmp.bmp")));
    }

    /// As [`decode`], but a panic goes through.
    fn decode_unguarded(bytes: &[u8]) {
        if let Ok(format) = sniff(bytes) {
            let _ = read(format, bytes);
        }
        orientation(bytes);
        has_deep_gray(bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn any_bytes_are_a_picture_or_an_error(head in 0..10usize, tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let heads: [&[u8]; 10] = [
                b"", b"\xFF\xD8\xFF", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"BM", b"P5 ", b"P3 9 9 9 ",
                b"RIFF\0\0\0\0WEBPVP8X",
            ];
            decode_unguarded(&[heads[head], &tail].concat());
        }

        #[test]
        fn a_damaged_picture_is_a_picture_or_an_error(
            file in any::<prop::sample::Index>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            end in any::<prop::sample::Index>(),
            is_cut: bool,
        ) {
            static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| table().into_keys().collect());
            let mut bytes = odd(&NAMES[file.index(NAMES.len())]);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(if is_cut { end.index(bytes.len()) } else { bytes.len() });
            decode_unguarded(&bytes);
        }
    }
}
