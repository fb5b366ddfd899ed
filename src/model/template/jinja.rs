//! A checkpoint's own chat template, in Jinja, as transformers renders it.
//!
//! Rendering is done twice: with the contents, and with marks in their place. Where the marks land tells which bytes of
//! the result people and models wrote. A template that changes the contents beyond trimming them cannot be followed
//! that way, and is refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::{Value, json};

use super::message::{Message, Rendered};
use crate::artifact::Speaker;
use crate::data::sniff::{WrongContent, behind_mark};
use crate::model::ModelError;
use crate::model::files::json::{read_optional, token_text};

/// A chat template and the special tokens that it may name.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatTemplate {
    source: String,
    beginning: String,
    end: String,
}

impl ChatTemplate {
    /// Reads the template of the model in `folder`: `chat_template.jinja`, `chat_template.json`, or
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// When there is none, or a file is broken.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let settings = Value::Object(read_optional(&folder.join("tokenizer_config.json"))?.unwrap_or_default());
        let own = Value::Object(read_optional(&folder.join("chat_template.json"))?.unwrap_or_default());
        let plain = folder.join("chat_template.jinja");
        let source = if plain.is_file() {
            let text = std::fs::read(&plain).map_err(|cause| ModelError::io(&plain, &cause))?;
            let broken = |_| ModelError::content(&plain, WrongContent::instead_of_text(&text), "not UTF-8");
            let template = std::str::from_utf8(behind_mark(&text)).map_err(broken)?;
            // An empty template, a pointer or a page would render as itself.
            match WrongContent::in_any(&text) {
                Some(found) => return Err(ModelError::content(&plain, Some(found), "")),
                None => Some(template.to_owned()),
            }
        } else {
            template_text(&own["chat_template"]).or_else(|| template_text(&settings["chat_template"]))
        };
        let source = source.ok_or_else(|| {
            ModelError::new(format!("{}: the checkpoint has no chat template", folder.display())).help(
                "`template = \"checkpoint\"` needs `chat_template.jinja`, `chat_template.json` or a `chat_template` in \
                 `tokenizer_config.json`; name another `template`, or remove it to use the model family's",
            )
        })?;
        let named = |key: &str| token_text(&settings[key]).unwrap_or_default();
        Ok(Self { source: understood(&source), beginning: named("bos_token"), end: named("eos_token") })
    }

    /// Renders `messages`; a last human message leaves the answer open. Where a template takes contents alone, `image`
    /// stands for a picture.
    ///
    /// # Errors
    /// When the template is broken, refuses the messages, or changes their contents.
    pub fn render(&self, messages: &[Message], image: &str) -> Result<Rendered, ModelError> {
        let open = messages.last().is_some_and(|message| message.from == Speaker::Human);
        let written = self.apply(messages, image, |index| messages[index].text.clone(), open)?;
        let marked = self.apply(messages, image, mark, open)?;
        let kept: Vec<&str> = messages.iter().map(|message| message.text.as_str()).collect();
        let trimmed: Vec<&str> = kept.iter().map(|text| text.trim()).collect();
        let contents =
            [kept, trimmed].into_iter().find(|contents| fill(&marked, contents).is_some_and(|it| it.text == written));
        let Some(contents) = contents else {
            return Err(ModelError::new(
                "the checkpoint's chat template changes the contents that it renders, so answers \
                                        cannot be distinguished from questions",
            )
            .help("name another `template`, or remove it to use the model family's"));
        };
        let mut rendered = fill(&marked, &contents).unwrap_or_default();
        // What belongs to an answer around its text, by what is there: rendered again for every answer, a long
        // conversation would take its square.
        let mut around: HashMap<[&str; 2], [usize; 2]> = HashMap::new();
        for (index, _) in messages.iter().enumerate().filter(|(_, message)| message.from == Speaker::Gpt) {
            let part = |count: usize, open| -> Result<Option<Rendered>, ModelError> {
                Ok(fill(&self.apply(&messages[..count], image, mark, open)?, &contents[..count])
                    .filter(|part| rendered.text.starts_with(&part.text)))
            };
            let text = rendered.plain[index].clone();
            let before = index.checked_sub(1).map_or(0, |before| rendered.plain[before].end);
            let after = rendered.plain.get(index + 1).map_or(rendered.text.len(), |after| after.start);
            let [before, after] =
                match around.entry([&rendered.text[before..text.start], &rendered.text[text.end..after]]) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(unknown) => {
                        let start = part(index, true)?.map_or(text.start, |part| part.text.len());
                        let end = part(index + 1, false)?.map_or(text.end, |part| part.text.trim_end().len());
                        *unknown.insert([text.start.saturating_sub(start), end.saturating_sub(text.end)])
                    }
                };
            rendered.answers.push(text.start - before..text.end + after);
        }
        rendered.plain.retain(|range| !range.is_empty());
        Ok(rendered)
    }

    fn apply(
        &self,
        messages: &[Message],
        image: &str,
        text: impl Fn(usize) -> String,
        open: bool,
    ) -> Result<String, ModelError> {
        // Templates for pictures take a list of parts; those of language models alone take a text.
        let parts = self.source.contains("'type'") || self.source.contains("\"type\"") || self.source.contains(".type");
        let turns: Vec<Value> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| {
                let role = if message.from == Speaker::Human { "user" } else { "assistant" };
                let content = match (parts, message.picture) {
                    (true, true) => json!([{ "type": "image" }, { "type": "text", "text": text(index) }]),
                    (true, false) => json!([{ "type": "text", "text": text(index) }]),
                    (false, true) => json!(format!("{image}\n{}", text(index))),
                    (false, false) => json!(text(index)),
                };
                json!({ "role": role, "content": content })
            })
            .collect();
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|cause| ModelError::new(cause.to_string()))?);
        environment.set_unknown_method_callback(python_method);
        environment.add_function("strftime_now", |_: String| -> Result<String, Error> {
            // Rendered with it, a prompt would be another one every day, and no cached answer the answer to it.
            let message = "it asks for today's date with `strftime_now`, and an answer would depend on the day; write a \
                           fixed date into the template, name another `template`, or remove it to use the model \
                           family's";
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .render_str(
                &self.source,
                Serde(json!({
                    "messages": turns,
                    "add_generation_prompt": open,
                    "bos_token": self.beginning,
                    "eos_token": self.end,
                })),
            )
            .map_err(|cause| ModelError::new(format!("the checkpoint's chat template failed: {cause}")))
    }
}

