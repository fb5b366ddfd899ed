//! WebP, of which the first frame counts: everything outside it is black.

use std::borrow::Cow;
use std::io::Cursor;

use image::RgbImage;
use image_webp::{DecodingError, WebPDecoder};

use super::orientation::Metadata;
use super::{MAX_MEMORY, PictureError, broken, check_size};

/// The first frame in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let length = bytes.get(4..8).map_or(0, |length| u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
    if bytes.len() < (length as usize).saturating_add(8) {
        return Err(PictureError::Truncated("WebP"));
    }
    let canvas = decoder(bytes)?;
    if !canvas.is_animated() {
        return still(canvas);
    }
    let (width, height) = canvas.dimensions();
    let (_, frame) = chunks(bytes).find(|(name, _)| name == b"ANMF").ok_or(PictureError::Truncated("WebP"))?;
    let (head, data) = frame.split_at_checked(16).ok_or(PictureError::Truncated("WebP"))?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], 0]);
    let (left, top) = (2 * number(0), 2 * number(3));
    let picture = still(decoder(&file_of(head, data))?)?;
    if left + picture.width() > width || top + picture.height() > height {
        return Err(broken("WebP", "its first frame is larger than its canvas"));
    }
    let mut whole = RgbImage::new(width, height);
    image::imageops::replace(&mut whole, &picture, left.into(), top.into());
    Ok(whole)
}

/// A frame as a file of its own.
fn file_of(head: &[u8], data: &[u8]) -> Vec<u8> {
    const ALPHA: u8 = 0x10;
    let mut file = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0".to_vec();
    file.extend([if data.starts_with(b"ALPH") { ALPHA } else { 0 }, 0, 0, 0]);
    file.extend(&head[6..12]);
    file.extend(data);
    let length = (file.len() - 8) as u32;
    file[4..8].copy_from_slice(&length.to_le_bytes());
    file
}

fn decoder(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, PictureError> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(fail)?;
    decoder.set_memory_limit(MAX_MEMORY);
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    Ok(decoder)
}

fn still(mut decoder: WebPDecoder<Cursor<&[u8]>>) -> Result<RgbImage, PictureError> {
    let (width, height) = decoder.dimensions();
    let samples = if decoder.has_alpha() { 4 } else { 3 };
    let mut pixels = vec![0; width as usize * height as usize * samples];
    decoder.read_image(&mut pixels).map_err(fail)?;
    if decoder.has_alpha() {
        pixels = pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    }
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| broken("WebP", "rows are missing"))
}

fn fail(error: DecodingError) -> PictureError {
    match error {
        DecodingError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated("WebP")
        }
        other => broken("WebP", other),
    }
}

/// EXIF and XMP data, if the header's flags announce them.
pub fn metadata(bytes: &[u8]) -> Metadata<'_> {
    const EXIF: u8 = 0x08;
    const XMP: u8 = 0x04;
    let mut metadata = Metadata::default();
    let mut flags = 0;
    for (name, data) in chunks(bytes) {
        match &name {
            b"VP8X" => flags = data.first().copied().unwrap_or(0),
            b"EXIF" if flags & EXIF != 0 && metadata.exif.is_none() => metadata.exif = Some(Cow::from(data)),
            b"XMP " if flags & XMP != 0 && metadata.xmp.is_none() => metadata.xmp = Some(Cow::from(data)),
            _ => {}
        }
    }
    metadata
}

/// The chunks of a WebP file with their names, as far as the file goes.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(12..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, behind) = rest.split_first_chunk()?;
        let (length, behind) = behind.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let data = behind.get(..length)?;
        rest = behind.get(length + length % 2..).unwrap_or_default();
        Some((*name, data))
    })
}
