//! A machine that fails.
