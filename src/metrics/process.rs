//! The process as the system sees it, under the names that every Prometheus client uses. On systems without `/proc`
//! they stay at zero.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge, IntGauge};

use super::family::{Catalogue, figure};

#[derive(Debug)]
pub(super) struct Process {
    cpu: Counter,
    resident_memory: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
}

impl Process {
    pub(super) fn new(catalogue: &Catalogue) -> Self {
        let started: Gauge =
            catalogue.seconds_gauge("process_start_time_seconds", "When the process started, since 1970.");
        started.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        Self {
            cpu: catalogue.seconds_counter("process_cpu_seconds_total", "CPU time used, user and system."),
            resident_memory: catalogue.gauge("process_resident_memory_bytes", "Memory in RAM."),
            open_fds: catalogue.gauge("process_open_fds", "Open file descriptors."),
            max_fds: catalogue.gauge("process_max_fds", "How many file descriptors may be open."),
            threads: catalogue.gauge("process_threads", "Threads."),
        }
    }

    /// Reads the figures anew. What cannot be read keeps its value.
    pub(super) fn refresh(&self) {
        if let Some(seconds) = read("/proc/self/stat").as_deref().and_then(cpu_seconds) {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Some(status) = read("/proc/self/status") {
            set(&self.resident_memory, field(&status, "VmRSS:").map(|kib| kib.saturating_mul(1024)));
            set(&self.threads, field(&status, "Threads:"));
        }
        set(&self.max_fds, read("/proc/self/limits").and_then(|limits| field(&limits, "Max open files")));
        set(&self.open_fds, fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64));
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn set(gauge: &IntGauge, value: Option<u64>) {
    if let Some(value) = value {
        gauge.set(figure(value));
    }
}

/// The number that follows `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// User and system time from `/proc/self/stat`. Linux reports them in hundredths of a second on all current machines.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses and may hold spaces; the fields after it are plain.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 500 0 0 0 150 50 0 0 20 0 4 0 100 1000 200";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("garbage"), None);
    }

    #[test]
    fn fields_are_found_by_their_name() {
        let status = "Name:\ttidegate\nVmRSS:\t   15360 kB\nThreads:\t4\n";
        assert_eq!(
            (field(status, "VmRSS:"), field(status, "Threads:"), field(status, "Vm")),
            (Some(15360), Some(4), None)
        );
        assert_eq!(
            field("Max open files            1024                 524288     files", "Max open files"),
            Some(1024)
        );
    }
}
