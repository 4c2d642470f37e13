//! The layer that a container needs to use a GPU: the helper is linked dynamically, because drivers are.
//!
//! Collected from a system with glibc: its dynamic loader and C library, what the helper asks for, the Vulkan loader, and Mesa's
//! drivers, each with what it needs in turn. NVIDIA's driver stays out: it has to fit the kernel's module on the machine that runs the
//! container, and NVIDIA's container toolkit hands it in from there. What that driver needs of others is brought for it.
//!
//! Every library lies in one folder under the name that is asked for, and `LD_LIBRARY_PATH` names that folder, so neither a cache
//! nor links are needed. The same files give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::super::elf::{Elf, ElfError};
use super::super::executable::Architecture;
use super::super::loader::{Library, Loader, Missing};
use super::super::tree::{Tree, TreeError};
use super::layer::{Layer, Member};
use crate::base::Fault;

/// The Vulkan loader, which is opened by name.
const VULKAN: &str = "libvulkan.so.1";
/// The parts of glibc; some are empty by now, and drivers that were linked long ago ask for them.
const C_LIBRARY: &[&str] = &["libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"];
/// What NVIDIA's driver asks for and the toolkit does not bring.
const NVIDIA_NEEDS: &[&str] = &["libX11.so.6", "libXext.so.6"];
/// Where drivers are announced, in the loader's order.
const ANNOUNCED: &[&str] = &["/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d"];
/// Where they are announced in the image, and NVIDIA's with them: older toolkits bring the driver alone.
const ANNOUNCING: &str = "usr/share/vulkan/icd.d";
/// Mesa's rasteriser, which the helper refuses.
const RASTERISER: &str = "lvp";
/// Where the helper is found when the kernel executes nothing from memory, which nobody could put into a read-only root.
const HELPER: &str = "usr/libexec/cairn-gpu";

/// Variables that are set in a container with the layer, in addition to those of every container.
#[must_use]
pub fn environment(architecture: Architecture) -> [(&'static str, String); 3] {
    [
        // Where the toolkit puts the driver is the second one where the image is none of Debian's.
        ("LD_LIBRARY_PATH", format!("/{}:/usr/lib64", folder(architecture))),
        // Vulkan's libraries come with `graphics`.
        ("NVIDIA_DRIVER_CAPABILITIES", "compute,graphics,utility".to_owned()),
        ("NVIDIA_VISIBLE_DEVICES", "all".to_owned()),
    ]
}

fn folder(architecture: Architecture) -> String {
    format!("usr/lib/{}", architecture.triplet())
}

/// Which drivers go into the layer, by the name of the file that announces them up to `_icd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drivers {
    /// All that are there and draw on a GPU.
    All,
    /// These, also a rasteriser.
    Named(BTreeSet<String>),
}

/// Why there is no layer.
#[derive(Debug, thiserror::Error)]
pub enum GpuLayerError {
    /// The libraries are of another processor than the executable.
    #[error(
        "the program is for {image} and this machine's libraries for {machine}; build the image on a machine with {image}"
    )]
    Architecture {
        /// What the executable runs on.
        image: Architecture,
        /// What the helper of this program runs on.
        machine: Architecture,
    },
    /// The helper is none that could be used.
    #[error("the GPU helper in this program is not a dynamic Linux executable; build Cairn again")]
    Helper,
    /// There is no glibc.
    #[error(
        "{path}, the dynamic loader of glibc, is missing here; build the image on a system with glibc (Debian, Ubuntu, Fedora, …), or \
         name the root folder of one with --gpu-root"
    )]
    Interpreter {
        /// Where it is asked for.
        path: PathBuf,
    },
    /// There is no Vulkan loader.
    #[error(
        "{VULKAN}, the Vulkan loader, is missing here; install it and run this again (Debian, Ubuntu: apt-get install libvulkan1; \
         Fedora: dnf install vulkan-loader)"
    )]
    Vulkan,
    /// A library that is asked for is nowhere.
    #[error("{name} is missing here, and {by} needs it; install it and run this again")]
    Missing {
        /// Its name.
        name: String,
        /// What asks for it.
        by: String,
    },
    /// There is no such driver.
    #[error("there is no Vulkan driver '{name}' here to put into the image; there are: {}", if .there.is_empty() { "none (Debian, Ubuntu: apt-get install mesa-vulkan-drivers)".to_owned() } else { .there.join(", ") })]
    Driver {
        /// What was asked for.
        name: String,
        /// Those that are.
        there: Vec<String>,
    },
    /// A folder or file of the system cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl GpuLayerError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Driver { .. } => Fault::Caller,
            Self::Helper => Fault::Damage,
            Self::Architecture { .. }
            | Self::Interpreter { .. }
            | Self::Vulkan
            | Self::Missing { .. }
            | Self::Tree(_) => Fault::Environment,
        }
    }
}

