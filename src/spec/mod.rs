//! Source text with spans → pipeline. This module does no input or output.

mod reader;

pub use reader::{FromToml, ModelSource, Reader};
