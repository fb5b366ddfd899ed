//! From a picture to what the tower reads.

use super::llava::{AnyresRule, ImageMode};

/// A picture as the tower reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// `[views, 3, size, size]`, normalised.
    pub views: Vec<f32>,
    /// How many views.
    pub view_count: usize,
    /// Side of a view in pixels.
    pub size: usize,
    /// Width and height of the picture in pixels.
    pub original: [u32; 2],
    /// How it was prepared.
    pub mode: ImageMode,
    /// Columns and rows of tiles, in mode `anyres`; the tiles are the views after the first.
    pub grid: Option<[u32; 2]>,
    /// Whose arithmetic was followed.
    pub rule: AnyresRule,
}

impl Prepared {
    /// What remains of the grid of patches without the padding, when a view has `side` patches a side: (first, count)
    /// of its lines and of its columns.
    pub fn unpadded(&self, side: usize) -> ([usize; 2], [usize; 2]) {
        let [columns, lines] = self.grid.unwrap_or([1, 1]);
        let [width, height] = self.original;
        unpadded(lines as usize * side, columns as usize * side, width, height, self.rule)
    }
}

/// (first, count) of the lines and columns of a `lines` × `columns` grid that a picture of `width` × `height` fills.
fn unpadded(lines: usize, columns: usize, width: u32, height: u32, rule: AnyresRule) -> ([usize; 2], [usize; 2]) {
    let (width, height) = (f64::from(width), f64::from(height));
    let scaled = |side: f64, scale: f64| match rule {
        AnyresRule::Original => (side * scale) as usize,
        AnyresRule::HuggingFace => ((side * scale * 1e7).round_ties_even() / 1e7) as usize,
    };
    let centred = |total: usize, kept: usize| {
        let padding = total.saturating_sub(kept) / 2;
        [padding, total - 2 * padding]
    };
    if width / height > columns as f64 / lines as f64 {
        (centred(lines, scaled(height, columns as f64 / width)), [0, columns])
    } else {
        ([0, lines], centred(columns, scaled(width, lines as f64 / height)))
    }
}
