//! What a public port meets on its first day, against the binary as a process. An accepted client
//! sends requests throughout and is served within a second. Repeated rounds leave no more memory and
//! no descriptors behind.

mod clients;
mod harness;
mod machine;
mod strangers;
