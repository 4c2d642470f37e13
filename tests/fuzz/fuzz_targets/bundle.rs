//! Bytes as a bundle: as the whole file, and as the list within one whose other parts are right.
#![no_main]

#[path = "../../it/tiny_executable.rs"]
mod tiny_executable;

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use cairn::base::UnixMillis;
use cairn::deploy::bundle::{self, KeyPair, LockedKey, Plan, MemberRole, SecretKey};
use libfuzzer_sys::fuzz_target;

use self::tiny_executable::tiny_executable;

/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;

/// A folder in memory, a key, and the bundle of one document that it signed.
struct BundleFixture {
    folder: PathBuf,
    key: SecretKey,
    whole: Vec<u8>,
    /// Bytes of its first member with its header.
    list: usize,
}

static FIXTURE: LazyLock<BundleFixture> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/cairn-fuzz-bundle-{}", std::process::id()));
    fs::create_dir_all(folder.join("manual")).expect("memory for the folder");
    KeyPair::generate(None).expect("made").write(&folder.join("site.key")).expect("written");
    let key = LockedKey::read(&folder.join("site.key")).and_then(|key| key.unlock(None)).expect("a key");
    fs::write(folder.join("manual/page.md"), "a page").expect("written");
    fs::write(folder.join("cairn"), tiny_executable()).expect("written");
    let mut plan = Plan::new(&folder.join("cairn"), &[]).expect("static");
    plan.add_documents(&folder.join("manual")).expect("packed");
    plan.write(&folder.join("whole"), &key, UnixMillis(1_785_230_000_000)).expect("written");
    let whole = fs::read(folder.join("whole")).expect("readable");
    let digits = std::str::from_utf8(&whole[124..135]).expect("digits");
    let list = BLOCK + usize::from_str_radix(digits, 8).expect("octal").next_multiple_of(BLOCK);
    BundleFixture { folder, key, whole, list }
});

/// The first member with another content.
fn listing(header: &[u8], content: &[u8]) -> Vec<u8> {
    let mut member = header.to_vec();
    member[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    // The sum counts its own place as spaces.
    member[148..156].fill(b' ');
    let sum: u32 = member.iter().map(|byte| u32::from(*byte)).sum();
    member[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    member.extend_from_slice(content);
    member.resize(BLOCK + content.len().next_multiple_of(BLOCK), 0);
    member
}

fuzz_target!(|bytes: &[u8]| {
    let fixture = &*FIXTURE;
    let file = fixture.folder.join("fuzzed");
    fs::write(&file, bytes).expect("memory for the file");
    // Read for what it says, and never believed.
    let _ = bundle::list_unverified(&file);
    assert!(bundle::open(&file, fixture.key.public()).is_err());

    let mut listed = listing(&fixture.whole[..BLOCK], bytes);
    // The signature and the start of the first file: what is behind the list is looked at by its length only.
    listed.extend_from_slice(&fixture.whole[fixture.list..][..4 * BLOCK]);
    fs::write(&file, &listed).expect("memory for the file");
    if let Ok(contents) = bundle::list_unverified(&file) {
        for role in MemberRole::ALL {
            assert!(
                contents.of(role).all(|member| member.path.split('/').all(|name| !matches!(name, "" | "." | "..")))
            );
        }
    }
});
