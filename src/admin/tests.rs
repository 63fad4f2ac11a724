use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// An admin on a free port, with its readiness; ends with the token.
async fn started() -> (SocketAddr, Readiness, CancellationToken) {
    let admin = Admin::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
    let (address, readiness, stop) = (admin.address(), Readiness::new(), CancellationToken::new());
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle();
    tokio::spawn(admin.run(readiness.clone(), metrics, stop.clone()));
    (address, readiness, stop)
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("answered");
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).expect("a body"))
}

#[tokio::test]
async fn health_is_not_readiness() {
    let (address, readiness, _stop) = started().await;
    assert_eq!(get(address, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(address, "/readyz").await, (503, "start: nothing has been checked yet\n".to_owned()));
    readiness.pass("listener");
    assert_eq!(get(address, "/readyz").await, (200, "ready\n".to_owned()));
    readiness.note("journal", Some("shards 1, 3: away".to_owned()));
    assert_eq!(get(address, "/readyz").await, (200, "ready\njournal: shards 1, 3: away\n".to_owned()));
    readiness.note("journal", None);
    readiness.fail("journal", "is not\nreachable");
    readiness.fail("draining", "SIGTERM");
    assert_eq!(get(address, "/readyz").await, (503, "draining: SIGTERM\njournal: is not reachable\n".to_owned()));
    readiness.set("journal", Ok::<(), String>(()));
    readiness.pass("draining");
    assert_eq!(get(address, "/readyz").await.0, 200);
}

#[tokio::test]
async fn index_metrics_and_unknown_paths() {
    let (address, ..) = started().await;
    assert!(get(address, "/").await.1.contains("/metrics"));
    assert_eq!(get(address, "/metrics").await.0, 200);
    assert_eq!(get(address, "/etc/passwd").await.0, 404);
}

#[tokio::test]
async fn only_reading_is_answered() {
    let (address, ..) = started().await;
    let ask = async |request: &str| {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answered");
        text.to_lowercase()
    };
    let head = ask("HEAD /healthz").await;
    assert!(head.starts_with("http/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    for method in ["POST", "DELETE", "PUT"] {
        let refused = ask(&format!("{method} /metrics")).await;
        assert!(refused.starts_with("http/1.1 405") && refused.contains("allow: get,head"), "{refused}");
    }
    let metrics = ask("GET /metrics").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{metrics}");
}

#[tokio::test]
async fn it_stops_and_names_a_taken_address() {
    let (address, _, stop) = started().await;
    let error = Admin::bind(address).await.expect_err("taken").to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--admin"), "{error}");
    // An open connection does not outlive the stop either.
    let mut idle = TcpStream::connect(address).await.expect("connected");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut answer = [0; 1024];
    assert_ne!(idle.read(&mut answer).await.expect("answered"), 0);
    stop.cancel();
    let closed = tokio::time::timeout(HANDSHAKE_TIMEOUT / 2, idle.read(&mut answer)).await;
    assert_eq!(closed.expect("in time").unwrap_or(0), 0);
}

#[tokio::test]
async fn idle_connections_do_not_shut_others_out_for_ever() {
    let (address, ..) = started().await;
    let mut idle = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX {
        idle.push(TcpStream::connect(address).await.expect("connected"));
    }
    let mut first = idle.remove(0);
    tokio::time::timeout(HANDSHAKE_TIMEOUT * 2, first.read(&mut [0; 64])).await.expect("closed in time").unwrap_or(0);
    assert_eq!(get(address, "/healthz").await.0, 200);
}
