//! Reading the configuration: a file, then the environment. A mistake is named with its line or its variable.

use std::{
    io,
    path::{Path, PathBuf},
};

use forebay_schemas::ModelId;
use serde::Deserialize;
use toml::{Table, Value};

use super::{
    error::ConfigError,
    renamed::{self, OldName},
    routes,
    settings::Config,
};
use crate::tls::Tls;

/// The file that is read when none is named.
pub const FILE_DEFAULT: &str = "forebay.toml";

const PREFIX: &str = "FOREBAY_";

/// A configuration, where it came from, and the warnings about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file it came from; `None` when there was none and the defaults hold.
    pub file: Option<PathBuf>,
    /// Warnings: the configuration works, but something in it deserves attention, such as a renamed key.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads `file` (or `forebay.toml`, which may be absent) and applies the process's `FOREBAY_*`.
    pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
        Self::load_from(file, std::env::vars())
    }

    /// [`Config::load`] with any environment.
    pub fn load_from(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let path = file.unwrap_or(Path::new(FILE_DEFAULT));
        let (text, found) = match std::fs::read_to_string(path) {
            Ok(text) => (text, Some(path.to_path_buf())),
            Err(e) if e.kind() == io::ErrorKind::NotFound && file.is_none() => {
                (String::new(), None)
            }
            Err(source) => return Err(ConfigError::Read { path: path.into(), source }),
        };
        let (config, mut warnings) = Self::parse(path, &text, environment)?;
        Tls::load(&config.tls)?;
        warnings.extend(config.unencrypted());
        Ok(Loaded { config, file: found, warnings })
    }

    /// The configuration of a file's `text` and the environment, with warnings; `path` is for messages.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let from_file: Self = toml::from_str(text).map_err(|e| in_file(path, text, &e))?;
        let mut table: Table = toml::from_str(text).map_err(|e| in_file(path, text, &e))?;
        let old_names = renamed::replace_in_table(&mut table).into_iter();
        let mut warnings: Vec<String> =
            old_names.map(|old_name| format!("{}: {old_name}", path.display())).collect();
        let config = apply(from_file, table, environment, &mut warnings)?;
        config.check().map_err(ConfigError::Range)?;
        routes::check(&config.routes, &config.models)?;
        Ok((config, warnings))
    }
}

/// The text of a configuration file without what workers have no use for, and may be a password: the addresses of the
/// management API and of the gateway. A text that can't be parsed is left as it is.
pub fn for_workers(text: &str) -> String {
    let Ok(mut table) = toml::from_str::<Table>(text) else { return text.to_owned() };
    let removed = [table.remove("management_url"), table.remove("gateway_url")];
    if removed.iter().all(Option::is_none) {
        return text.to_owned();
    }
    table.to_string()
}

/// The variable with the API key of a remote model, by the text of a configuration file.
pub fn api_key_env(text: &str, model: &ModelId) -> Option<String> {
    let table = toml::from_str::<Table>(text).ok()?;
    let remote = table.get("models")?.get(model.as_str())?.get("remote")?;
    Some(remote.get("api_key_env")?.as_str()?.to_owned())
}

fn in_file(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
    ConfigError::File { path: path.into(), line, message: with_remedy(error.message()) }
}

/// Applies the overrides one at a time, so that a wrong one is known by name.
fn apply(
    mut config: Config,
    mut table: Table,
    environment: impl IntoIterator<Item = (String, String)>,
    warnings: &mut Vec<String>,
) -> Result<Config, ConfigError> {
    let mut overrides: Vec<(String, String)> =
        environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    overrides.sort();
    for (name, value) in &overrides {
        let mut path: Vec<String> =
            name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        // An orchestrator adds variables such as FOREBAY_GATEWAY_PORT for its services: at the top level
        // only names of keys are settings. Nested names, with two underscores, can only be settings.
        if path.len() == 1 && !is_top_level_key(&path[0]) {
            if !KNOWN_ELSEWHERE.contains(&name.as_str()) {
                warnings
                    .push(format!("{name} is not a setting and is ignored; unset or rename it"));
            }
            continue;
        }
        let wrong = |message: String| ConfigError::Variable { name: name.clone(), message };
        if let Some(old_name) = renamed::replace_in_path(name, &mut path) {
            let new = &old_name.new;
            if overrides.iter().any(|(other, _)| other.eq_ignore_ascii_case(new)) {
                return Err(wrong(format!(
                    "is the old name of {new}, which is set too: remove it"
                )));
            }
            warnings.push(old_name.to_string());
        }
        let old_names;
        (config, table, old_names) =
            override_one(&table, &path, value).map_err(|message| wrong(with_remedy(&message)))?;
        warnings.extend(old_names.iter().map(|old_name| format!("{name}: {old_name}")));
    }
    Ok(config)
}

