//! Any file and any environment are a configuration or a mistake that is named in one line; a configuration
//! prints as text that can be read again.
//!
//! The text ends at the first NUL; what follows it is an environment, a variable a line.
#![no_main]

use std::path::Path;

use forebay_fabric::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, environment) = text.split_once('\0').unwrap_or((text, ""));
    let variables = environment.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (format!("FOREBAY_{name}"), value.to_owned()));
    match Config::parse(Path::new("forebay.toml"), file, variables) {
        Ok((config, _)) => {
            let printed = config.to_toml();
            let again = Config::parse(Path::new("printed"), &printed, []);
            assert!(again.is_ok(), "{:?} in:\n{printed}", again.err());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
