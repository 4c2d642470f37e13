//! From ordered results to an answer: texts cut to the requested detail, within the budget.
//!
//! Invariant: the cost of an answer to its reader, in tokens as `budget` counts them, is within the budget: its texts
//! and the JSON around each. The only exception is a first result whose id and title alone exceed it.

use std::ops::Range;

use super::budget::price;
use super::order::{Order, Placed};
use super::snippet::{SNIPPET_CHARS, Snippets};
use super::{Candidate, Detail};
use crate::collection::{Access, Passage, ReadError, Searcher};

/// Tokens of text below which a result says too little to be worth its id and title: rather fewer results.
const TEXT_MIN: usize = 60;
/// Shares of the budget: of each of the first results, how many there are of them, and of each other one.
const SHARE_FIRST: usize = 3;
const FIRST: usize = 2;
const SHARE: usize = 2;

/// A result of a search.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The passage that was found, with its document.
    pub passage: Passage,
    /// The passages in the result, by their positions in the document: neighbours that were found too are part of it.
    pub run: Range<usize>,
    /// Name of its collection.
    pub collection: String,
    /// Its scores.
    pub scores: Candidate,
    /// Its text, where that is not the passage's own.
    text: Option<String>,
    /// Ids within the node of passages of other documents that say the same, at most three.
    pub also_in: Vec<String>,
    /// How many more passages were found that say the same.
    pub more_copies: usize,
    /// Passages of the same document that were found near the top and are not among the results so far. Said with the
    /// document's first result.
    pub more_in_document: usize,
}

impl Hit {
    /// As much of the text as was asked for.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or(&self.passage.body.text)
    }

    /// The titles above the passage, outermost first: the document's, then the headings; each once.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        path(&self.passage)
    }
}

/// Title and headings of a passage, outermost first, each once.
pub fn path(passage: &Passage) -> impl Iterator<Item = &str> {
    let headings = &passage.body.headings;
    let title = passage.document.title.as_str();
    let rest = if headings.first().is_some_and(|first| first == title) { &headings[1..] } else { &headings[..] };
    std::iter::once(title).chain(rest.iter().map(String::as_str))
}

/// The cost of an answer besides its texts.
pub struct Surroundings<'a> {
    /// Tokens of the JSON around all results, given the names of what was searched and why the answer is incomplete.
    pub envelope: &'a dyn Fn(&[String], Option<&str>) -> usize,
    /// Tokens of the JSON around a result's text.
    pub hit: &'a dyn Fn(&Hit) -> usize,
    /// How often all of it is in the answer.
    pub copies: usize,
}

impl Surroundings<'_> {
    /// For callers who count the texts alone.
    #[must_use]
    pub fn none() -> Self {
        Self { envelope: &|_, _| 0, hit: &|_| 0, copies: 1 }
    }
}

/// The limits of a page.
pub(super) struct PageLimits<'a> {
    pub(super) limit: usize,
    pub(super) offset: usize,
    /// Tokens of all hits.
    pub(super) tokens_max: usize,
    pub(super) detail: Detail,
    /// See [`Surroundings::hit`].
    pub(super) around: &'a dyn Fn(&Hit) -> usize,
}

/// What fits.
pub(super) struct Assembled {
    pub(super) hits: Vec<Hit>,
    pub(super) truncated: bool,
    /// How many results are before the next page; `None` where there is none.
    pub(super) next_offset: Option<usize>,
}

/// Fits a page of an order into the budget. The first result is always included.
///
/// # Errors
/// When a passage that was just read cannot be read again.
pub(super) fn assemble(
    order: &Order<'_>,
    wanted: &PageLimits<'_>,
    query: &str,
    searchers: &[Searcher],
    access: Access<'_>,
) -> Result<Assembled, ReadError> {
    let total = order.placed.len();
    let page = wanted.offset.min(total)..(wanted.offset + wanted.limit).min(total);
    let mut hits = Vec::with_capacity(page.len());
    for place in page {
        let document = order.placed[place].passage.document.lsn;
        let is_first = order.placed[..place].iter().all(|placed| placed.passage.document.lsn != document);
        let more = if is_first { order.more_of(document) } else { 0 };
        hits.push(hit(&order.placed[place], more, searchers, access)?);
    }
    let mut fitting = Fitting {
        around: hits.iter().map(|hit| (wanted.around)(hit)).collect(),
        left: wanted.tokens_max,
        snippets: Snippets::new(query),
        is_cut: false,
    };
    match wanted.detail {
        Detail::Fitted => fitting.share(&mut hits),
        detail => fitting.fit_texts(&mut hits, detail),
    }
    let end = wanted.offset + hits.len();
    Ok(Assembled { truncated: fitting.is_cut, next_offset: (end < total).then_some(end), hits })
}

fn hit(placed: &Placed, more: usize, searchers: &[Searcher], access: Access<'_>) -> Result<Hit, ReadError> {
    let collection = searchers.get(placed.ranked.collection).map(|searcher| searcher.collection().name.clone());
    let text = if placed.run.len() > 1 {
        Some(access.passages().passages(&placed.passage.document, placed.run.clone())?)
    } else {
        None
    };
    Ok(Hit {
        passage: placed.passage.clone(),
        run: placed.run.clone(),
        collection: collection.unwrap_or_default(),
        scores: placed.ranked.scores,
        text,
        also_in: placed.also_in.clone(),
        more_copies: placed.more_copies,
        more_in_document: more,
    })
}

