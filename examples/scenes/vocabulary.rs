//! The tokens of the small model: one for each word of the world, each form of question and each built-in prompt.
//!
//! The tokenizer is an ordinary `tokenizer.json` of words parted by blanks. What is several words but one token is an
//! added token, taken out of the text before it is parted. Question marks are dropped, so that the word asked about
//! comes last. Decoding joins tokens by blanks, which tokenizes to the same ids.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use stic::data::prompts::PromptSet;
use stic_engine::draw::Draws;

use crate::ask::{FORMS, NOTHING};
use crate::world::{COLORS, LINES, PLACES, SHAPES, object_word};

/// The placeholder that a picture's rows replace.
pub const IMAGE: &str = "<image>";
/// What begins every sequence.
pub const BEGIN: &str = "<s>";
/// What ends an answer.
pub const END: &str = "</s>";
/// What fills short sequences.
pub const PAD: &str = "<pad>";
/// Stands for every word that the world has no use for.
pub const UNKNOWN: &str = "<unk>";
/// What comes before a description that is part of a question, as `infuse` writes it.
pub const DESCRIPTION: &str = "Image description:\n";
/// What parts such a description from the question.
pub const SEPARATOR: &str = "\n\n";

/// Tokens that decoding leaves out.
const SPECIAL: [&str; 5] = [UNKNOWN, BEGIN, END, PAD, IMAGE];
const LAYOUT: [&str; 5] = ["[INST]", "[/INST]", "\n", SEPARATOR, DESCRIPTION];

/// Tokens by id, and ids by token.
pub struct Vocabulary {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    added: usize,
}

impl Vocabulary {
    /// The vocabulary of the world.
    pub fn new() -> Self {
        let mut tokens: Vec<String> = SPECIAL.iter().chain(&LAYOUT).map(|token| (*token).to_owned()).collect();
        for set in ["stic:captions", "stic:preferred", "stic:hallucination"] {
            tokens.extend(prompts(set));
        }
        tokens.extend(FORMS.map(str::to_owned));
        let added = tokens.len();
        tokens.extend(COLORS.map(|(word, _)| word.to_owned()));
        tokens.extend(SHAPES.map(str::to_owned));
        for color in 0..COLORS.len() {
            tokens.extend((0..SHAPES.len()).map(|shape| object_word(color, shape)));
        }
        tokens.extend(PLACES.iter().chain(&LINES).map(|word| (*word).to_owned()));
        tokens.extend((0..=9).map(|number| number.to_string()));
        tokens.push(NOTHING.to_owned());
        let ids = tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id)).collect();
        Self { tokens, ids, added }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The id of a token.
    ///
    /// # Panics
    /// When the world has no such token.
    pub fn id(&self, token: &str) -> u32 {
        *self.ids.get(token).unwrap_or_else(|| panic!("`{token}` is no token of the world"))
    }

    /// One of the built-in caption prompts: asks plainly.
    pub fn plain(&self, draws: &mut Draws) -> u32 {
        let prompts = prompts("stic:captions");
        self.id(&prompts[draws.below(prompts.len())])
    }

    /// The built-in prompt that asks carefully.
    pub fn careful(&self) -> u32 {
        self.id(&prompts("stic:preferred")[0])
    }

    /// One of the built-in prompts that ask for what is not there.
    pub fn imaginative(&self, draws: &mut Draws) -> u32 {
        let prompts = prompts("stic:hallucination");
        self.id(&prompts[draws.below(prompts.len())])
    }

    /// The prompt that asks for a copy of a description in one of three manners: text has no other use for prompts.
    pub fn manner(&self, manner: usize) -> u32 {
        self.id(&prompts("stic:captions")[manner])
    }

    /// Ids of words parted by blanks: a description or an answer.
    pub fn words(&self, text: &str) -> Vec<u32> {
        text.split_whitespace().map(|word| self.id(word)).collect()
    }

    /// Ids of a question of one of the [`FORMS`].
    pub fn question(&self, text: &str) -> Vec<u32> {
        let text = text.trim_end_matches('?');
        let form = FORMS.iter().filter(|form| text.starts_with(**form)).max_by_key(|form| form.len());
        let form = form.unwrap_or_else(|| panic!("`{text}` is no question of the world"));
        let mut ids = vec![self.id(form)];
        ids.extend(self.words(&text[form.len()..]));
        ids
    }

    /// Ids as text, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let tokens = ids.iter().map(|id| self.tokens[*id as usize].as_str());
        tokens.filter(|token| !SPECIAL.contains(token)).collect::<Vec<_>>().join(" ")
    }

    /// The content of `tokenizer.json`.
    pub fn tokenizer(&self) -> Value {
        let added = self.tokens[..self.added].iter().enumerate().map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": SPECIAL.contains(&token.as_str()),
            })
        });
        let vocab: Map<String, Value> =
            self.tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id.into())).collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": { "type": "Replace", "pattern": { "String": "?" }, "content": "" },
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    { "SpecialToken": { "id": BEGIN, "type_id": 0 } },
                    { "Sequence": { "id": "A", "type_id": 0 } },
                ],
                "pair": [
                    { "SpecialToken": { "id": BEGIN, "type_id": 0 } },
                    { "Sequence": { "id": "A", "type_id": 0 } },
                    { "Sequence": { "id": "B", "type_id": 0 } },
                ],
                "special_tokens": { BEGIN: { "id": BEGIN, "ids": [self.id(BEGIN)], "tokens": [BEGIN] } },
            },
            "decoder": null,
            "model": {
                "type": "WordLevel",
                "vocab": vocab,
                "unk_token": UNKNOWN,
            },
        })
    }

    /// The content of `tokenizer_config.json`.
    pub fn tokenizer_config(&self) -> Value {
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BEGIN,
            "eos_token": END,
            "pad_token": PAD,
            "unk_token": UNKNOWN,
            "model_max_length": 512,
            "padding_side": "left",
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": false,
        })
    }
}

