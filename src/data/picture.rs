//! Bytes → an 8-bit RGB picture, as Pillow's `convert("RGB")` reads them, turned as their EXIF data says.
//!
//! What a file is, is told by its content, never by its name. Alpha is dropped, palettes are expanded, of an animation
//! the first frame counts (what lies outside a GIF's first frame is black; Pillow takes the palette's first colour). JPEG goes through libjpeg-turbo's decoder (the slow integer transform, fancy upsampling),
//! the only one that agrees with Pillow to the bit. This module does not know where bytes come from.

use std::cell::Cell;
use std::io::{self, BufRead, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageReader, Limits, RgbImage};

/// The most pixels that a picture may have: Pillow's limit against decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The longest side that a picture may have: that of JPEG files.
pub const MAX_SIDE: u64 = 65_535;

/// The most memory that a decoder other than JPEG's may take: 16 bits of four channels, and some.
const MAX_MEMORY: u64 = 2 << 30;

/// The bytes at the beginning of a file that [`is_picture`] looks at.
pub const HEAD: usize = 32;

/// Whether a file that begins with `head` says that it is a picture of a format that is read.
pub fn is_picture(head: &[u8]) -> bool {
    sniff(head).is_ok()
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
    /// The bytes end before the picture does.
    #[error("the {0} file is truncated")]
    Truncated(&'static str),
    /// The header asks for more pixels than are allowed.
    #[error("{width} × {height} pixels are more than the limit of {MAX_PIXELS}")]
    TooLarge {
        /// Pixels across.
        width: u64,
        /// Pixels down.
        height: u64,
    },
    /// The header asks for a side that is longer than allowed.
    #[error("{width} × {height} pixels: a side is longer than the limit of {MAX_SIDE}")]
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

/// The picture in `bytes`, turned as its EXIF data says.
///
/// # Errors
/// See [`PictureError`]; no allocation is made for a picture that is too large.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let picture = decode_unturned(bytes)?;
    Ok(match orientation(bytes) {
        Orientation::NoTransforms => picture,
        turn => {
            let mut picture = DynamicImage::ImageRgb8(picture);
            picture.apply_orientation(turn);
            picture.into_rgb8()
        }
    })
}

/// The picture in `bytes` as it is stored, its EXIF orientation ignored.
///
/// # Errors
/// As [`decode`].
pub fn decode_unturned(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let format = sniff(bytes)?;
    // libjpeg reports errors by unwinding; of the other decoders none is known to panic, but a file must never end us.
    catch_unwind(AssertUnwindSafe(|| match format {
        Format::Jpeg => decode_jpeg(bytes),
        Format::Other(format, name) => decode_other(bytes, format, name),
    }))
    .unwrap_or_else(|panic| {
        let cause = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(broken(format.name(), cause.unwrap_or("the decoder gave up").trim_start_matches("libjpeg fatal error: ")))
    })
}

/// How the picture in `bytes` is to be turned, by its EXIF data; not at all when there are none or they are broken.
pub fn orientation(bytes: &[u8]) -> Orientation {
    orientation_of(&mut Cursor::new(bytes))
}

/// As [`orientation`], reading no more of a file than needed.
pub fn orientation_of(reader: &mut (impl BufRead + io::Seek)) -> Orientation {
    let exif = catch_unwind(AssertUnwindSafe(|| {
        let read = exif::Reader::new().continue_on_error(true).read_from_container(reader);
        read.or_else(|error| error.distill_partial_result(|_| ())).ok()
    }));
    let value = exif.ok().flatten().and_then(|exif| {
        exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY).and_then(|field| field.value.get_uint(0))
    });
    value
        .and_then(|value| u8::try_from(value).ok())
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

/// `picture` as a PNG file, without loss.
pub fn encode_png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .expect("memory takes every byte, and a picture has as many as it says");
    bytes
}

#[derive(Clone, Copy)]
enum Format {
    Jpeg,
    Other(image::ImageFormat, &'static str),
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Other(_, name) => name,
        }
    }
}

