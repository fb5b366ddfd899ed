//! What a string that must be a path may be instead: one that a shell or a browser would read otherwise, or whose
//! backslashes were taken for escapes. Looks at no file.

use std::path::PathBuf;

use super::slips::BACKSLASH;

/// What is wrong with `written`, what to say at its place, and what to do.
pub(super) fn problem(written: &str) -> Option<(String, &'static str, String)> {
    if written.contains(char::is_control) {
        let escaped: String = written.chars().map(as_written).collect();
        let help = format!("write the path in single quotes, `'{escaped}'`, or with `/`");
        return Some((BACKSLASH.to_owned(), "so this contains a line break or a tab", help));
    }
    if written == "~" || written.starts_with("~/") {
        return Some((
            "`~` is not expanded in a pipeline file".to_owned(),
            "a path of the shell",
            whole(&written[1..]),
        ));
    }
    if written.starts_with('~') {
        let help = "write the absolute path".to_owned();
        return Some(("`~` is not expanded in a pipeline file".to_owned(), "a path of the shell", help));
    }
    if let Some(name) = variable(written) {
        let help = match name.strip_prefix("$HOME").or_else(|| name.strip_prefix("${HOME}")) {
            Some("") => whole(written.strip_prefix(name).unwrap_or_default()),
            _ => "write the absolute path".to_owned(),
        };
        return Some((format!("`{name}` is not expanded in a pipeline file"), "a variable of the shell", help));
    }
    if let Some(path) = written.strip_prefix("file://") {
        return Some(("a path is not a URL".to_owned(), "a URL", format!("write `{path}`")));
    }
    let scheme = written.split_once("://").map(|(scheme, _)| scheme)?;
    let known = ["http", "https", "ftp", "s3", "gs", "hf", "az"].contains(&scheme);
    known.then(|| {
        let help = "download it first, and write its path".to_owned();
        ("URLs are not downloaded: this must be a path".to_owned(), "a URL", help)
    })
}

/// How an escape is written.
fn as_written(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        '\r' => "\\r".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\u{1b}' => "\\e".to_owned(),
        c => c.to_string(),
    }
}

fn whole(rest: &str) -> String {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let path = home.unwrap_or_else(|| PathBuf::from("/home/NAME")).join(rest.trim_start_matches('/'));
    format!("write the absolute path: `{}`", path.display())
}

/// The shell's or Windows' variable that `written` begins with or holds.
fn variable(written: &str) -> Option<&str> {
    if let Some(rest) = written.strip_prefix('%') {
        let end = rest.find('%').filter(|end| *end > 0 && rest[..*end].chars().all(|c| c.is_ascii_alphanumeric()))?;
        return Some(&written[..end + 2]);
    }
    let start = written.find('$')?;
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rest = &written[start + 1..];
    if let Some(inner) = rest.strip_prefix('{') {
        let end = inner.find('}').filter(|end| inner[..*end].chars().all(name))?;
        return Some(&written[start..start + end + 3]);
    }
    let end = rest.find(|c| !name(c)).unwrap_or(rest.len());
    (rest.starts_with(|c: char| c.is_ascii_uppercase())).then(|| &written[start..start + 1 + end])
}
