//! A child process and what it has used.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A child. It is killed when dropped.
pub(crate) struct Child(Process);

impl Child {
    /// Starts a command that says on its first line of output where it listens; `None` of one that does not.
    pub(crate) fn start(command: &mut Command, announces: bool) -> (Self, Option<String>) {
        let output = if announces { Stdio::piped() } else { Stdio::null() };
        let mut process = command.stdin(Stdio::piped()).stdout(output).spawn().expect("the command runs");
        let line = process.stdout.take().map(|output| {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).expect("a line");
            line.trim().to_owned()
        });
        (Self(process), line)
    }

    /// This program again, in a role.
    pub(crate) fn role(args: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(args);
        command
    }

    /// CPU time used so far, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(self.proc("task")).expect("the child runs");
        let nanos = threads.map(|thread| {
            let file = thread.expect("a thread").path().join("schedstat");
            // A thread that has ended meanwhile had nothing to do with calls.
            let text = fs::read_to_string(file).unwrap_or_default();
            text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Proportional set size in bytes: memory that is the child's own, and its share of what is shared.
    pub(crate) fn pss(&self) -> u64 {
        kib_of(&self.proc("smaps_rollup"), "Pss:")
    }

    /// Resident set size in bytes.
    pub(crate) fn rss(&self) -> u64 {
        kib_of(&self.proc("status"), "VmRSS:")
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0.id())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> ExitStatus {
        let id = self.0.id().to_string();
        let asked = Command::new("kill").args(["-s", "TERM", &id]).status().expect("kill runs");
        assert!(asked.success());
        self.0.wait().expect("it ends")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The figure of a line such as `Pss:   12 kB`, in bytes.
fn kib_of(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).expect("the child runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says so");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a figure") * 1_024
}

/// For a child of ours: its standard input ends when the parent does, however that happens.
pub(crate) fn ends_with_its_parent() {
    std::thread::spawn(|| {
        // Whatever comes, and however it ends, nobody is there any more.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
}
