//! The tag `{% generation %}` of transformers, by which a template marks the assistant's text for training. A prompt is
//! the same without it.

/// The template with each such tag replaced by `{% with %}`, which has a scope of its own too and changes nothing else.
pub(super) fn without_tags(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        output.push_str(before);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => end_of(tag, "}}"),
            Some(b'%') => end_of(tag, "%}"),
            _ => 1,
        };
        let (tag, after) = tag.split_at(length);
        rest = after;
        match name_of(tag) {
            Some("generation") => output.push_str(&tag.replacen("generation", "with", 1)),
            Some("endgeneration") => output.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            Some("raw") => {
                // Up to the next tag that ends it, nothing is a tag.
                output.push_str(tag);
                let mut at = 0;
                while let Some(next) = rest[at..].find("{%") {
                    at += next;
                    if name_of(&rest[at..]) == Some("endraw") {
                        break;
                    }
                    at += 2;
                }
                output.push_str(&rest[..at]);
                rest = &rest[at..];
            }
            _ => output.push_str(tag),
        }
    }
    output.push_str(rest);
    output
}

/// Where a tag that begins here ends. Its end within a string doesn't count.
fn end_of(tag: &str, end: &str) -> usize {
    let mut quote = None;
    let mut at = 2;
    let bytes = tag.as_bytes();
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(end.as_bytes()) => return at + 2,
            _ => {}
        }
        at += 1;
    }
    tag.len()
}

/// The first word of a statement.
fn name_of(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
    let end = inner.find(|character: char| !character.is_alphanumeric() && character != '_');
    Some(&inner[..end.unwrap_or(inner.len())])
}

#[cfg(test)]
mod tests {
    use super::without_tags;

    #[test]
    fn tags_are_replaced_and_nothing_else() {
        assert_eq!(
            without_tags("a {%- generation %}{{ x }}{% endgeneration -%} b"),
            "a {%- with %}{{ x }}{% endwith -%} b"
        );
        for same in [
            "",
            "{",
            "{%",
            "{{",
            "{# {% generation %} #}x",
            "{{ '{% generation %}' }}",
            "{{ \"\\\"{% generation %}\" }}",
            "{% raw %}{% generation %}{% endraw %}",
            "{% if generation %}{% set generation = 1 %}{% endif %}",
            "{% generations %}",
            "{é% generation %}",
        ] {
            assert_eq!(without_tags(same), same);
        }
    }
}
