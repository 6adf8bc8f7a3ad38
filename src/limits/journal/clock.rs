//! Time that means something after a restart.
//!
//! An [`Instant`](crate::time::Instant) is forgotten with its process. The clock since boot is not: as long as the
//! machine has not booted again it is exact, whatever happens to the wall clock, and it goes on while the machine
//! sleeps. Across a boot there is only the wall clock.

use std::fmt;
use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};

/// A point in time on both clocks, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moment {
    /// Since boot.
    pub(super) boot: i64,
    /// Since 1970.
    pub(super) wall: i64,
}

/// Which boot of which machine; 0 where nobody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BootId(pub(super) u128);

impl BootId {
    /// Whether times since boot can be compared.
    pub(super) fn is_same(self, other: Self) -> bool {
        self.0 != 0 && self == other
    }
}

/// Where moments come from. Tests have one that they can step.
pub(super) trait Clock: fmt::Debug + Send + Sync {
    /// The present.
    fn moment(&self) -> Moment;

    /// This boot.
    fn boot_id(&self) -> BootId;
}

/// The clocks of the system.
#[derive(Debug)]
pub(super) struct SystemClock;

#[cfg(target_os = "linux")]
const SINCE_BOOT: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const SINCE_BOOT: ClockId = ClockId::Monotonic;

impl Clock for SystemClock {
    fn moment(&self) -> Moment {
        let boot = clock_gettime(SINCE_BOOT);
        let boot = boot.tv_sec.saturating_mul(1_000_000_000).saturating_add(boot.tv_nsec);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Moment { boot, wall: i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX) }
    }

    fn boot_id(&self) -> BootId {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        BootId(u128::from_str_radix(&id.trim().replace('-', ""), 16).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_goes_forward_and_knows_its_boot() {
        let (first, second) = (SystemClock.moment(), SystemClock.moment());
        assert!(first.boot > 0 && first.wall > 0 && second.boot >= first.boot);
        assert_eq!(SystemClock.boot_id(), SystemClock.boot_id());
        assert_eq!(SystemClock.boot_id().0 != 0, cfg!(target_os = "linux"));
        assert!(!BootId(0).is_same(BootId(0)), "two unknown boots need not be one");
    }
}
