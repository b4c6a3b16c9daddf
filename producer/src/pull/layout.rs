//! Selects the files of a model that the engine reads.

/// Files at the root of a model's folder.
const ROOT_FILES: [&str; 9] = [
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "modules.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
];

/// The files to take from `names` (paths with `/`, relative to the model's folder), in order.
pub(super) fn select<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut chosen: Vec<&str> = names.into_iter().filter(|name| is_needed(name)).collect();
    // One file with all weights makes their copy in shards superfluous.
    if chosen.contains(&"model.safetensors") {
        chosen.retain(|name| !is_shard(name) && *name != "model.safetensors.index.json");
    }
    chosen.sort_unstable();
    chosen
}

/// The first file that every model needs and that `names` lacks.
pub(super) fn missing(names: &[&str]) -> Option<&'static str> {
    if !names.contains(&"config.json") {
        return Some("config.json");
    }
    let weights = |name: &&str| *name == "model.safetensors" || is_shard(name);
    if !names.iter().any(weights) {
        return Some("model.safetensors");
    }
    (!names.contains(&"tokenizer.json")).then_some("tokenizer.json")
}

fn is_needed(name: &str) -> bool {
    match name.split_once('/') {
        None => ROOT_FILES.contains(&name) || is_shard(name) || is_sentence_config(name),
        // The modules of sentence-transformers: `1_Pooling/config.json`, `2_Dense/model.safetensors`.
        Some((folder, file)) => {
            folder.starts_with(|c: char| c.is_ascii_digit())
                && folder.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                && matches!(file, "config.json" | "model.safetensors")
        }
    }
}

/// `model-00001-of-00002.safetensors`
fn is_shard(name: &str) -> bool {
    name.strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|middle| middle.split_once("-of-"))
        .is_some_and(|(part, parts)| is_number(part) && is_number(parts))
}

/// `sentence_bert_config.json` and its counterparts for other architectures.
fn is_sentence_config(name: &str) -> bool {
    name.strip_prefix("sentence_")
        .and_then(|rest| rest.strip_suffix("_config.json"))
        .is_some_and(|kind| kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'_'))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_and_papers_are_left_behind() {
        let names = [
            "README.md",
            "1_Pooling/config.json",
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "openvino/model.safetensors",
            "pytorch_model.bin",
            "sentence_bert_config.json",
            "tokenizer.json",
            "train_script.py",
        ];
        assert_eq!(
            select(names),
            [
                "1_Pooling/config.json",
                "config.json",
                "model.safetensors",
                "sentence_bert_config.json",
                "tokenizer.json",
            ]
        );
    }

    #[test]
    fn shards_are_taken_only_without_a_single_file() {
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let index = "model.safetensors.index.json";
        assert_eq!(select([shards[0], shards[1], index]), [shards[0], shards[1], index]);
        assert_eq!(select([shards[0], index, "model.safetensors"]), ["model.safetensors"]);
    }

    #[test]
    fn paths_that_step_outside_are_never_needed() {
        for name in [
            "../config.json",
            "/config.json",
            "1_a/../config.json",
            "1_a/b/config.json",
            "1?/config.json",
        ] {
            assert!(select([name]).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_model_without_weights_or_tokenizer_says_what_is_missing() {
        assert_eq!(missing(&[]), Some("config.json"));
        assert_eq!(missing(&["config.json", "tokenizer.json"]), Some("model.safetensors"));
        assert_eq!(missing(&["config.json", "model.safetensors"]), Some("tokenizer.json"));
        let shard = "model-1-of-1.safetensors";
        assert_eq!(missing(&["config.json", shard, "tokenizer.json"]), None);
    }
}
