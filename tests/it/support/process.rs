//! The real binary as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{ms, soon};

/// The binary, killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Where clients reach it, as it announced.
    pub(crate) clients: SocketAddr,
    pub(crate) admin: SocketAddr,
    stdout: mpsc::UnboundedReceiver<String>,
    stderr: mpsc::UnboundedReceiver<String>,
}

/// The binary with these arguments.
pub(crate) fn tidegate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the binary to its end: exit code, standard output, standard error.
pub(crate) async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tidegate(args);
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = soon("the process ends", ran).await.expect("it ran").expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

impl Process {
    /// Serves with a file, which has to log JSON.
    pub(crate) async fn serve(config: &Path) -> Self {
        Self::spawn(tidegate(&["serve", "--config", config.to_str().expect("a path")])).await
    }

    pub(crate) async fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary runs");
        let mut stdout = lines(child.stdout.take().expect("piped"));
        let mut stderr = lines(child.stderr.take().expect("piped"));
        let line = soon("the announcement", stdout.recv()).await.expect("a line");
        let url = line.strip_prefix("export OPENAI_BASE_URL=http://").expect("the export line");
        let clients = url.strip_suffix("/v1").expect("a base URL").parse().expect("an address");
        let admin = loop {
            let line = soon("the log says where admin is", stderr.recv()).await.expect("a line");
            let json: serde_json::Value = serde_json::from_str(&line).expect("JSON logs");
            let admin = json["admin"].as_str().or_else(|| json["fields"]["admin"].as_str());
            if let Some(admin) = admin {
                break admin.parse().expect("an address");
            }
        };
        Self { child, clients, admin, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// The most memory that it ever had resident, in bytes.
    pub(crate) fn memory_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    }

    /// Waits for a line of its log that has `text`.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        soon(&format!("the log says {text:?}"), async {
            loop {
                let line = self.stderr.recv().await.expect("it logs");
                if line.contains(text) {
                    return line;
                }
            }
        })
        .await
    }

    /// What else it logged; it is about to end.
    pub(crate) async fn rest_of_log(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.stderr.recv().await {
            lines.push(line);
        }
        lines
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon("the process ends", async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status;
                }
                sleep(ms(5)).await;
            }
        })
        .await
    }

    /// What else it printed; it has ended.
    pub(crate) async fn rest_of_stdout(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = soon("the end of its output", self.stdout.recv()).await {
            lines.push(line);
        }
        lines
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Most have ended by themselves.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The lines of a pipe, which is read whether anybody listens or not.
fn lines(pipe: impl Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (tell, told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            drop(tell.send(line));
        }
    });
    told
}
