//! Renamed keys. The old name is an alias for one version: it is read, with a warning that names the new one.
//!
//! The fields have a serde alias, so that a file is read under either name. Overrides are applied to the file's table,
//! where an old name is replaced before: a file with the old name and a variable with the new one set one key, not two.

use std::fmt;

use toml::Table;

/// A renamed key.
struct Renamed {
    /// The tables above it, outermost first; `*` stands for any key, such as a model's id.
    tables: &'static [&'static str],
    old: &'static str,
    new: &'static str,
}

const RENAMED: [Renamed; 2] = [
    Renamed { tables: &["models", "*", "pool"], old: "wait_s", new: "target_wait_s" },
    Renamed { tables: &["autoscaler"], old: "drain_s_max", new: "grace_s" },
];

/// An old name that was used. It displays as a warning.
pub(super) struct OldName {
    /// The key or variable under its old name.
    pub(super) old: String,
    /// The key or variable to use.
    pub(super) new: String,
}

impl fmt::Display for OldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { old, new } = self;
        write!(
            f,
            "`{old}` is now called `{new}`; its old name is an alias for one version: rename it"
        )
    }
}

/// Replaces the old names in a table with the new ones, and returns those that were found. A key that is there under
/// both names is left: reading it as a configuration refuses it.
pub(super) fn replace_in_table(table: &mut Table) -> Vec<OldName> {
    let mut found = Vec::new();
    for renamed in &RENAMED {
        replace_below(table, renamed, renamed.tables, "", &mut found);
    }
    found
}

fn replace_below(
    table: &mut Table,
    renamed: &Renamed,
    tables: &[&str],
    prefix: &str,
    found: &mut Vec<OldName>,
) {
    let Some((name, below)) = tables.split_first() else {
        if !table.contains_key(renamed.new)
            && let Some(value) = table.remove(renamed.old)
        {
            table.insert(renamed.new.to_owned(), value);
            let full = |key: &str| format!("{prefix}{key}");
            found.push(OldName { old: full(renamed.old), new: full(renamed.new) });
        }
        return;
    };
    for (key, value) in table.iter_mut() {
        if (*name == "*" || key == name)
            && let Some(table) = value.as_table_mut()
        {
            replace_below(table, renamed, below, &format!("{prefix}{key}."), found);
        }
    }
}

/// Replaces the old name at the end of a variable's path with the new one. Returns the variable under both names.
pub(super) fn replace_in_path(variable: &str, path: &mut [String]) -> Option<OldName> {
    let (last, tables) = path.split_last_mut()?;
    let renamed = RENAMED.iter().find(|renamed| {
        renamed.old == last
            && renamed.tables.len() == tables.len()
            && renamed
                .tables
                .iter()
                .zip(tables.iter())
                .all(|(name, key)| *name == "*" || name == key)
    })?;
    renamed.new.clone_into(last);
    let above = variable.len() - renamed.old.len();
    let new = format!("{}{}", &variable[..above], renamed.new.to_ascii_uppercase());
    Some(OldName { old: variable.to_owned(), new })
}

/// The old name of the key `new`, where it has one.
pub(super) fn old_name(new: &str) -> Option<&'static str> {
    RENAMED.iter().find(|renamed| renamed.new == new).map(|renamed| renamed.old)
}

