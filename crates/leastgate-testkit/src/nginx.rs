//! nginx of the system's packages as upstream: unprivileged, in a folder and on a port of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::deadline::{PATIENCE, within};
use crate::paths::program;
use crate::process::Process;

/// A running nginx with the orders API of the suites.
#[derive(Debug)]
pub struct Nginx {
    // Dropped first: the process ends before its folder goes.
    _process: Process,
    dir: TempDir,
    address: SocketAddr,
    is_tls: bool,
}

/// Files for nginx with TLS: it shows a certificate, and lets in who shows one of the authority.
#[derive(Clone, Copy, Debug)]
pub struct NginxTls<'a> {
    /// The certificate it shows.
    pub cert: &'a Path,
    /// Its key.
    pub key: &'a Path,
    /// Who signs those of its clients.
    pub client_ca: &'a Path,
}

impl Nginx {
    /// Starts it. nginx can't take port 0, so a free port is looked for; if another process was faster, another one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_as(None)
    }

    /// The same behind TLS, in HTTP/1.1 and HTTP/2.
    #[must_use]
    pub fn start_tls(tls: NginxTls<'_>) -> Self {
        Self::start_as(Some(tls))
    }

    fn start_as(tls: Option<NginxTls<'_>>) -> Self {
        (0..5).find_map(|_| Self::try_start(tls)).expect("nginx starts on one of five free ports")
    }

    fn try_start(tls: Option<NginxTls<'_>>) -> Option<Self> {
        let dir = TempDir::new().expect("a temporary folder can be made");
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("loopback has a free port");
        fs::create_dir(dir.path().join("html")).expect("the temporary folder can be written");
        fs::write(dir.path().join("html/big.bin"), vec![b'n'; 8 << 20]).expect("the temporary folder can be written");
        fs::write(dir.path().join("nginx.conf"), config(dir.path(), address, tls))
            .expect("the temporary folder can be written");
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf")).args([
            "-e",
            "error.log",
            "-g",
            "daemon off;",
        ]);
        let mut process = Process::spawn("nginx", &mut command);
        within(PATIENCE, || (TcpStream::connect(address).is_ok() || !process.is_running()).then_some(()))?;
        process.is_running().then_some(Self { _process: process, dir, address, is_tls: tls.is_some() })
    }

    /// As an endpoint of `leastgate.yaml`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http{}://{}", if self.is_tls { "s" } else { "" }, self.address)
    }

    /// Lines of the access log: method, target, host, authorization, subject, status.
    #[must_use]
    pub fn access_log(&self) -> Vec<String> {
        self.lines("access.log")
    }

    /// For each request: target, protocol, name asked for by SNI, serial number of the certificate that was shown, and
    /// which request of its connection it was.
    #[must_use]
    pub fn tls_log(&self) -> Vec<String> {
        self.lines("tls.log")
    }

    fn lines(&self, log: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join(log)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn config(dir: &Path, address: SocketAddr, tls: Option<NginxTls<'_>>) -> String {
    let dir = dir.display();
    let (ssl, tls) = match tls {
        None => ("", String::new()),
        Some(NginxTls { cert, key, client_ca }) => (
            "ssl http2",
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_verify_client on; ssl_client_certificate {}; \
                 access_log {dir}/tls.log tls;",
                cert.display(),
                key.display(),
                client_ca.display()
            ),
        ),
    };
    // A worker of another user could not read the folder, so where root runs the tests root runs the worker.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    format!(
        r#"{user}
master_process off; # one process: a worker would outlive a master that is killed
pid {dir}/nginx.pid;
events {{ worker_connections 512; }}
http {{
  log_format seen '$request_method|$request_uri|$host|$http_authorization|$http_x_leastgate_subject|$status|$request_length';
  log_format tls '$request_uri|$server_protocol|$ssl_server_name|$ssl_client_serial|$connection_requests';
  access_log {dir}/access.log seen;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  client_max_body_size 128m;
  default_type application/json;
  keepalive_requests 100000;
  server {{
    listen {address} {ssl};
    {tls}
    root {dir}/html;
    location = /healthz {{ return 200 '{{"status":"ok"}}'; }}
    location = /v1/empty {{ return 204; }}
    location = /v1/unchanged {{ return 304; }}
    location = /v1/moved {{ return 302 https://elsewhere.test/; }}
    # Passed on, because that reads a request's body; `return` alone would answer before it.
    location /v1/ {{ proxy_pass http://unix:{dir}/echo.sock; proxy_set_header Host $host; }}
    location /files/ {{ alias {dir}/html/; }}
    location / {{ return 200 '{{"nginx":"fallback $request_uri"}}'; }}
  }}
  server {{
    listen unix:{dir}/echo.sock;
    access_log off;
    location / {{ return 200 '{{"nginx":"$request_method $request_uri","subject":"$http_x_leastgate_subject"}}'; }}
  }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curl::curl;
    use crate::deadline::until;

    #[test]
    fn it_answers_and_logs() {
        let nginx = Nginx::start();
        let got = curl(&[&format!("{}/v1/orders?a=1", nginx.url())]);
        assert_eq!((got.status, got.body.contains("GET /v1/orders?a=1")), (200, true), "{got:?}");
        let line = until("the access line", PATIENCE, || {
            nginx.access_log().into_iter().find(|line| line.contains("/v1/orders"))
        });
        assert!(line.starts_with("GET|/v1/orders?a=1|127.0.0.1|"), "{line}");
    }
}
