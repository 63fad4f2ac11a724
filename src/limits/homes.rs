//! Bounds of homes: where a shard's gateways and owner are.

/// Bytes of a host's name: a boot id and a time namespace are about 52.
pub(crate) const HOST_NAME_BYTES_MAX: usize = 128;
/// The highest number of a home. The next one names changes of programs, and no event bears it.
pub(crate) const HOME_NUMBER_MAX: u32 = u32::MAX - 1;
