//! From ranked keys to an answer: texts read, copies folded together, the budget kept.

use std::collections::HashMap;

use super::snippet::Snippets;
use super::{Candidate, Detail, Ranked};
use crate::base::{Lsn, with_causes};
use crate::collection::{DocumentRecord, Library, Passage, ReadError, Searcher};

pub use crate::collection::{estimate_tokens, prefix_within};

/// What surrounds each text in an answer (ids, title, citation), in tokens; measured on answers of the manual.
const TOKENS_PER_HIT: usize = 90;

/// A passage in an answer.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The passage with its document.
    pub passage: Passage,
    /// Name of its collection.
    pub collection: String,
    /// Its scores.
    pub scores: Candidate,
    /// The part of its text that was asked for, where that is not all of it.
    excerpt: Option<String>,
    /// Ids of other documents in which the same passage stands.
    pub also_in: Vec<String>,
}

impl Hit {
    /// As much of the passage's text as was asked for.
    #[must_use]
    pub fn text(&self) -> &str {
        self.excerpt.as_deref().unwrap_or(&self.passage.body.text)
    }
}

/// What an answer is to hold.
pub(super) struct Wanted<'a> {
    pub(super) limit: usize,
    pub(super) offset: usize,
    pub(super) tokens_max: usize,
    pub(super) min_score: Option<f32>,
    pub(super) detail: Detail,
    /// A document that is not to appear, in whichever version.
    pub(super) without: Option<&'a DocumentRecord>,
}

/// What fits.
pub(super) struct Assembled {
    pub(super) hits: Vec<Hit>,
    pub(super) truncated: bool,
    pub(super) next_offset: Option<usize>,
    /// What could not be read and is left out, in words.
    pub(super) unreadable: Option<String>,
}

/// Reads texts in the order of the ranking until the limit or the budget is reached.
///
/// The first hit is always given, cut to the budget when it must be. The same passage in several documents is one hit that names
/// the others. A passage that cannot be read is left out and counted.
///
/// # Errors
/// When nothing of what was found can be read.
pub(super) fn assemble(
    ranked: &[Ranked],
    wanted: &Wanted<'_>,
    query: &str,
    searchers: &[Searcher],
    library: &Library,
) -> Result<Assembled, ReadError> {
    let mut assembled =
        Assembled { hits: Vec::with_capacity(wanted.limit), truncated: false, next_offset: None, unreadable: None };
    let mut unreadable: Option<(usize, ReadError)> = None;
    // Copies of one passage share its record in the log.
    let mut seen: HashMap<Lsn, Option<usize>> = HashMap::new();
    // Of a document that was found in two versions the better one is shown, as if the other had not been found.
    let mut versions: Option<HashMap<(usize, String), Lsn>> =
        searchers.iter().any(Searcher::is_torn).then(HashMap::new);
    let mut tokens = 0;
    let mut distinct = 0;
    let mut snippets = Snippets::new(query);
    for ranked in ranked {
        if wanted.min_score.is_some_and(|least| ranked.scores.score < least) {
            break;
        }
        let passage = match library.passages().passage(ranked.key) {
            Ok(passage) => passage,
            // It was replaced or deleted after it was found.
            Err(ReadError::Gone { .. }) => continue,
            Err(error) => {
                tracing::error!(
                    error = %with_causes(&error), key = %ranked.key,
                    "a passage cannot be read and is left out of an answer"
                );
                unreadable.get_or_insert((0, error)).0 += 1;
                continue;
            }
        };
        let document = &passage.document;
        let is_unwanted = |own: &DocumentRecord| own.id == document.id && own.collection == document.collection;
        if !library.is_current(document) || wanted.without.is_some_and(is_unwanted) {
            continue;
        }
        if let Some(versions) = &mut versions
            && *versions.entry((ranked.collection, document.id.clone())).or_insert(document.lsn) != document.lsn
        {
            continue;
        }
        let record = passage.document.chunks[passage.ordinal].lsn;
        if let Some(place) = seen.get(&record) {
            if let Some(hit) = place.and_then(|place| assembled.hits.get_mut(place))
                && hit.passage.document.id != passage.document.id
                && !hit.also_in.contains(&passage.document.id)
            {
                hit.also_in.push(passage.document.id.clone());
            }
            continue;
        }
        distinct += 1;
        if distinct <= wanted.offset {
            seen.insert(record, None);
            continue;
        }
        if assembled.hits.len() == wanted.limit {
            assembled.next_offset = Some(wanted.offset + wanted.limit);
            break;
        }
        let (mut excerpt, tokens_of_text) = match wanted.detail {
            Detail::Ids => (Some(String::new()), 0),
            Detail::Snippet => {
                let text = snippets.snippet(&passage.body.text, &passage.body.language);
                let tokens = estimate_tokens(&text);
                (Some(text), tokens)
            }
            Detail::Full => (None, passage.tokens),
        };
        let cost = tokens_of_text + TOKENS_PER_HIT;
        if tokens + cost > wanted.tokens_max {
            assembled.truncated = true;
            if !assembled.hits.is_empty() {
                assembled.next_offset = Some(wanted.offset + assembled.hits.len());
                break;
            }
            let text = excerpt.get_or_insert_with(|| passage.body.text.clone());
            cut(text, wanted.tokens_max.saturating_sub(TOKENS_PER_HIT));
        }
        tokens += cost;
        seen.insert(record, Some(assembled.hits.len()));
        let collection = searchers.get(ranked.collection).map(|searcher| searcher.collection().name.clone());
        assembled.hits.push(Hit {
            passage,
            collection: collection.unwrap_or_default(),
            scores: ranked.scores,
            excerpt,
            also_in: Vec::new(),
        });
    }
    match unreadable {
        Some((_, error)) if distinct == 0 => return Err(error),
        Some((count, error)) => {
            let passages = if count == 1 { "1 passage".to_owned() } else { format!("{count} passages") };
            let cause = with_causes(&error);
            assembled.unreadable = Some(format!("{passages} left out of the answer: {cause}"));
        }
        None => {}
    }
    Ok(assembled)
}

/// Shortens a text to at most `tokens`, at a white space where there is one.
fn cut(text: &mut String, tokens: usize) {
    let end = if tokens == 0 { 0 } else { prefix_within(text, tokens) };
    if end < text.len() {
        text.truncate(text[..end].rfind(char::is_whitespace).unwrap_or(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_keeps_whole_words_within_the_budget() {
        let mut text = "one two three four five six seven eight nine ten".to_owned();
        cut(&mut text, 5);
        assert!(estimate_tokens(&text) <= 5, "{text}");
        assert!("one two three four five".starts_with(&text), "{text}");
        let mut solid = "x".repeat(1_000);
        cut(&mut solid, 5);
        assert_eq!(solid, "x".repeat(30));
        let mut short = "one two".to_owned();
        cut(&mut short, 2);
        assert_eq!(short, "one two");
    }
}
