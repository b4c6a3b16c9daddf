//! Folders of the user that runs a program, for what the configuration does not say where to put.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The folder that `variable` names, else `below_home` in the user's home; `None` where `environment` has neither. As
/// the XDG specification has it, a path that is not absolute counts as none.
pub(super) fn user_folder(
    variable: &str,
    below_home: &str,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let absolute =
        |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(Path::new(below_home))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Option<PathBuf> {
        user_folder("XDG_CACHE_HOME", ".cache", |name| {
            let set = variables.iter().find(|(variable, _)| *variable == name);
            set.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_user_without_a_home_has_no_folder_and_not_a_shared_one() {
        assert_eq!(found(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), Some("/c".into()));
        assert_eq!(found(&[("HOME", "/h")]), Some("/h/.cache".into()));
        assert_eq!(found(&[("XDG_CACHE_HOME", "cache"), ("HOME", "/h")]), Some("/h/.cache".into()));
        assert_eq!(found(&[("XDG_CACHE_HOME", ""), ("HOME", "")]), None);
        assert_eq!(found(&[]), None);
    }
}
