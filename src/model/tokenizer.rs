//! Text ↔ token ids, as a Hugging Face checkpoint's `tokenizer.json` defines them.
//!
//! A rendered text is tokenized once, as a whole. Which parts of it a user or a model wrote is reported by ranges:
//! there, `</s>` and the like are ordinary characters; elsewhere they are the special tokens of the template.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;
use tokenizers::{Model, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer, Token};

use super::ModelError;
use super::files::json::{read_optional, token_text};
use super::shape::ImageToken;
use crate::data::sniff::{WrongContent, behind_mark};

/// The tokens that are never written, as Llama and LLaVA call them; a file need not say what they are for.
const NEVER: [&str; 3] = ["<pad>", "<unk>", "<s>"];

/// A checkpoint's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// What comes before every text: the token that begins a sequence, or nothing.
    prefix: Vec<u32>,
    /// Tokens that are looked for in the text itself, before anything is normalized.
    added: Vec<Added>,
    /// Tokens that are looked for in normalized text.
    normalized: Vec<Added>,
    special: HashSet<u32>,
    unknown: Option<u32>,
    /// Tokens that belong to no text: those that begin a sequence, fill it up, or represent what cannot be written.
    never: HashSet<u32>,
    image: u32,
    contradiction: Option<String>,
}

/// A token that is looked for in a text.
struct Added {
    text: String,
    id: u32,
    special: bool,
    /// Whether it counts only where no letter, digit or underscore touches it.
    single_word: bool,
    strips_left: bool,
    strips_right: bool,
}

/// The tokens of a text and where each comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The ids, the beginning token included.
    pub ids: Vec<u32>,
    /// The bytes that each decodes to; empty for the beginning token.
    pub ranges: Vec<Range<usize>>,
}

impl Tokenizer {
    /// Whether a model's directory has a `tokenizer.json`, and the files beside it are JSON as well. What it says is
    /// left to [`Tokenizer::read`], which takes ten times as long.
    ///
    /// # Errors
    /// When it has not.
    pub fn check(folder: &Path) -> Result<(), ModelError> {
        let path = file(folder)?;
        let text = std::fs::read(&path).map_err(|cause| ModelError::io(&path, &cause))?;
        serde_json::from_slice::<serde::de::IgnoredAny>(behind_mark(&text)).map_err(|cause| {
            ModelError::content(&path, WrongContent::instead_of_text(&text), format_args!("not JSON: {cause}"))
        })?;
        settings(folder).map(drop)
    }

    /// Reads `tokenizer.json` and `tokenizer_config.json` of a model's directory. `image` is the token that
    /// stands for a picture, as `config.json` has it.
    ///
    /// # Errors
    /// When there is no `tokenizer.json`, when a file is broken, or when it gives that token another id.
    pub fn read(folder: &Path, image: &ImageToken) -> Result<Self, ModelError> {
        let path = file(folder)?;
        let text = std::fs::read(&path).map_err(|cause| ModelError::io(&path, &cause))?;
        let inner = tokenizers::Tokenizer::from_bytes(behind_mark(&text)).map_err(|cause| {
            ModelError::content(&path, WrongContent::instead_of_text(&text), format_args!("not a tokenizer: {cause}"))
        })?;
        Self::new(inner, &settings(folder)?, image).map_err(|error| error.of(&path))
    }