/// A mark that no template contains: two characters of the private planes around a number.
fn mark(index: usize) -> String {
    format!("\u{f5710}{index}\u{f5711}")
}

/// `marked` with `contents` in place of the marks, one range a text; `None` when a mark is missing, repeated or moved.
fn fill(marked: &str, contents: &[&str]) -> Option<Rendered> {
    let mut rendered = Rendered::default();
    let mut rest = marked;
    for (index, text) in contents.iter().enumerate() {
        let (before, after) = rest.split_once(&mark(index))?;
        rendered.text.push_str(before);
        let start = rendered.text.len();
        rendered.text.push_str(text);
        rendered.plain.push(start..rendered.text.len());
        rest = after;
    }
    rendered.text.push_str(rest);
    (!rendered.text.contains(['\u{f5710}', '\u{f5711}'])).then_some(rendered)
}

/// `{% generation %}` marks a model's text for transformers and renders nothing.
fn understood(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        result.push_str(before);
        let Some((inside, after)) = tag.split_once("%}") else {
            rest = &rest[before.len()..];
            break;
        };
        let word = inside.trim_matches(['-', '+', ' ', '\t', '\n']);
        let replaced = match word {
            "generation" => inside.replace("generation", "if true"),
            "endgeneration" => inside.replace("endgeneration", "endif"),
            _ => inside.to_owned(),
        };
        result.push_str("{%");
        result.push_str(&replaced);
        result.push_str("%}");
        rest = after;
    }
    result.push_str(rest);
    result
}

/// `chat_template` is a text, or a list of named ones.
fn template_text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| {
        let named = value.as_array()?;
        let default = named.iter().find(|entry| entry["name"] == "default").or(named.first())?;
        default["template"].as_str().map(str::to_owned)
    })
}

