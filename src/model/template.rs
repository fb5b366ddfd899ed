//! Conversation templates: turns → one text, byte for byte as LLaVA renders them.
//!
//! A [`Page`] keeps, beside its text, which bytes people and models wrote (there, special tokens are plain text) and
//! which bytes a model is trained to write: everything between the open form of a turn and the token that closes it.
//! This module does not tokenise.
//!
//! Source of the texts: LLaVA's `conversation.py`. `checkpoint` renders the checkpoint's own Jinja template instead,
//! and `none` takes a text as it stands.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::ModelError;
use super::jinja::ChatTemplate;
use super::tokenizer::{PLACEHOLDER, read_json};
use crate::artifact::{Speaker, Turn};

/// A conversation template.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// LLaVA-1.5 and LLaVA-1.6 on Vicuna.
    VicunaV1,
    /// As `vicuna_v1`, with a *human* in the system sentence.
    LlavaV1,
    /// LLaVA-1.6 on Mistral.
    MistralInstruct,
    /// LLaVA on Llama 2 chat.
    LlavaLlama2,
    /// LLaVA-1.6 34B.
    ChatmlDirect,
    /// The projector's pretraining: a picture and its caption; what the person says is left out.
    Plain,
    /// The checkpoint's own.
    Checkpoint(ChatTemplate),
    /// Texts are rendered already.
    None,
}

/// The names of all templates, as a pipeline file writes them.
pub const TEMPLATES: [&str; 8] =
    ["vicuna_v1", "llava_v1", "mistral_instruct", "llava_llama_2", "chatml_direct", "plain", "checkpoint", "none"];

/// One turn, its picture told apart from its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub from: Speaker,
    /// What is said, without the placeholder.
    pub text: String,
    /// Whether the picture is shown with this turn; it comes before the text.
    pub picture: bool,
}

/// A rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The text.
    pub text: String,
    /// What people and models wrote: there, no special token is recognised.
    pub plain: Vec<Range<usize>>,
    /// What a model is trained to write: answers, each with what closes it.
    pub answers: Vec<Range<usize>>,
}

const HUMAN_SYSTEM: &str = "A chat between a curious human and an artificial intelligence assistant. The assistant \
                            gives helpful, detailed, and polite answers to the human's questions.";
const USER_SYSTEM: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant \
                           gives helpful, detailed, and polite answers to the user's questions.";
const VISION_SYSTEM: &str = "You are a helpful language and vision assistant. You are able to understand the visual \
                             content that the user provides, and assist the user with a variety of tasks using \
                             natural language.";

impl Template {
    /// The template called `name`; `folder` is the model's, for `checkpoint`.
    ///
    /// # Errors
    /// When there is no such template, or the checkpoint has none of its own.
    pub fn named(name: &str, folder: &Path) -> Result<Self, ModelError> {
        Ok(match name {
            "vicuna_v1" => Self::VicunaV1,
            "llava_v1" => Self::LlavaV1,
            "mistral_instruct" => Self::MistralInstruct,
            "llava_llama_2" => Self::LlavaLlama2,
            "chatml_direct" => Self::ChatmlDirect,
            "plain" => Self::Plain,
            "checkpoint" => Self::Checkpoint(ChatTemplate::read(folder)?),
            "none" => Self::None,
            _ => {
                return Err(ModelError::new(format!("unknown template `{name}`"))
                    .help(format!("one of {}", TEMPLATES.map(|name| format!("`{name}`")).join(", "))));
            }
        })
    }

