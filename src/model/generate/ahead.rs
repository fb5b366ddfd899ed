//! Decoding on a GPU: one launch after the other, without waiting for what the host would have to say.
//!
//! - The places of all queries and keys to come are uploaded once, before the first token; rotations and masks follow
//!   from them on the device.
//! - The most likely token is found on the device and embedded there: the next token is under way before the host reads
//!   this one. For draws the host reads the 64 most likely tokens of every row and uploads the drawn ones.
//!
//! Answers are those of the loop for the CPU, up to the rounding of the device.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use burn::tensor::{Bool, ExecutionError, Int, TensorData, Transaction, read_sync};

use super::*;
use crate::model::attention::Attention;

/// The logit of a token that is excluded.
const NEVER: f32 = f32::MIN;

/// What is read where no token may come.
const NONE: i32 = -1;

/// The next token of every row.
struct Chosen {
    /// `[size]`, on the device, where they were found there.
    tokens: Option<Tensor<1, Int>>,
    found: Found,
}

enum Found {
    /// The most likely tokens, on their way.
    Best(Reading),
    /// What the host draws from.
    Draws(Box<Candidates>),
}

struct Candidates {
    /// `[size, vocabulary]`.
    logits: Tensor<2>,
    /// The most likely ones of them with their tokens, each row's most likely one first.
    likeliest: Option<(Tensor<2>, Tensor<2, Int>)>,
}

/// Data on their way to the host.
enum Reading {
    There(TensorData),
    Coming(Pin<Box<dyn Future<Output = Result<TensorData, ExecutionError>> + Send>>),
}

impl Reading {
    /// Asks for `tensor` now: later work on the device does not delay it.
    fn of(tensor: Tensor<1, Int>) -> Self {
        let mut data: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(tensor.into_data_async());
        match data.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(data) => Self::There(data.expect("the device answers")),
            Poll::Pending => Self::Coming(data),
        }
    }

    fn wait(self) -> TensorData {
        match self {
            Self::There(data) => data,
            Self::Coming(data) => read_sync(data).expect("the device answers"),
        }
    }
}