/// The methods of Python's contents and dictionaries that chat templates call.
fn python_method(
    _: &mut State,
    value: &minijinja::Value,
    method: &str,
    arguments: &[minijinja::Value],
) -> Result<minijinja::Value, Error> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    if let Some(text) = value.as_str() {
        let argument = |index: usize| arguments.get(index).and_then(|argument| argument.as_str());
        let first = argument(0);
        let set: Option<Vec<char>> = first.map(|set| set.chars().collect());
        let strips = |c: char| set.as_ref().map_or(c.is_whitespace(), |set| set.contains(&c));
        return Ok(match (method, first) {
            ("upper", _) => text.to_uppercase().into(),
            ("lower", _) => text.to_lowercase().into(),
            ("capitalize" | "title", _) => {
                let mut letters = text.chars();
                letters.next().map_or_else(String::new, |c| c.to_uppercase().chain(letters).collect()).into()
            }
            ("strip", _) => text.trim_matches(strips).into(),
            ("lstrip", _) => text.trim_start_matches(strips).into(),
            ("rstrip", _) => text.trim_end_matches(strips).into(),
            ("startswith", Some(part)) => text.starts_with(part).into(),
            ("endswith", Some(part)) => text.ends_with(part).into(),
            ("split", Some(by)) => text.split(by).map(minijinja::Value::from).collect(),
            ("split", None) => text.split_whitespace().map(minijinja::Value::from).collect(),
            ("replace", Some(from)) => text.replace(from, argument(1).unwrap_or_default()).into(),
            _ => return Err(unknown()),
        });
    }
    match (method, arguments) {
        ("get", [key]) => value.get_item(key),
        ("get", [key, default]) => {
            value.get_item(key).map(|found| if found.is_undefined() { default.clone() } else { found })
        }
        ("keys", []) => Ok(value.try_iter()?.collect()),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::template::message::messages;
    use crate::model::template::message::tests::turns;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate { source: understood(source), beginning: "<s>".to_owned(), end: "</s>".to_owned() }
    }

    fn conversation(contents: &[&str]) -> Vec<Message> {
        messages(&turns(contents), true).unwrap()
    }

    fn parts<'a>(rendered: &'a Rendered, ranges: &[std::ops::Range<usize>]) -> Vec<&'a str> {
        ranges.iter().map(|range| &rendered.text[range.clone()]).collect()
    }

    /// In the manner of LLaVA-1.5's template on the hub.
    const PARTS: &str = "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}\
        {% endif %}{# pictures first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}\
        {{ '<image>\n' }}{% endfor %}{% if message['role'] != 'assistant' %}{% for content in message['content'] | \
        selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}{% else %}{% for content in \
        message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}{{ content['text'] + ' '}}\
        {% endgeneration %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

    #[test]
    fn a_template_of_parts_renders_as_in_transformers() {
        let rendered = template(PARTS).render(&conversation(&["What is </s>?"]), "<image>").unwrap();
        assert_eq!(rendered.text, "USER: <image>\nWhat is </s>? ASSISTANT:");
        assert_eq!(parts(&rendered, &rendered.plain), ["What is </s>?"]);
        let rendered = template(PARTS).render(&conversation(&["Q1", "A1", "Q2", "A2"]), "<image>").unwrap();
        assert_eq!(rendered.text, "USER: <image>\nQ1 ASSISTANT: A1 USER: Q2 ASSISTANT: A2 ");
        assert_eq!(parts(&rendered, &rendered.answers), [" A1", " A2"]);
    }

    #[test]
    fn a_template_of_texts_that_trims_them_is_followed() {
        let source = "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] \
                      {{ message.content.strip() }} [/INST]{% else %} {{ message.content | trim }}{{ eos_token }}\
                      {% endif %}{% endfor %}";
        let rendered = template(source).render(&conversation(&["Q1", " A1 "]), "<image>").unwrap();
        assert_eq!(rendered.text, "<s>[INST] <image>\nQ1 [/INST] A1</s>");
        assert_eq!(parts(&rendered, &rendered.answers), [" A1</s>"]);
        assert_eq!(parts(&rendered, &rendered.plain), ["Q1", "A1"]);
    }

    #[test]
    fn a_line_feed_after_the_end_is_not_part_of_the_answer() {
        let source = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
                      '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
                      {% endif %}";
        let rendered = template(source).render(&conversation(&["Q1", "A1"]), "<image>").unwrap();
        assert_eq!(parts(&rendered, &rendered.answers), ["A1<|im_end|>"]);
    }

    #[test]
    fn a_long_conversation_takes_no_longer_than_its_length() {
        let source = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ 'U: ' + m.content }}{% else %}\
            {{ ' A: ' + m.content + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %} A:{% endif %}";
        let contents: Vec<String> = (0..4000).map(|turn| format!("text {turn}")).collect();
        let contents: Vec<&str> = contents.iter().map(String::as_str).collect();
        let rendered = template(source).render(&conversation(&contents), "<image>").unwrap();
        let answers = parts(&rendered, &rendered.answers);
        let close = &rendered.text[rendered.plain[1].end..rendered.answers[0].end];
        let expected = |text: &&str| format!(" {text}{close}");
        assert_eq!(answers, contents.iter().skip(1).step_by(2).map(expected).collect::<Vec<_>>());
        assert!(!close.is_empty());
    }

    #[test]
    fn a_template_that_changes_texts_is_refused() {
        let error = template("{% for message in messages %}{{ message.content | upper }}{% endfor %}")
            .render(&conversation(&["q"]), "<image>")
            .unwrap_err();
        assert!(error.message.contains("changes the contents"), "{error}");
        let error = template("{{ strftime_now('%Y') }}").render(&conversation(&["q"]), "<image>").unwrap_err();
        assert!(error.message.contains("write a fixed date"), "{error}");
        let error =
            template("{{ raise_exception('no pictures') }}").render(&conversation(&["q"]), "<image>").unwrap_err();
        assert!(error.message.contains("no pictures"), "{error}");
    }
}