/// The format that the first bytes announce.
fn sniff(bytes: &[u8]) -> Result<Format, PictureError> {
    use image::ImageFormat as F;
    let starts = |prefix: &[u8]| bytes.starts_with(prefix);
    let text = bytes.trim_ascii_start();
    match bytes {
        [] => Err(PictureError::Empty),
        [0xFF, 0xD8, 0xFF, ..] => Ok(Format::Jpeg),
        _ if starts(b"\x89PNG\r\n\x1a\n") => Ok(Format::Other(F::Png, "PNG")),
        _ if starts(b"GIF87a") || starts(b"GIF89a") => Ok(Format::Other(F::Gif, "GIF")),
        _ if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => Ok(Format::Other(F::WebP, "WebP")),
        _ if starts(b"BM") => Ok(Format::Other(F::Bmp, "BMP")),
        _ if starts(b"II*\0") || starts(b"MM\0*") => Ok(Format::Other(F::Tiff, "TIFF")),
        [b'P', b'1'..=b'6', space, ..] if space.is_ascii_whitespace() => Ok(Format::Other(F::Pnm, "PNM")),
        _ => Err(PictureError::Unknown(match bytes.get(4..8) {
            Some(b"ftyp") => "HEIF, AVIF and video files are not read; convert it to JPEG or PNG",
            _ if starts(b"version https://git-lfs") => "a Git LFS pointer; fetch the file itself with `git lfs pull`",
            _ if starts(b"PK") => "an archive; unpack it",
            _ if text.starts_with(b"<") => "a page or a drawing in XML",
            _ => "its content is none of JPEG, PNG, GIF, WebP, BMP, TIFF, PNM",
        })),
    }
}

fn broken(format: &'static str, cause: impl ToString) -> PictureError {
    PictureError::Broken { format, cause: cause.to_string() }
}

fn check_size(width: u64, height: u64) -> Result<(), PictureError> {
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    if width.max(height) > MAX_SIDE {
        return Err(PictureError::TooLong { width, height });
    }
    Ok(())
}

/// Bytes that remember whether more were asked for than there are: libjpeg fills what is missing with grey.
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

fn decode_jpeg(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let exhausted = Cell::new(false);
    let read = catch_unwind(AssertUnwindSafe(|| read_jpeg(Counted { rest: bytes, exhausted: &exhausted })));
    if exhausted.get() && !matches!(read, Ok(Err(PictureError::TooLarge { .. } | PictureError::TooLong { .. }))) {
        return Err(PictureError::Truncated("JPEG"));
    }
    read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn read_jpeg(source: Counted<'_>) -> Result<RgbImage, PictureError> {
    use mozjpeg::{ColorSpace, DctMethod, Decompress};
    let fail = |cause: io::Error| broken("JPEG", cause);
    let mut decoder = Decompress::new_reader(source).map_err(fail)?;
    let (width, height) = decoder.size();
    check_size(width as u64, height as u64)?;
    decoder.dct_method(DctMethod::IntegerSlow);
    decoder.do_fancy_upsampling(true);
    let four_inks = matches!(decoder.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK);
    let pixels = if four_inks {
        let inks: Vec<[u8; 4]> =
            decoder.to_colorspace(ColorSpace::JCS_CMYK).map_err(fail)?.read_scanlines().map_err(fail)?;
        inks.into_iter().flat_map(without_inks).collect()
    } else {
        decoder.rgb().map_err(fail)?.read_scanlines().map_err(fail)?
    };
    RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(|| broken("JPEG", "rows are missing"))
}

/// Pillow's arithmetic for CMYK, whose JPEG files it takes to be inverted, as Adobe writes them.
fn without_inks([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let product = u32::from(255 - ink) * u32::from(black) + 128;
        black.saturating_sub((((product >> 8) + product) >> 8) as u8)
    })
}

