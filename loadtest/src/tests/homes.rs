//! How a session finds the host at which its room is at home: small gateways that each say one thing.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::mock::message;
use crate::load::home::{Elsewhere, Known};
use crate::load::joined::{Joined, join, join_known};
use crate::speak::dialect::Dialect;
use crate::speak::frame::Encoding;

/// What a gateway says to everybody.
#[derive(Clone)]
enum Says {
    /// HTTP 421 with this URL and number.
    Misdirected(String, u64),
    /// Close code 4421 with this reason.
    Elsewhere(String),
    /// A welcome with this number.
    Welcome(u64),
    /// Nothing at all.
    Nothing,
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

fn serve(listener: TcpListener, says: Says) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, says.clone()));
        }
    });
}

async fn gateway(says: Says) -> String {
    let (listener, url) = listener().await;
    serve(listener, says);
    url
}

#[expect(clippy::result_large_err, reason = "the handshake's callback has this type")]
async fn answer(mut stream: TcpStream, says: Says) {
    if let Says::Misdirected(url, home) = &says {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.expect("a request") > 0 {}
        assert!(String::from_utf8_lossy(&request).to_lowercase().contains("lasthit-route: 1"), "it says that it can be told");
        let body = json!({"url": url, "home": home, "room": "load-x-0"}).to_string();
        let answer = format!("HTTP/1.1 421 Misdirected Request\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.expect("written");
        return;
    }
    let accept = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        response.headers_mut().insert("sec-websocket-protocol", request.headers()["sec-websocket-protocol"].clone());
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, accept).await.expect("a handshake");
    let said = match says {
        Says::Elsewhere(reason) => Message::Close(Some(CloseFrame { code: 4421.into(), reason: reason.into() })),
        Says::Welcome(home) => {
            let welcome = json!({"t": "welcome", "session": "s-1", "era": 1, "seq": 0, "state": {}, "home": home});
            message(Encoding::Json, &welcome)
        }
        Says::Nothing | Says::Misdirected(..) => return std::future::pending().await,
    };
    let _ = socket.send(said).await;
    while let Some(Ok(_)) = socket.next().await {}
}

async fn joined(url: &str) -> anyhow::Result<Joined> {
    join(Dialect::LasthitJson, url, "load-x-0", "p1").await
}

#[tokio::test]
async fn it_goes_where_it_is_sent_by_either_answer() {
    let home = gateway(Says::Welcome(7)).await;
    let closes = gateway(Says::Elsewhere(format!("{home}#7"))).await;
    let refuses = gateway(Says::Misdirected(closes, 7)).await;
    let joined = joined(&refuses).await.expect("welcomed");
    assert_eq!(joined.known().url(), Some(&*home));
}

#[tokio::test]
async fn it_leaves_a_circle_after_four() {
    let ((one, one_url), (two, two_url)) = (listener().await, listener().await);
    serve(one, Says::Elsewhere(format!("{two_url}#7")));
    serve(two, Says::Misdirected(one_url.clone(), 7));
    let error = joined(&one_url).await.expect_err("a circle");
    assert_eq!(Elsewhere::told(&error).map(|to| to.to_string()), Some(two_url), "the fifth answer");
}

#[tokio::test]
async fn it_follows_no_older_answer() {
    let home = gateway(Says::Welcome(8)).await;
    let old = gateway(Says::Elsewhere(format!("{home}#6"))).await;
    let mut known = Known::default();
    known.welcomed("ws://gone", Some(7));
    let mut again = async |url: &str| join_known(Dialect::LasthitJson, &mut known, url, "load-x-0", "p1").await;
    again(&old).await.expect_err("older");
    let joined = again(&gateway(Says::Misdirected(home.clone(), 8)).await).await.expect("welcomed");
    assert_eq!(joined.known().url(), Some(&*home));
}

#[tokio::test]
async fn a_home_that_says_nothing_is_forgotten_soon() {
    let dead = gateway(Says::Nothing).await;
    let mut known = Known::default();
    let sends = gateway(Says::Misdirected(dead, 7)).await;
    let error = join_known(Dialect::LasthitJson, &mut known, &sends, "load-x-0", "p1").await.expect_err("no welcome");
    assert!(format!("{error:#}").ends_with("no welcome within 2s"), "{error:#}");
    assert_eq!(known.url(), None);
}
