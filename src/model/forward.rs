//! The forward pass through a decoder, and the backward pass with gradient checkpointing: one layer at a time.
//!
//! Prefill, decoding, scoring and training all go through [`forward`]. For training, what enters each layer is kept,
//! and [`backward`] goes from the last layer to the first: it runs the one layer again with tracked adapter tensors,
//! starts from the gradient of what left the layer, and ends with the gradient of what entered it. Memory is that of
//! one layer's graph, regardless of depth. The frozen weights are not tracked and get no gradient.

use std::borrow::Cow;
use std::ops::ControlFlow;

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Gradients, Int, Tensor};

use super::adapter::{Adapter, LayerAdapter};
use super::attention::LayerCache;
use super::batch::{Batch, Input};
use super::contract::Model;

/// Runs `input` through all layers, with `adapter`'s change of each. `enter` sees the input of every layer, and may
/// stop the pass.
///
/// # Shapes
/// - returns: what leaves the last layer, `[rows, length, hidden]`
pub fn forward<'a>(
    model: &dyn Model,
    input: &Input,
    mut adapter: impl FnMut(usize) -> Option<Cow<'a, LayerAdapter>>,
    mut caches: Option<&mut [LayerCache]>,
    mut enter: impl FnMut(&Tensor<3>) -> ControlFlow<()>,
) -> ControlFlow<(), Tensor<3>> {
    let mut hidden = input.hidden.clone();
    for index in 0..model.shape().layers {
        enter(&hidden)?;
        let cache = caches.as_deref_mut().map(|caches| &mut caches[index]);
        hidden = layer(model, input, index, hidden, adapter(index).as_deref(), cache);
    }
    ControlFlow::Continue(hidden)
}

/// Goes back through all layers, given what had entered each of them and the gradient of what left the last one.
/// `adapter` gives a layer's change again, and `take` is given its tracked tensors and their gradients. `proceed` is asked
/// before every layer, and may stop the pass.
pub fn backward(
    model: &dyn Model,
    input: &Input,
    mut entering: Vec<Tensor<3>>,
    mut upstream: Tensor<3>,
    adapter: impl Fn(usize) -> LayerAdapter,
    proceed: impl Fn() -> ControlFlow<()>,
    mut take: impl FnMut(usize, &LayerAdapter, &mut Gradients),
) -> ControlFlow<()> {
    while let Some(entered) = entering.pop() {
        proceed()?;
        let index = entering.len();
        // Below the first layer nothing is trained.
        let entered = if index > 0 { entered.autodiff().require_grad() } else { entered };
        let mut adapter = adapter(index);
        for tensor in adapter.0.iter_mut().flatten().flat_map(|change| change.tensors_mut()).map(|(_, tensor)| tensor) {
            *tensor = tensor.clone().autodiff().require_grad();
        }
        let leaving = layer(model, input, index, entered.clone(), Some(&adapter), None);
        let mut found = (leaving * upstream.clone().autodiff()).sum().backward();
        take(index, &adapter, &mut found);
        if index > 0 {
            upstream = entered.grad_remove(&mut found).expect("a layer's output depends on its input");
        }
    }
    ControlFlow::Continue(())
}

fn layer(
    model: &dyn Model,
    input: &Input,
    index: usize,
    hidden: Tensor<3>,
    adapter: Option<&LayerAdapter>,
    cache: Option<&mut LayerCache>,
) -> Tensor<3> {
    let hidden = model.layer(index, hidden, &input.attention, adapter, cache);
    match input.added.get(index) {
        Some(added) if hidden.is_autodiff() => hidden + added.clone().autodiff(),
        Some(added) => hidden + added.clone(),
        None => hidden,
    }
}

/// The log-probabilities of a batch's answer tokens, in nats, without a gradient.
pub fn log_probabilities(model: &dyn Model, adapter: Option<&Adapter>, batch: &Batch) -> Vec<f32> {
    let always = || ControlFlow::Continue(());
    log_probabilities_unless(model, adapter, batch, always).continue_value().expect("nothing stops it")
}

/// [`log_probabilities`]; `proceed` is asked before every layer, and may stop the pass.
pub fn log_probabilities_unless(
    model: &dyn Model,
    adapter: Option<&Adapter>,
    batch: &Batch,
    proceed: impl Fn() -> ControlFlow<()>,
) -> ControlFlow<(), Vec<f32>> {
    let layer = |index: usize| adapter.map(|adapter| Cow::Borrowed(&adapter.layers[index]));
    let hidden = forward(model, &batch.input, layer, None, |_| proceed())?;
    let values = of_labels(model.logits(predicting(hidden, batch)), batch.label_column());
    let mut values: Vec<f32> = values.try_into_vec_as().expect("log-probabilities are 32-bit floats");
    values.truncate(batch.labels.len());
    ControlFlow::Continue(values)
}

/// The rows of `hidden` that predict answer tokens, `[predicted, hidden]`.
pub fn predicting(hidden: Tensor<3>, batch: &Batch) -> Tensor<2> {
    let [rows, length, width] = hidden.dims();
    hidden.reshape([rows * length, width]).select(0, batch.predictors())
}

/// The log-probability, in nats, of each label under its row of logits; in 32 bits, differentiable.
///
/// # Shapes
/// - `logits`: `[n, vocabulary]`
/// - `labels`: `[n, 1]`
/// - returns: `[n]`
pub fn of_labels(logits: Tensor<2>, labels: Tensor<2, Int>) -> Tensor<1> {
    log_softmax(logits.cast(DType::F32), 1).gather(1, labels).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn labels_are_gathered_not_the_likeliest_tokens() {
        let device = Device::flex();
        let logits = Tensor::from_floats([[2.0, 1.0, 0.0, -1.0], [0.5, 0.0, 1.5, -0.5], [1.0, 3.0, 2.0, 0.0]], &device);
        let labels = Tensor::from_ints([[0], [2], [2]], &device);
        let found: Vec<f32> = of_labels(logits, labels).try_into_vec_as().unwrap();
        for (found, expected) in found.iter().zip([-0.440_190, -0.546_006, -1.440_19]) {
            assert!((found - expected).abs() < 1e-6, "{found:?}");
        }
        assert!((found.iter().sum::<f32>() + 2.426_386).abs() < 2e-6);
    }
}
