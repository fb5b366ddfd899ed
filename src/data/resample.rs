//! Resampling of 8-bit pictures to the bit as Pillow 10.3 does it (`ImagingResample`), which is what LLaVA, CLIP's
//! processor and torchvision's transforms on pictures all call.
//!
//! Two passes, horizontal first, each with an 8-bit result and weights in fixed point; a pass whose length does not
//! change is skipped. When a picture shrinks, the filter widens by the ratio (antialiasing). Pillow 13 runs the
//! vertical pass first for some tall pictures and then differs by a few levels.

use std::ops::Range;

use image::RgbImage;
use image::imageops::crop_imm;
use rayon::prelude::*;

/// Bits after the point in the weights: 32 bits less 8 of the pixel, less 2 for the overshoot of the bicubic filter.
const PRECISION_BITS: u32 = 32 - 8 - 2;

const CHANNELS: usize = 3;

/// The shape by which source pixels are weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A triangle of half width 1: torchvision's default.
    Bilinear,
    /// Keys's cubic with a = −0.5, of half width 2: CLIP's filter.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// `picture` at `width` × `height` pixels.
///
/// # Panics
/// When `width`, `height` or a side of `picture` is zero.
pub fn resize(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    resize_part(picture, [width, height], [0..width, 0..height], filter)
}

/// The columns and rows `part` of `picture` resized to `size` (width and height): the same as cropping the resized
/// picture, at the cost of the part.
///
/// # Panics
/// When a side of `picture` or of the part is zero, or the part is not within `size`.
pub fn resize_part(
    picture: &RgbImage,
    [width, height]: [u32; 2],
    [columns, rows]: [Range<u32>; 2],
    filter: Filter,
) -> RgbImage {
    assert!(!columns.is_empty() && !rows.is_empty(), "a picture has at least one pixel");
    assert!(picture.width() > 0 && picture.height() > 0, "a picture has at least one pixel");
    assert!(columns.end <= width && rows.end <= height, "a part is within the whole");
    let narrowed = if width != picture.width() {
        Some(horizontal(picture, &windows(picture.width(), width, columns, filter)))
    } else if columns != (0..width) {
        Some(crop_imm(picture, columns.start, 0, columns.end - columns.start, picture.height()).to_image())
    } else {
        None
    };
    let picture = narrowed.as_ref().unwrap_or(picture);
    if height != picture.height() {
        vertical(picture, &windows(picture.height(), height, rows, filter))
    } else {
        crop_imm(picture, 0, rows.start, picture.width(), rows.end - rows.start).to_image()
    }
}

