//! The bounds of what a supervisor and its children say to each other.

use std::time::Duration;

/// Bytes of a message on a child's channel.
pub(crate) const CHANNEL_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the settings of a child.
pub(crate) const CHANNEL_SETTINGS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the metrics of a child.
pub(crate) const CHANNEL_METRICS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a child waits for its settings.
pub(crate) const CHILD_SETTINGS_TIMEOUT: Duration = Duration::from_secs(10);
/// A child says at least so often what it has to do.
pub(crate) const CHILD_BEAT: Duration = Duration::from_secs(1);
/// A child says at most so often what it has to do.
pub(crate) const CHILD_LOAD_INTERVAL: Duration = Duration::from_millis(20);
/// Connections that were passed to a gateway and that it has not accepted yet: as many as may be in their handshake.
pub(crate) const PASSED_MAX: usize = super::HANDSHAKES_MAX;
/// Connections that a child names in one message as gone. Of more it sends several.
pub(crate) const GONE_PER_MESSAGE_MAX: usize = 512;
/// Bytes of a line that a child writes; what is longer is cut into several.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 8 * 1024;
/// Lines of children that are kept for whoever asks.
pub(crate) const LOG_LINES_KEPT: usize = 1_000;
/// How long the next image of a supervisor waits for lines that the one before has not written.
pub(crate) const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);
/// Lines that wait to be written; further ones are dropped and counted.
pub(crate) const LOG_LINES_WAITING: usize = 4_096;
/// Connections that the kernel holds until the door accepts them, if the system allows so many.
pub(crate) const DOOR_BACKLOG: i32 = 4_096;
/// What happened and the supervisor has not looked at yet.
pub(crate) const SUPERVISOR_EVENTS_MAX: usize = 4_096;
/// Answers with the metrics of all children that wait for a child at one time; then the oldest is given as it is.
pub(crate) const GATHERINGS_MAX: usize = 8;
/// Connections to the control socket at one time; further ones wait in the kernel.
pub(crate) const CONTROL_CONNECTIONS_MAX: usize = 16;
/// Those who follow the logs at one time, beside them. Further ones are refused.
pub(crate) const LOG_FOLLOWERS_MAX: usize = 16;
/// Bytes of a request's body there.
pub(crate) const CONTROL_BODY_BYTES_MAX: usize = 64 * 1024;
/// Lines about a command that wait for whoever asked; further ones are dropped.
pub(crate) const PROGRESS_LINES_WAITING: usize = 256;
/// Words for the service manager that wait for it; further ones are said again with the next.
pub(crate) const HOST_WORDS_WAITING: usize = 16;
/// Wishes of a supervisor that wait for its child.
pub(crate) const WISHES_MAX: usize = 16;
/// How long whoever asked a supervisor that ends may take to read its answer.
pub(crate) const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a program may take to say whether it can take the supervisor's place.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of what it says.
pub(crate) const CHECK_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Checks that are under way at one time. Further ones are refused.
pub(crate) const CHECKS_MAX: usize = 4;
/// Bytes of the state that a supervisor hands to its next image.
pub(crate) const PARKED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Descriptors beside one message of that. The kernel takes 253.
pub(crate) const PARKED_PER_MESSAGE: usize = 128;
/// How long a supervisor that is about to execute its next image lets whoever is just asking it finish.
pub(crate) const PARK_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes that are kept of an answer that is not read, when it goes to the next image. Further lines are dropped and counted.
pub(crate) const STREAM_UNSENT_BYTES_MAX: usize = 256 * 1024;
/// How long a command waits until the supervisor begins to answer.
pub(crate) const CONTROL_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer of a supervisor, where it is read as a whole: the metrics of some hundred processes fit.
pub(crate) const CONTROL_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

// Each is a number of at most 20 digits, and a comma.
const _: () = assert!(GONE_PER_MESSAGE_MAX * 21 + 64 <= CHANNEL_MESSAGE_BYTES_MAX);
