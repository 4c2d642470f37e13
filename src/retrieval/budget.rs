//! The cost of a text for the model that reads it.
//!
//! Budgets are in tokens of o200k; other models' vocabularies are similar. The count is an estimate that needs no
//! vocabulary: it reads the characters once, and every run of letters, digits or marks has a price.
//!
//! Invariants: the estimate of the text of an answer is not below the count by o200k (measured on whole answers, see
//! `docs/searching.md`; a single unusual word may cost more than its price); it grows with the text, and is never less
//! than a token for four characters, so that a budget of tokens also bounds characters.

/// Prices are in hundredths of a token.
const TOKEN: usize = 100;
/// A surcharge in hundredths, so that an answer rarely costs more than its estimate.
const MARGIN: usize = 104;
/// Maximum characters that a token represents.
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
    /// Whether it is JSON itself; otherwise it will be in a JSON string, which escapes quotes and line breaks.
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

    /// Whether the text so far exceeds this many tokens.
    fn is_over(&self, tokens: usize) -> bool {
        self.hundredths * MARGIN > tokens.saturating_mul(TOKEN * 100)
            || self.chars > tokens.saturating_mul(TOKEN_CHARS_MAX)
    }

    /// Consumes the beginning of `text`: a character, or all lower-case letters that continue a word. Returns the
    /// number of bytes.
    #[inline]
    fn push_next(&mut self, text: &str) -> usize {
        if self.before == Before::Lower {
            let letters = text.bytes().take_while(u8::is_ascii_lowercase).count();
            if letters > 0 {
                self.hundredths += word(self.at_space, self.run + letters) - word(self.at_space, self.run);
                self.run += letters;
                self.chars += letters;
                self.spaces = 0;
                return letters;
            }
        }
        let Some(character) = text.chars().next() else { return 0 };
        self.push(character);
        character.len_utf8()
    }

    /// Takes one more character of the text, which JSON may write as two or more.
    fn push(&mut self, character: char) {
        self.chars += 1;
        match character {
            ' ' | '\u{a0}' => {
                self.spaces += 1;
                // A single one belongs to the word after it; a run is a separate token.
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
        self.hundredths += match is_upper && self.run > 1 {
            true => 32,
            false => word(self.at_space, self.run) - word(self.at_space, self.run - 1),
        };
        self.before = if is_upper { Before::Upper } else { Before::Lower };
    }
}

/// The price that the letters of a word add to that of its beginning: the longer it is, the more tokens.
#[inline]
fn word(at_space: bool, letters: usize) -> usize {
    /// From this many letters on each costs the same.
    const LONG: usize = 13;
    const BEHIND_SPACE: [usize; LONG + 1] = [0, 0, 0, 2, 4, 13, 22, 31, 40, 49, 58, 67, 76, 85];
    const BEHIND_OTHERS: [usize; LONG + 1] = [0, 0, 0, 9, 18, 27, 36, 52, 68, 84, 100, 116, 132, 148];
    let prices = if at_space { &BEHIND_SPACE } else { &BEHIND_OTHERS };
    prices[letters.min(LONG)] + letters.saturating_sub(LONG) * 20
}

/// The approximate number of o200k tokens of a text in a JSON string, rather too many than too few.
///
/// Cost: some nanoseconds for each character, no allocation.
#[must_use]
pub fn price(text: &str) -> usize {
    whole(Price::new(false), text)
}

/// The same for JSON, which an answer contains unchanged.
#[must_use]
pub fn price_of_json(json: &str) -> usize {
    whole(Price::new(true), json)
}

fn whole(mut price: Price, text: &str) -> usize {
    let mut rest = text;
    while !rest.is_empty() {
        rest = &rest[price.push_next(rest)..];
    }
    price.tokens()
}

/// Length in bytes of the longest beginning of `text` whose [`price`] is at most `tokens`; 0 where not even a character fits.
#[must_use]
pub fn prefix_priced(text: &str, tokens: usize) -> usize {
    let mut price = Price::new(false);
    let mut offset = 0;
    while offset < text.len() {
        let before = price.clone();
        let taken = price.push_next(&text[offset..]);
        if price.is_over(tokens) {
            // A part of a word may still fit.
            price = before;
            let over = text[offset..offset + taken].char_indices().find(|(_, character)| {
                price.push(*character);
                price.is_over(tokens)
            });
            return offset + over.map_or(taken, |(at, _)| at);
        }
        offset += taken;
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
        fn words_cost_what_their_letters_cost(text in "([a-z]{0,20}|[A-Z][a-z]{0,9}|[ 0-9.,-]|\\PC){0,40}") {
            let mut by_character = Price::new(false);
            text.chars().for_each(|character| by_character.push(character));
            prop_assert_eq!(price(&text), by_character.tokens());
        }

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
