//! The engine with toy kinds of node: caching is asserted by what ran.

mod behavior;
mod crashes;
mod faults;
mod keys;
mod language;
mod properties;
mod toys;