/// Texts on their way into a budget.
struct Fitting<'a> {
    /// The JSON around each text, in tokens.
    around: Vec<usize>,
    /// Tokens that are left.
    left: usize,
    snippets: Snippets<'a>,
    is_cut: bool,
}

impl Fitting<'_> {
    /// Gives each text what it needs, and where that is too much, its share, of which the first have a larger one; what one
    /// does not need is for the others.
    fn share(&mut self, hits: &mut Vec<Hit>) {
        for hit in hits.iter_mut() {
            let text = below_own_headings(hit);
            if text.len() < hit.text().len() {
                hit.text = Some(text.to_owned());
            }
        }
        let prices: Vec<usize> = hits.iter().map(|hit| price(hit.text())).collect();
        let (mut kept, mut spent, mut room) = (0, 0, self.left);
        for (around, price) in self.around.iter().zip(&prices) {
            let least = around + TEXT_MIN.min(*price);
            if spent + least > self.left && kept > 0 {
                break;
            }
            spent += least;
            // The remainder above the minimum is distributed below.
            room = room.saturating_sub(*around);
            kept += 1;
        }
        self.is_cut = kept < hits.len();
        hits.truncate(kept);
        let prices = &prices[..kept];
        let unit = unit(prices, room);
        for (place, (hit, price)) in hits.iter_mut().zip(prices).enumerate() {
            let most = unit * share_of(place);
            if *price > most {
                let text = self.excerpt(hit, *price, most.min(room));
                self.is_cut = true;
                hit.text = Some(text);
            }
        }
    }

    /// Gives texts in their order until the budget is spent.
    fn fit_texts(&mut self, hits: &mut Vec<Hit>, detail: Detail) {
        let mut kept = 0;
        for (place, hit) in hits.iter_mut().enumerate() {
            let around = self.around[place];
            match detail {
                Detail::Ids => hit.text = Some(String::new()),
                Detail::Snippet => {
                    hit.text =
                        Some(self.snippets.snippet(below_own_headings(hit), &hit.passage.body.language, SNIPPET_CHARS));
                }
                Detail::Full | Detail::Fitted => {}
            }
            let price = price(hit.text());
            let cost = around + price;
            if cost > self.left {
                self.is_cut = true;
                if kept > 0 {
                    break;
                }
                let left = self.left.saturating_sub(around);
                let text = self.excerpt(hit, price, left);
                hit.text = Some(text);
            }
            self.left = self.left.saturating_sub(cost);
            kept += 1;
        }
        hits.truncate(kept);
    }

    /// The part of a text that fits the query best, at most `tokens`; all of it where that costs no more.
    fn excerpt(&mut self, hit: &Hit, price: usize, tokens: usize) -> String {
        match price <= tokens {
            true => hit.text().to_owned(),
            false => self.snippets.excerpt(hit.text(), &hit.passage.body.language, (price, tokens)),
        }
    }
}

fn share_of(place: usize) -> usize {
    if place < FIRST { SHARE_FIRST } else { SHARE }
}

/// The largest unit of which every text can have its shares, as far as it needs them, within `room`.
fn unit(prices: &[usize], room: usize) -> usize {
    let spent = |unit: usize| -> usize {
        prices.iter().enumerate().map(|(place, price)| (*price).min(unit * share_of(place))).sum()
    };
    let (mut fits, mut over) = (0, room + 1);
    while over - fits > 1 {
        let middle = fits.midpoint(over);
        if spent(middle) <= room { fits = middle } else { over = middle }
    }
    fits
}

/// Whether two headings are one, with and without its markup.
fn is_same(one: &str, other: &str) -> bool {
    let said = |heading: &str| heading.chars().filter(|character| character.is_alphanumeric()).collect::<String>();
    one == other || (one.contains(char::is_alphanumeric) && said(one) == said(other))
}

/// A text without the headings that it begins with, where they are the last ones of its path: the title of the result says
/// them. What would be left of nothing but headings stays.
fn below_own_headings(hit: &Hit) -> &str {
    let mut text = hit.text();
    loop {
        let trimmed = text.trim_start();
        let Some((line, rest)) = trimmed.split_once('\n') else { return text };
        let heading = line.trim_start_matches('#');
        let level = line.len() - heading.len();
        let heading = heading.trim();
        if !(1..=6).contains(&level) || rest.trim().is_empty() || !hit.path().any(|known| is_same(known, heading)) {
            return text;
        }
        text = rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heading_is_known_with_its_markup() {
        assert!(is_same("/hub/login", "`/hub/login`"));
        assert!(is_same("Restore from backup", "**Restore** from _backup_"));
        assert!(!is_same("Pump 1", "Pump 2"));
        assert!(!is_same("…", "---"));
    }

    #[test]
    fn a_unit_is_the_largest_that_fits() {
        for (prices, room) in
            [(vec![10, 20, 30], 1_000), (vec![500, 500, 500], 70), (vec![5, 400, 5, 400], 200), (vec![], 9)]
        {
            let unit = unit(&prices, room);
            let spent = |unit: usize| -> usize {
                prices
                    .iter()
                    .enumerate()
                    .map(|(place, price): (usize, &usize)| (*price).min(unit * share_of(place)))
                    .sum()
            };
            assert!(spent(unit) <= room, "{prices:?} {room}: {unit}");
            assert!(
                spent(unit + 1) > room || spent(unit + 1) == prices.iter().sum::<usize>(),
                "{prices:?} {room}: {unit}"
            );
        }
    }
}
