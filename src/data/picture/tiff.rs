//! TIFF and BigTIFF, of which the first page counts: the layouts that Pillow reads, and its arithmetic.
//!
//! Compressed data that are luma and chroma go through libtiff's arithmetic, all other through Pillow's own.

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::RgbImage;
use ruzstd::decoding::StreamingDecoder;
use weezl::{BitOrder, decode::Decoder as LzwDecoder};

use super::directory::Directory;
use super::{PictureError, Pixels, broken, check_size, clipped_real, jpeg, lzw, palette, unpacked, without_inks};

const TRUNCATED: PictureError = PictureError::Truncated("TIFF");

fn unread(what: impl std::fmt::Display) -> PictureError {
    broken("TIFF", format_args!("{what} is not supported; convert it to PNG"))
}

/// The first page of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let directory = Directory::read(bytes).ok_or(TRUNCATED)?;
    let page = Page::read(&directory)?;
    let color = Color::read(&directory, &page)?;
    let parts = Parts::read(&directory, &page)?;
    let tables = directory.bytes(347).unwrap_or_default();

    let mut pixels = Pixels::new(page.width, page.height);
    // A picture of planes holds a part of each.
    let (planes, apart) = if page.planar { (color.needs(), 1) } else { (1, page.samples) };
    let mut numbers = vec![Vec::new(); planes];
    for down in 0..parts.down {
        for across in 0..parts.across {
            let (left, top) = (across * parts.width, down * parts.height);
            let height = if parts.tiled { parts.height } else { parts.height.min(page.height - top) };
            let rows: Vec<Rows> = (0..planes)
                .map(|plane| {
                    let index = (plane * parts.down + down) * parts.across + across;
                    let shape = Shape { width: parts.width, height, samples: apart };
                    read_part(&page, &color, shape, tables, parts.place(bytes, index)?)
                })
                .collect::<Result<_, _>>()?;
            let visible = parts.width.min(page.width - left);
            for y in 0..height.min(page.height - top) {
                rows.iter().zip(&mut numbers).for_each(|(rows, numbers)| rows.numbers(y, &page, numbers));
                let places = &mut pixels.row(top + y)[left..left + visible];
                let stride = rows[0].samples;
                for (x, place) in places.iter_mut().enumerate() {
                    let sample = |index: usize| {
                        if page.planar { numbers[index][x] } else { numbers[0][x * stride + index] }
                    };
                    *place = color.pixel(sample);
                }
            }
        }
    }
    Ok(pixels.into())
}

/// Whether the first page is gray that is cut off at 255.
pub fn has_deep_gray(bytes: &[u8]) -> bool {
    let color =
        Directory::read(bytes).and_then(|directory| Color::read(&directory, &Page::read(&directory).ok()?).ok());
    matches!(color, Some(Color::Clipped))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Unsigned,
    Signed,
    Real,
}

/// How a page's numbers are stored.
struct Page {
    width: usize,
    height: usize,
    compression: u64,
    photometric: u64,
    samples: usize,
    bits: u8,
    format: Format,
    extra: Vec<u64>,
    planar: bool,
    reversed: bool,
    predictor: u64,
    big_endian: bool,
}

impl Page {
    fn read(directory: &Directory<'_>) -> Result<Self, PictureError> {
        let (Some(width), Some(height)) = (directory.integer(256), directory.integer(257)) else {
            return Err(broken("TIFF", "its width or height is missing"));
        };
        check_size(width, height)?;
        let compression = directory.integer(259).unwrap_or(1);
        let photometric = directory.integer(262).unwrap_or(0);
        let samples = directory.integer(277).unwrap_or(1);
        let samples = usize::try_from(samples).ok().filter(|samples| (1..=6).contains(samples));
        let samples = samples.ok_or_else(|| unread("a number of samples other than 1 to 6"))?;
        let mut bits = directory.integers(258);
        bits.truncate(samples);
        if bits.iter().any(|other| *other != bits[0]) || !(bits.len() <= 1 || bits.len() == samples) {
            return Err(unread("samples of unequal sizes"));
        }
        let bits = bits.first().copied().unwrap_or(1);
        let formats = directory.integers(339);
        let format = match formats.first() {
            None | Some(1) => Format::Unsigned,
            Some(2) => Format::Signed,
            Some(3) => Format::Real,
            Some(other) => return Err(unread(format_args!("sample format {other}"))),
        };
        if formats.iter().any(|other| *other != formats[0]) {
            return Err(unread("samples of unequal formats"));
        }
        Ok(Self {
            width: width as usize,
            height: height as usize,
            compression,
            photometric,
            samples,
            bits: u8::try_from(bits).unwrap_or(0),
            format,
            extra: directory.integers(338),
            planar: directory.integer(284) == Some(2) && samples > 1,
            reversed: directory.integer(266) == Some(2),
            predictor: directory.integer(317).unwrap_or(1),
            big_endian: directory.big_endian,
        })
    }

