//! Routes as files have them, and the mistakes in them.

use std::path::Path;

use super::*;
use crate::config::{Config, ConfigError};

const MODELS: &str = "[models.a]\nsource = \"folder:/a\"\n[models.b]\nsource = \"folder:/b\"\n\
                      [models.b.price]\ninput_per_million = 0.5\n";

fn loaded(routes: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("f"), &format!("{MODELS}{routes}"), []).map(|(config, _)| config)
}

fn refused(routes: &str) -> String {
    match loaded(routes).unwrap_err() {
        ConfigError::Route(error) => error.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_route_is_read_with_its_defaults() {
    let config = loaded(
        "[routes.\"BAAI/bge-m3\"]\naliases = [\"text-embedding-3-small\"]\ntargets = [{ model = \"a\" }, \
         { model = \"b\", tier = 2, weight = 3 }]\n",
    )
    .unwrap();
    let route = &config.routes[&"BAAI/bge-m3".parse().unwrap()];
    let target =
        |model: &str, tier, weight| RouteTarget { model: model.parse().unwrap(), tier, weight };
    let expected = RouteConfig {
        targets: vec![target("a", 1, 1), target("b", 2, 3)],
        aliases: vec!["text-embedding-3-small".parse().unwrap()],
        ..RouteConfig::default()
    };
    assert_eq!(*route, expected);
    let printed = config.to_toml();
    let again: Config = toml::from_str(&printed).unwrap();
    assert_eq!(again.routes, config.routes, "{printed}");
}

#[test]
fn a_mistake_in_a_route_is_named() {
    for (routes, expected) in [
        ("[routes.r]\n", "`routes.r` has no targets"),
        (
            "[routes.r]\ntargets = [{ model = \"c\" }]",
            "`c` is no model; there are these models: a, b",
        ),
        (
            "[routes.r]\ntargets = [{ model = \"s\" }]\n[routes.s]\ntargets = [{ model = \"a\" }]",
            "`s` is a route, and targets are models",
        ),
        ("[routes.r]\ntargets = [{ model = \"a\" }, { model = \"a\", tier = 2 }]", "`a` twice"),
        (
            "[routes.r]\ntargets = [{ model = \"a\", weight = 0 }]",
            "`routes.r.targets[0].weight` is 0",
        ),
        ("[routes.r]\ntargets = [{ model = \"a\", tier = 0 }]", "`routes.r.targets[0].tier` is 0"),
        ("[routes.r]\ninputs_max = 0\ntargets = [{ model = \"a\" }]", "`routes.r.inputs_max` is 0"),
        ("[routes.b]\ntargets = [{ model = \"a\" }]", "the name `b` is a model of its own"),
        (
            "[routes.r]\naliases = [\"b\"]\ntargets = [{ model = \"a\" }]",
            "`b` is a model of its own",
        ),
        (
            "[routes.r]\naliases = [\"s\"]\ntargets = [{ model = \"a\" }]\n[routes.s]\ntargets = [{ model = \"a\" }]",
            "the name `s` is that of two routes, `r` and `s`",
        ),
        (
            "[routes.r]\nprefer = \"price\"\ntargets = [{ model = \"b\" }, { model = \"a\" }]",
            "`a` has none: add [models.a.price]",
        ),
    ] {
        let error = refused(routes);
        assert!(error.contains(expected), "{routes}: {error}");
    }
}

#[test]
fn a_route_may_have_the_name_of_a_model_that_it_leads_to() {
    loaded("[routes.a]\ntargets = [{ model = \"a\" }, { model = \"b\", tier = 2 }]").unwrap();
}

#[test]
fn names_are_those_that_fit_into_headers_and_labels() {
    for name in ["m", "BAAI/bge-m3", "text-embedding-3-small", "v1:latest", "a@b+c"] {
        assert!(name.parse::<RouteName>().is_ok(), "{name}");
    }
    for name in ["", "-a", "/a", "a b", "ä", "a\"b", &"x".repeat(129)] {
        assert!(name.parse::<RouteName>().is_err(), "{name}");
    }
    let error = loaded("[routes.\"a b\"]\n").unwrap_err().to_string();
    assert!(error.contains("can't be the name of a route"), "{error}");
}

#[test]
fn the_reference_page_has_every_key_of_a_route_with_its_default() {
    let page = include_str!("../../../../docs/configuration.md");
    let start = page.find("## `[routes.<name>]`").expect("a section");
    let section = &page[start..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    for (key, value) in toml::Table::try_from(RouteConfig::default()).unwrap() {
        let value = value.as_str().map_or_else(|| value.to_string(), |text| format!("`{text}`"));
        let row = if key == "targets" {
            format!("| `{key}` |")
        } else {
            format!("| `{key}` | {value} |")
        };
        assert!(section.contains(&row), "it lacks: {row}");
    }
    for key in [
        "aliases",
        "fallback_wait_ms",
        "fallback_after_ms",
        "request_wait_ms_max",
        "expires_ms_max",
        "inputs_max",
    ] {
        assert!(section.contains(&format!("| `{key}` |")), "it lacks `{key}`");
    }
}