    fn new(mut inner: tokenizers::Tokenizer, settings: &Value, image: &ImageToken) -> Result<Self, ModelError> {
        // Both belong to whoever calls the tokenizer; a file saved with them would cut or fill every text.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(broken)?;
        let (mut added, mut normalized) = (Vec::new(), Vec::new());
        for (id, token) in inner.get_added_tokens_decoder() {
            // Special ones are written literally in templates, and are matched there regardless of `normalized`:
            // after a normalizer that prepends a space, no `</s>` would be found after an answer.
            let in_normalized = token.normalized && !token.special;
            let mut text = NormalizedString::from(token.content);
            if let Some(normalizer) = inner.get_normalizer().filter(|_| in_normalized) {
                normalizer.normalize(&mut text).map_err(broken)?;
            }
            let list = if in_normalized { &mut normalized } else { &mut added };
            list.push(Added {
                text: text.get().to_owned(),
                id,
                special: token.special,
                single_word: token.single_word,
                strips_left: token.lstrip,
                strips_right: token.rstrip,
            });
        }
        match added.iter_mut().find(|token| token.text == image.text) {
            Some(token) if token.id != image.id => {
                return Err(ModelError::new(format!(
                    "`{}` is token {}, but token {} by config.json",
                    image.text, token.id, image.id
                )));
            }
            Some(token) => token.special = true,
            None => added.push(Added {
                text: image.text.to_owned(),
                id: image.id,
                special: true,
                single_word: false,
                strips_left: false,
                strips_right: false,
            }),
        }
        // The longest match wins where several begin.
        for list in [&mut added, &mut normalized] {
            list.retain(|token| !token.text.is_empty());
            list.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then(a.id.cmp(&b.id)));
        }
        let named = |key: &str| token_text(&settings[key]);
        let end = named("eos_token");
        let unknown = named("unk_token").and_then(|text| inner.token_to_id(&text));
        let named_never = ["bos_token", "unk_token", "pad_token"].into_iter().filter_map(named);
        let never = named_never
            .chain(NEVER.map(str::to_owned))
            .filter(|text| end.as_ref() != Some(text))
            .filter_map(|text| inner.token_to_id(&text))
            .collect();
        let prefix = prefix(&inner)?;
        let contradiction = contradiction(!prefix.is_empty(), settings);
        let special = added.iter().filter(|token| token.special).map(|token| token.id).collect();
        let image = image.id;
        Ok(Self { inner, prefix, added, normalized, special, unknown, never, image, contradiction })
    }

    /// The ids of `text`, with BOS prepended where the tokenizer does so, unless the text begins with it.
    ///
    /// Inside the ranges `plain` (in order, disjoint) no special token is recognized.
    ///
    /// # Errors
    /// When the tokenizer cannot represent the text.
    pub fn encode(&self, text: &str, plain: &[Range<usize>]) -> Result<Tokens, ModelError> {
        let mut pieces = PreTokenizedString::from(text);
        let found = matches(&self.added, text, plain);
        pieces.split(|_, whole| Ok(cut(&whole, &found))).map_err(broken)?;
        if let Some(normalizer) = self.inner.get_normalizer() {
            pieces.normalize(|piece| normalizer.normalize(piece)).map_err(broken)?;
        }
        pieces.split(|_, piece| Ok(cut(&piece, &matches(&self.normalized, piece.get(), &[])))).map_err(broken)?;
        if let Some(splitter) = self.inner.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut pieces).map_err(broken)?;
        }
        let model = self.inner.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(broken)?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::Byte).map_err(broken)?;

        let mut tokens = Tokens::default();
        if found.first().is_none_or(|(range, id)| range.start > 0 || Some(id) != self.prefix.first()) {
            tokens.ids.extend(&self.prefix);
            tokens.ranges.extend(self.prefix.iter().map(|_| 0..0));
        }
        for (&id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let written = touches(plain, &(start..end));
            // A vocabulary of whole words finds `</s>` without that; written by a person it is a word like any unknown
            // one.
            let id = match self.unknown {
                Some(unknown) if written && self.special.contains(&id) => unknown,
                None if written && self.special.contains(&id) => continue,
                _ => id,
            };
            tokens.ids.push(id);
            tokens.ranges.push(start..end);
        }
        Ok(tokens)
    }

    /// The text of `ids` without special tokens, trimmed.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        Ok(self.inner.decode(ids, true).map_err(broken)?.trim().to_owned())
    }

    /// Whether a model may produce `id`: not when no text belongs to it (rows that fill up a vocabulary), nor for the
    /// picture's placeholder, padding, the unknown token and what begins a sequence.
    pub fn is_text(&self, id: u32) -> bool {
        id != self.image && !self.never.contains(&id) && self.inner.id_to_token(id).is_some()
    }

    /// The id of a special token, by its text.
    pub fn special(&self, text: &str) -> Option<u32> {
        self.added.iter().find(|token| token.special && token.text == text).map(|token| token.id)
    }

    /// What the checkpoint's files say differently of how a sequence begins, and which of them holds.
    pub fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }
}

