//! The protocol between parent and child.
//!
//! ```text
//! child → parent   frame(HELLO, Hello)
//! parent → child   u32 length, Order, then `Order::length` bytes of the source
//! child → parent   frame(ITEMS, Item Item …) …, then frame(END, End) or frame(REFUSED, Refused)
//! ```
//!
//! A frame is its kind (one byte), its length (u32, little endian) and that many bytes; values are in postcard's
//! format. Both ends are the same build, so there is only one version.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ExtractError, Item, Protections, Request, Usage};
use crate::base::ByteSize;
use crate::ingest::{ChunkConfig, Limits};

/// Bytes in front of a frame.
pub(super) const HEAD: usize = 5;
/// The child has started.
pub(super) const HELLO: u8 = 1;
/// Consecutive items.
pub(super) const ITEMS: u8 = 2;
/// The source was read completely.
pub(super) const END: u8 = 3;
/// The source cannot be read.
pub(super) const REFUSED: u8 = 4;
/// A frame of items is sent when it reaches this size in bytes.
pub(super) const FRAME_BYTES: usize = 128 << 10;
/// Longest frame without items.
pub(super) const PLAIN_BYTES_MAX: usize = 1 << 20;

/// The child's greeting.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The program's version, in case the file was replaced between the two starts.
    pub(super) version: String,
    pub(super) protections: Protections,
}

/// The order to read a source.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) title: Option<String>,
    /// MIME type.
    pub(super) media_type: Option<String>,
    pub(super) limits: Limits,
    pub(super) chunks: ChunkConfig,
    /// Its memory and processor time limits.
    pub(super) memory_bytes: u64,
    pub(super) time: Duration,
    /// Bytes of the source.
    pub(super) length: u64,
}

impl Order {
    pub(super) fn new(request: &Request, memory_bytes: u64, time: Duration) -> Self {
        Self {
            name: request.name.clone(),
            id: request.id.clone(),
            title: request.title.clone(),
            media_type: request.media_type.map(|media_type| media_type.as_str().to_owned()),
            limits: request.limits.clone(),
            chunks: request.chunks.clone(),
            memory_bytes,
            time,
            length: request.bytes.len() as u64,
        }
    }
}

/// The end of an answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) warnings: Vec<String>,
    pub(super) usage: Usage,
}

/// Why the source was not read.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refused {
    /// The parser's message.
    pub(super) reason: String,
    pub(super) usage: Usage,
}

/// A frame of `value`.
pub(super) fn frame(kind: u8, value: &impl Serialize) -> Vec<u8> {
    let mut frame = start_message(kind);
    append(&mut frame, value);
    finish(&mut frame);
    frame
}

/// A frame that values are appended to.
pub(super) fn start_message(kind: u8) -> Vec<u8> {
    let mut frame = vec![0; HEAD];
    frame[0] = kind;
    frame
}

/// Appends a value to a frame.
pub(super) fn append(frame: &mut Vec<u8>, value: &impl Serialize) {
    let taken = std::mem::take(frame);
    *frame = postcard::to_extend(value, taken).expect("memory takes all that is written");
}

/// Writes a frame's length into its head.
pub(super) fn finish(frame: &mut [u8]) {
    let length = u32::try_from(frame.len() - HEAD).expect("a frame is sent long before that");
    frame[1..HEAD].copy_from_slice(&length.to_le_bytes());
}

/// Kind and length of the frame that starts here.
pub(super) fn head(bytes: &[u8]) -> Option<(u8, usize)> {
    let (head, _) = bytes.split_first_chunk::<HEAD>()?;
    let [kind, length @ ..] = *head;
    Some((kind, u32::from_le_bytes(length) as usize))
}

/// Whether an answer is complete, according to its frames.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((kind, length)) = head(rest) {
        let Some(after) = rest.get(HEAD + length..) else { return false };
        if kind != ITEMS {
            return true;
        }
        rest = after;
    }
    false
}

/// Items as received: decoding them takes time.
#[derive(Debug)]
pub struct Batch(pub(super) Vec<u8>);

impl Batch {
    /// The items. Memory is bounded by the received bytes: each element of a list has at least one.
    ///
    /// # Errors
    /// When the bytes are not items; see [`ExtractError::Crash`].
    pub fn decode(&self) -> Result<Vec<Item>, ExtractError> {
        let mut items = Vec::new();
        let mut rest = self.0.as_slice();
        while !rest.is_empty() {
            let (item, after) =
                postcard::take_from_bytes(rest).map_err(|_| ExtractError::nonsense("it cannot be decoded"))?;
            items.push(item);
            rest = after;
        }
        Ok(items)
    }
}

/// The value of a frame that holds a single one.
pub(super) fn value<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ExtractError> {
    postcard::from_bytes(bytes).map_err(|_| ExtractError::nonsense("it cannot be decoded"))
}

/// Why an answer that has grown to `length` bytes is rejected: no answer is larger than the memory it was made in.
pub(super) fn check_length(length: u64, limit: u64) -> Result<(), ExtractError> {
    if length > limit {
        return Err(ExtractError::Memory { limit: ByteSize(limit) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::extraction::Passage;

    #[test]
    fn items_come_back_as_they_were() {
        let items = [
            Item::Source { documents: 1 },
            Item::Passage(Passage {
                headings: vec!["Restore".into()],
                text: "Words.".into(),
                plain: None,
                start: 7,
                end: 13,
                page: Some(2),
            }),
        ];
        let mut whole = start_message(ITEMS);
        items.iter().for_each(|item| append(&mut whole, item));
        finish(&mut whole);
        assert_eq!(head(&whole), Some((ITEMS, whole.len() - HEAD)));
        assert_eq!(Batch(whole[HEAD..].to_vec()).decode().expect("items"), items);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Batch(bytes.clone()).decode();
            let _ = value::<End>(&bytes);
            let _ = value::<Hello>(&bytes);
            let _ = value::<Order>(&bytes);
        }
    }
}
