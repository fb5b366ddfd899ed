//! A checkpoint's files: JSON with defaults and limits, tensors by name. No family is known here.

pub mod json;
mod nearby;
mod tensors;
mod weights;

pub use json::{Fields, read_object};
pub use nearby::below;
pub use tensors::{Declared, Tensors};
pub use weights::{Naming, Weights, parameters, precision};
