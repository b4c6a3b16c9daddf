//! The names of Deployments: one for each model, whatever characters its id has.

use forebay_schemas::ModelId;

use super::pods::MODEL;

/// The name of a model's Deployment by `pattern`, with `{model}` for the model's. Kubernetes allows no dots and
/// underscores in it, and no dash at its end. Where these are replaced, ids that differ would become one name: a hash
/// of the id keeps them apart.
pub(super) fn distinct(pattern: &str, model: &ModelId) -> String {
    let allowed = replaced(model);
    if allowed == model.as_str() {
        return pattern.replace("{model}", &allowed);
    }
    pattern.replace("{model}", &format!("{allowed}-{:08x}", hash(model.as_str())))
}

/// The name that it had before these hashes.
pub(super) fn former(pattern: &str, model: &ModelId) -> String {
    pattern.replace("{model}", &replaced(model))
}

fn replaced(model: &ModelId) -> String {
    model.as_str().replace(['.', '_'], "-").trim_end_matches('-').to_owned()
}

/// Whether a Deployment with this selector has the pods of a model.
pub(super) fn selects(selector: &str, model: &ModelId) -> bool {
    selector.split(',').any(|term| term.trim() == format!("{MODEL}={model}"))
}

/// FNV-1a of 32 bits. Names are made from it: it never changes.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PATTERN: &str = "forebay-worker-{model}";

    fn name(model: &str) -> String {
        distinct(PATTERN, &model.parse().unwrap())
    }

    #[test]
    fn models_that_differ_in_one_character_have_deployments_of_their_own() {
        let models =
            ["bge.small_en", "bge_small.en", "bge-small-en", "bge.small.en", "bge-small-en-"];
        let names: BTreeSet<String> = models.iter().map(|model| name(model)).collect();
        assert_eq!(names.len(), models.len(), "{names:?}");
        for name in names {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.chars().all(plain) && !name.ends_with('-'), "{name}");
        }
    }

    #[test]
    fn names_are_what_manifests_were_written_with() {
        assert_eq!(name("all-minilm-l6-v2"), "forebay-worker-all-minilm-l6-v2");
        assert_eq!(name("bge.small_en"), "forebay-worker-bge-small-en-704322ae");
    }

    #[test]
    fn a_former_deployment_is_known_by_its_selector() {
        let model = "bge.small_en".parse().unwrap();
        assert_eq!(former(PATTERN, &model), "forebay-worker-bge-small-en");
        assert!(selects(
            "app.kubernetes.io/name=forebay-worker,forebay.model=bge.small_en",
            &model
        ));
        assert!(!selects("forebay.model=bge.small_en2", &model));
        assert!(!selects("forebay.model=bge-small-en", &model));
    }
}
