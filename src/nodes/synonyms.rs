//! What papers, people and other programs call the parameters of the kinds.

use stic_engine::spec::keys::Synonyms;

/// By list of names: the keys that they may mean.
pub const SYNONYMS: &Synonyms = &[
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
        &["from", "data", "source", "file"],
    ),
    (&["data", "dataset", "json", "questions", "annotations", "data_path", "question_file"], &["data", "from"]),
    (
        &["image_folder", "image_dir", "images_dir", "image_root", "image", "image_path"],
        &["from", "images", "inputs.images"],
    ),
    (&["filter", "filters", "condition", "conditions", "select"], &["where"]),
    (&["unique", "dedup", "deduplicate", "distinct"], &["dedupe"]),
    (&["exif", "rotate", "exif_orientation"], &["orientation"]),
    (&["errors", "on_error", "skip_bad", "ignore_errors", "skip_errors", "on_bad"], &["on_bad_item"]),
    (&["op", "ops", "operation", "corruption", "corruptions", "transforms", "augmentations"], &["operations"]),
    (&["sep", "delimiter", "joiner"], &["separator"]),
    (&["before", "header", "lead"], &["prefix"]),
    (&["suite", "task", "metric", "metrics", "bench", "benchmarks"], &["benchmark"]),
    (&["dar", "describe_respond", "describe_then_respond", "describe_first"], &["describe_and_respond"]),
    // The device.
    (&["gpu", "device", "platform", "accelerator"], &["backend", "device"]),
    (&["precision", "torch_dtype", "torch_type", "bf16", "fp16", "type"], &["dtype"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use stic_engine::spec::keys::meant;

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
        let meant = |written| meant(written, TRAINING, SYNONYMS).join(" ");
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
        assert_eq!(meant("max_tokens", &["max_new_tokens", "prompts"], SYNONYMS), ["max_new_tokens"]);
        assert_eq!(meant("r", &["rank", "alpha", "dropout", "targets"], SYNONYMS), ["rank"]);
        assert_eq!(meant("lora_alpha", &["rank", "alpha", "dropout", "targets"], SYNONYMS), ["alpha"]);
        assert_eq!(meant("instruction", &["instructions", "drop_identical"], SYNONYMS), ["instructions"]);
        assert_eq!(meant("lr", &["from", "images"], SYNONYMS), Vec::<&str>::new());
        assert_eq!(meant("temperature", &["template", "model", "beta"], SYNONYMS), Vec::<&str>::new());
        assert_eq!(meant("image_folder", &["from", "images", "count", "inputs"], SYNONYMS), ["from", "images"]);
        assert_eq!(meant("image_folder", &["operations", "inputs", "inputs.images"], SYNONYMS), ["inputs.images"]);
        assert_eq!(meant("path", &["file", "images"], SYNONYMS), ["file"]);
        assert_eq!(meant("model", &["models", "nodes", "pipeline"], SYNONYMS), ["models"]);
    }
}
