//! The sample texts, and how near two libraries' rows for them are.

use std::fmt;

use forebay_engine::{DType, ModelTask};
use serde::Serialize;

/// Words of the longest sample: more than any model of the supported families was trained for, in tokens.
const LONG_WORDS: usize = 1_500;
/// Characters of a text that are shown.
const SHOWN: usize = 40;

/// Texts on which the mistakes show that were made so far: short and long ones, other scripts, white space at the ends,
/// what looks like special tokens, characters that change in lower case.
pub(super) fn samples() -> Vec<String> {
    let long = (0..LONG_WORDS).map(|index| format!("item {index} of a long list"));
    let medium: Vec<String> = long.clone().take(12).collect();
    let long: Vec<String> = long.take(LONG_WORDS / 2).collect();
    let mut texts: Vec<String> = [
        "A web server written in Rust",
        "short",
        "The quick brown fox jumps over the lazy dog, again and again, until it rains.",
        "\u{dc}n\u{ef}c\u{f6}d\u{e9} na\u{ef}ve \u{65e5}\u{672c}\u{8a9e} \u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}",
        "before <pad> after [PAD] </s> [SEP] <mask> end",
        "  white space at both ends \n",
        "MIXED Case, \u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}, \u{130}stanbul",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push(medium.join(", "));
    texts.push(long.join(", "));
    texts
}

/// The texts as documents of one query.
pub(super) fn pairs(texts: &[String]) -> Vec<[String; 2]> {
    texts.iter().map(|text| ["which animal jumps?".to_owned(), text.clone()]).collect()
}

/// How near the rows are.
#[derive(Serialize)]
pub(super) struct Compared {
    /// Whether all are as near as their number type lets them be.
    pub(super) agrees: bool,
    /// Of vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    cosine_least: Option<f64>,
    /// Of scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference_most: Option<f64>,
    pub(super) rows: Vec<Row>,
}

/// One text.
#[derive(Serialize)]
pub(super) struct Row {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cosine: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cosine, self.difference, &self.problem) {
            (Some(cosine), ..) => write!(f, "cosine {cosine:.6}  {:?}", self.text),
            (_, Some(difference), _) => write!(f, "difference {difference:.6}  {:?}", self.text),
            (_, _, problem) => {
                write!(f, "{}  {:?}", problem.as_deref().unwrap_or_default(), self.text)
            }
        }
    }
}

impl Compared {
    /// The largest difference in words.
    pub(super) fn worst(&self) -> String {
        match (self.cosine_least, self.difference_most) {
            (Some(cosine), _) => format!("least cosine {cosine:.6}"),
            (_, Some(difference)) => format!("largest difference {difference:.6}"),
            _ => "rows of another length".to_owned(),
        }
    }
}

/// Compares rows for the same texts. A cosine is held to what docs/models.md promises of the number type, a score to
/// the four digits that f32 keeps through a model.
pub(super) fn compare(
    task: ModelTask,
    dtype: DType,
    texts: &[String],
    ours: &[Vec<f32>],
    theirs: &[Vec<f32>],
) -> Compared {
    let (cosine_min, difference_max) = match dtype {
        DType::F32 => (0.999_99, 1e-3),
        DType::Bf16 | DType::F16 => (0.999, 0.05),
        DType::Int8 | DType::Q4 => (0.99, 0.2),
    };
    let row = |(index, text): (usize, &String)| {
        let text: String = text.chars().take(SHOWN).collect();
        let ours = &ours[index];
        let theirs = theirs.get(index).map_or(&[][..], Vec::as_slice);
        if ours.len() != theirs.len() {
            let problem = format!("{} values here, {} there", ours.len(), theirs.len());
            return Row { text, cosine: None, difference: None, problem: Some(problem) };
        }
        match task {
            ModelTask::Embed | ModelTask::EmbedSparse | ModelTask::EmbedTokens => {
                Row { text, cosine: Some(cosine(ours, theirs)), difference: None, problem: None }
            }
            ModelTask::Classify | ModelTask::Rerank | ModelTask::Generate => {
                Row { text, cosine: None, difference: Some(farthest(ours, theirs)), problem: None }
            }
        }
    };
    let rows: Vec<Row> = texts.iter().enumerate().map(row).collect();
    let cosine_least = rows.iter().filter_map(|row| row.cosine).reduce(f64::min);
    let difference_most = rows.iter().filter_map(|row| row.difference).reduce(f64::max);
    // A NaN agrees with nothing.
    let agrees = rows.iter().all(|row| {
        row.problem.is_none()
            && row.cosine.is_none_or(|cosine| cosine >= cosine_min)
            && row.difference.is_none_or(|difference| difference <= difference_max)
    });
    Compared { agrees, cosine_least, difference_most, rows }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The largest difference; NaN where there is one.
fn farthest(a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs()));
    differences.fold(0.0, |most, one| if one > most || one.is_nan() { one } else { most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_agree_only_where_all_are_near_and_as_long() {
        let texts = ["a".to_owned(), "b".to_owned()];
        let compared = |theirs: [&[f32]; 2]| {
            let ours = [vec![1.0, 0.0], vec![0.0, 1.0]];
            let theirs = theirs.map(<[f32]>::to_vec);
            compare(ModelTask::Embed, DType::F32, &texts, &ours, &theirs)
        };
        assert!(compared([&[1.0, 0.0], &[0.0, 2.0]]).agrees);
        let other = compared([&[1.0, 0.0], &[0.1, 1.0]]);
        assert!(!other.agrees);
        assert_eq!(other.worst(), "least cosine 0.995037");
        assert!(!compared([&[1.0, 0.0], &[0.0, 1.0, 0.0]]).agrees);
        assert!(!compared([&[1.0, 0.0], &[f32::NAN, 1.0]]).agrees);
    }
}
