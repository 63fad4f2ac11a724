//! The address that a gateway is told to advertise: it looks who answers there.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use servers::{RedisServer, free_address};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::cluster::certificate;
use super::hosts::Host;
use super::support::{GatewayProcess, Process, program, redis};

const WARNS: &str = "does not lead to this host";

fn gateway(redis: &RedisServer, url: &str, listen: &str) -> GatewayProcess {
    let args = ["gateway", "--redis", &redis.url(), "--admin", "127.0.0.1:0", "--listen", listen, "--advertise", url];
    GatewayProcess::of(Process::of(program(&args).args(["--log", "debug"])))
}

/// What it warns of.
fn warns(gateway: &GatewayProcess, url: &str) -> String {
    let line = gateway.process.line_with(WARNS);
    assert!(line.contains(&format!("--advertise {url} ")), "{line}");
    line
}

fn finds_itself(gateway: &GatewayProcess, url: &str) {
    gateway.process.line_with(&format!("--advertise {url} leads to this host"));
    assert!(!gateway.process.lines().iter().any(|line| line.contains(WARNS)), "{:?}", gateway.process.lines());
}

#[test]
fn it_leads_to_the_gateway_or_to_another_one_of_its_host() {
    let redis = redis(&[]);
    let address = free_address().expect("an address").to_string();
    let url = format!("ws://{address}");
    let first = gateway(&redis, &url, &address);
    finds_itself(&first, &url);
    let second = gateway(&redis, &url, "127.0.0.1:0");
    finds_itself(&second, &url);
}

#[test]
fn it_leads_elsewhere() {
    let (mine, other) = (redis(&[]), redis(&[]));
    // On the same machine, but in another deployment.
    let stranger = GatewayProcess::on(&other, &[]);
    let url = format!("ws://{}", stranger.address);
    let line = warns(&gateway(&mine, &url, "127.0.0.1:0"), &url);
    assert!(line.contains("a gateway of another deployment answers"), "{line}");

    // In the same deployment, but on another host.
    let host = Host::up_for(500_000);
    let at = "ws://other.example";
    let there = GatewayProcess::of(host.gateway_at(&mine.url(), &["--advertise", at]));
    let url = format!("ws://{}", there.address);
    let line = warns(&gateway(&mine, &url, "127.0.0.1:0"), &url);
    assert!(line.contains("a gateway of another host of this deployment answers") && line.contains(at), "{line}");

    // What is not ours at all.
    let url = format!("ws://{}", answering("HTTP/1.1 404 Not Found\r\nserver: cache 7\r\ncontent-length: 0\r\n\r\n"));
    let line = warns(&gateway(&mine, &url, "127.0.0.1:0"), &url);
    assert!(line.contains("what answers is no gateway (status 404 from ") && line.contains("cache 7"), "{line}");
    let url = format!("ws://{}", answering("+OK\r\n"));
    let line = warns(&gateway(&mine, &url, "127.0.0.1:0"), &url);
    assert!(line.contains("does not speak HTTP"), "{line}");
}

#[test]
fn it_leads_nowhere() {
    let redis = redis(&[]);
    let refuses = free_address().expect("an address");
    // Takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let silent_at = silent.local_addr().expect("an address");
    for (at, says) in [(refuses, "nothing answers there (Connection refused"), (silent_at, "nothing answers there within 2 s")] {
        let url = format!("ws://{at}");
        let gateway = gateway(&redis, &url, "127.0.0.1:0");
        assert_eq!(gateway.ready().0, 200, "it serves meanwhile");
        let line = warns(&gateway, &url);
        assert!(line.contains(says), "{line}");
        assert_eq!(gateway.ready().0, 200, "and afterwards");
    }
}

#[test]
fn it_speaks_tls() {
    let (redis, dir) = (redis(&[]), tempfile::tempdir().expect("a directory"));
    let [pem, key] = certificate(dir.path());
    let behind = free_address().expect("an address");
    let url = format!("wss://{}", tls_in_front_of(behind, &pem, &key));
    let start = |trusts: &Path| {
        let args =
            ["gateway", "--redis", &redis.url(), "--admin", "127.0.0.1:0", "--listen", &behind.to_string(), "--advertise", &url];
        GatewayProcess::of(Process::of(program(&args).args(["--log", "debug"]).env("SSL_CERT_FILE", trusts)))
    };
    finds_itself(&start(&pem), &url);
    let nobody = dir.path().join("nobody.pem");
    std::fs::write(&nobody, "").expect("written");
    let line = warns(&start(&nobody), &url);
    assert!(line.contains("no TLS is agreed on there") && line.contains("certificate"), "{line}");
}

/// Answers whatever comes with these bytes.
fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let _ = connection.read(&mut [0; 4096]).and_then(|_| connection.write_all(answer.as_bytes()));
        }
    });
    address
}

/// Ends TLS, as a proxy does, for one request of each connection.
fn tls_in_front_of(behind: SocketAddr, pem: &Path, key: &Path) -> SocketAddr {
    let certificates = CertificateDer::pem_file_iter(pem).expect("a file").collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key).expect("a pair");
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").expect("bound"));
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let config = config.clone();
            std::thread::spawn(move || {
                let mut front = StreamOwned::new(ServerConnection::new(config).expect("a connection"), connection);
                let (mut request, mut answer) = ([0; 4096], Vec::new());
                let count = front.read(&mut request).ok()?;
                let mut back = TcpStream::connect(behind).ok()?;
                back.write_all(&request[..count]).ok()?;
                // It closes when it has answered.
                back.read_to_end(&mut answer).ok()?;
                front.write_all(&answer).ok()
            });
        }
    });
    address
}
