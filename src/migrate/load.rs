//! From the files on disk to one tree: documents, variables, several files as one, `extends`, `include` and profiles, by the rules of the
//! program that the files were written for.
//!
//! Invariants: each leaf of each file that counts is in the tree or in [`Loaded::replaced`]. Every value has the place where it was written.
//! Variables come from files that the user or the stack names, never from this process. At most [`FILES_MAX`] files are read, and at most
//! [`DEPTH_MAX`] of them because of one another.

mod compose;
mod dialect;
mod env_files;
mod extends;
mod folders;
mod include;
mod notes;
mod reset;
mod shape;
mod short;
mod stack;
mod unique;
mod values;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Path as FilePath, PathBuf};

use self::notes::Notes;
use super::check::check;
use super::env_file::variables;
use super::files::{FileError, Files};
use super::interpolation::{Interpolator, ROOM};
use super::leaf::Path;
use super::source::{Mistake, Position, Source, SourceError};
use super::yaml::{Node, Value};
use super::{Dialect, env_file::Variable};
use crate::base::Fault;

pub use self::notes::Replaced;

/// Most files of one stack, those of `extends` and `include` among them.
const FILES_MAX: usize = 64;
/// Most files, or services, that need one another in a row.
const DEPTH_MAX: usize = 16;
/// Most values of all files, those that `extends` and `include` copy among them.
const VALUES_MAX: usize = 1_000_000;
/// Most times that files are included, for a file may be included again and again.
const INCLUDES_MAX: usize = 256;

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The stack's files, the first one below the others. `-` is standard input.
    pub files: Vec<PathBuf>,
    /// The program that they were written for; nothing to decide by what is in them.
    pub dialect: Option<Dialect>,
    /// A file of variables. Without one, and for `docker compose`, `.env` in the stack's folder is read.
    pub env_file: Option<PathBuf>,
    /// The profiles that are chosen.
    pub profiles: Vec<String>,
    /// Whether the stack's files may name files outside their folder.
    pub allow_outside: bool,
}

/// A stack in one tree.
#[derive(Debug)]
pub struct Loaded {
    /// The program whose rules were followed.
    pub dialect: Dialect,
    /// Why it is this one: `--dialect`, or the signs in the files.
    pub dialect_reason: String,
    /// The name that the files have at the top.
    pub name: Option<String>,
    /// What the files come to.
    pub tree: Node,
    /// What the files say that is not in the tree.
    pub replaced: Vec<Replaced>,
    /// What a reader of the report has to know: variables without a value, and what the program does that nobody would expect.
    pub warnings: Vec<Mistake>,
    /// The variables, for the values of `environment` that are left to the deploying shell.
    pub variables: HashMap<String, String>,
    /// For the files that the stack names.
    pub files: Files,
}

/// Why a stack was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// One of the named files.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The stack's folder, or its `.env`.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that another one names.
    #[error("{at}: {source}")]
    Named {
        /// Where it is named.
        at: Position,
        /// What is wrong with it.
        source: FileError,
    },
    /// What the files say; at least one.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
    /// No file.
    #[error("no file; name the stack's YAML file, or - for standard input")]
    Nothing,
    /// Standard input a second time.
    #[error("- is there twice; standard input can be read once")]
    InputTwice,
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl From<Mistake> for LoadError {
    fn from(mistake: Mistake) -> Self {
        Self::Mistakes(vec![mistake])
    }
}

impl LoadError {
    /// Who can fix it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Source(error) => error.fault(),
            Self::File(source) | Self::Named { source, .. } => source.fault(),
            Self::Mistakes(_) | Self::Nothing | Self::InputTwice => Fault::Caller,
        }
    }
}

/// Loads a stack.
///
/// # Errors
/// When a file cannot be read, or when the program would refuse to merge what the files say.
pub fn load(request: &Request) -> Result<Loaded, LoadError> {
    load_from(request, &mut io::stdin().lock())
}

