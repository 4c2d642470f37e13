//! An executable for bundles that nobody runs; the fuzz target uses it, too.

/// The smallest static executable: a header and one empty segment, and of which release it is.
pub fn tiny_executable() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64 + 56, 0);
    for (at, value) in [(16, 2u16), (18, 62), (54, 56), (56, 1)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    for (at, value) in [(24, 0x40_0000_u64), (32, 64)] {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    bytes[64] = 1;
    bytes.extend(cairn::deploy::RELEASE_MARK.as_bytes());
    bytes
}
