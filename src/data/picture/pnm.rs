//! PBM, PGM and PPM, as text and binary, with any greatest value, and PFM in gray.

use image::RgbImage;

use super::{PictureError, Pixels, broken, check_size, clipped, clipped_real, unpacked};

/// The picture in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let mut header = Header { bytes, at: 2 };
    let kind = bytes.get(1).copied().unwrap_or_default();
    let (width, height) = (header.number()?, header.number()?);
    check_size(width, height)?;
    let (width, height) = (width as usize, height as usize);
    let mut pixels = Pixels::new(width, height);
    match kind {
        b'1' => bits_as_text(header.rest(), &mut pixels)?,
        b'4' => bits(header.rest(), &mut pixels)?,
        b'f' => reals(&mut header, &mut pixels)?,
        _ => {
            let most = header.number()?;
            let most = u16::try_from(most).ok().filter(|most| *most > 0);
            let most = most.ok_or_else(|| broken("PNM", "the maximum value is not between 1 and 65535"))?;
            let samples = if matches!(kind, b'2' | b'5') { 1 } else { 3 };
            // Pillow takes gray of more than eight bits for integers, and cuts those off at 255.
            let scale = scale(most, samples == 1 && most > 255);
            let text = matches!(kind, b'2' | b'3');
            let mut values = Values { rest: header.rest(), most, text };
            for y in 0..height {
                for place in pixels.row(y) {
                    *place = if samples == 1 {
                        [scale[usize::from(values.next()?)]; 3]
                    } else {
                        [
                            scale[usize::from(values.next()?)],
                            scale[usize::from(values.next()?)],
                            scale[usize::from(values.next()?)],
                        ]
                    };
                }
            }
        }
    }
    Ok(pixels.into())
}

/// Whether the header tells of gray of more than eight bits, or of real numbers.
pub fn has_deep_gray(bytes: &[u8]) -> bool {
    let mut header = Header { bytes, at: 2 };
    match bytes.get(1) {
        Some(b'f') => true,
        Some(b'2' | b'5') => (0..3).map_while(|_| header.number().ok()).nth(2).is_some_and(|most| most > 255),
        _ => false,
    }
}

/// What each value is in eight bits. Rounds halves to even, as Python does.
fn scale(most: u16, whole_numbers: bool) -> Vec<u8> {
    let to = if whole_numbers { 65_535.0 } else { 255.0 };
    let scaled = |value: u16| (f64::from(value) / f64::from(most) * to).round_ties_even().min(to) as u16;
    (0..=u16::MAX).map(|value| clipped(scaled(value))).collect()
}

struct Header<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Header<'a> {
    /// The next word, and the one space behind it.
    fn word(&mut self) -> Result<String, PictureError> {
        let mut word = String::new();
        loop {
            let byte = *self.bytes.get(self.at).ok_or(PictureError::Truncated("PNM"))?;
            self.at += 1;
            match byte {
                b'#' => {
                    let rest = self.bytes[self.at..].iter();
                    self.at += rest.take_while(|byte| !matches!(byte, b'\n' | b'\r')).count() + 1;
                }
                byte if is_space(byte) && word.is_empty() => {}
                byte if is_space(byte) => return Ok(word),
                byte if word.len() < 10 => word.push(char::from(byte)),
                _ => return Err(broken("PNM", "a number in the header is too long")),
            }
        }
    }

    fn number(&mut self) -> Result<u64, PictureError> {
        let word = self.word()?;
        word.parse().map_err(|_| broken("PNM", format_args!("`{}` is not a number", word.escape_default())))
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0B
}

/// The values of a picture, each checked.
struct Values<'a> {
    rest: &'a [u8],
    most: u16,
    text: bool,
}

impl Values<'_> {
    fn next(&mut self) -> Result<u16, PictureError> {
        let missing = PictureError::Truncated("PNM");
        if !self.text {
            let (value, size) = match self.rest {
                [value, ..] if self.most < 256 => (u16::from(*value), 1),
                [high, low, ..] if self.most > 255 => (u16::from_be_bytes([*high, *low]), 2),
                _ => return Err(missing),
            };
            self.rest = &self.rest[size..];
            return Ok(value);
        }
        self.rest = skip_blanks(self.rest);
        let end = self.rest.iter().position(|byte| is_space(*byte) || *byte == b'#').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if word.is_empty() {
            return Err(missing);
        }
        let value = std::str::from_utf8(word).ok().and_then(|word| word.parse::<u16>().ok());
        value.filter(|value| *value <= self.most).ok_or_else(|| {
            let word = String::from_utf8_lossy(&word[..word.len().min(20)]).into_owned();
            broken("PNM", format_args!("`{}` is not a number up to {}", word.escape_default(), self.most))
        })
    }
}

/// Behind white space and comments.
fn skip_blanks(mut rest: &[u8]) -> &[u8] {
    loop {
        match rest {
            [byte, behind @ ..] if is_space(*byte) => rest = behind,
            [b'#', ..] => {
                let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
                rest = &rest[end..];
            }
            _ => return rest,
        }
    }
}

fn bits_as_text(mut rest: &[u8], pixels: &mut Pixels) -> Result<(), PictureError> {
    for place in pixels.all() {
        rest = skip_blanks(rest);
        let (digit, behind) = rest.split_first().ok_or(PictureError::Truncated("PNM"))?;
        *place = match digit {
            b'0' => [255; 3],
            b'1' => [0; 3],
            other => return Err(broken("PNM", format_args!("`{}` is not a bit", other.escape_ascii()))),
        };
        rest = behind;
    }
    Ok(())
}

fn bits(rest: &[u8], pixels: &mut Pixels) -> Result<(), PictureError> {
    let bytes = pixels.width().div_ceil(8);
    for y in 0..pixels.height() {
        let row = rest.get(y * bytes..(y + 1) * bytes).ok_or(PictureError::Truncated("PNM"))?;
        let places = pixels.row(y).iter_mut();
        places.zip(unpacked(row, 1)).for_each(|(place, bit)| *place = [255 * (1 - bit); 3]);
    }
    Ok(())
}

/// From the last row to the first; a negative scale tells that the least significant byte comes first.
fn reals(header: &mut Header<'_>, pixels: &mut Pixels) -> Result<(), PictureError> {
    let scale = header.word()?.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale != 0.0);
    let scale = scale.ok_or_else(|| broken("PNM", "the scale is not a number other than 0"))?;
    let (rest, bytes) = (header.rest(), 4 * pixels.width());
    let real = |four: [u8; 4]| if scale < 0.0 { f32::from_le_bytes(four) } else { f32::from_be_bytes(four) };
    for (below, y) in (0..pixels.height()).rev().enumerate() {
        let row = rest.get(below * bytes..(below + 1) * bytes).ok_or(PictureError::Truncated("PNM"))?;
        let values = row.as_chunks().0.iter().map(|four| [clipped_real(real(*four)); 3]);
        pixels.row(y).iter_mut().zip(values).for_each(|(place, value)| *place = value);
    }
    Ok(())
}
