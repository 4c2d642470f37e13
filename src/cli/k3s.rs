//! `cairn k3s`: manifests for K3s and any other Kubernetes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use clap::builder::{PossibleValue, TypedValueParser};
use serde_json::{Value, json};

use super::{Common, Failure, output};
use crate::base::{ByteSize, small_file};
use crate::config::Config;
use crate::deploy::k3s::{
    self, Assignment, ClientToken, KubeObject, NodeSize, Options, Rendered, Settings, ValuesFile, Variant,
};
use crate::deploy::oci::ArchivedImage;

#[derive(Debug, clap::Args)]
#[command(mut_subcommand("render", |render| render.defer(with_keys)), after_help = "\
Examples:
  cairn k3s render | kubectl apply -f -
  cairn k3s render --node-size pi -o manifests/
  cairn k3s render --values site.yaml -o manifests/
  cairn k3s schema > cairn.schema.json")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the manifests of a node, to a folder or as one stream
    #[command(after_help = RENDER_EXAMPLES)]
    Render(RenderArguments),
    /// Print the JSON Schema of the file that `cairn k3s render --values` reads
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
}

const SCHEMA_EXAMPLES: &str = "\
Examples:
  cairn k3s schema > cairn.schema.json

An editor with a YAML language server completes and checks a file whose first line is
  # yaml-language-server: $schema=cairn.schema.json";

const RENDER_EXAMPLES: &str = "\
Examples:
  cairn k3s render | kubectl apply -f -
  cairn k3s render --node-size auto -o /var/lib/rancher/k3s/server/manifests
  cairn k3s render --with ingress,cert-manager --set ingress.host=cairn.example.com
  cairn k3s render --set storage.size=64GiB --set config.search.limit=12
  cairn k3s render --values site.yaml --set storage.class=longhorn
  cairn k3s render --image-archive cairn-0.1.0.tar
  cairn k3s render --kustomize -o base/

No cluster is contacted, and nothing is applied. --help lists the keys of --set.";

/// The long help has every key. It is made when somebody asks for it: every other command would wait for it too.
fn with_keys(render: clap::Command) -> clap::Command {
    render.after_long_help(render_help())
}

/// The examples, and every key.
fn render_help() -> String {
    let mut text = format!("{RENDER_EXAMPLES}\n\nKeys of --set:\n");
    for key in k3s::keys() {
        let default = if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
        text.push_str(&format!("  {}\n          {}{default}\n", key.name, key.about));
    }
    text.push_str(
        "  config.SECTION.KEY\n          one of Cairn's own settings; `cairn serve --print-config` shows all of them",
    );
    text
}

#[derive(Debug, clap::Args)]
struct RenderArguments {
    /// Folder for the two files, cairn-namespace.yaml and cairn.yaml for a node named cairn [default: standard output]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write a base for Kustomize into the folder
    #[arg(long, requires = "output")]
    kustomize: bool,
    /// Add something: cert-manager, documents, external-secrets, gpu, ingress, loadbalancer, monitoring
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = VariantParser, hide_possible_values = true)]
    with: Vec<Variant>,
    /// File of settings, YAML or, by its ending, TOML; other options override it. `cairn k3s schema` prints its JSON Schema
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    values: Option<PathBuf>,
    /// Set a key
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    /// How big the node is: pi (for 260,000 passages), small (850,000), medium (3.4 million), large (13.6 million), its memory such
    /// as 4GiB, or auto for this machine [default: small]
    #[arg(long, value_name = "SIZE", value_parser = node_size)]
    node_size: Option<NodeSize>,
    /// The image by name and tag [default: the one of this version]
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// Digest of the image; the pod then names the image by its digest alone
    #[arg(long, value_name = "sha256:HEX")]
    image_digest: Option<String>,
    /// Archive of `cairn image build`: the pod names its image by name and digest, and runs on the processors that it is for
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "image_digest"], value_hint = clap::ValueHint::FilePath)]
    image_archive: Option<PathBuf>,
    /// File with a token for clients, rendered as a Secret [default: none; the node makes its own]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Reads what `--with` takes, and lets shells know what that is.
#[derive(Clone)]
pub(super) struct VariantParser;