impl From<Missing> for GpuLayerError {
    fn from(Missing { name, by }: Missing) -> Self {
        Self::Missing { name, by }
    }
}

/// What goes into the layer.
#[derive(Debug)]
pub struct Collected {
    architecture: Architecture,
    members: Vec<Member>,
    /// Names of the drivers in it.
    pub drivers: Vec<String>,
    /// How many libraries it has.
    pub libraries: usize,
    /// What was found and left out, or is missing for some card, in words.
    pub notes: Vec<String>,
}

/// A driver as a file announces it.
struct Announced {
    /// The file's name.
    file: String,
    content: Value,
    library: String,
}

impl Collected {
    /// Collects the layer from a system.
    ///
    /// * `tree`: the system that the files are taken from.
    /// * `helper`: the helper's program.
    ///
    /// # Errors
    /// See [`GpuLayerError`]. A driver that was not named and lacks something is left out with a note.
    pub fn from(tree: &Tree, helper: &[u8], drivers: &Drivers) -> Result<Self, GpuLayerError> {
        let elf = Elf::read(helper).map_err(|_: ElfError| GpuLayerError::Helper)?;
        let (Some(architecture), Some(interpreter)) = (Architecture::of_elf(elf.machine), &elf.interpreter) else {
            return Err(GpuLayerError::Helper);
        };
        let loader = Loader::of(tree, architecture);
        let Some(found) = loader.find(interpreter) else {
            return Err(GpuLayerError::Interpreter { path: PathBuf::from(interpreter) });
        };
        // Libraries ask for it, too: it is there by then.
        let own_name = interpreter.rsplit('/').next().unwrap_or(interpreter);
        let mut members = vec![Member::library(inside(interpreter), found)];

        let mut all = BTreeMap::new();
        let wanted = elf.needed.iter().map(String::as_str).chain(C_LIBRARY.iter().copied());
        for name in wanted.filter(|name| *name != own_name) {
            let library =
                loader.find(name).ok_or_else(|| Missing { name: name.to_owned(), by: "the GPU helper".to_owned() })?;
            add(&loader, &mut all, name, library, own_name)?;
        }
        let vulkan = loader.find(VULKAN).ok_or(GpuLayerError::Vulkan)?;
        add(&loader, &mut all, VULKAN, vulkan, own_name)?;
        let mut notes = Vec::new();
        for name in NVIDIA_NEEDS {
            let added = loader
                .find(name)
                .ok_or_else(|| Missing { name: (*name).to_owned(), by: "NVIDIA's driver".to_owned() })
                .and_then(|library| add(&loader, &mut all, name, library, own_name));
            if let Err(Missing { name, by }) = added {
                notes.push(format!(
                    "{name} is missing here, and {by} needs it: NVIDIA's driver will not load (Debian, Ubuntu: apt-get install libxext6)"
                ));
            }
        }

        let there = announced(tree)?;
        if let Drivers::Named(names) = drivers
            && let Some(name) = names.iter().find(|name| !there.contains_key(*name))
        {
            return Err(GpuLayerError::Driver { name: name.clone(), there: there.into_keys().collect() });
        }
        let mut taken = Vec::new();
        for (name, files) in there {
            match drivers {
                Drivers::All if name == RASTERISER => continue,
                Drivers::Named(names) if !names.contains(&name) => continue,
                Drivers::All | Drivers::Named(_) => {}
            }
            // One of them may be for another processor.
            let found = files.into_iter().map(|driver| (loader.find(&driver.library), driver));
            let found = found.reduce(|one, other| if one.0.is_some() { one } else { other });
            let Some((library, driver)) = found else { continue };
            let file = driver.library.rsplit('/').next().unwrap_or_default().to_owned();
            let added = library
                .ok_or_else(|| Missing { name: driver.library.clone(), by: driver.file.clone() })
                .and_then(|library| add(&loader, &mut all, &file, library, own_name));
            match (added, drivers) {
                (Err(missing), Drivers::Named(_)) => return Err(missing.into()),
                (Err(Missing { name: lacking, by }), Drivers::All) => {
                    notes.push(format!("the driver {name} is left out: {lacking} is missing here, and {by} needs it"));
                    continue;
                }
                (Ok(()), _) => {}
            }
            let mut content = driver.content;
            content["ICD"]["library_path"] = format!("/{}/{file}", folder(architecture)).into();
            members.push(Member::bytes(format!("{ANNOUNCING}/{}", driver.file), content.to_string().into_bytes()));
            taken.push(name);
        }
        // The toolkit's own file takes its place where it brings one.
        let nvidia = json!({"file_format_version": "1.0.0", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3.0"}});
        members.push(Member::bytes(format!("{ANNOUNCING}/nvidia_icd.json"), nvidia.to_string().into_bytes()));
        let mut program = Member::bytes(HELPER.to_owned(), helper.to_vec());
        program.mode = 0o755;
        members.push(program);

        let libraries = all.len() + 1;
        members.extend(all.into_iter().map(|(name, library)| {
            let path = if name.contains('/') { inside(&name) } else { format!("{}/{name}", folder(architecture)) };
            Member::library(path, library)
        }));
        let folders: BTreeSet<String> = members.iter().flat_map(|member| folders_of(&member.path)).collect();
        members.extend(folders.into_iter().map(Member::folder));
        members.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { architecture, members, drivers: taken, libraries, notes })
    }

    pub(super) fn layer(self, image: Architecture) -> Result<Layer, super::ImageError> {
        if self.architecture != image {
            return Err(GpuLayerError::Architecture { image, machine: self.architecture }.into());
        }
        Layer::of(self.members)
    }
}

/// A driver's library as its file names it: a path that does not begin at the root begins at the file's own folder.
fn from_root(folder: &Path, library: &str) -> String {
    if library.starts_with('/') || !library.contains('/') {
        return library.to_owned();
    }
    let mut path = PathBuf::from("/").join(folder);
    for part in Path::new(library).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// Adds a library with all that it needs, or nothing.
fn add(
    loader: &Loader<'_>,
    all: &mut BTreeMap<String, Library>,
    name: &str,
    library: Library,
    own_name: &str,
) -> Result<(), Missing> {
    let mut own = BTreeMap::new();
    loader.close(&mut own, name, library, &[own_name])?;
    for (name, library) in own {
        all.entry(name).or_insert(library);
    }
    Ok(())
}

/// Drivers by name, each with the files that announce it, in the loader's order. What is not an announcement is skipped, as the
/// loader does.
fn announced(tree: &Tree) -> Result<BTreeMap<String, Vec<Announced>>, TreeError> {
    let mut all: BTreeMap<String, Vec<Announced>> = BTreeMap::new();
    for folder in ANNOUNCED {
        for file in tree.list(folder)? {
            let Some((name, _)) = file.split_once("_icd").filter(|_| file.ends_with(".json")) else { continue };
            // Its library is not brought, see above.
            if name.starts_with("nvidia") {
                continue;
            }
            let bytes = tree.read(PathBuf::from(folder).join(&file))?.unwrap_or_default();
            let Ok(content) = serde_json::from_slice::<Value>(&bytes) else { continue };
            let Some(library) = content["ICD"]["library_path"].as_str() else { continue };
            let library = from_root(Path::new(folder), library);
            all.entry(name.to_owned()).or_default().push(Announced { content, library, file });
        }
    }
    Ok(all)
}

/// An absolute path as archives have it.
fn inside(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// The folders that a file is in.
fn folders_of(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(at, _)| path[..=at].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::super::super::elf::library;
    use super::super::super::executable::OWN_EXECUTABLE;
    use super::super::layer::MemberContent;
    use super::super::{Image, ImageError, Reference};
    use super::*;

    const X86: u16 = 62;

    /// A system of Debian's kind, with two drivers for GPUs and a rasteriser.
    fn system(without: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, bytes: &[u8]| {
            if !without.contains(&path) {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        };
        let put_library = |name: &str, needed: &[&str]| {
            put(&format!("usr/lib/x86_64-linux-gnu/{name}"), &library(X86, needed, None));
        };
        for name in C_LIBRARY {
            put_library(name, &["ld-linux-x86-64.so.2"]);
        }
        put_library("libgcc_s.so.1", &["libc.so.6"]);
        put_library(VULKAN, &["libc.so.6"]);
        put_library("libX11.so.6", &["libxcb.so.1"]);
        put_library("libXext.so.6", &["libX11.so.6"]);
        put_library("libxcb.so.1", &["libc.so.6"]);
        put_library("libvulkan_intel.so", &["libdrm.so.2", "libc.so.6"]);
        put_library("libvulkan_radeon.so", &["libdrm.so.2", "libLLVM.so"]);
        put_library("libvulkan_lvp.so", &["libLLVM.so"]);
        put_library("libdrm.so.2", &[]);
        put_library("libLLVM.so", &[]);
        put("lib64/ld-linux-x86-64.so.2", &library(X86, &[], None));
        for (name, path) in [
            ("intel", "/usr/lib/x86_64-linux-gnu/libvulkan_intel.so"),
            ("radeon", "../../../lib/x86_64-linux-gnu/libvulkan_radeon.so"),
            ("lvp", "libvulkan_lvp.so"),
        ] {
            let text = json!({"file_format_version": "1.0.0", "ICD": {"library_path": path, "api_version": "1.3.230"}});
            put(&format!("usr/share/vulkan/icd.d/{name}_icd.x86_64.json"), text.to_string().as_bytes());
        }
        put("usr/share/vulkan/icd.d/broken_icd.json", b"{");
        let other = json!({"ICD": {"library_path": "/usr/lib/i386-linux-gnu/libvulkan_intel.so"}}).to_string();
        put("usr/share/vulkan/icd.d/intel_icd.i686.json", other.as_bytes());
        put("etc/vulkan/icd.d/nvidia_icd.json", b"{\"ICD\": {\"library_path\": \"libGLX_nvidia.so.0\"}}");
        root
    }

    /// The program of a helper: an interpreter, and two libraries that it asks for.
    fn helper() -> Vec<u8> {
        let mut bytes = library(X86, &["libgcc_s.so.1", "libc.so.6"], None);
        // In the place of the segment that is loaded there is one more, whose text is at the end.
        let interpreter = bytes.len() as u64;
        bytes.extend(b"/lib64/ld-linux-x86-64.so.2\0");
        let segments = bytes[64..64 + 2 * 56].to_vec();
        let mut third = segments[..56].to_vec();
        third[..4].copy_from_slice(&3u32.to_le_bytes());
        third[8..16].copy_from_slice(&interpreter.to_le_bytes());
        third[32..40].copy_from_slice(&(bytes.len() as u64 - interpreter).to_le_bytes());
        let table = bytes.len() as u64;
        bytes.extend(segments.into_iter().chain(third));
        bytes[32..40].copy_from_slice(&table.to_le_bytes());
        bytes[56..58].copy_from_slice(&3u16.to_le_bytes());
        bytes
    }

    fn collect(root: &TempDir, drivers: &Drivers) -> Result<Collected, GpuLayerError> {
        Collected::from(&Tree::below(root.path()), &helper(), drivers)
    }

    fn named(names: &[&str]) -> Drivers {
        Drivers::Named(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn paths(collected: &Collected) -> Vec<&str> {
        collected.members.iter().map(|member| member.path.as_str()).collect()
    }

    #[test]
    fn everything_that_is_needed_is_in_it_and_nothing_else() {
        let collected = collect(&system(&[]), &named(&["intel"])).unwrap();
        assert_eq!(
            paths(&collected),
            [
                "lib64/",
                "lib64/ld-linux-x86-64.so.2",
                "usr/",
                "usr/lib/",
                "usr/lib/x86_64-linux-gnu/",
                "usr/lib/x86_64-linux-gnu/libX11.so.6",
                "usr/lib/x86_64-linux-gnu/libXext.so.6",
                "usr/lib/x86_64-linux-gnu/libc.so.6",
                "usr/lib/x86_64-linux-gnu/libdl.so.2",
                "usr/lib/x86_64-linux-gnu/libdrm.so.2",
                "usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
                "usr/lib/x86_64-linux-gnu/libm.so.6",
                "usr/lib/x86_64-linux-gnu/libpthread.so.0",
                "usr/lib/x86_64-linux-gnu/librt.so.1",
                "usr/lib/x86_64-linux-gnu/libvulkan.so.1",
                "usr/lib/x86_64-linux-gnu/libvulkan_intel.so",
                "usr/lib/x86_64-linux-gnu/libxcb.so.1",
                "usr/libexec/",
                "usr/libexec/cairn-gpu",
                "usr/share/",
                "usr/share/vulkan/",
                "usr/share/vulkan/icd.d/",
                "usr/share/vulkan/icd.d/intel_icd.x86_64.json",
                "usr/share/vulkan/icd.d/nvidia_icd.json",
            ]
        );
        assert!(collected.notes.is_empty(), "{:?}", collected.notes);
    }

    #[test]
    fn a_driver_is_announced_where_it_lies_in_the_image() {
        let collected = collect(&system(&[]), &named(&["radeon"])).unwrap();
        let announced = collected.members.iter().find(|member| member.path.contains("radeon_icd")).unwrap();
        let MemberContent::Bytes(bytes) = &announced.content else { panic!("no bytes") };
        let announcement: Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(announcement["ICD"]["library_path"], "/usr/lib/x86_64-linux-gnu/libvulkan_radeon.so");
        assert_eq!(announcement["ICD"]["api_version"], "1.3.230");
    }

    #[test]
    fn rasterisers_and_nvidias_driver_stay_out_and_what_lacks_something_is_told() {
        let all = collect(&system(&[]), &Drivers::All).unwrap();
        assert_eq!(all.drivers, ["intel", "radeon"]);
        let lacking = system(&["usr/lib/x86_64-linux-gnu/libLLVM.so", "usr/lib/x86_64-linux-gnu/libXext.so.6"]);
        let some = collect(&lacking, &Drivers::All).unwrap();
        assert_eq!(some.drivers, ["intel"]);
        assert!(!paths(&some).iter().any(|path| path.contains("radeon")), "nothing of it");
        assert_eq!(some.notes.len(), 2, "{:?}", some.notes);
        assert!(some.notes[1].contains("radeon is left out: libLLVM.so is missing"), "{:?}", some.notes);
        let error = collect(&lacking, &named(&["radeon"])).unwrap_err();
        assert!(matches!(error, GpuLayerError::Missing { name, .. } if name == "libLLVM.so"));
        let error = collect(&lacking, &named(&["nvidia"])).unwrap_err();
        assert!(error.to_string().ends_with("there are: intel, lvp, radeon"), "{error}");
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let without = |path: &str| collect(&system(&[path]), &named(&[])).unwrap_err().to_string();
        assert!(without("usr/lib/x86_64-linux-gnu/libvulkan.so.1").contains("apt-get install libvulkan1"));
        assert!(without("lib64/ld-linux-x86-64.so.2").contains("a system with glibc"));
        assert!(
            without("usr/lib/x86_64-linux-gnu/libgcc_s.so.1")
                .contains("libgcc_s.so.1 is missing here, and the GPU helper needs it")
        );
        let tree = Tree::below(system(&[]).path());
        for no_helper in [&b""[..], b"#!/bin/sh", &library(X86, &[], None)] {
            assert!(matches!(Collected::from(&tree, no_helper, &Drivers::All), Err(GpuLayerError::Helper)));
        }
    }

    #[test]
    fn a_program_for_another_processor_is_refused() {
        let mut collected = collect(&system(&[]), &named(&[])).unwrap();
        let own = Architecture::of_this_machine().unwrap();
        let other = if own == Architecture::X86_64 { Architecture::Aarch64 } else { Architecture::X86_64 };
        collected.architecture = other;
        let refused =
            Image::with_gpu(Path::new(OWN_EXECUTABLE), Reference::this_release_for_gpus(), collected).unwrap_err();
        assert!(matches!(
            refused,
            ImageError::Gpu(GpuLayerError::Architecture { image, machine }) if (image, machine) == (own, other)
        ));
    }

    #[test]
    fn the_same_files_give_the_same_layer() {
        let layer = |root: &TempDir| collect(root, &Drivers::All).unwrap().layer(Architecture::X86_64).unwrap();
        let (root, copy) = (system(&[]), system(&[]));
        let (one, other) = (layer(&root), layer(&copy));
        assert_eq!(one.blob, other.blob);
        // One that changes between reading and writing is noticed.
        let path = root.path().join("usr/lib/x86_64-linux-gnu/libdrm.so.2");
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(one.write(&mut std::io::sink()), Err(ImageError::Changed { .. })));
        assert!(other.write(&mut std::io::sink()).is_ok());
    }
}
