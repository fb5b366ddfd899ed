//! Placeholder: this module is written next.

mod model;
