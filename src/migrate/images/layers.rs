//! The second pass over an archive: the layers of its images, each read once and checked, and what a conversion asks of them.
//!
//! Invariants: every byte of a layer is read, and its digests are those that the image names. Layers are never in memory.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::path::Path;

use super::accounts::Accounts;
use super::archive::{Archive, ArchivedImage, LayerRef};
use super::members::{Members, MembersError, printable};
use super::rootfs::{Budget, FILE_BYTES_MAX, FolderContent, Interest, LayerPaths, RootFs, TooMany, clean};
use super::stream::{Counted, Hashed, Packing, Unpacked};
use super::{ImageFacts, ImageProgress, ImageStep, ImagesError};

const PASSWD: &[u8] = b"etc/passwd";
const GROUP: &[u8] = b"etc/group";
/// How often layers are read again because a link leads elsewhere.
const ROUNDS_MAX: usize = 8;
/// Links that most images have. What they lead to is looked for at once, and layers need not be read a second time.
const USUAL_LINKS: [(&str, &str); 6] = [
    ("var/run/", "run/"),
    ("var/lock/", "run/lock/"),
    ("bin/", "usr/bin/"),
    ("sbin/", "usr/sbin/"),
    ("lib/", "usr/lib/"),
    ("lib64/", "usr/lib64/"),
];