/// * `input`: what `-` is.
fn load_from(request: &Request, input: &mut dyn Read) -> Result<Loaded, LoadError> {
    let first = request.files.first().ok_or(LoadError::Nothing)?;
    let folder = if is_input(first) { FilePath::new("") } else { first.parent().unwrap_or(FilePath::new("")) };
    let files = Files::new(folder, request.allow_outside)?;
    if request.files.iter().filter(|file| is_input(file)).count() > 1 {
        return Err(LoadError::InputTwice);
    }
    if request.files.len() > FILES_MAX {
        let at = Position { file: first.to_string_lossy().into(), line: 1, column: 1 };
        return Err(Mistake {
            at,
            message: format!("{} files are named, expected at most {FILES_MAX}", request.files.len()),
        }
        .into());
    }
    let mut sources = Vec::new();
    for file in &request.files {
        let source = if is_input(file) { from_input(input)? } else { Source::read(file)? };
        let documents = Node::documents(&source).map_err(LoadError::Mistakes)?;
        let real = file.canonicalize().unwrap_or_else(|_| file.clone());
        sources.push(FileOfStack { start: start_of(&source), real, documents });
    }
    let first_documents: Vec<&Node> = sources.iter().flat_map(|source| source.documents.iter()).collect();
    let (dialect, dialect_reason) = match request.dialect {
        Some(dialect) => (dialect, "--dialect".to_owned()),
        None => dialect::decide(&first_documents),
    };
    let mut notes = Notes::default();
    let mut variables = read_variables(request, dialect, &files, folder, &mut notes)?;
    if dialect == Dialect::Compose {
        name_project(&first_documents, &mut variables);
    }
    let mut loader = Loader {
        dialect,
        folder: folder.to_owned(),
        files,
        notes,
        room: ROOM,
        values: VALUES_MAX,
        includes: 0,
        read: sources.iter().map(|source| source.real.clone()).collect(),
    };
    for source in &sources {
        source.documents.iter().try_for_each(|document| loader.spend(document, &source.start))?;
    }
    let mut tree = match dialect {
        Dialect::Stack => loader.stack(sources, &variables)?,
        Dialect::Compose => {
            let scope = Scope { folder: PathBuf::new(), variables: variables.clone(), chain: Vec::new(), depth: 0 };
            let mut tree = loader.model(sources, &scope)?;
            loader.choose_profiles(&mut tree, &request.profiles, &variables);
            tree
        }
    };
    tree.tag = None;
    let Loader { files, notes, .. } = loader;
    let name = tree.get("name").and_then(shape::as_text).filter(|name| !name.is_empty()).map(str::to_owned);
    let Notes { replaced, warnings } = notes;
    Ok(Loaded { dialect, dialect_reason, name, tree, replaced, warnings, variables, files })
}

fn is_input(file: &FilePath) -> bool {
    file.as_os_str() == "-"
}

fn from_input(input: &mut dyn Read) -> Result<Source, LoadError> {
    // `Source` refuses what is larger; one byte more shows that it is.
    const ENOUGH: u64 = (4 << 20) + 1;
    let mut bytes = Vec::new();
    let read = input.take(ENOUGH).read_to_end(&mut bytes);
    read.map_err(|source| SourceError::Read { path: PathBuf::from("-"), source })?;
    Ok(Source::of("standard input", &bytes)?)
}

fn start_of(source: &Source) -> Position {
    Position { file: source.name().clone(), line: 1, column: 1 }
}

/// The variables of `--env-file`, or of `.env` for `docker compose`.
fn read_variables(
    request: &Request,
    dialect: Dialect,
    files: &Files,
    folder: &FilePath,
    notes: &mut Notes,
) -> Result<HashMap<String, String>, LoadError> {
    let source = match (&request.env_file, dialect) {
        (Some(file), _) => Source::read(file)?,
        (None, Dialect::Stack) => return Ok(HashMap::new()),
        (None, Dialect::Compose) => match unasked(files, FilePath::new(""), folder)? {
            None => return Ok(HashMap::new()),
            Some(source) => {
                let message =
                    "docker compose reads this file where no --env-file is named, and so its variables are used";
                notes.warn(&start_of(&source), message);
                source
            }
        },
    };
    let found = variables(&source, dialect, &|_| None)?;
    Ok(with_values(found))
}

fn with_values(found: Vec<Variable>) -> HashMap<String, String> {
    found.into_iter().filter_map(|variable| Some((variable.name, variable.value?))).collect()
}

/// `.env` in a folder, if there is one.
fn unasked(files: &Files, below: &FilePath, shown: &FilePath) -> Result<Option<Source>, LoadError> {
    let folder = files.root().join(below);
    if !folder.join(".env").is_file() {
        return Ok(None);
    }
    let bytes = files.read(&folder, ".env")?;
    let name = folders::joined(&shown.join(below), FilePath::new(".env"));
    Ok(Some(Source::of(&name.to_string_lossy(), &bytes)?))
}

