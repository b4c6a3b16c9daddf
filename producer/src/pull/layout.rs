//! Selects the files of a model that the engine reads.

/// Files at the root of a model's folder.
const ROOT_FILES: [&str; 10] = [
    // How texts are read, in folders of Stanford's ColBERT library.
    "artifact.metadata",
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

/// The most shards of a model: as many as the engine opens.
const SHARDS_MAX: usize = 256;

/// The files to take from `names` (paths with `/`, relative to the model's folder), in order. A GGUF holds a whole
/// model, so it is taken alone, and only where it is the only one and there are no other weights.
pub(super) fn select<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let names: Vec<&str> = names.into_iter().collect();
    let mut chosen: Vec<&str> = names.iter().copied().filter(|name| is_needed(name)).collect();
    let has_weights = |name: &&str| name.ends_with("model.safetensors") || is_shard(name);
    if !chosen.iter().any(has_weights)
        && let Some(file) = single_gguf(&names)
    {
        return vec![file];
    }
    // One file with all weights makes their copy in shards superfluous.
    if chosen.contains(&"model.safetensors") {
        chosen.retain(|name| !is_shard(name) && *name != "model.safetensors.index.json");
    }
    chosen.sort_unstable();
    chosen
}

/// The only GGUF with a model among `names`, at the root.
pub(super) fn single_gguf<'a>(names: &[&'a str]) -> Option<&'a str> {
    let mut files = names.iter().copied().filter(|name| is_gguf(name));
    files.next().filter(|_| files.next().is_none())
}

/// Whether it is a file at the root with a whole model. Those named `mmproj` hold what reads images for another.
fn is_gguf(name: &str) -> bool {
    let stem = name.strip_suffix(".gguf").filter(|stem| !stem.is_empty());
    stem.is_some_and(|stem| {
        !stem.starts_with("mmproj")
            && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
            && !stem.starts_with('.')
    })
}

/// The first file that every model needs and that `names` lacks.
pub(super) fn missing(names: &[&str]) -> Option<String> {
    const INDEX: &str = "model.safetensors.index.json";
    if single_gguf(names).is_some() {
        return None;
    }
    let lacks = |name: &str| (!names.contains(&name)).then(|| name.to_owned());
    let shard = names.iter().find_map(|name| Some((name, shard_of(name)?)));
    let weights = match shard {
        _ if names.contains(&"model.safetensors") => None,
        None => lacks("model.safetensors"),
        Some((name, (_, parts))) => lacks(INDEX).or_else(|| {
            // Numbers have as many digits as those of the shard that is there.
            let count = parts.parse().ok().filter(|&count| count <= SHARDS_MAX)?;
            let digits = name.len().checked_sub("model--of-.safetensors".len() + parts.len())?;
            let shard = |part: usize| format!("model-{part:0digits$}-of-{parts}.safetensors");
            (1..=count).map(shard).find(|shard| !names.contains(&shard.as_str()))
        }),
    };
    lacks("config.json").or(weights).or_else(|| lacks("tokenizer.json"))
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
    shard_of(name).is_some()
}

/// A shard's number, and how many there are.
fn shard_of(name: &str) -> Option<(&str, &str)> {
    let middle = name.strip_prefix("model-")?.strip_suffix(".safetensors")?;
    middle.split_once("-of-").filter(|(part, parts)| is_number(part) && is_number(parts))
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
    fn a_single_gguf_is_a_whole_model_where_there_are_no_other_weights() {
        let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
        assert_eq!(select([file, "README.md", "config.json", "mmproj-F16.gguf"]), [file]);
        assert_eq!(missing(&[file]), None);
        let weights = ["config.json", "model.safetensors"];
        assert_eq!(select([file, weights[0], weights[1]]), weights);
        for refused in [".gguf", ".hidden.gguf", "a/b.gguf", "../b.gguf", "a b.gguf", "mmproj.gguf"]
        {
            assert!(select([refused]).is_empty(), "{refused}");
        }
        assert!(select(["a.Q4_0.gguf", "a.Q8_0.gguf"]).is_empty(), "which one?");
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
        let with = |weights: &[&str]| {
            missing(&[&["config.json", "tokenizer.json"], weights].concat()).unwrap_or_default()
        };
        assert_eq!(missing(&[]).unwrap(), "config.json");
        assert_eq!(missing(&["config.json", "model.safetensors"]).unwrap(), "tokenizer.json");
        assert_eq!(with(&[]), "model.safetensors");
        assert_eq!(with(&["model.safetensors"]), "");
        let index = "model.safetensors.index.json";
        let shards = ["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"];
        assert_eq!(with(&shards), index);
        assert_eq!(with(&[index, shards[0], shards[1]]), "model-00002-of-00003.safetensors");
        assert_eq!(with(&["model-1-of-1.safetensors", index]), "");
    }
}
