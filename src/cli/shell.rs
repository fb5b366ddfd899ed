//! Commands that are shown to be copied: as a POSIX shell takes them.

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

/// `path` as one word of a command that is taken for no option.
pub fn path(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('-') { word(&format!("./{text}")) } else { word(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_from_a_shell_as_they_were() {
        for text in ["plain-1.toml", "my file's", "", "$HOME `x`", "a\nb", "photos/ä.toml"] {
            let said = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", word(text))]).output();
            assert_eq!(String::from_utf8(said.unwrap().stdout).unwrap(), text);
        }
        assert_eq!(word("p.toml"), "p.toml");
        assert_eq!(path(Path::new("-x.toml")), "./-x.toml");
    }
}
