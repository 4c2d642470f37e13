//! The set bits of a sequence of words: both indexes store sets of passages and rows this way.

/// The positions of the set bits, ascending; bit `i` of word `n` is position `64 * n + i`.
pub(super) fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(index, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
            word &= word - 1;
            Some(index * 64 + bit)
        })
    })
}
