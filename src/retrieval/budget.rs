//! What a text costs the model that reads it.
//!
//! Budgets are in tokens of o200k, of which the vocabularies of other models are near. The count is an estimate that needs no
//! vocabulary: it goes over the characters once, and every run of letters, digits or marks has a price.
//!
//! Invariants: the estimate of the text of an answer is not below the count by o200k (measured on whole answers, see
//! `docs/searching.md`; a single strange word may cost more than its price); it grows with the text, and never counts less than a
//! token for four characters, so that a budget of tokens is one of characters too.

/// Prices are in hundredths of a token.
const TOKEN: usize = 100;
/// What is put on top, in hundredths, so that an answer seldom costs more than its estimate.
const MARGIN: usize = 104;
/// Most characters that a token stands for.
pub const TOKEN_CHARS_MAX: usize = 4;

/// What stood before a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The beginning, or white space.
    Space,
    /// A run of small letters, or of one capital and small ones behind it.
    Lower,
    /// A run of capitals.
    Upper,
    Digit,
    /// Punctuation, which a word behind it is often one token with.
    Mark(char),
    /// A letter or ideograph of another script, or a symbol.
    Other,
}

/// Counts the price of a text character by character.
#[derive(Debug, Clone)]
struct Price {
    /// Whether it is JSON itself; else it is to stand within a JSON string, which escapes quotes and line breaks.
    is_json: bool,
    before: Before,
    /// Characters of the run that is going on.
    run: usize,
    /// Whether the run of letters began behind white space.
    at_space: bool,
    /// Spaces before this character.
    spaces: usize,
    hundredths: usize,
    chars: usize,
}

impl Price {
    fn new(is_json: bool) -> Self {
        Self { is_json, before: Before::Space, run: 0, at_space: true, spaces: 0, hundredths: 0, chars: 0 }
    }

    /// Tokens so far.
    fn tokens(&self) -> usize {
        (self.hundredths * MARGIN).div_ceil(TOKEN * 100).max(self.chars.div_ceil(TOKEN_CHARS_MAX))
    }

    /// Takes one more character of the text, which JSON may write as two or more.
    fn push(&mut self, character: char) {
        self.chars += 1;
        match character {
            ' ' | '\u{a0}' => {
                self.spaces += 1;
                // One belongs to the word behind it; a run is a token of its own.
                if self.spaces == 2 {
                    self.hundredths += 90;
                } else if self.spaces > 2 {
                    self.hundredths += 2;
                }
                self.before = Before::Space;
                return;
            }
            '\n' | '\r' | '\t' => {
                self.chars += 1;
                self.hundredths += if self.before == Before::Mark('\n') { 95 } else { 145 };
                self.before = Before::Mark('\n');
                self.spaces = 0;
                return;
            }
            '"' | '\\' if !self.is_json => {
                self.chars += 1;
                self.hundredths += 120;
                self.before = Before::Mark(character);
            }
            '\0'..='\u{1f}' => {
                self.chars += 5;
                self.hundredths += 4 * TOKEN;
                self.before = Before::Mark(character);
            }
            'a'..='z' | 'A'..='Z' | '\u{aa}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' if character.is_alphabetic() => {
                self.letter(character);
            }
            _ if character.is_ascii_digit() => {
                if self.before != Before::Digit {
                    self.run = 0;
                }
                if self.run.is_multiple_of(3) {
                    // A space before a number is a token of its own.
                    self.hundredths += if self.before == Before::Space && self.spaces == 1 { 190 } else { 122 };
                }
                self.run += 1;
                self.before = Before::Digit;
            }
            _ if character.is_ascii() => {
                self.hundredths += match self.before {
                    Before::Mark(same) if same == character => 12,
                    // `":"`, `"},{"` and the like are one token each.
                    Before::Mark(_) if self.is_json => 30,
                    Before::Mark(_) => 62,
                    _ => 96,
                };
                self.before = Before::Mark(character);
            }
            _ => {
                self.hundredths += match character {
                    // Cyrillic.
                    '\u{400}'..='\u{52f}' => 34,
                    // Greek, Armenian, Hebrew, Arabic.
                    '\u{370}'..='\u{6ff}' => 50,
                    // Scripts of India and South-East Asia.
                    '\u{900}'..='\u{109f}' => 75,
                    '\u{2000}'..='\u{2bff}' => 125,
                    // Kana, ideographs, Hangul.
                    '\u{3000}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{ff00}'..='\u{ffef}' => 93,
                    '\u{80}'..='\u{36f}' => 110,
                    _ => 300,
                };
                self.before = Before::Other;
            }
        }
        self.spaces = 0;
    }

