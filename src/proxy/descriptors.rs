//! File descriptors: a client connection over HTTP/1.1 needs two, and without any left nobody is served.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process needs besides: ports, the log, the runtime, operators who look.
const RESERVED: u64 = 24;

/// Raises the soft limit of the process to its hard limit.
///
/// # Errors
/// When the system does not let us; then everything stays as it was.
pub fn raise_descriptor_limit() -> std::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// How many client connections the present limit has room for, each with one to an upstream.
pub(super) fn connections_that_fit() -> usize {
    connections_within(getrlimit(Resource::Nofile).current)
}

fn connections_within(limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return usize::MAX };
    usize::try_from(limit.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_gets_two_and_there_is_always_room_for_one() {
        assert_eq!(connections_within(None), usize::MAX);
        assert_eq!(connections_within(Some(64)), 20);
        assert_eq!(connections_within(Some(10)), 1);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        raise_descriptor_limit().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
