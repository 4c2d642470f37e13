//! The systemd units, which are not rendered, say of a node what `deploy::shape` says; `image.rs` holds the image to it.

use std::fs;
use std::path::Path;

use cairn::deploy::shape::{CONFIG_DIR, DATA_DIR, DOCUMENTS_DIR, SNAPSHOTS_DIR, USER_NAME};

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn units_say_what_the_shape_says() {
    for (file, lines) in [
        ("systemd/cairn.service", vec![format!("Environment=CAIRN_DATA_DIR={DATA_DIR}"), format!("User={USER_NAME}")]),
        ("systemd/cairn-documents.service", vec![format!("ConditionPathExists={DOCUMENTS_DIR}")]),
        (
            "systemd/cairn.tmpfiles",
            vec![
                format!("d {DATA_DIR} 0700 {USER_NAME} {USER_NAME}"),
                format!("d {SNAPSHOTS_DIR} 0700 {USER_NAME} {USER_NAME}"),
            ],
        ),
    ] {
        let text = text(file);
        for line in lines {
            assert!(text.lines().any(|found| found == line), "{file} has no line {line:?}");
        }
    }
    assert!(text("systemd/cairn.service").contains(&format!("{CONFIG_DIR}/cairn.toml")));
}