    fn is_jpeg(&self) -> bool {
        self.compression == 7
    }
}

/// What the numbers of a pixel mean.
enum Color {
    /// Gray of at most eight bits: times `step`, from white when `inverted`.
    Gray {
        step: u8,
        inverted: bool,
    },
    /// Gray of more bits, or signed, or real: cut off at 0 and 255.
    Clipped,
    Indices(Box<[[u8; 3]; 256]>),
    /// Red, green and blue, `shift` bits more than eight; `premultiplied` by the fourth.
    Rgb {
        shift: u8,
        premultiplied: bool,
    },
    Inks {
        shift: u8,
    },
    /// Luma and chroma, as Pillow converts them.
    Ycc,
    /// Luma and chroma, as libtiff converts them: of so many columns and rows the chroma is one.
    SharedYcc {
        across: usize,
        down: usize,
        tables: Box<YccTables>,
    },
}

impl Color {
    fn read(directory: &Directory<'_>, page: &Page) -> Result<Self, PictureError> {
        use Format::{Real, Signed, Unsigned};
        let extra = page.extra.as_slice();
        let shift = page.bits.saturating_sub(8);
        let color = match (page.photometric, page.format, page.bits, page.samples) {
            (0 | 1, Unsigned, 1 | 2 | 4 | 8, 1) => {
                let step = 255 / ((1u16 << page.bits) - 1) as u8;
                Self::Gray { step, inverted: page.photometric == 0 }
            }
            (1, Unsigned, 8, 2) if matches!(extra, [0 | 2]) => Self::Gray { step: 1, inverted: false },
            (1, Signed, 8, 1) => Self::Gray { step: 1, inverted: false },
            // Pillow does not turn white and black around, and reads some of these in one byte order alone.
            (1, Unsigned, 12, 1) | (0 | 1, Unsigned, 16, 1) | (0 | 1, Real, 32, 1) => Self::Clipped,
            (1, Signed, 16 | 32, 1) | (1, Unsigned, 32, 1) => Self::Clipped,
            (3, Unsigned, 1 | 2 | 4, 1) | (3, Unsigned, 8, 1 | 2) => Self::Indices(colors(directory)?),
            (2, Unsigned, 8 | 16, 3..=6) if matches!(extra, [] | [0, ..] | [2, ..] | [999]) => {
                Self::Rgb { shift, premultiplied: false }
            }
            (2, Unsigned, 8 | 16, 4..=6) if extra.first() == Some(&1) => Self::Rgb { shift, premultiplied: true },
            (5, Unsigned, 8 | 16, 4..=6) => Self::Inks { shift },
            // libjpeg makes colors of them.
            (6, Unsigned, 8, 3) if page.is_jpeg() => Self::Rgb { shift, premultiplied: false },
            (6, Unsigned, 8, 3) => Self::ycc(directory, page)?,
            (8, ..) => return Err(unread("the Lab color space")),
            (photometric, _, bits, samples) => {
                let what = format_args!("{samples} samples of {bits} bits, photometric interpretation {photometric},");
                return Err(unread(what));
            }
        };
        Ok(color)
    }

    fn ycc(directory: &Directory<'_>, page: &Page) -> Result<Self, PictureError> {
        let sharing = directory.integers(530);
        let (across, down) = match *sharing {
            [across @ (1 | 2 | 4), down @ (1 | 2 | 4)] => (across as usize, down as usize),
            [] if page.compression == 1 => (1, 1),
            [] => (2, 2),
            _ => return Err(unread("this subsampling of chroma")),
        };
        if page.compression == 1 && (across, down) == (1, 1) {
            return Ok(Self::Ycc);
        }
        if page.planar {
            return Err(unread("subsampled chroma in separate planes"));
        }
        Ok(Self::SharedYcc { across, down, tables: Box::new(YccTables::read(directory)) })
    }

