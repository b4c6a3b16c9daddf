//! Metrics have one list: what the programs count, what the page explains, and what dashboard and alerts ask for.

use std::collections::BTreeSet;
use std::fs;

use super::files::{assert_none, root, sources};

type Names = BTreeSet<String>;

const PAGE: &str = "docs/operating.md";
/// The metrics below this heading are the autoscaler's.
const OF_THE_AUTOSCALER: &str = "### Of the autoscaler";
const MACROS: [&str; 3] = ["counter!(", "gauge!(", "histogram!("];
/// The series that Prometheus makes of one histogram.
const SERIES_OF_A_HISTOGRAM: [&str; 3] = ["_bucket", "_count", "_sum"];

/// The metrics that `.rs` files outside tests count.
fn counted() -> Names {
    let files = sources("rs").into_iter().filter(|source| !source.is_test());
    let mut names = Names::new();
    for source in files {
        let lines: Vec<&str> = source.lines_before_tests().map(|(_, line)| line).collect();
        let text = lines.join("\n");
        for uses in MACROS.iter().flat_map(|name| text.split(name).skip(1)) {
            let name = uses.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            names.extend(name.map(ToOwned::to_owned));
        }
    }
    names
}

/// The names in the first column of the page's tables: those of every program, and the autoscaler's.
fn explained() -> (Names, Names) {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let (others, rest) = page.split_once(OF_THE_AUTOSCALER).expect("the autoscaler's metrics");
    let (own, others_below) = rest.split_once("\n#").unwrap_or((rest, ""));
    let of_rows = |text: &str| {
        let rows = text.lines().filter(|line| line.starts_with("| `forebay_"));
        rows.filter_map(|row| row.split('|').nth(1)).flat_map(names_in).collect::<Names>()
    };
    (of_rows(&[others, others_below].concat()), of_rows(own))
}

/// Everything in `text` that is written like a metric of ours.
fn names_in(text: &str) -> Vec<String> {
    let part_of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !part_of_a_name(c));
    words.filter(|word| word.starts_with("forebay_")).map(ToOwned::to_owned).collect()
}

#[test]
fn every_metric_is_explained_and_what_is_explained_is_counted() {
    let counted = counted();
    assert!(counted.len() > 20, "the search for metrics finds next to none: {counted:?}");
    let (of_all, of_the_autoscaler) = explained();
    let explained: Names = of_all.union(&of_the_autoscaler).cloned().collect();
    let silent: Vec<String> = counted.difference(&explained).cloned().collect();
    assert_none(&format!("metrics that {PAGE} does not explain"), &silent);
    // The autoscaler's gauges are set by name.
    let sources = sources("rs");
    let is_named = |name: &String| {
        let literal = format!("\"{name}\"");
        sources
            .iter()
            .any(|source| source.lines_before_tests().any(|(_, line)| line.contains(&literal)))
    };
    let named = of_the_autoscaler.iter().filter(|name| is_named(name)).cloned().collect();
    let of_all: Names = of_all.union(&of_the_autoscaler).cloned().collect();
    let counted: Names = counted.union(&named).cloned().collect();
    let gone: Vec<String> = of_all.difference(&counted).cloned().collect();
    assert_none(&format!("metrics in {PAGE} that no program counts"), &gone);
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let (of_all, of_the_autoscaler) = explained();
    let known: Names = counted().into_iter().chain(of_all).chain(of_the_autoscaler).collect();
    let exists = |name: &str| {
        let of_histogram = SERIES_OF_A_HISTOGRAM.iter().filter_map(|end| name.strip_suffix(end));
        known.contains(name) || of_histogram.into_iter().any(|name| known.contains(name))
    };
    let mut unknown = Vec::new();
    for file in [
        "deploy/grafana/forebay.json",
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts_test.yml",
    ] {
        let asked = names_in(&fs::read_to_string(root().join(file)).unwrap());
        assert!(!asked.is_empty(), "{file} asks for nothing");
        let strange = asked.into_iter().filter(|name| !exists(name));
        unknown.extend(strange.map(|name| format!("{file}: {name}")));
    }
    assert_none("metrics that no program has", &unknown);
}

#[test]
fn the_page_lists_each_alert_with_its_severity() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `Forebay"));
    let listed: Names = rows
        .map(|row| row.split('|').take(2).map(|cell| cell.trim().trim_end_matches('`')))
        .map(|cells| cells.collect::<Vec<_>>().join(" "))
        .collect();
    let rules = fs::read_to_string(root().join("deploy/prometheus/alerts.yml")).unwrap();
    let severity = |rule: &str| {
        let rest = rule.split_once("severity: ").expect("a severity").1;
        rest.split(' ').next().unwrap_or_default().to_owned()
    };
    let rules = rules.split("- alert: Forebay").skip(1);
    let alerts: Names = rules
        .map(|rule| format!("{} {}", rule.lines().next().unwrap_or_default(), severity(rule)))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(listed, alerts, "left: {PAGE}, right: the alerts");
}

#[test]
fn every_panel_of_the_dashboard_asks_something_of_the_chosen_prometheus() {
    let file = root().join("deploy/grafana/forebay.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let mut ids = BTreeSet::new();
    let mut offences = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].to_string();
        if !ids.insert(panel["id"].as_u64()) {
            offences.push(format!("{title} has the id of another"));
        }
        let targets = panel["targets"].as_array();
        if targets.is_none_or(Vec::is_empty) && panel["type"] != "row" {
            offences.push(format!("{title} asks nothing"));
        }
        for target in targets.into_iter().flatten() {
            if target["datasource"]["uid"] != "${datasource}" {
                offences.push(format!("{title} asks another data source"));
            }
        }
    }
    assert_none("panels", &offences);
}
