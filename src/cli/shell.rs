//! Quoting for commands that are printed to be copied into a POSIX shell.

use std::path::Path;

/// `text` as one word of a command.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `path` as one word of a command that is not mistaken for an option.
pub fn path(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('-') { word(&format!("./{text}")) } else { word(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_survive_a_shell() {
        for text in ["plain-1.toml", "my file's", "", "$HOME `x`", "a\nb", "photos/ä.toml"] {
            let said = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", word(text))]).output();
            assert_eq!(String::from_utf8(said.unwrap().stdout).unwrap(), text);
        }
        assert_eq!(word("p.toml"), "p.toml");
        assert_eq!(path(Path::new("-x.toml")), "./-x.toml");
    }
}
