//! The few layers that towers and decoders are made of, on rows: activations are `[rows, features]` throughout.
//!
//! Weights stay as they are stored, `[out, in]`, and are multiplied by their transposed view. Statistics of norms and
//! softmax are in 32 bits regardless of the weights' dtype. Nothing here is done in place or detached, so that
//! everything is differentiable in weights and inputs alike.

use std::ops::RangeInclusive;

use burn::tensor::activation::{gelu, gelu_approximate, relu, sigmoid, silu, softmax};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Device, Tensor};

use super::ModelError;
use super::files::json::unsupported;
use super::files::{Fields, Tensors};
use super::kernels;

/// The row counts of a small batch in decode. There the weight comes first, `(Wxᵀ)ᵀ`: matrix products rearrange
/// their right operand, which costs more than multiplying so few rows by it. Measured on a CPU in 32 bits with
/// 8 rows, a step of wide layers takes 48 instead of 88 ms; in 16 bits the usual order is faster.
const FEW: RangeInclusive<usize> = 4..=32;

/// The matrix of a linear layer.
#[derive(Clone, Debug)]
pub enum Weight {
    /// As floats, `[out, in]`.
    Dense(Tensor<2>),
}

/// `y = xWᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// W.
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// Takes `name.weight`, and `name.bias` if there is a `bias`, out of `tensors`.
    ///
    /// # Errors
    /// When one is not there.
    pub fn read<T: Tensors>(tensors: &mut T, name: &str, shape: [usize; 2], bias: bool) -> Result<Self, ModelError> {
        let weight = Weight::Dense(tensors.tensor(&format!("{name}.weight"), shape)?);
        let bias = if bias { Some(tensors.tensor(&format!("{name}.bias"), [shape[0]])?) } else { None };
        Ok(Self { weight, bias })
    }

    /// # Shapes
    /// - `rows`: `[rows, in]`
    /// - returns: `[rows, out]`
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let Weight::Dense(weight) = self.weight.clone();
        let tracked = rows.is_autodiff() || weight.is_autodiff();
        let few = FEW.contains(&rows.dims()[0]) && rows.dtype() == DType::F32 && !tracked;
        let product = if few && rows.device() == Device::flex() {
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
    /// Takes `name.weight` out of `tensors`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read<T: Tensors>(tensors: &mut T, name: &str, features: usize, epsilon: f64) -> Result<Self, ModelError> {
        Ok(Self { weight: tensors.tensor(&format!("{name}.weight"), [features])?, epsilon })
    }

    /// # Shapes
    /// - `rows`: `[rows, features]`
    /// - returns: the same
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        kernels::rms_norm(&rows, &self.weight, self.epsilon).unwrap_or_else(|| self.composed(rows))
    }

    /// `rows + more`, and its norm.
    pub fn forward_sum(&self, rows: Tensor<2>, more: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        kernels::add_rms_norm(&rows, &more, &self.weight, self.epsilon).unwrap_or_else(|| {
            let sum = rows + more;
            (sum.clone(), self.forward(sum))
        })
    }

    /// [`RmsNorm::forward`] by tensor operations.
    pub(super) fn composed(&self, rows: Tensor<2>) -> Tensor<2> {
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
    /// Takes `name.weight` and `name.bias` out of `tensors`.
    ///
    /// # Errors
    /// When one is not there.
    pub fn read<T: Tensors>(tensors: &mut T, name: &str, features: usize, epsilon: f64) -> Result<Self, ModelError> {
        let weight = tensors.tensor(&format!("{name}.weight"), [features])?;
        Ok(Self { weight, bias: tensors.tensor(&format!("{name}.bias"), [features])?, epsilon })
    }

    /// # Shapes
    /// - `rows`: `[rows, features]`
    /// - returns: the same
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let dtype = rows.dtype();
        let rows = rows.cast(DType::F32);
        let centered = rows.clone() - rows.mean_dim(1);
        let variance = (centered.clone() * centered.clone()).mean_dim(1);
        let normal = (centered * (variance + self.epsilon).sqrt().recip()).cast(dtype);
        normal * self.weight.clone().unsqueeze() + self.bias.clone().unsqueeze()
    }
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// The exact Gaussian error linear unit.
    Gelu,
    /// Its approximation by a hyperbolic tangent.
    TanhGelu,
    /// max(x, 0).
    Relu,
    /// x · sigmoid(x).
    Silu,
}

