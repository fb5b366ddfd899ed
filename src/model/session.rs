//! Loaded models, shared by whoever needs the same one: loading 14 GB takes longer than most uses of it.
//!
//! One model a device is kept; loading another one drops it, as soon as it is no longer in use. This module does not
//! know who asks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::ModelError;
use super::contract::Model;
use super::room::{self, Use};
use super::{device, families};
use crate::device::{Backend, DeviceChoice};
use stic_engine::digest::Digest;

/// What makes two loaded models the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SessionKey {
    model: Digest,
    choice: DeviceChoice,
}

/// What is kept on one device.
type Kept = Arc<Mutex<Option<(SessionKey, Arc<dyn Model>)>>>;

static KEPT: Mutex<Option<HashMap<(Backend, usize), Kept>>> = Mutex::new(None);

/// What is kept on the device of `choice`; others need not wait while something is loaded there.
fn kept(choice: DeviceChoice) -> Kept {
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    all.get_or_insert_default().entry((choice.backend, choice.index)).or_default().clone()
}

/// The model in `folder`, whose files' digest is `digest`, loaded for `choice`: the one that is loaded already, if it
/// is the same. Whether it fits with what it is `used` for is estimated before it is loaded; a doubt is handed to `note`.
///
/// A second caller for the same device waits while the first one loads.
///
/// # Errors
/// When the device or the model cannot be used.
pub fn model(
    folder: &Path,
    digest: Digest,
    choice: DeviceChoice,
    used: Use,
    note: &mut dyn FnMut(&str),
) -> Result<Arc<dyn Model>, ModelError> {
    let key = SessionKey { model: digest, choice };
    let kept = kept(choice);
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, model)) = kept.as_ref().filter(|(other, _)| *other == key) {
        return Ok(model.clone());
    }
    // Before the new one is loaded: a device may have room for one alone.
    *kept = None;
    let (device, dtype) = device::open(choice)?;
    device.memory_cleanup();
    let family = families::of(folder)?;
    if let Some(doubt) = room::doubt(family, folder, choice, used)? {
        note(&doubt);
    }
    let model = family.load(folder, &device, dtype)?;
    *kept = Some((key, model.clone()));
    Ok(model)
}

/// Lets go of the model that is loaded on the device of `choice`.
pub fn forget(choice: DeviceChoice) {
    *kept(choice).lock().unwrap_or_else(PoisonError::into_inner) = None;
}