impl TypedValueParser for VariantParser {
    type Value = Variant;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Variant, clap::Error> {
        // Its own error says what was meant.
        Variant::from_str.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Variant::ALL.iter().map(|variant| PossibleValue::new(variant.name()))))
    }
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Render(arguments) => render(common, arguments),
        Verb::Schema => output::line(&serde_json::to_string_pretty(&k3s::schema()).context("a schema is JSON")?),
    }
}

fn render(common: &Common, arguments: &RenderArguments) -> Result<(), Failure> {
    let token = arguments.token_file.as_deref().map(read_token).transpose()?;
    let archive = arguments.image_archive.as_deref().map(ArchivedImage::open).transpose().map_err(Failure::usage)?;
    let options = Options {
        values: arguments.values.as_deref().map(read_values).transpose()?,
        size: arguments.node_size,
        with: arguments.with.iter().copied().collect(),
        set: arguments.set.clone(),
        image: archive.as_ref().map(|image| image.name.clone()).or_else(|| arguments.image.clone()),
        image_digest: archive.as_ref().map(ArchivedImage::digest).or_else(|| arguments.image_digest.clone()),
        architectures: archive.map(|image| image.architectures),
        token,
        brings_image: false,
    };
    let settings = checked(&options)?;
    if let (true, Some(folder)) = (arguments.kustomize, &arguments.output) {
        return base(common, folder, &settings);
    }
    let rendered = k3s::render(&settings);
    if let Some(folder) = &arguments.output {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        rendered.write_into(folder)?;
    }
    show(common, arguments.output.as_deref(), &settings, &rendered)
}

/// Writes a base for Kustomize.
fn base(common: &Common, folder: &Path, settings: &Settings) -> Result<(), Failure> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let files = k3s::kustomize(settings);
    for (name, text) in &files {
        k3s::write_file(folder, name, text, settings.mode())?;
    }
    let paths: Vec<String> = files.iter().map(|(name, _)| folder.join(name).display().to_string()).collect();
    if common.json {
        let files: Vec<Value> = paths.iter().map(|path| json!({"path": path})).collect();
        return output::json(&json!({"namespace": settings.namespace(), "image": settings.image(), "files": files}));
    }
    paths.iter().try_for_each(|path| output::line(path))
}

/// The settings, where they are good and the node would take its configuration. Only here are both known, and what is wrong with either
/// is said at once.
pub(super) fn checked(options: &Options) -> Result<Settings, Failure> {
    let (settings, problems) = Settings::draft(options);
    let config_problems = match Config::read(&k3s::configuration(&settings), "rendered") {
        Ok(_) => Vec::new(),
        Err(error) => error.problems,
    };
    if problems.is_empty() && config_problems.is_empty() {
        return Ok(settings);
    }
    // Of the file where it is there, unless an option took its place.
    let location = |key: &str| {
        let is_set = options.set.iter().any(|one| one.key == key);
        options.values.as_ref().filter(|_| !is_set)?.location(key)
    };
    let own = config_problems.iter().take(k3s::PROBLEMS_MAX).map(|problem| {
        if problem.key == "syntax" {
            // The text as a whole: an option's value that is not TOML.
            return format!("\n  the options `config.*`: {}", problem.message);
        }
        let key = format!("{}{}", k3s::CONFIG, problem.key);
        let location = location(&key).map(|location| format!("{location}: ")).unwrap_or_default();
        format!("\n  {location}{key}: {}", problem.message)
    });
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).chain(own).collect();
    let more = config_problems.len().saturating_sub(k3s::PROBLEMS_MAX);
    let more = if more == 0 { String::new() } else { format!("\n  and {more} more") };
    Err(Failure::usage(anyhow!("the manifests cannot be rendered:{}{more}", lines.concat())))
}

/// Reads the file of `--values`.
pub(super) fn read_values(path: &Path) -> Result<ValuesFile, Failure> {
    let text = text_of(path)?;
    ValuesFile::parse(path, &text).map_err(Failure::usage)
}

fn read_token(path: &Path) -> Result<ClientToken, Failure> {
    Ok(ClientToken::new(text_of(path)?.trim()))
}

