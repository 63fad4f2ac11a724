//! A game server beside lasthit: it joins a room as `server` over WebSocket, places a baron, acts for its own players, and
//! reads every verdict. Players that connect to the gateway themselves fight in the same room. In any language it is the same.
//!
//!     cargo run -- serve
//!     cargo run --example beside_a_server -- ws://127.0.0.1:7777 pit

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "ws://127.0.0.1:7777".to_owned());
    let room = args.next().unwrap_or_else(|| "pit".to_owned());
    let mut socket = join(&url, &room).await?;
    println!("joined {room} at seq {}", next(&mut socket).await?["seq"]);

    // Ids are unique per player and room, for ever: a game server would number its actions behind something random.
    let run = std::process::id();
    send(&mut socket, json!({ "op": "spawn", "id": format!("spawn-{run}"), "contest": "baron", "args": { "hp": 500 } })).await?;
    for (player, damage) in [("ann", 300), ("bob", 300), ("carl", 300)] {
        let id = format!("hit-{run}");
        send(&mut socket, json!({ "op": "hit", "id": id, "as": player, "contest": "baron", "args": { "damage": damage } }))
            .await?;
    }
    let mut answers = 0;
    while answers < 4 {
        let verdict = next(&mut socket).await?;
        if verdict["t"] == "error" {
            bail!("refused: {}", verdict["message"]);
        }
        answers += usize::from(verdict["id"].as_str().is_some_and(|id| id.ends_with(&format!("-{run}"))));
        println!("{}", line_of(&verdict));
    }
    socket.close(None).await.context("close")
}

async fn join(url: &str, room: &str) -> anyhow::Result<Socket> {
    let host = url.strip_prefix("ws://").context("the gateway's url begins with ws://")?;
    let tcp = TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
    tcp.set_nodelay(true)?;
    // Without a key at the gateway the role is believed; with one it is the token's: &token=...
    let address = format!("{url}/v1/room/{room}?player=game&role=server").parse()?;
    let request = ClientRequestBuilder::new(address).with_sub_protocol("lasthit.v1.json");
    Ok(client_async(request, tcp).await.context("handshake")?.0)
}

async fn send(socket: &mut Socket, action: Value) -> anyhow::Result<()> {
    socket.send(Message::text(action.to_string())).await.context("send")
}

async fn next(socket: &mut Socket) -> anyhow::Result<Value> {
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) => return Ok(serde_json::from_str(&text)?),
            Message::Close(frame) => bail!("closed: {frame:?}"),
            _ => {}
        }
    }
    bail!("the connection ended")
}

fn line_of(verdict: &Value) -> String {
    let (player, body) = (verdict["player"].as_str().unwrap_or("?"), &verdict["body"]);
    match (verdict["event"].as_str(), verdict["outcome"].as_str(), verdict["reason"].as_str()) {
        (Some("data"), Some("granted"), _) if body["damage"].is_null() => format!("baron is there with {} points", body["hp"]),
        (Some("data"), Some("granted"), _) if body["hp"] == 0 => format!("{player} slew baron, {} points over", body["overkill"]),
        (Some("data"), Some("granted"), _) => format!("{player} hit baron: {} of {} left", body["hp"], body["max_hp"]),
        (Some("data"), _, Some("late")) => format!("{player} was late by {} ns", verdict["behind_ns"].as_str().unwrap_or("?")),
        (Some("data"), outcome, reason) => format!("{player}: {outcome:?} {reason:?}"),
        (event, ..) => format!("{player}: {}", event.unwrap_or("?")),
    }
}
