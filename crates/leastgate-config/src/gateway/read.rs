//! From the checked document, defaults filled in, to the typed values.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::{
    AdminAddress, AuditConfig, ClassPolicy, Classes, DataListener, FileSink, Fsync, GatewayConfig, Limits, Listeners,
    MetricsConfig, PepperConfig, PolicyFiles, SinkConfig, SinkKind, TokenSource, Workers, credential_header, tls,
    upstream,
};
use crate::diagnostic::Fault;
use crate::scalar;
use crate::secret::SecretSource;
use crate::shape::View;
use crate::source::{Provenance, Sources};

/// Reads a checked document.
pub(super) fn read(root: View<'_>, sources: &Sources) -> Result<GatewayConfig, Fault> {
    let paths = Paths(sources);
    let limits = Limits::read(root.get("limits")?)?;
    let networks = root.get("trusted_proxies")?.items();
    Ok(GatewayConfig {
        environment: root.get("environment")?.text()?.to_owned(),
        state_dir: root.find("state_dir").map(|view| paths.read(view)).transpose()?,
        workers: workers(root.get("workers")?)?,
        listeners: listeners(root.get("listeners")?, paths)?,
        trusted_proxies: networks.map(|network| network.parse(scalar::network)).collect::<Result<_, _>>()?,
        upstreams: upstream::upstreams(root.get("upstreams")?, &limits, paths)?,
        limits,
        retention: root.get("retention")?.parse(scalar::duration)?,
        credential_header: root.get("credential")?.get("header")?.parse(credential_header)?,
        pepper: pepper(root.get("pepper")?, paths)?,
        tokens: choose(
            root.get("tokens")?.get("source")?,
            &[("store", TokenSource::Store), ("declared", TokenSource::Declared)],
        )?,
        policy: PolicyFiles {
            files: root.get("policy")?.get("files")?.items().map(|view| paths.read(view)).collect::<Result<_, _>>()?,
        },
        audit: audit(root.get("audit")?, paths)?,
        metrics: MetricsConfig { max_routes: root.get("metrics")?.get("max_routes")?.count()? },
    })
}

/// Reads paths: one that a file gives is relative to the file.
#[derive(Clone, Copy)]
pub(super) struct Paths<'a>(&'a Sources);

impl Paths<'_> {
    pub(super) fn read(self, view: View<'_>) -> Result<PathBuf, Fault> {
        let path = Path::new(view.text()?);
        let source = self.0.of(view.at()).filter(|source| source.provenance == Provenance::File);
        let folder = source.and_then(|source| Path::new(&source.name).parent());
        Ok(folder.map_or_else(|| path.to_owned(), |folder| folder.join(path)))
    }
}

fn workers(view: View<'_>) -> Result<Workers, Fault> {
    if view.text().is_ok() {
        return Ok(Workers::Auto);
    }
    let count: usize = view.count()?;
    NonZeroUsize::new(count).map(Workers::Count).ok_or_else(|| Fault::new(view.at(), "expected at least 1"))
}

fn listeners(view: View<'_>, paths: Paths<'_>) -> Result<Listeners, Fault> {
    let data = view.get("data")?;
    Ok(Listeners {
        data: DataListener {
            address: data.get("address")?.parse(scalar::socket)?,
            plaintext: data.get("plaintext")?.flag()?,
            well_known: data.get("well_known")?.flag()?,
            tls: data.find("tls").map(|view| tls::listener(view, paths)).transpose()?,
        },
        ops: view.get("ops")?.get("address")?.parse(scalar::socket)?,
        admin: view.get("admin")?.get("address")?.parse(AdminAddress::parse)?,
        admin_tls: view.get("admin")?.find("tls").map(|view| tls::listener(view, paths)).transpose()?,
    })
}

fn pepper(view: View<'_>, paths: Paths<'_>) -> Result<PepperConfig, Fault> {
    let previous = view.find("previous").map(|view| secret(view, paths)).transpose()?;
    Ok(PepperConfig { current: secret(view.get("current")?, paths)?, previous })
}

fn secret(view: View<'_>, paths: Paths<'_>) -> Result<SecretSource, Fault> {
    if let Some(file) = view.find("file") {
        return paths.read(file).map(SecretSource::File);
    }
    if let Some(name) = view.find("env") {
        return name.text().map(|name| SecretSource::Env(name.to_owned()));
    }
    view.get("credential")?.text().map(|name| SecretSource::Credential(name.to_owned()))
}

fn audit(view: View<'_>, paths: Paths<'_>) -> Result<AuditConfig, Fault> {
    let classes = view.get("classes")?;
    let sinks = view.get("sinks")?.entries().map(|(name, _, sink)| {
        Ok(SinkConfig { name: name.to_owned(), kind: sink_kind(sink, paths)?, classes: sink_classes(sink, classes)? })
    });
    Ok(AuditConfig {
        sinks: sinks.collect::<Result<_, Fault>>()?,
        unauthenticated_per_source: view.get("unauthenticated_per_source")?.parse(scalar::rate)?,
        recent: view.get("recent")?.count()?,
    })
}

fn sink_kind(view: View<'_>, paths: Paths<'_>) -> Result<SinkKind, Fault> {
    if view.get("kind")?.text()? == "stdout" {
        return Ok(SinkKind::Stdout);
    }
    Ok(SinkKind::File(FileSink {
        path: paths.read(view.get("path")?)?,
        rotate_size: view.get("rotate_size")?.parse(scalar::size)?,
        rotate_age: view.get("rotate_age")?.parse(scalar::duration)?,
        fsync: choose(view.get("fsync")?, &[("batch", Fsync::Batch), ("never", Fsync::Never)])?,
    }))
}

fn sink_classes(sink: View<'_>, shared: View<'_>) -> Result<Classes, Fault> {
    let class = |key| {
        let own = sink.find("classes").and_then(|classes| classes.find(key));
        choose(own.map_or_else(|| shared.get(key), Ok)?, &[("drop", ClassPolicy::Drop), ("block", ClassPolicy::Block)])
    };
    Ok(Classes { allow: class("allow")?, deny: class("deny")?, admin: class("admin")?, lifecycle: class("lifecycle")? })
}

pub(super) fn choose<T: Copy>(view: View<'_>, words: &[(&str, T)]) -> Result<T, Fault> {
    let text = view.text()?;
    let chosen = words.iter().find(|(word, _)| *word == text);
    chosen.map(|(_, value)| *value).ok_or_else(|| Fault::new(view.at(), "not one of the words known here"))
}
