//! LLaVA: a CLIP tower, a projector, a Llama or Mistral decoder.
//!
//! This module turns prepared pictures and tokens into rows of the decoder's space and runs the decoder's layers. It
//! does not know prompts, sampling, losses or how an adapter is stored.

mod config;
mod decoder;
mod projector;
mod read;
mod vision;
mod weights;

pub use config::{Activation, AnyresRule, Architecture, Config, ImageMode, TextConfig, VisionConfig};
pub use decoder::{AttentionMask, Decoder, LayerCache, Rotary};
pub use projector::Projector;
pub(crate) use read::{Fields, MOST_PIXELS, read_object};
pub use vision::Vision;
pub use weights::Weights;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::ModelError;
use super::picture::Prepared;

/// Where a model's tensors come from. Names are those of Hugging Face's first generation
/// (`language_model.model.layers.0.self_attn.q_proj.weight`); [`Config::tensors`] lists them.
pub trait Tensors {
    /// The vector `name`.
    ///
    /// # Errors
    /// When there is none of this shape.
    fn vector(&mut self, name: &str, shape: [usize; 1]) -> Result<Tensor<1>, ModelError>;

    /// The matrix `name`, `[out, in]` for a linear layer.
    ///
    /// # Errors
    /// When there is none of this shape.
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, ModelError>;

    /// The kernel `name` of a convolution, `[out, in, height, width]`.
    ///
    /// # Errors
    /// When there is none of this shape.
    fn kernel(&mut self, name: &str, shape: [usize; 4]) -> Result<Tensor<4>, ModelError>;
}

/// Tensors by name, flattened: [`Tensors`] for weights that are made rather than loaded, tracked ones included.
impl Tensors for BTreeMap<String, Tensor<1>> {
    fn vector(&mut self, name: &str, shape: [usize; 1]) -> Result<Tensor<1>, ModelError> {
        flat(self, name, shape)
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, ModelError> {
        flat(self, name, shape)
    }

    fn kernel(&mut self, name: &str, shape: [usize; 4]) -> Result<Tensor<4>, ModelError> {
        flat(self, name, shape)
    }
}

fn flat<const D: usize>(
    tensors: &BTreeMap<String, Tensor<1>>,
    name: &str,
    shape: [usize; D],
) -> Result<Tensor<D>, ModelError> {
    let tensor = tensors.get(name).ok_or_else(|| ModelError::new(format!("no tensor `{name}`")))?;
    let (expected, found) = (shape.iter().product::<usize>(), tensor.dims()[0]);
    if expected != found {
        return Err(ModelError::new(format!("tensor `{name}`: expected {shape:?}, found {found} values")));
    }
    Ok(tensor.clone().reshape(shape))
}

/// A LLaVA model on a device.
#[derive(Clone, Debug)]
pub struct Llava {
    /// Its configuration.
    pub config: Config,
    /// The tower.
    pub vision: Vision,
    /// From the tower's features to the decoder's space.
    pub projector: Projector,
    /// The row that ends a line of patches, `[hidden]`.
    pub newline: Option<Tensor<1>>,
    /// The decoder.
    pub decoder: Decoder,
    /// What people should know of the checkpoint: where its files contradict one another.
    pub notes: Vec<String>,
}

impl Llava {
    /// Loads the checkpoint in `folder`, tensor by tensor, with weights in `dtype`.
    ///
    /// # Errors
    /// What [`Config::read`] and [`Weights::open`] refuse; every tensor that is missing or of another shape.
    pub fn load(folder: &Path, device: &Device, dtype: DType) -> Result<Self, ModelError> {
        let mut config = Config::read(folder)?;
        let mut weights = Weights::open(folder, device, dtype)?;
        let notes = settle_head(&mut config, &mut weights)?.into_iter().collect();
        weights.check(&config.tensors())?;
        Ok(Self { notes, ..Self::build(&config, &mut weights)? })
    }

    /// Whether the checkpoint in `folder` has all that it needs, as its headers say: no tensor is read.
    ///
    /// # Errors
    /// As [`Llava::load`].
    pub fn check(folder: &Path) -> Result<(), ModelError> {
        let mut config = Config::read(folder)?;
        // Of the device nothing is asked.
        let mut weights = Weights::open(folder, &Device::flex(), DType::F32)?;
        settle_head(&mut config, &mut weights)?;
        weights.check(&config.tensors())
    }

