//! What `source` of a model and adapters may mean: a directory near it, or an id on a hub.

use std::path::{Path, PathBuf};

/// Help for a pipeline file: `key = "written/found"`, and how many more there are.
pub fn written(key: &str, written: &str, found: &[PathBuf]) -> Option<String> {
    let first = Path::new(written).join(found.first()?);
    let more = match found.len() - 1 {
        0 => String::new(),
        1 => format!(" ({} is another)", Path::new(written).join(&found[1]).display()),
        more => format!(" ({more} more are below `{written}`)"),
    };
    Some(format!("write `{key} = \"{}\"`{more}", first.display()))
}

const HUBS: [&str; 4] = ["https://huggingface.co/", "http://huggingface.co/", "https://hf.co/", "hf://"];

/// Whether `source` is an address on a hub.
pub fn is_on_hub(source: &str) -> bool {
    HUBS.iter().any(|hub| source.starts_with(hub))
}

/// The Hugging Face id that `source` may name, and its revision.
pub fn hub_id(source: &str) -> Option<(String, Option<String>)> {
    /// Common names of model directories.
    const FOLDERS: [&str; 16] = [
        "models",
        "model",
        "checkpoints",
        "checkpoint",
        "ckpt",
        "ckpts",
        "weights",
        "data",
        "output",
        "outputs",
        "runs",
        "results",
        "adapters",
        "examples",
        "tests",
        "cache",
    ];
    let part = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !text.is_empty() && !text.starts_with('.') && text.chars().all(fits)
    };
    if let Some(path) = HUBS.iter().find_map(|hub| source.strip_prefix(hub)) {
        let mut parts = path.trim_start_matches("models/").split('/');
        let (org, name) = (parts.next()?, parts.next()?);
        let revision = if parts.next() == Some("tree") { parts.next().map(str::to_owned) } else { None };
        return (part(org) && part(name)).then(|| (format!("{org}/{name}"), revision));
    }
    let (path, revision) = source.split_once('@').map_or((source, None), |(path, revision)| (path, Some(revision)));
    let (org, name) = path.split_once('/')?;
    let is_id = part(org) && part(name) && !FOLDERS.contains(&org.to_lowercase().as_str());
    is_id.then(|| (path.to_owned(), revision.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_hub_is_distinguished_from_a_path() {
        let id = |source: &str| hub_id(source).map(|(id, _)| id);
        assert_eq!(id("llava-hf/llava-1.5-7b-hf").as_deref(), Some("llava-hf/llava-1.5-7b-hf"));
        assert_eq!(
            id("https://huggingface.co/llava-hf/llava-1.5-7b-hf/tree/main").as_deref(),
            Some("llava-hf/llava-1.5-7b-hf")
        );
        assert_eq!(hub_id("a/b@v1"), Some(("a/b".to_owned(), Some("v1".to_owned()))));
        for path in ["models/llava-1.5-7b-hf", "./a/b", "../a/b", "/a/b", "a/b/c", "model", "a b/c"] {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