    /// How many samples of a pixel are looked at.
    fn needs(&self) -> usize {
        match self {
            Self::Gray { .. } | Self::Clipped | Self::Indices(_) => 1,
            Self::Rgb { premultiplied: false, .. } | Self::Ycc | Self::SharedYcc { .. } => 3,
            Self::Rgb { premultiplied: true, .. } | Self::Inks { .. } => 4,
        }
    }

    fn pixel(&self, sample: impl Fn(usize) -> f64) -> [u8; 3] {
        let byte = |index: usize| sample(index) as u8;
        let high = |index: usize, shift: u8| (sample(index) as u32 >> shift) as u8;
        match self {
            Self::Gray { step, inverted } => {
                let gray = byte(0).wrapping_mul(*step);
                [if *inverted { 255 - gray } else { gray }; 3]
            }
            Self::Clipped => [clipped_real(sample(0)); 3],
            Self::Indices(colors) => colors[usize::from(byte(0))],
            Self::Rgb { shift, premultiplied: false } => [0, 1, 2].map(|index| high(index, *shift)),
            Self::Rgb { shift, premultiplied: true } => {
                let alpha = u32::from(high(3, *shift));
                [0, 1, 2].map(|index| {
                    let value = u32::from(high(index, *shift));
                    (value * 255).checked_div(alpha).unwrap_or(0).min(255) as u8
                })
            }
            Self::Inks { shift } => without_inks([0, 1, 2, 3].map(|index| high(index, *shift))),
            Self::Ycc => from_ycc([byte(0), byte(1), byte(2)]),
            Self::SharedYcc { tables, .. } => tables.color([byte(0), byte(1), byte(2)]),
        }
    }
}

/// The colors of a palette.
fn colors(directory: &Directory<'_>) -> Result<Box<[[u8; 3]; 256]>, PictureError> {
    let map = directory.integers(320);
    let count = map.len() / 3;
    if count == 0 {
        return Err(broken("TIFF", "there is no palette"));
    }
    let byte = |at: usize| (map[at] / 256) as u8;
    let entry = |index: usize| [byte(index), byte(count + index), byte(2 * count + index)];
    Ok(Box::new(palette((0..count).map(entry))))
}

/// Pillow's conversion, in fixed point of six bits.
fn from_ycc([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    // Rounded as C does when it casts: halves up, then towards zero.
    let scaled = |factor: f64, chroma: u8| (factor * 64.0 * (f64::from(chroma) - 128.0) + 0.5) as i32;
    let add = |more: i32| (i32::from(luma) + (more >> 6)).clamp(0, 255) as u8;
    [add(scaled(1.402, red)), add(scaled(-0.344_14, blue) + scaled(-0.714_14, red)), add(scaled(1.772, blue))]
}

/// libtiff's conversion of luma and chroma (`TIFFYCbCrToRGBInit`).
struct YccTables {
    luma: [i32; 256],
    red_of_red: [i32; 256],
    green_of_red: [i32; 256],
    green_of_blue: [i32; 256],
    blue_of_blue: [i32; 256],
}

impl YccTables {
    fn read(directory: &Directory<'_>) -> Self {
        let or = |tag: u16, default: &[f32]| -> Vec<f32> {
            let given: Vec<f32> = directory.reals(tag).into_iter().map(|value| value as f32).collect();
            let sound = given.len() == default.len() && given.iter().all(|value| value.is_finite());
            if sound { given } else { default.to_vec() }
        };
        let weights = or(529, &[0.299, 0.587, 0.114]);
        let reference = or(532, &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0]);
        let fixed = |value: f32| (f64::from(value.clamp(0.0, 2.0)) * 65_536.0 + 0.5) as i32;
        let value = |code: f32, black: f32, white: f32, range: f32| {
            let span = if white - black == 0.0 { 1.0 } else { white - black };
            ((code - black.trunc()) * range / span).clamp(-4096.0, 4096.0) as i32
        };
        let (red, blue) = (2.0 - 2.0 * weights[0], 2.0 - 2.0 * weights[2]);
        let factors =
            [fixed(red), -fixed(weights[0] * red / weights[1]), fixed(blue), -fixed(weights[2] * blue / weights[1])];
        let table = |of: &dyn Fn(f32) -> i32| std::array::from_fn(|code| of(code as f32));
        let in_red = |code: f32| value(code - 128.0, reference[4] - 128.0, reference[5] - 128.0, 127.0);
        let in_blue = |code: f32| value(code - 128.0, reference[2] - 128.0, reference[3] - 128.0, 127.0);
        Self {
            luma: table(&|code| value(code, reference[0], reference[1], 255.0)),
            red_of_red: table(&|code| (factors[0] * in_red(code) + 32_768) >> 16),
            green_of_red: table(&|code| factors[1] * in_red(code)),
            green_of_blue: table(&|code| factors[3] * in_blue(code) + 32_768),
            blue_of_blue: table(&|code| (factors[2] * in_blue(code) + 32_768) >> 16),
        }
    }

    fn color(&self, [luma, blue, red]: [u8; 3]) -> [u8; 3] {
        let (blue, red) = (usize::from(blue), usize::from(red));
        let add = |more: i32| (self.luma[usize::from(luma)] + more).clamp(0, 255) as u8;
        let green = (self.green_of_blue[blue] + self.green_of_red[red]) >> 16;
        [add(self.red_of_red[red]), add(green), add(self.blue_of_blue[blue])]
    }
}

