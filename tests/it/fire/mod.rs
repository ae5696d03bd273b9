//! What a public port gets on its first day, against the binary as a process, while a client that
//! is let in asks all the time: it is served within a second throughout, and a second time of the
//! same leaves no more memory behind than the first, and no descriptor.

mod clients;
mod harness;
mod machine;
mod strangers;
