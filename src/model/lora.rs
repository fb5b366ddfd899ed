//! Low-rank adapters (LoRA, <https://arxiv.org/abs/2106.09685>) of the decoder's linear layers, in 32 bits.
//!
//! `y = xWᵀ + scale · (xAᵀ)Bᵀ` with `scale = alpha / rank`. This module does not know how adapters are stored.

use burn::tensor::{DType, Tensor};

/// A linear layer of a decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// The attention's output.
    O,
    /// The feed-forward part's gate.
    Gate,
    /// What the gate multiplies.
    Up,
    /// The feed-forward part's output.
    Down,
}

impl Target {
    /// All, in the order in which a layer computes them.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Its module's name: what `target_modules` of an adapter lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module's path inside a layer.
    pub fn path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }
}

/// The two factors for one linear layer.
#[derive(Clone, Debug)]
pub struct LoraPair {
    /// `[rank, in]`, 32 bits.
    pub a: Tensor<2>,
    /// `[out, rank]`, 32 bits.
    pub b: Tensor<2>,
    /// What multiplies A's input, `[rows, in]`, 32 bits: 0 where it drops out, 1 / (1 − p) elsewhere. `None`: nothing
    /// drops out.
    pub dropout: Option<Tensor<2>>,
}

/// The factors of one decoder layer.
#[derive(Clone, Debug)]
pub struct LayerLora {
    /// `alpha / rank`.
    pub scale: f64,
    /// By target, in the order of [`Target::ALL`].
    pub pairs: [Option<LoraPair>; 7],
}

impl LayerLora {
    /// The factors for `target`.
    pub fn pair(&self, target: Target) -> Option<&LoraPair> {
        self.pairs[target as usize].as_ref()
    }

    /// `scale · (xAᵀ)Bᵀ`, in 32 bits; `None` when `target` is not adapted.
    ///
    /// # Shapes
    /// - `rows`: `[rows, in]`, of any dtype
    /// - returns: `[rows, out]`
    pub fn forward(&self, target: Target, rows: &Tensor<2>) -> Option<Tensor<2>> {
        let LoraPair { a, b, dropout } = self.pair(target)?;
        let rows = rows.clone().cast(DType::F32);
        let rows = match dropout {
            Some(mask) => rows * mask.clone(),
            None => rows,
        };
        Some(rows.matmul(a.clone().transpose()).matmul(b.clone().transpose()) * self.scale)
    }
}

/// An adapter of a whole decoder.
#[derive(Clone, Debug)]
pub struct Lora {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// `scale · rank`.
    pub alpha: f64,
    /// What is adapted, the same in every layer.
    pub targets: Vec<Target>,
    /// By layer.
    pub layers: Vec<LayerLora>,
}