/// The strips or tiles of a page.
struct Parts {
    tiled: bool,
    width: usize,
    height: usize,
    across: usize,
    down: usize,
    offsets: Vec<u64>,
    lengths: Vec<u64>,
}

impl Parts {
    fn read(directory: &Directory<'_>, page: &Page) -> Result<Self, PictureError> {
        let tiled = directory.bytes(324).is_some() && directory.bytes(273).is_none();
        let (offsets, lengths) = if tiled { (324, 325) } else { (273, 279) };
        let (width, height) = if tiled {
            (directory.integer(322).unwrap_or(0), directory.integer(323).unwrap_or(0))
        } else {
            (page.width as u64, directory.integer(278).unwrap_or(u64::MAX).min(page.height as u64))
        };
        if width == 0 || height == 0 {
            return Err(broken("TIFF", "its strips or tiles have no size"));
        }
        let across = (page.width as u64).div_ceil(width);
        let down = (page.height as u64).div_ceil(height);
        // Small pictures of huge tiles would take as long as huge ones.
        check_size(across.saturating_mul(width), down.saturating_mul(height))?;
        Ok(Self {
            tiled,
            width: width as usize,
            height: height as usize,
            across: across as usize,
            down: down as usize,
            offsets: directory.integers(offsets),
            lengths: directory.integers(lengths),
        })
    }

    /// The bytes of a part: all that follow, and how many of them are its own.
    fn place<'a>(&self, bytes: &'a [u8], index: usize) -> Result<(&'a [u8], usize), PictureError> {
        let offset = self.offsets.get(index).and_then(|offset| usize::try_from(*offset).ok()).ok_or(TRUNCATED)?;
        let rest = bytes.get(offset..).ok_or(TRUNCATED)?;
        let length =
            self.lengths.get(index).map_or(rest.len(), |length| usize::try_from(*length).unwrap_or(usize::MAX));
        Ok((rest, length.min(rest.len())))
    }
}

#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    height: usize,
    samples: usize,
}

/// The rows of a part, uncompressed.
struct Rows {
    data: Vec<u8>,
    stride: usize,
    samples: usize,
    bits: u8,
    big_endian: bool,
}

impl Rows {
    /// The numbers of row `y`.
    fn numbers(&self, y: usize, page: &Page, numbers: &mut Vec<f64>) {
        let row = &self.data[y * self.stride..(y + 1) * self.stride];
        numbers.clear();
        let ordered = |bytes: &[u8]| {
            let push = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
            if self.big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
        };
        match (self.bits, page.format) {
            (12, _) => numbers.extend(row.chunks(3).flat_map(|three| {
                let [a, b, c] = std::array::from_fn(|at| u16::from(three.get(at).copied().unwrap_or(0)));
                [a << 4 | b >> 4, (b & 15) << 8 | c].map(f64::from)
            })),
            (16, Format::Signed) => {
                numbers.extend(row.chunks_exact(2).map(|two| f64::from(ordered(two) as u16 as i16)))
            }
            (16, _) => numbers.extend(row.chunks_exact(2).map(|two| f64::from(ordered(two)))),
            (32, Format::Real) => {
                numbers.extend(row.chunks_exact(4).map(|four| f64::from(f32::from_bits(ordered(four)))))
            }
            // Pillow holds unsigned ones as signed.
            (32, _) => numbers.extend(row.chunks_exact(4).map(|four| f64::from(ordered(four) as i32))),
            (bits, _) => numbers.extend(unpacked(row, bits).map(f64::from)),
        }
    }
}

