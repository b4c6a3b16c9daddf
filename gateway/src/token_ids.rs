//! Token ids that stand where texts may stand: one sequence of them, or a list of sequences.

use forebay_schemas::limits::TOKEN_IDS_MAX;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    fields::{Kind, each, kind, top},
};

/// Whether a list has numbers, or lists of numbers: its first element says so.
pub fn is_there(list: &RawValue) -> bool {
    match first(list).map(|element| (kind(element), element)) {
        Some((Kind::List, inner)) => first(inner).is_some_and(|id| kind(id) == Kind::Number),
        Some((kind, _)) => kind == Kind::Number,
        None => false,
    }
}

/// The first element of a list.
fn first(list: &RawValue) -> Option<&RawValue> {
    let mut first = None;
    // The error is that there are more, or none.
    let _ = each("", list, 1, |_, element| {
        first = Some(element);
        Ok(())
    });
    first
}

/// The sequences of a field that has token ids: at most `sequences_max`, with as many ids as a job may have.
pub fn sequences(
    name: &str,
    list: &RawValue,
    sequences_max: usize,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let mut left = TOKEN_IDS_MAX;
    if first(list).is_some_and(|element| kind(element) == Kind::Number) {
        return Ok(vec![sequence(name, list, &mut left)?]);
    }
    let mut sequences = Vec::new();
    each(name, list, sequences_max, |index, element| {
        sequences.push(sequence(&format!("{name}[{index}]"), element, &mut left)?);
        Ok(())
    })?;
    Ok(sequences)
}

fn sequence(name: &str, list: &RawValue, left: &mut usize) -> Result<Vec<u32>, ApiError> {
    let mut ids = Vec::new();
    each(name, list, usize::MAX, |_, element| {
        *left = left.checked_sub(1).ok_or_else(|| {
            let message = format!(
                "`{}` has more than {TOKEN_IDS_MAX} token ids: send several requests",
                top(name)
            );
            ApiError::invalid(name, message)
        })?;
        ids.push(id(name, element)?);
        Ok(())
    })
    .map_err(|error| error.at(top(name)))?;
    Ok(ids)
}

/// One id. Whole floats are whole numbers.
fn id(name: &str, written: &RawValue) -> Result<u32, ApiError> {
    if let Ok(id) = written.get().parse() {
        return Ok(id);
    }
    let number: Option<f64> = serde_json::from_str(written.get()).ok();
    let whole = number.filter(|n| (0.0..=f64::from(u32::MAX)).contains(n) && n.fract() == 0.0);
    whole.map(|id| id as u32).ok_or_else(|| {
        let came: String = written.get().chars().take(40).collect();
        let message = format!("`{name}` has {came}: expected token ids, whole numbers below 2^32");
        ApiError::invalid(name, message)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Vec<Vec<u32>>, ApiError> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        assert!(is_there(&raw), "{json}");
        sequences("input", &raw, 3)
    }

    #[test]
    fn one_list_is_one_sequence_and_a_list_of_lists_is_several() {
        assert_eq!(read("[101, 102]").unwrap(), [[101, 102]]);
        assert_eq!(read("[[101], [1e2, 4294967295]]").unwrap(), [vec![101], vec![100, u32::MAX]]);
    }

    #[test]
    fn what_is_no_sequence_of_ids_is_refused_by_its_position() {
        for (json, why) in [
            ("[1, -1]", "`input` has -1"),
            ("[[1], [0.5]]", "`input[1]` has 0.5"),
            ("[[1], [4294967296]]", "`input[1]` has 4294967296"),
            ("[[1], []]", "`input[1]` is empty"),
            ("[[1], 7]", "`input[1]` is a number"),
            ("[[1], [\"a\"]]", "`input[1]` has \"a\""),
            ("[1, \"a\"]", "`input` has \"a\""),
            ("[[1], [1], [1], [1]]", "has more than 3 elements"),
        ] {
            let error = read(json).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some("input")));
            assert!(error.message.contains(why), "{json}: {error}");
        }
    }

    #[test]
    fn more_ids_than_a_job_may_have_are_refused() {
        let many = |count| format!("[{}]", vec!["7"; count].join(","));
        assert_eq!(read(&many(TOKEN_IDS_MAX)).unwrap()[0].len(), TOKEN_IDS_MAX);
        assert!(read(&many(TOKEN_IDS_MAX + 1)).is_err());
        let two = format!("[{}, {}]", many(TOKEN_IDS_MAX), many(1));
        assert!(read(&two).unwrap_err().message.contains("1048576 token ids"));
    }

    proptest! {
        #[test]
        fn sequences_are_read_as_they_were_written(
            ids in proptest::collection::vec(proptest::collection::vec(any::<u32>(), 1..9), 1..4),
        ) {
            prop_assert_eq!(read(&serde_json::to_string(&ids).unwrap()).unwrap(), ids);
        }
    }
}
