//! Which node serves which slot: what nodes say of each other, put together.

use super::super::slots::SLOTS;

/// What one node says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Member {
    id: String,
    /// `host:port`. None if it is not known.
    pub(super) address: Option<String>,
    pub(super) is_primary: bool,
    /// Whether the one that says it is this one.
    is_itself: bool,
    /// The id of its primary.
    of: String,
    /// Its configuration epoch, or that of its primary.
    epoch: u64,
    /// First and last slot of each range.
    ranges: Vec<(u16, u16)>,
}

/// Reads the answer to `CLUSTER NODES`. What is no line of a node is left out. `asked` is the host that was asked: a node may not know
/// its own. With `names` a host's name is preferred to its address.
pub(in super::super) fn members(text: &str, asked: &str, names: bool) -> Vec<Member> {
    text.lines().filter_map(|line| member(line, asked, names)).collect()
}

fn member(line: &str, asked: &str, names: bool) -> Option<Member> {
    let mut words = line.split_ascii_whitespace();
    let (id, at, flags, of) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let epoch = words.nth(2)?.parse().ok()?;
    words.next()?;
    let ranges = words.filter_map(|range| {
        // In brackets are slots that are being moved.
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok().filter(|last| *last < SLOTS)?))
    });
    let has = |flag: &str| flags.split(',').any(|has| has == flag);
    Some(Member {
        id: id.to_owned(),
        address: address(at, asked, names).filter(|_| !has("noaddr") && !has("handshake")),
        is_primary: has("master"),
        is_itself: has("myself"),
        of: of.to_owned(),
        epoch,
        ranges: ranges.collect(),
    })
}

/// `host:port` out of `ip:port@bus-port,name,...`.
fn address(at: &str, asked: &str, names: bool) -> Option<String> {
    let (at, more) = at.split_once(',').unwrap_or((at, ""));
    let (ip, port) = at.split('@').next()?.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = match more.split(',').next() {
        Some(name) if names && !name.is_empty() && !name.contains('=') => name,
        _ if ip.is_empty() => asked,
        _ => ip,
    };
    let brackets = host.contains(':') && !host.starts_with('[');
    Some(if brackets { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// How many replicas the node that said this has, those that are down included: each may be elected one day.
pub(in super::super) fn own_replicas(said: &[Member]) -> u32 {
    let Some(own) = said.iter().find(|member| member.is_itself) else { return 0 };
    u32::try_from(said.iter().filter(|member| !member.is_primary && member.of == own.id).count()).unwrap_or(u32::MAX)
}

/// Which node serves which slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Map {
    /// Address and configuration epoch of primaries with slots.
    pub(super) primaries: Vec<(String, u64)>,
    /// By slot: the index of its primary.
    slots: Vec<Option<usize>>,
}

impl Map {
    /// Of several claims to a slot that of the highest configuration epoch holds, as among the nodes themselves.
    pub(super) fn of(said: &[Vec<Member>]) -> Self {
        let mut map = Self { primaries: Vec::new(), slots: vec![None; usize::from(SLOTS)] };
        let mut epochs = vec![0; usize::from(SLOTS)];
        for member in said.iter().flatten().filter(|member| member.is_primary && !member.ranges.is_empty()) {
            let Some(address) = &member.address else { continue };
            let known = map.primaries.iter().position(|(known, _)| known == address);
            let index = known.unwrap_or_else(|| {
                map.primaries.push((address.clone(), member.epoch));
                map.primaries.len() - 1
            });
            map.primaries[index].1 = map.primaries[index].1.max(member.epoch);
            for slot in member.ranges.iter().flat_map(|(first, last)| *first..=*last).map(usize::from) {
                if map.slots[slot].is_none() || epochs[slot] < member.epoch {
                    (map.slots[slot], epochs[slot]) = (Some(index), member.epoch);
                }
            }
        }
        map
    }

    /// The address of the node that serves a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&str> {
        let index = (*self.slots.get(usize::from(slot))?)?;
        self.primaries.get(index).map(|(address, _)| address.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Redis 7.0, Redis 8 and Valkey 9 say it.
    const SAID: &str = "\
07c3 127.0.0.1:30004@31004,hostname4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,hostname2 master - 0 1426238316232 2 connected 5461-10922
292f 127.0.0.1:30003@31003,,shard-id=69bc master,fail - 0 1426238318243 3 connected 10923-16382 16383
6ec2 :0@0 master,noaddr - 0 1426238316232 5 disconnected
8241 fe80::1:30006@31006 slave,fail 292f 0 1426238317741 6 connected
e7d1 :30001@31001,hostname1 myself,master - 0 0 1 connected 0-5460 [93-<-292f] [77->-67ed]
nonsense
";

    #[test]
    fn what_a_node_says_is_read() {
        let said = members(SAID, "here", false);
        let addresses: Vec<_> = said.iter().map(|member| member.address.as_deref()).collect();
        let expected = ["127.0.0.1:30004", "127.0.0.1:30002", "127.0.0.1:30003", "", "[fe80::1]:30006", "here:30001"];
        assert_eq!(addresses, expected.map(|address| Some(address).filter(|address| !address.is_empty())));
        assert_eq!(own_replicas(&said), 1);
        let named: Vec<_> = members(SAID, "here", true).into_iter().filter_map(|member| member.address).collect();
        let expected = ["hostname4:30004", "hostname2:30002", "127.0.0.1:30003", "[fe80::1]:30006", "hostname1:30001"];
        assert_eq!(named, expected);
        let map = Map::of(&[said]);
        let owners = [0, 93, 5460, 5461, 10_922, 10_923, 16_383].map(|slot| map.owner(slot).unwrap_or(""));
        let [one, two, three] = ["here:30001", "127.0.0.1:30002", "127.0.0.1:30003"];
        assert_eq!(owners, [one, one, one, two, two, three, three]);
    }

    #[test]
    fn the_higher_epoch_has_the_slot() {
        let line = |at: &str, epoch: u64, slots: &str| format!("{at} {at}:1@2 master - 0 0 {epoch} connected {slots}\n");
        // A primary that was deposed and does not know it.
        let (old, new) =
            (line("a", 3, "0-9") + &line("b", 2, "10-19"), line("a", 3, "") + &line("c", 7, "0-9") + &line("b", 2, "10-19"));
        let views: Vec<_> = [&old, &new].iter().map(|text| members(text, "h", false)).collect();
        for views in [[views[0].clone(), views[1].clone()], [views[1].clone(), views[0].clone()]] {
            let map = Map::of(&views);
            assert_eq!([0, 9, 10, 20].map(|slot| map.owner(slot)), [Some("c:1"), Some("c:1"), Some("b:1"), None]);
        }
        assert_eq!(Map::of(&[]).owner(0), None);
    }
}
