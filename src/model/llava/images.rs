//! LLaVA's image processor: pictures cropped, padded, or cut into tiles, to the bit as the processors of LLaVA and
//! transformers do it with Pillow.
//!
//! Pictures come decoded, turned upright and in RGB.

use std::ops::Range;
use std::path::Path;

use burn::tensor::TensorData;
use image::imageops::{crop_imm, replace};
use image::{Rgb, RgbImage};
use serde_json::{Map, Value, json};

use super::config::{AnyresRule, Architecture, Config, IMAGE_TOKEN, ImageMode};
use crate::data::resample::{Filter, resize, resize_part};
use crate::model::ModelError;
use crate::model::contract::{ImageLayout, ImageProcessor, ImageSettings};
use crate::model::files::Fields;
use crate::model::files::json::{MOST_PIXELS, read_optional};

/// CLIP's mean of each channel.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's standard deviation of each channel.
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// How a checkpoint wants its pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct LlavaImageProcessor {
    mode: ImageMode,
    size: u32,
    patches_per_side: usize,
    class_token: bool,
    newline: bool,
    scale: Scale,
    filter: Filter,
    mean: [f32; 3],
    deviation: [f32; 3],
    /// The color of padding: the mean.
    background: Rgb<u8>,
    /// (width, height) in pixels.
    resolutions: Vec<[u32; 2]>,
    rule: AnyresRule,
}

/// The tower's views are cut by the processor's grid, and its rows put together by the model's: transformers computes
/// something else, or fails, where the two differ.
fn check_pinpoints(processor: &Map<String, Value>, config: &Config) -> Result<(), ModelError> {
    let name = "image_grid_pinpoints";
    let theirs = processor.get(name).filter(|value| !value.is_null() && !config.grid_pinpoints.is_empty());
    match theirs {
        Some(value) if *value != json!(config.grid_pinpoints) => {
            let message = format!("`{name}` is {value}, and in `config.json` {}", json!(config.grid_pinpoints));
            Err(ModelError::new(message).help("make both the list that the model was trained with"))
        }
        _ => Ok(()),
    }
}

/// How mode `crop` scales before it cuts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    ShortestSide(u32),
    Exactly(u32, u32),
}

impl LlavaImageProcessor {
    /// The processor of the checkpoint in `folder`, with `settings` overriding its own. The side of a view
    /// is the tower's.
    ///
    /// # Errors
    /// When a file is not JSON, or asks for something unsupported; when the checkpoint has no tiles and `anyres` is
    /// asked for.
    pub fn read(folder: &Path, settings: &ImageSettings) -> Result<Self, ModelError> {
        let mut config = Config::read(folder)?;
        let set = |name: &str| settings.get(name).copied();
        let rule = AnyresRule::ALL.into_iter().find(|rule| set("anyres_rule") == Some(rule.name()));
        config.anyres_rule = rule.unwrap_or(config.anyres_rule);
        let mut processor = Self::of_checkpoint(folder, &config)?;
        let mode = ImageMode::ALL.into_iter().find(|mode| set("image_mode") == Some(mode.name()));
        processor.mode = mode.unwrap_or(processor.mode);
        if processor.mode == ImageMode::Anyres && config.grid_pinpoints.is_empty() {
            return Err(ModelError::new(format!(
                "{}: `anyres` needs a `llava_next` checkpoint, which this is not",
                folder.display()
            ))
            .help("choose `crop` or `pad`, or leave the image mode to the checkpoint"));
        }
        Ok(processor)
    }

    /// Reads `image_processor` of `processor_config.json` in `folder`, where transformers 5 keeps it, or else
    /// `preprocessor_config.json`. Without either, CLIP's values hold.
    fn of_checkpoint(folder: &Path, config: &Config) -> Result<Self, ModelError> {
        let mut processor = Self::new(config);
        let (path, nested) = (folder.join("preprocessor_config.json"), folder.join("processor_config.json"));
        let inside = read_optional(&nested)?.and_then(|mut object| object.remove("image_processor"));
        let (path, object) = match inside {
            Some(Value::Object(object)) => (nested, object),
            _ => match read_optional(&path)? {
                Some(object) => (path, object),
                None => return Ok(processor),
            },
        };
        processor
            .apply(&object)
            .and_then(|()| check_pinpoints(&object, config))
            .map(|()| processor)
            .map_err(|error| error.of(&path))
    }

