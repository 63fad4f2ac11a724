//! `lasthit route`: where rooms are at home, for people and for proxies.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{Hosts, pretty};
use crate::types::{RoomId, ShardId};

/// For which proxy a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proxy {
    /// A map file of HAProxy: shards, or rooms
    Haproxy,
    /// What nginx includes in a map: rooms
    Nginx,
}

/// A room, or a whole shard, and where it is.
struct Route {
    /// None for a shard.
    room: Option<RoomId>,
    shard: u16,
    /// The URL of the home's gateways, and the number of the home; None where nobody takes sessions right now.
    home: Option<(String, u32)>,
}

/// Tells where rooms are; where all shards are, if there are none.
pub(super) fn told(hosts: &Hosts, rooms: &[RoomId], json: bool) -> String {
    let routes = routes(hosts, rooms);
    if json {
        let row = |route: Route| {
            let (url, home) = route.home.unzip();
            json!({ "room": route.room.as_ref().map(RoomId::as_str), "shard": route.shard, "url": url, "home": home })
        };
        let rows: Vec<Value> = routes.into_iter().map(row).collect();
        return pretty(&json!({ "shards": hosts.shards.len(), "routes": rows }));
    }
    let mut text = String::new();
    for Route { room, shard, home } in routes {
        let room = room.map(|room| format!("{room}  ")).unwrap_or_default();
        let home = home.map_or_else(|| "nowhere right now".to_owned(), |(url, number)| format!("{url}  home {number}"));
        let _ = writeln!(text, "{room}shard {shard}  {home}");
    }
    text.pop();
    text
}

/// A map for a proxy from rooms, or from shards if there are none, to hosts with their ports as they are advertised. What is nowhere right now
/// is left out.
///
/// # Errors
/// For nginx without rooms, as it cannot tell the shard of a room: one line.
pub(super) fn map(hosts: &Hosts, rooms: &[RoomId], proxy: Proxy) -> Result<String, String> {
    if proxy == Proxy::Nginx && rooms.is_empty() {
        return Err(
            "nginx cannot tell the shard of a room: name the rooms, as in lasthit route --map nginx quiz lobby".to_owned()
        );
    }
    let count = hosts.shards.len();
    let mut text = format!("# The shard of a room is the CRC-32 of its name, modulo {count}.\n");
    for Route { room, shard, home } in routes(hosts, rooms) {
        let Some((url, _)) = home else { continue };
        let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host);
        let _ = match (proxy, room) {
            (Proxy::Haproxy, Some(room)) => writeln!(text, "{room} {host}"),
            (Proxy::Haproxy, None) => writeln!(text, "{shard} {host}"),
            // Its maps look at case only in expressions.
            (Proxy::Nginx, Some(room)) => writeln!(text, "~^{}$ {host};", room.as_str().replace('.', "[.]")),
            (Proxy::Nginx, None) => Ok(()),
        };
    }
    text.pop();
    Ok(text)
}

fn routes(hosts: &Hosts, rooms: &[RoomId]) -> Vec<Route> {
    let count = u16::try_from(hosts.shards.len()).unwrap_or(u16::MAX);
    let home = |shard: u16| {
        let home = hosts.shards.get(usize::from(shard))?.home.as_ref()?;
        let url = Some(hosts.url(&home.host)).filter(|url| !url.is_empty())?;
        Some((url.to_owned(), home.number))
    };
    if rooms.is_empty() || count == 0 {
        return (0..count).map(|shard| Route { room: None, shard, home: home(shard) }).collect();
    }
    let of_room = |room: &RoomId| {
        let shard = ShardId::of(room, count).0;
        Route { room: Some(room.clone()), shard, home: home(shard) }
    };
    rooms.iter().map(of_room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Beats, Part, ProcessRecord, ShardOwner};
    use crate::types::{Home, HostId, Incarnation};

    /// Three shards: at home on a, on b, and on one that does not beat.
    fn hosts() -> Hosts {
        let host = |name: &str| HostId::new(name).expect("a name");
        let process = |name: &str| {
            let url = format!("wss://{name}.example:7");
            ProcessRecord { url, ..ProcessRecord::new(Incarnation::random(), host(name), Part::Gateway) }
        };
        let home = |name: &str, number| Some(Home { number, host: host(name), address: "wss://old.example".to_owned() });
        let shard = |home| ShardOwner { home, ..ShardOwner::default() };
        Hosts {
            beats: Beats { processes: vec![process("a"), process("b")], ..Beats::default() },
            shards: vec![shard(home("a", 3)), shard(home("b", 4)), shard(home("gone", 5))],
            eligible: Default::default(),
        }
    }

    fn rooms() -> Vec<RoomId> {
        // Of the shards 0, 1 and 2.
        let mut found = vec![None; 3];
        for n in 0..100 {
            let room = RoomId::new(&format!("pit.{n}")).expect("a name");
            let shard = usize::from(ShardId::of(&room, 3).0);
            found[shard].get_or_insert(room);
        }
        found.into_iter().map(|room| room.expect("a room of each shard")).collect()
    }

    #[test]
    fn maps_name_the_hosts_of_rooms_and_shards() {
        let (hosts, rooms) = (hosts(), rooms());
        let head = "# The shard of a room is the CRC-32 of its name, modulo 3.";
        assert_eq!(map(&hosts, &[], Proxy::Haproxy), Ok(format!("{head}\n0 a.example:7\n1 b.example:7")));
        let [a, b] = [&rooms[0], &rooms[1]];
        assert_eq!(map(&hosts, &rooms, Proxy::Haproxy), Ok(format!("{head}\n{a} a.example:7\n{b} b.example:7")));
        let [a, b] = [a, b].map(|room| room.as_str().replace("pit.", "pit[.]"));
        assert_eq!(map(&hosts, &rooms, Proxy::Nginx), Ok(format!("{head}\n~^{a}$ a.example:7;\n~^{b}$ b.example:7;")));
        assert!(map(&hosts, &[], Proxy::Nginx).expect_err("no rooms").contains("name the rooms"));
    }

    #[test]
    fn routes_are_told_in_text_and_json() {
        let (hosts, rooms) = (hosts(), rooms());
        let text = told(&hosts, &rooms[1..], false);
        assert_eq!(text, format!("{}  shard 1  wss://b.example:7  home 4\n{}  shard 2  nowhere right now", rooms[1], rooms[2]));
        assert_eq!(told(&hosts, &[], false).lines().next(), Some("shard 0  wss://a.example:7  home 3"));
        let all: Value = serde_json::from_str(&told(&hosts, &[], true)).expect("JSON");
        let [last, count] = [&all["routes"][2], &all["shards"]];
        assert_eq!((last, count), (&json!({ "room": null, "shard": 2, "url": null, "home": null }), &json!(3)));
    }
}