/// Reads a file that an option names.
fn text_of(path: &Path) -> Result<String, Failure> {
    let text = small_file::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    text.map_err(Failure::usage)
}

fn show(common: &Common, folder: Option<&Path>, settings: &Settings, rendered: &Rendered) -> Result<(), Failure> {
    if common.json {
        let objects = [vec![k3s::namespace(settings)], k3s::objects(settings)];
        let files: Vec<Value> = rendered
            .files()
            .iter()
            .zip(&objects)
            .map(|((name, text), objects)| {
                let mut file = json!({"name": name, "objects": objects.iter().map(described).collect::<Vec<_>>()});
                match folder {
                    Some(folder) => file["path"] = folder.join(name).display().to_string().into(),
                    None => file["text"] = (*text).into(),
                }
                file
            })
            .collect();
        let size = settings.size().name();
        return output::json(
            &json!({"namespace": settings.namespace(), "image": settings.image(), "node_size": size, "files": files}),
        );
    }
    match folder {
        Some(folder) => {
            rendered.files().iter().try_for_each(|(name, _)| output::line(&folder.join(name).display().to_string()))
        }
        // One stream: the comment at the top of a file ends in a separator.
        None => output::line(format!("{}{}", rendered.namespace, rendered.main).trim_end()),
    }
}

fn described(object: &KubeObject) -> Value {
    json!({"kind": object.kind(), "name": object.metadata().name})
}

/// A size, or `auto` for the machine that this runs on.
pub(super) fn node_size(text: &str) -> Result<NodeSize, String> {
    if text != "auto" {
        return text.parse().map_err(|error: k3s::NodeSizeError| format!("{error}, or auto"));
    }
    Ok(NodeSize::for_memory(memory()))
}

/// Memory of this machine.
pub(super) fn memory() -> ByteSize {
    let system = rustix::system::sysinfo();
    ByteSize(system.totalram.saturating_mul(u64::from(system.mem_unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_cairns_own_settings_have_their_line_too() {
        let text = "storage:\n  size: 10\nconfig:\n  search:\n    limit: 5000\n    languages: 3\n";
        let values = ValuesFile::parse(Path::new("site.yaml"), text).expect("YAML");
        let mut options = Options { values: Some(values), ..Options::default() };
        let said = |options: &Options| checked(options).expect_err("problems").error.to_string();
        let first = said(&options);
        for expected in ["site.yaml:2: storage.size is '10'", "site.yaml:5: config.search.limit: found 5000"] {
            assert!(first.contains(expected), "{expected} in {first}");
        }
        // An option is in no file.
        options.set = vec!["config.search.limit=6000".parse().expect("an assignment")];
        let second = said(&options);
        assert!(second.contains("\n  config.search.limit: found 6000"), "{second}");
    }

    #[test]
    fn a_value_that_is_not_toml_is_told_of_the_options() {
        let set = vec!["config.server=[1".parse().expect("an assignment"), "config.search=[1]".parse().expect("one")];
        let said = checked(&Options { set, ..Options::default() }).expect_err("not TOML").error.to_string();
        assert!(said.contains("the options `config.*`: '[s"), "{said}");
    }

    #[test]
    fn files_of_options_are_read_with_a_bound_and_are_the_callers() {
        for path in ["/dev/zero", "/nonexistent/site.yaml"] {
            let path = Path::new(path);
            assert_eq!(read_values(path).expect_err("no file of settings").code, 2);
            assert_eq!(read_token(path).expect_err("no token").code, 2);
        }
    }

    #[test]
    fn a_collection_for_documents_is_one_that_a_node_takes() {
        let longest = "a".repeat(63);
        for name in ["manuals", "a.b-c_1", "9", &longest, "Manuals", &format!("{longest}a"), "-a", "a b", "é"] {
            let set = [format!("documents.collection={name}"), "documents.config-map=a".to_owned()];
            let set = set.map(|text| text.parse().expect("an assignment")).into();
            let options = Options { with: [Variant::Documents].into(), set, ..Options::default() };
            let is_taken = Settings::new(&options).is_ok();
            assert_eq!(is_taken, crate::collection::is_collection_name(name), "{name}");
        }
    }
}
