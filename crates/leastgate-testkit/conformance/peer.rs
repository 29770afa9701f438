//! An upstream of somebody else's making as a process: its files in a folder of its own, its port free at the start.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until, within};
use leastgate_testkit::paths::{program, workspace};
use leastgate_testkit::process::Process;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::bed::certify;
use crate::seen::{self, Seen};

/// An interpreter with a dozen modules on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long a line of Apache's log is waited for before its connections are given something to do.
const UNSTIRRED: Duration = Duration::from_secs(1);

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
    Apache,
    Node,
    HttpServer,
    Hypercorn,
    NetHttp,
    Grpcio,
}

/// What the gateway speaks to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Http1,
    /// HTTP/2 over TLS, agreed on by ALPN.
    Http2Tls,
    /// HTTP/2 without asking, in the clear.
    Http2Clear,
}

/// A running upstream.
pub(crate) struct Peer {
    kind: Kind,
    wire: Wire,
    dir: TempDir,
    port: u16,
    process: Option<Process>,
}

impl Peer {
    /// Starts it. None of them takes port 0, so a free one is looked for; if another process was faster, another one.
    pub(crate) fn start(kind: Kind, wire: Wire) -> Self {
        (0..5).find_map(|_| Self::try_start(kind, wire)).unwrap_or_else(|| panic!("{kind:?} starts on no free port"))
    }

