//! From a scene to pixels: 48 × 48, a cell of 16 × 16 a place, noise on everything.
//!
//! The noise, the spread of an object's color and its varying size are what makes looking harder than reading.

use image::{Rgb, RgbImage};
use stic_engine::draw::Draws;

use crate::world::{COLORS, Scene};

/// Side of a picture, in pixels.
pub const SIDE: usize = 48;
/// Side of a place's cell, in pixels.
pub const CELL: usize = 16;
/// JPEG quality; with full color resolution a picture takes under 3 kB.
const QUALITY: f32 = 88.0;
/// Standard deviation of a pixel's noise, of 255.
const PIXEL_NOISE: f64 = 18.0;
/// Standard deviation of an object's color around the one that its word names, of 255.
const COLOR_SPREAD: f64 = 22.0;
/// Edges are averaged over this many points a side and pixel.
const SUPERSAMPLING: usize = 3;
/// The background's texture has squares of this many pixels a side.
const TEXTURE: usize = 4;

/// A picture of `scene`.
pub fn draw(scene: &Scene, draws: &mut Draws) -> RgbImage {
    let ground: [f64; 3] = std::array::from_fn(|_| draws.between(90.0, 170.0));
    let strength = draws.between(4.0, 14.0);
    let squares = SIDE / TEXTURE;
    let texture: Vec<f64> = (0..squares * squares).map(|_| strength * draws.normal()).collect();
    let mut pixels: Vec<[f64; 3]> = (0..SIDE * SIDE)
        .map(|index| {
            let level = texture[index / SIDE / TEXTURE * squares + index % SIDE / TEXTURE];
            ground.map(|channel| channel + level)
        })
        .collect();
    for object in &scene.0 {
        let radius = draws.between(3.5, 6.0);
        let center = [0, 1].map(|_| CELL as f64 / 2.0 + draws.between(-1.5, 1.5));
        let color = COLORS[object.color].1.map(|channel| channel + COLOR_SPREAD * draws.normal());
        let (left, top) = (object.place % 3 * CELL, object.place / 3 * CELL);
        for y in 0..CELL {
            for x in 0..CELL {
                let cover = coverage(object.shape, x, y, center, radius);
                let pixel = &mut pixels[(top + y) * SIDE + left + x];
                *pixel = std::array::from_fn(|channel| pixel[channel] * (1.0 - cover) + color[channel] * cover);
            }
        }
    }
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        let pixel = pixels[y as usize * SIDE + x as usize];
        Rgb(pixel.map(|channel| (channel + PIXEL_NOISE * draws.normal()).clamp(0.0, 255.0) as u8))
    })
}

/// The share of pixel (x, y) of a cell that the shape covers.
fn coverage(shape: usize, x: usize, y: usize, center: [f64; 2], radius: f64) -> f64 {
    let step = 1.0 / SUPERSAMPLING as f64;
    let points = (0..SUPERSAMPLING * SUPERSAMPLING).filter(|point| {
        let right = x as f64 + step * ((point % SUPERSAMPLING) as f64 + 0.5) - center[0];
        let down = y as f64 + step * ((point / SUPERSAMPLING) as f64 + 0.5) - center[1];
        covers(shape, right / radius, down / radius)
    });
    points.count() as f64 / (SUPERSAMPLING * SUPERSAMPLING) as f64
}

/// Whether a shape of radius 1 around the origin covers the point (x to the right, y down).
fn covers(shape: usize, x: f64, y: f64) -> bool {
    let distance = x.hypot(y);
    match shape {
        0 => distance <= 1.0,
        1 => x.abs().max(y.abs()) <= 0.88,
        2 => (-1.0..=0.8).contains(&y) && x.abs() <= (y + 1.0) / 1.8,
        3 => x.abs().max(y.abs()) <= 1.0 && x.abs().min(y.abs()) <= 0.34,
        _ => (0.55..=1.0).contains(&distance),
    }
}

/// The picture as a JPEG file with full color resolution.
pub fn encode(picture: &RgbImage) -> std::io::Result<Vec<u8>> {
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    encoder.set_size(picture.width() as usize, picture.height() as usize);
    encoder.set_quality(QUALITY);
    encoder.set_chroma_sampling_pixel_sizes((1, 1), (1, 1));
    let mut encoder = encoder.start_compress(Vec::new())?;
    encoder.write_scanlines(picture.as_raw())?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Object;

    fn mean(picture: &RgbImage, place: usize) -> [f64; 3] {
        let (left, top) = (place % 3 * CELL, place / 3 * CELL);
        let middle = (0..16).map(|index| (left + 6 + index % 4, top + 6 + index / 4));
        let sum = middle.fold([0.0; 3], |sum: [f64; 3], (x, y)| {
            let pixel = picture.get_pixel(x as u32, y as u32).0;
            std::array::from_fn(|channel| sum[channel] + f64::from(pixel[channel]))
        });
        sum.map(|channel| channel / 16.0)
    }

    #[test]
    fn an_object_has_its_color_in_the_middle_of_its_place() {
        let scene = Scene(vec![Object { place: 5, color: 2, shape: 1 }]);
        let mut sum = [0.0; 3];
        for index in 0..50 {
            let color = mean(&draw(&scene, &mut Draws::new(3, "test", &index.to_string())), 5);
            sum = std::array::from_fn(|channel| sum[channel] + color[channel] / 50.0);
        }
        let blue = COLORS[2].1;
        assert!((0..3).all(|channel| (sum[channel] - blue[channel]).abs() < 15.0), "{sum:?}");
    }

    #[test]
    fn shapes_cover_the_areas_that_geometry_gives_them() {
        let area = |shape| {
            let points = (0..40_000).filter(|point| {
                covers(shape, f64::from(point % 200) / 100.0 - 0.995, f64::from(point / 200) / 100.0 - 0.995)
            });
            points.count() as f64 / 10_000.0
        };
        let expected = [std::f64::consts::PI, 3.098, 1.8, 2.258, 2.191];
        for (shape, expected) in expected.into_iter().enumerate() {
            assert!((area(shape) - expected).abs() < 0.06, "{shape}: {}", area(shape));
        }
    }

    #[test]
    fn a_jpeg_file_keeps_the_picture_within_its_noise() {
        let scene = Scene::draw(&mut Draws::new(3, "test", "jpeg"), 5..=5);
        let picture = draw(&scene, &mut Draws::new(3, "test", "jpeg pixels"));
        let file = encode(&picture).unwrap();
        let decoder = mozjpeg::Decompress::new_mem(&file).unwrap();
        let decoded: Vec<[u8; 3]> = decoder.rgb().unwrap().read_scanlines().unwrap();
        let error: u32 = picture.pixels().zip(&decoded).map(|(a, b)| u32::from(a.0[1].abs_diff(b[1]))).sum();
        let error = f64::from(error) / decoded.len() as f64;
        assert!(error < PIXEL_NOISE / 2.0 && file.len() < 6_000, "error {error}, {} bytes", file.len());
    }
}
