//! Builds the GPU helper and packs it into the file that `src/index/gpu/program.rs` includes; an empty one without the feature `gpu`.
//!
//! The helper is linked dynamically, because it loads the machine's Vulkan, which brings a C library along; so it is built by a
//! cargo of its own, with none of the flags that make the node static.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The best that pays: the helper is unpacked once a start, within a hundredth of a second at any level.
const LEVEL: i32 = 19;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/gpu_helper");
    println!("cargo:rerun-if-changed=Cargo.lock");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let packed = match env::var_os("CARGO_FEATURE_GPU") {
        Some(_) => zstd::encode_all(&*fs::read(build(&out)?)?, LEVEL)?,
        None => Vec::new(),
    };
    fs::write(out.join("gpu-helper.zst"), packed)?;
    Ok(())
}

/// Builds the helper; where it is.
fn build(out: &std::path::Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = env::var("TARGET")?;
    // out is <target directory>/<target>/<profile>/build/<package>/out. A directory of its own: the outer cargo holds that one.
    let directory = out.ancestors().nth(4).ok_or("OUT_DIR is deep")?.join("gpu-helper");
    // Paths of the machine that builds stay out of this file too.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let flags: Vec<&str> = flags.split('\x1f').filter(|flag| flag.starts_with("--remap-path-prefix=")).collect();
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo sets CARGO")?);
    cargo
        .args(["build", "--locked", "--package", "cairn-gpu", "--profile", "helper", "--target", &target])
        .arg("--target-dir")
        .arg(&directory)
        // Set, it counts instead of all that configuration says, also when it is empty.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    let built = cargo.output()?;
    if !built.status.success() {
        let told = String::from_utf8_lossy(&built.stderr);
        return Err(format!("the GPU helper cannot be built; `--no-default-features` leaves it out:\n{told}").into());
    }
    Ok(directory.join(target).join("helper/cairn-gpu"))
}
