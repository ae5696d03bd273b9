//! The server certificate from an ACME directory, from outside: Debian's `pebble` and
//! `pebble-challtestsrv` stand for Let's Encrypt, and a small directory of our own for what pebble
//! cannot do (renewal information, nonsense).

mod cache;
mod directory;
mod failures;
mod flood;
mod handshake;
mod killed;
mod orders;
mod pebble;
mod recorder;
mod renewal_info;
mod renewals;
mod timeout;
