//! GIF, of which the first frame counts, on the canvas that Pillow gives it: everything outside the frame has the
//! transparent color, without one the palette's first.

use image::RgbImage;
use weezl::{BitOrder, decode::Decoder};

use super::{PictureError, Pixels, broken, check_size, gray_ramp, lzw, palette};

const TRUNCATED: PictureError = PictureError::Truncated("GIF");

/// The first frame in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let mut reader = Reader { rest: bytes.get(6..).ok_or(TRUNCATED)? };
    let canvas = (reader.half()?, reader.half()?);
    let flags = reader.take(3)?[0];
    let global = reader.palette(flags)?;
    let mut transparent = None;
    loop {
        match reader.take(1)? {
            b"!" => {
                let is_control = reader.take(1)? == [0xF9];
                if let (true, Some([flags, _, _, index, ..])) = (is_control, reader.block()?)
                    && flags & 1 == 1
                {
                    transparent = Some(*index);
                }
                while reader.block()?.is_some() {}
            }
            b"," => break,
            b";" => return Err(broken("GIF", "it has no frame")),
            _ => {}
        }
    }
    let (left, top) = (reader.half()?, reader.half()?);
    let (across, down) = (reader.half()?, reader.half()?);
    let flags = reader.take(1)?[0];
    let local = reader.palette(flags)?;
    // A frame that is larger than the canvas enlarges it.
    let (width, height) = (canvas.0.max(left + across), canvas.1.max(top + down));
    check_size(width as u64, height as u64)?;
    check_size(across as u64, down as u64)?;
    let colors = match (local, global) {
        // Pillow takes a ramp of grays for no palette at all, and then looks at the palette of all frames.
        (Some(local), Some(global)) if is_gray_ramp(local) => global,
        (local, global) => local.or(global).unwrap_or_default(),
    };
    let colors = if is_gray_ramp(colors) { gray_ramp() } else { palette(colors.as_chunks().0.iter().copied()) };

    let indices = reader.indices(across * down)?;
    let mut pixels = Pixels::new(width, height);
    pixels.fill(colors[usize::from(transparent.unwrap_or(0))]);
    let in_order: Vec<usize> = match flags & 0x40 {
        0 => (0..down).collect(),
        _ => {
            [(0, 8), (4, 8), (2, 4), (1, 2)].into_iter().flat_map(|(first, step)| (first..down).step_by(step)).collect()
        }
    };
    for (row, y) in indices.chunks_exact(across).zip(in_order) {
        let places = &mut pixels.row(top + y)[left..left + across];
        places.iter_mut().zip(row).for_each(|(place, index)| *place = colors[usize::from(*index)]);
    }
    Ok(pixels.into())
}

fn is_gray_ramp(colors: &[u8]) -> bool {
    colors.chunks_exact(3).enumerate().all(|(index, color)| color.iter().all(|value| usize::from(*value) == index))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PictureError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    fn half(&mut self) -> Result<usize, PictureError> {
        self.take(2).map(|two| usize::from(two[0]) | usize::from(two[1]) << 8)
    }

    /// The palette that `flags` announce.
    fn palette(&mut self, flags: u8) -> Result<Option<&'a [u8]>, PictureError> {
        if flags & 0x80 == 0 { Ok(None) } else { self.take(3 << ((flags & 7) + 1)).map(Some) }
    }

    /// The next block; `None` at the end of a row of them.
    fn block(&mut self) -> Result<Option<&'a [u8]>, PictureError> {
        let size = usize::from(self.take(1)?[0]);
        if size == 0 { Ok(None) } else { self.take(size).map(Some) }
    }

    /// `count` indices.
    fn indices(&mut self, count: usize) -> Result<Vec<u8>, PictureError> {
        let bits = self.take(1)?[0];
        if !(1..=8).contains(&bits) {
            return Err(broken("GIF", format_args!("codes for {bits} bits are not supported")));
        }
        let mut codes = Vec::new();
        // A file may end before its last block does.
        while let Ok(Some(block)) = self.block() {
            codes.extend(block);
        }
        let indices = lzw(Decoder::new(BitOrder::Lsb, bits), &codes, count).map_err(|cause| broken("GIF", cause))?;
        if indices.len() < count { Err(TRUNCATED) } else { Ok(indices) }
    }
}
