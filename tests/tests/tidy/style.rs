//! How code is written down: lines that fit a screen, doc lines that say what a thing is, one variable a line.

use syn::visit::{self, Visit};

use super::files::{Source, assert_none, sources, written};

const LINE_CHARACTERS_MAX: usize = 120;

/// The kinds of files whose lines are short, by [`Source::kind`].
const KINDS: &[&str] = &["rs", "cu", "cuh", "h", "cpp", "sh", "py", "md"];

/// How a doc line doesn't begin: it says what the thing is, not that it is something.
const OPENINGS: &[&str] = &["What", "The same"];

fn long_lines(source: &Source) -> Vec<String> {
    let is_document = source.kind() == "md";
    let mut is_block = false;
    let long = source.text.lines().enumerate().filter_map(|(at, line)| {
        is_block ^= line.trim_start().starts_with("```");
        let length = line.chars().count();
        let may_be_long =
            is_document && (is_block || line.trim_start().starts_with('|') || is_one_link(line));
        (length > LINE_CHARACTERS_MAX && !may_be_long).then_some((at + 1, length))
    });
    long.map(|(line, length)| format!("{}:{line}: {length} characters", source.path)).collect()
}

/// A link that stands alone can't be broken; neither can a row of a table or a line of a block of commands.
fn is_one_link(line: &str) -> bool {
    let text = line.trim_start_matches(['-', '*', '>', ' ']);
    text.ends_with(')') && text.starts_with('[') && text.matches("](").count() == 1
        || !text.contains(' ')
}

fn weak_doc_lines(source: &Source) -> Vec<String> {
    let mut offences = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        let line = line.trim_start();
        let text = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "));
        let opens = |text: &str| {
            let follows = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric());
            OPENINGS.iter().any(|opening| text.strip_prefix(opening).is_some_and(follows))
        };
        if text.is_some_and(opens) {
            offences.push(format!("{}:{}: {line}", source.path, at + 1));
        }
    }
    offences
}

/// The lines of `let (a, b) = (x, y);`.
#[derive(Default)]
struct Tuples(Vec<usize>);

impl<'ast> Visit<'ast> for Tuples {
    fn visit_local(&mut self, local: &'ast syn::Local) {
        let pattern = match &local.pat {
            syn::Pat::Type(typed) => &typed.pat,
            pattern => pattern,
        };
        if let Some(init) = &local.init
            && init.diverge.is_none()
            && let syn::Expr::Tuple(values) = &*init.expr
            && matches!(pattern, syn::Pat::Tuple(_))
        {
            self.0.push(values.paren_token.span.open().start().line);
        }
        visit::visit_local(self, local);
    }
}

fn tuple_assignments(source: &Source) -> Vec<String> {
    let file =
        syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
    let mut tuples = Tuples::default();
    tuples.visit_file(&file);
    tuples.0.iter().map(|line| format!("{}:{line}", source.path)).collect()
}

#[test]
fn lines_are_short() {
    let read = written().iter().filter(|source| KINDS.contains(&source.kind()));
    let long: Vec<String> = read.flat_map(long_lines).collect();
    assert_none("lines of more than 120 characters", &long);
}

#[test]
fn doc_lines_say_what_a_thing_is() {
    let weak: Vec<String> = sources("rs").into_iter().flat_map(weak_doc_lines).collect();
    assert_none("doc lines that begin with `What` or `The same`", &weak);
}

#[test]
fn each_variable_has_a_line_of_its_own() {
    let tuples: Vec<String> = sources("rs").into_iter().flat_map(tuple_assignments).collect();
    assert_none("tuples that are taken apart where they are made", &tuples);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: String) -> Source {
        Source { path: path.to_owned(), text }
    }

    #[test]
    fn a_long_line_is_found_unless_it_cannot_be_broken() {
        let long = "word ".repeat(25);
        assert_eq!(long_lines(&source("a.rs", format!("fn\n{long}"))), ["a.rs:2: 125 characters"]);
        assert_eq!(long_lines(&source("a.md", long.clone())), ["a.md:1: 125 characters"]);
        assert_eq!(
            long_lines(&source("run", format!("#!/bin/sh\n{long}"))),
            ["run:2: 125 characters"]
        );
        let address = "x".repeat(120);
        let whole = format!("| {long} |\n- [text of the link]({address})\n<https://{address}>");
        assert_eq!(long_lines(&source("a.md", whole)), Vec::<String>::new());
        assert_eq!(long_lines(&source("a.rs", "é".repeat(120))), Vec::<String>::new());
    }

    #[test]
    fn a_doc_line_that_opens_weakly_is_found() {
        let weak = "//! The same of b.\n  /// What it is.\n/// What's up";
        assert_eq!(weak_doc_lines(&source("a.rs", weak.to_owned())).len(), 3);
        let fine = "/// Whatever follows.\n// What a comment says.\n/// The samest.\nlet x = \"/// What\";";
        assert_eq!(weak_doc_lines(&source("a.rs", fine.to_owned())), Vec::<String>::new());
    }

    #[test]
    fn a_tuple_taken_apart_where_it_is_made_is_found() {
        let text = "fn f() {\n let (a, b) = (1, 2);\n let (c, d): (u8, u8) = (\n 3, 4); }";
        assert_eq!(tuple_assignments(&source("a.rs", text.to_owned())), ["a.rs:2", "a.rs:3"]);
        let fine = "fn f() { let (a, b) = g(); let (Some(a), Some(b)) = (a, b) else { return }; let c = (1, 2); }";
        assert_eq!(tuple_assignments(&source("a.rs", fine.to_owned())), Vec::<String>::new());
    }
}
