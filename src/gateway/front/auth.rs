//! Who may enter a room, and as what.
//!
//! **Without a key** the gateway believes the player's name and role. Use that only on one host, or in a network in which
//! everybody is trusted.
//!
//! **With a key** a session needs a JSON Web Token, signed with HS256, with these claims:
//!
//! | claim | |
//! |---|---|
//! | `sub` | the player's name |
//! | `exp` | seconds since 1970 at which the session ends; required |
//! | `rooms` | list of room names, `*` and `?` as in the configuration; required |
//! | `role` | `player` (when it is left out) or `server` |
//! | `nbf` | seconds since 1970 before which it is refused; may be left out |
//!
//! A token that names an audience (`aud`) was made for somebody else and is refused. `player` and `role` may be left out of
//! the URL; if given, they must match the token.
//!
//! **Pages.** A browser lets any page on the web connect anywhere, even to localhost, and sends the page's origin. Programs
//! send no `Origin` and pass. With a list of origins, a page passes when the list names its origin. Without a list, loopback
//! pages pass, and so does the gateway's own page, whose origin is the one that `Host` names. Without a key and without
//! `--allow-host-names`, a `Host` that is a name other than localhost does not count: any page could point a name of its own
//! at 127.0.0.1 and pass for the gateway's page.

use std::fmt;
use std::net::IpAddr;

use serde_json::{Map, Value};
use wildmatch::WildMatch;

use super::token::{TokenKey, excerpt};
use crate::limits::{JWT_KEY_BYTES_MAX, JWT_KEY_BYTES_MIN, TOKEN_BYTES_MAX};
use crate::types::{PlayerId, Role, RoomId};

/// The shared key of the players' tokens (HS256). It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtKey(Vec<u8>);

impl JwtKey {
    /// Takes a key of at least [`JWT_KEY_BYTES_MIN`] bytes (RFC 7518, section 3.2). Line ends after it do not count.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
        if (JWT_KEY_BYTES_MIN..=JWT_KEY_BYTES_MAX).contains(&end) {
            Ok(Self(bytes[..end].to_vec()))
        } else {
            Err(format!(
                "the key has {end} bytes: use {JWT_KEY_BYTES_MIN} to {JWT_KEY_BYTES_MAX}, as `openssl rand -hex 32` makes"
            ))
        }
    }

    /// The key, for checking signatures only.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtKey(***)")
    }
}

/// The origin of web pages, `scheme://host` or `scheme://host:port` in lower case, or `*` for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Checks it and makes it lower case.
    pub fn new(origin: &str) -> Result<Self, String> {
        let lower = origin.to_ascii_lowercase();
        let host = lower.split_once("://").map(|(_, host)| host);
        let fits = host.is_some_and(|h| !h.is_empty() && !h.contains(['/', '@', '?', '#', ' ', '*', ',']));
        if lower == "*" || (fits && (lower.starts_with("http://") || lower.starts_with("https://"))) {
            Ok(Self(lower))
        } else {
            Err(format!("holds {origin:?}, which is not an origin: use https://HOST or https://HOST:PORT without a path, or *"))
        }
    }

    /// Whether a request's `Origin` header names it.
    #[must_use]
    pub fn allows(&self, header: &str) -> bool {
        self.0 == "*" || self.0.eq_ignore_ascii_case(header)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client's request says.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The room in the path.
    pub room: &'a RoomId,
    /// `player=` of the query, decoded.
    pub player: Option<&'a str>,
    /// `role=` of the query, decoded.
    pub role: Option<&'a str>,
    /// `token=` of the query, decoded.
    pub token: Option<&'a str>,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// The `Host` header.
    pub host: Option<&'a str>,
}

/// What a session may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The player whose session it is.
    pub player: PlayerId,
    /// What the session may do.
    pub role: Role,
    /// When the session ends, in seconds since 1970; None without a token.
    pub expires_unix_s: Option<u64>,
}

/// Why a client was refused before its WebSocket opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct AuthError {
    /// The HTTP status.
    pub status: u16,
    /// A code for programs: `bad_player`, `bad_role`, `token_missing`, `token_invalid`, `token_expired`,
    /// `player_forbidden`, `role_forbidden`, `room_forbidden`, `origin_forbidden`.
    pub code: &'static str,
    /// One line for people. It never contains the token.
    pub message: String,
}

fn refuse<T>(status: u16, code: &'static str, message: impl Into<String>) -> Result<T, AuthError> {
    Err(AuthError { status, code, message: message.into() })
}

/// Decides who enters.
pub struct Gatekeeper {
    key: Option<TokenKey>,
    origins: Vec<Origin>,
    trusts_host_names: bool,
}

impl Gatekeeper {
    /// `host_names` says that a name in `Host` counts without a key too (`--allow-host-names`).
    #[must_use]
    pub fn new(key: Option<&JwtKey>, origins: Vec<Origin>, host_names: bool) -> Self {
        let trusts_host_names = key.is_some() || host_names;
        Self { trusts_host_names, key: key.map(|key| TokenKey::new(key.reveal())), origins }
    }