    /// What holds without a file.
    pub(super) fn new(config: &Config) -> Self {
        let size = config.vision.image_size as u32;
        let resolutions = if config.grid_pinpoints.is_empty() {
            // LLaVA-1.6's grid, in views.
            [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]].map(|[width, height]| [width * size, height * size]).to_vec()
        } else {
            let stored = config.grid_pinpoints.iter();
            match config.anyres_rule {
                AnyresRule::Original => stored.copied().collect(),
                AnyresRule::HuggingFace => stored.map(|&[height, width]| [width, height]).collect(),
            }
        };
        Self {
            mode: match config.architecture {
                Architecture::Llava => ImageMode::Crop,
                Architecture::LlavaNext => ImageMode::Anyres,
            },
            size,
            patches_per_side: config.vision.patches_per_side(),
            class_token: !config.drop_class_token,
            newline: config.image_newline,
            scale: Scale::ShortestSide(size),
            filter: Filter::Bicubic,
            mean: MEAN,
            deviation: DEVIATION,
            background: Rgb([122, 116, 104]),
            resolutions,
            rule: config.anyres_rule,
        }
    }

    fn apply(&mut self, object: &Map<String, Value>) -> Result<(), ModelError> {
        let fields = Fields::of(object);
        for name in ["do_resize", "do_center_crop", "do_rescale", "do_normalize"] {
            if !fields.flag(name, true)? {
                return Err(ModelError::new(format!("unsupported `{name}`: `false`")));
            }
        }
        let clips = fields.string("image_processor_type", "")?.starts_with("CLIPImageProcessor");
        if self.mode == ImageMode::Crop && !clips && fields.flag("do_pad", false)? {
            self.mode = ImageMode::Pad;
        }
        match object.get("resample").filter(|value| !value.is_null()) {
            None => {}
            Some(value) => {
                self.filter = match value.as_u64() {
                    Some(2) => Filter::Bilinear,
                    Some(3) => Filter::Bicubic,
                    _ => {
                        return Err(ModelError::new(format!("unsupported `resample`: `{value}`"))
                            .help("supported: 2 (bilinear) and 3 (bicubic)"));
                    }
                };
            }
        }
        let factor = fields.number("rescale_factor", 1.0 / 255.0, 256.0)?;
        if (factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(ModelError::new(format!("unsupported `rescale_factor`: `{factor}`")).help("supported: 1 / 255"));
        }
        self.scale = match object.get("size") {
            Some(Value::Object(_)) => {
                let empty = Map::new();
                let size = fields.object("size", &empty)?;
                let side = self.size as usize;
                if size.get("shortest_edge").is_some() {
                    Scale::ShortestSide(size.positive("shortest_edge", side, MOST_PIXELS)? as u32)
                } else if size.get("width").is_some() && size.get("height").is_some() {
                    Scale::Exactly(
                        size.positive("width", side, MOST_PIXELS)? as u32,
                        size.positive("height", side, MOST_PIXELS)? as u32,
                    )
                } else {
                    return Err(ModelError::new(format!("unsupported `size`: `{}`", Value::Object(size.map.clone())))
                        .help("supported: a number, `shortest_edge`, or `height` and `width`"));
                }
            }
            _ => Scale::ShortestSide(fields.positive("size", self.size as usize, MOST_PIXELS)? as u32),
        };
        let empty = Map::new();
        let cut = match object.get("crop_size") {
            Some(Value::Object(_)) => {
                let cut = fields.object("crop_size", &empty)?;
                ["height", "width"].map(|name| cut.positive(name, self.size as usize, MOST_PIXELS))
            }
            _ => ["crop_size"; 2].map(|name| fields.positive(name, self.size as usize, MOST_PIXELS)),
        };
        for side in cut {
            let side = side?;
            if side != self.size as usize {
                return Err(ModelError::new(format!(
                    "`crop_size` is {side} pixels, but the views of `config.json` have {}",
                    self.size
                ))
                .help("`crop_size` and `vision_config.image_size` belong together"));
            }
        }
        let three = |name: &str| -> Result<Option<[f64; 3]>, ModelError> {
            let Some(value) = object.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
            serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|_| ModelError::new(format!("`{name}` is {value}, not three numbers")))
        };
        if let Some(mean) = three("image_mean")? {
            self.mean = mean.map(|mean| mean as f32);
            // In 64 bits: 76 / 255 · 255 is 76, not a little less.
            self.background = Rgb(mean.map(|mean| (mean * 255.0) as u8));
        }
        if let Some(deviation) = three("image_std")? {
            self.deviation = deviation.map(|deviation| deviation as f32);
        }
        if self.deviation.iter().any(|deviation| *deviation <= 0.0) {
            return Err(ModelError::new("`image_std` has a number that is not above zero"));
        }
        Ok(())
    }
}

