//! `leastgate health`: for `HEALTHCHECK` and for people. It asks the ops listener and says what it said.

use std::net::SocketAddr;
use std::time::Duration;

use leastgate_admin::client::ClientError;

use super::first_steps::reachable;
use crate::cli::{Global, Health};
use crate::exit::{Exit, Failure};
use crate::gateway::loading;
use crate::output::{self, Format};

pub(super) fn run(global: &Global, arguments: &Health) -> Result<(), Failure> {
    let address = match arguments.ops {
        Some(address) => address,
        None => {
            let loaded = loading::gateway_file(global, Vec::new());
            loaded
                .map_err(|failure| failure.help("--ops ADDRESS asks an ops listener without a file"))?
                .config
                .listeners
                .ops
        }
    };
    let path = if arguments.ready { "/readyz?verbose" } else { "/livez" };
    let (status, text) = leastgate_admin::client::ops(reachable(address), path, Duration::from_secs(global.timeout))
        .map_err(|error| Failure::new(Exit::Failed, unanswered(address, &error)))?;
    let is_healthy = status == 200;
    match global.output {
        Format::Json => {
            output::json(&serde_json::json!({ "healthy": is_healthy, "status": status, "answer": text.trim_end() }))?;
        }
        Format::Table | Format::Name => output::data(text.trim_end()),
    }
    if is_healthy { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

fn unanswered(address: SocketAddr, error: &ClientError) -> String {
    match error {
        ClientError::Connect { source, .. } => format!(
            "nobody listens at {address}, where the ops listener should be ({source}): is `leastgate serve` running? \
             --ops says where its ops listener is"
        ),
        ClientError::Timeout { waited, .. } => {
            format!("the ops listener at {address} did not answer within {waited:?}")
        }
        _ => format!("what answers at {address} is no ops listener: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_does_not_answer_is_told_in_the_words_of_health() {
        let ask = |address| leastgate_admin::client::ops(address, "/livez", Duration::from_millis(50)).unwrap_err();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let said = unanswered(address, &ask(address));
        assert!(said.ends_with("did not answer within 50ms"), "{said}");
        drop(silent);
        let said = unanswered(address, &ask(address));
        assert!(said.contains("--ops") && !said.contains("--admin-url"), "{said}");
    }
}