    fn letter(&mut self, character: char) {
        let is_upper = character.is_uppercase();
        let begins = match self.before {
            Before::Lower => is_upper,
            Before::Upper => !is_upper && self.run > 1,
            _ => true,
        };
        if begins {
            self.at_space = self.before == Before::Space;
            self.run = 0;
            self.hundredths += match self.before {
                Before::Space => 98,
                // A mark and the word behind it are one token as often as not.
                Before::Mark(mark) if mark != '\n' => 42,
                Before::Mark(_) => 75,
                _ => 100,
            };
        }
        self.run += 1;
        if !character.is_ascii() {
            self.hundredths += 150;
        }
        self.hundredths += match (is_upper && self.run > 1, self.at_space, self.run) {
            (true, ..) => 32,
            (_, _, 1..=2) => 0,
            (_, true, 3..=4) => 2,
            (_, true, 5..=13) => 9,
            (_, false, 3..=6) => 9,
            (_, false, 7..=13) => 16,
            _ => 20,
        };
        self.before = if is_upper { Before::Upper } else { Before::Lower };
    }
}

/// About how many tokens of o200k a text has where it stands in a JSON string, rather too many than too few.
///
/// Cost: some nanoseconds a character, no allocation.
#[must_use]
pub fn price(text: &str) -> usize {
    whole(Price::new(false), text)
}

/// The same for JSON, which stands in an answer as it is.
#[must_use]
pub fn price_of_json(json: &str) -> usize {
    whole(Price::new(true), json)
}

fn whole(mut price: Price, text: &str) -> usize {
    text.chars().for_each(|character| price.push(character));
    price.tokens()
}

/// Length in bytes of the longest beginning of `text` whose [`price`] is at most `tokens`; 0 where not even a character fits.
#[must_use]
pub fn prefix_priced(text: &str, tokens: usize) -> usize {
    let mut price = Price::new(false);
    for (offset, character) in text.char_indices() {
        price.push(character);
        if price.tokens() > tokens {
            return offset;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_price_is_seldom_below_what_o200k_counts_and_never_far_above() {
        let recorded = include_str!("../../tests/data/tokens/o200k.jsonl").lines();
        let recorded: Vec<Value> = recorded.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(recorded.len() > 20);
        let (mut all, mut counted_all) = (0, 0);
        for text in &recorded {
            let counted = text["tokens"].as_u64().expect("a number") as usize;
            let priced = price(text["text"].as_str().expect("a text"));
            let kind = &text["kind"];
            assert!(priced * 100 >= counted * 97, "{kind}: {priced} for {counted}");
            assert!(priced * 100 <= counted * 140, "{kind}: {priced} for {counted}");
            all += priced;
            counted_all += counted;
        }
        assert!(all >= counted_all && all * 100 <= counted_all * 118, "{all} for {counted_all}");
    }

    #[test]
    fn json_is_priced_as_it_stands() {
        let json = r#"{"results":[{"id":"notes/a#0","title":"A","text":"alpha"}],"next_cursor":"6.6.9f3a2b1c"}"#;
        assert!(price_of_json(json) < price(json));
        // Counted by gpt-tokenizer.
        assert!((35..60).contains(&price_of_json(json)), "{}", price_of_json(json));
    }

    proptest! {
        #[test]
        fn a_budget_of_tokens_is_one_of_characters(text in "\\PC{0,400}") {
            let escaped = serde_json::to_string(&text).expect("a text");
            prop_assert!(escaped.chars().count() - 2 <= price(&text) * TOKEN_CHARS_MAX);
        }

        #[test]
        fn a_priced_prefix_fits_and_is_the_longest(text in "\\PC{0,300}", tokens in 0usize..40) {
            let end = prefix_priced(&text, tokens);
            prop_assert!(price(&text[..end]) <= tokens);
            if let Some(next) = text[end..].chars().next() {
                prop_assert!(price(&text[..end + next.len_utf8()]) > tokens);
            }
        }
    }
}
