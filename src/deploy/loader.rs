//! Which files the dynamic loader of a system would load, read from its ELF headers and without running anything of it.
//!
//! Looked through in the loader's order: the folders that a file itself names, those of `/etc/ld.so.conf`, and the usual ones. The
//! loader's cache is left aside: it holds what these folders hold. So are variants for newer processors (`glibc-hwcaps`),
//! since what is found is to run elsewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use super::elf::Elf;
use super::executable::Architecture;
use super::tree::Tree;

/// Files of `/etc/ld.so.conf` that name each other.
const INCLUDES_MAX: usize = 8;

/// A library that was found.
#[derive(Debug)]
pub(super) struct Library {
    /// Where, as it is called in its tree.
    pub(super) path: PathBuf,
    /// The open file: what is read later is what was examined.
    pub(super) file: File,
    pub(super) bytes: u64,
    elf: Elf,
}

/// A library that is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) name: String,
    /// What asks for it.
    pub(super) by: String,
}

/// The folders of a system's dynamic loader.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    tree: &'a Tree,
    machine: u16,
    folders: Vec<PathBuf>,
}

impl<'a> Loader<'a> {
    pub(super) fn of(tree: &'a Tree, architecture: Architecture) -> Self {
        let mut folders = configured(tree, Path::new("/etc/ld.so.conf"), INCLUDES_MAX);
        let triplet = architecture.triplet();
        let usual =
            [&format!("/lib/{triplet}"), &format!("/usr/lib/{triplet}"), "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
        folders.extend(usual.map(PathBuf::from));
        Self { tree, machine: architecture.elf(), folders }
    }

    /// The library of a name; a path from the root is taken as it is, and no other path.
    pub(super) fn find(&self, name: &str) -> Option<Library> {
        if !name.contains('/') {
            return self.among(name, &self.folders);
        }
        let path = Path::new(name);
        let is_plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
        if is_plain { self.at(path) } else { None }
    }

    /// Adds what a library asks for, and what that asks for, by name.
    ///
    /// * `present`: names that are there without a search.
    pub(super) fn close(
        &self,
        libraries: &mut BTreeMap<String, Library>,
        name: &str,
        library: Library,
        present: &[&str],
    ) -> Result<(), Missing> {
        let mut left = vec![(name.to_owned(), library)];
        while let Some((by, library)) = left.pop() {
            let own = library.own_folders();
            for name in &library.elf.needed {
                let is_there = |known: &str| known == name;
                let is_known = present.iter().any(|known| is_there(known)) || libraries.contains_key(name);
                if is_known || by == *name || left.iter().any(|(known, _)| is_there(known)) {
                    continue;
                }
                let found = if name.contains('/') { self.find(name) } else { self.among(name, &own) };
                let Some(found) = found.or_else(|| self.find(name)) else {
                    return Err(Missing { name: name.clone(), by });
                };
                left.push((name.clone(), found));
            }
            libraries.insert(by, library);
        }
        Ok(())
    }

    fn among(&self, name: &str, folders: &[PathBuf]) -> Option<Library> {
        folders.iter().find_map(|folder| self.at(&folder.join(name)))
    }

    /// What the loader takes for a library; it passes over what is for another processor.
    fn at(&self, path: &Path) -> Option<Library> {
        let file = File::open(self.tree.locate(path).ok()?).ok()?;
        let found = file.metadata().ok().filter(|found| found.is_file())?;
        let elf = Elf::read(&file).ok().filter(|elf| elf.machine == self.machine)?;
        Some(Library { path: path.to_owned(), file, bytes: found.len(), elf })
    }
}

impl Library {
    /// The folders that it names, `$ORIGIN` being its own. Those with other variables of the loader are left out.
    fn own_folders(&self) -> Vec<PathBuf> {
        let origin = self.path.parent().unwrap_or(Path::new("/")).to_string_lossy();
        let folders =
            self.elf.run_paths.iter().map(|folder| folder.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin));
        folders.filter(|folder| folder.starts_with('/') && !folder.contains('$')).map(PathBuf::from).collect()
    }
}

/// The folders that a configuration of the loader lists, with those of the files that it includes.
fn configured(tree: &Tree, path: &Path, includes: usize) -> Vec<PathBuf> {
    let Some(bytes) = tree.read(path).ok().flatten() else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        match words.next() {
            Some("include") if includes > 0 => {
                for pattern in words {
                    let files = matching(tree, &path.parent().unwrap_or(Path::new("/")).join(pattern));
                    folders.extend(files.iter().flat_map(|file| configured(tree, file, includes - 1)));
                }
            }
            // `hwcap` lines are of older loaders.
            Some(folder) if folder.starts_with('/') => folders.push(PathBuf::from(folder)),
            _ => {}
        }
    }
    folders
}