impl ImageProcessor for LlavaImageProcessor {
    fn layout(&self, sizes: &[[u32; 2]]) -> Vec<ImageLayout> {
        sizes.iter().map(|size| self.layout_of(*size)).collect()
    }

    /// The whole picture first, then its tiles, row by row: `[views, 3, size, size]`, normalized.
    fn pixels(&self, image: &RgbImage, layout: &ImageLayout) -> TensorData {
        let views = match (self.mode, layout.tiles) {
            (ImageMode::Anyres, Some(tiles)) => {
                let (width, height) = match self.scale {
                    Scale::Exactly(width, height) => (width, height),
                    Scale::ShortestSide(side) => (side, side),
                };
                let whole = resize(image, width, height, self.filter);
                let mut views = vec![cropped(&whole, self)];
                views.extend(self::tiles(image, tiles.map(|count| count as u32 * self.size), self));
                views
            }
            (ImageMode::Pad, _) => vec![padded(image, self)],
            _ => vec![cropped(image, self)],
        };
        let size = self.size as usize;
        let values: Vec<f32> = views.iter().flat_map(|view| normalized(view, self)).collect();
        TensorData::new(values, [views.len(), 3, size, size])
    }

    fn most_image_tokens(&self) -> usize {
        let sizes = self.resolutions.iter().copied().chain([[1, 1]]);
        sizes.map(|size| self.layout_of(size).image_tokens()).max().unwrap_or_default()
    }

    /// The rule is of no account in another mode.
    fn settings(&self) -> Vec<(&'static str, &'static str)> {
        let rule = (self.mode == ImageMode::Anyres).then_some(("anyres_rule", self.rule.name()));
        std::iter::once(("image_mode", self.mode.name())).chain(rule).collect()
    }
}

impl LlavaImageProcessor {
    fn layout_of(&self, size: [u32; 2]) -> ImageLayout {
        let side = self.patches_per_side;
        let view = side * side + usize::from(self.class_token);
        let layout = |tokens, tiles, shown| ImageLayout {
            size,
            text: IMAGE_TOKEN.to_owned(),
            runs: vec![[1, tokens]],
            tiles,
            shown,
        };
        if self.mode != ImageMode::Anyres {
            return layout(view, None, [0..side, 0..side]);
        }
        let [width, height] = size;
        let tiles = best_resolution(width, height, &self.resolutions).map(|pixels| (pixels / self.size) as usize);
        let [rows, columns] = unpadded(tiles[1] * side, tiles[0] * side, size, self.rule);
        layout(view + rows.len() * (columns.len() + usize::from(self.newline)), Some(tiles), [rows, columns])
    }
}

/// The shortest side scaled, the center cut out, as CLIP's processor does it; everything outside is black. Of a picture
/// that has its scale already, the center.
fn cropped(picture: &RgbImage, processor: &LlavaImageProcessor) -> RgbImage {
    let (width, height) = picture.dimensions();
    let (short, long) = (width.min(height), width.max(height));
    let [new_width, new_height] = match processor.scale {
        Scale::Exactly(width, height) => [width, height],
        Scale::ShortestSide(side) => {
            let long = (u64::from(side) * u64::from(long) / u64::from(short)) as u32;
            if width <= height { [side, long] } else { [long, side] }
        }
    };
    let size = processor.size;
    // A cut takes from the middle, rounding down; too small a picture is padded before it, rounding up.
    let part = |scaled: u32| {
        let first = scaled.saturating_sub(size) / 2;
        first..first + scaled.min(size)
    };
    let place = |scaled: u32| i64::from((size.saturating_sub(scaled)).div_ceil(2));
    // Of a line of 65,535 pixels scaled to the height of a view only the middle is ever made.
    let middle = resize_part(picture, [new_width, new_height], [part(new_width), part(new_height)], processor.filter);
    let mut view = RgbImage::new(size, size);
    replace(&mut view, &middle, place(new_width), place(new_height));
    view
}