    /// Admits or refuses; `now_unix_s` is the wall clock in seconds since 1970.
    pub fn admit(&self, asking: &Asking<'_>, now_unix_s: u64) -> Result<Admission, AuthError> {
        if let Some(origin) = asking.origin {
            self.check_origin(origin, asking.host)?;
        }
        let role = match asking.role {
            None => None,
            Some("player") => Some(Role::Player),
            Some("server") => Some(Role::Server),
            Some(other) => {
                return refuse(400, "bad_role", format!("role {:?} is not known: use player or server", excerpt(other)));
            }
        };
        let player =
            asking.player.map(|name| PlayerId::new(name).or_else(|e| refuse(400, "bad_player", e.to_string()))).transpose()?;
        let Some(key) = &self.key else {
            let Some(player) = player else {
                return refuse(400, "bad_player", "player is missing: add ?player=NAME to the url");
            };
            return Ok(Admission { player, role: role.unwrap_or(Role::Player), expires_unix_s: None });
        };
        let granted = read(key, asking, now_unix_s)?;
        match (player, role) {
            (Some(player), _) if player != granted.player => refuse(
                403,
                "player_forbidden",
                format!("player {player:?} is not the token's {:?}: leave player out, or get a token for it", granted.player),
            ),
            (_, Some(role)) if role != granted.role => refuse(
                403,
                "role_forbidden",
                format!(
                    "role {:?} is not the token's {:?}: leave role out, or get a token with it",
                    role.as_str(),
                    granted.role.as_str()
                ),
            ),
            _ => Ok(granted),
        }
    }

    /// Whether pages of this origin may connect; `host` is the request's.
    pub(super) fn check_origin(&self, origin: &str, host: Option<&str>) -> Result<(), AuthError> {
        let page = origin.split_once("://").map_or("", |(_, page)| page);
        let passes = if self.origins.is_empty() {
            let own = host.is_some_and(|host| !page.is_empty() && host.eq_ignore_ascii_case(page));
            is_loopback(page) || (own && (self.trusts_host_names || ip(page).is_some()))
        } else {
            self.origins.iter().any(|allowed| allowed.allows(origin))
        };
        if passes {
            return Ok(());
        }
        let shown = excerpt(origin);
        refuse(403, "origin_forbidden", format!("pages of origin {shown:?} may not connect: allow them with --allowed-origins"))
    }
}

/// What a request's token grants at `now_unix_s`.
fn read(key: &TokenKey, asking: &Asking<'_>, now_unix_s: u64) -> Result<Admission, AuthError> {
    let Some(token) = asking.token.filter(|token| !token.is_empty()) else {
        return refuse(401, "token_missing", "token is missing: add &token=JWT to the url");
    };
    if token.len() > TOKEN_BYTES_MAX {
        let bytes = token.len();
        return refuse(401, "token_invalid", format!("token has {bytes} bytes: use at most {TOKEN_BYTES_MAX}"));
    }
    let claims = key.claims(token).or_else(|problem| refuse(401, "token_invalid", problem))?;
    if claims.get("aud").is_some_and(|audience| *audience != Value::Null && *audience != Value::Array(Vec::new())) {
        return refuse(401, "token_invalid", "token has an audience (aud), and none is known here: leave it out");
    }
    let expires = seconds(&claims, "exp")?;
    let Some(expires_unix_s) = expires else {
        return refuse(401, "token_invalid", "token has no exp: give it the second since 1970 at which it ends");
    };
    if expires_unix_s <= now_unix_s {
        let ago = now_unix_s - expires_unix_s;
        return refuse(401, "token_expired", format!("token expired {ago} s ago (exp {expires_unix_s}): get a new one"));
    }
    if let Some(begins) = seconds(&claims, "nbf")?.filter(|begins| *begins > now_unix_s) {
        let wait = begins - now_unix_s;
        return refuse(401, "token_invalid", format!("token is not valid for another {wait} s (nbf {begins})"));
    }
    let player = match claims.get("sub").map(|sub| sub.as_str().map(PlayerId::new)) {
        Some(Some(Ok(player))) => player,
        Some(Some(Err(error))) => return refuse(401, "token_invalid", format!("token's sub: {error}")),
        Some(None) => return refuse(401, "token_invalid", "token's sub is not a string: use the player's name"),
        None => return refuse(401, "token_invalid", "token has no sub: use the player's name"),
    };
    let role = match claims.get("role").map(Value::as_str) {
        None | Some(Some("player")) => Role::Player,
        Some(Some("server")) => Role::Server,
        Some(other) => {
            let role = excerpt(other.unwrap_or("of another type"));
            return refuse(401, "token_invalid", format!("token's role {role:?} is not known: use player or server"));
        }
    };
    let Some(rooms) = claims.get("rooms").and_then(Value::as_array) else {
        return refuse(401, "token_invalid", "token has no list of rooms: use names or patterns, as in [\"baron\", \"quiz-*\"]");
    };
    let room = asking.room.as_str();
    if !rooms.iter().filter_map(Value::as_str).any(|pattern| WildMatch::new(pattern).matches(room)) {
        return refuse(403, "room_forbidden", format!("room {room:?} is not among the rooms of the token"));
    }
    Ok(Admission { player, role, expires_unix_s: Some(expires_unix_s) })
}

impl fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatekeeper").field("key", &self.key.is_some()).field("origins", &self.origins).finish_non_exhaustive()
    }
}

/// The host of `host` or `host:port`.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn ip(authority: &str) -> Option<IpAddr> {
    host_of(authority).parse().ok()
}

fn is_loopback(authority: &str) -> bool {
    host_of(authority).eq_ignore_ascii_case("localhost") || ip(authority).is_some_and(|ip| ip.is_loopback())
}

/// A claim in seconds since 1970; fractions are cut.
fn seconds(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<u64>, AuthError> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range by the check before")]
    let cut_off = |s: f64| (0.0..9e15).contains(&s).then_some(s as u64);
    match value.as_u64().or_else(|| value.as_f64().and_then(cut_off)) {
        Some(seconds) => Ok(Some(seconds)),
        None => refuse(401, "token_invalid", format!("token's {claim} is not a number of seconds since 1970")),
    }
}

#[cfg(test)]
mod tests;
