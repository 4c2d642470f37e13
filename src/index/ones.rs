//! The bits that are set in a row of words: how both indexes keep sets of passages and rows.

/// The places of the bits that are set, ascending; bit `i` of word `n` is place `64 * n + i`.
pub(super) fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(index, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
            word &= word - 1;
            Some(index * 64 + bit)
        })
    })
}