/// Variables that other modules and programs read.
const KNOWN_ELSEWHERE: [&str; 3] = ["FOREBAY_CONFIG", "FOREBAY_FAIL_POINTS", "FOREBAY_WORKER_NAME"];

fn is_top_level_key(key: &str) -> bool {
    ["amqp_url", "redis_url", "management_url", "gateway_url", "models_dir"].contains(&key)
}

/// Sets the key at `path`: to `text` as a TOML value (a number, a flag, a list or a table), or else as a string.
fn override_one(
    table: &Table,
    path: &[String],
    text: &str,
) -> Result<(Config, Table, Vec<OldName>), String> {
    let as_toml =
        toml::from_str::<Table>(&format!("v = {text}")).ok().and_then(|mut t| t.remove("v"));
    let mut first_error = None;
    for value in as_toml.into_iter().chain([Value::String(text.into())]) {
        let mut candidate = table.clone();
        insert(&mut candidate, path, value)?;
        let old_names = renamed::replace_in_table(&mut candidate);
        match Config::deserialize(candidate.clone()) {
            Ok(config) => return Ok((config, candidate, old_names)),
            Err(error) => first_error = first_error.or(Some(error.message().to_owned())),
        }
    }
    Err(first_error.unwrap_or_default())
}

fn insert(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let (last, parents) =
        path.split_last().ok_or("names no setting: write FOREBAY_<TABLE>__<KEY>")?;
    let mut here = table;
    for parent in parents {
        here = here
            .entry(parent.clone())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("`{parent}` is a value, not a table"))?;
    }
    here.insert(last.clone(), value);
    Ok(())
}