/// Padded to a square with the mean color, scaled and cut. The padded picture is never whole in memory: a line of
/// 65,535 pixels would make a square of 13 gigabytes. Rows are scaled one by one in the first pass, so bands give its
/// bits.
fn padded(picture: &RgbImage, processor: &LlavaImageProcessor) -> RgbImage {
    const BAND: u32 = 256;
    let (width, height) = picture.dimensions();
    let (side, filter) = (width.max(height), processor.filter);
    let (new_width, new_height) = match processor.scale {
        Scale::Exactly(width, height) => (width, height),
        Scale::ShortestSide(side) => (side, side),
    };
    let (left, top) = ((side - width) / 2, (side - height) / 2);
    let mut narrow = RgbImage::from_pixel(new_width, side, processor.background);
    for first in (0..height).step_by(BAND as usize) {
        let count = BAND.min(height - first);
        let mut band = RgbImage::from_pixel(side, count, processor.background);
        replace(&mut band, &*crop_imm(picture, 0, first, width, count), i64::from(left), 0);
        replace(&mut narrow, &resize(&band, new_width, count, filter), 0, i64::from(top + first));
    }
    cropped(&resize(&narrow, new_width, new_height, filter), processor)
}

/// The resolution that shows most of the picture; of those, the one that wastes least; of those, the first.
fn best_resolution(width: u32, height: u32, resolutions: &[[u32; 2]]) -> [u32; 2] {
    let (mut best, mut most, mut least) = (resolutions[0], 0, u64::MAX);
    for &[grid_width, grid_height] in resolutions {
        let (across, down) = (f64::from(grid_width) / f64::from(width), f64::from(grid_height) / f64::from(height));
        let scale = across.min(down);
        let scaled = ((f64::from(width) * scale) as u64) * ((f64::from(height) * scale) as u64);
        let effective = scaled.min(u64::from(width) * u64::from(height));
        let wasted = u64::from(grid_width) * u64::from(grid_height) - effective;
        if effective > most || (effective == most && wasted < least) {
            (best, most, least) = ([grid_width, grid_height], effective, wasted);
        }
    }
    best
}

/// The size at which a picture fits into a resolution. The reference's arithmetic to the bit: 200 · (336 / 300) is a
/// little above 224 and gives 225.
fn fitted(width: u32, height: u32, [grid_width, grid_height]: [u32; 2]) -> [u32; 2] {
    let (across, down) = (f64::from(grid_width) / f64::from(width), f64::from(grid_height) / f64::from(height));
    if across < down {
        [grid_width, ((f64::from(height) * across).ceil() as u32).min(grid_height)]
    } else {
        [((f64::from(width) * down).ceil() as u32).min(grid_width), grid_height]
    }
}

fn tiles(picture: &RgbImage, resolution: [u32; 2], processor: &LlavaImageProcessor) -> Vec<RgbImage> {
    let [grid_width, grid_height] = resolution;
    let size = processor.size;
    let canvas = pasted(picture, resolution, processor);
    let mut tiles = Vec::new();
    for y in (0..grid_height).step_by(size as usize) {
        for x in (0..grid_width).step_by(size as usize) {
            let tile = crop_imm(&canvas, x, y, size, size).to_image();
            tiles.push(cropped(&tile, processor));
        }
    }
    tiles
}

/// The picture scaled to fit and pasted on black; the odd line or column of padding comes after it.
fn pasted(picture: &RgbImage, resolution: [u32; 2], processor: &LlavaImageProcessor) -> RgbImage {
    let [new_width, new_height] = fitted(picture.width(), picture.height(), resolution);
    let scaled = resize(picture, new_width, new_height, processor.filter);
    let (left, top) = ((resolution[0] - new_width) / 2, (resolution[1] - new_height) / 2);
    let mut canvas = RgbImage::new(resolution[0], resolution[1]);
    replace(&mut canvas, &scaled, i64::from(left), i64::from(top));
    canvas
}

