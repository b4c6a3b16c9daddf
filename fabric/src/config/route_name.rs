//! [`RouteName`]: the name of a route.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: clients know models by `owner/name`.
const NAME_BYTES_MAX: usize = 128;

/// The name of a route, or an alias.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RouteName(String);

/// A text that can't be the name of a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` can't be the name of a route: use 1 to 128 of a-z, A-Z, 0-9 and . _ : / @ + -, the first of \
     them one of a-z, A-Z, 0-9"
)]
pub struct InvalidRouteName(String);

impl RouteName {
    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RouteName {
    type Err = InvalidRouteName;

    fn from_str(text: &str) -> Result<Self, InvalidRouteName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
        let is_name = text.len() <= NAME_BYTES_MAX
            && text.bytes().all(allowed)
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        let shown = || text.chars().take(NAME_BYTES_MAX).collect();
        is_name.then(|| Self(text.to_owned())).ok_or_else(|| InvalidRouteName(shown()))
    }
}

impl TryFrom<String> for RouteName {
    type Error = InvalidRouteName;

    fn try_from(text: String) -> Result<Self, InvalidRouteName> {
        text.parse()
    }
}

impl From<RouteName> for String {
    fn from(name: RouteName) -> Self {
        name.0
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
