//! What a source calls a row.

use serde::{Deserialize, Serialize};

/// Where a row came from: a source's own names, which may repeat and are not identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The id that the source gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The path of the external file that the row is about, when it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its place in the file that it was read from, for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}
