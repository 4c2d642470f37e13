//! Converts lines of Hebrew and Arabic from visual order to reading order.
//!
//! A PDF positions glyphs; sorted by position they run from left to right regardless of the script. Right-to-left
//! letters are reversed, numbers and words of other scripts within them are not (rule L2 of Unicode's bidirectional
//! algorithm, UAX #9, in reverse).

/// The role of a character in a bidirectional line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Rightwards,
    Leftwards,
    Digit,
    Neutral,
}

fn class(character: char) -> Class {
    match character {
        '\u{660}'..='\u{669}' | '\u{6f0}'..='\u{6f9}' => Class::Digit,
        '\u{590}'..='\u{8ff}'
        | '\u{fb1d}'..='\u{fdff}'
        | '\u{fe70}'..='\u{feff}'
        | '\u{10800}'..='\u{10fff}'
        | '\u{1e800}'..='\u{1efff}' => Class::Leftwards,
        _ if character.is_ascii_digit() => Class::Digit,
        _ if character.is_alphabetic() => Class::Rightwards,
        _ => Class::Neutral,
    }
}

/// Whether any letter is right-to-left.
pub(super) fn has_right_to_left(text: &str) -> bool {
    // All of them have at least two bytes, the first of which is 0xd6 or more.
    text.bytes().any(|byte| byte >= 0xd6) && text.chars().any(|character| class(character) == Class::Leftwards)
}

/// Number of right-to-left letters minus left-to-right letters.
pub(super) fn balance(text: &str) -> i64 {
    text.chars()
        .map(|character| match class(character) {
            Class::Leftwards => 1,
            Class::Rightwards => -1,
            _ => 0,
        })
        .sum()
}

/// Whether most of `text` is right-to-left.
pub(super) fn is_right_to_left(text: &str) -> bool {
    has_right_to_left(text) && balance(text) > 0
}

/// Converts a line from visual to reading order. A line with both ends in the same direction has that direction; a
/// mixed one has its paragraph's, from right to left if `leftwards`.
pub(super) fn logical(seen: &str, leftwards: bool) -> String {
    let mut characters: Vec<char> = seen.chars().collect();
    let strong = |character: &char| match class(*character) {
        Class::Leftwards => Some(true),
        Class::Rightwards => Some(false),
        _ => None,
    };
    let ends = (characters.iter().find_map(strong), characters.iter().rev().find_map(strong));
    let leftwards = match ends {
        (Some(first), Some(last)) if first == last => first,
        _ => leftwards,
    };
    if leftwards {
        characters.reverse();
        turn_runs(&mut characters);
        mirror(&mut characters);
    } else {
        let mut place = 0;
        while let Some(start) = (place..characters.len()).find(|at| class(characters[*at]) == Class::Leftwards) {
            let others = (start..characters.len()).find(|at| class(characters[*at]) == Class::Rightwards);
            let end = others.unwrap_or(characters.len());
            let last = (start..end).rfind(|at| class(characters[*at]) == Class::Leftwards).unwrap_or(start);
            let run = &mut characters[start..=last];
            run.reverse();
            turn_runs(run);
            place = end;
        }
    }
    characters.into_iter().collect()
}

/// Reverses numbers and words of other scripts again.
fn turn_runs(characters: &mut [char]) {
    let mut place = 0;
    while place < characters.len() {
        let first = class(characters[place]);
        if !matches!(first, Class::Rightwards | Class::Digit) {
            place += 1;
            continue;
        }
        let (mut end, mut at) = (place + 1, place + 1);
        let mut letters = first == Class::Rightwards;
        let mut spaces = false;
        while at < characters.len() {
            match class(characters[at]) {
                Class::Leftwards => break,
                Class::Neutral => spaces |= characters[at].is_whitespace(),
                // Separate numbers keep their order; words and what belongs to them are one run.
                found => {
                    if spaces && !letters {
                        break;
                    }
                    letters |= found == Class::Rightwards;
                    (end, spaces) = (at + 1, false);
                }
            }
            at += 1;
        }
        characters[place..end].reverse();
        place = end;
    }
}

/// Swaps brackets if the file has them in visual form: then the first one in reading order closes.
fn mirror(characters: &mut [char]) {
    const PAIRS: [(char, char); 4] = [('(', ')'), ('[', ']'), ('{', '}'), ('<', '>')];
    for (open, close) in PAIRS {
        if characters.iter().find(|character| [open, close].contains(character)) == Some(&close) {
            for character in characters.iter_mut() {
                *character = match *character {
                    found if found == open => close,
                    found if found == close => open,
                    found => found,
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hebrew letters in visual order: the last one first.
    #[test]
    fn letters_are_turned_and_numbers_are_not() {
        assert_eq!(logical("םולש", true), "שלום");
        assert_eq!(logical("הבית 4471 רפסמ", true), "מספר 4471 תיבה");
        assert_eq!(logical("12.5 34 ריחמ", true), "מחיר 34 12.5", "numbers that stand apart are read from the right");
        assert_eq!(logical("FM-3 valve תמסש", true), "שסמת FM-3 valve");
    }

    #[test]
    fn hebrew_within_english_is_turned_alone() {
        assert_eq!(logical("the label says םולש ירחא and no more", false), "the label says אחרי שלום and no more");
    }

    #[test]
    fn brackets_open_before_they_close() {
        assert_eq!(logical("(4471) רפסמ", true), "מספר (4471)");
        assert_eq!(logical(")4471( רפסמ", true), "מספר (4471)");
    }

    #[test]
    fn what_is_read_is_known_by_its_letters() {
        assert!(is_right_to_left("שלום 12 a") && !is_right_to_left("one שם two") && !is_right_to_left("– ” 12"));
    }
}
