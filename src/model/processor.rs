//! From text and pictures to a model's input: its tokenizer, chat template and image processor.
//!
//! One implementation serves generation, scoring, DPO and SFT.

use std::path::Path;

use image::RgbImage;

use super::ModelError;
use super::contract::{ImageInput, ImageLayout, ImageProcessor, ImageSettings, Shape};
use super::families;
use super::sequence::{ImageRun, Sequence};
use super::template::{Message, Template, messages};
use super::tokenizer::{Tokenizer, touches};
use crate::artifact::{Speaker, Turn};

/// How a checkpoint reads and writes.
pub struct Processor {
    tokenizer: Tokenizer,
    template: Template,
    images: Box<dyn ImageProcessor>,
    shape: Shape,
    /// What is odd about the checkpoint's files, for people.
    pub notes: Vec<String>,
}

impl Processor {
    /// The processor of the checkpoint in `folder`, with the template called `template` or the family's own.
    ///
    /// # Errors
    /// When the model's files are broken, the checkpoint cannot do what a setting asks for, or the tokenizer lacks a
    /// special token that the template is made of.
    pub fn read(folder: &Path, template: Option<&str>, settings: &ImageSettings) -> Result<Self, ModelError> {
        let family = families::of(folder)?;
        let shape = family.shape(folder)?;
        let tokenizer = Tokenizer::read(folder, &shape.image_token)?;
        let template = Template::named(template.map_or_else(|| family.default_template(folder), Ok)?, folder)?;
        if let Some(missing) = template.needs.iter().find(|text| tokenizer.special(text).is_none()) {
            return Err(ModelError::new(format!(
                "{}: the template `{}` needs the special token `{missing}`, which this tokenizer does not have",
                folder.display(),
                template.name
            ))
            .help("name another with `template`, for example `checkpoint`"));
        }
        let images = families::image_processor(folder, settings)?;
        let notes = tokenizer.contradiction().map(str::to_owned).into_iter().collect();
        Ok(Self { tokenizer, template, images, shape, notes })
    }

    /// The sizes of the model.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The chat template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The image processor.
    pub fn images(&self) -> &dyn ImageProcessor {
        &*self.images
    }

    /// What the tower reads of the only image of a conversation.
    pub fn image(&self, image: &RgbImage) -> ImageInput {
        let layout = self.images.layout(&[image.dimensions().into()]).remove(0);
        ImageInput { pixels: self.images.pixels(image, &layout), layout }
    }

    /// The tokens of a conversation about `images`. After a last human turn the answer is open.
    ///
    /// # Errors
    /// When the turns do not fit the template or the images.
    pub fn tokenize(&self, turns: &[Turn], images: &[&ImageLayout]) -> Result<Sequence, ModelError> {
        let mut rendered =
            self.template.render(&self.messages(turns, !images.is_empty())?, self.shape.image_token.text)?;
        rendered.expand(self.shape.image_token.text, images.iter().map(|layout| layout.text.as_str()));
        let tokens = self.tokenizer.encode(&rendered.text, &rendered.plain)?;
        if let Some(unknown) = tokens.ids.iter().find(|token| **token as usize >= self.shape.vocabulary) {
            return Err(ModelError::new(format!(
                "`tokenizer.json` writes token {unknown}, and the model knows {} tokens, counted from 0",
                self.shape.vocabulary
            ))
            .help("the tokenizer belongs to another model: use the one that the checkpoint was published with"));
        }
        let answer = tokens.ranges.iter().map(|token| touches(&rendered.answers, token)).collect();
        let places = (0..tokens.ids.len()).filter(|index| tokens.ids[*index] == self.shape.image_token.id);
        let runs: Vec<[usize; 2]> = images.iter().flat_map(|layout| layout.runs.iter().copied()).collect();
        let places: Vec<usize> = places.collect();
        self.check_places(places.len(), runs.len(), images.len())?;
        let images = std::iter::zip(places, runs).map(|(token, grid)| ImageRun { token, grid }).collect();
        Ok(Sequence { tokens: tokens.ids, images, answer, cut: 0 })
    }

    /// The text of a conversation as [`Processor::tokenize`] renders it, an image token standing for each image.
    ///
    /// # Errors
    /// As there.
    pub fn render(&self, turns: &[Turn], picture: bool) -> Result<String, ModelError> {
        Ok(self.template.render(&self.messages(turns, picture)?, self.shape.image_token.text)?.text)
    }

