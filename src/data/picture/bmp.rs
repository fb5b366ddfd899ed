//! BMP, and DIB: the same without the file's header. The layouts that Pillow reads.

use image::RgbImage;

use super::{PictureError, Pixels, broken, check_size, gray_ramp, palette, unpacked};

const TRUNCATED: PictureError = PictureError::Truncated("BMP");

/// The picture in `bytes`, of either form.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let (start, offset) = if bytes.starts_with(b"BM") { (14, word(bytes, 10)? as usize) } else { (0, 0) };
    let header = Header::read(bytes, start)?;
    check_size(header.width, header.height)?;
    let mut at = start + header.size;
    if header.compression == Compression::Masks && header.size == 40 {
        at += 12;
    }
    let layout = Layout::of(&header, bytes, start)?;
    let mut colors = gray_ramp();
    if header.bits <= 8 {
        let entry: usize = if header.size == 12 { 3 } else { 4 };
        let all = bytes.get(at..at.saturating_add(entry.saturating_mul(header.colors))).ok_or(TRUNCATED)?;
        let listed = || all.chunks_exact(entry).map(|color| [color[2], color[1], color[0]]);
        if !listed().zip(gray_ramp()).all(|(color, gray)| color == gray) {
            colors = palette(listed());
        }
        at += all.len();
    }
    let data = bytes.get(if offset > 0 { offset } else { at }..).ok_or(TRUNCATED)?;

    let (width, height) = (header.width as usize, header.height as usize);
    let mut pixels = Pixels::new(width, height);
    let place = |y: usize| if header.top_down { y } else { height - 1 - y };
    if let Compression::Runs { half_bytes } = header.compression {
        let indices = runs(data, bytes.len() - data.len(), width, height, half_bytes)?;
        for (y, row) in indices.chunks_exact(width).enumerate() {
            let places = pixels.row(place(y)).iter_mut();
            places.zip(row).for_each(|(place, index)| *place = colors[usize::from(*index)]);
        }
        return Ok(pixels.into());
    }
    let used = (width * usize::from(header.bits)).div_ceil(8);
    let stride = used.next_multiple_of(4);
    for y in 0..height {
        // The last row may lack its padding.
        let row = data.get(y * stride..y * stride + used).ok_or(TRUNCATED)?;
        layout.read(row, header.bits, &colors, pixels.row(place(y)));
    }
    Ok(pixels.into())
}

/// Whether `head` is the beginning of a DIB file. Its first four bytes occur in other files, too, so more of it is
/// checked.
pub fn is_dib(head: &[u8]) -> bool {
    let Some(size @ (12 | 40 | 52 | 56 | 64 | 108 | 124)) = word(head, 0).ok() else { return false };
    let planes_at = if size == 12 { 8 } else { 12 };
    let (planes, bits) = (half(head, planes_at), half(head, planes_at + 2));
    planes == Ok(1) && matches!(bits, Ok(1 | 4 | 8 | 16 | 24 | 32))
}

fn half(bytes: &[u8], at: usize) -> Result<u16, PictureError> {
    let two = bytes.get(at..at.saturating_add(2)).ok_or(TRUNCATED)?;
    Ok(u16::from_le_bytes([two[0], two[1]]))
}

fn word(bytes: &[u8], at: usize) -> Result<u32, PictureError> {
    let four = bytes.get(at..at.saturating_add(4)).ok_or(TRUNCATED)?;
    Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Runs { half_bytes: bool },
    Masks,
}

struct Header {
    size: usize,
    width: u64,
    height: u64,
    top_down: bool,
    bits: u8,
    compression: Compression,
    colors: usize,
}

impl Header {
    fn read(bytes: &[u8], start: usize) -> Result<Self, PictureError> {
        let size = word(bytes, start)? as usize;
        let bits = half(bytes, start + if size == 12 { 10 } else { 14 })?;
        let bits = match bits {
            1 | 4 | 8 | 16 | 24 | 32 => bits as u8,
            other => return Err(broken("BMP", format_args!("pixels of {other} bits are not supported"))),
        };
        if size == 12 {
            let (width, height) = (half(bytes, start + 4)?.into(), half(bytes, start + 6)?.into());
            let (compression, colors) = (Compression::None, 1 << bits.min(16));
            return Ok(Self { size, width, height, top_down: false, bits, compression, colors });
        }
        if !matches!(size, 40 | 52 | 56 | 64 | 108 | 124) {
            return Err(broken("BMP", format_args!("a header of {size} bytes is not supported")));
        }
        let height = word(bytes, start + 8)? as i32;
        let compression = match word(bytes, start + 16)? {
            0 => Compression::None,
            1 if bits == 8 => Compression::Runs { half_bytes: false },
            2 if bits == 4 => Compression::Runs { half_bytes: true },
            3 => Compression::Masks,
            other => return Err(broken("BMP", format_args!("compression {other} of {bits} bits is not supported"))),
        };
        let colors = match word(bytes, start + 32)? {
            0 => 1 << bits.min(16),
            colors => colors as usize,
        };
        let (width, height, top_down) = (word(bytes, start + 4)?.into(), height.unsigned_abs().into(), height < 0);
        Ok(Self { size, width, height, top_down, bits, compression, colors })
    }
}