/// One strip or tile, of one plane or all samples.
fn read_part(
    page: &Page,
    color: &Color,
    shape: Shape,
    tables: &[u8],
    (rest, length): (&[u8], usize),
) -> Result<Rows, PictureError> {
    let Shape { width, height, samples } = shape;
    let bits = page.bits;
    let mut rows = Rows {
        data: Vec::new(),
        stride: (width * samples * usize::from(bits)).div_ceil(8),
        samples,
        bits,
        big_endian: page.big_endian,
    };
    if page.is_jpeg() {
        let stream = jpeg::in_tiff(tables, &rest[..length], page.photometric == 6 && !page.planar);
        let read = jpeg::samples(&stream).map_err(|error| broken("TIFF", error))?;
        if read.width < width || read.height < height || read.count != samples || bits != 8 {
            return Err(broken("TIFF", "a JPEG stream in it has the wrong size"));
        }
        return Ok(Rows { data: read.values, stride: read.width * samples, ..rows });
    }
    let blocks = match color {
        Color::SharedYcc { across, down, .. } => Some((*across, *down)),
        _ => None,
    };
    let size = match blocks {
        Some((across, down)) => width.div_ceil(across) * height.div_ceil(down) * (across * down + 2),
        None => rows.stride * height,
    };
    rows.data = uncompressed(page, (width, height), size, rest, length)?;
    if let Some(blocks) = blocks {
        rows.data = spread(&rows.data, width, height, blocks);
    } else if matches!(page.compression, 5 | 8 | 32946 | 50000) {
        undo_predictor(page, &mut rows)?;
    }
    Ok(rows)
}

/// `size` bytes out of the `length` ones at the beginning of `rest`.
fn uncompressed(
    page: &Page,
    (width, height): (usize, usize),
    size: usize,
    rest: &[u8],
    length: usize,
) -> Result<Vec<u8>, PictureError> {
    // Pillow goes by the offset alone where nothing is compressed.
    let data = if page.compression == 1 { rest.get(..size).ok_or(TRUNCATED)? } else { &rest[..length] };
    let reversed: Vec<u8>;
    let data = if page.reversed {
        reversed = data.iter().map(|byte| byte.reverse_bits()).collect();
        &reversed
    } else {
        data
    };
    let mut out = Vec::new();
    let mut fill = |mut reader: &mut dyn Read| {
        let read = (&mut reader).take(size as u64).read_to_end(&mut out);
        read.map_err(|cause| match cause.kind() {
            std::io::ErrorKind::UnexpectedEof => TRUNCATED,
            _ => broken("TIFF", cause),
        })
    };
    match page.compression {
        1 => out = data.to_vec(),
        3 | 4 => out = fax(page, data, width, height)?,
        5 => {
            let decoder = LzwDecoder::with_tiff_size_switch(BitOrder::Msb, 8);
            out = lzw(decoder, data, size).map_err(|cause| broken("TIFF", cause))?;
        }
        8 | 32946 => drop(fill(&mut ZlibDecoder::new(data))?),
        32773 => out = unpacked_bits(data, size),
        50000 => {
            let mut reader = StreamingDecoder::new(data).map_err(|cause| broken("TIFF", cause))?;
            fill(&mut reader)?;
        }
        other => {
            let name = match other {
                2 => "modified Huffman compression",
                6 => "old-style JPEG compression",
                34925 => "LZMA compression",
                50001 => "WebP compression",
                _ => return Err(unread(format_args!("compression {other}"))),
            };
            return Err(unread(name));
        }
    }
    if out.len() < size { Err(TRUNCATED) } else { Ok(out) }
}

