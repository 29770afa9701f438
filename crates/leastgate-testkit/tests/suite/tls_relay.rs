//! TLS for clients and upstreams that speak in the clear, so that they can be judged by their own bytes behind it too.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use leastgate_testkit::authority::{Authority, Signed};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot::{self, Sender};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Passes connections on, byte by byte and no faster than they are taken, until it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    _end: Sender<()>,
}

impl Relay {
    /// In the clear from clients, and over TLS to `server`, which must be `name` and agree on this protocol.
    pub(crate) fn to(server: SocketAddr, authority: &Authority, name: &str, alpn: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let (connector, name) = (TlsConnector::from(Arc::new(config)), ServerName::try_from(name.to_owned()).unwrap());
        Self::start(move |client| {
            let (connector, name) = (connector.clone(), name.clone());
            async move {
                let server = connector.connect(name, connect(server).await?).await?;
                assert!(server.get_ref().1.alpn_protocol().is_some(), "the protocol is agreed on");
                pass(client, server).await
            }
        })
    }

    /// Over TLS from the gateway, as whom the certificate is for, and in the clear to `server`.
    pub(crate) fn before(server: SocketAddr, signed: &Signed, alpn: &[u8]) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(signed.cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(move |client| {
            let acceptor = acceptor.clone();
            async move { pass(acceptor.accept(client).await?, connect(server).await?).await }
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, (end, ended)) = (listener.local_addr().unwrap(), oneshot::channel());
        let accept = async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection that breaks is the business of those at its ends.
                drop(client.set_nodelay(true).map(|()| tokio::spawn(serve(client))));
            }
        };
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = accept => {}
                }
            });
        });
        Self { address, _end: end }
    }
}

async fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn pass(
    mut a: impl AsyncRead + AsyncWrite + Unpin,
    mut b: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    copy_bidirectional(&mut a, &mut b).await.map(|_| ())
}