/// Files that a pattern names, sorted; `*` matches any letters in the last name.
fn matching(tree: &Tree, pattern: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(wanted)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let names = tree.list(folder).unwrap_or_default();
    names.iter().filter(|name| fits(name, wanted)).map(|name| folder.join(name)).collect()
}

fn fits(name: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(left) = name.strip_prefix(start) else { return false };
    (0..=left.len()).any(|at| left.is_char_boundary(at) && fits(&left[at..], rest))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::super::elf::library;
    use super::*;

    struct Machine(TempDir);

    impl Machine {
        fn new(files: &[(&str, &[u8])]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for (path, bytes) in files {
                let path = machine.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            machine
        }

        fn tree(&self) -> Tree {
            Tree::below(self.0.path())
        }
    }

    #[test]
    fn folders_are_looked_through_in_the_order_of_the_loader() {
        let plain = library(62, &[], None);
        let machine = Machine::new(&[
            ("etc/ld.so.conf", b"# first\ninclude /etc/ld.so.conf.d/*.conf\n/opt/last\n"),
            ("etc/ld.so.conf.d/a.conf", b"/opt/lib # here\n"),
            ("etc/ld.so.conf.d/b.txt", b"/opt/not\n"),
            ("opt/not/liba.so", &plain),
            ("opt/lib/liba.so", &library(183, &[], None)),
            ("opt/last/liba.so", &plain),
            ("usr/lib/liba.so", &plain),
            ("usr/lib64/libb.so", &plain),
            ("usr/lib/libb.so", b"INPUT(libb.so.1)"),
            ("lib/libc.so", b"INPUT(libc.so.6)"),
        ]);
        let tree = machine.tree();
        let loader = Loader::of(&tree, Architecture::X86_64);
        let path_of = |name: &str| loader.find(name).map(|found| found.path.to_string_lossy().into_owned());
        assert_eq!(path_of("liba.so").as_deref(), Some("/opt/last/liba.so"), "not one for another processor");
        assert_eq!(path_of("libb.so").as_deref(), Some("/usr/lib64/libb.so"));
        assert_eq!(path_of("libc.so"), None, "no script of a linker");
        assert_eq!(
            Loader::of(&tree, Architecture::Aarch64).find("liba.so").unwrap().path,
            Path::new("/opt/lib/liba.so")
        );
    }

    #[test]
    fn what_is_needed_is_found_to_the_last_and_once() {
        let machine = Machine::new(&[
            ("usr/lib/liba.so", &library(62, &["libb.so", "ld.so", "libc.so"], Some("$ORIGIN/own"))),
            ("usr/lib/own/libb.so", &library(62, &["libc.so", "liba.so"], None)),
            ("usr/lib/libb.so", &library(62, &["nowhere.so"], None)),
            ("usr/lib/libc.so", &library(62, &[], None)),
            ("usr/lib/libd.so", &library(62, &["libc.so", "nowhere.so"], None)),
        ]);
        let tree = machine.tree();
        let loader = Loader::of(&tree, Architecture::X86_64);
        let mut all = BTreeMap::new();
        loader.close(&mut all, "liba.so", loader.find("liba.so").unwrap(), &["ld.so"]).unwrap();
        let found: Vec<_> = all.values().map(|library| library.path.to_string_lossy().into_owned()).collect();
        assert_eq!(found, ["/usr/lib/liba.so", "/usr/lib/own/libb.so", "/usr/lib/libc.so"]);
        let missing = loader.close(&mut all, "libd.so", loader.find("libd.so").unwrap(), &[]).unwrap_err();
        assert_eq!(missing, Missing { name: "nowhere.so".to_owned(), by: "libd.so".to_owned() });
    }

    #[test]
    fn configurations_that_name_each_other_end() {
        let machine = Machine::new(&[("etc/ld.so.conf", b"include ld.so.conf\n/opt/lib\n")]);
        let folders = configured(&machine.tree(), Path::new("/etc/ld.so.conf"), INCLUDES_MAX);
        assert_eq!(folders.len(), INCLUDES_MAX + 1);
    }
}
