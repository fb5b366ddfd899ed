//! Corruptions h of pictures, about which a model gives worse descriptions.
//!
//! Operations that torchvision has match torchvision 0.16 on Pillow pictures to the bit, except for the Gaussian blur:
//! torch sums in single precision and no fixed order, which differs by one level at ties. Which operation an item gets,
//! and with what values, is a function of (seed, item).

use std::collections::BTreeMap;

use image::RgbImage;
use rayon::prelude::*;
use serde_json::{Map, json};

use super::color::{brightness, contrast, hue, luma, saturation};
use super::picture::MAX_PIXELS;
use super::resample::{Filter, resize};
use stic_engine::digest::Value;
use stic_engine::draw::Draws;

/// An operation and its parameters. Each item draws from intervals uniformly.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// The shorter side becomes `size` pixels, the longer keeps the aspect (torchvision's `Resize`, bilinear with
    /// antialiasing). The picture is not scaled up again.
    LowResolution {
        /// Pixels of the shorter side.
        size: u32,
    },
    /// Factors of brightness, contrast and saturation around 1, a shift of hue around 0 (a turn is 1), in random order
    /// (torchvision's `ColorJitter`).
    ColorJitter(Jitter),
    /// A Gaussian of `sigma` pixels (torchvision's `GaussianBlur`: borders are reflected).
    GaussianBlur {
        /// Standard deviation in pixels.
        sigma: [f64; 2],
        /// Odd length of the kernel.
        kernel_size: u32,
    },
    /// Normal noise on every value, `sigma` as a share of the whole range (as torchvision's later `GaussianNoise`).
    Noise {
        /// Standard deviation; 1 is 255 levels.
        sigma: [f64; 2],
    },
    /// Luma in all three channels (torchvision's `Grayscale(3)`).
    Greyscale,
    /// A part of the picture, not scaled up again (the part that torchvision's `RandomResizedCrop` chooses).
    Crop {
        /// Share of the area.
        scale: [f64; 2],
        /// Width through height.
        ratio: [f64; 2],
    },
}

/// Ranges of color jitter. `None` leaves a property unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter {
    /// Factor; 1 changes nothing.
    pub brightness: Option<[f64; 2]>,
    /// Factor; 1 changes nothing, 0 is the mean gray.
    pub contrast: Option<[f64; 2]>,
    /// Factor; 1 changes nothing, 0 is greyscale.
    pub saturation: Option<[f64; 2]>,
    /// Shift of hue in full turns, −0.5 to 0.5; 0 changes nothing (except for rounding).
    pub hue: Option<[f64; 2]>,
}

/// An operation and its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// The operation.
    pub operation: Operation,
    /// Relative frequency.
    pub weight: f64,
}

/// Why a picture cannot be corrupted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("with its shorter side at {size} pixels it would have more than {MAX_PIXELS} pixels")]
pub struct TooLarge {
    size: u32,
}

/// The operation that `subject` gets: exactly one, in proportion to the weights.
///
/// # Panics
/// When there is no operation with a weight above zero.
pub fn choose<'a>(operations: &'a [Weighted], seed: u64, subject: &str) -> &'a Operation {
    let mut rest = operations.iter().filter(|weighted| weighted.weight > 0.0);
    let total: f64 = rest.clone().map(|weighted| weighted.weight).sum();
    let drawn = Draws::new(seed, "operation", subject).uniform() * total;
    let mut sum = 0.0;
    let found = rest.clone().find(|weighted| {
        sum += weighted.weight;
        drawn < sum
    });
    // Rounding can leave the last draw at the total.
    &found.or_else(|| rest.next_back()).expect("at least one operation has a weight").operation
}

/// The values that an operation drew, by name.
pub type Values = Map<String, serde_json::Value>;

