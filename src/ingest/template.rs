//! Template tags in Markdown: shortcodes of Hugo (`{{< … >}}`, `{{% … %}}`), tags of Jinja and Liquid (`{% … %}`),
//! variables (`{{{ … }}}`), and marks for a table of contents. They are instructions to a program, not words.
//!
//! `{{ … }}` is kept: documentation is full of it, and people search for its content.

use std::borrow::Cow;

/// Start and end of tags; the first match counts.
const TAGS: [(&str, &str); 4] = [("{{{", "}}}"), ("{{<", ">}}"), ("{{%", "%}}"), ("{%", "%}")];
/// Longest tag, in bytes; anything longer is not a tag.
const TAG_BYTES_MAX: usize = 2_000;
/// Attributes of a tag whose values people read.
const VISIBLE_ATTRIBUTES: [&str; 9] =
    ["title", "alt", "caption", "label", "name", "text", "summary", "heading", "description"];

/// A tag at the start of `text`, as its content and the text after it.
fn tag(text: &str) -> Option<(&str, &str)> {
    let (open, close) = TAGS.iter().find(|(open, _)| text.starts_with(open))?;
    let inside = &text[open.len()..text.floor_char_boundary(TAG_BYTES_MAX)];
    let end = inside.find(close)?;
    Some((&inside[..end], &text[open.len() + end + close.len()..]))
}

/// Whether a line consists of tags without readable text.
pub(super) fn is_markup(line: &str) -> bool {
    let mut rest = line.trim();
    if matches!(rest, "[TOC]" | "[toc]" | "[[_TOC_]]" | "{:toc}") || (rest.starts_with("{:") && rest.ends_with('}')) {
        return true;
    }
    if !rest.starts_with("{{") && !rest.starts_with("{%") {
        return false;
    }
    while let Some((inside, after)) = tag(rest) {
        if visible_values(inside).next().is_some() {
            return false;
        }
        rest = after.trim_start();
    }
    rest.is_empty()
}

/// `text` without tags, except for their visible values. Code, between fences or backticks, is unchanged. O(n).
pub(super) fn without_tags(text: &str) -> Cow<'_, str> {
    if memchr::memmem::find(text.as_bytes(), b"{{").is_none() && memchr::memmem::find(text.as_bytes(), b"{%").is_none()
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut fence, mut line_start, mut in_code) = (text, None, true, false);
    while !rest.is_empty() {
        if line_start {
            in_code = false;
            let line = rest.split('\n').next().unwrap_or_default();
            if super::markdown::is_in_fence(line.trim(), &mut fence) || fence.is_some() {
                let length = (line.len() + 1).min(rest.len());
                out.push_str(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
        }
        let length = match rest.find(['{', '`', '\n']) {
            Some(at) => at,
            None => rest.len(),
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
        line_start = rest.starts_with('\n');
        if rest.starts_with('{')
            && !in_code
            && let Some((inside, after)) = tag(rest)
        {
            for words in visible_values(inside) {
                out.push_str(words);
                out.push(' ');
            }
            rest = after;
        } else if let Some(character) = rest.chars().next() {
            in_code ^= character == '`';
            out.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    Cow::Owned(out)
}

/// The visible values of a tag: `title="…"`.
fn visible_values(inside: &str) -> impl Iterator<Item = &str> {
    let mut parts = inside.split('"');
    std::iter::from_fn(move || {
        loop {
            let (before, value) = (parts.next()?, parts.next()?);
            let name = before.trim_end().strip_suffix('=').map(str::trim_end);
            let name = name.map(|name| name.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or(name));
            if name.is_some_and(|name| VISIBLE_ATTRIBUTES.contains(&name)) && !value.trim().is_empty() {
                return Some(value);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_and_what_they_show_stays() {
        for (text, words) in [
            ("version {{{ extra.version }}}+1 of it", "version +1 of it"),
            ("{% include a.md %}\nwords", "\nwords"),
            ("{{< figure src=\"a.png\" title=\"Wiring of it\" >}} below", "Wiring of it  below"),
            ("{{% alert title = \"Mind\" color=\"red\" %}}\nwords\n{{% /alert %}}", "Mind \nwords\n"),
            ("`{% raw %}` and {% raw %}", "`{% raw %}` and "),
            ("```yaml\na: {{{ b }}}\n```\n{{{ c }}}", "```yaml\na: {{{ b }}}\n```\n"),
            ("use {{ inventory_hostname }} here", "use {{ inventory_hostname }} here"),
            ("{% never ends", "{% never ends"),
            ("{{< é", "{{< é"),
        ] {
            assert_eq!(without_tags(text), words, "{text}");
        }
    }

    #[test]
    fn lines_of_tags_are_markup() {
        for line in ["{% include a %}", "{{< tabs >}} {{< tab name=\"\" >}}", "{{{ a }}}", "[[_TOC_]]", "{: .note }"] {
            assert!(is_markup(line), "{line}");
        }
        for line in ["{{ title }}", "{{< tab name=\"Linux\" >}}", "{% a %} words", "{% a", "{", "words"] {
            assert!(!is_markup(line), "{line}");
        }
    }
}