/// The source pixels that one output pixel is made of.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// One window for each of the pixels `part` of `output` along a side of `input` pixels.
fn windows(input: u32, output: u32, part: Range<u32>, filter: Filter) -> Vec<Window> {
    let scale = f64::from(input) / f64::from(output);
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    part.map(|index| {
        let center = (f64::from(index) + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as u32;
        let last = ((center + support + 0.5) as u32).min(input);
        let weights: Vec<f64> =
            (first..last).map(|x| filter.weight((f64::from(x) - center + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = weights.iter().sum();
        let weights = weights.iter().map(|weight| if sum == 0.0 { *weight } else { weight / sum });
        Window { first: first as usize, weights: weights.map(fixed).collect() }
    })
    .collect()
}

/// A weight in fixed point, rounded half away from zero.
fn fixed(weight: f64) -> i32 {
    (weight * f64::from(1u32 << PRECISION_BITS) + if weight < 0.0 { -0.5 } else { 0.5 }) as i32
}

/// A sum in fixed point, which started at one half, as a pixel.
fn pixel(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn horizontal(picture: &RgbImage, windows: &[Window]) -> RgbImage {
    let mut output = RgbImage::new(windows.len() as u32, picture.height());
    let source_row = picture.width() as usize * CHANNELS;
    let output_row = windows.len() * CHANNELS;
    output.par_chunks_mut(output_row).zip(picture.par_chunks(source_row)).for_each(|(output, source)| {
        for (output, window) in output.chunks_exact_mut(CHANNELS).zip(windows) {
            let source = source[window.first * CHANNELS..].chunks_exact(CHANNELS);
            let mut sums = [HALF; CHANNELS];
            for (source, weight) in source.zip(&window.weights) {
                for channel in 0..CHANNELS {
                    sums[channel] += i32::from(source[channel]) * weight;
                }
            }
            output.copy_from_slice(&sums.map(pixel));
        }
    });
    output
}

fn vertical(picture: &RgbImage, windows: &[Window]) -> RgbImage {
    let mut output = RgbImage::new(picture.width(), windows.len() as u32);
    let source = picture.as_raw();
    let row = picture.width() as usize * CHANNELS;
    output.par_chunks_mut(row).zip(windows).for_each_init(
        || vec![0; row],
        |sums, (output, window)| {
            sums.fill(HALF);
            for (source, weight) in source[window.first * row..].chunks_exact(row).zip(&window.weights) {
                for (sum, source) in sums.iter_mut().zip(source) {
                    *sum += i32::from(*source) * weight;
                }
            }
            for (output, sum) in output.iter_mut().zip(sums) {
                *output = pixel(*sum);
            }
        },
    );
    output
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use image::Rgb;

    /// The picture of the published golden values: red and green are ramps, blue is a paraboloid, all modulo 256.
    pub(crate) fn ramps(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(7 * x + 13 * y) as u8, (3 * x + 5 * y + 40) as u8, ((x * x + y * y) / 8) as u8])
        })
    }

    pub(crate) fn sums(picture: &RgbImage) -> [u64; 3] {
        let mut sums = [0; 3];
        for Rgb(values) in picture.pixels() {
            values.iter().zip(&mut sums).for_each(|(value, sum)| *sum += u64::from(*value));
        }
        sums
    }

    /// `picture` in the middle of a square of CLIP's mean color.
    fn squared(picture: &RgbImage) -> RgbImage {
        let side = picture.width().max(picture.height());
        let mut square = RgbImage::from_pixel(side, side, Rgb([122, 116, 104]));
        let (x, y) = ((side - picture.width()) / 2, (side - picture.height()) / 2);
        image::imageops::replace(&mut square, picture, x.into(), y.into());
        square
    }

    #[test]
    fn a_part_has_the_bits_of_the_whole_that_is_cut() {
        let picture = ramps(50, 30);
        for [width, height] in [[90, 20], [50, 41], [31, 30], [50, 30]] {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let part = resize_part(&picture, [width, height], [3..29, 5..17], filter);
                let whole = resize(&picture, width, height, filter);
                assert_eq!(part, crop_imm(&whole, 3, 5, 26, 12).to_image(), "{width}×{height} {filter:?}");
            }
        }
    }

    #[test]
    fn a_small_picture_grows_as_pillow_grows_it() {
        let picture = resize(&squared(&ramps(50, 30)), 336, 336, Filter::Bicubic);
        let golden = [
            ((0, 0), [122, 116, 104]),
            ((5, 60), [130, 121, 111]),
            ((100, 80), [120, 90, 26]),
            ((167, 167), [103, 185, 101]),
            ((168, 168), [105, 187, 101]),
            ((200, 250), [41, 1, 197]),
            ((335, 200), [83, 28, 92]),
            ((300, 268), [152, 86, 98]),
            ((335, 335), [122, 116, 104]),
            ((10, 70), [7, 43, 0]),
        ];
        for ((x, y), values) in golden {
            assert_eq!(picture.get_pixel(x, y).0, values, "at {x}, {y}");
        }
        assert_eq!(sums(&picture), [13_999_165, 15_339_811, 11_299_594]);
    }

    #[test]
    fn a_large_picture_shrinks_as_pillow_shrinks_it() {
        let picture = resize(&squared(&ramps(641, 480)), 336, 336, Filter::Bicubic);
        let golden = [
            ((0, 0), [122, 116, 104]),
            ((5, 60), [18, 253, 165]),
            ((100, 80), [227, 211, 114]),
            ((167, 167), [226, 144, 132]),
            ((335, 200), [211, 141, 152]),
            ((10, 70), [71, 113, 156]),
        ];
        for ((x, y), values) in golden {
            assert_eq!(picture.get_pixel(x, y).0, values, "at {x}, {y}");
        }
        assert_eq!(sums(&picture), [14_237_363, 14_073_163, 13_689_553]);
    }

    #[test]
    fn the_base_view_is_squashed_as_pillow_squashes_it() {
        let golden = [
            ((641, 480), [14_388_512, 14_394_181, 14_343_075]),
            ((300, 200), [14_390_208, 14_409_054, 14_297_175]),
            ((500, 1300), [14_394_189, 14_396_717, 14_343_726]),
        ];
        for ((width, height), golden) in golden {
            let picture = resize(&ramps(width, height), 336, 336, Filter::Bicubic);
            assert_eq!(sums(&picture), golden, "{width} × {height}");
        }
        assert_eq!(resize(&ramps(641, 480), 336, 336, Filter::Bicubic).get_pixel(10, 20).0, [158, 244, 151]);
    }

    #[test]
    fn bilinear_weights_are_pillows() {
        let small = resize(&ramps(50, 30), 33, 20, Filter::Bilinear);
        for ((x, y), values) in
            [((0, 0), [8, 43, 0]), ((5, 7), [195, 118, 22]), ((16, 10), [114, 190, 104]), ((32, 19), [200, 73, 141])]
        {
            assert_eq!(small.get_pixel(x, y).0, values, "at {x}, {y}");
        }
        assert_eq!(sums(&small), [82_739, 98_458, 64_339]);
        assert_eq!(sums(&resize(&ramps(641, 480), 26, 20, Filter::Bilinear)), [66_299, 66_321, 66_084]);
    }

    #[test]
    fn a_side_that_keeps_its_length_keeps_its_pixels() {
        let picture = ramps(17, 9);
        assert_eq!(resize(&picture, 17, 9, Filter::Bicubic), picture);
        let wide = resize(&picture, 34, 9, Filter::Bilinear);
        assert_eq!(wide.dimensions(), (34, 9));
        assert_eq!(wide.get_pixel(0, 3), picture.get_pixel(0, 3));
    }

    #[test]
    fn extreme_ratios_stay_within_the_picture() {
        let line = ramps(4000, 1);
        assert_eq!(resize(&line, 1, 300, Filter::Bicubic).dimensions(), (1, 300));
        let gray = RgbImage::from_pixel(3, 2, Rgb([200; 3]));
        assert!(resize(&gray, 977, 1, Filter::Bicubic).pixels().all(|pixel| pixel.0 == [200; 3]));
    }
}
