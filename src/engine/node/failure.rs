//! Why a node has no result.

use std::path::Path;

use crate::diagnostic::io_help;

/// Why a node has no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The node cannot be done as asked: the same inputs will fail again.
    #[error("{message}")]
    Node {
        /// What is wrong and where.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// The environment failed: out of memory, disk full, a file that cannot be read. Worth a retry.
    #[error("{message}")]
    Environment {
        /// What is wrong and where.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// The run was interrupted.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// A failure of the node itself.
    pub fn node(message: impl Into<String>) -> Self {
        Self::Node { message: message.into(), help: None }
    }

    /// A failure of the environment.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::Environment { message: message.into(), help: None }
    }

    /// A failure to read or write `path`.
    pub fn io(path: &Path, cause: &std::io::Error) -> Self {
        let help = io_help(cause).map(str::to_owned);
        Self::Environment { message: format!("{}: {cause}", path.display()), help }
    }

    /// The same failure with a remedy.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        if let Self::Node { help, .. } | Self::Environment { help, .. } = &mut self {
            *help = Some(text.into());
        }
        self
    }
}