    /// The name of the template that LLaVA's training and evaluation use for the checkpoint in `folder`.
    ///
    /// What `config.json` says comes first: a Mistral decoder means `mistral_instruct`. For the others the names of the
    /// checkpoint and of the language model it was made from (`_name_or_path`, then the folder's own name) are searched
    /// for what LLaVA's scripts look for, as whole words: `llama-2` with `chat` means `llava_llama_2`, `34b` means
    /// `chatml_direct`. The rest is `vicuna_v1`, where those scripts' interactive forms would take `llava_v1`.
    ///
    /// # Errors
    /// When `config.json` is broken.
    pub fn default_name(folder: &Path) -> Result<&'static str, ModelError> {
        let config = read_json(&folder.join("config.json"))?.unwrap_or_default();
        let text = &config["text_config"];
        let family = text["model_type"].as_str().or(config["model_type"].as_str()).unwrap_or_default();
        if family.contains("mistral") {
            return Ok("mistral_instruct");
        }
        let named = |value: &Value| model_name(Path::new(value["_name_or_path"].as_str().unwrap_or_default()));
        for name in [named(text), named(&config), model_name(folder)] {
            if has_word(&name, "llama-2") && has_word(&name, "chat") || has_word(&name, "llava-llama-2") {
                return Ok("llava_llama_2");
            }
            if has_word(&name, "mistral") {
                return Ok("mistral_instruct");
            }
            if has_word(&name, "34b") {
                return Ok("chatml_direct");
            }
        }
        Ok("vicuna_v1")
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::VicunaV1 => "vicuna_v1",
            Self::LlavaV1 => "llava_v1",
            Self::MistralInstruct => "mistral_instruct",
            Self::LlavaLlama2 => "llava_llama_2",
            Self::ChatmlDirect => "chatml_direct",
            Self::Plain => "plain",
            Self::Checkpoint(_) => "checkpoint",
            Self::None => "none",
        }
    }

    /// The texts that must be special tokens for this template to mean anything.
    pub fn needs(&self) -> &'static [&'static str] {
        match self {
            Self::VicunaV1 | Self::LlavaV1 | Self::MistralInstruct => &["</s>"],
            Self::LlavaLlama2 => &["<s>", "</s>"],
            Self::ChatmlDirect => &["<|im_start|>", "<|im_end|>"],
            Self::Plain | Self::Checkpoint(_) | Self::None => &[],
        }
    }

    /// Renders `messages`, which alternate and begin with a human one. A last human message leaves the answer open.
    ///
    /// # Errors
    /// When the messages do not fit the template.
    pub fn render(&self, messages: &[Message]) -> Result<Page, ModelError> {
        let mut page = Page::default();
        match self {
            Self::VicunaV1 => page.two_separators(USER_SYSTEM, messages),
            Self::LlavaV1 => page.two_separators(HUMAN_SYSTEM, messages),
            Self::MistralInstruct => page.instructions("", "", messages),
            Self::LlavaLlama2 => page.instructions(VISION_SYSTEM, "<s>", messages),
            Self::ChatmlDirect => page.chatml("<|im_start|>system\nAnswer the questions.", messages),
            Self::Plain => page.caption(messages)?,
            Self::Checkpoint(template) => page = template.render(messages)?,
            Self::None => page.verbatim(messages)?,
        }
        Ok(page)
    }
}

/// What a model in the folder `path` is called, in lower case; nothing where the folder has a digest for a name. In a
/// hub's cache, `models--ORG--NAME/snapshots/DIGEST`, it is `NAME`.
fn model_name(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut above = path.ancestors().skip(1);
    if let (Some(snapshots), Some(model)) = (above.next(), above.next())
        && name(snapshots) == "snapshots"
        && let Some(id) = name(model).strip_prefix("models--")
    {
        return id.rsplit("--").next().unwrap_or_default().to_owned();
    }
    let own = name(path);
    let digest = own.len() >= 8 && own.chars().all(|character| character.is_ascii_hexdigit());
    if digest { String::new() } else { own }
}

/// Whether `word` stands in `name` by itself: not within a longer row of letters or of digits.
fn has_word(name: &str, word: &str) -> bool {
    let alike =
        |one: char, other: char| one.is_alphabetic() && other.is_alphabetic() || one.is_numeric() && other.is_numeric();
    let meets = |one: Option<char>, other: Option<char>| one.zip(other).is_some_and(|(one, other)| alike(one, other));
    name.match_indices(word).any(|(at, _)| {
        let (before, after) = (&name[..at], &name[at + word.len()..]);
        !meets(before.chars().next_back(), word.chars().next())
            && !meets(word.chars().next_back(), after.chars().next())
    })
}

