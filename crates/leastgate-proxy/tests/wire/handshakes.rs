//! A listener that does handshakes and says what came of them, and clients for it: rustls, `openssl s_client`, curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use leastgate_proxy::tls::{CertificateSet, ConnInfo, HandshakeError, ServerTls};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::server::TlsStream;

use crate::certificates::{Authority, Issued, pem};
use crate::harness::PATIENCE;

/// Serves on one thread, as a worker does.
pub(crate) struct Server {
    pub(crate) tls: ServerTls,
    pub(crate) address: SocketAddr,
    failures: Receiver<HandshakeError>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A set with a certificate for these names and no client certificates.
pub(crate) fn plain_set(authority: &Authority, names: &[&str]) -> CertificateSet {
    CertificateSet { default: authority.issue(names).pair("default"), by_name: Vec::new(), client_ca: None }
}

/// The same, and clients must show a certificate of the second authority.
pub(crate) fn mutual_set(authority: &Authority, clients: &Authority) -> CertificateSet {
    CertificateSet { client_ca: Some(pem("clients.pem", &clients.pem())), ..plain_set(authority, &["a.test"]) }
}

impl Server {
    pub(crate) fn start(set: &CertificateSet) -> Self {
        Self::with(ServerTls::new(set).unwrap())
    }

    pub(crate) fn with(tls: ServerTls) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (tell, failures) = channel();
        let accepting = tls.clone();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(LocalSet::new().run_until(accept(listener, accepting, tell, stopped)));
        });
        Self { tls, address, failures, stop: Some(stop), thread: Some(thread) }
    }

    /// Why the next handshake that fails does.
    pub(crate) fn failure(&self) -> HandshakeError {
        self.failures.recv_timeout(PATIENCE).expect("a handshake to fail")
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take().filter(|_| stopped.is_some()) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    tls: ServerTls,
    failures: Sender<HandshakeError>,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted.unwrap(),
        };
        let (tls, failures) = (tls.clone(), failures.clone());
        spawn_local(async move {
            match tls.accept(stream).await {
                Ok((stream, info)) => answer(stream, &info).await,
                Err(error) => failures.send(error).unwrap_or_default(),
            }
        });
    }
}

/// Answers each head with what the handshake told.
async fn answer(mut stream: TlsStream<tokio::net::TcpStream>, info: &ConnInfo) {
    let (mut read, mut chunk) = (Vec::new(), [0; 1024]);
    let peer: Vec<&str> = info.peer.iter().flat_map(|peer| peer.uris()).collect();
    let told = format!("{} {} {:?} {peer:?}", info.is_tls, info.server_name.as_deref().unwrap_or("-"), info.alpn);
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{told}", told.len());
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        read.extend_from_slice(&chunk[..count]);
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            stream.write_all(reply.as_bytes()).await.unwrap_or_default();
            stream.flush().await.unwrap_or_default();
        }
    }
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A client of rustls.
#[derive(Clone)]
pub(crate) struct Rustls(pub(crate) Arc<ClientConfig>);

impl Rustls {
    pub(crate) fn new(
        roots: RootCertStore,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        own: Option<&Issued>,
    ) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            Some(own) => builder.with_client_auth_cert(own.chain(), own.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    pub(crate) fn trusting(authority: &Authority) -> Self {
        Self::new(authority.roots(), rustls::ALL_VERSIONS, &[], None)
    }

    /// A connection after its handshake and one exchange, with what the server told.
    pub(crate) fn ask(&self, server: &Server, name: &'static str) -> Result<(Stream, String), std::io::Error> {
        let connection = ClientConnection::new(Arc::clone(&self.0), ServerName::try_from(name).unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, server.connect());
        let told = exchange(&mut stream)?;
        Ok((stream, told))
    }
}

/// One request over an established connection.
pub(crate) fn exchange(stream: &mut Stream) -> Result<String, std::io::Error> {
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let (mut read, mut chunk) = (String::new(), [0; 1024]);
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        read.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        if let Some((_, told)) = read.split_once("\r\n\r\n").filter(|(_, told)| told.ends_with(']')) {
            return Ok(told.to_owned());
        }
    }
}

/// What a program prints, both streams, and whether it succeeded. It has to be there: what is left out is not tested.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} can't be run ({error}): `cargo xtask test` installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap_or_default();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
