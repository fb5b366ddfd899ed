//! The few layers that towers and decoders are made of, on rows: activations are `[rows, features]` throughout.
//!
//! Weights stay as they are stored, `[out, in]`, and are multiplied by their transposed view. Statistics of norms and
//! softmax are in 32 bits whatever the weights are in. Nothing here is done in place or detached, so that everything
//! is differentiable in weights and inputs alike.

use std::ops::RangeInclusive;

use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor};

/// How many rows are few: a small batch that decodes. Then the weight comes first, `(Wxᵀ)ᵀ`: matrix products rearrange
/// their right operand, which costs more than multiplying so few rows by it. Measured on a processor in 32 bits with
/// 8 rows, a step of wide layers takes 48 instead of 88 ms; in 16 bits the usual order is faster.
const FEW: RangeInclusive<usize> = 4..=32;

/// `y = xWᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor<2>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// # Shapes
    /// - `rows`: `[rows, in]`
    /// - returns: `[rows, out]`
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.clone();
        let tracked = rows.is_autodiff() || weight.is_autodiff();
        let product = if FEW.contains(&rows.dims()[0]) && rows.dtype() == DType::F32 && !tracked {
            weight.matmul(rows.transpose()).transpose()
        } else {
            rows.matmul(weight.transpose())
        };
        match &self.bias {
            Some(bias) => product + bias.clone().unsqueeze(),
            None => product,
        }
    }
}

/// Root-mean-square norm as Llama has it: the quotient is rounded to the model's precision before the weight applies.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[features]`.
    pub weight: Tensor<1>,
    /// Added to the mean square.
    pub epsilon: f64,
}

impl RmsNorm {
    /// # Shapes
    /// - `rows`: `[rows, features]`
    /// - returns: the same
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let dtype = rows.dtype();
        let rows = rows.cast(DType::F32);
        let mean_square = (rows.clone() * rows.clone()).mean_dim(1);
        let scale = (mean_square + self.epsilon).sqrt().recip();
        (rows * scale).cast(dtype) * self.weight.clone().unsqueeze()
    }
}

/// Layer norm with weight and bias, over the last dimension.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[features]`.
    pub weight: Tensor<1>,
    /// `[features]`.
    pub bias: Tensor<1>,
    /// Added to the variance.
    pub epsilon: f64,
}

impl LayerNorm {
    /// # Shapes
    /// - `rows`: `[rows, features]`
    /// - returns: the same
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let dtype = rows.dtype();
        let rows = rows.cast(DType::F32);
        let centred = rows.clone() - rows.mean_dim(1);
        let variance = (centred.clone() * centred.clone()).mean_dim(1);
        let normal = (centred * (variance + self.epsilon).sqrt().recip()).cast(dtype);
        normal * self.weight.clone().unsqueeze() + self.bias.clone().unsqueeze()
    }
}

/// Scaled dot-product attention; a key head serves `heads / key heads` query heads, without being repeated.
///
/// # Shapes
/// - `query`: `[batch, heads, length, head size]`
/// - `key`, `value`: `[batch, key heads, keys, head size]`
/// - `hidden`: `[batch or 1, 1, heads / key heads · length, keys]`, `true` where a query does not see a key
/// - returns: as `query`
pub fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, hidden: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let [batch, heads, length, size] = query.dims();
    let groups = key.dims()[1];
    let query = query.reshape([batch, groups, heads / groups * length, size]);
    // The fused kernel has no backward; under autodiff it would be taken apart into more steps than these.
    let context = if query.is_autodiff() || key.is_autodiff() {
        let dtype = query.dtype();
        let scores = (query * (size as f64).powf(-0.5)).matmul(key.transpose()).cast(DType::F32);
        let scores = match hidden {
            // Far below any score, and finite: a query that sees nothing gets a mean, not a NaN.
            Some(hidden) => scores.mask_fill(hidden, -1e30),
            None => scores,
        };
        softmax(scores, 3).cast(dtype).matmul(value)
    } else {
        attention(query, key, value, hidden, None, AttentionModuleOptions::default())
    };
    context.reshape([batch, heads, length, size])
}