impl Operation {
    /// Its name in pipeline files and records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LowResolution { .. } => "low_resolution",
            Self::ColorJitter(_) => "color_jitter",
            Self::GaussianBlur { .. } => "gaussian_blur",
            Self::Noise { .. } => "noise",
            Self::Greyscale => "greyscale",
            Self::Crop { .. } => "crop",
        }
    }

    /// Whether it draws anything.
    pub fn draws(&self) -> bool {
        !matches!(self, Self::LowResolution { .. } | Self::Greyscale)
    }

    /// Its name and parameters as key fields.
    pub fn fields(&self) -> BTreeMap<String, Value> {
        let mut fields = BTreeMap::from([("op".to_owned(), Value::from(self.name()))]);
        let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        match self {
            Self::LowResolution { size } => {
                add("size", (*size).into());
            }
            Self::ColorJitter(jitter) => {
                for (name, range) in jitter.ranges() {
                    range.map(|range| add(name, range.to_vec().into()));
                }
            }
            Self::GaussianBlur { sigma, kernel_size } => {
                add("sigma", sigma.to_vec().into());
                add("kernel_size", (*kernel_size).into());
            }
            Self::Noise { sigma } => {
                add("sigma", sigma.to_vec().into());
            }
            Self::Greyscale => {}
            Self::Crop { scale, ratio } => {
                add("scale", scale.to_vec().into());
                add("ratio", ratio.to_vec().into());
            }
        }
        fields
    }

    /// Applies it to `picture`. Also returns the values drawn for `subject`.
    ///
    /// # Errors
    /// When the result would exceed the size limit of pictures.
    pub fn apply(&self, picture: &RgbImage, seed: u64, subject: &str) -> Result<(RgbImage, Values), TooLarge> {
        let mut draws = Draws::new(seed, self.name(), subject);
        let mut values = Values::new();
        let mut draw = |name: &str, [low, high]: [f64; 2], draws: &mut Draws| {
            let value = draws.between(low, high);
            values.insert(name.to_owned(), json!(value));
            value
        };
        let altered = match self {
            Self::LowResolution { size } => low_resolution(picture, *size)?,
            Self::ColorJitter(jitter) => {
                let mut order = [0, 1, 2, 3];
                draws.shuffle(&mut order);
                let factors = jitter.ranges().map(|(name, range)| range.map(|range| draw(name, range, &mut draws)));
                let mut picture = picture.clone();
                let mut applied = Vec::new();
                for index in order {
                    let Some(factor) = factors[index] else { continue };
                    let (name, adjust) = ADJUSTMENTS[index];
                    adjust(&mut picture, factor);
                    applied.push(name);
                }
                values.insert("order".to_owned(), json!(applied));
                picture
            }
            Self::GaussianBlur { sigma, kernel_size } => {
                gaussian_blur(picture, draw("sigma", *sigma, &mut draws), *kernel_size)
            }
            Self::Noise { sigma } => {
                let sigma = draw("sigma", *sigma, &mut draws);
                noise(picture, sigma, &mut draws)
            }
            Self::Greyscale => greyscale(picture),
            Self::Crop { scale, ratio } => {
                let [left, top, width, height] = part(picture.dimensions(), *scale, *ratio, &mut draws);
                for (name, value) in [("left", left), ("top", top), ("width", width), ("height", height)] {
                    values.insert(name.to_owned(), json!(value));
                }
                image::imageops::crop_imm(picture, left, top, width, height).to_image()
            }
        };
        Ok((altered, values))
    }
}

