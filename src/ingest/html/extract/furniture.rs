//! Parts of a site rather than of the page: footers, cookie banners, permalink marks.

use html5ever::tokenizer::Tag;

use super::attribute;

/// Whether `tag` opens the footer of the whole page; footers of articles are distinguished by their position.
pub(super) fn is_footer(name: &str, tag: &Tag) -> bool {
    name == "footer" || (matches!(name, "div" | "section") && attribute(tag, "role") == Some("contentinfo"))
}

/// Whether `tag` opens a cookie banner, or a closed dialog.
pub(super) fn is_banner(name: &str, tag: &Tag) -> bool {
    if name == "dialog" && attribute(tag, "open").is_none() {
        return true;
    }
    if !matches!(name, "div" | "section" | "aside" | "form" | "dialog" | "p") {
        // A component with such a name.
        return name.contains('-') && name.contains("cookie");
    }
    let mut words = String::new();
    for value in ["id", "class", "aria-label"].iter().filter_map(|name| attribute(tag, name)) {
        words.extend(value.chars().filter(|character| !matches!(character, '-' | '_')).map(|c| c.to_ascii_lowercase()));
        words.push(' ');
    }
    let any = |list: &[&str]| list.iter().any(|word| words.contains(word));
    any(CONSENT_TOOLS) || (any(&["cookie", "gdpr", "consent"]) && any(BANNERS))
}

/// Names of elements of widespread consent programs.
const CONSENT_TOOLS: &[&str] = &[
    "onetrust",
    "cybotcookiebot",
    "usercentrics",
    "didomi",
    "qccmp2",
    "spmessagecontainer",
    "cookiescript",
    "osanocm",
    "truste",
    "iubendacs",
    "cmpbox",
    "ccwindow",
];

/// Further names of such elements.
const BANNERS: &[&str] = &[
    "banner",
    "notice",
    "bar",
    "popup",
    "modal",
    "overlay",
    "message",
    "dialog",
    "wall",
    "window",
    "prompt",
    "alert",
    "cookieconsent",
    "consentcookie",
    "cookiesconsent",
    "hint",
];

/// Whether `tag` is a link past the navigation.
pub(super) fn is_skip_link(tag: &Tag) -> bool {
    let within = attribute(tag, "href").is_some_and(|href| href.starts_with('#'));
    within && attribute(tag, "class").is_some_and(|class| class.to_ascii_lowercase().contains("skip"))
}

/// Whether a link's text is only a permalink mark.
pub(super) fn is_permalink(text: &str, in_heading: bool) -> bool {
    let text = text.trim();
    !text.is_empty()
        && text.chars().all(|character| {
            is_link_mark(character) || character == '\u{200b}' || (in_heading && matches!(character, '#' | '§'))
        })
}

/// The sign that generators put after a heading: a pilcrow, a chain, or a letter of an icon font.
pub(super) fn is_link_mark(character: char) -> bool {
    matches!(character, '¶' | '🔗' | '\u{e000}'..='\u{f8ff}')
}

/// Whether a picture's description is only its file name.
pub(super) fn is_file_name(words: &str) -> bool {
    let lower = words.to_ascii_lowercase();
    !words.contains(' ')
        && [".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".bmp", ".tif"].iter().any(|end| lower.ends_with(end))
}
