//! The commands that the project's documents show, as a shell would read them.

/// A fenced block of commands in a Markdown document.
#[derive(Debug, Clone)]
pub struct Block {
    /// The document's path in the checkout.
    pub document: String,
    /// The line of its first command.
    pub line: usize,
    /// The block as written, without its fences and their indentation.
    pub text: String,
}

/// One command of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Variables that are set for it: `NAME=value` in front of the program.
    pub variables: Vec<String>,
    /// Program and arguments, without quotes, redirections and comments.
    pub words: Vec<String>,
}

/// How commands of an unlabelled block begin: without one of these it is a formula, a log or a picture.
const PROGRAMS: &[&str] = &["forebay", "make", "cargo", "python3", "docker", "kubectl", "FOREBAY_"];

/// The blocks labelled `sh`, and those without a label that begin with a program's name.
pub fn command_blocks(document: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(label) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
        let inside: Vec<&str> = inside.map(|line| line.get(indent..).unwrap_or_default()).collect();
        let begins = |name: &&str| inside.first().is_some_and(|line| line.starts_with(*name));
        if label == "sh" || (label.is_empty() && PROGRAMS.iter().any(begins)) {
            let text = inside.join("\n") + "\n";
            blocks.push(Block { document: document.to_owned(), line: at + 2, text });
        }
    }
    blocks
}

impl Block {
    /// Its commands in order, those of a pipeline apart.
    pub fn commands(&self) -> Vec<Command> {
        self.text.replace("\\\n", " ").lines().flat_map(commands_of).collect()
    }
}

/// The commands of one line of a shell.
pub fn commands_of(line: &str) -> Vec<Command> {
    let mut commands = vec![Command::default()];
    let mut is_redirection = false;
    for word in words(line) {
        let command = commands.last_mut().expect("there is always one");
        match word.as_str() {
            "|" | "&&" | "||" | ";" => commands.push(Command::default()),
            _ if std::mem::take(&mut is_redirection) => {}
            ">" | ">>" | "<" | "2>" => is_redirection = true,
            _ if command.words.is_empty() && is_assignment(&word) => command.variables.push(word),
            _ => command.words.push(word),
        }
    }
    commands.retain(|command| !command.words.is_empty());
    commands
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// Splits at blanks outside quotes, up to a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(variables: &[&str], words: &[&str]) -> Command {
        let owned = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        Command { variables: owned(variables), words: owned(words) }
    }

    #[test]
    fn blocks_of_commands_are_distinguished_from_others() {
        let text = "```sh\na\n```\n```\nx = 1\n```\n1. b\n   ```sh\n   make up\n   ```\n```\nmake down\n```\n";
        let blocks = command_blocks("a.md", text);
        let found: Vec<(usize, &str)> =
            blocks.iter().map(|block| (block.line, block.text.as_str())).collect();
        assert_eq!(found, [(2, "a\n"), (9, "make up\n"), (12, "make down\n")]);
    }

    #[test]
    fn a_line_is_split_as_a_shell_does_it() {
        let line = "FOREBAY_A=1 B=2 forebay submit \"water in\" --a='b c' >> ids.txt | forebay wait < x # why";
        let submit =
            command(&["FOREBAY_A=1", "B=2"], &["forebay", "submit", "water in", "--a=b c"]);
        assert_eq!(commands_of(line), [submit, command(&[], &["forebay", "wait"])]);
        assert_eq!(commands_of("# a comment alone"), []);
    }

    #[test]
    fn a_command_may_go_over_lines() {
        let block =
            Block { document: String::new(), line: 1, text: "make a \\\n  b\nmake c\n".into() };
        assert_eq!(
            block.commands(),
            [command(&[], &["make", "a", "b"]), command(&[], &["make", "c"])]
        );
    }
}