/// Where the colors of a pixel are.
enum Layout {
    Indices,
    /// Red, green and blue: how far to shift right, and the bits that remain.
    Fields([(u32, u32); 3]),
    /// The byte of red, green and blue.
    Bytes([usize; 3]),
}

impl Layout {
    fn of(header: &Header, bytes: &[u8], start: usize) -> Result<Self, PictureError> {
        const FIFTEEN: Layout = Layout::Fields([(10, 31), (5, 31), (0, 31)]);
        let masks = || -> Result<[u32; 4], PictureError> {
            let at = start + 40;
            let alpha = if header.size >= 56 { word(bytes, at + 12)? } else { 0 };
            Ok([word(bytes, at)?, word(bytes, at + 4)?, word(bytes, at + 8)?, alpha])
        };
        match (header.compression, header.bits) {
            (_, ..=8) => Ok(Self::Indices),
            (Compression::Masks, bits) => match (bits, masks()?) {
                (16, [0xF800, 0x7E0, 0x1F, _]) => Ok(Self::Fields([(11, 31), (5, 63), (0, 31)])),
                (16, [0x7C00, 0x3E0, 0x1F, _]) => Ok(FIFTEEN),
                (24, [0xFF_0000, 0xFF00, 0xFF, _]) => Ok(Self::Bytes([2, 1, 0])),
                (32, [0xFF_0000, 0xFF00, 0xFF, 0 | 0xFF00_0000] | [0, 0, 0, 0]) => Ok(Self::Bytes([2, 1, 0])),
                (32, [0xFF00_0000, 0xFF_0000, 0xFF00, 0 | 0xFF]) => Ok(Self::Bytes([3, 2, 1])),
                (32, [0xFF00_0000, 0xFF00, 0xFF, 0 | 0xFF_0000]) => Ok(Self::Bytes([3, 1, 0])),
                (32, [0xFF, 0xFF00, 0xFF_0000, 0xFF00_0000]) => Ok(Self::Bytes([0, 1, 2])),
                (_, [red, green, blue, _]) => {
                    Err(broken("BMP", format_args!("the masks {red:#x}, {green:#x}, {blue:#x} are not supported")))
                }
            },
            (_, 16) => Ok(FIFTEEN),
            _ => Ok(Self::Bytes([2, 1, 0])),
        }
    }

    fn read(&self, row: &[u8], bits: u8, palette: &[[u8; 3]], places: &mut [[u8; 3]]) {
        match self {
            Self::Indices => {
                let indices = unpacked(row, bits);
                places.iter_mut().zip(indices).for_each(|(place, index)| *place = palette[usize::from(index)]);
            }
            Self::Fields(fields) => {
                let pixels = row.chunks_exact(2).map(|two| u32::from(u16::from_le_bytes([two[0], two[1]])));
                let color = |pixel: u32| fields.map(|(shift, most)| ((pixel >> shift & most) * 255 / most) as u8);
                places.iter_mut().zip(pixels).for_each(|(place, pixel)| *place = color(pixel));
            }
            Self::Bytes(at) => {
                let pixels = row.chunks_exact(usize::from(bits / 8));
                places.iter_mut().zip(pixels).for_each(|(place, pixel)| *place = at.map(|at| pixel[at]));
            }
        }
    }
}

/// The indices of a picture in runs, from the first row stored. `before`: where in the file `data` begin, for
/// alignment.
fn runs(data: &[u8], before: usize, width: usize, height: usize, half_bytes: bool) -> Result<Vec<u8>, PictureError> {
    let whole = width * height;
    let mut indices: Vec<u8> = Vec::new();
    let (mut at, mut x) = (0, 0);
    while indices.len() < whole {
        let Some(&[count, value]) = data.get(at..at + 2) else { break };
        at += 2;
        match (count, value) {
            (1.., _) => {
                // What would reach beyond the row is left out.
                let count = usize::from(count).min(width.saturating_sub(x));
                let pair = if half_bytes { [value >> 4, value & 15] } else { [value; 2] };
                indices.extend(pair.iter().cycle().take(count));
                x += count;
            }
            (0, 0) => {
                indices.resize(indices.len().next_multiple_of(width), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                let Some(&[right, up]) = data.get(at..at + 2) else { break };
                at += 2;
                let ahead = usize::from(right) + usize::from(up) * width;
                indices.resize((indices.len() + ahead).min(whole), 0);
                x = indices.len() % width;
            }
            (0, count) => {
                let wanted = usize::from(count).min(whole - indices.len());
                let size = if half_bytes { wanted.div_ceil(2) } else { wanted };
                let literal = data.get(at..at + size).ok_or(TRUNCATED)?;
                at += size;
                if half_bytes {
                    indices.extend(unpacked(literal, 4).take(wanted));
                } else {
                    indices.extend(literal);
                }
                x += usize::from(count);
                at += (before + at) % 2;
            }
        }
    }
    indices.truncate(whole);
    if indices.len() < whole { Err(TRUNCATED) } else { Ok(indices) }
}