impl Activation {
    /// Reads its name, as transformers has it, out of `name`.
    ///
    /// # Errors
    /// When it is not supported.
    pub fn read(fields: &Fields<'_>, name: &str, default: Self) -> Result<Self, ModelError> {
        match fields.string(name, "")? {
            "" => Ok(default),
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Self::TanhGelu),
            "relu" => Ok(Self::Relu),
            "silu" | "swish" => Ok(Self::Silu),
            other => Err(unsupported(
                &format!("{}{name}", fields.path),
                other,
                "`quick_gelu`, `gelu`, `gelu_new`, `gelu_pytorch_tanh`, `relu` and `silu`",
            )),
        }
    }

    /// The function of every value.
    pub fn forward(self, rows: Tensor<2>) -> Tensor<2> {
        match self {
            Self::QuickGelu => rows.clone() * sigmoid(rows * 1.702),
            Self::Gelu => gelu(rows),
            Self::TanhGelu => gelu_approximate(rows),
            Self::Relu => relu(rows),
            Self::Silu => silu(rows),
        }
    }
}

/// `silu(gate) · up`.
///
/// # Shapes
/// - `gate`, `up`: `[rows, features]`
pub fn gated(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

/// Scaled dot-product attention; a key head serves `heads / key heads` query heads, without being repeated.
///
/// # Shapes
/// - `query`: `[batch, heads, length, head size]`
/// - `key`, `value`: `[batch, key heads, keys, head size]`
/// - `hidden`: `[batch or 1, 1, length, keys]`, or with the rows repeated for each of the heads of a group: `true`
///   where a query does not see a key
/// - returns: as `query`
pub fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, hidden: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let [batch, heads, length, size] = query.dims();
    let [_, groups, keys, _] = key.dims();
    let rows = heads / groups * length;
    let query = query.reshape([batch, groups, rows, size]);
    let tracked = query.is_autodiff() || key.is_autodiff() || value.is_autodiff();
    let route = Route::of(query.device() == Device::flex(), tracked, [batch, groups, rows, keys]);
    route.take(query, key, value, hidden).reshape([batch, heads, length, size])
}

/// How attention of one shape is computed: always with the softmax in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// By burn's own operation, which on the CPU computes in 32 bits throughout. On GPUs it does not say how: its tuner
    /// may take a fallback whose softmax is in the precision of storage (for short queries, for those whose number the
    /// kernel's tile does not divide, and where there are no tensor cores), and its fused kernels multiply in 16 bits
    /// even what is stored in 32. It has no backward.
    Fused,
    /// Step by step, all queries at once.
    Whole,
    /// Step by step, so many queries at a time: the matrix of scores is bounded.
    Spans(usize),
}

/// The most scores that are in memory at once where nothing is tracked: 256 MiB of them.
const MOST_SCORES: usize = 1 << 26;

impl Route {
    /// - `on_cpu`: whether the tensors are on the CPU
    /// - `tracked`: whether gradients are wanted
    /// - shape: batch, key heads, queries a key head, keys
    fn of(on_cpu: bool, tracked: bool, [batch, groups, rows, keys]: [usize; 4]) -> Self {
        let a_row = batch * groups * keys;
        match (on_cpu, tracked) {
            (_, true) => Self::Whole,
            (true, false) => Self::Fused,
            (false, false) if a_row * rows <= MOST_SCORES => Self::Whole,
            // Kernels are tuned by shape: multiples of 64 keep the shapes few.
            (false, false) => Self::Spans((MOST_SCORES / a_row / 64 * 64).max(64)),
        }
    }

    /// Attention with as many heads in `query` as in `key`; otherwise as [`attend`].
    fn take(self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, hidden: Option<Tensor<4, Bool>>) -> Tensor<4> {
        let rows = query.dims()[2];
        match self {
            Self::Fused => {
                let repeated = hidden.map(|hidden| {
                    let times = rows / hidden.dims()[2];
                    if times > 1 { hidden.repeat(&[1, 1, times, 1]) } else { hidden }
                });
                attention(query, key, value, repeated, None, AttentionModuleOptions::default())
            }
            Self::Whole => explicit(query, key.transpose(), value, hidden),
            Self::Spans(span) => {
                let keys = key.transpose();
                // Within the rows of one head of a group, which have the mask's places.
                let length = hidden.as_ref().map_or(rows, |hidden| hidden.dims()[2]);
                let starts = (0..rows).step_by(length).flat_map(|head| {
                    (0..length).step_by(span).map(move |start| (head, start, span.min(length - start)))
                });
                let spans = starts.map(|(head, start, count)| {
                    let hidden = hidden.clone().map(|hidden| hidden.narrow(2, start, count));
                    explicit(query.clone().narrow(2, head + start, count), keys.clone(), value.clone(), hidden)
                });
                Tensor::cat(spans.collect(), 2)
            }
        }
    }
}

