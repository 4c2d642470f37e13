//! Cairn as a pod of this machine's K3s or RKE2 server.
//!
//! Invariants: what is rendered follows from the options, the program and what the cluster says, so the same choices give the same bytes;
//! what the operator chose is in the record, and an upgrade without flags repeats it. Once the files are in place the server does the rest,
//! also when this process is gone.

mod access;
mod cluster_check;

use std::collections::BTreeSet;

use anyhow::{Context as _, anyhow};

pub(super) use self::access::{PodAccess, publish_authority};
use super::arguments::Arguments;
use super::choices::Choices;
use super::connection::Connection;
use super::lasting::token_file;
use super::machine::TOKEN;
use super::prepared::{Before, PreparedInstallation, own_program, root_finding};
use crate::auth::Token;
use crate::cli::Failure;
use crate::cli::image::collect;
use crate::cli::k3s::{checked, read_values};
use crate::deploy::k3s::{self, ClientToken, Facts, Settings};
use crate::deploy::oci::gpu::Drivers;
use crate::deploy::oci::{Image, Reference};
use crate::deploy::{
    self, Action, Architecture, Cluster, ClusterNode, Finding, ImageFile, ManagedFile, Plan, Platform, Program,
    Release, Tree,
};
use crate::store;

/// The pod of an installation, and how its cluster is reached.
pub(super) struct Pod {
    pub(super) node: ClusterNode,
    pub(super) settings: Settings,
    /// `None` in a tree that is staged.
    pub(super) connection: Option<Connection>,
}

/// The image that runs the node.
struct PodImage {
    image: Image,
    /// Which drivers its layer for GPUs has; `None` without such a layer.
    gpu_drivers: Option<String>,
    /// What is to be known of the layer, or why there is none.
    findings: Vec<Finding>,
}

/// Works out the installation of a pod.
///
/// * `node`: this machine in its cluster.
pub(super) fn prepare(
    tree: &Tree,
    node: ClusterNode,
    arguments: &Arguments,
) -> Result<(PreparedInstallation, Pod), Failure> {
    if arguments.listen.is_some() {
        let hint = "--listen is for systemd; in a cluster set `address` and `loadbalancer.port` with --set";
        return Err(Failure::usage(anyhow!(hint)));
    }
    let mut before = Before::read(tree)?;
    let installed = Choices::of(before.record.as_ref())?;
    let (installed_namespace, installed_name) = (installed.namespace().to_owned(), installed.name().to_owned());
    let values = arguments.values.as_deref().map(read_values).transpose()?;
    let choices = installed.for_pod(arguments, values);
    let mut settings = checked(&choices.options())?;
    refuse_other_processors(&settings)?;
    before.note_record(Platform::K3s);
    let connection = connect(tree, &node, &settings, &mut before)?;
    let (PodImage { image, gpu_drivers, findings: of_image }, program) = image(tree, &settings)?;
    let mut facts = Facts { image_digest: Some(image.digest()), ..Facts::default() };
    if let Some(Connection { cluster, .. }) = &connection {
        before.findings.extend(cluster_check::placement(tree, &node, cluster, &settings, &mut facts)?);
    }
    let lasting = lasting(tree, &settings, &mut before, &mut facts)?;
    settings.complete(facts).map_err(Failure::usage)?;
    let mut release = Release::new(
        &program,
        env!("CARGO_PKG_VERSION"),
        Platform::K3s,
        store::FORMAT,
        files(tree, &node, &settings),
        None,
    );
    release.image = Some(ImageFile {
        path: node.images().join(format!("cairn-{}.tar", release.name)),
        reference: image.reference().to_string(),
        digest: image.digest(),
        bytes: image.bytes(),
        gpu_drivers,
    });
    let mut plan = before.plan(tree, &release, &program, &lasting, &node.data_dir.join("storage"))?;
    before.note_prefix(tree);
    before.findings.extend(of_image);
    note_fixed(&mut before, &installed_namespace, &installed_name, &settings);
    if tree.is_machine() {
        add_steps(&mut plan, &mut before, &node, connection.as_ref(), &settings)?;
    }
    plan.findings.splice(0..0, before.findings);
    Ok((PreparedInstallation { release, program, lasting, choices, plan }, Pod { node, settings, connection }))
}

/// The image is made of this program, which runs on processors of this machine's kind alone.
fn refuse_other_processors(settings: &Settings) -> Result<(), Failure> {
    let own = Architecture::of_this_machine().map(Architecture::oci).unwrap_or_default();
    let wanted = settings.architectures();
    if wanted.iter().all(|one| one == own) {
        return Ok(());
    }
    Err(Failure::usage(anyhow!(
        "node.arch is '{}', and this program's image is for {own}; leave node.arch out, or build an image for both with \
         `cairn image build --with-platform` and render the manifests with `cairn k3s render --image-archive`",
        wanted.join(",")
    )))
}

/// Reaches the API; why it cannot be reached is an obstacle. `None` in a tree that is staged, too.
fn connect(
    tree: &Tree,
    node: &ClusterNode,
    settings: &Settings,
    before: &mut Before,
) -> Result<Option<Connection>, Failure> {
    if !tree.is_machine() {
        return Ok(None);
    }
    before.findings.extend(root_finding("it writes below /usr/local, /etc and K3s' folders"));
    match Connection::open(tree, node.clone(), settings.namespace(), settings.name()) {
        Ok(connection) => Ok(Some(connection)),
        Err(failure) => {
            before.findings.push(Finding::obstacle("api", failure.to_string()));
            Ok(None)
        }
    }
}

