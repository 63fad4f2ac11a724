//! The programs that `compare` starts, each in a process of its own, against a Redis of their own.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use servers::RedisServer;
use tokio_tungstenite::tungstenite::Message;

/// Ends with its handle.
struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Part {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        Self(command.arg("part").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("part"))
    }

    /// Waits until it says that it is ready; its output stays open.
    fn ready(mut self) -> Self {
        let mut line = String::new();
        let out = self.0.stdout.as_mut().expect("output");
        BufReader::with_capacity(1, out).read_line(&mut line).expect("line");
        assert_eq!(line, "ready\n");
        self
    }

    /// Waits for its end.
    fn figures(mut self) -> Value {
        let (mut out, mut said) = (String::new(), String::new());
        self.0.stdout.take().expect("output").read_to_string(&mut out).expect("output");
        self.0.stderr.take().expect("errors").read_to_string(&mut said).expect("errors");
        assert!(self.0.wait().expect("status").success(), "{said}");
        serde_json::from_str(out.lines().last().expect("a line")).expect("figures")
    }

    /// Waits for its end, which is an error.
    fn failure(mut self) -> String {
        let mut said = String::new();
        self.0.stderr.take().expect("errors").read_to_string(&mut said).expect("errors");
        assert_eq!(self.0.wait().expect("status").code(), Some(2));
        said
    }
}

fn redis() -> (RedisServer, String) {
    let server = RedisServer::start().expect("redis-server");
    let url = server.url();
    (server, url)
}

#[test]
fn events_through_the_embedding_api_come_back_once_and_in_order() {
    let (_server, url) = redis();
    let _worker = Part::start(&["queue-worker", "--redis", &url]).ready();
    let flood = Part::start(&["queue-producer", "--redis", &url, "--events", "3000"]).figures();
    for fault in ["lost", "doubled", "start_inv"] {
        assert_eq!(flood[fault], 0, "{flood}");
    }
    assert_eq!(flood["n"], 3000);
    assert!(flood["jobs_per_s"].as_f64().is_some_and(|rate| rate > 100.0), "{flood}");
    assert_eq!(flood["p99_us"], Value::Null);
}

#[test]
fn events_at_a_rate_have_latencies_after_the_first_second() {
    let (_server, url) = redis();
    let _worker = Part::start(&["queue-worker", "--redis", &url]).ready();
    let paced = Part::start(&["queue-producer", "--redis", &url, "--events", "600", "--rate", "500"]).figures();
    assert_eq!((&paced["lost"], &paced["n"]), (&0.into(), &600.into()));
    let [p50, p99] = ["p50_us", "p99_us"].map(|key| paced[key].as_f64().expect("a time"));
    assert!(0.0 < p50 && p50 <= p99, "{paced}");
}

#[test]
fn the_floor_is_measured_between_two_processes() {
    let (_server, url) = redis();
    let _worker = Part::start(&["floor-worker", "--redis", &url]).ready();
    let figures = Part::start(&["floor", "--redis", &url, "--entries", "50", "--rate", "1000"]).figures();
    let [p50, p99] = ["p50_us", "p99_us"].map(|key| figures[key].as_f64().expect("a time"));
    assert!(0.0 < p50 && p50 <= p99, "{figures}");
}

#[test]
fn without_its_redis_a_part_says_so() {
    for part in [&["floor", "--entries", "1", "--rate", "1"][..], &["floor-worker"], &["queue-worker"]] {
        let said = Part::start(&[part, &["--redis", "unix:///nonexistent/redis.sock"]].concat()).failure();
        assert!(said.contains("/nonexistent/redis.sock") && said.trim().lines().count() == 1, "{said}");
    }
}

#[tokio::test]
async fn the_echo_sends_back_what_it_is_sent() {
    let address = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").to_string();
    let _echo = Part::start(&["echo", "--listen", &address]).ready();
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/?room=r0")).await.expect("connected");
    for message in [Message::binary(vec![7; 64]), Message::text("two"), Message::binary(vec![8; 3])] {
        socket.feed(message.clone()).await.expect("sent");
        socket.flush().await.expect("sent");
        assert_eq!(socket.next().await.expect("open").expect("message"), message);
    }
}
