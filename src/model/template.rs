//! Conversation templates: turns → one text, byte for byte as LLaVA renders them.
//!
//! A rendered text knows which of its bytes people and models wrote (there, special tokens are plain text) and which
//! bytes a model is trained to write: everything between the open form of a turn and the token that closes it.
//!
//! Source of the contents: LLaVA's `conversation.py`. `checkpoint` renders the checkpoint's own Jinja template instead,
//! and `none` takes a text as it is.

mod jinja;
pub(crate) mod message;

use std::path::Path;

use self::jinja::ChatTemplate;
pub use self::message::{Message, Rendered, messages};
use super::ModelError;
use crate::artifact::Speaker;

/// A conversation template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Its name, one of [`TEMPLATES`].
    pub name: &'static str,
    /// The texts that must be special tokens for the template to mean anything.
    pub needs: &'static [&'static str],
    form: Form,
}

/// How a template renders.
#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// A system sentence, then `USER: … ASSISTANT: …</s>`.
    TwoSeparators(&'static str),
    /// `[INST] … [/INST] … </s>`, with a system sentence, and what separates turns.
    Instructions(&'static str, &'static str),
    /// `<|im_start|>…<|im_end|>`, with a system message.
    Chatml(&'static str),
    /// A picture and its caption; what the person says is left out.
    Caption,
    /// The checkpoint's own.
    Checkpoint(ChatTemplate),
    /// Texts are rendered already.
    Verbatim,
}

/// The names of all templates, as a pipeline file writes them.
pub const TEMPLATES: [&str; 8] =
    ["vicuna_v1", "llava_v1", "mistral_instruct", "llava_llama_2", "chatml_direct", "plain", "checkpoint", "none"];

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
    /// When there is no such template, or the checkpoint has none.
    pub fn named(name: &str, folder: &Path) -> Result<Self, ModelError> {
        let name = TEMPLATES.into_iter().find(|known| *known == name).ok_or_else(|| {
            ModelError::new(format!("unknown template `{name}`"))
                .help(format!("one of {}", TEMPLATES.map(|name| format!("`{name}`")).join(", ")))
        })?;
        let (needs, form): (&[&str], Form) = match name {
            // LLaVA-1.5 and LLaVA-1.6 on Vicuna.
            "vicuna_v1" => (&["</s>"], Form::TwoSeparators(USER_SYSTEM)),
            // The same with a *human* in the system sentence.
            "llava_v1" => (&["</s>"], Form::TwoSeparators(HUMAN_SYSTEM)),
            // LLaVA-1.6 on Mistral.
            "mistral_instruct" => (&["</s>"], Form::Instructions("", "")),
            // LLaVA on Llama 2 chat.
            "llava_llama_2" => (&["<s>", "</s>"], Form::Instructions(VISION_SYSTEM, "<s>")),
            // LLaVA-1.6 34B.
            "chatml_direct" => {
                (&["<|im_start|>", "<|im_end|>"], Form::Chatml("<|im_start|>system\nAnswer the questions."))
            }
            // The projector's pretraining.
            "plain" => (&[], Form::Caption),
            "checkpoint" => (&[], Form::Checkpoint(ChatTemplate::read(folder)?)),
            _ => (&[], Form::Verbatim),
        };
        Ok(Self { name, needs, form })
    }

    /// Renders `messages`, which alternate and begin with a human one. A last human message leaves the answer open.
    /// `image` is the text of the token that stands for a picture.
    ///
    /// # Errors
    /// When the messages do not fit the template.
    pub fn render(&self, messages: &[Message], image: &str) -> Result<Rendered, ModelError> {
        let mut text = Writer { rendered: Rendered::default(), image };
        match &self.form {
            Form::TwoSeparators(system) => text.two_separators(system, messages),
            Form::Instructions(system, separator) => text.instructions(system, separator, messages),
            Form::Chatml(system) => text.chatml(system, messages),
            Form::Caption => text.caption(messages)?,
            Form::Checkpoint(template) => return template.render(messages, image),
            Form::Verbatim => text.verbatim(messages)?,
        }
        Ok(text.rendered)
    }
}

/// A text that is being rendered.
struct Writer<'a> {
    rendered: Rendered,
    image: &'a str,
}

impl Writer<'_> {
    /// The template's own text.
    fn control(&mut self, text: &str) {
        self.rendered.text.push_str(text);
    }

    /// What somebody wrote.
    fn plain(&mut self, text: &str) {
        let start = self.rendered.text.len();
        self.rendered.text.push_str(text);
        if !text.is_empty() {
            self.rendered.plain.push(start..self.rendered.text.len());
        }
    }

    /// A human turn: the placeholder and a line feed, then the text.
    fn human(&mut self, message: &Message) {
        if message.picture {
            self.control(self.image);
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
        let start = self.rendered.text.len();
        self.control(before);
        self.plain(text);
        self.control(close);
        self.rendered.answers.push(start..self.rendered.text.len());
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
        self.control(self.image);
        if let Some(caption) = messages.get(1) {
            // These contents are joined by LLaVA's `preprocess_plain`, to which an empty one is a text like any other.
            self.closed("", &caption.text, "\n");
        }
        Ok(())
    }

    fn verbatim(&mut self, messages: &[Message]) -> Result<(), ModelError> {
        if messages.len() > 2 {
            return Err(ModelError::new("the template `none` takes one rendered prompt and one response"));
        }
        for message in messages {
            let start = self.rendered.text.len();
            self.control(&message.text);
            if message.from == Speaker::Gpt {
                self.rendered.answers.push(start..self.rendered.text.len());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::message::PLACEHOLDER;
    use super::message::tests::turns;
    use super::*;

    fn render(name: &str, contents: &[&str], picture: bool) -> Rendered {
        let template = Template::named(name, Path::new("")).unwrap();
        template.render(&messages(&turns(contents), picture).unwrap(), PLACEHOLDER).unwrap()
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
    fn an_unknown_template_is_answered_with_the_known_ones() {
        let error = Template::named("vicuna", Path::new("")).unwrap_err();
        assert_eq!(error.message, "unknown template `vicuna`");
        assert!(error.help.unwrap().contains("`vicuna_v1`"));
    }
}