    /// With `none` a text is left as it is: whoever rendered it placed the placeholder.
    fn messages(&self, turns: &[Turn], picture: bool) -> Result<Vec<Message>, ModelError> {
        if self.template.name == "none" {
            let message = |turn: &Turn| Message { from: turn.from, text: turn.value.clone(), picture: false };
            return Ok(turns.iter().map(message).collect());
        }
        messages(turns, picture)
    }

    /// Whether a prompt with so many image tokens fits images with so many of them.
    fn check_places(&self, found: usize, expected: usize, images: usize) -> Result<(), ModelError> {
        let token = self.shape.image_token.text;
        match (found, images) {
            _ if found == expected => Ok(()),
            (0, _) => Err(ModelError::new(format!("there is a picture, but no `{token}` in the rendered prompt"))
                .help(format!("put `{token}` where the picture belongs"))),
            (_, 0) => Err(ModelError::new(format!(
                "`{token}` is in the rendered prompt {found} times, but there is no picture"
            ))),
            (_, 1) if expected == 1 => {
                Err(ModelError::new(format!("`{token}` is in the rendered prompt {found} times, for one picture")))
            }
            _ => Err(ModelError::new(format!(
                "`{token}` is in the rendered prompt {found} times, and the pictures take {expected} of them"
            ))),
        }
    }
}

