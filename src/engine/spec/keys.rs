//! Which key was meant by one that nothing reads: by how the field and other programs call the same thing, by its spelling,
//! or by its words.
//!
//! This module does not know which keys a table has; it is given them. A dotted one is a key of a table below.

use crate::diagnostic::nearest;

/// What other programs, papers and people call a key, and the keys that it may stand for here.
const SYNONYMS: &[(&[&str], &[&str])] = &[
    // Training, as in transformers, TRL, PEFT and LLaVA's scripts.
    (&["lr", "learning_rates", "eta", "step_size", "learn_rate"], &["learning_rate"]),
    (&["bs", "bsz", "batch", "batchsize", "train_batch_size", "global_batch_size", "batch_len"], &["batch_size"]),
    (
        &[
            "per_device_train_batch_size",
            "per_device_batch_size",
            "micro_batch",
            "mbs",
            "gradient_accumulation_steps",
            "grad_accum",
            "accumulation_steps",
            "gradient_accumulation",
            "accumulate",
        ],
        &["micro_batch_size"],
    ),
    (&["epoch", "num_epochs", "num_train_epochs", "n_epochs", "nepochs", "max_epochs"], &["epochs"]),
    (&["scheduler", "lr_scheduler", "lr_scheduler_type", "lr_schedule", "decay"], &["schedule"]),
    (&["warmup", "warmup_steps", "warm_up", "warmup_fraction"], &["warmup_ratio"]),
    (
        &["max_seq_length", "max_seq_len", "model_max_length", "max_len", "cutoff_len", "seq_len", "context_length"],
        &["max_length"],
    ),
    (
        &["clip", "grad_clip", "clip_grad", "gradient_clipping", "max_norm", "clip_norm", "grad_norm"],
        &["max_grad_norm"],
    ),
    (&["wd", "l2", "decay_rate"], &["weight_decay"]),
    (&["eps", "adam_eps", "epsilon"], &["adam_epsilon"]),
    (&["betas", "beta1", "beta2", "adam_beta1", "adam_beta2"], &["adam_betas"]),
    (&["save_steps", "checkpoint_steps", "save_every", "checkpointing", "save_interval"], &["checkpoint_every"]),
    (&["r", "rank", "lora_r", "lora_rank"], &["rank", "lora.rank"]),
    (&["alpha", "lora_alpha"], &["alpha", "lora.alpha", "chosen_weight"]),
    (&["dropout", "lora_dropout"], &["dropout", "lora.dropout"]),
    (&["targets", "target_modules", "modules", "lora_targets", "lora_modules"], &["targets", "lora.targets"]),
    (&["peft", "adapter_config", "lora_config", "qlora"], &["lora"]),
    (&["adapter", "adapters", "from_adapter", "init_adapter"], &["inputs.adapter"]),
    (&["loss_type", "objective"], &["loss"]),
    (&["ref", "ref_model", "reference_model"], &["reference"]),
    (&["sft_weight", "rpo_alpha", "regularisation", "regularization", "nll_weight"], &["chosen_weight"]),
    (&["image_aspect_ratio", "aspect_ratio", "resize_mode", "preprocess"], &["image_mode"]),
    (&["conv_mode", "chat_template", "conversation", "version", "conv_version", "prompt_template"], &["template"]),
    // Generation.
    (&["temp", "t", "sampling_temperature"], &["temperature"]),
    (
        &["max_tokens", "max_new_token", "new_tokens", "num_tokens", "max_output_tokens", "max_gen_len", "max_length"],
        &["max_new_tokens", "max_length"],
    ),
    (&["p", "nucleus", "topp"], &["top_p"]),
    (&["k", "topk"], &["top_k"]),
    (&["prompt", "question", "query", "text", "messages"], &["prompts", "describe_prompt", "instructions"]),
    (&["instruction", "x"], &["instructions", "prompts"]),
    (&["share", "ratio", "probability", "prob", "split", "portion", "percent"], &["fraction"]),
    (&["llm", "vlm", "base", "base_model", "model_name", "model_name_or_path", "model_path", "checkpoint"], &["model"]),
    // Data.
    (
        &["n", "num", "limit", "size", "samples", "num_samples", "n_samples", "num_images", "max_samples", "take"],
        &["count"],
    ),
    (
        &[
            "path",
            "folder",
            "dir",
            "directory",
            "source",
            "src",
            "root",
            "glob",
            "file",
            "files",
            "input_dir",
            "data_path",
        ],
        &["from", "data", "source"],
    ),
    (&["data", "dataset", "json", "questions", "annotations", "data_path", "question_file"], &["data", "from"]),
    (&["image_folder", "image_dir", "images_dir", "image_root", "image", "image_path"], &["images", "inputs.images"]),
    (&["filter", "filters", "condition", "conditions", "select"], &["where"]),
    (&["unique", "dedup", "deduplicate", "distinct"], &["dedupe"]),
    (&["exif", "rotate", "exif_orientation"], &["orientation"]),
    (&["errors", "on_error", "skip_bad", "ignore_errors", "skip_errors", "on_bad"], &["on_bad_item"]),
    (&["op", "ops", "operation", "corruption", "corruptions", "transforms", "augmentations"], &["operations"]),
    (&["sep", "delimiter", "joiner"], &["separator"]),
    (&["before", "header", "lead"], &["prefix"]),
    (&["suite", "task", "metric", "metrics", "bench", "benchmarks"], &["benchmark"]),
    (&["dar", "describe_respond", "describe_then_respond", "describe_first"], &["describe_and_respond"]),
    // The engine's keys.
    (&["type", "op", "class", "node_kind", "task", "kind_of"], &["kind"]),
    (&["input", "in", "depends_on", "needs", "deps", "from_nodes", "requires"], &["inputs"]),
    (&["random_seed", "rng", "random_state", "manual_seed"], &["seed"]),
    (&["retry", "max_retries", "attempts"], &["retries"]),
    (&["gpu", "device", "platform", "accelerator"], &["backend", "device"]),
    (&["precision", "torch_dtype", "torch_type", "bf16", "fp16", "type"], &["dtype"]),
    (&["path", "folder", "repo", "repo_id", "id", "name", "url", "hub_id", "model_path"], &["source"]),
    (&["rev", "branch", "tag", "commit", "version"], &["revision"]),
    (&["title", "id"], &["name"]),
];

