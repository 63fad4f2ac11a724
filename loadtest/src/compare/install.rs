//! Which rivals there are.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::Teller;
use crate::spawn::Peers;

/// Where each is; None for one that is not to be had.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    pub(super) ws_room: Option<PathBuf>,
    pub(super) bullmq: Option<PathBuf>,
    pub(super) groupmq: Option<PathBuf>,
    pub(super) bullmq_queue: Option<PathBuf>,
    peers: Option<Peers>,
}

impl Rivals {
    /// Installs what can be, if any are wanted; the others are noted.
    pub(super) async fn install(are_wanted: bool, folder: Option<&Path>, teller: &mut Teller) -> Result<Self> {
        if let Some(folder) = folder {
            ensure!(folder.is_dir(), "peer {} is no folder: give one with the folders of rivals", folder.display());
        }
        let mut rivals = Self::default();
        if !are_wanted {
            return Ok(rivals);
        }
        let peers = match Peers::open(folder).await {
            Ok(peers) => rivals.peers.insert(peers),
            Err(e) => {
                teller.note(format!("the rivals on Node are left out: {e:#}"));
                return Ok(rivals);
            }
        };
        for (name, slot) in [
            ("ws-room", &mut rivals.ws_room),
            ("bullmq", &mut rivals.bullmq),
            ("groupmq", &mut rivals.groupmq),
            ("bullmq-queue", &mut rivals.bullmq_queue),
        ] {
            teller.tell(&format!("packages of {name}"));
            match peers.install(name).await {
                Ok(dir) => *slot = Some(dir),
                Err(e) => teller.note(format!("{name} is left out: {e:#}")),
            }
        }
        Ok(rivals)
    }

    /// Removes the copies.
    pub(super) fn remove(self) {
        if let Some(peers) = self.peers {
            peers.remove();
        }
    }
}
