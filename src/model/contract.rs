//! The contract between a family of models and everything that uses models.
//!
//! A [`Family`] reads a checkpoint's directory; a [`Model`] is what it loads; an [`ImageProcessor`] turns pictures into
//! what the model's tower reads. Generation, scoring, training, adapters and the command line know models through these
//! three alone. What a family may decide for itself: how many image tokens a picture takes (also by the other pictures
//! of the conversation and by settings), how they appear in the text, rotary positions, masks, the names of linear
//! layers and tensors, chat template and end tokens.
//!
//! # What is not there yet, and where it goes
//!
//! - Keys and values of an image that every layer attends to beside the sequence (LLaMA-Adapter): a field of
//!   [`ImageFeatures`], one entry per layer, which [`Batch`](super::batch::Batch) hands to [`Model::layer`] with
//!   [`Attention`].
//! - Decoder layers that differ in their linear layers: [`Shape::linears`] becomes a list per layer.
//! - Masks by span (images that see themselves as a whole): a span in [`Slot`], which
//!   [`Mask::new`](super::attention::Mask::new) compares. Sliding windows are supported; a cache that forgets what is
//!   outside the window, or a recurrent state, is another kind of [`LayerCache`].
//! - A model over several devices: [`Model::device`] takes the layer, and [`forward`](super::forward::forward) moves
//!   the hidden states.
//! - Weights in 4 bits: another [`Weight`](super::nn::Weight).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use image::RgbImage;

use super::ModelError;
use super::adapter::LayerAdapter;
use super::attention::{Attention, LayerCache, Position, Slot};
use super::sequence::Sequence;
pub use super::shape::{AdapterNames, ImageToken, LinearSpec, Shape};

/// A family of models: the checkpoints that one implementation reads.
pub trait Family: Send + Sync {
    /// The `model_type`s of `config.json` that are read.
    fn model_types(&self) -> &'static [&'static str];

    /// Whether checkpoints of this `model_type` are the family's, if only to be refused with a reason.
    fn recognizes(&self, model_type: &str) -> bool {
        self.model_types().contains(&model_type)
    }

    /// The sizes of the model in `folder`, from its configuration alone.
    ///
    /// # Errors
    /// When the configuration is broken or asks for what is not supported.
    fn shape(&self, folder: &Path) -> Result<Shape, ModelError>;

    /// Files of the directory that the family reads beside those of Hugging Face (configuration, tokenizer, processors and
    /// weights). They are part of the model's digest.
    fn files(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the checkpoint has every tensor that it needs, as its headers say: no tensor is read.
    ///
    /// # Errors
    /// As [`Family::load`].
    fn check(&self, folder: &Path) -> Result<(), ModelError>;

    /// Loads the checkpoint, tensor by tensor, with weights in `dtype`.
    ///
    /// # Errors
    /// When the configuration is broken; every tensor that is missing or of another shape.
    fn load(&self, folder: &Path, device: &Device, dtype: DType) -> Result<Arc<dyn Model>, ModelError>;

    /// The settings by which people may change how pictures are prepared. They are part of a node's key.
    fn image_settings(&self) -> &'static [ImageSetting];

    /// The checkpoint's image processor, changed by `settings`.
    ///
    /// # Errors
    /// When its files are broken, or the checkpoint cannot do what a setting asks for.
    fn image_processor(&self, folder: &Path, settings: &ImageSettings) -> Result<Box<dyn ImageProcessor>, ModelError>;

    /// The name of the chat template that the checkpoint is trained and evaluated with.
    ///
    /// # Errors
    /// When the configuration is broken.
    fn default_template(&self, folder: &Path) -> Result<&'static str, ModelError>;

    /// How PEFT adapters name the decoder's linear layers.
    fn adapter_names(&self) -> &'static AdapterNames;
}

/// A loaded model: a decoder, and a tower whose features take the places of image tokens.
pub trait Model: Send + Sync + fmt::Debug {
    /// Its sizes.
    fn shape(&self) -> &Shape;

    /// What users should know about the checkpoint: where its files contradict one another.
    fn notes(&self) -> &[String];

    /// The device of the weights.
    fn device(&self) -> Device;

    /// The precision of weights and activations.
    fn dtype(&self) -> DType;

    /// The features of each image.
    fn encode_images(&self, images: &[&ImageInput]) -> Vec<ImageFeatures>;

    /// The rows of the embedding for `tokens`, which are on the device, `[tokens, hidden]`.
    fn embedded(&self, tokens: Tensor<1, Int>) -> Tensor<2>;

    /// The rows of the embedding for `tokens`, `[tokens, hidden]`.
    ///
    /// # Panics
    /// When `tokens` is empty, or a token has no row.
    fn embed(&self, tokens: &[u32]) -> Tensor<2> {
        let rows = self.shape().vocabulary;
        let id = |token: &u32| {
            assert!((*token as usize) < rows, "token {token} has an embedding");
            *token as i32
        };
        let ids: Vec<i32> = tokens.iter().map(id).collect();
        self.embedded(Tensor::from_data(TensorData::new(ids, [tokens.len()]), &self.device()))
    }

