//! Sets of prompts (built-in, from a file, or a list), and which one an item draws.
//!
//! The built-in prompts are those of the published code, to the byte; the paper prints them with typographic
//! apostrophes.

use std::path::{Path, PathBuf};

use super::sniff::{NOT_UTF_8, WrongContent, behind_mark};
use crate::artifact::ItemId;
use stic_engine::digest::{Digest, Value};
use stic_engine::draw::Draws;

/// The well-curated prompt x_g, to which the preferred responses answer.
const PREFERRED: &str = concat!(
    "Please provide a detailed description of the image, focusing on the following. \n",
    "    Identify the main subjects (people, animals, objects) in the image and describe what they are doing.\n",
    "    Describe the setting of the image. Is it indoors or outdoors? What kind of environment or location does it depict? \n",
    "    What mood does the image convey? Are there any specific elements (such as lighting, weather, expressions) that contribute to this atmosphere? \n",
    "    Describe the dominant colors and the overall composition. How do these elements affect the image's impact?\n",
    "    Point out any details or symbols that might be relevant to understanding the image's meaning or context.\n",
    "    If applicable, provide interpretations of what the image might represent or communicate.",
);

/// P: the captioning prompts, from which the instruction x is drawn.
const CAPTIONS: [&str; 8] = [
    "Illustrate the details of the picture.",
    "Summarize the visual content presented.",
    "Explain what is depicted in the photograph.",
    "Outline the key elements captured in the image.",
    "Detail the composition and subjects within the frame.",
    "Convey the atmosphere and mood represented in the snapshot.",
    "Interpret the scene shown in the image.",
    "Identify and describe the main focal points in the visual.",
];

/// P_hallu: the misleading prompts, which ask for what is not there.
const HALLUCINATION: [&str; 8] = [
    "Describe the image with imaginative objects that may exist in the scene.",
    "Enrich the description by adding hypothetical objects or characters that could be part of the scene.",
    "Suggest and detail practical items or people that could logically inhabit the image's setting.",
    "Incorporate elements that, though absent, would seamlessly fit into the context of the picture.",
    "Imagine and describe additional everyday objects or activities taking place just out of frame.",
    "Augment the scene with details of potential events or items that are plausible.",
    "Conceive of and detail natural elements, such as weather or animals, that could realistically enter the scene. Make the description affirmative.",
    "Invent and incorporate details of practical tools, vehicles, or gadgets that could be expected in a similar scenario.",
];

/// The names of the built-in sets.
pub const BUILT_IN: [&str; 3] = ["stic:preferred", "stic:captions", "stic:hallucination"];

/// The caption prompt of describe-and-respond (Appendix B): the fifth.
pub const DESCRIBE_AND_RESPOND: &str = CAPTIONS[4];

/// One or more prompts, from which each item draws one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptSet {
    prompts: Vec<String>,
    digest: Digest,
}

/// Why prompts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// There is no prompt.
    #[error("contains no prompts")]
    Empty,
    /// A prompt is blank.
    #[error("prompt {0} is empty")]
    Blank(usize),
    /// The file has another extension.
    #[error("`{}` is neither `.txt` (one prompt per line) nor `.json` (a list of strings)", .0.display())]
    Extension(PathBuf),
    /// The file cannot be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is a file of another kind.
    #[error("{}: {found}", .path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What.
        found: WrongContent,
    },
    /// The file is not a list of strings.
    #[error("{} is not a list of strings: {cause}", .path.display())]
    NoList {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: serde_json::Error,
    },
}

impl PromptSet {
    /// The set of these prompts.
    ///
    /// # Errors
    /// When there is none, or one is blank.
    pub fn new(prompts: Vec<String>) -> Result<Self, PromptError> {
        if prompts.is_empty() {
            return Err(PromptError::Empty);
        }
        if let Some(index) = prompts.iter().position(|text| text.trim().is_empty()) {
            return Err(PromptError::Blank(index + 1));
        }
        let fields = vec![("texts".to_owned(), Value::from(prompts.clone()))];
        Ok(Self { digest: Digest::of_fields("stic prompts v1", &fields), prompts })
    }

    /// The built-in set called `name`; `None` when there is none.
    pub fn built_in(name: &str) -> Option<Self> {
        let prompts: &[&str] = match name {
            "stic:preferred" => &[PREFERRED],
            "stic:captions" => &CAPTIONS,
            "stic:hallucination" => &HALLUCINATION,
            _ => return None,
        };
        Self::new(prompts.iter().map(|text| (*text).to_owned()).collect()).ok()
    }

