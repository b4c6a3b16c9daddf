//! The field's words: where it has one, no other is used for the same thing, in names and comments alike.
//!
//! Identifiers are read word by word, split at underscores and at capital letters. Only this file and the
//! changelog may hold the words that are not used.

use super::files::{Source, assert_none, written};

/// On the left one or more words in a row that are not used, on the right those to say instead.
const UNUSED: &[(&str, &str)] = &[
    ("team|teams|crew|crews", "thread pool, worker thread"),
    ("courier|couriers", "publisher, subscriber"),
    ("leash|leashes", "child-process guard"),
    ("afresh|anew", "republish, again"),
    ("letter|letters", "dead letter"),
    ("feed|feeds", "consumer channel, delivery"),
    ("note|notes|noted|noting", "journal, record, entry, comment"),
    ("company|companies", "co-batched, batch-mates"),
    ("tell|tells|told", "report, notify, return, say"),
    ("beat|beats|beaten", "heartbeat; is better than"),
    ("blame|blames|blamed", "crash attribution"),
    ("place|places", "slot, device slot, node, edge, position, where"),
    ("nobody|whoever|whom", "say who or what it is: no worker, the caller"),
    ("the day", "the current one"),
    ("first cache|second cache|third cache", "L1 cache, L2 cache, last-level cache"),
    ("drain_s", "target_wait_s, drain_time_s, grace_s"),
    ("product|products", "matrix product, dot product, GEMM"),
];

/// Phrases that contain such a word and are right, with the reason.
const ALLOWED: &[(&str, &str)] = &[
    ("dead letter|dead letters", "the broker's own name for it"),
    ("feed forward", "the half of a transformer's layer"),
    ("in place", "an operation on its own input"),
    ("take place|takes place|decimal place|decimal places", "common English without another word"),
    ("beat_at_ms", "a field of the worker's record, which is a contract"),
    ("drain_s_max|alias drain_s", "former names that are still read"),
    ("matrix product|matrix products|dot product|dot products", "mathematics"),
    ("inner product|inner products|outer product|outer products", "mathematics"),
];

/// Names that are a contract or of the standard library, as they are written.
const NAMES_OF_OTHERS: &[&str] = &[
    "\"letter\"",
    "`letter`",
    ".product::<",
    ".product()",
    "Note that the answer can only be", // of Qwen3-Reranker's prompt
];

/// Files that name what was renamed.
const ABOUT_WORDS: &[&str] = &["tests/tests/tidy/words.rs", "CHANGELOG.md"];

/// The kinds of files that are read, by [`Source::kind`].
const KINDS: &[&str] = &[
    "rs",
    "cu",
    "cuh",
    "h",
    "cpp",
    "sh",
    "py",
    "toml",
    "yml",
    "yaml",
    "md",
    "Makefile",
    "Dockerfile",
    "cuda",
];

type Phrase = Vec<String>;

struct Word {
    text: String,
    line: usize,
}

/// The alternatives of a list's column, each as its words.
fn phrases(column: &str) -> impl Iterator<Item = Phrase> {
    column.split('|').map(|phrase| words(phrase).into_iter().map(|word| word.text).collect())
}

/// Lower case, with identifiers taken apart; `'s` is no word of its own.
fn words(text: &str) -> Vec<Word> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for run in line.replace("'s", "").split(|c: char| !c.is_alphanumeric()) {
            let parts = parts_of(run).into_iter();
            found.extend(parts.map(|part| Word { text: part.to_lowercase(), line: at + 1 }));
        }
    }
    found
}

/// Splits `DeadLetter2` and `HTTPServer` where a capital begins a word.
fn parts_of(run: &str) -> Vec<&str> {
    let letters: Vec<(usize, char)> = run.char_indices().collect();
    let begins = |at: usize| {
        let is_upper = |at: usize| letters.get(at).is_some_and(|(_, c)| c.is_uppercase());
        let is_lower = |at: usize| letters.get(at).is_some_and(|(_, c)| c.is_lowercase());
        is_upper(at) && (!is_upper(at - 1) || is_lower(at + 1))
    };
    let mut cuts: Vec<usize> =
        (1..letters.len()).filter(|at| begins(*at)).map(|at| letters[at].0).collect();
    cuts.insert(0, 0);
    cuts.push(run.len());
    cuts.windows(2).map(|cut| &run[cut[0]..cut[1]]).filter(|part| !part.is_empty()).collect()
}

fn stands_at(phrase: &[String], words: &[Word], at: usize) -> bool {
    let there = words.get(at..at + phrase.len());
    there.is_some_and(|there| there.iter().zip(phrase).all(|(word, wanted)| word.text == *wanted))
}

/// Whether one of `phrases` covers the `length` words from `at`.
fn is_within(phrases: &[Phrase], words: &[Word], at: usize, length: usize) -> bool {
    phrases.iter().any(|phrase| {
        let slack = phrase.len().saturating_sub(length);
        let starts = at.saturating_sub(slack)..=at;
        phrase.len() >= length && starts.into_iter().any(|start| stands_at(phrase, words, start))
    })
}

fn unused_words(source: &Source) -> Vec<String> {
    let allowed: Vec<Phrase> = ALLOWED.iter().flat_map(|(column, _)| phrases(column)).collect();
    let unused = UNUSED
        .iter()
        .flat_map(|(column, instead)| phrases(column).map(move |phrase| (phrase, instead)));
    let unused: Vec<(Phrase, &&str)> = unused.collect();
    let text =
        NAMES_OF_OTHERS.iter().fold(source.text.clone(), |text, name| text.replace(name, ""));
    let words = words(&text);
    let mut offences = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let found = unused.iter().find(|(phrase, _)| stands_at(phrase, &words, at));
        if let Some((phrase, instead)) = found
            && !is_within(&allowed, &words, at, phrase.len())
        {
            offences.push(format!(
                "{}:{}: `{}` (say: {instead})",
                source.path,
                word.line,
                phrase.join(" ")
            ));
        }
    }
    offences
}

#[test]
fn the_words_of_the_field_are_used() {
    let read = written()
        .iter()
        .filter(|file| KINDS.contains(&file.kind()) && !ABOUT_WORDS.contains(&file.path.as_str()));
    let offences: Vec<String> = read.flat_map(unused_words).collect();
    assert_none("words that are not used", &offences);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let offences = unused_words(&Source { path: String::new(), text: text.to_owned() });
        offences.iter().map(|offence| offence.split('`').nth(1).unwrap().to_owned()).collect()
    }

    #[test]
    fn unused_words_are_found_in_prose_and_in_every_kind_of_name() {
        assert_eq!(found("Each team is told."), ["team", "told"]);
        assert_eq!(
            found("fn note_of(crewMember: FeedFoo, BLAME_S: u32)"),
            ["note", "crew", "feed", "blame"]
        );
        assert_eq!(
            found("the second\n/// cache of the day, HTTPLetter"),
            ["second cache", "the day", "letter"]
        );
        assert_eq!(found("let drain_s = places[0];"), ["drain s", "places"]);
    }

    #[test]
    fn allowed_phrases_and_longer_words_are_no_offences() {
        let fine = "A dead letter, `DeadLetters`, x-dead-letter-exchange, beat_at_ms, FeedForward, in-place, in_place.";
        assert_eq!(found(fine), Vec::<String>::new());
        let longer =
            "placeholder heartbeat feedback noteworthy production steam the drain's end, replaced";
        assert_eq!(found(longer), Vec::<String>::new());
        assert_eq!(found("place: beat_at, a letter that is dead"), ["place", "beat", "letter"]);
    }
}
