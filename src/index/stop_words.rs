//! Words that occur in questions of any topic: articles, pronouns, auxiliaries, question words. Chosen by hand for each
//! language; kept short, since a word that is wrongly dropped cannot be found, while one that is wrongly kept only
//! costs time.
//!
//! Invariant: each list is sorted by the bytes of its words, for binary search.

use super::analysis::Language;

/// The stop words of a language, lower case with their diacritics; empty if there is no list.
pub(super) fn of(language: Language) -> &'static [&'static str] {
    match language {
        Language::English => ENGLISH,
        Language::German => GERMAN,
        Language::French => FRENCH,
        Language::Spanish => SPANISH,
        Language::Italian => ITALIAN,
        Language::Portuguese => PORTUGUESE,
        Language::Dutch => DUTCH,
        Language::Danish | Language::Norwegian | Language::Swedish => SCANDINAVIAN,
        Language::Russian => RUSSIAN,
        Language::Other
        | Language::Arabic
        | Language::Chinese
        | Language::Finnish
        | Language::Greek
        | Language::Hungarian
        | Language::Japanese
        | Language::Korean
        | Language::Romanian
        | Language::Tamil
        | Language::Turkish => &[],
    }
}

const ENGLISH: &[&str] = &[
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do",
    "does", "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its",
    "me", "my", "no", "not", "of", "on", "or", "our", "she", "should", "so", "such", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "to", "us", "was", "we", "were", "what", "when", "where",
    "which", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
];

const GERMAN: &[&str] = &[
    "aber", "als", "am", "an", "auf", "aus", "bei", "beim", "bin", "bis", "das", "dass", "dem", "den", "der", "des",
    "die", "durch", "ein", "eine", "einem", "einen", "einer", "eines", "er", "es", "für", "gibt", "hat", "ich", "ihr",
    "im", "in", "ist", "kann", "man", "mein", "mit", "nach", "nicht", "oder", "sich", "sie", "sind", "um", "und",
    "uns", "unter", "vom", "von", "vor", "wann", "war", "warum", "was", "welche", "welcher", "welches", "wenn", "wer",
    "werden", "wie", "wir", "wird", "wo", "zu", "zum", "zur", "über",
];

const FRENCH: &[&str] = &[
    "au", "aux", "avec", "ce", "ces", "cette", "comment", "dans", "de", "des", "du", "elle", "en", "est", "et", "il",
    "ils", "je", "la", "le", "les", "leur", "lui", "mais", "ne", "nous", "on", "ont", "ou", "où", "par", "pas", "pour",
    "pourquoi", "qu", "quand", "que", "quel", "quelle", "quelles", "quels", "qui", "sa", "se", "ses", "son", "sont",
    "sur", "un", "une", "vous", "à", "été", "être",
];

const SPANISH: &[&str] = &[
    "a", "al", "como", "con", "cual", "cuando", "cuál", "cuáles", "cuándo", "cuánta", "cuántas", "cuánto", "cuántos",
    "cómo", "de", "del", "donde", "dónde", "e", "el", "ella", "en", "era", "es", "esta", "este", "fue", "ha", "hay",
    "la", "las", "le", "les", "lo", "los", "más", "no", "o", "para", "pero", "por", "porque", "que", "quien", "quién",
    "quiénes", "qué", "se", "ser", "si", "sin", "son", "su", "sus", "un", "una", "uno", "y",
];

const ITALIAN: &[&str] = &[
    "a", "ad", "al", "alla", "anche", "che", "chi", "come", "con", "cosa", "da", "dal", "dei", "del", "della", "delle",
    "di", "dove", "e", "gli", "ha", "i", "il", "in", "la", "le", "lo", "ma", "nei", "nel", "nella", "non", "o", "per",
    "perché", "quale", "quali", "quando", "quanto", "se", "si", "sono", "su", "sul", "un", "una", "uno", "è",
];

const PORTUGUESE: &[&str] = &[
    "a", "ao", "aos", "as", "com", "como", "da", "das", "de", "do", "dos", "e", "ela", "ele", "em", "foi", "há",
    "mais", "mas", "na", "nas", "no", "nos", "não", "o", "onde", "os", "ou", "para", "pela", "pelo", "por", "porque",
    "quais", "qual", "quando", "quanto", "que", "quem", "se", "sem", "ser", "seu", "sua", "são", "um", "uma", "à", "é",
];

const DUTCH: &[&str] = &[
    "aan", "als", "bij", "dan", "dat", "de", "deze", "die", "dit", "door", "een", "en", "er", "het", "hij", "hoe",
    "hoeveel", "ik", "in", "is", "je", "kan", "maar", "met", "naar", "niet", "of", "om", "onder", "ons", "op", "over",
    "te", "uit", "van", "voor", "waar", "waarom", "wanneer", "was", "wat", "we", "welke", "wie", "wij", "wordt",
    "zijn",
];

const SCANDINAVIAN: &[&str] = &[
    "af", "att", "av", "de", "den", "der", "det", "din", "du", "där", "efter", "ei", "eller", "en", "er", "et", "ett",
    "for", "fra", "från", "för", "han", "har", "hur", "hva", "hvad", "hvem", "hvilken", "hvor", "hvordan", "hvorfor",
    "hvornår", "i", "ikke", "inte", "jag", "jeg", "kan", "med", "men", "och", "og", "om", "på", "som", "til", "till",
    "vad", "var", "varför", "ved", "vem", "vi", "vid", "vilken", "är", "å",
];

const RUSSIAN: &[&str] = &[
    "а",
    "без",
    "был",
    "была",
    "были",
    "было",
    "в",
    "во",
    "вы",
    "где",
    "для",
    "до",
    "его",
    "ее",
    "если",
    "есть",
    "и",
    "из",
    "или",
    "как",
    "какая",
    "какие",
    "какой",
    "когда",
    "кто",
    "ли",
    "мы",
    "на",
    "не",
    "о",
    "об",
    "он",
    "она",
    "они",
    "от",
    "по",
    "почему",
    "при",
    "с",
    "сколько",
    "со",
    "то",
    "у",
    "что",
    "чтобы",
    "это",
    "я",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_ascend() {
        for language in Language::ALL {
            assert!(of(*language).is_sorted_by(|one, next| one < next), "{language}");
        }
    }
}