fn decode_other(bytes: &[u8], format: image::ImageFormat, name: &'static str) -> Result<RgbImage, PictureError> {
    let fail = |error: ImageError| match error {
        ImageError::IoError(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => PictureError::Truncated(name),
        ImageError::Decoding(error) => {
            broken(name, std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
        }
        other => broken(name, other),
    };
    // A PNG file begins with its size; its decoder tells it only once pixels have begun.
    if let (image::ImageFormat::Png, Some(&[a, b, c, d, e, f, g, h])) = (format, bytes.get(16..24)) {
        check_size(u32::from_be_bytes([a, b, c, d]).into(), u32::from_be_bytes([e, f, g, h]).into())?;
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_MEMORY);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(fail)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let stored = decoder.original_color_type();
    DynamicImage::from_decoder(decoder).map(|picture| narrow(picture, stored)).map_err(fail)
}

/// Drops alpha, and bits beyond eight as Pillow does: of colours the low ones; grey of 16 bits, which Pillow holds as
/// whole numbers, is cut off at 255.
fn narrow(picture: DynamicImage, stored: ExtendedColorType) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let grey = |value: u16| if stored == ExtendedColorType::L16 { value.min(255) as u8 } else { (value >> 8) as u8 };
    let high = |value: u16| (value >> 8) as u8;
    let pixels: Vec<u8> = match picture {
        DynamicImage::ImageLuma8(picture) => picture.pixels().flat_map(|pixel| [pixel.0[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(picture) => picture.pixels().flat_map(|pixel| [pixel.0[0]; 3]).collect(),
        DynamicImage::ImageRgba8(picture) => {
            picture.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]).collect()
        }
        DynamicImage::ImageLuma16(picture) => picture.pixels().flat_map(|pixel| [grey(pixel.0[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(picture) => picture.pixels().flat_map(|pixel| [grey(pixel.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(picture) => picture.pixels().flat_map(|pixel| pixel.0.map(high)).collect(),
        DynamicImage::ImageRgba16(picture) => {
            picture.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]].map(high)).collect()
        }
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, pixels).expect("three bytes a pixel")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

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

    #[test]
    fn odd_files_have_pillows_pixels() {
        let table: BTreeMap<String, Digests> =
            serde_json::from_slice(&std::fs::read(reference().join("odd.json")).unwrap()).unwrap();
        let wrong: Vec<String> = table
            .iter()
            .filter(|(name, digests)| {
                let stored = pixels(&decode_unturned(&odd(name)).unwrap());
                let turned = pixels(&decode(&odd(name)).unwrap());
                turned != digests.turned || digests.stored.as_ref().is_some_and(|expected| stored != *expected)
            })
            .map(|(name, _)| name.clone())
            .collect();
        assert!(table.len() > 40 && wrong.is_empty(), "{wrong:?}");
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
        assert_eq!(cause(b"hello"), "not a picture: its content is none of JPEG, PNG, GIF, WebP, BMP, TIFF, PNM");
        assert!(cause(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        assert!(cause(b"\0\0\0\x18ftypheic").contains("HEIF"));
        assert!(cause(b"\xFF\xD8\xFF").contains("truncated"));
        assert!(cause(b"\x89PNG\r\n\x1a\n").contains("truncated"));
    }

    #[test]
    fn a_truncated_file_is_no_picture() {
        for entry in std::fs::read_dir(reference().join("odd")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let half = decode(&bytes[..bytes.len() / 2]);
            // Half of an animation holds its first frame.
            let whole = path.display().to_string().contains("animated");
            assert!(half.is_err() || whole, "{}", path.display());
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
    fn the_name_of_a_file_says_nothing() {
        assert!(matches!(sniff(&odd("jpeg_444.jpg")), Ok(Format::Jpeg)));
        assert_eq!(decode(&odd("rgb.png")), decode(&odd("bmp.bmp")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_picture_or_an_error(head in 0..6usize, tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let heads: [&[u8]; 6] = [b"", b"\xFF\xD8\xFF", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM"];
            let _ = decode(&[heads[head], &tail].concat());
        }

        #[test]
        fn a_damaged_picture_is_a_picture_or_an_error(file in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let names = ["jpeg_420.jpg", "jpeg_progressive.jpg", "jpeg_orientation_6.jpg", "palette.png", "gif_animated.gif", "webp_lossy.webp", "webp_lossless.webp", "tiff_deflate.tif", "bmp_palette.bmp", "pnm.ppm"];
            let mut bytes = odd(names[file.index(names.len())]);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes);
        }
    }
}