impl Page {
    /// The template's own text.
    fn control(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// What somebody wrote.
    fn plain(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        if !text.is_empty() {
            self.plain.push(start..self.text.len());
        }
    }

    /// A human turn: the placeholder and a line feed, then the text.
    fn human(&mut self, message: &Message) {
        if message.picture {
            self.control(PLACEHOLDER);
            if !message.text.is_empty() {
                self.control("\n");
            }
        }
        self.plain(&message.text);
    }

    /// An answer and what closes it, from `before` (a blank that the open form leaves to the model) on. An empty answer
    /// is nothing at all: LLaVA's `get_prompt` takes an empty text for a turn that is still open.
    fn answer(&mut self, before: &str, text: &str, close: &str) {
        if !text.is_empty() {
            self.closed(before, text, close);
        }
    }

    fn closed(&mut self, before: &str, text: &str, close: &str) {
        let start = self.text.len();
        self.control(before);
        self.plain(text);
        self.control(close);
        self.answers.push(start..self.text.len());
    }

    fn two_separators(&mut self, system: &str, messages: &[Message]) {
        self.control(system);
        self.control(" ");
        for message in messages {
            match message.from {
                Speaker::Human => {
                    self.control("USER: ");
                    self.human(message);
                    self.control(" ASSISTANT:");
                }
                Speaker::Gpt => self.answer(" ", &message.text, "</s>"),
            }
        }
    }

    fn instructions(&mut self, system: &str, separator: &str, messages: &[Message]) {
        for (index, message) in messages.iter().enumerate() {
            match message.from {
                Speaker::Human => {
                    // The first separator is stripped: the tokenizer begins the sequence.
                    self.control(if index == 0 { "" } else { separator });
                    self.control("[INST] ");
                    if index == 0 && !system.is_empty() {
                        self.control(&format!("<<SYS>>\n{system}\n<</SYS>>\n\n"));
                    }
                    self.human(message);
                    self.control(" [/INST]");
                }
                Speaker::Gpt => self.answer(" ", &message.text, " </s>"),
            }
        }
    }

    fn chatml(&mut self, system: &str, messages: &[Message]) {
        self.control(system);
        self.control("<|im_end|>");
        for message in messages {
            match message.from {
                Speaker::Human => {
                    self.control("<|im_start|>user\n");
                    self.human(message);
                    self.control("<|im_end|><|im_start|>assistant\n");
                }
                Speaker::Gpt => self.answer("", &message.text, "<|im_end|>"),
            }
        }
    }

    fn caption(&mut self, messages: &[Message]) -> Result<(), ModelError> {
        let (Some(first), [] | [_]) = (messages.first(), messages.get(1..).unwrap_or_default()) else {
            return Err(ModelError::new("the template `plain` takes one human turn and one answer"));
        };
        if !first.picture {
            return Err(ModelError::new(
                "the template `plain` renders a picture and its caption, and there is no picture",
            ));
        }
        self.control(PLACEHOLDER);
        if let Some(caption) = messages.get(1) {
            // These texts are joined by LLaVA's `preprocess_plain`, to which an empty one is a text like any other.
            self.closed("", &caption.text, "\n");
        }
        Ok(())
    }

    fn verbatim(&mut self, messages: &[Message]) -> Result<(), ModelError> {
        if messages.len() > 2 {
            return Err(ModelError::new("the template `none` takes one rendered prompt and one response"));
        }
        for message in messages {
            let start = self.text.len();
            self.control(&message.text);
            if message.from == Speaker::Gpt {
                self.answers.push(start..self.text.len());
            }
        }
        Ok(())
    }
}

/// Tells the picture apart from the text of `turns`, as LLaVA's `preprocess_multimodal` does: a turn that has the
/// placeholder anywhere gets it in front, its text trimmed; where no turn has it, the first one gets it.
///
/// # Errors
/// When the turns do not alternate from a human one, when there is a placeholder without a picture, or more than one.
pub fn messages(turns: &[Turn], picture: bool) -> Result<Vec<Message>, ModelError> {
    if turns.is_empty() {
        return Err(ModelError::new("a conversation has no turn"));
    }
    for (index, turn) in turns.iter().enumerate() {
        if (turn.from == Speaker::Human) != (index % 2 == 0) {
            return Err(ModelError::new(format!(
                "turn {} of a conversation is not of the {}: they alternate, and a human one is the first",
                index + 1,
                if index % 2 == 0 { "human" } else { "model" }
            )));
        }
    }
    let humans = || turns.iter().filter(|turn| turn.from == Speaker::Human);
    let count: usize = humans().map(|turn| turn.value.matches(PLACEHOLDER).count()).sum();
    check_count(count, picture)?;
    Ok(turns
        .iter()
        .enumerate()
        .map(|(index, turn)| {
            let human = turn.from == Speaker::Human;
            let placed = human && turn.value.contains(PLACEHOLDER);
            let text =
                if placed { turn.value.replacen(PLACEHOLDER, "", 1).trim().to_owned() } else { turn.value.clone() };
            Message { from: turn.from, text, picture: placed || (picture && count == 0 && index == 0) }
        })
        .collect())
}

/// Whether `count` placeholders fit a prompt with or without a picture; none is put in front by [`messages`].
fn check_count(count: usize, picture: bool) -> Result<(), ModelError> {
    match (picture, count) {
        (false, 0) | (true, 0 | 1) => Ok(()),
        (false, _) => Err(ModelError::new(format!("the text contains `{PLACEHOLDER}`, but there is no picture"))
            .help(format!("give a picture, or take `{PLACEHOLDER}` out of the text"))),
        (true, _) => Err(ModelError::new(format!("the text contains `{PLACEHOLDER}` {count} times, for one picture"))
            .help(format!("leave one `{PLACEHOLDER}`, or none: it is put in front"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(texts: &[&str]) -> Vec<Turn> {
        let from = |index: usize| if index.is_multiple_of(2) { Speaker::Human } else { Speaker::Gpt };
        texts.iter().enumerate().map(|(i, text)| Turn { from: from(i), value: (*text).to_owned() }).collect()
    }

    fn render(name: &str, texts: &[&str], picture: bool) -> Page {
        let template = Template::named(name, Path::new("")).unwrap();
        template.render(&messages(&turns(texts), picture).unwrap()).unwrap()
    }

    const QUESTION: &str = "<image>\nWhat is this?";

    #[test]
    fn open_turns_are_llavas_to_the_byte() {
        let user = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, \
                    detailed, and polite answers to the user's questions.";
        let human = "A chat between a curious human and an artificial intelligence assistant. The assistant gives \
                     helpful, detailed, and polite answers to the human's questions.";
        let vision = "You are a helpful language and vision assistant. You are able to understand the visual content \
                      that the user provides, and assist the user with a variety of tasks using natural language.";
        for (name, expected) in [
            ("vicuna_v1", format!("{user} USER: <image>\nWhat is this? ASSISTANT:")),
            ("llava_v1", format!("{human} USER: <image>\nWhat is this? ASSISTANT:")),
            ("mistral_instruct", "[INST] <image>\nWhat is this? [/INST]".to_owned()),
            ("llava_llama_2", format!("[INST] <<SYS>>\n{vision}\n<</SYS>>\n\n<image>\nWhat is this? [/INST]")),
            (
                "chatml_direct",
                "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhat is \
                 this?<|im_end|><|im_start|>assistant\n"
                    .to_owned(),
            ),
            ("plain", "<image>".to_owned()),
        ] {
            let page = render(name, &[QUESTION], true);
            assert_eq!(page.text, expected, "{name}");
            assert!(page.answers.is_empty(), "{name}");
        }
    }

    #[test]
    fn closed_turns_go_on_from_the_open_ones_and_the_rest_is_the_answer() {
        for (name, rest) in [
            ("vicuna_v1", " A cat.</s>"),
            ("llava_v1", " A cat.</s>"),
            ("mistral_instruct", " A cat. </s>"),
            ("llava_llama_2", " A cat. </s>"),
            ("chatml_direct", "A cat.<|im_end|>"),
            ("plain", "A cat.\n"),
        ] {
            let open = render(name, &[QUESTION], true);
            let closed = render(name, &[QUESTION, "A cat."], true);
            assert_eq!(closed.text, format!("{}{rest}", open.text), "{name}");
            assert_eq!(closed.answers, [open.text.len()..closed.text.len()], "{name}");
        }
    }

    #[test]
    fn later_turns_follow_without_a_blank() {
        let four = [QUESTION, "A1", "Q2", "A2"];
        let page = render("vicuna_v1", &four, true);
        assert!(page.text.ends_with(" USER: <image>\nWhat is this? ASSISTANT: A1</s>USER: Q2 ASSISTANT: A2</s>"));
        let answers: Vec<&str> = page.answers.iter().map(|range| &page.text[range.clone()]).collect();
        assert_eq!(answers, [" A1</s>", " A2</s>"]);
        let page = render("mistral_instruct", &four, true);
        assert_eq!(page.text, "[INST] <image>\nWhat is this? [/INST] A1 </s>[INST] Q2 [/INST] A2 </s>");
        let page = render("llava_llama_2", &four, true);
        assert!(
            page.text.ends_with("\n<</SYS>>\n\n<image>\nWhat is this? [/INST] A1 </s><s>[INST] Q2 [/INST] A2 </s>")
        );
    }

    #[test]
    fn an_empty_answer_is_an_open_turn_as_in_llava() {
        for name in ["vicuna_v1", "llava_v1", "mistral_instruct", "llava_llama_2", "chatml_direct"] {
            let page = render(name, &[QUESTION, ""], true);
            assert_eq!(page, render(name, &[QUESTION], true), "{name}");
        }
        let page = render("mistral_instruct", &[QUESTION, "", "Q2", "A2"], true);
        assert_eq!(page.text, "[INST] <image>\nWhat is this? [/INST][INST] Q2 [/INST] A2 </s>");
        assert_eq!(page.answers.len(), 1);
        assert_eq!(render("plain", &[QUESTION, ""], true).text, "<image>\n");
    }

    #[test]
    fn what_people_and_models_wrote_is_marked() {
        let page = render("mistral_instruct", &["Is </s> here?\n<image>", "No </s>."], true);
        let plain: Vec<&str> = page.plain.iter().map(|range| &page.text[range.clone()]).collect();
        assert_eq!(plain, ["Is </s> here?", "No </s>."]);
    }

    #[test]
    fn the_placeholder_goes_to_the_front_of_its_turn() {
        for (text, expected) in [
            ("What?", "[INST] <image>\nWhat? [/INST]"),
            ("What?\n<image>", "[INST] <image>\nWhat? [/INST]"),
            ("<image>\n What? ", "[INST] <image>\nWhat? [/INST]"),
            ("<image>", "[INST] <image> [/INST]"),
            ("", "[INST] <image> [/INST]"),
        ] {
            assert_eq!(render("mistral_instruct", &[text], true).text, expected, "{text:?}");
        }
        let later = render("mistral_instruct", &["Hello", "Hi", "What?<image>"], true);
        assert_eq!(later.text, "[INST] Hello [/INST] Hi </s>[INST] <image>\nWhat? [/INST]");
    }

    #[test]
    fn a_placeholder_too_many_is_an_error() {
        let error = |texts: &[&str], picture| messages(&turns(texts), picture).unwrap_err().message;
        assert_eq!(error(&["a <image>"], false), "the text contains `<image>`, but there is no picture");
        assert!(error(&["<image> <image>"], true).starts_with("the text contains `<image>` 2 times"));
        // In an answer it is plain text.
        assert!(messages(&turns(&["a", "<image>"]), false).is_ok());
    }

    #[test]
    fn turns_alternate_from_a_human_one() {
        let turn = |from| Turn { from, value: "a".to_owned() };
        assert!(messages(&[turn(Speaker::Gpt)], false).is_err());
        assert!(messages(&[turn(Speaker::Human), turn(Speaker::Human)], false).is_err());
        assert!(messages(&[], false).is_err());
    }

    #[test]
    fn the_default_follows_the_family() {
        let root = tempfile::tempdir().unwrap();
        let default = |name: &str, config: &str| {
            let folder = root.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("config.json"), config).unwrap();
            Template::default_name(&folder).unwrap()
        };
        assert_eq!(default("a", r#"{"model_type": "llava", "text_config": {"model_type": "llama"}}"#), "vicuna_v1");
        assert_eq!(default("b", r#"{"text_config": {"model_type": "mistral"}}"#), "mistral_instruct");
        assert_eq!(default("llava-v1.6-34b-hf", r#"{"text_config": {"model_type": "llama"}}"#), "chatml_direct");
        let chat = r#"{"text_config": {"_name_or_path": "meta-llama/Llama-2-13b-chat-hf"}}"#;
        assert_eq!(default("c", chat), "llava_llama_2");
        assert_eq!(default("llava-llama-2-7b", "{}"), "llava_llama_2");
        assert_eq!(default("d", r#"{"text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5"}}"#), "vicuna_v1");
        // Within other words and in digests the same letters mean nothing.
        for name in ["0aa34b11c2", "b34bx", "134b", "ministralite", "llama-21-chat", "snapshots/0aa34b11c2"] {
            assert_eq!(default(name, "{}"), "vicuna_v1", "{name}");
        }
        for (name, template) in [
            ("models--llava-hf--llava-v1.6-34b-hf/snapshots/0aa11c2f", "chatml_direct"),
            ("models--llava-hf--llava-1.5-7b-hf/snapshots/0aa34b11c2", "vicuna_v1"),
            ("models--mistral--llava-1.5-7b-hf/snapshots/main", "vicuna_v1"),
            ("llava_34b", "chatml_direct"),
            ("LLaVA-Yi34B.tuned", "chatml_direct"),
            ("llava-mistral7b", "mistral_instruct"),
        ] {
            assert_eq!(default(name, "{}"), template, "{name}");
        }
        let cached = r#"{"_name_or_path": "/root/hub/models--a--llava-34b/snapshots/0123456789"}"#;
        assert_eq!(default("e", cached), "chatml_direct");
    }

    #[test]
    fn an_unknown_template_is_answered_with_the_known_ones() {
        let error = Template::named("vicuna", Path::new("")).unwrap_err();
        assert_eq!(error.message, "unknown template `vicuna`");
        assert!(error.help.unwrap().contains("`vicuna_v1`"));
    }
}
