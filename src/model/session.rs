//! Loaded models, shared by whoever needs the same one: loading 14 GB takes longer than most uses of it.
//!
//! One model is kept; loading another one drops it, as soon as it is no longer in use. This module does not
//! know who asks.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::ModelError;
use super::contract::Model;
use super::{device, families};
use crate::device::DeviceChoice;
use stic_engine::digest::Digest;

/// What makes two loaded models the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SessionKey {
    model: Digest,
    choice: DeviceChoice,
}

static KEPT: Mutex<Option<(SessionKey, Arc<dyn Model>)>> = Mutex::new(None);

/// The model in `folder`, whose files' digest is `digest`, loaded for `choice`: the one that is loaded already, if it
/// is the same.
///
/// A second caller waits while the first one loads.
///
/// # Errors
/// When the device or the model cannot be used.
pub fn model(folder: &Path, digest: Digest, choice: DeviceChoice) -> Result<Arc<dyn Model>, ModelError> {
    let key = SessionKey { model: digest, choice };
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, model)) = kept.as_ref().filter(|(other, _)| *other == key) {
        return Ok(model.clone());
    }
    // Before the new one is loaded: a device may have room for one alone.
    *kept = None;
    let (device, dtype) = device::open(choice)?;
    device.memory_cleanup();
    let model = families::of(folder)?.load(folder, &device, dtype)?;
    *kept = Some((key, model.clone()));
    Ok(model)
}

/// Lets go of the loaded model.
pub fn forget() {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = None;
}
