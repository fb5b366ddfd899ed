//! Where a model's tensors come from, by name.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor};

use crate::model::ModelError;

/// A source of tensors. A model is built out of one: what it asks for, by name and shape, is what it consists of.
pub trait Tensors {
    /// The tensor `name`: `[out, in]` for a linear layer, `[out, in, height, width]` for a convolution.
    ///
    /// # Errors
    /// When there is none of this shape.
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError>;
}

/// Tensors by name, flattened: for weights that are made rather than loaded, tracked ones included.
impl Tensors for BTreeMap<String, Tensor<1>> {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        let tensor = self.get(name).ok_or_else(|| ModelError::new(format!("no tensor `{name}`")))?;
        let (expected, found) = (shape.iter().product::<usize>(), tensor.dims()[0]);
        if expected != found {
            return Err(ModelError::new(format!("tensor `{name}`: expected {shape:?}, found {found} values")));
        }
        Ok(tensor.clone().reshape(shape))
    }
}

/// Records the requests, and returns tensors of zeros that take no memory.
#[derive(Debug, Default)]
pub struct Declared(pub Vec<(String, Vec<usize>)>);

impl Tensors for Declared {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        self.0.push((name.to_owned(), shape.to_vec()));
        Ok(Tensor::<D>::zeros([1; D], (&Device::flex(), DType::F32)).expand(shape))
    }
}
