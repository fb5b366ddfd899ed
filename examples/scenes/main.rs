//! A small world of pictures with known content, and a small LLaVA trained on it from scratch.
//!
//! ```text
//! cargo run --release --example scenes -- draw      # writes examples/scenes/data
//! cargo run --release --example scenes -- train     # writes examples/scenes/model
//! ```
//!
//! The quick start (`pipelines/quickstart.toml`) uses the output of these commands. The model is trained so that STIC
//! can improve it, like a large one: it reads well, describes better when asked carefully than when asked plainly, and
//! answers more easily from a description than from the picture alone.

mod annotate;
mod ask;
mod checkpoint;
mod dataset;
mod joining;
mod judge;
mod picture;
mod reader;
mod rows;
mod tower;
mod training;
mod vocabulary;
mod world;

/// The seed of the committed files.
pub const SEED: u64 = 0;

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use clap::{Parser, Subcommand};
use stic::model::llava::Llava;

use crate::judge::Judge;
use crate::training::Run;
use crate::vocabulary::Vocabulary;

/// Draws a small world and trains a small LLaVA on it.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write pictures, instruction records and test questions.
    Draw {
        #[arg(long, default_value_t = SEED)]
        seed: u64,
        #[arg(long, default_value = "examples/scenes/data")]
        out: PathBuf,
        /// Fill the test directory with validation pictures, for choosing settings.
        #[arg(long)]
        validation: bool,
    },
    /// Train the model, in about a quarter of an hour on two cores.
    Train {
        #[arg(long, default_value_t = SEED)]
        seed: u64,
        #[arg(long, default_value = "examples/scenes/model")]
        out: PathBuf,
        /// Where unfinished training is kept; a run that was interrupted goes on from there.
        #[arg(long, default_value = "target/scenes")]
        work: PathBuf,
    },

    /// Say how well a model describes and answers, on validation pictures.
    Judge {
        #[arg(long, default_value_t = SEED)]
        seed: u64,
        #[arg(long, default_value = "examples/scenes/model")]
        model: PathBuf,
    },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Arguments::parse().command {
        Command::Draw { seed, out, validation } => {
            let judged = if validation { dataset::Split::Validation } else { dataset::Split::Test };
            dataset::write(&out, seed, dataset::COMMITTED, judged)?;
        }
        Command::Train { seed, out, work } => train(seed, &out, work)?,
        Command::Judge { seed, model } => {
            let device = Device::flex();
            let model = Llava::load(&model, &device, DType::F32)?;
            let judge = Judge::new(seed, &model.vision, 250, &device);
            println!("{}", judge.judge(&model, &Vocabulary::new()));
        }
    }
    Ok(())
}

/// The tower learns to see, the decoder to read, and both to work together.
fn train(seed: u64, out: &Path, work: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(&work)?;
    let device = Device::flex();
    let vocabulary = Vocabulary::new();
    let config = checkpoint::write_texts(out, &vocabulary)?;
    let parameters = checkpoint::initial(&config, seed, &device);
    let run = Run { seed, work, config };
    let parameters = tower::train(&run, parameters, &device)?;
    let parameters = reader::train(&run, &vocabulary, parameters, &device)?;
    let parameters = joining::train(&run, &vocabulary, parameters, &device)?;
    checkpoint::write_weights(out, &run.config, &parameters)
}
