//! Secrets and state that others on the machine can reach. No error, for a volume may be mounted so on purpose; but
//! whoever starts a gateway over them should know.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use leastgate_config::{CertificateFiles, GatewayConfig, SecretSource};

/// What stands open, one line each.
pub(crate) fn find(config: &GatewayConfig) -> Vec<String> {
    const OTHERS_WRITE: u32 = 0o002;
    let mut lines = Vec::new();
    let mut secret = |key: &str, path: &Path, shown: &dyn fmt::Display| lines.extend(of_secret(key, path, shown));
    for source in std::iter::once(&config.pepper.current).chain(&config.pepper.previous) {
        if let SecretSource::File(path) = source {
            secret("pepper", path, source);
        }
    }
    for CertificateFiles { key, .. } in certificates(config) {
        secret("tls", key, &key.display());
    }
    if let Some(dir) = &config.state_dir
        && let Some(mode) = mode(dir).filter(|mode| mode & OTHERS_WRITE != 0)
    {
        lines.push(format!(
            "state_dir: everybody on the machine can write {} (mode {mode:04o}): chmod 700",
            dir.display()
        ));
    }
    lines
}

/// That others can read the secret in this file, if they can.
pub(crate) fn of_secret(key: &str, path: &Path, shown: impl fmt::Display) -> Option<String> {
    const OTHERS_READ: u32 = 0o004;
    let mode = mode(path).filter(|mode| mode & OTHERS_READ != 0)?;
    Some(format!("{key}: everybody on the machine can read {shown} (mode {mode:04o}): chmod 600"))
}

/// Every certificate with a key.
fn certificates(config: &GatewayConfig) -> impl Iterator<Item = &CertificateFiles> {
    let listeners = config.listeners.data.tls.iter().chain(&config.listeners.admin_tls);
    let listeners = listeners.flat_map(|tls| std::iter::once(&tls.default).chain(&tls.sni));
    listeners.chain(config.upstreams.iter().filter_map(|upstream| upstream.tls.identity.as_ref()))
}

fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|metadata| metadata.permissions().mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use leastgate_config::parse_gateway;

    use super::*;

    #[test]
    fn a_pepper_that_all_can_read_and_a_folder_that_all_can_write_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let pepper = dir.path().join("pepper");
        write(&pepper, "p").unwrap();
        let text = "environment: prod\nstate_dir: .\nupstreams: { a: { endpoints: [ \"http://h\" ] } }\n\
                    pepper: { current: { file: pepper } }\npolicy: { files: [ p ] }\n";
        let name = dir.path().join("leastgate.yaml");
        let config = parse_gateway(&name.display().to_string(), text).unwrap().config;
        let set = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for (of_pepper, of_dir, lines) in [(0o600, 0o700, 0), (0o640, 0o770, 0), (0o644, 0o755, 1), (0o604, 0o1777, 2)]
        {
            set(&pepper, of_pepper);
            set(dir.path(), of_dir);
            assert_eq!(find(&config).len(), lines, "{of_pepper:o} {of_dir:o}");
        }
        assert!(find(&config)[0].contains("mode 0604"), "{:?}", find(&config));
        let rotating = text.replace("{ file: pepper }", "{ env: NEW }, previous: { file: pepper }");
        let lines = find(&parse_gateway(&name.display().to_string(), &rotating).unwrap().config);
        assert!(lines[0].starts_with("pepper: everybody"), "the previous one still opens doors: {lines:?}");
        let tls = "listeners: { data: { tls: { cert: c, key: k, sni: [ { cert: c, key: pepper } ] } } }\n";
        let config = parse_gateway(&name.display().to_string(), &format!("{text}{tls}")).unwrap().config;
        let lines = find(&config);
        assert!(lines.len() == 3 && lines[1].starts_with("tls: everybody"), "{lines:?}");
    }
}