/// A prompt and, where it is known, the response to it.
pub fn round(prompt: &str, response: Option<&str>) -> Vec<Turn> {
    std::iter::once((Speaker::Human, prompt))
        .chain(response.map(|text| (Speaker::Gpt, text)))
        .map(|(from, value)| Turn { from, value: value.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::template::message::tests::turns;
    use crate::model::tiny;
    use crate::model::tokenizer::tests::{image, tokenizer};

    /// One picture is one image token of 576 positions.
    struct Fixed;

    impl ImageProcessor for Fixed {
        fn layout(&self, sizes: &[[u32; 2]]) -> Vec<ImageLayout> {
            let layout = |&size: &[u32; 2]| ImageLayout {
                size,
                text: "<image>".to_owned(),
                runs: vec![[24, 24]],
                tiles: None,
                shown: [0..24, 0..24],
            };
            sizes.iter().map(layout).collect()
        }

        fn pixels(&self, _: &RgbImage, _: &ImageLayout) -> burn::tensor::TensorData {
            panic!("no pixels are asked for")
        }

        fn most_image_tokens(&self) -> usize {
            576
        }

        fn settings(&self) -> Vec<(&'static str, &'static str)> {
            Vec::new()
        }
    }

    fn processor(tokenizer_of: &str, template: &str) -> Processor {
        Processor {
            tokenizer: tokenizer(tokenizer_of),
            template: Template::named(template, Path::new("")).unwrap(),
            images: Box::new(Fixed),
            shape: Shape { image_token: image(32000), vocabulary: usize::MAX, ..tiny::shape() },
            notes: Vec::new(),
        }
    }

    fn tokens(processor: &Processor, turns: &[Turn], picture: bool) -> Result<Sequence, ModelError> {
        let layouts = processor.images.layout(if picture { &[[1, 1]] } else { &[] });
        processor.tokenize(turns, &layouts.iter().collect::<Vec<_>>())
    }

    /// The ids that carry the loss.
    fn answered(sequence: &Sequence) -> Vec<u32> {
        sequence.answers().map(|index| sequence.tokens[index]).collect()
    }

    #[test]
    fn ids_around_the_picture_are_llavas() {
        let sequence = tokens(&processor("mistral", "mistral_instruct"), &round("What is this?", None), true).unwrap();
        let expected = [1, 733, 16289, 28793, 28705, 32000, 28705, 13, 3195, 349, 456, 28804, 733, 28748, 16289, 28793];
        assert_eq!(sequence.tokens, expected);
        assert_eq!(sequence.images, [ImageRun { token: 5, grid: [24, 24] }]);
        assert_eq!(sequence.answers().count(), 0);
        let sequence =
            tokens(&processor("mistral", "vicuna_v1"), &round("What is this?", Some("A cat.")), true).unwrap();
        let expected = [
            1, 330, 10706, 1444, 264, 13903, 2188, 304, 396, 18278, 10895, 13892, 28723, 415, 13892, 5212, 10865,
            28725, 10537, 28725, 304, 27057, 11194, 298, 272, 2188, 28742, 28713, 4224, 28723, 2223, 725, 28747, 28705,
            32000, 28705, 13, 3195, 349, 456, 28804, 8602, 8048, 12738, 28747, 330, 5255, 28723, 2,
        ];
        assert_eq!(sequence.tokens, expected);
        assert_eq!(answered(&sequence), [330, 5255, 28723, 2]);
        let sequence = tokens(&processor("llama", "vicuna_v1"), &round("What is this?", Some("A cat.")), true).unwrap();
        let place = sequence.images[0].token;
        assert_eq!(sequence.tokens[place - 5..place], [29889, 3148, 1001, 29901, 29871]);
        assert_eq!(
            sequence.tokens[place + 1..],
            [29871, 13, 5618, 338, 445, 29973, 319, 1799, 9047, 13566, 29901, 319, 6635, 29889, 2]
        );
    }

    #[test]
    fn every_answer_and_what_closes_it_carries_the_loss() {
        let four = turns(&["<image>\nQ one?", "Yes", "And two?", "No."]);
        let sequence = tokens(&processor("mistral", "mistral_instruct"), &four, true).unwrap();
        assert_eq!(answered(&sequence), [5592, 28705, 2, 1770, 28723, 28705, 2]);
        let sequence = tokens(&processor("mistral", "vicuna_v1"), &four, true).unwrap();
        assert_eq!(answered(&sequence), [5592, 2, 1770, 28723, 2]);
        let sequence = tokens(&processor("mistral", "plain"), &turns(&["", "A cat."]), true).unwrap();
        assert_eq!(sequence.tokens, [1, 32000, 330, 5255, 28723, 13]);
        assert_eq!(answered(&sequence), [330, 5255, 28723, 13]);
    }

    #[test]
    fn a_blank_that_stays_a_token_of_its_own_belongs_to_the_answer() {
        // " 12" is a blank and two digits: the open turn ends before the blank, so the model has to write it.
        let sequence = tokens(&processor("mistral", "vicuna_v1"), &round("What is this?", Some("12")), true).unwrap();
        assert_eq!(answered(&sequence), [28705, 28740, 28750, 2]);
    }

    #[test]
    fn an_end_inside_a_text_is_spelled_out() {
        let processor = processor("mistral", "vicuna_v1");
        let sequence = tokens(&processor, &round("a </s> b", Some("a </s> b")), false).unwrap();
        assert_eq!(sequence.tokens.iter().filter(|id| **id == 2).count(), 1);
        assert_eq!(answered(&sequence), [264, 1867, 28713, 28767, 287, 2]);
        assert_eq!(sequence.images, []);
    }

    #[test]
    fn rendered_texts_are_left_alone() {
        let processor = processor("mistral", "none");
        let sequence =
            tokens(&processor, &round("[INST] <image>\nWhat is this? [/INST]", Some(" A cat. </s>")), true).unwrap();
        assert_eq!(sequence.images, [ImageRun { token: 5, grid: [24, 24] }]);
        assert_eq!(answered(&sequence), [330, 5255, 28723, 28705, 2]);
        let error = tokens(&processor, &round("What is this?", None), true).unwrap_err();
        assert_eq!(error.message, "there is a picture, but no `<image>` in the rendered prompt");
        assert!(tokens(&processor, &round("<image>\n<image>", None), true).is_err());
        assert!(tokens(&processor, &round("<image>", None), false).is_err());
    }

    #[test]
    fn only_answers_are_cut() {
        let processor = processor("mistral", "mistral_instruct");
        let four = turns(&["<image>\nQ one?", "Yes", "And two?", "No."]);
        let whole = tokens(&processor, &four, true).unwrap();
        assert_eq!(whole.tokens.len(), 32);
        assert_eq!(whole.clone().cut_to(32).unwrap(), whole);
        let inside = whole.clone().cut_to(30).unwrap();
        assert_eq!((inside.tokens.len(), inside.cut), (30, 2));
        // The limit falls into the second question: it goes as a whole.
        let between = whole.clone().cut_to(20).unwrap();
        assert_eq!((between.tokens.len(), between.cut, answered(&between)), (18, 14, vec![5592, 28705, 2]));
        let error = whole.cut_to(15).unwrap_err();
        assert!(error.message.starts_with("the prompt takes 15 tokens, a picture being one"), "{error}");
    }

    #[test]
    fn a_template_needs_its_special_tokens() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/llava");
        let error = Processor::read(&folder, Some("chatml_direct"), &ImageSettings::new()).err().unwrap();
        assert!(error.message.contains("needs the special token `<|im_start|>`"), "{error}");
    }
}
