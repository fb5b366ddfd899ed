//! Linear layers that share their input: on a GPU one product, of their weights side by side.
//!
//! The weights are joined when they are loaded, and the single ones freed, so that the model takes no more memory. On
//! the CPU they stay apart: the bits of a blocked product depend on its shape. This module does not know what the
//! layers are for.

use burn::tensor::Tensor;

use super::ModelError;
use super::adapter::{Change, LayerAdapter};
use super::kernels;
use super::nn::{Linear, Weight};

/// Linear layers without bias that share their input.
#[derive(Clone, Debug)]
pub struct Products {
    /// The place of the first one in a decoder layer.
    first: usize,
    /// Each of them, or the one that has all their outputs.
    linears: Vec<Linear>,
    /// How many outputs each has.
    sizes: Vec<usize>,
}

/// What such layers make of their rows.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// `[rows, outputs]` of each layer, or `[rows, all outputs]` alone.
    tensors: Vec<Tensor<2>>,
    /// How many outputs each layer has.
    sizes: Vec<usize>,
}

impl Products {
    /// `linears`, the first of which is in the place `first` of its decoder layer.
    ///
    /// # Errors
    /// When the device cannot join their weights.
    pub fn new(first: usize, mut linears: Vec<Linear>) -> Result<Self, ModelError> {
        let weight = |linear: &Linear| {
            let Weight::Dense(weight) = &linear.weight;
            weight.clone()
        };
        let sizes = linears.iter().map(|linear| weight(linear).dims()[0]).collect();
        let joins = linears.iter().all(|linear| linear.bias.is_none() && kernels::on(&weight(linear).device()));
        if linears.len() > 1 && joins {
            let weights: Vec<Tensor<2>> = linears.drain(..).map(|linear| weight(&linear)).collect();
            let device = weights[0].device();
            // What is queued counts as allocated when it is run.
            let join = |weights| {
                let weight = Tensor::cat(weights, 0);
                device.sync().map(|()| weight)
            };
            let weight = device.memory_persistent_allocations(weights, join).map_err(|cause| ModelError {
                message: format!("joining weights on the device: {cause:?}"),
                help: Some("the model does not fit the device; choose another, or a smaller `dtype`".to_owned()),
                environment: true,
            })?;
            linears.push(Linear { weight: Weight::Dense(weight), bias: None });
        }
        Ok(Self { first, linears, sizes })
    }

    /// `rows` through each layer, with what `adapter` adds to it.
    ///
    /// # Shapes
    /// - `rows`: `[rows, in]`
    pub fn forward(&self, adapter: Option<&LayerAdapter>, rows: Tensor<2>) -> Outputs {
        let Self { first, linears, sizes } = self;
        let places = *first..first + sizes.len();
        let [linear] = &linears[..] else {
            let each = std::iter::zip(places, linears);
            let of = |(place, linear)| LayerAdapter::project(adapter, place, linear, rows.clone());
            return Outputs { tensors: each.map(of).collect(), sizes: sizes.clone() };
        };
        let together = |product| Outputs { tensors: vec![product], sizes: sizes.clone() };
        let product = linear.forward(rows.clone());
        let changes: Vec<_> = places.map(|place| adapter.and_then(|adapter| adapter.0[place].as_ref())).collect();
        if changes.iter().all(Option::is_none) {
            return together(product);
        }
        if let Some(changed) = self.changed(&rows, &product, &changes) {
            return together(changed);
        }
        let changed = std::iter::zip(together(product).into_parts(), changes).map(|(part, change)| match change {
            Some(change) => {
                let dtype = part.dtype();
                part + change.forward(&rows).cast(dtype)
            }
            None => part,
        });
        Outputs { tensors: changed.collect(), sizes: sizes.clone() }
    }

    /// `product` with all changes, by one kernel for what is in front of the low rank and one for what is behind.
    fn changed(&self, rows: &Tensor<2>, product: &Tensor<2>, changes: &[Option<&Change>]) -> Option<Tensor<2>> {
        let starts = self.sizes.iter().scan(0, |next, size| Some(std::mem::replace(next, *next + size)));
        let (mut found, mut scale) = (Vec::new(), None);
        for (start, change) in std::iter::zip(starts, changes) {
            let Some(Change::Lora(lora)) = change else { continue };
            if lora.dropout.is_some() || scale.is_some_and(|scale| scale != lora.scale) {
                return None;
            }
            scale = Some(lora.scale);
            found.push(kernels::Change { start, a: &lora.a, b: &lora.b });
        }
        kernels::lora(rows, product, &found, scale?)
    }
}

impl Outputs {
    /// `[rows, all outputs]`, if that is what there is.
    pub fn together(&self) -> Option<&Tensor<2>> {
        self.tensors.first().filter(|_| self.tensors.len() == 1)
    }

    /// `[rows, outputs]` of each layer.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn apart<const N: usize>(self) -> [Tensor<2>; N] {
        self.into_parts().try_into().expect("as many outputs as layers")
    }

    /// Those of the only layer.
    pub fn one(self) -> Tensor<2> {
        let [one] = self.apart();
        one
    }

    fn into_parts(self) -> Vec<Tensor<2>> {
        let Self { tensors, sizes } = self;
        if tensors.len() == sizes.len() {
            return tensors;
        }
        let starts = sizes.iter().scan(0, |next, size| Some(std::mem::replace(next, *next + size)));
        let part = |(start, size)| tensors[0].clone().narrow(1, start, size);
        std::iter::zip(starts, sizes.iter().copied()).map(part).collect()
    }
}