impl Generator<'_> {
    /// Generates the answers of `rows`, whose prompts are in `caches` and take `length` slots, until all have ended.
    /// `logits` are those of the first tokens, `[size, vocabulary]`; rows beyond those of `rows` are copies of them.
    pub(super) fn decode_ahead(
        &self,
        rows: &mut [Row],
        caches: &mut [LayerCache],
        logits: Tensor<2>,
        [length, size]: [usize; 2],
        watch: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let refused: Vec<bool> = self.allowed.iter().map(|allowed| !allowed).collect();
        let refused = TensorData::new(refused, [1, self.allowed.len()]);
        let refused = Tensor::<2, Bool>::from_data(refused, &self.model.device());
        let places = self.places(rows, length, size);
        let mut chosen = self.next(logits, &refused);
        for step in 0.. {
            let open = rows.iter().filter(|row| row.open).count();
            let goes_on = rows.iter().any(|row| row.open && row.tokens.len() + 1 < row.limit);
            let mut ahead = None;
            if let Some(tokens) = chosen.tokens.take().filter(|_| goes_on) {
                let logits = self.step(tokens, caches, places.at(step), watch)?;
                ahead = Some(self.next(logits, &refused));
            }
            report(open, self.take(rows, chosen.found), watch)?;
            if rows.iter().all(|row| !row.open) {
                break;
            }
            chosen = match ahead {
                Some(ahead) => ahead,
                None => {
                    let last = |place: usize| rows[place % rows.len()].tokens.last().map_or(0, |token| *token as i32);
                    let tokens = integers((0..size).map(last).collect(), &self.model.device());
                    let logits = self.step(tokens, caches, places.at(step), watch)?;
                    self.next(logits, &refused)
                }
            };
        }
        ControlFlow::Continue(())
    }

    /// The places of every token that may come, and of the slots that it attends to.
    fn places(&self, rows: &[Row], length: usize, size: usize) -> Attention {
        let steps = rows.iter().map(|row| row.limit).max().unwrap_or_default().max(1);
        let attended = (length + steps).next_multiple_of(self.at_a_time());
        let members = || (0..size).map(|place| &rows[place % rows.len()]);
        let query = |row: &Row| (0..steps).map(|step| Some(Slot::at(row.length + step, row.next + step))).collect();
        let queries: Vec<Vec<_>> = members().map(query).collect();
        // Slots that are not filled yet come later than the query, and so are not seen.
        let keys: Vec<_> = members().map(|row| row.keys(length, attended, attended)).collect();
        self.model.attention(&queries, &keys)
    }

    /// Runs `tokens`, the last of every row, whose place `attention` is, and gives the logits of the next, `[size,
    /// vocabulary]`.
    fn step(
        &self,
        tokens: Tensor<1, Int>,
        caches: &mut [LayerCache],
        attention: Attention,
        watch: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> ControlFlow<(), Tensor<2>> {
        let hidden = self.model.embedded(tokens);
        let [size, features] = hidden.dims();
        let input = Input { hidden: hidden.reshape([size, 1, features]), added: Vec::new(), attention };
        let hidden = self.run_layers(&input, caches, watch)?;
        ControlFlow::Continue(self.model.logits(hidden.reshape([size, features])))
    }

    /// Finds the next tokens as far as the device can, and asks for what the host needs of them.
    fn next(&self, logits: Tensor<2>, refused: &Tensor<2, Bool>) -> Chosen {
        let vocabulary = self.allowed.len();
        let possible = logits.clone().mask_fill(logits.clone().is_nan(), NEVER).mask_fill(refused.clone(), NEVER);
        if self.settings.sampling.temperature > 0.0 {
            let count = self.settings.sampling.shortlist(vocabulary);
            let likeliest = (count > 0).then(|| possible.topk_with_indices(count, 1));
            return Chosen { tokens: None, found: Found::Draws(Box::new(Candidates { logits, likeliest })) };
        }
        // Where nothing is above the least float, what is found may be no token.
        let tokens = possible.clone().argmax(1).clamp(0, vocabulary as i32 - 1);
        let impossible = possible.gather(1, tokens.clone()).lower_equal_elem(NEVER);
        let found = tokens.clone().mask_fill(impossible, NONE);
        Chosen { tokens: Some(tokens.squeeze_dim(1)), found: Found::Best(Reading::of(found.squeeze_dim(1))) }
    }

    /// Gives every open row its next token, and says which rows that ended.
    fn take(&self, rows: &mut [Row], found: Found) -> Vec<(usize, Result<Answer, ModelError>)> {
        let mut ended = Vec::new();
        let mut give = |row: &mut Row, token: Option<u32>| {
            ended.extend(row.take(token, self.model).map(|result| (row.request.tag, result)));
        };
        match found {
            Found::Best(tokens) => {
                let tokens = tokens.wait();
                for (row, token) in rows.iter_mut().zip(tokens.iter::<i32>()).filter(|(row, _)| row.open) {
                    give(row, u32::try_from(token).ok());
                }
            }
            Found::Draws(candidates) => {
                let Candidates { logits, likeliest } = *candidates;
                let Some((values, tokens)) = likeliest else { return self.choose(rows, &read(logits)) };
                let count = values.dims()[1];
                let mut data = Transaction::default().register(values).register(tokens).execute().into_iter();
                let (values, tokens) = (data.next().expect("values"), data.next().expect("tokens"));
                let pairs: Vec<(u32, f32)> = tokens
                    .iter::<i64>()
                    .zip(values.iter::<f32>())
                    .map(|(token, value)| (token as u32, value))
                    .collect();
                let (sampling, vocabulary) = (&self.settings.sampling, self.allowed.len());
                let likeliest = || pairs.chunks(count);
                if !rows.iter().zip(likeliest()).all(|(row, own)| !row.open || sampling.suffices(own, vocabulary)) {
                    return self.choose(rows, &read(logits));
                }
                for (row, likeliest) in rows.iter_mut().zip(likeliest()).filter(|(row, _)| row.open) {
                    let candidates = likeliest.iter().copied().filter(|(_, logit)| *logit > NEVER).collect();
                    let token = sampling.draw(candidates, &mut row.draws);
                    give(row, token);
                }
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::tests::{model, request, settings};
    use super::*;
    use crate::model::adapter::LayerAdapter;
    use crate::model::llava::Llava;
    use crate::model::shape::Shape;
    use crate::model::tokenizer::tests::tokenizer;

    fn run(model: &Llava, settings: Settings, on_cpu: bool) -> BTreeMap<usize, Answer> {
        let tokenizer = tokenizer("mistral");
        let generator = Generator { on_cpu, ..Generator::new(model, None, &tokenizer, settings) };
        let mut answers = BTreeMap::new();
        let watch = &mut |step: Step| {
            if let Step::Done(tag, answer) = step {
                answers.insert(tag, answer.unwrap());
            }
            ControlFlow::Continue(())
        };
        assert!(generator.run((0..20).map(|index| Ok(request(index))), watch).is_continue());
        answers
    }

    #[test]
    fn answers_are_those_of_the_loop_that_waits_for_every_token() {
        let model = model();
        for sampling in [
            Sampling::GREEDY,
            Sampling { temperature: 1.0, top_k: 50, top_p: 1.0 },
            Sampling { temperature: 1.0, top_k: 0, top_p: 0.8 },
        ] {
            let settings = Settings { sampling, max_new_tokens: 70, ..settings(0.0) };
            assert_eq!(run(&model, settings.clone(), false), run(&model, settings, true), "{sampling:?}");
        }
    }

    #[test]
    fn a_row_without_a_possible_token_is_an_error_and_the_others_go_on() {
        let model = model();
        let tokenizer = tokenizer("mistral");
        for temperature in [0.0, 1.0] {
            let generator =
                Generator { on_cpu: false, ..Generator::new(&model, None, &tokenizer, settings(temperature)) };
            let mut rows: Vec<Row> = (0..2).map(|index| generator.admit(request(index)).unwrap()).collect();
            let mut logits = vec![f32::NAN; 2 * generator.allowed.len()];
            logits[generator.allowed.len() + 5] = -3.0;
            let logits = Tensor::from_data(TensorData::new(logits, [2, generator.allowed.len()]), &Device::flex());
            let refused = Tensor::<2, Bool>::from_data(TensorData::new(vec![false; 97], [1, 97]), &Device::flex());
            let found = generator.next(logits, &refused).found;
            let ended = generator.take(&mut rows, found);
            assert!(matches!(&ended[..], [(0, Err(error))] if error.message.contains("NaN or infinite")));
            assert_eq!((rows[0].open, rows[1].tokens.as_slice()), (false, &[5][..]));
        }
    }

    /// A model that counts what is uploaded for it.
    #[derive(Debug)]
    struct Counted {
        model: Llava,
        /// Rotations and slots.
        slots: AtomicUsize,
        /// Tokens.
        tokens: AtomicUsize,
        steps: AtomicUsize,
    }

    impl Model for Counted {
        fn shape(&self) -> &Shape {
            self.model.shape()
        }

        fn notes(&self) -> &[String] {
            self.model.notes()
        }

        fn device(&self) -> Device {
            self.model.device()
        }

        fn dtype(&self) -> DType {
            self.model.dtype()
        }

        fn encode_images(&self, images: &[&ImageInput]) -> Vec<ImageFeatures> {
            self.model.encode_images(images)
        }

        fn embedded(&self, tokens: Tensor<1, Int>) -> Tensor<2> {
            self.model.embedded(tokens)
        }

        fn embed(&self, tokens: &[u32]) -> Tensor<2> {
            self.tokens.fetch_add(1, Ordering::Relaxed);
            self.model.embed(tokens)
        }

        fn attention(&self, queries: &[Vec<Option<Slot>>], keys: &[Vec<Option<Slot>>]) -> Attention {
            self.slots.fetch_add(1, Ordering::Relaxed);
            self.model.attention(queries, keys)
        }

        fn caches(&self, batch: usize, capacity: usize) -> Vec<LayerCache> {
            self.model.caches(batch, capacity)
        }

        fn layer(
            &self,
            index: usize,
            hidden: Tensor<3>,
            attention: &Attention,
            adapter: Option<&LayerAdapter>,
            cache: Option<&mut LayerCache>,
        ) -> Tensor<3> {
            self.model.layer(index, hidden, attention, adapter, cache)
        }

        fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
            self.steps.fetch_add(1, Ordering::Relaxed);
            self.model.logits(hidden)
        }
    }

    /// How often slots, tokens and steps were there in the greedy answer of 70 tokens to one prompt.
    fn uploads(on_cpu: bool) -> [usize; 3] {
        let count = || AtomicUsize::new(0);
        let model = Counted { model: model(), slots: count(), tokens: count(), steps: count() };
        let tokenizer = tokenizer("mistral");
        let settings = Settings { max_new_tokens: 70, ..settings(0.0) };
        let mut generator = Generator { on_cpu, ..Generator::new(&model, None, &tokenizer, settings) };
        // Without an end, all answers have 70 tokens.
        generator.allowed[2] = false;
        assert_eq!(generator.one(request(1)).unwrap().tokens.len(), 70);
        [&model.slots, &model.tokens, &model.steps].map(|count| count.load(Ordering::Relaxed))
    }

    #[test]
    fn nothing_is_uploaded_for_a_token_and_slots_once_for_all_of_them() {
        // One of each is the prompt's.
        assert_eq!(uploads(true), [70, 70, 70]);
        assert_eq!(uploads(false), [2, 1, 70]);
    }
}