/// `COMPOSE_PROJECT_NAME` is there for every file: the name that the files have, unless the variable is set.
fn name_project(documents: &[&Node], variables: &mut HashMap<String, String>) {
    let name = documents.iter().rev().find_map(|document| document.get("name").and_then(shape::as_text));
    if let Some(name) = name.filter(|name| !name.contains('$')) {
        let is_name = |letter: &char| matches!(letter, 'a'..='z' | '0'..='9' | '_' | '-');
        let folded: String = name.to_lowercase().chars().filter(is_name).collect();
        let folded = folded.trim_start_matches(['_', '-']);
        if !folded.is_empty() {
            variables.entry("COMPOSE_PROJECT_NAME".to_owned()).or_insert_with(|| folded.to_owned());
        }
    }
}

/// A file that is read.
struct FileOfStack {
    /// Its first character.
    start: Position,
    /// What it is on the disk.
    real: PathBuf,
    documents: Vec<Node>,
}

/// What is the same for all files that `docker compose` loads as one: the stack's, or those of one `include`.
struct Scope {
    /// The folder that names are relative to, below the stack's.
    folder: PathBuf,
    variables: HashMap<String, String>,
    /// The files that include these, from the outermost on.
    chain: Vec<(PathBuf, Position)>,
    /// Files that include these in a row.
    depth: usize,
}

/// Loads the files of one request.
struct Loader {
    dialect: Dialect,
    /// The stack's folder as the user named it, for messages.
    folder: PathBuf,
    files: Files,
    notes: Notes,
    /// What interpolation may still write, in bytes.
    room: usize,
    /// Values that the stack may still have.
    values: usize,
    /// Includes up to here.
    includes: usize,
    /// The files up to here.
    read: HashSet<PathBuf>,
}

impl Loader {
    /// Files for `docker stack deploy`.
    fn stack(&mut self, sources: Vec<FileOfStack>, variables: &HashMap<String, String>) -> Result<Node, LoadError> {
        let mut tree: Option<Node> = None;
        let mut first_version: Option<(String, Position)> = None;
        for source in sources {
            let mut documents = source.documents.into_iter();
            let mut document = map_of(documents.next(), &source.start)?;
            for rest in documents {
                self.notes.drop(&rest, &Path::default(), "docker stack deploy reads the first document of a file only");
            }
            let (version, at) = version_of(&document);
            match &first_version {
                None => first_version = Some((version, at)),
                Some((first, place)) if *first != version => {
                    let message = format!(
                        "found version {version}, expected {first} as in {place}; docker stack deploy refuses files of different versions"
                    );
                    return Err(Mistake { at, message }.into());
                }
                Some(_) => {}
            }
            reset::without_tags(&mut document, &mut self.notes).map_err(LoadError::Mistakes)?;
            self.interpolate(&mut document, variables)?;
            tree = Some(match tree {
                None => document,
                Some(mut before) => {
                    self.count_env_files(&mut before, &mut document, variables);
                    stack::merge(before, document, &mut self.notes)?
                }
            });
        }
        tree.ok_or(LoadError::Nothing)
    }

    /// Files that `docker compose` loads as one.
    fn model(&mut self, sources: Vec<FileOfStack>, scope: &Scope) -> Result<Node, LoadError> {
        let mut tree: Option<Node> = None;
        let start = sources.first().map(|source| source.start.clone());
        let mut bases = extends::Bases::default();
        for mut source in sources {
            for document in std::mem::take(&mut source.documents) {
                let mut document = map_of(Some(document), &source.start)?;
                let was_bare = shape::is_bare(&document);
                let removals = reset::removals(&mut document, &mut self.notes);
                let is_emptied = !was_bare && shape::is_bare(&document);
                self.interpolate(&mut document, &scope.variables)?;
                folders::rebase(&mut document, &scope.folder);
                document = self.with_includes(document, scope, &source.real, &source.start, &removals)?;
                tree = tree.and_then(|mut before| {
                    reset::apply(&removals, &mut before, &Path::default(), &mut self.notes).then_some(before)
                });
                document = self.with_extends(document, scope, &source, &removals, &mut bases)?;
                let merged = match tree {
                    None => document,
                    Some(before) if is_emptied => before,
                    Some(before) => compose::merge(before, document, &Path::default(), &mut self.notes)?,
                };
                tree = Some(compose::without_repetitions(merged, &Path::default(), &mut self.notes)?);
            }
        }
        match (tree, start) {
            (Some(tree), _) => Ok(tree),
            (None, Some(at)) => {
                Err(Mistake { at, message: "found nothing, expected a map with services".to_owned() }.into())
            }
            (None, None) => Err(LoadError::Nothing),
        }
    }

