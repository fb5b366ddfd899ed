//! Low-rank adapters (LoRA, <https://arxiv.org/abs/2106.09685>) of the decoder's linear layers, in 32 bits.
//!
//! `y = xWᵀ + scale · (xAᵀ)Bᵀ` with `scale = alpha / rank`. This module does not know how adapters are stored.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::llava::TextConfig;
use crate::draw::Draws;

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

impl Lora {
    /// An adapter that changes nothing yet, as PEFT starts one: A is uniform with bound 1 / √in (Kaiming's with a = √5),
    /// B is zero. A matrix's values depend on `seed` and its place alone.
    ///
    /// # Panics
    /// When `rank` is zero.
    pub fn initial(
        config: &TextConfig,
        rank: usize,
        alpha: f64,
        targets: &[Target],
        seed: u64,
        device: &Device,
    ) -> Self {
        assert!(rank > 0, "an adapter has a rank");
        let mut targets = targets.to_vec();
        targets.sort_unstable();
        targets.dedup();
        let options = (device, DType::F32);
        let layers = (0..config.layers).map(|layer| LayerLora {
            scale: alpha / rank as f64,
            pairs: Target::ALL.map(|target| {
                targets.contains(&target).then(|| {
                    let [outputs, inputs] = config.shape(target);
                    let mut draws = Draws::new(seed, "lora", &format!("{layer}.{}", target.path()));
                    let bound = (inputs as f64).powf(-0.5);
                    let a: Vec<f32> = (0..rank * inputs).map(|_| draws.between(-bound, bound) as f32).collect();
                    LoraPair {
                        a: Tensor::from_data(TensorData::new(a, [rank, inputs]), options),
                        b: Tensor::zeros([outputs, rank], options),
                        dropout: None,
                    }
                })
            }),
        });
        Self { rank, alpha, layers: layers.collect(), targets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initial_adapter_is_kaiming_uniform_and_changes_nothing() {
        let config = TextConfig {
            vocabulary: 10,
            hidden: 100,
            intermediate: 40,
            layers: 2,
            heads: 4,
            key_value_heads: 2,
            head_size: 25,
            rope_theta: 1e4,
            norm_epsilon: 1e-5,
            tied: false,
            sliding_window: None,
            max_positions: 100,
        };
        let device = Device::flex();
        let lora = Lora::initial(&config, 8, 16.0, &[Target::V, Target::Down, Target::V], 3, &device);
        assert_eq!(lora.targets, [Target::V, Target::Down]);
        let layer = &lora.layers[1];
        assert!(layer.pair(Target::Q).is_none());
        assert_eq!(layer.pair(Target::Down).map(|pair| (pair.a.dims(), pair.b.dims())), Some(([8, 40], [100, 8])));
        let values = |lora: &Lora, layer: usize| -> Vec<f32> {
            let pair = lora.layers[layer].pair(Target::V).expect("a target");
            pair.a.to_data().try_to_vec().expect("floats")
        };
        let first = values(&lora, 0);
        assert!(first.iter().all(|value| value.abs() <= 0.1) && first.iter().any(|value| value.abs() > 0.09));
        let deviation = (first.iter().map(|value| value * value).sum::<f32>() / first.len() as f32).sqrt();
        assert!((deviation - 0.1 / 3f32.sqrt()).abs() < 0.003, "{deviation}");
        assert_ne!(first, values(&lora, 1));
        assert_eq!(first, values(&Lora::initial(&config, 8, 1.0, &[Target::V], 3, &device), 0));
        let rows = Tensor::ones([3, 100], &device);
        let change = layer.forward(Target::V, &rows).expect("a target").abs().sum().into_scalar::<f32>();
        assert_eq!(change, 0.0);
    }
}
