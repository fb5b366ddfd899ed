//! What can go wrong with a cache directory.

use std::io;
use std::path::{Path, PathBuf};

use super::LAYOUT;
use crate::diagnostic::{io_help, is_of_the_machine};
use crate::digest::Digest;
use crate::node::Failure;

/// A cache that cannot be used, or a part of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The path of the cache is something else than a directory.
    #[error("the cache `{}` is not a directory", .path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The directory of the cache is gone, or is none any more, while it is used.
    #[error("the cache `{}` is gone: its directory was removed or moved", .path.display())]
    Gone {
        /// The path.
        path: PathBuf,
    },
    /// The directory is not a cache, and is not empty either.
    #[error("`{}` is not a cache of stic: it contains {}", .path.display(), listed(.holds))]
    NotACache {
        /// The path.
        path: PathBuf,
        /// The names in it.
        holds: Vec<String>,
    },
    /// Another version of this program made the cache.
    #[error("the cache `{}` has layout {found}, and this version of stic reads layout {LAYOUT}", .path.display())]
    OtherLayout {
        /// The path of the cache.
        path: PathBuf,
        /// The layout it says it has.
        found: u32,
    },
    /// Something would be written to a cache that was opened for reading.
    #[error("the cache `{}` was opened read-only", .path.display())]
    OpenedForReading {
        /// The path of the cache.
        path: PathBuf,
    },
    /// Another process took over what this one was working on, since it was not heard of for a while.
    #[error("lost the claim on {}: this process was unresponsive for a while, and another took over", .key.short())]
    ClaimLost {
        /// The key.
        key: Digest,
    },
    /// A file of the cache cannot be read or written.
    #[error("cannot {action} `{}`: {cause}", .path.display())]
    Io {
        /// What was tried: `read`, `write`, `make`, ….
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// A cache that does not say what its layout is.
    #[error("the cache's layout file `{}` is missing or damaged", .path.display())]
    NoLayout {
        /// The file that says it.
        path: PathBuf,
    },
    /// An object is not there.
    #[error("the cache has no object {}", .digest.short())]
    MissingObject {
        /// Its name.
        digest: Digest,
    },
    /// An object's content is not what its name says. Where the cache may be written to it has been removed, so that
    /// it is recomputed.
    #[error("`{}` {}", .path.display(), if *.removed { "was damaged and has been removed from the cache" } else { "is damaged" })]
    CorruptObject {
        /// Its name.
        digest: Digest,
        /// Where it is, or was.
        path: PathBuf,
        /// Whether it has been removed.
        removed: bool,
    },
}

impl StoreError {
    /// An error of the operating system at `path`, while trying to do `action`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_owned(), cause }
    }

    /// Whether it is an error of the operating system of this kind.
    pub(super) fn is(&self, kind: io::ErrorKind) -> bool {
        matches!(self, Self::Io { cause, .. } if cause.kind() == kind)
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotAFolder { .. } => "name another directory with `--cache DIR`, or move that file away".to_owned(),
            Self::Gone { .. } => "restore it and run again; without it everything is recomputed".to_owned(),
            Self::NotACache { .. } => {
                "name a new or an empty directory with `--cache DIR` or STIC_CACHE: nothing is written into any other"
                    .to_owned()
            }
            Self::OtherLayout { found, .. } if *found > LAYOUT => {
                "update stic, or name another directory with `--cache DIR`".to_owned()
            }
            Self::OtherLayout { .. } => {
                "an older version of stic made it: name another directory with `--cache DIR`, or remove this one"
                    .to_owned()
            }
            Self::NoLayout { path } => format!(
                "if this version of stic made it, write the line `{LAYOUT}` into `{}`: what the cache holds is checked \
                 when it is read; else name another directory with `--cache DIR`",
                path.display()
            ),
            Self::OpenedForReading { .. } => return None,
            Self::ClaimLost { .. } => "run again to use the other process's result".to_owned(),
            Self::Io { cause, path, .. } => match cause.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "fix the permissions of the cache directory, or name another with `--cache DIR`".to_owned()
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    let in_the_way = |path: &&Path| path.symlink_metadata().is_ok() && !path.is_dir();
                    let path = path.ancestors().find(in_the_way).unwrap_or(path);
                    format!(
                        "`{}` is not a directory, and the cache needs one there: move it away, or name another cache with \
                         `--cache DIR`",
                        path.display()
                    )
                }
                io::ErrorKind::IsADirectory => "move the directory away: the cache expects a file there".to_owned(),
                _ if is_of_the_machine(cause) => return io_help(cause).map(str::to_owned),
                _ => "name another directory with `--cache DIR`".to_owned(),
            },
            Self::CorruptObject { removed: false, .. } => {
                "give yourself access to the cache directory and run the node with `--force NODE`, or name another cache \
                 with `--cache DIR`"
                    .to_owned()
            }
            Self::MissingObject { .. } | Self::CorruptObject { .. } => {
                "run again to recompute what is missing".to_owned()
            }
        })
    }
}

impl From<StoreError> for Failure {
    /// A broken cache is a failure of the environment: it says nothing about the node, and is never kept.
    fn from(error: StoreError) -> Self {
        Self::Environment { message: error.to_string(), help: error.help() }
    }
}

/// The first of `names`, and how many more there are.
fn listed(names: &[String]) -> String {
    const NAMED: usize = 4;
    let first: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(NAMED);
    first.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}