/// The image that runs what is chosen: with a layer for GPUs where they are chosen and this machine has what it takes; and the program in it.
fn image(tree: &Tree, settings: &Settings) -> Result<(PodImage, Program), Failure> {
    let path = own_program()?;
    let plain = |findings| -> Result<PodImage, Failure> {
        Ok(PodImage { image: Image::of(&path)?, gpu_drivers: None, findings })
    };
    let image = match settings.gpu_is_nvidia() {
        None => plain(Vec::new())?,
        Some(is_nvidia) => {
            // NVIDIA's container toolkit brings the driver; 200 MB of others would be of no use.
            let (name, drivers) =
                if is_nvidia { ("none", Drivers::Named(BTreeSet::new())) } else { ("all", Drivers::All) };
            match collect(tree, &drivers) {
                Ok(layer) => {
                    let findings = layer.notes.iter().map(|note| Finding::warning("gpu", note.clone())).collect();
                    let image = Image::with_gpu(&path, Reference::this_release_for_gpus(), layer)?;
                    PodImage { image, gpu_drivers: Some(name.to_owned()), findings }
                }
                Err(failure) => {
                    let message = format!(
                        "the image has no layer for GPUs, and the node searches on the CPU: {failure}. Once that is fixed, run \
                         `cairn install` again for an image with one"
                    );
                    plain(vec![Finding::warning("gpu", message)])?
                }
            }
        }
    };
    let program = image.image.program().clone();
    Ok((image, program))
}

/// The token that clients get, on the machine and in the manifests: this machine's, or a new one.
fn lasting(
    tree: &Tree,
    settings: &Settings,
    before: &mut Before,
    facts: &mut Facts,
) -> Result<Vec<ManagedFile>, Failure> {
    if !tree.is_machine() {
        // One that many machines share would be no secret.
        let message = format!(
            "the image has no token: each machine's own is made by kubectl -n {} exec {} -- /cairn token create NAME, and by \
             `cairn install` on the machine",
            settings.namespace(),
            settings.names().pod()
        );
        before.findings.push(Finding::warning("token", message));
        return Ok(Vec::new());
    }
    if settings.has_external_token() {
        // Of another store of secrets the token comes from there.
        return Ok(Vec::new());
    }
    let token = match tree.read(TOKEN)? {
        Some(bytes) => {
            String::from_utf8(bytes).with_context(|| format!("{TOKEN} is not UTF-8 text"))?.trim().to_owned()
        }
        None => Token::random()?.reveal().to_owned(),
    };
    let file = token_file(&token);
    facts.token = Some(ClientToken::new(token));
    Ok(vec![file])
}

/// What the release puts into the tree: the manifests, which carry the token; in an image also what adds its documents.
fn files(tree: &Tree, node: &ClusterNode, settings: &Settings) -> Vec<ManagedFile> {
    let rendered = k3s::render(settings);
    let file = |(name, text): (String, &str)| ManagedFile {
        path: node.manifests().join(name),
        mode: 0o600,
        bytes: text.as_bytes().to_vec(),
    };
    let mut files = Vec::from(rendered.files().map(file));
    if !tree.is_machine() {
        files.push(deploy::systemd::documents(&deploy::current(tree)));
    }
    files
}

/// Notes where the node that is installed is in another namespace, or has another name: its data cannot move.
fn note_fixed(before: &mut Before, namespace: &str, name: &str, settings: &Settings) {
    let record = before.record.as_ref();
    if !record.is_some_and(|record| record.platform == Platform::K3s && record.current.is_some()) {
        return;
    }
    for (key, installed, wanted, what) in [
        ("namespace", namespace, settings.namespace(), format!("the node is in namespace {namespace}")),
        ("name", name, settings.name(), format!("the node is named {name} in the cluster")),
    ] {
        if installed != wanted {
            let message = format!(
                "{what}, and its data cannot move to {wanted}; keep {key}={installed}, or run `cairn uninstall` first and install a new node"
            );
            before.findings.push(Finding::obstacle(key, message));
        }
    }
}

/// Adds what happens in the cluster, and what it lacks.
fn add_steps(
    plan: &mut Plan,
    before: &mut Before,
    node: &ClusterNode,
    connection: Option<&Connection>,
    settings: &Settings,
) -> Result<(), Failure> {
    if let Some(Connection { cluster, .. }) = connection {
        before.findings.extend(late_import(cluster, node));
        let (lacking, action) = cluster_check::requirements(cluster, settings)?;
        before.findings.extend(lacking);
        plan.actions.extend(action);
    }
    let distribution = node.distribution;
    let steps = [
        format!("wait until {distribution} has applied the manifests"),
        format!("wait until the pod {} of namespace {} is ready", settings.names().pod(), settings.namespace()),
        "ask the node a question".to_owned(),
    ];
    plan.actions.extend(steps.map(|what| Action::Run { what }));
    Ok(())
}

fn late_import(cluster: &Cluster, node: &ClusterNode) -> Option<Finding> {
    (!cluster.imports_while_running()).then(|| {
        let (distribution, version, unit) = (node.distribution, cluster.version(), node.unit());
        let message = format!(
            "{distribution} {version} imports images only when it starts: while this command waits for the pod, run systemctl restart \
             {unit}"
        );
        Finding::warning("image", message)
    })
}
