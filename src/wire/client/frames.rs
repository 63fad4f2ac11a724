//! Encodes what clients are sent.

use std::sync::OnceLock;

use bytes::Bytes;

use super::fields::{Fields, INFALLIBLE, map_header};
use super::{Encoding, Refusal, Welcome};
use crate::limits;
use crate::types::{Flags, Incarnation, Outcome, ProgramId, Verdict, VerdictKind};

/// Encodes the first message of a session.
#[must_use]
pub fn encode_welcome(encoding: Encoding, welcome: &Welcome) -> Bytes {
    let mut f = Fields::new(encoding, "welcome", 384 + welcome.state.as_ref().map_or(0, Bytes::len) * 2);
    f.text("session", &welcome.session.to_string()).text("player", welcome.player.as_str());
    f.text("role", welcome.role.as_str()).number("era", welcome.era).number("seq", welcome.seq);
    f.number("home", welcome.home.into());
    f.bool("resumed", welcome.resumed).bool("gone", welcome.gone).value_if("state", welcome.state.as_deref());
    f.map("clock", |f| {
        f.text("source", welcome.clock).nanos("uncertainty_ns", welcome.uncertainty_ns);
    });
    f.map("limits", |f| {
        f.number("message_bytes", limits::MESSAGE_BYTES_MAX as u64).number("field_bytes", limits::FIELD_BYTES_MAX as u64);
        f.number("args_depth", limits::ARGS_DEPTH_MAX as u64).number("recent_ids", limits::RECENT_IDS_PER_PLAYER_MAX as u64);
        f.number("room_ids", limits::RECENT_IDS_PER_ROOM_MAX as u64);
        f.number("ping_s", limits::PING_INTERVAL.as_secs()).number("idle_s", limits::IDLE_TIMEOUT.as_secs());
    });
    whole(encoding, f)
}

/// Encodes a refusal as an `error` message.
#[must_use]
pub fn encode_refusal(encoding: Encoding, refusal: &Refusal) -> Bytes {
    let mut f = Fields::new(encoding, "error", 96 + refusal.message.len());
    f.text("code", refusal.code.as_str()).text_if("id", refusal.id.as_deref()).text("message", &refusal.message);
    whole(encoding, f)
}

/// Encodes the wish that a session moves within so many milliseconds, to the gateway at `url` if there is one.
#[must_use]
pub fn encode_move(encoding: Encoding, within_ms: u64, url: Option<&str>) -> Bytes {
    let mut f = Fields::new(encoding, "move", 48 + url.map_or(0, str::len));
    f.number("within_ms", within_ms).text_if("url", url);
    whole(encoding, f)
}

fn whole(encoding: Encoding, fields: Fields) -> Bytes {
    let (body, count) = fields.finish();
    match encoding {
        Encoding::Json => body.into(),
        Encoding::Msgpack => headed(count, &[&body]),
    }
}