    /// Puts the values of variables into a document.
    fn interpolate(&mut self, document: &mut Node, variables: &HashMap<String, String>) -> Result<(), LoadError> {
        let lookup = |name: &str| variables.get(name).map(String::as_str);
        let interpolator = Interpolator::within(self.room, self.dialect, &lookup);
        let result = values::interpolate(document, self.dialect, &interpolator, &mut self.notes);
        self.room = interpolator.room();
        result.map_err(LoadError::Mistakes)?;
        let mistakes = check(document, self.dialect);
        if mistakes.is_empty() { Ok(()) } else { Err(LoadError::Mistakes(mistakes)) }
    }

    /// Reads a file that another one names.
    ///
    /// * `folder`: that the name is relative to, below the stack's.
    fn read_named(&mut self, folder: &FilePath, name: &str, at: &Position) -> Result<(Source, PathBuf), LoadError> {
        let base = self.files.root().join(folder);
        let real = base.join(name).canonicalize().unwrap_or_else(|_| base.join(name));
        if self.read.insert(real.clone()) && self.read.len() > FILES_MAX {
            return Err(Mistake { at: at.clone(), message: format!("more than {FILES_MAX} files up to here") }.into());
        }
        let bytes = self.files.read(&base, name).map_err(|source| LoadError::Named { at: at.clone(), source })?;
        let shown = folders::joined(&self.folder.join(folder), FilePath::new(name));
        Ok((Source::of(&shown.to_string_lossy(), &bytes)?, real))
    }

    /// Counts the values of a tree.
    fn spend(&mut self, node: &Node, at: &Position) -> Result<(), Mistake> {
        let left = self.values.checked_sub(shape::size(node));
        self.values = left.ok_or_else(|| Mistake {
            at: at.clone(),
            message: format!(
                "the stack has more than {VALUES_MAX} values up to here, those that `extends` and `include` copy among them"
            ),
        })?;
        Ok(())
    }

    /// Takes out the services whose profiles are not chosen.
    fn choose_profiles(&mut self, tree: &mut Node, chosen: &[String], variables: &HashMap<String, String>) {
        let from_file = variables.get("COMPOSE_PROFILES").filter(|_| chosen.is_empty());
        let chosen: HashSet<&str> = match from_file {
            Some(list) => list.split(',').map(str::trim).collect(),
            None => chosen.iter().map(String::as_str).collect(),
        };
        if chosen.contains("*") {
            return;
        }
        let Value::Map(sections) = &mut tree.value else { return };
        let mut emptied = Vec::new();
        for section in sections.iter_mut().filter(|entry| matches!(entry.key.as_str(), "services" | "jobs")) {
            let path = shape::key(&Path::default(), &section.key);
            let Value::Map(services) = &mut section.node.value else { continue };
            if services.is_empty() {
                continue;
            }
            services.retain(|service| {
                let profiles = service.node.get("profiles").map(shape::items).unwrap_or_default();
                let profiles: Vec<&str> = profiles.iter().filter_map(shape::as_text).collect();
                let is_chosen = profiles.is_empty() || profiles.iter().any(|profile| chosen.contains(profile));
                if !is_chosen {
                    let (names, first) = (profiles.join("`, `"), profiles[0]);
                    let reason = format!("the profile `{names}` is not chosen; --profile {first} does");
                    self.notes.drop(&service.node, &shape::key(&path, &service.key), &reason);
                }
                is_chosen
            });
            if services.is_empty() {
                emptied.push(section.key.clone());
            }
        }
        emptied.iter().for_each(|section| shape::without_bare(tree, section));
    }
}

/// A document that is a map.
fn map_of(document: Option<Node>, start: &Position) -> Result<Node, Mistake> {
    match document {
        Some(document @ Node { value: Value::Map(_), .. }) => Ok(document),
        Some(Node { value, at, .. }) => {
            let found = if value == Value::Null { "nothing".to_owned() } else { value.to_string() };
            let found: String = found.chars().take(40).collect();
            Err(Mistake { at, message: format!("found {found}, expected a map with services") })
        }
        None => Err(Mistake { at: start.clone(), message: "found nothing, expected a map with services".to_owned() }),
    }
}

/// The version as docker/cli compares it (`cli/compose/schema`), and where it is.
fn version_of(document: &Node) -> (String, Position) {
    match document.get("version") {
        None => ("3.13".to_owned(), document.at.clone()),
        Some(version) => match version.value.to_string().as_str() {
            "" | "3" => ("3.13".to_owned(), version.at.clone()),
            other => (other.to_owned(), version.at.clone()),
        },
    }
}
