//! The scripts, and how to call one: a call is written straight into the command and sent in one round trip.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, RedisWrite, Script, ServerErrorKind, Value, cmd};

use super::keys::Tags;

macro_rules! scripts {
    ($kind:ident: $($name:ident = $file:literal),* $(,)?) => {
        $(pub(super) static $name: LazyLock<$kind> = LazyLock::new(|| $kind::new(include_str!(concat!("lua/", $file, ".lua"))));)*
    };
}

scripts! {
    Script:
    AHEAD = "ahead",
    ATTEMPT = "attempt",
    CLAIM = "claim",
    CONFIRM = "confirm",
    DEPLOYMENT = "deployment",
    DROP = "drop",
    DROP_FAILED = "drop_failed",
    END_ROOM = "end_room",
    FENCE = "fence",
    FORGET = "forget",
    HEADS = "heads",
    HEARTBEAT = "heartbeat",
    HOME = "home",
    LEAVE = "leave",
    LOAD = "load",
    MEET = "meet",
    NAME = "name",
    PING = "ping",
    RELEASE = "release",
    ROOMS = "rooms",
    SURVEY = "survey",
    TESTIFY = "testify",
    TIMELINE = "timeline",
    VERDICTS = "verdicts",
}

scripts! {
    Publishing:
    APPEND = "append",
    COMMIT = "commit",
    DEATH = "death",
    PUSH = "push",
    REGISTER = "register",
}

/// A script that publishes: as it is written, and the same by `SPUBLISH`.
pub(super) struct Publishing {
    plain: Script,
    sharded: Script,
}

impl Publishing {
    fn new(text: &str) -> Self {
        Self { plain: Script::new(text), sharded: Script::new(&text.replace("'PUBLISH'", "'SPUBLISH'")) }
    }

    /// The script for a deployment whose channels have such names.
    pub(super) fn by(&'static self, tags: Tags) -> &'static Script {
        match tags {
            Tags::Plain => &self.plain,
            Tags::Sharded | Tags::Spread => &self.sharded,
        }
    }
}

/// Bytes that a call needs beside its payloads, per room: keys, name, stamps. A hint.
pub(super) const ROOM_BYTES: usize = 256;

/// One call: first all keys, then all arguments. Unlike `redis::ScriptInvocation` it does not collect them one by one.
pub(super) struct Call {
    script: &'static Script,
    cmd: Cmd,
}

impl Call {
    /// `args` and `bytes` are hints for the size of the call.
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

    /// Sends the call. If the server does not have the script, it gets it first.
    pub(super) async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        match answer(connection.send_packed_command(&self.cmd).await) {
            Err(error) if is_unknown(&error) => {
                self.script.load_async(connection).await?;
                answer(connection.send_packed_command(&self.cmd).await)
            }
            other => other,
        }
    }

    /// Sends the call of a script that publishes, behind a ping. Redis writes to its clients in the reverse of the order in which
    /// it first had something for them. The ping's answer exists before the script runs, so the subscribers, who wait for the
    /// message, are woken before the caller, who does not wait.
    pub(super) async fn announce(self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        let Self { script, cmd: call } = self;
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(cmd("PING")).add_command(call);
        match second(connection.send_packed_commands(&pipeline, 1, 1).await) {
            Err(error) if is_unknown(&error) => {
                script.load_async(connection).await?;
                second(connection.send_packed_commands(&pipeline, 1, 1).await)
            }
            other => other,
        }
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The script's answer, behind the ping's.
fn second(replies: RedisResult<Vec<Value>>) -> RedisResult<Value> {
    answer(replies.map(|mut replies| replies.pop().unwrap_or(Value::Nil)))
}

/// Waits until everything that was done on this server so far has reached `replicas` replicas, at most for `patience`. Returns how
/// many have it. `mark` is a call of [`CONFIRM`].
pub(super) async fn wait(
    mark: &Call,
    replicas: u32,
    patience: Duration,
    connection: &mut MultiplexedConnection,
) -> RedisResult<u32> {
    // WAIT is documented for the writes of this connection only, so it needs a write.
    mark.send(connection).await?;
    cmd("WAIT").arg(replicas).arg(patience.as_millis()).query_async(connection).await
}

/// Turns an error that came as a value into an error.
fn answer(reply: RedisResult<Value>) -> RedisResult<Value> {
    match reply? {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that publishes and is not among those would be deaf ears for new deployments.
    #[test]
    fn whatever_publishes_does_so_as_the_deployment_does() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/journal/redis/lua");
        let mut publish = 0;
        for file in std::fs::read_dir(folder).expect("the scripts") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("a script");
            assert_eq!(text.matches("PUBLISH'").count(), text.matches("redis.call('PUBLISH', ").count(), "{text}");
            publish += usize::from(text.contains("'PUBLISH'"));
        }
        let all: [&LazyLock<Publishing>; 5] = [&APPEND, &COMMIT, &DEATH, &PUSH, &REGISTER];
        assert_eq!(publish, all.len());
        let hashes = |tags| all.map(|script| script.by(tags).get_hash().to_owned());
        assert!(hashes(Tags::Plain).iter().zip(hashes(Tags::Sharded)).all(|(plain, sharded)| *plain != sharded));
    }
}
