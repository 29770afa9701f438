//! The commands that make a first token and try it, as they work with the files at hand: told by `init` and by a
//! `serve` without tokens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use leastgate_admin::api::Ttl;
use leastgate_policy::{PolicySnapshot, PolicySpec};

use crate::output::BOLD;

/// What the commands are made of.
pub(super) struct FirstSteps {
    /// ` --config FILE` where the commands would not find the file by themselves.
    config: String,
    /// What the token is to hold: `--role reader`.
    holds: String,
    life: Ttl,
    host: Option<String>,
    path: String,
}

impl FirstSteps {
    /// For a policy in force. `None`: there is nothing that a token could be given.
    pub(super) fn of(spec: &PolicySpec, snapshot: &PolicySnapshot, config: Option<&Path>) -> Option<Self> {
        let role = snapshot.role_names().min_by_key(|name| (*name != "reader", *name));
        let scope = snapshot.scope_names().next();
        let (flag, name) = role.map(|role| ("role", role)).or_else(|| scope.map(|scope| ("scope", scope)))?;
        let (roles, scopes): (&[&str], &[&str]) = if flag == "role" { (&[name], &[]) } else { (&[], &[name]) };
        let longest = snapshot.longest_life(roles, scopes).ok().flatten().map(|(life, _)| Ttl::from(life));
        let api = spec.apis.first();
        let host = api.and_then(|api| api.hosts.first()).map(|host| host.value.replace('*', "any"));
        Some(Self {
            config: config.map(|path| format!(" --config {}", path.display())).unwrap_or_default(),
            holds: format!("--{flag} {name}"),
            life: longest.map_or(Ttl::DAY, |life| life.min(Ttl::DAY)),
            host,
            path: api.map_or_else(|| "/".to_owned(), |api| api.base.value.clone()),
        })
    }

    /// The commands, a line each, against a gateway that listens there, with TLS or without.
    pub(super) fn commands(&self, data: SocketAddr, is_tls: bool) -> String {
        let Self { config, holds, life, host, path } = self;
        let data = reachable(data);
        let scheme = if is_tls { "https" } else { "http" };
        let url = host.as_ref().map_or_else(|| path.clone(), |host| format!("{scheme}://{host}{path}"));
        let asked = match host {
            // The certificate is for the host, and so is what SNI asks for.
            Some(host) if is_tls => format!("--connect-to ::{data} https://{host}{path}"),
            Some(host) => format!("-H \"Host: {host}\" http://{data}{path}"),
            None => format!("{scheme}://{data}{path}"),
        };
        let lines = [
            format!("leastgate token create{config} --name me {holds} --owner me --ttl {life} --secret-file me.token"),
            format!("leastgate check{config} me GET {url}"),
            format!("curl -H \"Authorization: Bearer $(cat me.token)\" {asked}"),
        ];
        lines.map(|line| format!("  {BOLD}{line}{BOLD:#}\n")).concat()
    }
}

/// An address that a client can go to: a listener on every address is asked on loopback.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use leastgate_config::parse_policy;
    use leastgate_policy::{CompileContext, Timestamp};

    use super::*;

    fn steps(policy: &str, config: Option<&str>) -> Option<String> {
        steps_over(policy, config, false)
    }

    fn steps_over(policy: &str, config: Option<&str>, is_tls: bool) -> Option<String> {
        let spec = parse_policy(&[("policy.yaml", policy)]).unwrap().spec;
        let context = CompileContext {
            environment: "prod",
            revision: "r",
            now: Timestamp(1_790_000_000),
            credential_header: http::header::AUTHORIZATION,
            trusted_proxies: vec![],
            well_known: false,
            upstreams: None,
        };
        let snapshot = PolicySnapshot::compile(&spec, &context).unwrap();
        let steps = FirstSteps::of(&spec, &snapshot, config.map(Path::new))?;
        Some(anstream::adapter::strip_str(&steps.commands("0.0.0.0:8080".parse().unwrap(), is_tls)).to_string())
    }

    const HEAD: &str = "version: 1\nenvironments: [ prod ]\n";

    #[test]
    fn they_fit_the_policy_the_file_and_the_address() {
        let policy = format!(
            "{HEAD}apis: {{ a: {{ hosts: [ a.internal ], base: /v1, upstream: u }} }}\n\
             scopes: {{ \"a:r\": {{ api: a, allow: [ \"GET /v1/x\" ] }} }}\n\
             roles: {{ viewer: {{ scopes: [ \"a:r\" ] }} }}\ntoken_rules: {{ max_ttl: 1h }}\n"
        );
        let said = steps(&policy, Some("/etc/x.yaml")).unwrap();
        let lines: Vec<&str> = said.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "leastgate token create --config /etc/x.yaml --name me --role viewer --owner me --ttl 1h --secret-file me.token",
                "leastgate check --config /etc/x.yaml me GET http://a.internal/v1",
                "curl -H \"Authorization: Bearer $(cat me.token)\" -H \"Host: a.internal\" http://127.0.0.1:8080/v1",
            ]
        );
        let said = steps_over(&policy, None, true).unwrap();
        assert!(said.contains("check me GET https://a.internal/v1"), "{said}");
        assert!(said.contains("token)\" --connect-to ::127.0.0.1:8080 https://a.internal/v1"), "{said}");
    }

    #[test]
    fn a_policy_without_roles_has_scopes_and_one_without_both_nothing() {
        let scope = format!(
            "{HEAD}apis: {{ a: {{ base: /, upstream: u }} }}\nscopes: {{ r: {{ api: a, allow: [ \"GET /x\" ] }} }}\n"
        );
        let said = steps(&scope, None).unwrap();
        assert!(said.contains("token create --name me --scope r ") && said.contains("check me GET /\n"), "{said}");
        assert_eq!(steps(HEAD, None), None);
    }
}