/// The keys of `known` that `written` most probably stands for, the likeliest first.
pub fn meant<'a>(written: &str, known: &[&'a str]) -> Vec<&'a str> {
    let plain = snake(written);
    if let Some(same) = known.iter().find(|key| **key == plain && **key != written) {
        return vec![same];
    }
    if let Some(port) = known.iter().find(|key| key.rsplit_once('.').is_some_and(|(_, last)| last == plain)) {
        return vec![port];
    }
    let stands_for = SYNONYMS.iter().filter(|(words, _)| words.contains(&plain.as_str())).flat_map(|(_, keys)| *keys);
    // A key of a table below may be written where the table may.
    let can_be = |key: &str| known.iter().copied().find(|known| *known == key);
    let below = |key: &'static str| key.split_once('.').filter(|(table, _)| can_be(table).is_some()).map(|_| key);
    let mut found: Vec<&'a str> = Vec::new();
    for key in stands_for {
        if let Some(key) = can_be(key).or_else(|| below(key))
            && !found.contains(&key)
        {
            found.push(key);
        }
    }
    if !found.is_empty() {
        found.truncate(2);
        return found;
    }
    let own = || known.iter().copied().filter(|key| !key.contains('.'));
    nearest(&plain, own()).or_else(|| by_words(&plain, own())).into_iter().collect()
}

