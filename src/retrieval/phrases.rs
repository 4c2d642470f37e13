//! Quoted phrases: what a passage has to have, word by word.
//!
//! Invariant: where a passage has the phrases of a query, only passages that have them are found, by whichever half.

use std::sync::Arc;

use crate::collection::Searcher;
use crate::embed::Embedder;
use crate::index::analysis::has_words;
use crate::index::lexical::{LexicalError, Passages};

/// Quotation marks that open, with those that close.
const MARKS: [(char, &[char]); 4] = [('"', &['"']), ('“', &['”', '“']), ('„', &['“', '”']), ('«', &['»'])];
/// Phrases of a query that count.
const PHRASES_MAX: usize = 8;

/// The phrases of a query: text between quotation marks that contains a word, each once; and how many more there are
/// than are used. An unclosed mark is ignored.
pub(super) fn of(query: &str) -> (Vec<&str>, usize) {
    let (mut phrases, mut left_out) = (Vec::new(), 0);
    let mut rest = query;
    let opens = |(at, character): (usize, char)| {
        let (open, closing) = MARKS.iter().find(|(open, _)| *open == character)?;
        Some((at + open.len_utf8(), *closing))
    };
    while let Some((start, closing)) = rest.char_indices().find_map(opens) {
        let after = &rest[start..];
        let Some(end) = after.find(closing) else {
            rest = after;
            continue;
        };
        let phrase = after[..end].trim();
        if has_words(phrase) && !phrases.contains(&phrase) {
            match phrases.len() < PHRASES_MAX {
                true => phrases.push(phrase),
                false => left_out += 1,
            }
        }
        rest = &after[end..];
        rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
    }
    (phrases, left_out)
}

/// The passages that have every phrase.
///
/// * `among`: those that may be found.
pub(super) fn passages(
    phrases: &[&str],
    searcher: &Searcher,
    model: Option<&dyn Embedder>,
    mut among: Option<Arc<Passages>>,
) -> Result<Option<Arc<Passages>>, LexicalError> {
    for text in phrases {
        let phrase = model.and_then(|model| model.phrase(text));
        among = Some(Arc::new(searcher.having(text, phrase.as_deref(), among.as_deref())?));
    }
    Ok(among)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_stands_between_marks_is_a_phrase() {
        let of = |query| super::of(query).0;
        assert_eq!(of("where is the \"red valve\"?"), ["red valve"]);
        assert_eq!(of("“red valve” and „blaue Lampe“ «la vanne»"), ["red valve", "blaue Lampe", "la vanne"]);
        assert_eq!(of("a 5\" pipe"), [""; 0]);
        assert_eq!(of("\"\" \" \" \"?\""), [""; 0]);
        assert_eq!(of("\"a\"\"b\"\"a\""), ["a", "b"]);
        assert_eq!(super::of("\"a\" \"b\" \"c\" \"d\" \"e\" \"f\" \"g\" \"h\" \"i\" \"?\" \"a\"").1, 1);
    }
}