    /// The set in a file: `.txt` has one prompt per line, blank lines aside, `.json` a list of strings.
    ///
    /// # Errors
    /// When the file has another extension, cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, PromptError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let text = || {
            let bytes =
                std::fs::read(path).map_err(|cause| PromptError::Unreadable { path: path.to_owned(), cause })?;
            let other = WrongContent::instead_of_text(&bytes).filter(|_| !bytes.is_empty());
            match (other, String::from_utf8(behind_mark(&bytes).to_vec())) {
                (None, Ok(text)) => Ok(text),
                (found, _) => Err(PromptError::Other { path: path.to_owned(), found: found.unwrap_or(NOT_UTF_8) }),
            }
        };
        let prompts = match extension.as_deref() {
            Some("txt") => text()?.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect(),
            Some("json") => {
                serde_json::from_str(&text()?).map_err(|cause| PromptError::NoList { path: path.to_owned(), cause })?
            }
            _ => return Err(PromptError::Extension(path.to_owned())),
        };
        Self::new(prompts)
    }

    /// The prompts, in order.
    pub fn prompts(&self) -> &[String] {
        &self.prompts
    }

    /// The digest of the prompts, which identifies the set in random draws.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether there is more than one prompt.
    pub fn draws(&self) -> bool {
        self.prompts.len() > 1
    }

    /// The prompt that `id` draws: the same in every node that draws from this set.
    pub fn draw(&self, pipeline_seed: u64, id: &ItemId) -> &str {
        match self.prompts.as_slice() {
            [only] => only,
            prompts => {
                let subject = format!("{} {id}", self.digest);
                &prompts[Draws::new(pipeline_seed, "prompt", &subject).below(prompts.len())]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    fn sha256(text: &str) -> String {
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn built_in_prompts_are_the_published_ones_to_the_byte() {
        let hashes = |name: &str| -> Vec<String> {
            PromptSet::built_in(name).unwrap().prompts().iter().map(|text| sha256(text)[..16].to_owned()).collect()
        };
        let preferred = PromptSet::built_in("stic:preferred").unwrap();
        assert_eq!(preferred.prompts()[0].chars().count(), 764);
        assert_eq!(sha256(&preferred.prompts()[0]), "ef1b0b599096d0ac5236b47a5f422f2cd1a30e262f46573214a9aa3c3d0deae5");
        assert_eq!(
            hashes("stic:captions"),
            [
                "3f7543b3525bc4a9",
                "b4c14a49b17eb2d5",
                "7824fe4d5002a58c",
                "a22e44fca47d545f",
                "642d072f803c8cbb",
                "17327d8c80cdbe61",
                "415465cbd9858cf8",
                "31b344e665303133"
            ]
        );
        assert_eq!(
            hashes("stic:hallucination"),
            [
                "768f16391432c60b",
                "280ab5abd75ad066",
                "d227811dd8d3b6e0",
                "8befb8b4fb02b402",
                "9c2a1ab585538fd5",
                "839f209fc2e14643",
                "092137e54e6e58a9",
                "01c58b56419aa0a2"
            ]
        );
        assert_eq!(BUILT_IN.map(|name| PromptSet::built_in(name).is_some()), [true; 3]);
        assert_eq!(DESCRIBE_AND_RESPOND, "Detail the composition and subjects within the frame.");
    }

    #[test]
    fn an_item_draws_the_same_prompt_wherever_it_draws_from_the_set() {
        let captions = PromptSet::built_in("stic:captions").unwrap();
        let same = PromptSet::new(captions.prompts().to_vec()).unwrap();
        let ids: Vec<ItemId> = (0..4000u32).map(|n| ItemId::new(Digest::of(&n.to_le_bytes()))).collect();
        let mut counts = std::collections::BTreeMap::new();
        for id in &ids {
            assert_eq!(captions.draw(42, id), same.draw(42, id));
            *counts.entry(captions.draw(42, id)).or_insert(0) += 1;
        }
        assert!(counts.len() == 8 && counts.values().all(|count| (400..600).contains(count)), "{counts:?}");
        assert!(ids.iter().any(|id| captions.draw(42, id) != captions.draw(43, id)));
    }

    /// If these change, cached responses are wrong: raise the versions of the kinds that draw prompts.
    #[test]
    fn draws_are_what_they_were() {
        let captions = PromptSet::built_in("stic:captions").unwrap();
        let drawn = |n: u8| {
            let text = captions.draw(42, &ItemId::new(Digest::of(&[n])));
            CAPTIONS.iter().position(|caption| *caption == text).unwrap()
        };
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(drawn), [7, 2, 3, 2, 4, 5, 3, 7]);
        assert_eq!(captions.digest().short(), "b51847ee9666");
    }

    #[test]
    fn files_have_one_prompt_per_line_or_a_list() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let lines = PromptSet::read(&write("a.txt", "Look.\r\n\n  Say what you see. \n")).unwrap();
        assert_eq!(lines.prompts(), ["Look.", "  Say what you see. "]);
        let list = PromptSet::read(&write("a.json", r#"["One\ntwo", "Three"]"#)).unwrap();
        assert_eq!(list.prompts(), ["One\ntwo", "Three"]);
        let cause = |path: PathBuf| PromptSet::read(&path).unwrap_err().to_string();
        assert!(cause(write("b.json", "{}")).contains("not a list of strings"));
        assert_eq!(cause(write("c.json", r#"["a", " "]"#)), "prompt 2 is empty");
        assert_eq!(cause(write("d.txt", "\n")), "contains no prompts");
        assert!(cause(write("e.md", "x")).contains("neither `.txt`"));
    }
}
