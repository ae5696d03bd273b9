//! The thread that returns freed memory to the system.

/// Starts the allocator's background thread. It inherits the restrictions of the calling thread, so
/// the sandbox must be in place.
#[cfg(feature = "jemalloc")]
pub(super) fn start_background_thread() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        let error = error.to_string();
        let remedy = "raise the limit on threads: memory is returned late without this one";
        tracing::warn!(error, remedy, "memory_not_returned");
    }
}

/// The system's allocator has no thread of its own.
#[cfg(not(feature = "jemalloc"))]
pub(super) fn start_background_thread() {}

#[cfg(all(test, feature = "jemalloc"))]
mod tests {
    #[test]
    fn allocator_is_built_with_the_configuration_of_this_project() {
        // `.cargo/config.toml` and the Dockerfile pass it to the build.
        assert_eq!(tikv_jemalloc_ctl::opt::narenas::read(), Ok(4));
    }
}
