//! What the keys must agree on among themselves. Each rule looks only at values that fit on their own, so that
//! its error stands beside those of the check and never repeats them.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{AdminAddress, upstream};
use crate::diagnostic::Fault;
use crate::scalar;
use crate::shape::View;

/// Adds what contradicts itself in a document whose defaults are filled in.
pub(super) fn judge(root: View<'_>, faults: &mut Vec<Fault>) {
    data_in_the_open(root, faults);
    admin_in_the_open(root, faults);
    one_address_twice(root, faults);
    store_without_state(root, faults);
    one_file_for_two_sinks(root, faults);
    no_sink_to_wait_for(root, faults);
    upstream::judge(root, faults);
}

fn address<'a>(root: View<'a>, listener: &str) -> Option<(View<'a>, SocketAddr)> {
    let view = root.find("listeners")?.find(listener)?.find("address")?;
    Some((view, view.parse(scalar::socket).ok()?))
}

fn data_in_the_open(root: View<'_>, faults: &mut Vec<Fault>) {
    let Some((view, address)) = address(root, "data") else { return };
    let data = root.find("listeners").and_then(|view| view.find("data"));
    let plaintext = data.and_then(|data| data.find("plaintext")?.flag().ok());
    let tls = data.and_then(|data| data.find("tls"));
    if !address.ip().to_canonical().is_loopback() && plaintext == Some(false) && tls.is_none() {
        let fault = Fault::new(view.at(), "tokens would cross the network in plain text");
        faults.push(fault.hint("give it tls: { cert: FILE, key: FILE }, listen on 127.0.0.1, or say plaintext: true"));
    }
    if let (Some(tls), Some(true)) = (tls, plaintext) {
        let fault = Fault::new(tls.at(), "a listener serves TLS or plain HTTP, and plaintext: true asks for the other");
        faults.push(fault.hint("leave one of them out"));
    }
}

fn admin_in_the_open(root: View<'_>, faults: &mut Vec<Fault>) {
    let Some(admin) = root.find("listeners").and_then(|view| view.find("admin")) else { return };
    let (Some(view), tls) = (admin.find("address"), admin.find("tls")) else { return };
    match (view.parse(AdminAddress::parse), tls) {
        (Ok(AdminAddress::Tcp(address)), None) if !address.ip().to_canonical().is_loopback() => {
            let fault = Fault::new(view.at(), "off loopback the admin API is served over mutual TLS alone");
            faults.push(fault.hint(
                "give it tls: { cert: FILE, key: FILE, client_ca: FILE }, or listen on 127.0.0.1 or on unix:PATH",
            ));
        }
        (Ok(AdminAddress::Unix(_)), Some(tls)) => {
            let fault = Fault::new(tls.at(), "a unix socket admits by uid, and serves no TLS");
            faults.push(fault.hint("leave tls out, or give an IP address and port"));
        }
        _ => {}
    }
}

fn one_address_twice(root: View<'_>, faults: &mut Vec<Fault>) {
    let listeners: Vec<_> =
        ["data", "ops", "admin"].into_iter().filter_map(|name| Some((name, address(root, name)?))).collect();
    for (position, (name, (view, address))) in listeners.iter().enumerate() {
        for (other, (earlier, taken)) in &listeners[..position] {
            if clash(*address, *taken) {
                // One of the two may be a default, which stands nowhere.
                let at = if view.at().source == 0 { earlier.at() } else { view.at() };
                let message = format!("the listeners {other} ({taken}) and {name} ({address}) have the same port");
                faults.push(Fault::new(at, message));
            }
        }
    }
}

fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let anywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    // Port 0 asks for any free port.
    one.port() != 0 && one.port() == other.port() && (anywhere || one.ip() == other.ip())
}

fn store_without_state(root: View<'_>, faults: &mut Vec<Fault>) {
    let source = root.find("tokens").and_then(|tokens| tokens.find("source"));
    let stored = source.is_some_and(|source| source.text().is_ok_and(|source| source == "store"));
    if stored && root.find("state_dir").is_none() {
        let fault = Fault::new(root.at(), "tokens are kept in a store, and no state_dir says where");
        faults.push(fault.hint("set state_dir, or tokens: { source: declared } to declare them in the policy files"));
    }
}

fn one_file_for_two_sinks(root: View<'_>, faults: &mut Vec<Fault>) {
    let Some(sinks) = root.find("audit").and_then(|audit| audit.find("sinks")) else { return };
    let mut seen: HashMap<&str, View<'_>> = HashMap::new();
    for path in sinks.entries().filter_map(|(_, _, sink)| sink.find("path")) {
        let Ok(text) = path.text() else { continue };
        if let Some(earlier) = seen.insert(text, path) {
            faults.push(Fault::new(path.at(), "two sinks write to the same file").related(earlier.at(), "the other"));
        }
    }
}

/// A class that blocks until it is recorded, and nothing that records it: an audit switched off by accident.
fn no_sink_to_wait_for(root: View<'_>, faults: &mut Vec<Fault>) {
    let Some(audit) = root.find("audit") else { return };
    let Some(sinks) = audit.find("sinks").filter(|sinks| sinks.is_map() && sinks.entries().next().is_none()) else {
        return;
    };
    let mut classes = audit.find("classes").into_iter().flat_map(View::entries);
    if let Some((class, ..)) = classes.find(|(_, _, policy)| policy.text().is_ok_and(|policy| policy == "block")) {
        let fault =
            Fault::new(sinks.at(), format!("audit has no sink, and events of the class {class} must be recorded"));
        faults.push(fault.hint("name a sink, or say drop for every class under audit.classes to run without a record"));
    }
}