/// `softmax(q · k / √size) · v`, the softmax in 32 bits and the products in the precision of storage, as transformers'
/// `eager_attention_forward`.
///
/// # Shapes
/// - `query`: `[batch, groups, rows, size]`
/// - `keys`: `[batch, groups, size, keys]`
/// - `value`: `[batch, groups, keys, size]`
/// - `hidden`: `[batch or 1, 1, rows of a head, keys]`; there are as many rows for each of the heads of a group
fn explicit(query: Tensor<4>, keys: Tensor<4>, value: Tensor<4>, hidden: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let (dtype, size) = (query.dtype(), query.dims()[3]);
    let scores = (query * (size as f64).powf(-0.5)).matmul(keys).cast(DType::F32);
    let scores = match hidden {
        // Far below any score, and finite: a query that sees nothing gets a mean, not a NaN.
        Some(hidden) => {
            let ([batch, groups, rows, keys], length) = (scores.dims(), hidden.dims()[2]);
            let by_head = scores.reshape([batch, groups * rows / length, length, keys]);
            by_head.mask_fill(hidden, -1e30).reshape([batch, groups, rows, keys])
        }
        None => scores,
    };
    softmax(scores, 3).cast(dtype).matmul(value)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    const CPU: bool = true;
    const GPU: bool = false;

    #[test]
    fn every_shape_takes_a_route_whose_softmax_is_in_32_bits() {
        // A 7B model's decoder: 32 heads of 128. A tower: 16 heads, 577 positions, five views.
        let decode = [1, 32, 1, 3000];
        let decode_grouped = [16, 8, 4, 3008];
        let tower = [5, 16, 577, 577];
        let short = [1, 32, 64, 64];
        let divisible = [1, 32, 1024, 1024];
        let indivisible = [1, 32, 1021, 1021];
        for shape in [decode, decode_grouped, tower, short, divisible, indivisible] {
            assert_eq!(Route::of(GPU, false, shape), Route::Whole, "{shape:?}");
            assert_eq!(Route::of(CPU, false, shape), Route::Fused, "{shape:?}");
            assert_eq!(Route::of(CPU, true, shape), Route::Whole, "{shape:?}");
            assert_eq!(Route::of(GPU, true, shape), Route::Whole, "{shape:?}");
        }
        assert_eq!(Route::of(GPU, false, [1, 32, 3000, 3000]), Route::Spans(640));
        assert_eq!(Route::of(GPU, false, [64, 32, 3000, 3000]), Route::Spans(64));
        assert_eq!(Route::of(GPU, true, [1, 32, 3000, 3000]), Route::Whole);
    }

    /// Fourteen queries and nine keys for each of two heads; some keys are hidden, by one mask for both of the batch.
    fn inputs() -> ([Tensor<4>; 3], Tensor<4, Bool>) {
        let device = Device::flex();
        let draw = |shape: [usize; 4]| Tensor::random(shape, Distribution::Normal(0.0, 1.0), (&device, DType::F32));
        let hidden = Tensor::<2, Bool>::tril_mask([14, 9], 2, &device).reshape([1, 1, 14, 9]);
        ([draw([2, 2, 14, 8]), draw([2, 2, 9, 8]), draw([2, 2, 9, 8])], hidden)
    }

    #[test]
    fn all_routes_come_to_the_same() {
        let ([query, key, value], hidden) = inputs();
        let by = |route: Route| {
            let taken = route.take(query.clone(), key.clone(), value.clone(), Some(hidden.clone()));
            taken.into_data().try_to_vec::<f32>().expect("floats")
        };
        let (fused, whole) = (by(Route::Fused), by(Route::Whole));
        assert!(fused.iter().zip(&whole).all(|(fused, whole)| (fused - whole).abs() < 1e-6), "{fused:?} {whole:?}");
        for span in [1, 4, 14, 20] {
            let spans = by(Route::Spans(span));
            assert!(spans.iter().zip(&whole).all(|(span, whole)| (span - whole).abs() < 1e-6), "{spans:?} {whole:?}");
        }
    }

    #[test]
    fn a_mask_of_places_is_that_of_every_head_of_a_group() {
        let ([query, key, value], hidden) = inputs();
        let query = Tensor::cat(vec![query.clone(), query.flip([2])], 2);
        let by = |route: Route, hidden: Tensor<4, Bool>| {
            let taken = route.take(query.clone(), key.clone(), value.clone(), Some(hidden));
            taken.into_data().try_to_vec::<f32>().expect("floats")
        };
        let expected = by(Route::Whole, hidden.clone().repeat(&[1, 1, 2, 1]));
        for route in [Route::Fused, Route::Whole, Route::Spans(1), Route::Spans(5), Route::Spans(14), Route::Spans(64)]
        {
            let found = by(route, hidden.clone());
            assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{route:?}");
        }
    }

    #[test]
    fn gradients_reach_whichever_input_is_tracked() {
        let (inputs, _) = inputs();
        for tracked in 0..3 {
            let mut inputs = inputs.clone().map(Tensor::autodiff);
            inputs[tracked] = inputs[tracked].clone().require_grad();
            let followed = inputs[tracked].clone();
            let [query, key, value] = inputs;
            let mut found = attend(query, key, value, None).square().sum().backward();
            let gradient = followed.grad_remove(&mut found).expect("a gradient");
            assert!(gradient.abs().sum().into_scalar::<f32>() > 0.0, "input {tracked}");
        }
    }
}
