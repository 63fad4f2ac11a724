//! The scripts, and one call of one of them: written straight into the command, sent in one round trip.

use std::fmt::Display;
use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisResult, RedisWrite, Script, ServerErrorKind, Value};

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file, ".lua"))));)*
    };
}

scripts! {
    APPEND = "append",
    CLAIM = "claim",
    COMMIT = "commit",
    DEATH = "death",
    DEPLOYMENT = "deployment",
    END_ROOM = "end_room",
    FENCE = "fence",
    HEADS = "heads",
    HEARTBEAT = "heartbeat",
    LOAD = "load",
    REGISTER = "register",
    RELEASE = "release",
    RENEW = "renew",
    SURVEY = "survey",
    TIMELINE = "timeline",
    VERDICTS = "verdicts",
}

/// One call: first all keys, then all arguments. Unlike `redis::ScriptInvocation` it does not collect them one by one.
pub(super) struct Call {
    script: &'static Script,
    cmd: Cmd,
}

impl Call {
    /// `args` and `bytes` are hints for what is to come.
    pub(super) fn new(script: &'static Script, keys: usize, args: usize, bytes: usize) -> Self {
        let mut cmd = Cmd::with_capacity(3 + keys + args, 64 + bytes);
        cmd.arg("EVALSHA").arg(script.get_hash()).arg(keys);
        Self { script, cmd }
    }

    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        self.cmd.write_arg_fmt(text);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.cmd.write_arg(bytes);
        self
    }

    /// Sends it; a server that does not have the script gets it first.
    pub(super) async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        match answer(connection.send_packed_command(&self.cmd).await) {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.script.load_async(connection).await?;
                answer(connection.send_packed_command(&self.cmd).await)
            }
            other => other,
        }
    }
}

/// An error that came as a value is an error.
pub(super) fn answer(reply: RedisResult<Value>) -> RedisResult<Value> {
    match reply? {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}
