//! What a test needs of the machine, and what becomes of it where that is not to be had. Of every test program, and of the
//! library's own tests.

/// Whether `what` is here, without which a test is left out, with a line that says so; where everything must run
/// (`HDRIVE_REQUIRE_ALL`) that is a failure.
pub fn available(what: &str, here: bool) -> bool {
    if !here {
        let required = std::env::var_os("HDRIVE_REQUIRE_ALL").is_some();
        assert!(!required, "{what} is missing, and HDRIVE_REQUIRE_ALL is set");
        eprintln!("SKIPPED: {what} is missing; `make setup` installs what can be installed");
    }
    here
}
