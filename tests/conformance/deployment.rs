//! What a deployment is recorded with: its shards, its format.

use lasthit::internals::limits::SHARDS_DEFAULT;
use lasthit::journal::redis::{RedisJournal, RedisOptions};
use lasthit::journal::{CommonJournal as _, JournalError, WorkerJournal as _};
use lasthit::types::ShardId;
use servers::RedisServer;

use crate::fixture::tell;
use crate::redis::{connect, refuses};

#[tokio::test]
async fn a_deployments_shards_are_fixed() {
    let server = RedisServer::start().expect("server");
    let with = |prefix: &str, shards| RedisOptions { prefix: prefix.into(), shards, ..RedisOptions::default() };
    let first = futures_util::future::join_all((0..8).map(|_| async { connect(&server.url()).await })).await;
    assert!(first.into_iter().all(|journal| journal.expect("journal").shards() == SHARDS_DEFAULT));
    let other = RedisJournal::connect(&server.url(), with("lasthit", Some(16))).await;
    refuses(other, "has 8 shards, and 16 are configured");
    let beside = RedisJournal::connect(&server.url(), with("other", Some(16))).await.expect("another prefix");
    assert_eq!(beside.shards(), 16);
    for (prefix, shards) in [("", None), ("a{b}", None), ("a b", None), ("zero", Some(0)), ("many", Some(1025))] {
        refuses(RedisJournal::connect(&server.url(), with(prefix, shards)).await, "use 1 to");
    }
    tell(&server, &["HSET", "new:deployment", "format", "9"]);
    refuses(RedisJournal::connect(&server.url(), with("new", None)).await, "has format 9");
    tell(&server, &["HSET", "odd:deployment", "format", "x"]);
    let odd = RedisJournal::connect(&server.url(), with("odd", None)).await;
    assert!(matches!(odd, Err(JournalError::Unexpected(_))), "{odd:?}");
}

/// The record as the versions before have written it.
#[tokio::test]
async fn a_deployment_of_an_earlier_format_is_taken_over_once_its_settings_fit() {
    let server = RedisServer::start().expect("redis-server");
    let key = "lasthit:deployment";
    let format = || server.ask::<String>(&["HGET", key, "format"]).expect("a format");
    let journal = connect(&server.url()).await.expect("journal");
    let name = journal.survey(ShardId(0), false).await.expect("survey").server;
    for field in ["server", "run", "replid"] {
        let stored: Option<String> = server.ask(&["HGET", key, field]).expect("an answer");
        assert!(stored.is_some(), "{field}");
    }
    assert_eq!(format(), "5");
    for before in ["3", "4"] {
        tell(&server, &["HSET", key, "format", before]);
        let other = RedisOptions { shards: Some(SHARDS_DEFAULT + 1), ..RedisOptions::default() };
        refuses(RedisJournal::connect(&server.url(), other).await, "are configured");
        assert_eq!(format(), before, "who does not join takes nothing over");
        let joined = futures_util::future::join_all((0..4).map(|_| async { connect(&server.url()).await })).await;
        for journal in joined {
            let journal = journal.expect("journal");
            assert_eq!(journal.survey(ShardId(0), false).await.expect("survey").server, name, "it is the same server");
        }
        assert_eq!(format(), "5");
    }
    for other in ["2", "0", "6", "40"] {
        tell(&server, &["HSET", key, "format", other]);
        refuses(connect(&server.url()).await, &format!("has format {other}, this lasthit knows formats 3 to 5"));
        assert_eq!(format(), other);
    }
    tell(&server, &["HSET", key, "format", "6", "durability", "of a newer version"]);
    refuses(connect(&server.url()).await, "has format 6");
}