/// Why a layer was not read.
#[derive(Debug, thiserror::Error)]
enum LayerError {
    #[error(transparent)]
    Members(#[from] MembersError),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("it is packed with {0}")]
    Packing(&'static str),
}

impl From<io::Error> for LayerError {
    fn from(error: io::Error) -> Self {
        Self::Members(error.into())
    }
}

/// What the layers of an archive's images say.
///
/// * `folders`: of which the number of files is wanted, in addition to the volumes of the images.
pub(super) fn facts(
    path: &Path,
    images: Vec<ArchivedImage>,
    folders: &[String],
    progress: &dyn Fn(ImageProgress<'_>),
) -> Result<Vec<ImageFacts>, ImagesError> {
    let too_many = |error: TooMany| ImagesError::Content { path: path.to_owned(), what: error.to_string() };
    let mut interest = Interest::default();
    for file in [PASSWD, GROUP] {
        interest.add_file(file.to_vec()).map_err(too_many)?;
    }
    for folder in folders.iter().chain(images.iter().flat_map(|image| &image.config.volumes)) {
        let folder = clean(folder.as_bytes());
        for (from, to) in USUAL_LINKS {
            if let Some(rest) = folder.strip_prefix(from.as_bytes()) {
                interest.add_folder([to.as_bytes(), rest].concat()).map_err(too_many)?;
            }
        }
        interest.add_folder(folder).map_err(too_many)?;
    }
    for round in 1.. {
        let mut budget = Budget::default();
        let layers = read_layers(path, &images, &interest, &mut budget, progress)?;
        let (mut is_whole, mut contents) = (true, Vec::with_capacity(images.len()));
        for image in &images {
            let of_image = image.layers.iter().filter_map(|layer| layers.get(&layer.member));
            let root = RootFs::of(of_image, &mut budget).map_err(too_many)?;
            for file in [PASSWD, GROUP] {
                if let Some(real) = root.resolve(file) {
                    is_whole &= !interest.add_file(real).map_err(too_many)?;
                }
            }
            let mut found = BTreeMap::new();
            for folder in folders.iter().chain(&image.config.volumes) {
                let folder = clean(folder.as_bytes());
                let Some(real) = root.resolve(&folder) else { continue };
                let is_new = interest.add_folder(real.clone()).map_err(too_many)?;
                is_whole &= !is_new;
                let content = root.folder(&real);
                let content =
                    content.map(|content| FolderContent { is_complete: content.is_complete && !is_new, ..content });
                found.extend(content.map(|content| (folder, content)));
            }
            let file = |path| root.content(&root.resolve(path)?);
            contents.push((Accounts { users: file(PASSWD), groups: file(GROUP) }, found));
        }
        if is_whole || round == ROUNDS_MAX {
            let images = images.into_iter().zip(contents);
            return Ok(images.map(|(image, (accounts, found))| ImageFacts::of(image, path, accounts, found)).collect());
        }
    }
    Ok(Vec::new())
}

/// The wanted paths of each layer, by the member that has it.
fn read_layers(
    path: &Path,
    images: &[ArchivedImage],
    interest: &Interest,
    budget: &mut Budget,
    progress: &dyn Fn(ImageProgress<'_>),
) -> Result<HashMap<String, LayerPaths>, ImagesError> {
    // In the order of the archive, which may be packed.
    let mut wanted: BTreeMap<(u64, &str), Vec<&LayerRef>> = BTreeMap::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        wanted.entry((layer.offset, &layer.member)).or_default().push(layer);
    }
    let of: u64 = wanted.values().map(|layers| layers[0].bytes).fold(0, u64::saturating_add);
    let report = |done: u64| progress(ImageProgress { archive: path, step: ImageStep::Layers, bytes: done, of });
    let (mut from, _) = Archive::open(path, &|_| {})?;
    let (mut read, mut done) = (HashMap::new(), 0);
    for ((offset, member), same) in wanted {
        let cut_short = || ImagesError::CutShort {
            path: path.to_owned(),
            what: format!("it ends within {}", printable(member.as_bytes())),
        };
        let wrong = |source| ImagesError::of_read(path, source);
        // A layer without bytes may begin where another one does.
        let ahead = offset.saturating_sub(from.position());
        from.skip(ahead).map_err(wrong)?;
        if from.position() != offset {
            return Err(cut_short());
        }
        let bytes = same[0].bytes;
        let advance = |count| report(done + count);
        let mut raw = Hashed::new(Counted::new(from.by_ref().take(bytes), &advance));
        let result = read_layer(&mut raw, interest, budget);
        let (digest, length) = raw.finish().map_err(wrong)?;
        if length < bytes {
            return Err(cut_short());
        }
        done += bytes;
        let digest = format!("sha256:{digest}");
        let check = |expected: &String, found: &String| match expected == found {
            true => Ok(()),
            false => Err(ImagesError::Digest {
                path: path.to_owned(),
                member: printable(member.as_bytes()),
                expected: printable(expected.as_bytes()),
                found: found.clone(),
            }),
        };
        // What is damaged may be anything else, too.
        for expected in same.iter().filter_map(|layer| layer.digest.as_ref()) {
            check(expected, &digest)?;
        }
        let (paths, unpacked_digest) = result.map_err(|error| match error {
            LayerError::Packing(packing) => {
                ImagesError::Packing { path: path.to_owned(), member: Some(printable(member.as_bytes())), packing }
            }
            other => ImagesError::Content {
                path: path.to_owned(),
                what: format!("the layer {}: {other}", printable(member.as_bytes())),
            },
        })?;
        let unpacked_digest = unpacked_digest.unwrap_or(digest);
        for layer in same {
            check(&layer.unpacked_digest, &unpacked_digest)?;
        }
        read.insert(member.to_owned(), paths);
    }
    Ok(read)
}

/// Reads one layer; with the digest of its unpacked bytes where it was packed.
fn read_layer(
    raw: impl io::Read,
    interest: &Interest,
    budget: &mut Budget,
) -> Result<(LayerPaths, Option<String>), LayerError> {
    let mut from = Unpacked::of(raw)?;
    if let Packing::Other(packing) = from.packing() {
        return Err(LayerError::Packing(packing));
    }
    let mut paths = LayerPaths::default();
    let mut members = Members::new(&mut from);
    while let Some(member) = members.next()? {
        paths.add(member, interest, budget, || members.read_all(FILE_BYTES_MAX).map_err(LayerError::from))?;
    }
    Ok((paths, from.finish()?.map(|digest| format!("sha256:{digest}"))))
}