impl Jitter {
    /// Its four properties in torchvision's order.
    pub fn ranges(&self) -> [(&'static str, Option<[f64; 2]>); 4] {
        let ranges = [self.brightness, self.contrast, self.saturation, self.hue];
        std::array::from_fn(|index| (ADJUSTMENTS[index].0, ranges[index]))
    }
}

type Adjustment = fn(&mut RgbImage, f64);

const ADJUSTMENTS: [(&str, Adjustment); 4] =
    [("brightness", brightness), ("contrast", contrast), ("saturation", saturation), ("hue", hue)];

fn low_resolution(picture: &RgbImage, size: u32) -> Result<RgbImage, TooLarge> {
    let (width, height) = picture.dimensions();
    let (short, long) = (width.min(height), width.max(height));
    let long = u64::from(size) * u64::from(long) / u64::from(short);
    if long * u64::from(size) > MAX_PIXELS {
        return Err(TooLarge { size });
    }
    let long = long as u32;
    let (width, height) = if width <= height { (size, long) } else { (long, size) };
    Ok(resize(picture, width, height, Filter::Bilinear))
}

fn greyscale(picture: &RgbImage) -> RgbImage {
    let mut picture = picture.clone();
    picture.pixels_mut().for_each(|pixel| pixel.0 = [luma(pixel); 3]);
    picture
}

/// The kernel of torchvision's blur: a Gaussian at whole pixels in single precision, of sum 1.
fn gaussian(sigma: f64, size: u32) -> Vec<f64> {
    let half = (size - 1) as f32 * 0.5;
    let weights: Vec<f32> =
        (0..size).map(|index| (-0.5 * ((index as f32 - half) / sigma as f32).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|weight| f64::from(weight / sum)).collect()
}

/// The index `at`, reflected into `0 … length − 1` without repeating the borders.
fn reflected(at: i64, length: usize) -> usize {
    let last = length as i64 - 1;
    if last == 0 {
        return 0;
    }
    let at = at.rem_euclid(2 * last);
    at.min(2 * last - at) as usize
}

fn gaussian_blur(picture: &RgbImage, sigma: f64, kernel_size: u32) -> RgbImage {
    let kernel = gaussian(sigma, kernel_size);
    let half = i64::from(kernel_size / 2);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let columns: Vec<Vec<usize>> =
        (0..width as i64).map(|x| (x - half..=x + half).map(|x| reflected(x, width)).collect()).collect();
    let source = picture.as_raw();
    let mut output = RgbImage::new(picture.width(), picture.height());
    output.par_chunks_mut(3 * width).enumerate().for_each_init(
        || vec![0.0; 3 * width],
        |row, (y, output)| {
            row.fill(0.0);
            for (offset, weight) in kernel.iter().enumerate() {
                let y = reflected(y as i64 + offset as i64 - half, height);
                let source = &source[3 * width * y..][..3 * width];
                row.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * f64::from(*value));
            }
            for (output, columns) in output.chunks_exact_mut(3).zip(&columns) {
                for (channel, output) in output.iter_mut().enumerate() {
                    let sum: f64 = columns.iter().zip(&kernel).map(|(x, weight)| weight * row[3 * x + channel]).sum();
                    *output = sum.round_ties_even() as u8;
                }
            }
        },
    );
    output
}

fn noise(picture: &RgbImage, sigma: f64, draws: &mut Draws) -> RgbImage {
    let mut picture = picture.clone();
    for value in picture.iter_mut() {
        *value = (f64::from(*value) + 255.0 * sigma * draws.normal()).round().clamp(0.0, 255.0) as u8;
    }
    picture
}

/// Left, top, width and height of a random crop with a random area and aspect ratio; after ten attempts that do not
/// fit, the largest center crop whose aspect ratio is allowed.
fn part((width, height): (u32, u32), scale: [f64; 2], ratio: [f64; 2], draws: &mut Draws) -> [u32; 4] {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..10 {
        let target = area * draws.between(scale[0], scale[1]);
        let aspect = draws.between(ratio[0].ln(), ratio[1].ln()).exp();
        let w = (target * aspect).sqrt().round_ties_even() as u32;
        let h = (target / aspect).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = draws.below((height - h) as usize + 1) as u32;
            let left = draws.below((width - w) as usize + 1) as u32;
            return [left, top, w, h];
        }
    }
    let aspect = f64::from(width) / f64::from(height);
    let (w, h) = if aspect < ratio[0] {
        (width, (f64::from(width) / ratio[0]).round_ties_even() as u32)
    } else if aspect > ratio[1] {
        ((f64::from(height) * ratio[1]).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    [(width - w) / 2, (height - h) / 2, w, h]
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use image::Rgb;

    use super::*;
    use crate::data::picture::{decode, tests::pixels};
    use crate::data::resample::tests::{ramps, sums};
    use stic_engine::digest::Digest;

    #[derive(serde::Deserialize)]
    struct Case {
        picture: String,
        name: String,
        argument: f64,
        digest: String,
    }

    fn reference(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
    }

    /// Every 17th value of each channel, and its neighbors.
    fn colors() -> RgbImage {
        let steps: Vec<u8> =
            (0..16i32).flat_map(|n| [17 * n - 1, 17 * n]).filter(|n| *n >= 0).map(|n| n as u8).collect();
        let steps: Vec<u8> = [0].into_iter().chain(steps.into_iter().filter(|n| *n > 0)).collect();
        let count = steps.len();
        RgbImage::from_fn((count * count) as u32, count as u32, |x, y| {
            Rgb([steps[y as usize], steps[x as usize / count], steps[x as usize % count]])
        })
    }

    #[test]
    fn operations_have_torchvisions_pixels() {
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(reference("corruptions.json")).unwrap()).unwrap();
        let mut wrong = Vec::new();
        for case in &cases {
            let mut picture = if case.picture == "ramps" { ramps(50, 30) } else { colors() };
            match case.name.as_str() {
                "greyscale" => picture = greyscale(&picture),
                "low_resolution" => picture = low_resolution(&picture, case.argument as u32).unwrap(),
                name => ADJUSTMENTS.iter().find(|(known, _)| *known == name).unwrap().1(&mut picture, case.argument),
            }
            if pixels(&picture) != case.digest {
                wrong.push(format!("{} {} {}", case.picture, case.name, case.argument));
            }
        }
        assert!(cases.len() > 50 && wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn golden_values_of_brightness_and_hue() {
        let adjusted = |adjust: Adjustment, factor, pixel| {
            let mut picture = RgbImage::from_pixel(1, 1, Rgb(pixel));
            adjust(&mut picture, factor);
            picture.get_pixel(0, 0).0
        };
        assert_eq!(adjusted(brightness, 0.73, [14, 150, 62]), [10, 109, 45]);
        assert_eq!(adjusted(brightness, 1.31, [208, 76, 149]), [255, 99, 195]);
        for (factor, pixel) in [
            (0.0, [14, 150, 59]),
            (0.1, [14, 150, 139]),
            (0.3, [30, 14, 150]),
            (-0.3, [150, 88, 14]),
            (-0.1, [49, 150, 14]),
        ] {
            assert_eq!(adjusted(hue, factor, [14, 150, 62]), pixel, "{factor}");
        }
        for (factor, golden) in [(0.3, [140_073, 195_402, 213_023]), (-0.3, [232_532, 153_727, 181_151])] {
            let mut picture = ramps(50, 30);
            hue(&mut picture, factor);
            assert_eq!(sums(&picture), golden);
        }
    }

    #[test]
    fn the_blur_differs_from_torchvisions_at_ties_alone() {
        let golden = decode(&std::fs::read(reference("blurred.png")).unwrap()).unwrap();
        let blurred = gaussian_blur(&ramps(50, 30), 2.0, 13);
        let difference: Vec<i32> =
            golden.iter().zip(blurred.iter()).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).collect();
        let wrong = difference.iter().filter(|difference| **difference > 0).count();
        assert!(difference.iter().max() <= Some(&1) && wrong <= 2, "{wrong} of {}", difference.len());
    }

    #[test]
    fn a_kernel_may_be_longer_than_the_picture() {
        let flat = RgbImage::from_pixel(3, 1, Rgb([7, 80, 255]));
        assert_eq!(gaussian_blur(&flat, 20.0, 121), flat);
        assert_eq!((-4..7).map(|at| reflected(at, 3)).collect::<Vec<_>>(), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
    }

    fn ids(count: u32) -> Vec<String> {
        (0..count).map(|n| Digest::of(&n.to_le_bytes()).to_string()).collect()
    }

    #[test]
    fn operations_are_drawn_in_proportion_to_their_weights() {
        let operations = [(1.0, 20), (0.0, 30), (3.0, 40)]
            .map(|(weight, size)| Weighted { operation: Operation::LowResolution { size }, weight });
        let drawn: Vec<&Operation> = ids(4000).iter().map(|id| choose(&operations, 42, id)).collect();
        let count = |size| drawn.iter().filter(|drawn| ***drawn == Operation::LowResolution { size }).count();
        assert_eq!(count(30), 0);
        assert!((900..1100).contains(&count(20)), "{}", count(20));
        assert_eq!(choose(&operations, 42, &ids(1)[0]), drawn[0]);
    }

    #[test]
    fn what_an_item_draws_is_recorded_and_gives_the_picture_again() {
        let jitter = Jitter { brightness: Some([0.5, 1.5]), hue: Some([-0.3, 0.3]), ..Jitter::default() };
        let operation = Operation::ColorJitter(jitter);
        let picture = ramps(50, 30);
        let mut orders = std::collections::BTreeSet::new();
        for id in ids(20) {
            let (altered, values) = operation.apply(&picture, 7, &id).unwrap();
            assert_eq!(operation.apply(&picture, 7, &id).unwrap().0, altered);
            let order: Vec<String> = serde_json::from_value(values["order"].clone()).unwrap();
            let mut again = picture.clone();
            for name in &order {
                let adjust = ADJUSTMENTS.iter().find(|(known, _)| known == name).unwrap().1;
                adjust(&mut again, values[name].as_f64().unwrap());
            }
            assert_eq!(again, altered);
            orders.insert(order);
        }
        assert_eq!(orders.len(), 2);
    }

    /// If these change, cached pictures are wrong: raise the item version of `corrupt`.
    #[test]
    fn draws_and_pixels_are_what_they_were() {
        let jitter = Jitter {
            brightness: Some([0.5, 1.5]),
            contrast: Some([0.5, 1.5]),
            saturation: Some([0.5, 1.5]),
            hue: Some([-0.3, 0.3]),
        };
        let golden = [
            (Operation::LowResolution { size: 20 }, "65c10feadca31ab6 {}"),
            (
                Operation::ColorJitter(jitter),
                r#"4ad42b21e9643b96 {"brightness":1.1608156871576263,"contrast":1.0020422953517008,"saturation":0.569193284578274,"hue":0.26098224251191254,"order":["hue","brightness","contrast","saturation"]}"#,
            ),
            (
                Operation::GaussianBlur { sigma: [1.0, 3.0], kernel_size: 19 },
                r#"b5ce7556768fa65d {"sigma":1.971740520974017}"#,
            ),
            (Operation::Greyscale, "537b8ce2c7ae6305 {}"),
            (
                Operation::Crop { scale: [0.25, 0.5], ratio: [0.75, 4.0 / 3.0] },
                r#"08fddab0ed6f5b8b {"left":26,"top":0,"width":21,"height":26}"#,
            ),
        ];
        let id = &ids(1)[0];
        let made = golden.each_ref().map(|(operation, _)| {
            let (picture, values) = operation.apply(&ramps(50, 30), 42, id).unwrap();
            format!("{} {}", &pixels(&picture)[..16], serde_json::Value::Object(values))
        });
        assert_eq!(made, golden.map(|(_, golden)| golden));
        let operations =
            [20, 30, 40].map(|size| Weighted { operation: Operation::LowResolution { size }, weight: 1.0 });
        let drawn =
            ids(8).iter().map(|id| choose(&operations, 42, id).fields()["size"].to_string()).collect::<Vec<_>>();
        assert_eq!(drawn.join(" "), "30 40 20 40 20 40 40 20");
    }

    #[test]
    fn noise_has_the_deviation_that_it_drew() {
        let gray = RgbImage::from_pixel(100, 100, Rgb([128; 3]));
        let (noisy, values) = Operation::Noise { sigma: [0.05, 0.05] }.apply(&gray, 1, &ids(1)[0]).unwrap();
        let variance = noisy.iter().map(|value| (f64::from(*value) - 128.0).powi(2)).sum::<f64>() / 30_000.0;
        assert!((variance.sqrt() - 12.75).abs() < 0.3, "{}", variance.sqrt());
        assert_eq!(values["sigma"], 0.05);
    }

    #[test]
    fn a_crop_is_a_part_of_the_size_that_it_records() {
        let operation = Operation::Crop { scale: [0.25, 0.5], ratio: [0.75, 4.0 / 3.0] };
        for id in ids(50) {
            let picture = ramps(50, 30);
            let (part, values) = operation.apply(&picture, 1, &id).unwrap();
            let value = |name: &str| values[name].as_u64().unwrap() as u32;
            assert_eq!(part.dimensions(), (value("width"), value("height")));
            assert_eq!(part.get_pixel(0, 0), picture.get_pixel(value("left"), value("top")));
            assert!((0.2..0.55).contains(&(f64::from(part.width() * part.height()) / 1500.0)));
        }
        let line = RgbImage::new(1000, 1);
        assert_eq!(operation.apply(&line, 1, &ids(1)[0]).unwrap().0.dimensions(), (1, 1));
    }

    #[test]
    fn a_line_of_pixels_cannot_be_blown_up_without_limit() {
        let line = RgbImage::new(40_000, 1);
        assert!(Operation::LowResolution { size: 100 }.apply(&line, 1, &ids(1)[0]).is_err());
    }
}
