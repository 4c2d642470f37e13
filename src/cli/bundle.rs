//! `cairn bundle`: one signed file for machines without a network.

use std::io::{self, IsTerminal as _};
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Common, Failure, output};
use crate::base::{ByteSize, Clock as _, SystemClock, small_file};
use crate::config::{Config, ConfigError, Overrides};
use crate::deploy::bundle::{self, Contents, EXTENSION, KeyPair, LockedKey, Plan, PublicKey, SecretKey};
use crate::deploy::{Architecture, OWN_EXECUTABLE};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn bundle keygen -o site.key                     a secret key, and site.pub to verify with
  cairn bundle create -o /media/stick/ --key site.key --documents manual/
  cairn bundle verify cairn-0.1.0.bundle --public-key site.pub
  cairn bundle list cairn-0.1.0.bundle")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a key that signs bundles, and the public key that verifies them
    #[command(after_help = "\
Examples:
  cairn bundle keygen -o site.key
  cairn bundle keygen -o site.key --ask-password

The keys are minisign's: keys of `minisign -G` serve as well. Keep the secret key where bundles are made, and bring the public \
key to the machines separately from the bundles.")]
    Keygen {
        /// File of the secret key; the public one is written next to it, with the ending .pub
        #[arg(short, long, value_name = "KEY")]
        output: PathBuf,
        #[command(flatten)]
        password: Password,
    },
    /// Pack this program, and what you name, into one signed file
    #[command(after_help = "\
Examples:
  cairn bundle create -o /media/stick/ --key site.key
  cairn bundle create -o site.bundle --key site.key --config node.toml --documents manual/ --documents faq/
  cairn bundle create -o site.bundle --key site.key --image nats.tar.gz
  cairn bundle create -o site.bundle --key site.key --with-platform cairn-0.1.0-aarch64-linux")]
    Create(CreateArguments),
    /// Check the signature and every byte
    #[command(after_help = "\
Examples:
  cairn bundle verify cairn-0.1.0.bundle --public-key site.pub
  cairn bundle verify cairn-0.1.0.bundle --public-key RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3

Exit code 1 means: do not use it. The message says why.")]
    Verify {
        /// The bundle
        file: PathBuf,
        #[command(flatten)]
        key: Key,
    },
    /// List what is in a bundle
    #[command(after_help = "\
Examples:
  cairn bundle list cairn-0.1.0.bundle
  cairn bundle list cairn-0.1.0.bundle --public-key site.pub

Without a key it is what the bundle says of itself.")]
    List {
        /// The bundle
        file: PathBuf,
        /// The public key, or its file: checks the signature too
        #[arg(long, value_name = "KEY|FILE")]
        public_key: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArguments {
    /// The file, or a folder for it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Secret key of `cairn bundle keygen` or `minisign -G`
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
    /// File with the key's password [default: ask on the terminal]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A static cairn for Linux [default: this program]
    #[arg(long, value_name = "FILE")]
    executable: Option<PathBuf>,
    /// The static cairn of the same release for another processor: the bundle then installs on both
    #[arg(long, value_name = "FILE")]
    with_platform: Vec<PathBuf>,
    /// Folder of a model besides the built-in one
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Folder of documents
    #[arg(long, value_name = "DIR")]
    documents: Vec<PathBuf>,
    /// Settings of the node to install, in TOML
    #[arg(id = "packed_config", long = "config", value_name = "FILE")]
    configuration: Option<PathBuf>,
    /// Image of another server, as K3s imports it (.tar, .tar.gz, .tar.zst, …)
    #[arg(long, value_name = "TAR")]
    image: Vec<PathBuf>,
}

impl CreateArguments {
    /// The files that are read for a bundle.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let named =
            [Some(&self.key), self.password_file.as_ref(), self.executable.as_ref(), self.configuration.as_ref()];
        let all = named.into_iter().flatten().chain(&self.with_platform).chain(&self.image).map(PathBuf::as_path);
        iter::once(Path::new(OWN_EXECUTABLE)).chain(all)
    }

    /// The folders that go into it.
    fn folders(&self) -> impl Iterator<Item = &Path> {
        self.documents.iter().chain(&self.model).map(PathBuf::as_path)
    }
}

#[derive(Debug, clap::Args)]
struct Key {
    /// The public key, or its file
    #[arg(long, value_name = "KEY|FILE")]
    public_key: String,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Password {
    /// File with a password that protects the secret key
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Ask for a password that protects the secret key
    #[arg(long)]
    ask_password: bool,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Keygen { output, password } => keygen(common, output, password),
        Verb::Create(arguments) => create(common, arguments),
        Verb::Verify { file, key } => verify(common, file, &key.public_key),
        Verb::List { file, public_key } => list(common, file, public_key.as_deref()),
    }
}

fn keygen(common: &Common, path: &Path, password: &Password) -> Result<(), Failure> {
    let password = match &password.password_file {
        Some(file) => Some(password_in(file)?),
        None if password.ask_password => Some(new_password()?),
        None => None,
    };
    let path = &output::file_at(path, || Err(Failure::usage(anyhow!("-o names the file of the key"))))?;
    let pair = KeyPair::generate(password.as_deref())?;
    let public_file = pair.write(path)?;
    let public = pair.public();
    if common.json {
        return output::json(&json!({
            "secret_key_file": path.to_string_lossy(),
            "public_key_file": public_file.to_string_lossy(),
            "public_key": public.to_string(),
            "id": public.id(),
        }));
    }
    output::line(&format!("{}: the secret key {}; keep it where bundles are made", path.display(), public.id()))?;
    output::line(&format!("{}: the public key {public}", public_file.display()))
}