/// A MessagePack map's header and its fields.
fn headed(entries: usize, parts: &[&[u8]]) -> Bytes {
    let (header, len) = map_header(entries);
    let mut out = Vec::with_capacity(len + parts.iter().map(|p| p.len()).sum::<usize>());
    out.extend_from_slice(&header[..len]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.into()
}

/// One verdict for its sessions. It is encoded once per encoding, however many sessions get it.
#[derive(Debug)]
pub struct VerdictFrames {
    verdict: Verdict,
    repeat_of: Option<u64>,
    json: OnceLock<Encoded>,
    msgpack: OnceLock<Encoded>,
}

/// A whole frame, with what it takes to insert `from`: the position after `seq`, and the map's size.
#[derive(Debug)]
struct Encoded {
    frame: Bytes,
    after_seq: usize,
    count: usize,
}

impl VerdictFrames {
    /// Takes a verdict. For a repeated action, pass the first verdict under the repeat's own `seq`, and the first verdict's
    /// `seq` as `repeat_of`. An [`Outcome::Repeat`] itself, whose first verdict is no longer kept, is sent as void with the
    /// reason `repeat`. An Open is sent without its body, which only the session that joins gets, in its welcome.
    #[must_use]
    pub fn new(mut verdict: Verdict, repeat_of: Option<u64>) -> Self {
        if verdict.kind == VerdictKind::Open {
            verdict.body = None;
        }
        Self { verdict, repeat_of, json: OnceLock::new(), msgpack: OnceLock::new() }
    }

    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The frame. With `from` it covers everything from there to its own `seq`: the session may not see the others. With None it
    /// covers only itself, and costs a reference count after the first time.
    #[must_use]
    pub fn encode(&self, encoding: Encoding, from: Option<u64>) -> Bytes {
        let cell = match encoding {
            Encoding::Json => &self.json,
            Encoding::Msgpack => &self.msgpack,
        };
        let encoded = cell.get_or_init(|| self.encode_whole(encoding));
        match from {
            Some(first) if first < self.verdict.seq => encoded.covering(encoding, first),
            _ => encoded.frame.clone(),
        }
    }

    fn encode_whole(&self, encoding: Encoding) -> Encoded {
        let v = &self.verdict;
        let mut f = Fields::new(encoding, "verdict", 320 + v.body.as_ref().map_or(0, Bytes::len) * 2);
        f.number("seq", v.seq);
        let after_seq = f.position();
        f.text("event", v.kind.as_str());
        if let Some(fire) = &v.fire {
            f.text("timer", &fire.name).number("due_ms", fire.due.ms()).nanos("late_ns", fire.late_ns);
            if fire.missed > 0 {
                f.number("missed", fire.missed);
            }
        }
        if let Some(change) = &v.change {
            f.text("rules", &change.name).number("version", change.version.into()).number("from_version", change.from.into());
            if change.program != ProgramId::NONE {
                f.text("program", &change.program.to_string());
            }
        }
        if v.stamp.incarnation != Incarnation::NONE {
            f.text("session", &v.session_id().to_string());
        }
        f.text_if("player", v.player.as_ref().map(|p| p.as_str())).text_if("id", v.id.as_deref());
        f.text_if("contest", v.contest.as_deref());
        if v.round > 0 {
            f.number("round", v.round);
        }
        let (outcome, reason, of) = match &v.outcome {
            Outcome::Granted => ("granted", None, None),
            Outcome::Denied(reason) => ("denied", Some(reason.as_str()), None),
            Outcome::Void(reason) => ("void", Some(reason.as_str()), None),
            Outcome::Repeat { of } => ("void", Some("repeat"), Some(*of)),
        };
        f.text("outcome", outcome).text_if("reason", reason);
        f.nanos("arrival_ns", v.stamp.moment.ns).nanos("uncertainty_ns", v.uncertainty_ns);
        if let Some(behind_ns) = v.behind_ns {
            f.nanos("behind_ns", behind_ns);
        }
        f.flag("photo_finish", v.flags.has(Flags::PHOTO_FINISH)).flag("clamped", v.flags.has(Flags::CLAMPED));
        f.flag("unproven", v.flags.has(Flags::UNPROVEN)).flag("read_time", v.flags.has(Flags::READ_TIME));
        if let Some(first) = self.repeat_of.or(of) {
            f.number("repeat_of", first);
        }
        f.value_if("body", v.body.as_deref());
        let (body, count) = f.finish();
        match encoding {
            Encoding::Json => Encoded { frame: body.into(), after_seq, count },
            Encoding::Msgpack => Encoded { after_seq: after_seq + map_header(count).1, frame: headed(count, &[&body]), count },
        }
    }
}

impl Encoded {
    /// The same frame with `from` after `seq`.
    fn covering(&self, encoding: Encoding, first: u64) -> Bytes {
        let (before, after) = self.frame.split_at(self.after_seq);
        match encoding {
            Encoding::Json => [before, format!(",\"from\":{first}").as_bytes(), after].concat().into(),
            Encoding::Msgpack => {
                let mut field = b"\xa4from".to_vec();
                rmp::encode::write_uint(&mut field, first).expect(INFALLIBLE);
                headed(self.count + 1, &[&before[map_header(self.count).1..], &field, after])
            }
        }
    }
}