    fn try_start(kind: Kind, wire: Wire) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        // Apache's children are another user's.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        certify(dir.path());
        let mut peer = Self { kind, wire, dir, port, process: None };
        peer.write_files();
        peer.try_run().then_some(peer)
    }

    /// Its program again, on the same port.
    pub(crate) fn run_again(&mut self) {
        assert!(self.try_run(), "{:?} does not start again: {}", self.kind, self.process.as_ref().unwrap().stderr());
    }

    fn try_run(&mut self) -> bool {
        let mut process = Process::spawn(self.kind.program(), &mut self.command());
        let address = ("127.0.0.1", self.port);
        let is_up = within(START, || {
            (TcpStream::connect(address).is_ok() || !process.is_running()).then(|| process.is_running())
        });
        self.process = Some(process);
        is_up == Some(true)
    }

    /// Ends it with its children, and waits for that.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if process.is_running() {
            process.signal(Signal::TERM);
        }
        // Its output is not waited for: a child that is left may still hold the pipe.
        let _ = within(PATIENCE, || (!process.is_running()).then_some(()));
        if self.kind == Kind::Apache {
            // One that got the signal while it was starting leaves children behind. None is left: no such group.
            let _ = kill_process_group(Pid::from_raw(process.id().cast_signed()).unwrap(), Signal::KILL);
        }
    }

    /// As an endpoint of `leastgate.yaml`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.wire == Wire::Http2Tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The other keys of the upstream in `leastgate.yaml`.
    pub(crate) fn keys(&self) -> String {
        match self.wire {
            Wire::Http1 => String::new(),
            Wire::Http2Clear => ", http2: true".to_owned(),
            Wire::Http2Tls => {
                format!(", http2: true, tls: {{ ca: \"{}\", name: orders.test }}", self.path("ca.pem").display())
            }
        }
    }

    /// Every request it saw so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        seen::read(&self.path("seen.log"))
    }

    /// Waits for the request of that cell, which must be there once. `stir` makes other requests.
    ///
    /// Over HTTP/2 Apache cleans up behind a stream, which is when it writes its line, and now and then (about once in 700,
    /// and with any client) only when the connection has something else to do.
    pub(crate) fn wait_seen(&self, cell: &str, stir: impl Fn()) -> Seen {
        let of_cell = || self.seen().into_iter().filter(|seen| seen.cell() == cell).collect::<Vec<_>>();
        let stirs = self.kind == Kind::Apache && self.wire != Wire::Http1;
        let began = Instant::now();
        let seen = until("a line in the upstream's own log", PATIENCE, || {
            if stirs && began.elapsed() > UNSTIRRED {
                stir();
            }
            Some(of_cell()).filter(|all| !all.is_empty())
        });
        assert_eq!(seen.len(), 1, "one request in, one out: {seen:?}");
        seen.into_iter().next().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = self.bare_command();
        command.env("PEER_DIR", self.dir.path()).env("PEER_PORT", self.port.to_string());
        command.env("PEER_TLS", if self.wire == Wire::Http2Tls { "1" } else { "0" });
        command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1").current_dir(self.dir.path());
        command
    }

    fn bare_command(&self) -> Command {
        let mut command = match self.kind {
            Kind::Nginx => Command::new(program("nginx")),
            Kind::Haproxy => Command::new(program("haproxy")),
            Kind::Apache => Command::new(program("apache2")),
            Kind::Node => Command::new(program("node")),
            Kind::HttpServer | Kind::Hypercorn | Kind::Grpcio => python(),
            Kind::NetHttp => Command::new(net_http()),
        };
        match self.kind {
            Kind::Nginx => {
                let arguments = ["-e", "error.log", "-g", "daemon off;"];
                command.arg("-p").arg(self.dir.path()).arg("-c").arg(self.path("nginx.conf")).args(arguments)
            }
            Kind::Haproxy => command.arg("-db").arg("-f").arg(self.path("haproxy.cfg")),
            Kind::Apache => command.process_group(0).arg("-DFOREGROUND").arg("-f").arg(self.path("apache.conf")),
            Kind::Node => command.arg(source("node.js")),
            Kind::HttpServer => command.arg(source("http_server.py")),
            Kind::Grpcio => command.arg(source("grpc_server.py")),
            Kind::Hypercorn => self.hypercorn(&mut command),
            Kind::NetHttp => &mut command,
        };
        command
    }

    fn hypercorn<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.args(["-m", "hypercorn", "--bind", &format!("127.0.0.1:{}", self.port), "--keep-alive", "60"]);
        if self.wire == Wire::Http2Tls {
            command.arg("--certfile").arg(self.path("cert.pem")).arg("--keyfile").arg(self.path("key.pem"));
        }
        command.arg("asgi:app").env("PYTHONPATH", source(""))
    }

    fn write_files(&self) {
        for (name, text) in self.kind.files() {
            fs::write(self.path(name), self.filled(text)).unwrap();
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        if matches!(self.kind, Kind::Nginx | Kind::Apache) {
            let files = self.path("files");
            fs::create_dir(&files).unwrap();
            fs::write(files.join("big"), big()).unwrap();
            fs::write(files.join("parts"), "one <!--# echo var=\"none\" default=\"two \" -->three").unwrap();
            fs::write(files.join("plain"), "one two three").unwrap();
            fs::write(files.join("events"), "data: 0123456789\n\n".repeat(300)).unwrap();
        }
    }

    /// A configuration file with its placeholders filled in.
    fn filled(&self, text: &str) -> String {
        let is_root = rustix::process::getuid().is_root();
        let (user, listen) = match (self.kind, self.wire) {
            // A worker of another user could not read the folder, so where root runs the tests root runs the worker.
            (Kind::Nginx, wire) => (if is_root { "user root;" } else { "" }, nginx_listen(wire)),
            (Kind::Apache, wire) => (if is_root { "User www-data\nGroup www-data" } else { "" }, apache_listen(wire)),
            (Kind::Haproxy, Wire::Http2Clear) => ("", "proto h2"),
            _ => ("", ""),
        };
        let dir = self.dir.path().display().to_string();
        let filled = [("{user}", user), ("{listen}", listen), ("{dir}", &dir), ("{port}", &self.port.to_string())];
        filled.iter().fold(text.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn nginx_listen(wire: Wire) -> &'static str {
    match wire {
        Wire::Http1 => "",
        Wire::Http2Tls => "ssl http2",
        Wire::Http2Clear => "http2",
    }
}

fn apache_listen(wire: Wire) -> &'static str {
    match wire {
        Wire::Http1 => "Protocols http/1.1",
        Wire::Http2Clear => "Protocols h2c",
        Wire::Http2Tls => {
            "Protocols h2\nSSLEngine on\nSSLCertificateFile {dir}/cert.pem\nSSLCertificateKeyFile {dir}/key.pem"
        }
    }
}

impl Kind {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Apache => "apache2",
            Self::Node => "node",
            Self::HttpServer | Self::Hypercorn | Self::Grpcio => "python3",
            Self::NetHttp => "net/http",
        }
    }

    /// What it calls itself.
    pub(crate) fn version(self) -> String {
        let said = |command: &mut Command, word: usize| {
            let ended = Process::run(self.program(), command, START);
            let text = ended.stdout + &ended.stderr;
            text.split_whitespace().nth(word).unwrap_or("?").trim_start_matches("nginx/").to_owned()
        };
        match self {
            Self::Nginx => said(Command::new(program("nginx")).arg("-v"), 2),
            Self::Haproxy => {
                said(Command::new(program("haproxy")).arg("-v"), 2).split('-').next().unwrap_or("?").to_owned()
            }
            Self::Apache => said(Command::new(program("apache2")).arg("-v"), 2).replace("Apache/", ""),
            Self::Node => said(Command::new(program("node")).arg("--version"), 0).replace('v', ""),
            Self::HttpServer => said(python().arg("--version"), 1),
            Self::Hypercorn => package("hypercorn"),
            Self::Grpcio => package("grpcio"),
            Self::NetHttp => said(Command::new(program("go")).arg("version"), 2).replace("go", ""),
        }
    }

    /// The files of its folder.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Nginx => &[("nginx.conf", include_str!("peers/nginx.conf"))],
            Self::Haproxy => &[
                ("haproxy.cfg", include_str!("peers/haproxy.cfg")),
                ("haproxy.lua", include_str!("peers/haproxy.lua")),
            ],
            Self::Apache => {
                &[("apache.conf", include_str!("peers/apache.conf")), ("cgi.py", include_str!("peers/cgi.py"))]
            }
            Self::Node | Self::HttpServer | Self::Hypercorn | Self::NetHttp | Self::Grpcio => &[],
        }
    }
}

/// What `/v1/big` answers, and what is sent to `/v1/sum`.
pub(crate) fn big() -> Vec<u8> {
    (0..=250).cycle().take(10 << 20).collect()
}

/// The Python that the tools from PyPI are installed for.
pub(crate) fn python() -> Command {
    Command::new(tools().join("bin/python"))
}

/// What PyPI calls the version of an installed package.
pub(crate) fn package(name: &str) -> String {
    let code = format!("import importlib.metadata as m; print(m.version('{name}'))");
    Process::run("python", python().args(["-c", &code]), START).stdout.trim().to_owned()
}

fn tools() -> PathBuf {
    workspace().join("target/tools/conformance")
}

/// A file of `conformance/peers`.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/peers").join(name)
}

/// The Go program, built once in each run.
fn net_http() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let path = tools().join("net_http");
        let mut build = Command::new(program("go"));
        build.arg("build").arg("-o").arg(&path).arg(source("net_http.go"));
        let ended = Process::run("go build", &mut build, Duration::from_secs(300));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        path
    })
}
