//! What a Redis error means for the caller: try again, or change something.

use redis::{ErrorKind, RedisError};

use super::super::JournalError;

/// Sorts an error of the client library into its class, with the fix where there is one.
pub(super) fn journal_error(error: &RedisError) -> JournalError {
    let text = error.to_string();
    if text.contains("peer certificate") {
        return JournalError::Refused(format!(
            "redis shows a certificate that is not trusted: add its authority to the system's, or name it in SSL_CERT_FILE ({text})"
        ));
    }
    if error.is_timeout() {
        return JournalError::Silent(text);
    }
    if error.is_io_error() || error.is_connection_dropped() {
        return JournalError::Unreachable(text);
    }
    let said = error.detail().unwrap_or_default();
    if error.kind() == ErrorKind::AuthenticationFailed {
        return login(said);
    }
    let refused = |why: &str| JournalError::Refused(format!("{why} (redis said: {said})"));
    // Lua is a module of Valkey since version 9.1, and may be absent.
    if said.contains("scripting engine") {
        return refused(
            "valkey has no Lua, and lasthit's steps are Lua scripts: give it its module (loadmodule .../libvalkeylua.so)",
        );
    }
    match error.code().unwrap_or_default() {
        "LOADING" => JournalError::Unreachable("redis is loading its data".into()),
        "BUSY" => JournalError::Unreachable("redis is busy with a script of somebody".into()),
        "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "UNBLOCKED" => JournalError::Unreachable(text),
        // What a script is told of a key that it did not declare, where its slot is being moved or its cluster is down.
        "ERR" if said.starts_with("Script attempted to") && said.contains("cluster") => JournalError::Unreachable(text),
        "NOAUTH" | "WRONGPASS" => login(said),
        "NOPERM" => refused("redis user may not do this: give it ~<prefix>:* &<prefix>:* +@all -@dangerous +info"),
        "READONLY" => refused("redis is a read-only replica: give the url of the primary"),
        "OOM" => refused("redis is full: raise maxmemory"),
        "MISCONF" => refused("redis cannot save to disk and takes no writes: free its disk, or see its log"),
        "MASTERDOWN" => refused("redis is a replica that lost its primary: give the url of the primary"),
        "NOREPLICAS" => refused("redis has fewer replicas than min-replicas-to-write: bring them up"),
        "DAMAGED" => JournalError::Damaged(said.to_owned()),
        // Scripts check the types of all keys before they read them, except for those of a room.
        "WRONGTYPE" => JournalError::Damaged("one of its keys is of a type that lasthit does not write there".into()),
        "LASTHIT" => JournalError::Unexpected(said.to_owned()),
        _ => JournalError::Unexpected(text),
    }
}

/// Whether the connection must be given up after an error: it broke, it is silent, or its server is no longer the same.
pub(super) fn breaks(error: &RedisError) -> bool {
    const CHANGED: [&str; 7] = ["LOADING", "MASTERDOWN", "NOAUTH", "NOREPLICAS", "READONLY", "UNBLOCKED", "WRONGPASS"];
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.code().is_some_and(|c| CHANGED.contains(&c))
}

fn login(said: &str) -> JournalError {
    let said = if said.is_empty() { "authentication failed" } else { said };
    JournalError::Refused(format!("redis does not accept user or password: check them in the url (redis said: {said})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_what_to_do_about_them() {
        let sorted = |code: &str| journal_error(&::redis::make_extension_error(code.into(), Some("said".into())));
        for code in ["LOADING", "BUSY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED"] {
            assert!(matches!(sorted(code), JournalError::Unreachable(_)), "{code}");
        }
        for code in ["NOAUTH", "WRONGPASS", "NOPERM", "READONLY", "OOM", "MISCONF", "MASTERDOWN", "NOREPLICAS"] {
            assert!(matches!(sorted(code), JournalError::Refused(why) if why.contains(": ")), "{code}");
        }
        for code in ["READONLY", "NOREPLICAS", "LOADING", "UNBLOCKED"] {
            let error = ::redis::make_extension_error(code.into(), None);
            assert!(breaks(&error), "{code}: the server is not what it was");
        }
        for code in ["OOM", "NOPERM", "BUSY", "ERR"] {
            assert!(!breaks(&::redis::make_extension_error(code.into(), None)), "{code}: another connection is no better");
        }
        for code in ["LASTHIT", "ERR", "CROSSSLOT"] {
            assert!(matches!(sorted(code), JournalError::Unexpected(_)), "{code}");
        }
        let no_lua = ::redis::make_extension_error("ERR".into(), Some("Could not find scripting engine 'lua'".into()));
        assert!(matches!(journal_error(&no_lua), JournalError::Refused(why) if why.contains("libvalkeylua.so")));
        for code in ["WRONGTYPE", "DAMAGED"] {
            assert!(matches!(sorted(code), JournalError::Damaged(_)), "{code}");
        }
    }
}
