//! The records that `corrupt`, `describe` and `mislead` make a value of: those in the node's share that have a picture.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use super::labels::{LeftOut, item_name, labeled};
use super::share::Fraction;
use crate::artifact::{Label, Record};
use stic_engine::digest::Digest;
use stic_engine::node::{BadItem, Context, Failure, Inputs, ItemValue};

/// A record with a picture.
pub struct Pictured {
    pub record: Record,
    pub label: Label,
    /// The clean picture.
    pub picture: Digest,
    /// The picture to read: the altered one where there is one.
    pub shown: Digest,
}

impl Pictured {
    /// Those of `inputs.images` in the share `fraction`, in the order of the inputs, and the records without a picture.
    ///
    /// # Errors
    /// When none is left, or one occurs twice.
    pub fn read(inputs: &Inputs, fraction: &Fraction, pipeline_seed: u64) -> Result<(Vec<Self>, LeftOut), Failure> {
        let records = labeled::<Record>(inputs, "images")?;
        let all = records.len();
        let (mut kept, mut seen, mut left_out) = (Vec::new(), HashSet::new(), LeftOut::without_picture());
        for (record, label) in records.into_iter().filter(|(record, _)| fraction.keeps(pipeline_seed, &record.id)) {
            let (Some(picture), Some(shown)) = (record.picture, record.shown()) else {
                left_out.add(&record.id, &label);
                continue;
            };
            if !seen.insert(record.id.clone()) {
                return Err(Failure::node(format!("{} occurs twice in the inputs", item_name(&record.id, &label)))
                    .help("remove it from one of the inputs that contain it"));
            }
            kept.push(Self { record, label, picture, shown });
        }
        left_out.check_rest(kept.len())?;
        fraction.check_kept(kept.len(), all)?;
        Ok((kept, left_out))
    }

    /// A bad item, named by its picture's path if that is known.
    pub fn bad(&self, cause: String, context: &dyn Context) -> BadItem {
        let path = context.content_path(&self.shown);
        let what = path.map_or_else(|| item_name(&self.record.id, &self.label), |path| path.display().to_string());
        BadItem { what, cause }
    }

    /// Its value as read from the journal.
    ///
    /// # Errors
    /// When the value is not a `T`.
    pub fn value<T: DeserializeOwned>(&self, value: ItemValue) -> Result<T, Failure> {
        serde_json::from_value(value.value).map_err(|cause| {
            Failure::node(format!("the journal's entry of {}: {cause}", item_name(&self.record.id, &self.label)))
        })
    }
}