/// Adds "did you mean" to serde's "unknown field `x`, expected one of `a`, `b`", and the old name to its "duplicate
/// field `x`".
fn with_remedy(message: &str) -> String {
    let message = message.trim().replace('\n', " ");
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some(wrong) = quoted.first() else { return message };
    if let Some(old) = renamed::old_name(wrong)
        && message.starts_with("duplicate field")
    {
        return format!("{message}: `{old}` is its old name; keep `{wrong}` alone");
    }
    if !message.starts_with("unknown") {
        return message;
    }
    let nearest = quoted[1..].iter().min_by_key(|known| distance(wrong, known));
    match nearest.filter(|known| distance(wrong, known) <= wrong.len() / 2) {
        Some(nearest) => format!("{message}; did you mean `{}`?", renamed::present_name(nearest)),
        None => message,
    }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let file = std::env::temp_dir().join(format!("forebay-config-{:x}", rand::random::<u64>()));
        std::fs::write(&file, text).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let loaded = Config::load_from(Some(&file), environment);
        std::fs::remove_file(&file).unwrap();
        loaded
    }

    fn error(text: &str, environment: &[(&str, &str)]) -> String {
        load(text, environment).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = load("", &[]).unwrap().config;
        assert_eq!(config.limits.inputs_max, 2_048);
        assert!(config.telemetry.listen.ip().is_loopback());
    }

    #[test]
    fn a_mistake_in_the_file_is_named_with_its_line_and_remedy() {
        let message = error("# first\namqp_ur = \"amqp://x\"\n", &[]);
        assert!(message.contains(":2: unknown field `amqp_ur`"), "{message}");
        assert!(message.ends_with("did you mean `amqp_url`?"), "{message}");
        let message = error("[worker]\n\nprefetch_batch = \"many\"\n", &[]);
        assert!(message.contains(":3: ") && message.contains("many"), "{message}");
        let message = error("[worker\n", &[]);
        assert!(message.contains(":1: "), "{message}");
    }

    #[test]
    fn an_unknown_number_type_is_refused_with_the_known_ones() {
        let model = |dtype: &str| format!("[models.m]\nsource = \"folder:/m\"\ndtype = {dtype}\n");
        let config = load(&model("\"int8\""), &[]).unwrap().config;
        assert_eq!(
            config.models[&"m".parse().unwrap()].dtype,
            Some(crate::config::sections::NumberType::Int8)
        );
        let message = error(&model("\"int4\""), &[]);
        assert!(message.contains(":3: ") && message.contains("`bf16`"), "{message}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let environment = [
            ("FOREBAY_AMQP_URL", "amqp://me:pw@there"),
            ("FOREBAY_WORKER__BATCH_TOKENS_MAX", "77"),
            ("FOREBAY_TELEMETRY__LOG_FILTER", "7"),
            ("FOREBAY_CONFIG", "elsewhere.toml"),
            ("OTHER", "x"),
        ];
        let loaded = load("amqp_url = \"amqp://here\"", &environment).unwrap();
        assert_eq!(loaded.config.amqp_url.expose(), "amqp://me:pw@there");
        assert_eq!(loaded.config.worker.batch_tokens_max, 77);
        assert_eq!(loaded.config.telemetry.log_filter, "7");
        assert!(loaded.warnings.is_empty());
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let message = error("", &[("FOREBAY_WORKER__BATCH_TOKEN_MAX", "77")]);
        assert!(message.contains("FOREBAY_WORKER__BATCH_TOKEN_MAX"), "{message}");
        assert!(message.contains("did you mean `batch_tokens_max`?"), "{message}");
        let message = error("", &[("FOREBAY_WORKER__BATCH_TOKENS_MAX", "lots")]);
        assert!(message.contains("FOREBAY_WORKER__BATCH_TOKENS_MAX"), "{message}");
    }

    #[test]
    fn variables_of_an_orchestrator_are_ignored_with_a_warning() {
        let loaded = load("", &[("FOREBAY_GATEWAY_PORT", "tcp://10.0.0.1:80")]).unwrap();
        assert_eq!(loaded.warnings.len(), 1);
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        assert!(error("[worker]\nprefetch_batch = 0", &[]).contains("worker.prefetch_batch"));
    }

    #[test]
    fn weights_of_tenants_are_read_and_those_out_of_range_are_named() {
        let text = "[worker.tenant_weights]\nacme = 3\n\"Big, Inc.\" = 100\n";
        let variable = ("FOREBAY_WORKER__TENANT_WEIGHTS__SMALL", "2");
        let worker = load(text, &[variable]).unwrap().config.worker;
        let weights: Vec<(&str, u32)> = worker
            .tenant_weights
            .iter()
            .map(|(tenant, weight)| (tenant.as_str(), *weight))
            .collect();
        assert_eq!(weights, [("Big, Inc.", 100), ("acme", 3), ("small", 2)]);
        for weight in ["0", "101"] {
            let message = error(&format!("[worker.tenant_weights]\nacme = {weight}"), &[]);
            assert!(message.contains("`worker.tenant_weights.acme`"), "{message}");
        }
        let nameless = error("[worker.tenant_weights]\n\"\" = 2", &[]);
        assert!(nameless.contains("a label of 0 characters"), "{nameless}");
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let error = Config::load_from(Some(Path::new("/nowhere/f.toml")), []).unwrap_err();
        assert!(error.to_string().contains("/nowhere/f.toml"));
    }

    #[test]
    fn the_printed_configuration_hides_secrets_and_can_be_read_again() {
        let text = "amqp_url = \"amqp://me:canary@host\"\n[models.m]\nsource = \"folder:/m\"\n";
        let printed = load(text, &[]).unwrap().config.to_toml();
        assert!(!printed.contains("canary"), "{printed}");
        assert!(toml::from_str::<Config>(&printed).is_ok(), "{printed}");
    }
}
