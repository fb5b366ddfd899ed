//! Image features of a training's pictures, kept for as long as they will be needed again and while they fit.

use std::collections::HashMap;

use crate::model::ModelError;
use crate::model::contract::ImageFeatures;

/// The most that kept features take, in bytes of the device's memory.
const LIMIT: usize = 1 << 30;

/// The features of pictures, by the numbers of the pictures.
pub(super) struct FeatureCache<'a> {
    encode: &'a mut dyn FnMut(usize) -> Result<ImageFeatures, ModelError>,
    /// How often each picture will still be requested.
    uses: HashMap<usize, usize>,
    kept: HashMap<usize, ImageFeatures>,
    bytes: usize,
}

impl<'a> FeatureCache<'a> {
    /// An empty cache for `encode`; each of `pictures` will be requested once per occurrence, in
    /// each of `epochs`.
    pub fn new(
        encode: &'a mut dyn FnMut(usize) -> Result<ImageFeatures, ModelError>,
        pictures: impl Iterator<Item = usize>,
        epochs: usize,
    ) -> Self {
        let mut uses = HashMap::new();
        pictures.for_each(|picture| *uses.entry(picture).or_default() += epochs);
        Self { encode, uses, kept: HashMap::new(), bytes: 0 }
    }

    /// The features of `picture`.
    ///
    /// # Errors
    /// When the picture cannot be read.
    pub fn take(&mut self, picture: usize) -> Result<ImageFeatures, ModelError> {
        let uses = self.uses.entry(picture).or_default();
        *uses = uses.saturating_sub(1);
        let again = *uses > 0;
        if let Some(features) = self.kept.get(&picture) {
            let features = features.clone();
            if !again {
                self.kept.remove(&picture);
                self.bytes -= features.bytes();
            }
            return Ok(features);
        }
        let features = (self.encode)(picture)?;
        if again && self.bytes + features.bytes() <= LIMIT {
            self.bytes += features.bytes();
            self.kept.insert(picture, features.clone());
        }
        Ok(features)
    }
}
