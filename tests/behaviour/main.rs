//! The real program in directories of its own: what it says, what it leaves, and how it ends.

mod bad_input;
mod caches;
mod commands;
#[cfg(unix)]
mod interrupts;
mod language;
mod mistakes;
mod one_call;
mod records;
mod reference;
mod replaced_files;
mod runs;
mod stages;
mod tables;
mod workspace;