/// Runs of equal bytes, and bytes as they are.
fn unpacked_bits(mut data: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size);
    while let (true, [head, rest @ ..]) = (out.len() < size, data) {
        let head = *head as i8;
        data = rest;
        if head >= 0 {
            let (literal, rest) = data.split_at((head as usize + 1).min(data.len()));
            out.extend(literal);
            data = rest;
        } else if let (true, [byte, rest @ ..]) = (head != -128, data) {
            out.extend(std::iter::repeat_n(*byte, usize::from(head.unsigned_abs()) + 1));
            data = rest;
        }
    }
    out.truncate(size);
    out
}

/// Fax of group 3, each line separately, and of group 4: black is 1.
fn fax(page: &Page, data: &[u8], width: usize, height: usize) -> Result<Vec<u8>, PictureError> {
    let stride = width.div_ceil(8);
    let (Ok(across), Ok(down)) = (u16::try_from(width), u16::try_from(height)) else {
        return Err(unread("a fax with a side of more than 65535 pixels"));
    };
    let mut out = Vec::with_capacity(stride * height);
    let mut line = |changes: &[u16]| {
        let start = out.len();
        if start == stride * height {
            return;
        }
        out.resize(start + stride, 0);
        for (x, color) in fax::decoder::pels(changes, across).enumerate() {
            if color == fax::Color::Black {
                out[start + x / 8] |= 128 >> (x % 8);
            }
        }
    };
    let data = data.iter().copied();
    if page.compression == 4 {
        fax::decoder::decode_g4(data, across, Some(down), line).ok_or(TRUNCATED)?;
    } else {
        let bytes = data.map(Result::<u8, std::convert::Infallible>::Ok);
        let mut decoder = fax::decoder::Group3Decoder::new(bytes).map_err(|_| TRUNCATED)?;
        while matches!(decoder.advance(), Ok(fax::decoder::DecodeStatus::Incomplete)) {
            line(decoder.transitions());
        }
        // The last line may lack the mark behind it.
        if decoder.transitions().last() == Some(&across) {
            line(decoder.transitions());
        }
    }
    Ok(out)
}

/// Luma and chroma of every pixel, from blocks that share their chroma.
fn spread(data: &[u8], width: usize, height: usize, (across, down): (usize, usize)) -> Vec<u8> {
    let block = across * down + 2;
    let row = width.div_ceil(across) * block;
    let mut out = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let at = y / down * row + x / across * block;
            let luma = data[at + y % down * across + x % across];
            out.extend([luma, data[at + block - 2], data[at + block - 1]]);
        }
    }
    out
}

/// Adds up what is stored as differences along a row.
fn undo_predictor(page: &Page, rows: &mut Rows) -> Result<(), PictureError> {
    let (samples, big_endian) = (rows.samples, rows.big_endian);
    let all = rows.data.chunks_exact_mut(rows.stride);
    match (page.predictor, rows.bits) {
        (2, 8) => all.for_each(|row| add_up::<1>(row, samples, big_endian)),
        (2, 16) => all.for_each(|row| add_up::<2>(row, samples, big_endian)),
        (2, 32) => all.for_each(|row| add_up::<4>(row, samples, big_endian)),
        // The bytes of a row's numbers, the most significant of all first.
        (3, 32) if page.format == Format::Real => {
            for row in all {
                add_up::<1>(row, samples, big_endian);
                let planes = row.to_vec();
                let count = row.len() / 4;
                row.iter_mut().enumerate().for_each(|(at, byte)| *byte = planes[at % 4 * count + at / 4]);
            }
            rows.big_endian = true;
        }
        (1, _) => {}
        (predictor, bits) => return Err(unread(format_args!("predictor {predictor} of {bits} bits"))),
    }
    Ok(())
}

/// Adds to every number of `SIZE` bytes the one `samples` before it.
fn add_up<const SIZE: usize>(row: &mut [u8], samples: usize, big_endian: bool) {
    let numbers: &mut [[u8; SIZE]] = row.as_chunks_mut().0;
    for at in samples..numbers.len() {
        let mut carry = 0;
        let before = numbers[at - samples];
        for digit in 0..SIZE {
            let place = if big_endian { SIZE - 1 - digit } else { digit };
            carry += u16::from(numbers[at][place]) + u16::from(before[place]);
            numbers[at][place] = carry as u8;
            carry >>= 8;
        }
    }
}
