//! Kernels that GPUs compile and tune: where the results are kept, and how many were made in this process.
//!
//! CubeCL keeps what it tuned (and what CUDA, ROCm and Vulkan compiled) in a database; this module says where: in the
//! user's cache directory, below `stic/kernels`. One that cannot be written to is read, and nothing is kept; [`note`]
//! says so. Drivers have caches of their own. This module does not know models; the CPU has no kernels to compile.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What was made in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Kernels compiled.
    pub compiled: usize,
    /// Operations for which the fastest kernel was looked for.
    pub tuned: usize,
}

static COMPILED: AtomicUsize = AtomicUsize::new(0);
static TUNED: AtomicUsize = AtomicUsize::new(0);
static KEPT: OnceLock<PathBuf> = OnceLock::new();

/// What was made in this process so far.
pub fn made() -> Made {
    Made { compiled: COMPILED.load(Ordering::Relaxed), tuned: TUNED.load(Ordering::Relaxed) }
}

/// Why what is compiled and tuned is not kept, if it is not.
pub fn note() -> Option<String> {
    let folder = KEPT.get()?;
    let why = unwritable(folder)?;
    Some(format!("{}: {why}; compiled and tuned kernels are not kept", folder.display()))
}

/// Tells CubeCL where to keep what it tunes, and counts what it does. Before the first use of a device; later calls
/// change nothing.
pub(super) fn prepare() {
    KEPT.get_or_init(|| {
        let folder = folder(&|name| std::env::var_os(name).map(PathBuf::from), std::env::home_dir());
        configure(&folder);
        folder
    });
}

/// The directory for kernels, below the user's cache directory; a temporary one where the user has none.
fn folder(variable: &dyn Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    let own = if cfg!(windows) { "LOCALAPPDATA" } else { "XDG_CACHE_HOME" };
    let usual = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    let caches = variable(own)
        .filter(|path| path.is_absolute())
        .or_else(|| home.filter(|home| home.is_absolute()).map(|home| home.join(usual)))
        .unwrap_or_else(std::env::temp_dir);
    caches.join("stic").join("kernels")
}

/// Why nothing can be written to `folder`, or created where it would be.
fn unwritable(folder: &Path) -> Option<String> {
    let existing = folder.ancestors().find(|path| path.symlink_metadata().is_ok())?;
    if !existing.is_dir() {
        return Some(format!("{} is not a directory", existing.display()));
    }
    #[cfg(unix)]
    if let Err(cause) = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        return Some(std::io::Error::from(cause).to_string());
    }
    None
}

#[cfg(not(feature = "kernels"))]
fn configure(_: &Path) {}

#[cfg(feature = "kernels")]
fn configure(folder: &Path) {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    use cubecl::config::{autotune::AutotuneLogLevel, cache::CacheConfig, compilation::CompilationLogLevel};

    let mut config = CubeClRuntimeConfig::default();
    config.environment.path = CacheConfig::Directory(folder.to_owned());
    config.compilation.cache = true;
    config.compilation.logger.level = CompilationLogLevel::Basic;
    config.compilation.logger.log = Some(Default::default());
    config.autotune.logger.level = AutotuneLogLevel::Minimal;
    config.autotune.logger.log = Some(Default::default());
    // Variables such as CUBECL_DEBUG_LOG go before these.
    if CubeClRuntimeConfig::try_set(config.override_from_env()) && log::set_logger(&Counter).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Counts what CubeCL says that it does; nothing is printed.
#[cfg(feature = "kernels")]
struct Counter;

#[cfg(feature = "kernels")]
impl log::Log for Counter {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("cubecl::")
    }

    fn log(&self, record: &log::Record<'_>) {
        match record.target() {
            "cubecl::compilation" => _ = COMPILED.fetch_add(1, Ordering::Relaxed),
            "cubecl::autotune" => _ = TUNED.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_kept_in_the_user_s_cache_directory() {
        let at = |own: Option<&str>, home: Option<&str>| folder(&|_| own.map(PathBuf::from), home.map(PathBuf::from));
        assert_eq!(at(Some("/caches"), Some("/home/me")), Path::new("/caches/stic/kernels"));
        let usual = at(None, Some("/home/me"));
        assert!(usual.starts_with("/home/me") && usual.ends_with("stic/kernels"), "{}", usual.display());
        // A relative path would be one in the project.
        assert_eq!(at(Some("caches"), Some("/home/me")), usual);
        assert!(at(None, None).starts_with(std::env::temp_dir()));
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_cannot_be_written_to_is_found_before_it_is_needed() {
        use std::os::unix::fs::PermissionsExt;

        let root = tempfile::tempdir().unwrap();
        assert_eq!(unwritable(&root.path().join("stic/kernels")), None);
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let why = unwritable(&file.join("stic/kernels")).unwrap();
        assert!(why.ends_with("file is not a directory"), "{why}");
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
        // Root may write anywhere.
        if !rustix::process::geteuid().is_root() {
            assert!(unwritable(&root.path().join("stic/kernels")).unwrap().contains("ermission"));
        }
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}