fn prompts(set: &str) -> Vec<String> {
    PromptSet::built_in(set).expect("a built-in set").prompts().to_vec()
}

#[cfg(test)]
mod tests {
    use tokenizers::Tokenizer;

    use super::*;
    use crate::ask::questions;
    use crate::world::{Scene, USUAL, describe};

    fn tokenizer(vocabulary: &Vocabulary) -> Tokenizer {
        serde_json::from_value(vocabulary.tokenizer()).unwrap()
    }

    #[test]
    fn the_tokenizer_reads_a_rendered_conversation_as_the_training_rows_spell_it() {
        let vocabulary = Vocabulary::new();
        let tokenizer = tokenizer(&vocabulary);
        for index in 0..100 {
            let draws = &mut Draws::new(4, "test", &index.to_string());
            let scene = Scene::draw(draws, USUAL);
            let description = describe(&scene.0);
            let question = &questions(&scene, draws, 1)[0];
            let text = format!(
                "[INST] <image>\nImage description:\n{description}\n\n{} [/INST] {} </s>",
                question.text, question.answer
            );
            let mut expected = [BEGIN, "[INST]", IMAGE, "\n", DESCRIPTION].map(|token| vocabulary.id(token)).to_vec();
            expected.extend(vocabulary.words(&description));
            expected.push(vocabulary.id(SEPARATOR));
            expected.extend(vocabulary.question(&question.text));
            expected.extend([vocabulary.id("[/INST]"), vocabulary.id(&question.answer), vocabulary.id(END)]);
            assert_eq!(tokenizer.encode(text.as_str(), true).unwrap().get_ids(), expected, "{text}");
        }
    }

    #[test]
    fn each_built_in_prompt_is_one_token_and_each_question_at_most_two() {
        let vocabulary = Vocabulary::new();
        let tokenizer = tokenizer(&vocabulary);
        for set in ["stic:captions", "stic:preferred", "stic:hallucination"] {
            for prompt in prompts(set) {
                let ids = tokenizer.encode(format!("\n{prompt} [/INST]"), false).unwrap();
                assert_eq!(ids.get_ids(), ["\n", &prompt, "[/INST]"].map(|token| vocabulary.id(token)));
            }
        }
        let question = tokenizer.encode("How many objects are in the top-row?", false).unwrap();
        assert_eq!(question.get_tokens(), ["How many objects are in the", "top-row"]);
    }

    #[test]
    fn a_decoded_description_encodes_to_the_same_ids() {
        let vocabulary = Vocabulary::new();
        let tokenizer = tokenizer(&vocabulary);
        let text = describe(&Scene::draw(&mut Draws::new(4, "test", "round trip"), 5..=5).0);
        let ids = tokenizer.encode(text.as_str(), false).unwrap();
        let mut closed = ids.get_ids().to_vec();
        closed.push(vocabulary.id(END));
        assert_eq!(tokenizer.decode(&closed, true).unwrap(), text);
        assert_eq!(vocabulary.decode(&closed), text);
    }

    #[test]
    fn words_of_no_use_to_the_world_are_unknown() {
        let vocabulary = Vocabulary::new();
        let encoded = tokenizer(&vocabulary).encode("a zebra", false).unwrap();
        assert_eq!(encoded.get_ids(), [vocabulary.id(UNKNOWN); 2]);
    }
}
