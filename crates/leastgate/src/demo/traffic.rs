//! A little traffic, so that the demo's metrics, events and usage have something to show.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use leastgate_policy::Secret;

/// What is sent in turn: by which token, method and path. Most of it is what a reader does; some of it is refused.
const ROUND: &[(Who, &str, &str)] = &[
    (Who::Bot, "GET", "/v1/orders"),
    (Who::Bot, "GET", "/v1/orders/7b0e"),
    (Who::Reader, "GET", "/v1/orders"),
    (Who::Bot, "GET", "/v1/orders/81c2"),
    (Who::Reader, "GET", "/v1/orders/9f3d"),
    (Who::Bot, "GET", "/v1/orders"),
    (Who::Reader, "PATCH", "/v1/orders/9f3d"),
    (Who::Nobody, "GET", "/healthz"),
    (Who::Nobody, "GET", "/v1/orders"),
];

#[derive(Clone, Copy)]
enum Who {
    Bot,
    Reader,
    Nobody,
}

/// The generator: a few requests a second from a thread of its own, until the process ends.
pub(crate) struct Traffic {
    pub(crate) gateway: SocketAddr,
    pub(crate) bot: Secret,
    pub(crate) reader: Secret,
}

const PAUSE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(2);

impl Traffic {
    /// Starts sending. The first round comes at once, so that there is something to see.
    pub(crate) fn start(self) -> std::io::Result<()> {
        std::thread::Builder::new().name("demo-traffic".into()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        for (who, method, path) in ROUND {
            self.send(*who, method, path);
        }
        for (who, method, path) in ROUND.iter().cycle() {
            std::thread::sleep(PAUSE);
            self.send(*who, method, path);
        }
    }

    /// One request on a connection of its own; a failure is nobody's loss.
    fn send(&self, who: Who, method: &str, path: &str) {
        let credential = match who {
            Who::Bot => format!("Authorization: Bearer {}\r\n", self.bot.expose()),
            Who::Reader => format!("Authorization: Bearer {}\r\n", self.reader.expose()),
            Who::Nobody => String::new(),
        };
        let host = self.gateway;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: leastgate-demo\r\n{credential}Connection: close\r\n\r\n"
        );
        let _ = exchange(self.gateway, head.as_bytes());
    }
}

fn exchange(address: SocketAddr, head: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(head)?;
    std::io::copy(&mut stream.take(1 << 20), &mut std::io::sink())?;
    Ok(())
}