fn create(common: &Common, arguments: &CreateArguments) -> Result<(), Failure> {
    let executable = arguments.executable.as_deref().unwrap_or(Path::new(OWN_EXECUTABLE));
    let name = || Ok(format!("cairn-{}.{EXTENSION}", env!("CARGO_PKG_VERSION")));
    let file = output::file_at(&arguments.output, name)?;
    output::refuse_replacing(&file, arguments.files(), arguments.folders())?;
    let mut plan = Plan::new(executable, &arguments.with_platform)?;
    if let Some(file) = &arguments.configuration {
        // A mistake is found here, where it can be fixed, and not on a distant machine.
        Config::load(Some(file), [], &Overrides::default()).map_err(|error: ConfigError| Failure::usage(error))?;
        plan.set_configuration(file);
    }
    arguments.documents.iter().try_for_each(|folder| plan.add_documents(folder))?;
    arguments.model.iter().try_for_each(|folder| plan.add_model(folder))?;
    arguments.image.iter().try_for_each(|file| plan.add_image(file))?;
    let key = secret_key(&arguments.key, arguments.password_file.as_deref())?;
    let written = plan.write(&file, &key, SystemClock.now())?;
    if common.json {
        let mut answer = description(&written.contents);
        answer["file"] = json!(file.to_string_lossy());
        answer["file_bytes"] = json!(written.bytes);
        answer["key"] = json!(key.public().id());
        answer["public_key"] = json!(key.public().to_string());
        return output::json(&answer);
    }
    let members = output::counted(written.contents.members.len() as u64, "file");
    output::line(&format!(
        "{}: {members}, {}, signed by {}",
        file.display(),
        ByteSize(written.bytes),
        key.public().id()
    ))?;
    output::line(&format!("verify it with: cairn bundle verify {} --public-key {}", file.display(), key.public()))
}

fn verify(common: &Common, file: &Path, key: &str) -> Result<(), Failure> {
    let key = PublicKey::from_text_or_file(key).map_err(Failure::usage)?;
    let bundle = bundle::open(file, &key)?;
    bundle.check()?;
    let contents = bundle.contents();
    if common.json {
        let mut answer = description(contents);
        answer["key"] = json!(key.id());
        answer["comment"] = json!(bundle.comment());
        answer["verified"] = json!(true);
        return output::json(&answer);
    }
    let members = output::counted(contents.members.len() as u64, "file");
    output::line(&format!(
        "{}: good. cairn {} for {}, made {}, {members}, signed by {}",
        file.display(),
        contents.cairn,
        architectures(contents),
        contents.created,
        key.id()
    ))
}

fn list(common: &Common, file: &Path, key: Option<&str>) -> Result<(), Failure> {
    let contents = match key {
        Some(key) => {
            let key = PublicKey::from_text_or_file(key).map_err(Failure::usage)?;
            bundle::open(file, &key)?.contents().clone()
        }
        None => {
            eprintln!("cairn: nothing was verified; give --public-key for that");
            bundle::list_unverified(file)?
        }
    };
    if common.json {
        return output::json(&description(&contents));
    }
    eprintln!("cairn {} for {}, made {}", contents.cairn, architectures(&contents), contents.created);
    let rows = contents.members.iter().map(|member| {
        let digest = member.sha256.to_string();
        vec![member.role.to_string(), ByteSize(member.bytes).to_string(), digest[..16].to_owned(), member.path.clone()]
    });
    output::table(&["role", "size", "sha256", "path"], &["size"], rows.collect())
}

fn description(contents: &Contents) -> Value {
    let members = contents.members.iter().map(|member| {
        json!({
            "path": member.path,
            "role": member.role,
            "bytes": member.bytes,
            "blake3": member.blake3.to_string(),
            "sha256": member.sha256.to_string(),
        })
    });
    json!({
        "format": contents.format,
        "cairn": contents.cairn,
        "architectures": contents.architectures(),
        "created": contents.created.to_string(),
        "bytes": contents.bytes(),
        "members": members.collect::<Vec<Value>>(),
    })
}

/// In words: `x86_64 and aarch64`.
pub(super) fn architectures(contents: &Contents) -> String {
    let names: Vec<_> = contents.architectures().iter().map(Architecture::to_string).collect();
    names.join(" and ")
}

fn secret_key(path: &Path, password_file: Option<&Path>) -> Result<SecretKey, Failure> {
    let key = LockedKey::read(path)?;
    let password = match password_file {
        _ if !key.is_protected() => None,
        Some(file) => Some(password_in(file)?),
        None if io::stdin().is_terminal() => Some(rpassword::prompt_password("Password of the key: ")?),
        None => None,
    };
    Ok(key.unlock(password.as_deref())?)
}

/// The first line of a file.
fn password_in(file: &Path) -> Result<String, Failure> {
    let text = small_file::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(anyhow!("{} holds no password; write one on its first line", file.display()).into()),
    }
}

fn new_password() -> Result<String, Failure> {
    let password = rpassword::prompt_password("Password for the key: ")?;
    if password.is_empty() {
        return Err(Failure::usage(anyhow!("the password is empty; leave --ask-password out for a key without one")));
    }
    if password != rpassword::prompt_password("The same again: ")? {
        return Err(Failure::usage(anyhow!("the two passwords differ; try again")));
    }
    Ok(password)
}
