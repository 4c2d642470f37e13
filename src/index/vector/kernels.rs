//! Which of this processor's instructions the kernels of vectors use: the library has one for each and chooses when it is loaded.

use numkong::cap;
use numkong::capabilities::available;

/// What kernels of f16 and of bytes exist for, on the processors that Cairn is built for, in the order in which processors got it.
const INSTRUCTIONS: &[(u64, &str)] = &[
    (cap::HASWELL, "AVX2"),
    (cap::ALDER, "AVX2 VNNI"),
    (cap::SIERRA, "AVX2 VNNI INT8"),
    (cap::SKYLAKE, "AVX-512"),
    (cap::ICELAKE, "AVX-512 VNNI"),
    (cap::GENOA, "AVX-512 BF16"),
    (cap::SAPPHIRE, "AVX-512 FP16"),
    (cap::DIAMOND, "AVX10.2"),
    (cap::NEON, "NEON"),
    (cap::NEONHALF, "NEON FP16"),
    (cap::NEONSDOT, "NEON dot product"),
    (cap::NEONFHM, "NEON FP16 FML"),
    (cap::NEONBFDOT, "NEON BF16"),
    (cap::SVE, "SVE"),
    (cap::SVEHALF, "SVE FP16"),
    (cap::SVESDOT, "SVE dot product"),
    (cap::SVEBFDOT, "SVE BF16"),
    (cap::SVE2, "SVE2"),
];

/// The names of the instructions that this processor has and kernels use; none where they use no vectors at all.
#[must_use]
pub fn instructions() -> Vec<&'static str> {
    let found = available();
    INSTRUCTIONS.iter().filter(|(bit, _)| found & bit != 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NEON is part of the architecture; processors without AVX2 run the tests of nobody.
    #[test]
    fn this_processor_has_vectors() {
        let found = instructions();
        assert!(found.contains(&"AVX2") || found.contains(&"NEON"), "{found:?}");
        let kinds = if cfg!(target_arch = "x86_64") { &["AVX"][..] } else { &["NEON", "SVE"] };
        assert!(found.iter().all(|name| kinds.iter().any(|kind| name.starts_with(kind))), "{found:?}");
    }
}
