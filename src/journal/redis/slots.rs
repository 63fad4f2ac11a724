//! Which slot of a cluster a key is in, and the tags by which the shards are spread over the slots (rule N10).

use std::fmt::Write as _;

/// How many slots there are.
pub(super) const SLOTS: u16 = 16_384;

/// CRC16 of the XMODEM kind, as the specification of Redis Cluster has it, of each byte alone.
const TABLE: [u16; 256] = {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(text: &str) -> u16 {
    text.bytes().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The slot of a key or a channel.
pub(super) fn slot(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(name)) % SLOTS
}

/// The tag of a shard, without braces: `s<shard>.<k>` with the smallest k whose slot lies in the shard's range, when all slots are cut
/// into as many equal ranges as there are shards. So of nodes with equal ranges of slots each has its equal share of the shards, give or take one.
pub(super) fn tag(shard: u16, shards: u16) -> String {
    let (mut tag, mut k) = (format!("s{shard}."), 0u32);
    let begin = tag.len();
    loop {
        tag.truncate(begin);
        let _ = write!(tag, "{k}");
        if u32::from(slot(&tag)) * u32::from(shards) / u32::from(SLOTS) == u32::from(shard) {
            return tag;
        }
        k += 1;
    }
}

#[cfg(test)]
mod tests {
    use servers::RedisServer;

    use super::*;
    use crate::limits::SHARDS_MAX;

    /// The examples of the specification of Redis Cluster.
    #[test]
    fn a_key_is_in_the_slot_of_its_tag() {
        assert_eq!(crc16("123456789"), 0x31C3);
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_eq!(slot("{user1000}.following"), slot("user1000"));
        assert_eq!(slot("foo{}{bar}"), crc16("foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
        assert_eq!(slot("foo{bar}{zap}"), slot("bar"));
    }

    #[test]
    fn a_server_has_the_same_slots() {
        let options = ["--cluster-enabled", "yes", "--cluster-port", "1"];
        let server = RedisServer::start_with(&options).expect("a server");
        for name in ["", "foo", "{user1000}.x", "foo{}{bar}", "foo{{bar}}zap", "foo{bar}{zap}", "}{", "{", "lasthit:{s7.3}:shard"]
        {
            assert_eq!(server.ask::<u16>(&["CLUSTER", "KEYSLOT", name]).expect("a slot"), slot(name), "{name}");
        }
    }

    #[test]
    fn equal_ranges_of_slots_have_equally_many_shards() {
        for shards in [1, 3, 8, 64, SHARDS_MAX] {
            let tags: Vec<String> = (0..shards).map(|shard| tag(shard, shards)).collect();
            for nodes in [1, 2, 3, 6, 7] {
                let on = |node: u32| tags.iter().filter(|tag| u32::from(slot(tag)) * nodes / u32::from(SLOTS) == node).count();
                let counts: Vec<usize> = (0..nodes).map(on).collect();
                let (less, more) = (usize::from(shards) / nodes as usize, usize::from(shards).div_ceil(nodes as usize));
                let fair = counts.iter().all(|count| (less.saturating_sub(1)..=more + 1).contains(count));
                assert!(fair, "{shards} shards on {nodes} nodes: {counts:?}");
            }
            for (shard, tag) in tags.iter().enumerate() {
                let (name, k) = tag.split_once('.').expect("two parts");
                assert_eq!(name, format!("s{shard}"));
                let in_range = |k: u32| u32::from(slot(&format!("s{shard}.{k}"))) * u32::from(shards) / u32::from(SLOTS);
                let k: u32 = k.parse().expect("a number");
                assert!((0..k).all(|smaller| in_range(smaller) as usize != shard), "{tag} is not the first");
            }
        }
    }

    /// They are in the names of everything that deployments have stored.
    #[test]
    fn tags_stay_what_they_are() {
        let eight: Vec<String> = (0..8).map(|shard| tag(shard, 8)).collect();
        assert_eq!(eight, ["s0.10", "s1.3", "s2.3", "s3.10", "s4.3", "s5.11", "s6.11", "s7.3"]);
    }
}