/// What to say of `written`, for which nothing is there: what was meant, else all there is.
pub fn suggestion(written: &str, known: &[String]) -> Option<String> {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    match meant(written, &known)[..] {
        [only] => Some(format!("did you mean `{only}`?")),
        [first, second, ..] => Some(format!("did you mean `{first}`, or `{second}`?")),
        [] => {
            // All of them: a list that is cut is one in which the key is not found.
            let own: Vec<String> =
                known.iter().filter(|key| !key.contains('.')).map(|key| format!("`{key}`")).collect();
            (!own.is_empty()).then(|| format!("known keys: {}", own.join(", ")))
        }
    }
}

/// `maxNewTokens` and `max-new-tokens` as `max_new_tokens`.
fn snake(written: &str) -> String {
    let mut plain = String::new();
    let mut lower = false;
    for c in written.chars() {
        if c.is_uppercase() && lower {
            plain.push('_');
        }
        lower = c.is_lowercase();
        plain.extend(if c == '-' || c == ' ' { vec!['_'] } else { c.to_lowercase().collect() });
    }
    plain
}

/// The key that has all words of `written`, or all of whose words `written` has: the one with the most words in common.
fn by_words<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let words: Vec<&str> = written.split('_').filter(|word| word.len() > 2).collect();
    let common = |key: &str| {
        let of_key: Vec<&str> = key.split('_').filter(|word| word.len() > 2).collect();
        let both = of_key.iter().filter(|word| words.contains(word)).count();
        let all = both > 0 && (both == of_key.len() || both == words.len());
        all.then_some(both)
    };
    known
        .filter_map(|key| Some((common(key)?, key)))
        .max_by_key(|(both, key)| (*both, std::cmp::Reverse(key.len())))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAINING: &[&str] = &[
        "model",
        "lora",
        "learning_rate",
        "batch_size",
        "schedule",
        "warmup_ratio",
        "epochs",
        "max_grad_norm",
        "adam_betas",
        "adam_epsilon",
        "weight_decay",
        "shuffle",
        "micro_batch_size",
        "max_length",
        "checkpoint_every",
        "beta",
        "chosen_weight",
        "reference",
        "inputs",
        "inputs.pairs",
        "inputs.adapter",
        "kind",
        "seed",
    ];

    #[test]
    fn what_other_programs_call_a_key_is_found() {
        let meant = |written| meant(written, TRAINING).join(" ");
        let pairs = [
            ("lr", "learning_rate"),
            ("bs", "batch_size"),
            ("epoch", "epochs"),
            ("num_train_epochs", "epochs"),
            ("per_device_train_batch_size", "micro_batch_size"),
            ("lr_scheduler_type", "schedule"),
            ("r", "lora.rank"),
            ("lora_alpha", "lora.alpha chosen_weight"),
            ("target_modules", "lora.targets"),
            ("model_max_length", "max_length"),
            ("learningRate", "learning_rate"),
            ("Batch-Size", "batch_size"),
            ("pairs", "inputs.pairs"),
            ("adapter", "inputs.adapter"),
            ("warmup", "warmup_ratio"),
            ("initial_learning_rate", "learning_rate"),
            ("lerning_rate", "learning_rate"),
            ("banana", ""),
        ];
        for (written, expected) in pairs {
            assert_eq!(meant(written), expected, "{written}");
        }
    }

    #[test]
    fn a_synonym_stands_only_for_keys_that_are_there() {
        assert_eq!(meant("max_tokens", &["max_new_tokens", "prompts"]), ["max_new_tokens"]);
        assert_eq!(meant("r", &["rank", "alpha", "dropout", "targets"]), ["rank"]);
        assert_eq!(meant("lora_alpha", &["rank", "alpha", "dropout", "targets"]), ["alpha"]);
        assert_eq!(meant("instruction", &["instructions", "drop_identical"]), ["instructions"]);
        assert_eq!(meant("lr", &["from", "images"]), Vec::<&str>::new());
    }
}