    /// Builds the model from tensors of any source. Built from tracked tensors it is differentiable in all of them.
    ///
    /// # Errors
    /// Those of `tensors`.
    pub fn build(config: &Config, tensors: &mut dyn Tensors) -> Result<Self, ModelError> {
        let vision = Vision::build(config, tensors)?;
        let projector = Projector::build(config, tensors)?;
        let newline =
            if config.image_newline { Some(tensors.vector("image_newline", [config.text.hidden])?) } else { None };
        let decoder = Decoder::build(&config.text, tensors)?;
        Ok(Self { config: config.clone(), vision, projector, newline, decoder, notes: Vec::new() })
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.decoder.device()
    }

    /// The precision of weights and activations.
    pub fn dtype(&self) -> DType {
        self.decoder.dtype()
    }

    /// What the tower makes of a picture: `[views, patches, vision hidden]`, before the projector.
    pub fn patches(&self, picture: &Prepared) -> Tensor<3> {
        let shape = [picture.view_count, 3, picture.size, picture.size];
        let views = TensorData::new(picture.views.clone(), shape);
        self.vision.forward(Tensor::from_data(views, (&self.device(), self.dtype())))
    }

    /// The rows that stand for a picture in the sequence: projected, unpadded, lines ended.
    ///
    /// # Shapes
    /// - `patches`: as [`Llava::patches`] gives them
    /// - returns: `[rows, hidden]`; their number is [`row_count`](super::picture::row_count)
    pub fn rows(&self, patches: Tensor<3>, picture: &Prepared) -> Tensor<2> {
        let [views, patch_count, features] = patches.dims();
        let hidden = self.config.text.hidden;
        let rows = self.projector.forward(patches.reshape([views * patch_count, features]));
        let Some([columns, lines]) = picture.grid else {
            return rows;
        };
        let side = self.config.vision.patches_per_side();
        let (columns, lines) = (columns as usize, lines as usize);
        let base = rows.clone().narrow(0, 0, patch_count);
        let grid = rows
            .narrow(0, patch_count, (views - 1) * patch_count)
            .reshape([lines, columns, side, side, hidden])
            .swap_dims(1, 2)
            .reshape([lines * side, columns * side, hidden]);
        let ([top, height], [left, width]) = picture.unpadded(side);
        if height == 0 || (width == 0 && self.newline.is_none()) {
            return base;
        }
        if width == 0 {
            // So narrow a picture that its own patches round away: of every line the end is left.
            let newline = self.newline.clone().into_iter().map(|newline| newline.reshape([1, hidden]));
            let ends = newline.map(|newline| newline.expand([height, hidden]));
            return Tensor::cat(std::iter::once(base).chain(ends).collect(), 0);
        }
        let grid = grid.narrow(0, top, height).narrow(1, left, width);
        let (grid, width) = match &self.newline {
            Some(newline) => {
                let ends = newline.clone().reshape([1, 1, hidden]).expand([height, 1, hidden]);
                (Tensor::cat(vec![grid, ends], 1), width + 1)
            }
            None => (grid, width),
        };
        Tensor::cat(vec![base, grid.reshape([height * width, hidden])], 0)
    }

    /// The rows of the embedding for `tokens`, `[tokens, hidden]`.
    pub fn embed(&self, tokens: &[u32]) -> Tensor<2> {
        self.decoder.embed(tokens)
    }
}

/// Decides which tensor is the head, as transformers 5 does: a head in the checkpoint is the head, whatever
/// `tie_word_embeddings` says; tying only makes up for the one of head and embedding that is missing. Gives a note where
/// the files contradict one another.
fn settle_head(config: &mut Config, weights: &mut Weights) -> Result<Option<String>, ModelError> {
    const EMBEDDING: &str = "language_model.model.embed_tokens.weight";
    const HEAD: &str = "language_model.lm_head.weight";
    if !config.text.tied || !weights.has(HEAD) {
        return Ok(None);
    }
    if !weights.has(EMBEDDING) {
        weights.alias(HEAD, EMBEDDING);
        return Ok(None);
    }
    config.text.tied = weights.equal(HEAD, EMBEDDING)?;
    Ok((!config.text.tied).then(|| {
        "`tie_word_embeddings` of `config.json` is true, but the checkpoint has an `lm_head.weight` that differs from \
         the embedding: it is used, as transformers does"
            .to_owned()
    }))
}

#[cfg(test)]
mod tests;
