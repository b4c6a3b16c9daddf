//! The Compose file that gives the autoscaler the Docker Engine's socket.

use std::{fs, path::Path};

use forebay_fabric::{Config, config::LauncherKind};
use serde_json::Value;

fn text(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

/// As Compose reads it where nothing is set: `${NAME:-default}`.
fn with_defaults(mut text: String) -> String {
    while let Some((before, rest)) = text.split_once("${") {
        let (expression, after) = rest.split_once('}').unwrap();
        let default = expression.split_once(":-").map_or("", |(_, default)| default);
        text = format!("{before}{default}{after}");
    }
    text
}

#[test]
fn it_says_what_it_means_and_names_what_the_launcher_looks_for() {
    let written = text("docker-compose.docker-launcher.yml");
    let head: String = written.lines().take_while(|line| line.starts_with('#')).collect();
    assert!(head.contains("amounts to root on this host"));
    let compose: Value = serde_saphyr::from_str(&with_defaults(written)).unwrap();
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["autoscaler"]);
    let environment = services["autoscaler"]["environment"].as_object().unwrap();
    let environment = environment.iter().map(|(name, value)| {
        // A number or a flag without quotes does not reach the program as it was written.
        (name.clone(), value.as_str().unwrap_or_else(|| panic!("{name}")).to_owned())
    });
    let toml = text("forebay.toml");
    let (config, warnings) = Config::parse("forebay.toml".as_ref(), &toml, environment).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert!(config.models.values().all(|model| model.pool.launcher == LauncherKind::Docker));
    let docker = &config.autoscaler.docker;
    assert_eq!(docker.network.as_deref(), compose["networks"]["default"]["name"].as_str());
    let volume = compose["volumes"]["models"]["name"].as_str().unwrap();
    assert_eq!(docker.volumes, [format!("{volume}:/var/lib/forebay/models:ro")]);
    let mounted = services["autoscaler"]["volumes"][0].as_str().unwrap();
    assert!(mounted.ends_with(&format!(":{}", docker.socket.display())));
    assert!(config.worker.idle_s_max > 0, "workers would outlive an autoscaler that is gone");
}
