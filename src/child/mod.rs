//! A process under a supervisor (`lasthit up`): its stdin is a channel, through which it gets its role, its settings and its
//! connections, and through which it says what it has to do. When the channel closes, it drains and ends (rule U6).

pub(crate) mod channel;
mod link;
mod settings;

use std::os::fd::OwnedFd;

pub(crate) use self::link::{Link, Passed, Wish};
pub(crate) use self::settings::Settings;
use crate::limits::CHILD_SETTINGS_TIMEOUT;
use channel::{Lower, ToChild, VERSION};

/// A child that has heard what to do.
pub(crate) struct Attached {
    /// `gateway-1`.
    pub(crate) name: String,
    pub(crate) settings: Settings,
    /// The channel, outside of any runtime.
    pub(crate) channel: OwnedFd,
}

/// Takes the channel from stdin, and hears the role and the settings. From here on stdin is empty: what this process starts
/// inherits it. It must run before any runtime.
///
/// # Errors
/// One line: this is no child of a supervisor, or the supervisor says nothing that can be understood. With it, whether it is of no
/// use to try again.
pub(crate) fn attach() -> Result<Attached, (String, bool)> {
    let mut is_hopeless = true;
    attach_or(&mut is_hopeless).map_err(|why| (why, is_hopeless))
}

fn attach_or(is_hopeless: &mut bool) -> Result<Attached, String> {
    // The supervisor starts an open file, whose number would be the name that `top` and `pgrep` show.
    let _ = rustix::thread::set_name(c"lasthit");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime cannot start: {error}"))?;
    runtime.block_on(async {
        let channel = take_stdin().map_err(|why| format!("{why}: children are started by `lasthit up`"))?;
        let channel = Lower::of(channel).map_err(|error| format!("the channel cannot be read: {error}"))?;
        *is_hopeless = false;
        let heard = tokio::time::timeout(CHILD_SETTINGS_TIMEOUT, channel.hear()).await;
        let heard = heard.map_err(|_| format!("the supervisor says nothing for {} s", CHILD_SETTINGS_TIMEOUT.as_secs()))?;
        match heard.map_err(|error| format!("the supervisor: {error}"))? {
            Some((ToChild::Start { v: VERSION, name }, Some(file))) => {
                let settings = channel::settings_of(file).map_err(|error| format!("the supervisor: {error}"))?;
                Ok(Attached { name, settings, channel: channel.into() })
            }
            Some((ToChild::Start { v, .. }, _)) if v != VERSION => {
                *is_hopeless = true;
                Err(format!("the supervisor speaks version {v}, this program {VERSION}: reload the supervisor first"))
            }
            Some(_) => Err("the supervisor says something else before the settings".to_owned()),
            None => Err("the supervisor has ended".to_owned()),
        }
    })
}

/// The descriptor behind stdin, if it is a seqpacket socket.
fn take_stdin() -> Result<OwnedFd, String> {
    use rustix::net::{SocketType, sockopt::socket_type};
    use rustix::stdio;
    let stdin = stdio::stdin();
    if !socket_type(stdin).is_ok_and(|kind| kind == SocketType::SEQPACKET) {
        return Err("stdin is no supervisor's channel".to_owned());
    }
    let taken = || -> std::io::Result<OwnedFd> {
        let channel = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
        let nothing = std::fs::File::open("/dev/null")?;
        stdio::dup2_stdin(&nothing)?;
        Ok(channel)
    };
    taken().map_err(|error| format!("stdin cannot be taken over ({error})"))
}
