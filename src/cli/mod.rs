//! Placeholder: this module is written next.
