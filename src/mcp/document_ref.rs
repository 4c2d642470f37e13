//! Names of things within the node: `collection/document#passage`, and their addresses `ctx://node/collection/document`.

use std::fmt;

use crate::base::NodeId;

/// A document, or a passage of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRef {
    /// Name of the collection.
    pub collection: String,
    /// Id of the document.
    pub document: String,
    /// Place of the passage in the document, from 0.
    pub passage: Option<usize>,
}

impl DocumentRef {
    /// Parses an id as answers spell it, or an address. A trailing `#number` is taken for a passage; lookups first try
    /// a document whose own id ends that way, through [`DocumentRef::whole`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let decoded;
        let text = match text.strip_prefix("ctx://") {
            Some(rest) => {
                decoded = decode(rest.split_once('/')?.1)?;
                decoded.as_str()
            }
            None => text,
        };
        let (collection, document) = text.split_once('/')?;
        if collection.is_empty() || document.is_empty() {
            return None;
        }
        let (document, passage) = match document.rsplit_once('#') {
            Some((id, number)) if !id.is_empty() && number.parse::<usize>().is_ok() => (id, number.parse().ok()),
            _ => (document, None),
        };
        Some(Self { collection: collection.to_owned(), document: document.to_owned(), passage })
    }

    /// Reads a document's own id, which may end in `#number` for a passage.
    #[must_use]
    pub fn within(collection: &str, id: &str) -> Option<Self> {
        Self::parse(&format!("{collection}/{id}"))
    }

    /// The same text read as a document's id to the end.
    #[must_use]
    pub fn whole(&self) -> String {
        match self.passage {
            Some(passage) => format!("{}#{passage}", self.document),
            None => self.document.clone(),
        }
    }

    /// The address of the resource.
    #[must_use]
    pub fn uri(&self, node: NodeId) -> String {
        let mut uri = format!("ctx://{}/{}/{}", node.short(), self.collection, encode(&self.document));
        if let Some(passage) = self.passage {
            uri.push_str(&format!("#{passage}"));
        }
        uri
    }
}

impl fmt::Display for DocumentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.whole())
    }
}

/// Percent-encodes what RFC 3986 does not allow in a path; `/` stays, so that paths stay readable.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' | b'+' | b',' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Undoes percent-encoding; `None` when it is none, or no UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses_name_the_same_place() {
        let node = NodeId([7; 16]);
        for (collection, document, passage) in [
            ("docs", "guides/install.md", None),
            ("docs", "guides/install.md", Some(3)),
            ("docs", "a b?c#d%e/ü.md", Some(0)),
            ("notes", "https://example.org/x?y=1", None),
        ] {
            let place = DocumentRef { collection: collection.into(), document: document.into(), passage };
            assert_eq!(DocumentRef::parse(&place.to_string()), Some(place.clone()));
            assert_eq!(DocumentRef::parse(&place.uri(node)), Some(place));
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "docs", "docs/", "/x", "ctx://node", "ctx://node/docs", "ctx://node/docs/%zz"] {
            assert_eq!(DocumentRef::parse(text), None, "{text}");
        }
    }
}