/// The lines and columns of a `lines` × `columns` grid that a picture of this width and height fills.
fn unpadded(lines: usize, columns: usize, picture: [u32; 2], rule: AnyresRule) -> [Range<usize>; 2] {
    let [width, height] = picture.map(f64::from);
    let scaled = |side: f64, scale: f64| match rule {
        AnyresRule::Original => (side * scale) as usize,
        AnyresRule::HuggingFace => ((side * scale * 1e7).round_ties_even() / 1e7) as usize,
    };
    let centered = |total: usize, kept: usize| {
        let padding = total.saturating_sub(kept) / 2;
        padding..total - padding
    };
    if width / height > columns as f64 / lines as f64 {
        [centered(lines, scaled(height, columns as f64 / width)), 0..columns]
    } else {
        [0..lines, centered(columns, scaled(width, lines as f64 / height))]
    }
}

/// `[3, size, size]`: 8-bit levels as parts of 255, less the mean, by the deviation, in 32 bits like numpy's.
fn normalized<'a>(view: &'a RgbImage, processor: &'a LlavaImageProcessor) -> impl Iterator<Item = f32> + 'a {
    (0..3).flat_map(move |channel| {
        let (mean, deviation) = (processor.mean[channel], processor.deviation[channel]);
        view.pixels().map(move |pixel| ((f64::from(pixel[channel]) / 255.0) as f32 - mean) / deviation)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::resample::tests::{ramps, sums};

    /// The processor of LLaVA-1.6 under either rule.
    fn processor(rule: AnyresRule) -> LlavaImageProcessor {
        let folder = tempfile::tempdir().expect("a directory");
        let vision = json!({ "image_size": 336, "patch_size": 14 });
        let config = json!({ "model_type": "llava_next", "vision_config": vision });
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
        let config = Config { anyres_rule: rule, ..Config::read(folder.path()).expect("sound") };
        LlavaImageProcessor::new(&config)
    }

    /// What the tower reads of `picture` in `mode`, `[views, 3, size, size]`.
    fn pixels(processor: &LlavaImageProcessor, mode: ImageMode, picture: &RgbImage) -> (Vec<f32>, [usize; 4]) {
        let processor = LlavaImageProcessor { mode, ..processor.clone() };
        let layout = processor.layout_of(picture.dimensions().into());
        let pixels = processor.pixels(picture, &layout);
        let shape = pixels.shape().dims();
        (pixels.try_into_vec().expect("floats"), shape)
    }

    fn image_tokens(processor: &LlavaImageProcessor, mode: ImageMode, width: u32, height: u32) -> usize {
        LlavaImageProcessor { mode, ..processor.clone() }.layout_of([width, height]).image_tokens()
    }

    #[test]
    fn padded_pictures_equal_the_golden_values_at_any_shape() {
        let processor = processor(AnyresRule::Original);
        assert_eq!(sums(&padded(&ramps(50, 30), &processor)), [13_999_165, 15_339_811, 11_299_594]);
        assert_eq!(sums(&padded(&ramps(641, 480), &processor)), [14_237_363, 14_073_163, 13_689_553]);
        let (values, [_, _, size, _]) = pixels(&processor, ImageMode::Pad, &ramps(50, 30));
        let expected = [-0.040_451, -0.401_398, -1.110_498];
        for (channel, expected) in expected.into_iter().enumerate() {
            let found = values[(channel * size + 80) * size + 100];
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        // Tall and wide alike, and in more than one band.
        let tall = padded(&ramps(30, 700), &processor);
        let mut square = RgbImage::from_pixel(700, 700, Rgb([122, 116, 104]));
        replace(&mut square, &ramps(30, 700), 335, 0);
        assert_eq!(tall, resize(&square, 336, 336, Filter::Bicubic));
    }

    /// What `tests/reference/processors.py` wrote of one processor and one picture.
    #[derive(serde::Deserialize)]
    struct Case {
        mode: String,
        size: Value,
        picture: [u32; 2],
        /// Of the levels of each channel over all views.
        sums: [u64; 3],
    }

    #[test]
    fn views_are_scaled_to_size_and_cut_as_transformers_does_it() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../../tests/reference/processors.json")).expect("JSON");
        for Case { mode, size, picture: [width, height], sums: expected } in cases {
            let mut processor = processor(AnyresRule::HuggingFace);
            let settings = json!({ "size": size, "crop_size": { "height": 336, "width": 336 } });
            processor.apply(settings.as_object().expect("an object")).expect("sound");
            let mode = ImageMode::ALL.into_iter().find(|known| known.name() == mode).expect("a mode");
            let (views, [_, _, size, _]) = pixels(&processor, mode, &ramps(width, height));
            let mut sums = [0; 3];
            for (index, channel) in views.chunks_exact(size * size).enumerate() {
                let (mean, deviation) = (MEAN[index % 3], DEVIATION[index % 3]);
                let level = |value: &f32| ((value * deviation + mean) * 255.0).round() as u64;
                sums[index % 3] += channel.iter().map(level).sum::<u64>();
            }
            assert_eq!(sums, expected, "{mode:?} {width}×{height} {settings}");
        }
    }

    #[test]
    fn a_processor_pads_where_transformers_does() {
        let mode = |settings: Value| {
            let config = json!({ "model_type": "llava" });
            let folder = tempfile::tempdir().expect("a directory");
            std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
            std::fs::write(folder.path().join("preprocessor_config.json"), settings.to_string()).expect("written");
            LlavaImageProcessor::read(folder.path(), &ImageSettings::new()).expect("sound")
        };
        assert_eq!(mode(json!({ "do_pad": true })).mode, ImageMode::Pad);
        assert_eq!(mode(json!({ "do_pad": true, "image_processor_type": "LlavaImageProcessor" })).mode, ImageMode::Pad);
        // CLIP's own processor knows no such setting.
        assert_eq!(mode(json!({ "do_pad": true, "image_processor_type": "CLIPImageProcessor" })).mode, ImageMode::Crop);
        // transformers 5 nests the settings, and then these win.
        let nested = |settings: Value| {
            let folder = tempfile::tempdir().expect("a directory");
            let write = |name: &str, value: Value| {
                std::fs::write(folder.path().join(name), value.to_string()).expect("written");
            };
            write("config.json", json!({ "model_type": "llava" }));
            write("preprocessor_config.json", json!({ "do_pad": true }));
            write("processor_config.json", settings);
            LlavaImageProcessor::read(folder.path(), &ImageSettings::new()).expect("sound").mode
        };
        assert_eq!(nested(json!({ "image_processor": { "do_pad": false } })), ImageMode::Crop);
        assert_eq!(nested(json!({ "image_processor": { "do_pad": true } })), ImageMode::Pad);
        assert_eq!(nested(json!({ "patch_size": 14 })), ImageMode::Pad);
        let mean = json!({ "image_mean": [0.1, 0.7, 76.0 / 255.0] });
        assert_eq!(mode(mean).background, Rgb([25, 178, 76]));
    }

    #[test]
    fn a_grid_of_the_processor_that_is_not_the_models_is_refused() {
        let folder = tempfile::tempdir().expect("a directory");
        let write = |name: &str, value: Value| {
            std::fs::write(folder.path().join(name), value.to_string()).expect("written");
        };
        write("config.json", json!({ "model_type": "llava_next", "image_grid_pinpoints": [[336, 672]] }));
        let read = |settings: Value| {
            write("preprocessor_config.json", settings);
            LlavaImageProcessor::read(folder.path(), &ImageSettings::new())
        };
        assert!(read(json!({ "image_grid_pinpoints": [[336, 672]] })).is_ok() && read(json!({})).is_ok());
        let error = read(json!({ "image_grid_pinpoints": [[672, 336]] })).expect_err("refused").message;
        assert!(error.ends_with("`image_grid_pinpoints` is [[672,336]], and in `config.json` [[336,672]]"), "{error}");
    }

    #[test]
    fn tiles_equal_the_golden_values() {
        let processor = processor(AnyresRule::Original);
        let check = |width, height, best: [u32; 2], views, base: [u64; 3], padded_sums: [u64; 3]| {
            let picture = ramps(width, height);
            let resolution = best_resolution(width, height, &processor.resolutions);
            assert_eq!(resolution, best);
            assert_eq!(sums(&resize(&picture, 336, 336, Filter::Bicubic)), base);
            assert_eq!(sums(&pasted(&picture, resolution, &processor)), padded_sums);
            assert_eq!(pixels(&processor, ImageMode::Anyres, &picture).1[0], views);
        };
        check(641, 480, [672, 672], 5, [14_388_512, 14_394_181, 14_343_075], [43_186_410, 43_209_934, 43_026_332]);
        check(300, 200, [336, 672], 3, [14_390_208, 14_409_054, 14_297_175], [9_639_652, 9_652_793, 9_575_347]);
        check(500, 1300, [336, 1008], 4, [14_394_189, 14_396_717, 14_343_726], [37_442_106, 37_448_913, 37_309_693]);
    }

    #[test]
    fn rows_are_as_many_as_both_references_count() {
        // Width and height, the original repository's count, transformers'.
        let golden = [
            (640, 480, 2340, 2340),
            (480, 640, 2352, 2352),
            (640, 427, 2144, 2144),
            (427, 640, 2160, 2160),
            (1000, 1000, 2928, 2928),
            (337, 337, 2928, 2928),
            (336, 336, 1176, 1176),
            (300, 200, 976, 1464),
            (200, 300, 1476, 984),
            (50, 20, 826, 1556),
            (1, 1, 1176, 1176),
            (1920, 1080, 1948, 1948),
            (2000, 500, 1890, 1890),
            (500, 2000, 1944, 1944),
            (4000, 300, 1014, 1014),
            (1500, 667, 1896, 1896),
            (1024, 899, 2634, 2634),
            (704, 396, 1850, 1948),
            (396, 704, 1872, 1968),
            (352, 748, 1826, 1876),
            (748, 352, 1800, 1848),
        ];
        let (original, hugging_face) = (processor(AnyresRule::Original), processor(AnyresRule::HuggingFace));
        for (width, height, by_original, by_hugging_face) in golden {
            assert_eq!(image_tokens(&original, ImageMode::Anyres, width, height), by_original, "{width}×{height}");
            assert_eq!(
                image_tokens(&hugging_face, ImageMode::Anyres, width, height),
                by_hugging_face,
                "{width}×{height}"
            );
        }
        assert_eq!(image_tokens(&original, ImageMode::Crop, 640, 480), 576);
    }

    /// 2,000 random sizes, at LLaVA's tower and at a tiny one; `tests/reference/anyres.py` counted.
    #[test]
    fn rows_of_random_sizes_are_as_many_as_both_references_count() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/llava_next");
        let small =
            |anyres_rule| LlavaImageProcessor::new(&Config { anyres_rule, ..Config::read(&folder).expect("sound") });
        let rules = [AnyresRule::HuggingFace, AnyresRule::Original];
        let processors = [rules.map(processor), rules.map(small)];
        let lines = include_str!("../../../tests/reference/anyres_counts.txt").lines();
        let mut differ = [0; 2];
        for line in lines.clone() {
            let numbers: Vec<usize> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
            let (width, height) = (numbers[0] as u32, numbers[1] as u32);
            let found = processors.iter().flatten();
            let found = found.map(|processor| image_tokens(processor, ImageMode::Anyres, width, height));
            assert_eq!(found.collect::<Vec<_>>(), numbers[2..], "{width}×{height}");
            differ[0] += usize::from(numbers[2] != numbers[3]);
            differ[1] += usize::from(numbers[4] != numbers[5]);
        }
        assert_eq!(lines.count(), 2000);
        assert!(differ.iter().all(|count| *count > 50), "the rules differ: {differ:?}");
    }

    #[test]
    fn the_longest_pictures_are_prepared_in_every_mode() {
        let processor = processor(AnyresRule::HuggingFace);
        for (width, height) in [(20_000, 1), (1, 20_000), (1, 1)] {
            let picture = ramps(width, height);
            for mode in ImageMode::ALL {
                let (_, shape) = pixels(&processor, mode, &picture);
                assert_eq!(shape[1..], [3, 336, 336], "{width}×{height} {mode:?}");
            }
        }
    }

    #[test]
    fn a_processor_that_asks_for_something_else_is_refused_by_name() {
        let mut processor = processor(AnyresRule::HuggingFace);
        let mut message =
            |value: Value| processor.apply(value.as_object().expect("an object")).expect_err("refused").message;
        assert_eq!(message(json!({ "do_normalize": false })), "unsupported `do_normalize`: `false`");
        assert_eq!(message(json!({ "resample": 1 })), "unsupported `resample`: `1`");
        assert_eq!(message(json!({ "size": { "longest_edge": 9 } })), "unsupported `size`: `{\"longest_edge\":9}`");
        let other = message(json!({ "size": 336, "crop_size": { "height": 224, "width": 224 } }));
        assert_eq!(other, "`crop_size` is 224 pixels, but the views of `config.json` have 336");
        assert_eq!(message(json!({ "image_std": [1, 2] })), "`image_std` is [1,2], not three numbers");
    }
}
