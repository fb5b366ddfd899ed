//! Third stage: what the tower sees is joined to what the decoder reads, by captions and questions; the tower stays.

use burn::tensor::Device;
use stic::model::llava::Llava;
use stic::train::optimizer::Parameters;
use stic_engine::draw::Draws;

use crate::annotate::{careful, plain};
use crate::ask::Question;
use crate::checkpoint::{self, DECODER, PROJECTOR};
use crate::dataset::{QUESTIONS_TRAINED_ON, Split};
use crate::judge::Judge;
use crate::reader::{ask, copy};
use crate::rows::{Group, Row, cross_entropy};
use crate::tower;
use crate::training::{Run, Stage};
use crate::vocabulary::{PAD, Vocabulary};
use crate::world::{Object, describe};

/// Pictures with captions.
const PICTURES: usize = 6_000;
/// Pictures, the first ones, that are asked about too.
const ASKED_ABOUT: usize = 2_000;
/// Rows of a batch: plain, careful and imaginative captions, questions about pictures, questions and copies of text.
const ROWS: [usize; 6] = [14, 14, 4, 16, 8, 2];

const STAGE: Stage = Stage {
    name: "joining",
    steps: 1_600,
    learning_rate: 1e-3,
    second_beta: 0.95,
    weight_decay: 0.01,
    trained: &[DECODER, PROJECTOR],
};

/// Trains projector and decoder on pictures.
///
/// # Errors
/// When a checkpoint cannot be written or read.
pub fn train(
    run: &Run,
    vocabulary: &Vocabulary,
    parameters: Parameters,
    device: &Device,
) -> Result<Parameters, Box<dyn std::error::Error>> {
    if let Some(parameters) = run.finished(&STAGE, device)? {
        return Ok(parameters);
    }
    let vision = checkpoint::model(&run.config, &parameters)?.vision;
    let features = tower::features(&vision, &tower::pictures(Split::Train, run.seed, PICTURES), device);
    let records = Records::new(run.seed);
    let pad = vocabulary.id(PAD);
    let loss = |model: &Llava, _: &Parameters, mut draws: Draws| {
        let draws = &mut draws;
        let [plain, careful, imaginative, questions, asked, copies] = ROWS;
        let mut captions = Vec::new();
        for _ in 0..plain {
            let number = draws.below(PICTURES);
            captions.push(caption(vocabulary, number, vocabulary.plain(draws), &records.plain[number]));
        }
        for _ in 0..careful {
            let number = draws.below(PICTURES);
            captions.push(caption(vocabulary, number, vocabulary.careful(), &records.careful[number]));
        }
        for _ in 0..imaginative {
            let number = draws.below(PICTURES);
            let objects = crate::annotate::imaginative(&Split::Train.scene(run.seed, number), draws);
            captions.push(caption(vocabulary, number, vocabulary.imaginative(draws), &objects));
        }
        let questions = (0..questions).map(|_| records.row(vocabulary, draws.below(ASKED_ABOUT), draws)).collect();
        let asked = (0..asked).map(|_| ask(vocabulary, draws, 5)).collect();
        let copies = (0..copies).map(|_| copy(vocabulary, draws)).collect();
        let features = Some(&features);
        let seen = [Group { rows: captions, features }, Group { rows: questions, features }];
        let read = [Group { rows: asked, features: None }, Group { rows: copies, features: None }];
        cross_entropy(model, &seen, pad) + cross_entropy(model, &read, pad)
    };
    let judge = Judge::new(run.seed, &vision, 80, device);
    run.train(&STAGE, parameters, loss, |step, parameters| {
        let model = checkpoint::model(&run.config, parameters).expect("a whole model");
        eprintln!("joining {step}: {}", judge.judge(&model, vocabulary));
    })
}

/// What annotators said, once and for all.
struct Records {
    plain: Vec<Vec<Object>>,
    careful: Vec<Vec<Object>>,
    questions: Vec<Vec<Question>>,
}

impl Records {
    fn new(seed: u64) -> Self {
        let captions = |purpose: &str, annotator: fn(&_, &mut Draws) -> Vec<Object>| {
            let caption =
                |number| annotator(&Split::Train.scene(seed, number), &mut Split::Train.draws(seed, purpose, number));
            (0..PICTURES).map(caption).collect()
        };
        Self {
            plain: captions("plain caption", plain),
            careful: captions("careful caption", careful),
            questions: (0..ASKED_ABOUT)
                .map(|number| Split::Train.questions(seed, number, QUESTIONS_TRAINED_ON))
                .collect(),
        }
    }

    /// One of the questions about a picture.
    fn row(&self, vocabulary: &Vocabulary, number: usize, draws: &mut Draws) -> Row {
        let asked = &self.questions[number][draws.below(QUESTIONS_TRAINED_ON)];
        Row::new(vocabulary, Some(number), &[(vocabulary.question(&asked.text), vocabulary.words(&asked.answer))])
    }
}

fn caption(vocabulary: &Vocabulary, picture: usize, prompt: u32, objects: &[Object]) -> Row {
    Row::new(vocabulary, Some(picture), &[(vec![prompt], vocabulary.words(&describe(objects)))])
}
