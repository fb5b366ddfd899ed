//! Adapters: what is added to the decoder's linear layers, as named tensors. Low-rank factors (LoRA,
//! <https://arxiv.org/abs/2106.09685>) are the only kind so far. This module does not know how adapters are stored.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::nn::Linear;
use super::shape::{LinearSpec, Shape};
use stic_engine::draw::Draws;

/// An adapter of a whole decoder.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// `scale · rank`.
    pub alpha: f64,
    /// The names of the linear layers that are adapted, in the order of a layer.
    pub targets: Vec<String>,
    /// By layer.
    pub layers: Vec<LayerAdapter>,
}

/// The adapter of one decoder layer: by linear layer, in the order of [`Shape::linears`], what is added to it.
#[derive(Clone, Debug)]
pub struct LayerAdapter(pub Vec<Option<Change>>);

/// What an adapter adds to a linear layer.
#[derive(Clone, Debug)]
pub enum Change {
    /// Low-rank factors.
    Lora(Lora),
}

/// `scale · (xAᵀ)Bᵀ`.
#[derive(Clone, Debug)]
pub struct Lora {
    /// `alpha / rank`.
    pub scale: f64,
    /// `[rank, in]`, 32 bits.
    pub a: Tensor<2>,
    /// `[out, rank]`, 32 bits.
    pub b: Tensor<2>,
    /// What multiplies x, `[rows, in]`, 32 bits: 0 where it drops out, 1 / (1 − p) elsewhere. `None`: nothing drops
    /// out.
    pub dropout: Option<Tensor<2>>,
}

impl LayerAdapter {
    /// `rows` through the linear layer `index`, which is `linear`, with what `adapter` adds to it.
    ///
    /// # Shapes
    /// - `rows`: `[rows, in]`
    /// - returns: `[rows, out]`
    pub fn project(adapter: Option<&Self>, index: usize, linear: &Linear, rows: Tensor<2>) -> Tensor<2> {
        let change = adapter.and_then(|adapter| adapter.0[index].as_ref());
        let change = change.map(|change| change.forward(&rows));
        let product = linear.forward(rows);
        match change {
            Some(change) => {
                let dtype = product.dtype();
                product + change.cast(dtype)
            }
            None => product,
        }
    }
}

impl Change {
    /// What is added to the layer's product, in 32 bits.
    ///
    /// # Shapes
    /// - `rows`: the layer's input, `[rows, in]`, of any dtype
    /// - returns: `[rows, out]`
    pub fn forward(&self, rows: &Tensor<2>) -> Tensor<2> {
        let Self::Lora(Lora { scale, a, b, dropout }) = self;
        let rows = rows.clone().cast(DType::F32);
        let rows = match dropout {
            Some(mask) => rows * mask.clone(),
            None => rows,
        };
        rows.matmul(a.clone().transpose()).matmul(b.clone().transpose()) * *scale
    }

