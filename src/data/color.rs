//! Color adjustments with Pillow's arithmetic, in place: what torchvision's `ColorJitter` does to Pillow pictures.
//! Tested against torchvision with the corruptions.

use image::{Rgb, RgbImage};

/// Pillow's `blend` of `from` towards `to` in single precision, clamped if `factor` extrapolates.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let value = f32::from(from) + factor * f32::from(i16::from(to) - i16::from(from));
    value.clamp(0.0, 255.0) as u8
}

/// Scales every value; 0 is black.
pub(super) fn brightness(picture: &mut RgbImage, factor: f64) {
    picture.iter_mut().for_each(|value| *value = blend(0, *value, factor as f32));
}

/// Scales the distance from the mean luma.
pub(super) fn contrast(picture: &mut RgbImage, factor: f64) {
    let sum: u64 = picture.pixels().map(|pixel| u64::from(luma(pixel))).sum();
    let count = u64::from(picture.width()) * u64::from(picture.height());
    let mean = (sum as f64 / count as f64 + 0.5) as u8;
    picture.iter_mut().for_each(|value| *value = blend(mean, *value, factor as f32));
}

/// Scales the distance from the pixel's own luma.
pub(super) fn saturation(picture: &mut RgbImage, factor: f64) {
    for pixel in picture.pixels_mut() {
        let gray = luma(pixel);
        pixel.0 = pixel.0.map(|value| blend(gray, value, factor as f32));
    }
}

/// Shifts the hue by `factor` full turns.
pub(super) fn hue(picture: &mut RgbImage, factor: f64) {
    let shift = (factor * 255.0) as i32 as u8;
    for pixel in picture.pixels_mut() {
        let [hue, saturation, value] = to_hsv(pixel.0);
        pixel.0 = to_rgb([hue.wrapping_add(shift), saturation, value]);
    }
}

/// Pillow's luma: ITU-R 601-2 in fixed point, rounded.
pub(super) fn luma(Rgb([red, green, blue]): &Rgb<u8>) -> u8 {
    ((u32::from(*red) * 19595 + u32::from(*green) * 38470 + u32::from(*blue) * 7471 + 0x8000) >> 16) as u8
}

/// Pillow's conversion to 8-bit hue, saturation and value: singly precise variables, doubly precise constants.
fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let (high, low) = (red.max(green).max(blue), red.min(green).min(blue));
    if high == low {
        return [0, 0, high];
    }
    let range = f32::from(high - low);
    let saturation = range / f32::from(high);
    let [red_part, green_part, blue_part] = [red, green, blue].map(|value| f64::from(f32::from(high - value) / range));
    let sextants = if red == high {
        blue_part - green_part
    } else if green == high {
        2.0 + red_part - blue_part
    } else {
        4.0 + green_part - red_part
    } as f32;
    let hue = ((f64::from(sextants) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, high]
}

/// Pillow's conversion back.
fn to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let sextants = f64::from(hue) * 6.0 / 255.0;
    let rest = (sextants - sextants.floor()) as f32;
    let share = (f64::from(saturation) / 255.0) as f32;
    let scaled = |factor: f64| (f64::from(value) * factor).round().clamp(0.0, 255.0) as u8;
    let p = scaled(1.0 - f64::from(share));
    let q = scaled(1.0 - f64::from(share * rest));
    let t = scaled(1.0 - f64::from(share) * (1.0 - f64::from(rest)));
    match sextants as u32 % 6 {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}
