//! The public protocol: what clients send and are sent, as JSON text or as MessagePack with named maps.