    /// Its tensors by name, which are what is trained.
    pub fn tensors(&self) -> [(&'static str, &Tensor<2>); 2] {
        let Self::Lora(Lora { a, b, .. }) = self;
        [("lora_A", a), ("lora_B", b)]
    }

    /// See [`Change::tensors`].
    pub fn tensors_mut(&mut self) -> [(&'static str, &mut Tensor<2>); 2] {
        let Self::Lora(Lora { a, b, .. }) = self;
        [("lora_A", a), ("lora_B", b)]
    }
}

impl Adapter {
    /// An adapter that changes nothing yet, as PEFT starts one: A is uniform with bound 1 / √in (Kaiming's with a =
    /// √5), B is zero. A matrix's values depend on `seed` and its place alone.
    ///
    /// # Panics
    /// When `rank` is zero.
    pub fn initial(
        shape: &Shape,
        rank: usize,
        alpha: f64,
        targets: impl Fn(&str) -> bool,
        seed: u64,
        device: &Device,
    ) -> Self {
        assert!(rank > 0, "an adapter has a rank");
        let options = (device, DType::F32);
        let lora = |layer: usize, &LinearSpec { path, shape: [outputs, inputs], .. }: &LinearSpec| {
            let mut draws = Draws::new(seed, "lora", &format!("{layer}.{path}"));
            let bound = (inputs as f64).powf(-0.5);
            let a: Vec<f32> = (0..rank * inputs).map(|_| draws.between(-bound, bound) as f32).collect();
            Change::Lora(Lora {
                scale: alpha / rank as f64,
                a: Tensor::from_data(TensorData::new(a, [rank, inputs]), options),
                b: Tensor::zeros([outputs, rank], options),
                dropout: None,
            })
        };
        let change = |layer, spec: &LinearSpec| targets(spec.name).then(|| lora(layer, spec));
        let layer = |layer| LayerAdapter(shape.linears.iter().map(|spec| change(layer, spec)).collect());
        let names = shape.linears.iter().map(|spec| spec.name).filter(|name| targets(name));
        Self {
            rank,
            alpha,
            targets: names.map(str::to_owned).collect(),
            layers: (0..shape.layers).map(layer).collect(),
        }
    }

    /// Its tensors by path (`layers.0.self_attn.q_proj.lora_A`); `linears` are those of the model.
    pub fn tensors<'a>(&'a self, linears: &'a [LinearSpec]) -> impl Iterator<Item = (String, &'a Tensor<2>)> {
        self.layers.iter().enumerate().flat_map(move |(index, layer)| layer.tensors(index, linears))
    }
}

impl LayerAdapter {
    /// The tensors of layer `index` by path.
    pub fn tensors<'a>(
        &'a self,
        index: usize,
        linears: &'a [LinearSpec],
    ) -> impl Iterator<Item = (String, &'a Tensor<2>)> {
        let changes = std::iter::zip(linears, &self.0).filter_map(|(spec, change)| Some((spec, change.as_ref()?)));
        changes.flat_map(move |(spec, change)| change.tensors().map(|(name, tensor)| (path(index, spec, name), tensor)))
    }

    /// See [`LayerAdapter::tensors`].
    pub fn tensors_mut<'a>(
        &'a mut self,
        index: usize,
        linears: &'a [LinearSpec],
    ) -> impl Iterator<Item = (String, &'a mut Tensor<2>)> {
        let changes = std::iter::zip(linears, &mut self.0).filter_map(|(spec, change)| Some((spec, change.as_mut()?)));
        changes.flat_map(move |(spec, change)| {
            change.tensors_mut().map(|(name, tensor)| (path(index, spec, name), tensor))
        })
    }
}

fn path(layer: usize, spec: &LinearSpec, tensor: &str) -> String {
    format!("layers.{layer}.{}.{tensor}", spec.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny;

    #[test]
    fn an_initial_adapter_is_kaiming_uniform_and_changes_nothing() {
        let mut shape = tiny::shape();
        shape.linears.iter_mut().for_each(|spec| spec.shape[1] = 100);
        let device = Device::flex();
        let targets = |name: &str| ["v_proj", "down_proj"].contains(&name);
        let adapter = Adapter::initial(&shape, 8, 16.0, targets, 3, &device);
        assert_eq!(adapter.targets, ["v_proj", "down_proj"]);
        let LayerAdapter(changes) = &adapter.layers[1];
        assert!(changes[0].is_none());
        let [(_, a), (_, b)] = changes[6].as_ref().expect("a target").tensors();
        assert_eq!((a.dims(), b.dims()), ([8, 100], [shape.linears[6].shape[0], 8]));
        let values = |adapter: &Adapter, layer: usize| -> Vec<f32> {
            let [(_, a), _] = adapter.layers[layer].0[2].as_ref().expect("a target").tensors();
            a.to_data().try_to_vec().expect("floats")
        };
        let first = values(&adapter, 0);
        assert!(first.iter().all(|value| value.abs() <= 0.1) && first.iter().any(|value| value.abs() > 0.09));
        let deviation = (first.iter().map(|value| value * value).sum::<f32>() / first.len() as f32).sqrt();
        assert!((deviation - 0.1 / 3f32.sqrt()).abs() < 0.003, "{deviation}");
        assert_ne!(first, values(&adapter, 1));
        assert_eq!(first, values(&Adapter::initial(&shape, 8, 1.0, |name| name == "v_proj", 3, &device), 0));
        let rows = Tensor::ones([3, 100], &device);
        let change = changes[2].as_ref().expect("a target").forward(&rows).abs().sum().into_scalar::<f32>();
        assert_eq!(change, 0.0);
    }
}
