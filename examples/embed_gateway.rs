//! lasthit inside a server that has sockets of its own: players connect by TCP and claim things by lines of text.
//!
//!     cargo run --example embed_gateway -- 127.0.0.1:7000
//!     printf 'loot ann\nsword\n' | nc 127.0.0.1 7000
//!
//! The first line names the room and the player; every further line is something that the player claims.

use std::sync::Arc;

use lasthit::embed::{Delivery, Gateway, Joining, act};
use lasthit::journal::{Journal, memory::MemoryJournal};
use lasthit::rules::{Claim, RulesBook};
use lasthit::types::{Audience, Outcome, Verdict};
use lasthit::wire::client::close;
use lasthit::worker::{self, WorkerOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that one connection may send.
const CONNECTION_BYTES_MAX: u64 = 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    // Memory: gateway and worker share this process. With a RedisJournal they may be as many processes as wanted.
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(8));
    let rules = RulesBook::new().room("*", || Claim::new(Audience::Room));
    tokio::spawn(worker::run(journal.clone(), rules, WorkerOptions::default(), Default::default(), Default::default()));
    let gateway = Gateway::start(journal).await?;
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let gateway = gateway.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &gateway).await {
                eprintln!("{peer}: {error:#}");
            }
        });
    }
}

async fn serve(stream: TcpStream, gateway: &Gateway) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader.take(CONNECTION_BYTES_MAX)).lines();
    let hello = lines.next_line().await?.unwrap_or_default();
    let (room, player) = hello.split_once(' ').unwrap_or((&hello, ""));
    let mut seat = gateway.join(Joining::new(room.parse()?, player.parse()?))?;
    let mut count = 0;
    loop {
        let answer = tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => {
                    count += 1;
                    // Ids are the player's: the session's name keeps them apart from those of an earlier connection.
                    let claim = act("claim", &format!("{}-{count}", seat.session())).contest(line.trim());
                    match seat.arrive(&claim) {
                        Ok(()) => continue,
                        Err(refusal) => format!("refused: {refusal}"),
                    }
                }
                None => {
                    seat.leave(close::NORMAL);
                    return Ok(());
                }
            },
            delivery = seat.recv() => match delivery {
                Some(Delivery::Welcome(welcome)) => format!("welcome to {room}, {}", welcome.player),
                Some(Delivery::Verdict { frames, .. }) => line_of(frames.verdict()),
                Some(Delivery::Refused(refusal)) => format!("refused: {refusal}"),
                // There is no other gateway to move to.
                Some(Delivery::Move { .. }) => continue,
                Some(Delivery::Close { reason, .. }) => anyhow::bail!("closed: {reason}"),
                None => anyhow::bail!("closed: too slow"),
            },
        };
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

fn line_of(verdict: &Verdict) -> String {
    let who = verdict.player.as_ref().map_or("somebody", |player| player.as_str());
    let Some(what) = &verdict.contest else { return format!("{who}: {}", verdict.kind.as_str()) };
    match (&verdict.outcome, verdict.behind_ns) {
        (Outcome::Granted, _) => format!("{who} gets {what}"),
        (_, Some(behind)) => format!("{who} is late for {what} by {} us", behind / 1_000),
        (outcome, None) => format!("{who} does not get {what}: {outcome:?}"),
    }
}