/// The present name of `key`, which may be an old one.
pub(super) fn present_name(key: &str) -> &str {
    RENAMED.iter().find(|renamed| renamed.old == key).map_or(key, |renamed| renamed.new)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigError};

    const OLD_FILE: &str =
        "[autoscaler]\ndrain_s_max = 90\n[models.m]\nsource = 'folder:/m'\npool.wait_s = 3.0\n";

    fn parse(
        text: &str,
        environment: &[(&str, &str)],
    ) -> Result<(Config, Vec<String>), ConfigError> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::parse(Path::new("f.toml"), text, environment)
    }

    /// The two renamed values of a configuration that has the model `m`.
    fn values(config: &Config) -> (u64, f64) {
        (config.autoscaler.grace_s, config.models[&"m".parse().unwrap()].pool.target_wait_s)
    }

    #[test]
    fn old_names_in_a_file_are_read_with_a_warning_that_names_both() {
        let (config, warnings) = parse(OLD_FILE, &[]).unwrap();
        assert_eq!(values(&config), (90, 3.0));
        let [wait, grace] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(wait.contains("f.toml: `models.m.pool.wait_s` is now"), "{wait}");
        assert!(wait.contains("`models.m.pool.target_wait_s`"), "{wait}");
        assert!(
            grace.contains("`autoscaler.drain_s_max` is now called `autoscaler.grace_s`"),
            "{grace}"
        );
    }

    #[test]
    fn new_names_are_read_without_a_warning() {
        let text = OLD_FILE.replace("drain_s_max", "grace_s").replace("wait_s", "target_wait_s");
        let (config, warnings) = parse(&text, &[]).unwrap();
        assert_eq!(values(&config), (90, 3.0));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn a_variable_overrides_a_file_whichever_of_the_two_has_the_new_name() {
        let new_file =
            OLD_FILE.replace("drain_s_max", "grace_s").replace("wait_s", "target_wait_s");
        let old =
            [("FOREBAY_AUTOSCALER__DRAIN_S_MAX", "80"), ("FOREBAY_MODELS__M__POOL__WAIT_S", "2.0")];
        let new = [
            ("FOREBAY_AUTOSCALER__GRACE_S", "80"),
            ("FOREBAY_MODELS__M__POOL__TARGET_WAIT_S", "2.0"),
        ];
        for (text, environment, warned) in
            [(OLD_FILE, old, 4), (OLD_FILE, new, 2), (&new_file, old, 2), (&new_file, new, 0)]
        {
            let (config, warnings) = parse(text, &environment).unwrap();
            assert_eq!(values(&config), (80, 2.0), "{text} {environment:?}");
            assert_eq!(warnings.len(), warned, "{warnings:?}");
        }
    }

    #[test]
    fn an_old_name_in_a_variable_is_warned_of_with_the_new_variable() {
        let (_, warnings) = parse("", &[("FOREBAY_AUTOSCALER__DRAIN_S_MAX", "80")]).unwrap();
        let expected =
            "`FOREBAY_AUTOSCALER__DRAIN_S_MAX` is now called `FOREBAY_AUTOSCALER__GRACE_S`";
        assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{warnings:?}");
    }

    #[test]
    fn old_names_inside_the_value_of_a_variable_are_read_and_may_be_overridden() {
        let model = ("FOREBAY_MODELS__M", "{ source = 'folder:/m', pool = { wait_s = 4.0 } }");
        let (config, warnings) = parse("", &[model]).unwrap();
        assert_eq!(values(&config), (120, 4.0));
        assert!(
            warnings[0].starts_with("FOREBAY_MODELS__M: `models.m.pool.wait_s`"),
            "{warnings:?}"
        );
        let wait = ("FOREBAY_MODELS__M__POOL__TARGET_WAIT_S", "5.0");
        assert_eq!(values(&parse("", &[model, wait]).unwrap().0), (120, 5.0));
    }

    #[test]
    fn a_key_under_both_names_is_refused() {
        let error =
            parse("[autoscaler]\ngrace_s = 90\ndrain_s_max = 90\n", &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("f.toml:1: ") && error.contains("`drain_s_max` is its old name"),
            "{error}"
        );
        let both =
            [("FOREBAY_AUTOSCALER__DRAIN_S_MAX", "80"), ("FOREBAY_AUTOSCALER__GRACE_S", "80")];
        let error = parse("", &both).unwrap_err().to_string();
        assert!(error.contains("FOREBAY_AUTOSCALER__DRAIN_S_MAX: "), "{error}");
        assert!(error.contains("remove it"), "{error}");
    }

    #[test]
    fn a_misspelt_key_is_led_to_the_new_name() {
        let error = parse("[autoscaler]\ndrain_max = 90\n", &[]).unwrap_err().to_string();
        assert!(error.ends_with("did you mean `grace_s`?"), "{error}");
    }

    #[test]
    fn a_mistake_under_an_old_name_has_its_line_and_names_the_key_to_set() {
        let error = parse("[autoscaler]\n\ndrain_s_max = 'long'\n", &[]).unwrap_err().to_string();
        assert!(error.starts_with("f.toml:3: "), "{error}");
        let error = parse("[autoscaler]\ndrain_s_max = 1\n", &[]).unwrap_err().to_string();
        assert!(error.contains("`autoscaler.grace_s` is 1"), "{error}");
    }
}