/// Whether `span` has a byte in common with one of `ranges`, which are in order and disjoint.
pub fn touches(ranges: &[Range<usize>], span: &Range<usize>) -> bool {
    let first = ranges.partition_point(|range| range.end <= span.start);
    ranges.get(first).is_some_and(|range| range.start < span.end)
}

/// Where `tokens`, the longest first, occur in `text`: leftmost, then longest; special ones only outside `plain`.
///
/// As in Hugging Face's `tokenizers`, a token that counts as a whole word only is passed over within a longer one, and
/// nothing is looked for in what it passes over.
fn matches(tokens: &[Added], text: &str, plain: &[Range<usize>]) -> Vec<(Range<usize>, u32)> {
    static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w").expect("a valid expression"));
    let is_word = |character: Option<char>| character.is_some_and(|it| WORD.is_match(it.encode_utf8(&mut [0; 4])));
    let mut found = Vec::new();
    let (mut position, mut from) = (0, 0);
    while position < text.len() {
        let here = tokens.iter().find(|token| {
            text[position..].starts_with(&token.text) && {
                !token.special || !touches(plain, &(position..position + token.text.len()))
            }
        });
        let Some(token) = here else {
            position += text[position..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        let (mut start, mut end) = (position, position + token.text.len());
        position = end;
        if token.single_word && (is_word(text[..start].chars().next_back()) || is_word(text[end..].chars().next())) {
            continue;
        }
        if token.strips_left {
            start = text[..start].trim_end().len().max(from);
        }
        if token.strips_right {
            end = text.len() - text[end..].trim_start().len();
        }
        found.push((start..end, token.id));
        (position, from) = (end, end);
    }
    found
}

/// `text` in parts: each of `matches` as its token, and what is between them.
fn cut(text: &NormalizedString, matches: &[(Range<usize>, u32)]) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
    let slice = |range: Range<usize>| text.slice(tokenizers::normalizer::Range::Normalized(range));
    let mut parts = Vec::new();
    let mut from = 0;
    for (range, id) in matches {
        parts.extend(slice(from..range.start).map(|part| (part, None)));
        let token = Token::new(*id, text.get()[range.clone()].to_owned(), (0, range.len()));
        parts.extend(slice(range.clone()).map(|part| (part, Some(vec![token]))));
        from = range.end;
    }
    parts.extend(slice(from..text.get().len()).map(|part| (part, None)));
    parts
}

/// The ids that begin every text: what the file's post-processor puts there.
///
/// transformers 5 knows that the tokenizer classes of LLaVA checkpoints on the hub are often wrong, and reads
/// `tokenizer.json` alone: neither `tokenizer_class` nor `add_bos_token` says anything.
fn prefix(inner: &tokenizers::Tokenizer) -> Result<Vec<u32>, ModelError> {
    let (with, without) =
        (inner.encode_fast("a", true).map_err(broken)?, inner.encode_fast("a", false).map_err(broken)?);
    let (with, without) = (with.get_ids(), without.get_ids());
    let at = with.windows(without.len().max(1)).position(|window| window == without).unwrap_or(0);
    Ok(with[..at].to_vec())
}

/// The note where `add_bos_token` contradicts what the post-processor does, which `begins` a text or not.
fn contradiction(begins: bool, settings: &Value) -> Option<String> {
    let wanted = settings["add_bos_token"].as_bool().filter(|wanted| *wanted != begins)?;
    let does = if begins { "puts a token in front of every text" } else { "puts no token in front of a text" };
    Some(format!(
        "`add_bos_token` of tokenizer_config.json is {wanted}, but tokenizer.json {does}, which holds, as in transformers 5; \
         older versions followed the other"
    ))
}

fn file(folder: &Path) -> Result<PathBuf, ModelError> {
    let path = folder.join("tokenizer.json");
    if path.is_file() {
        return Ok(path);
    }
    let help = if folder.join("tokenizer.model").is_file() {
        "`tokenizer.model` alone is not read; `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python's \
         transformers writes `tokenizer.json` beside it"
    } else {
        "a model's directory needs the `tokenizer.json` that the checkpoint was published with"
    };
    Err(ModelError::new(format!("{}: no tokenizer here: `tokenizer.json` is missing", folder.display())).help(help))
}

/// `tokenizer_config.json`, completed by `special_tokens_map.json`; both may be missing.
fn settings(folder: &Path) -> Result<Value, ModelError> {
    let mut settings = Value::Object(read_optional(&folder.join("tokenizer_config.json"))?.unwrap_or_default());
    if let Some(map) = read_optional(&folder.join("special_tokens_map.json"))? {
        for (key, value) in map {
            if settings[&key].is_null() {
                settings[&key] = value;
            }
        }
    }
    Ok(settings)
}

fn broken(cause: tokenizers::Error) -> ModelError {
    ModelError::new(format!("the tokenizer failed: {cause}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// The tokenizers of Llama and Mistral, cut down to what the tests' texts need.
    pub fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/text").join(name)
    }

    pub fn image(id: u32) -> ImageToken {
        ImageToken { text: "<image>", id }
    }

    pub fn tokenizer(name: &str) -> Tokenizer {
        Tokenizer::read(&folder(name), &image(32000)).unwrap()
    }

    #[test]
    fn ranges_in_order_are_searched_as_if_each_was_looked_at() {
        let ranges = [2..5, 5..6, 9..12];
        for start in 0..14 {
            for end in start..14 {
                let each = ranges.iter().any(|range| range.start < end && start < range.end);
                assert_eq!(touches(&ranges, &(start..end)), each, "{start}..{end}");
            }
        }
    }

    #[test]
    fn ids_are_those_of_transformers() {
        for name in ["llama", "mistral"] {
            let tokenizer = tokenizer(name);
            let text = std::fs::read_to_string(folder(name).join("expected.json")).unwrap();
            let expected: Vec<(String, Vec<u32>)> = serde_json::from_str(&text).unwrap();
            let (special, spelled) = expected.split_at(expected.len() - 3);
            for (text, ids) in special {
                assert_eq!(&tokenizer.encode(text, &[]).unwrap().ids, ids, "{name}: {text}");
            }
            for (text, ids) in spelled {
                let written = 0..text.len();
                assert_eq!(&tokenizer.encode(text, &[written]).unwrap().ids, ids, "{name}: {text}");
            }
        }
    }

    #[test]
    fn a_special_token_is_special_only_where_nobody_wrote_it() {
        let tokenizer = tokenizer("mistral");
        let text = "a </s> b</s>";
        let tokens = tokenizer.encode(text, &[0..8]).unwrap();
        assert_eq!(tokens.ids, [1, 264, 1867, 28713, 28767, 287, 2]);
        assert_eq!(tokens.ranges.last().unwrap(), &(8..12));
        assert_eq!(tokens.ranges[0], 0..0);
    }

    #[test]
    fn a_text_that_begins_a_sequence_itself_gets_no_second_beginning() {
        let tokenizer = tokenizer("mistral");
        assert_eq!(tokenizer.encode("<s>a", &[]).unwrap().ids, [1, 264]);
        assert_eq!(tokenizer.encode("a", &[]).unwrap().ids, [1, 264]);
    }

    /// The tokenizer of `name` after `change`, with these settings beside it.
    fn changed(name: &str, change: impl Fn(&mut Value), settings: &Value) -> Tokenizer {
        let mut file: Value =
            serde_json::from_slice(&std::fs::read(folder(name).join("tokenizer.json")).unwrap()).unwrap();
        change(&mut file);
        Tokenizer::new(file.to_string().parse().unwrap(), settings, &image(32000)).unwrap()
    }

    #[test]
    fn a_text_begins_as_the_post_processor_says_whatever_stands_beside_it() {
        let drop = |file: &mut Value| file["post_processor"] = Value::Null;
        for class in ["LlamaTokenizer", "LlamaTokenizerFast", "TokenizersBackend"] {
            for add in [None, Some(true), Some(false)] {
                for bos in [None, Some("<s>")] {
                    let settings =
                        serde_json::json!({"tokenizer_class": class, "add_bos_token": add, "bos_token": bos});
                    let with = changed("llama", |_| {}, &settings);
                    assert_eq!(with.encode("a", &[]).unwrap().ids[0], 1, "{settings}");
                    assert_eq!(with.contradiction().is_some(), add == Some(false), "{settings}");
                    let without = changed("llama", drop, &settings);
                    assert_ne!(without.encode("a", &[]).unwrap().ids[0], 1, "{settings}");
                    assert_eq!(without.contradiction().is_some(), add == Some(true), "{settings}");
                }
            }
        }
    }

    #[test]
    fn added_tokens_are_found_where_transformers_finds_them() {
        let path = folder("").join("added.json");
        type Case = (Value, Vec<(String, Vec<u32>)>);
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (tokens, texts) in cases {
            let add = |file: &mut Value| {
                file["added_tokens"].as_array_mut().unwrap().extend(tokens.as_array().unwrap().clone());
            };
            let tokenizer = changed("llama", add, &Value::Null);
            for (text, ids) in texts {
                assert_eq!(tokenizer.encode(&text, &[]).unwrap().ids, ids, "{tokens}: {text:?}");
                let written = 0..text.len();
                assert_eq!(tokenizer.encode(&text, &[written]).unwrap().ids, ids, "{tokens}: {text:?}, written");
            }
        }
    }

    #[test]
    fn decoding_leaves_special_tokens_out() {
        let tokenizer = tokenizer("mistral");
        assert_eq!(tokenizer.decode(&[1, 330, 5255, 28723, 28705, 2]).unwrap(), "A cat.");
        assert!(tokenizer.is_text(330) && !tokenizer.is_text(32000) && !tokenizer.is_text(32063));
        assert!(tokenizer.is_text(2) && !tokenizer.is_text(0) && !tokenizer.is_text(1), "an end, `<unk>`, `<s>`");
    }

    #[test]
    fn a_vocabulary_of_words_does_not_read_a_written_end_as_the_end() {
        let text = r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "added_tokens": [
            {"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
             "special": true}],
            "model": {"type": "WordLevel", "unk_token": "<unk>",
                      "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": 3, "a": 4}}}"#;
        let settings = serde_json::json!({"unk_token": "<unk>"});
        let tokenizer = Tokenizer::new(text.parse().unwrap(), &settings, &image(3)).unwrap();
        assert_eq!(tokenizer.encode("a </s> a</s>", &[0..8]).unwrap().ids, [4, 0, 4, 2]);
    }

    #[test]
    fn a_folder_without_a_tokenizer_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = Tokenizer::read(folder.path(), &image(5)).err().unwrap();
        assert!(error.message.ends_with("no tokenizer here: `tokenizer.json` is missing"), "{error}");
        std::fs::write(folder.path().join("tokenizer.model"), "").unwrap();
        let error = Tokenizer::read(folder.path(), &image(5)).err().unwrap();
        assert!(error.help.unwrap().contains("save_pretrained"));
    }

    #[test]
    fn a_placeholder_with_another_id_than_the_configuration_is_an_error() {
        let error = Tokenizer::read(&folder("llama"), &image(7)).err().unwrap();
        assert!(error.message.contains("`<image>` is token 32000, but token 7 by config.json"));
    }
}