    /// The rotary positions of a sequence, and the one at which decoding continues. By default, positions count from 0.
    fn positions(&self, sequence: &Sequence) -> (Vec<Position>, usize) {
        let length = sequence.positions();
        ((0..length).map(|index| [index; 3]).collect(), length)
    }

    /// What the layers need to know of slots: rotations of the queries, and which keys each query sees. With a cache,
    /// `keys` are its slots. `None` is padding or a slot that is not filled yet.
    ///
    /// `queries` and `keys` hold a row for each of the batch, or one row for all.
    fn attention(&self, queries: &[Vec<Option<Slot>>], keys: &[Vec<Option<Slot>>]) -> Attention;

    /// Empty KV caches, one per layer, for `batch` sequences of at most `capacity` positions.
    fn caches(&self, batch: usize, capacity: usize) -> Vec<LayerCache>;

    /// One decoder layer, differentiable in `hidden` and in `adapter`.
    ///
    /// With a cache, keys and values of `hidden` are appended to it, and as many of its slots are attended as
    /// `attention` was made for; without, the keys are those of `hidden`.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, length, hidden]`
    /// - returns: the same
    fn layer(
        &self,
        index: usize,
        hidden: Tensor<3>,
        attention: &Attention,
        adapter: Option<&LayerAdapter>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3>;

    /// The final norm and the head.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, hidden]`
    /// - returns: `[rows, vocabulary]`, 32 bits
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2>;
}

/// From pictures to what a tower reads.
pub trait ImageProcessor: Send + Sync {
    /// How the images of one conversation, given by width and height, appear in its text and in the decoder. Known
    /// before any tower runs.
    fn layout(&self, sizes: &[[u32; 2]]) -> Vec<ImageLayout>;

    /// What the tower reads of `image`, in `[pieces, …]`.
    fn pixels(&self, image: &RgbImage, layout: &ImageLayout) -> TensorData;

    /// The most image tokens that an image takes at any size.
    fn most_image_tokens(&self) -> usize;

    /// What the settings resolve to, by name: those of [`Family::image_settings`] that matter for this checkpoint, given or
    /// not. A node's key has those that differ from what the checkpoint does without settings.
    fn settings(&self) -> Vec<(&'static str, &'static str)>;
}

/// A setting of image processing.
#[derive(Debug)]
pub struct ImageSetting {
    /// Its key in a pipeline file.
    pub name: &'static str,
    /// Its values.
    pub values: &'static [&'static str],
    /// What it does: one line.
    pub help: &'static str,
}

/// Values of image settings that were given, by name.
pub type ImageSettings = BTreeMap<&'static str, &'static str>;

/// How an image appears in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayout {
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// What replaces the image token of the rendered text before it is tokenized: the image token once for every entry
    /// of `runs`, with the tokens around it.
    pub text: String,
    /// For every image token in `text` the rows and columns of the positions that it takes, `[1, n]` where they are in
    /// a line. They may be none at all.
    pub runs: Vec<[usize; 2]>,
    /// Columns and rows of the tiles that the tower reads beside the whole picture; `None` for towers without tiles.
    pub tiles: Option<[usize; 2]>,
    /// Rows and columns of the tower's grid of patches that show the image; the others are padding. Without padding, all:
    /// `[0..rows, 0..columns]`.
    pub shown: [Range<usize>; 2],
}

impl ImageLayout {
    /// How many positions the image takes in the decoder.
    pub fn image_tokens(&self) -> usize {
        self.runs.iter().map(|[rows, columns]| rows * columns).sum()
    }
}

/// An image as a tower reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInput {
    /// `[pieces, …]`: normalized pixels in the order of the tower.
    pub pixels: TensorData,
    /// How the image appears in a conversation.
    pub layout: ImageLayout,
}

impl ImageInput {
    /// How many pieces go through the tower: views, tiles or patches.
    pub fn pieces(&self) -> usize {
        self.pixels.shape()[0]
    }
}

/// The features of an image.
#[derive(Clone, Debug)]
pub struct ImageFeatures {
    /// In place of the image tokens, `[image tokens, hidden]`.
    pub rows: Tensor<2>,
    /// Added to the hidden states of the image tokens after the first decoder layers, one per layer, each of the shape
    /// of `rows`.
    pub added: Vec<Tensor<2>>,
}

impl ImageFeatures {
    /// How much memory they take.
    pub fn bytes(&self) -> usize {
        std::iter::once(&self.rows)
            .chain(&self.added)
            .map(|rows| rows.shape().num_elements() * rows.dtype().size())
            .sum()
    }
}
