//! The sizes of a model, and the names of its linear layers.

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Rows of the embedding and of the head.
    pub vocabulary: usize,
    /// Features of a position.
    pub hidden: usize,
    /// Features inside the feed-forward part.
    pub intermediate: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Numbers that the KV cache of a layer holds for a position.
    pub cached: usize,
    /// The longest sequence that the model was made for, in positions.
    pub context: usize,
    /// The tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// The image token.
    pub image_token: ImageToken,
    /// The linear layers of every decoder layer.
    pub linears: Vec<LinearSpec>,
    /// How PEFT names them.
    pub adapter_names: &'static AdapterNames,
}

/// A linear layer that an adapter may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// What `target_modules` calls it.
    pub name: &'static str,
    /// Its path inside the layer.
    pub path: &'static str,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Whether it has a bias.
    pub bias: bool,
}

/// The image token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageToken {
    /// As rendered templates and the tokenizer have it: a special token of its own.
    pub text: &'static str,
    /// As the model has it.
    pub id: u32,
}

/// How PEFT names the parts of a family's decoder.
#[derive(Debug, PartialEq, Eq)]
pub struct AdapterNames {
    /// Name and path inside the layer of each linear layer, in the order of [`Shape::linears`].
    pub linears: &'static [(&'static str, &'static str)],
    /// The part between `base_model.model.` and the number of a layer. The first is written, all are read.
    pub layers: &'static [&'static str],
    /// Parts of the paths of modules outside the decoder, whose adapters are passed over when they change nothing.
    pub outside: &'static [&'static str],
    /// `exclude_modules` of what is written: modules outside the decoder with the names of its linear layers. `None`, where
    /// there are none, is written as `null`.
    pub exclude: Option<&'static str>,
}
