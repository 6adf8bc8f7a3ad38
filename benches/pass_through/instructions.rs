//! Instructions of a call and of an event, counted by callgrind: the figure that does not care what else the machine does.

use std::fs;

use super::client::Client;
use super::proxies::{Kind, Setup, Stage, can_run};
use super::report::Section;
use super::wire::{Ask, LAST_EVENTS};

/// Two runs, of which the difference is counted: starting and stopping cancel out.
const FEW: usize = 200;
const MANY: usize = 1_200;
/// Long enough for a proxy under valgrind to pass each event on by itself.
const PAUSE_US: u64 = 5_000;
const FILE: &str = "callgrind.out";

#[derive(Clone, Copy)]
enum Load {
    Calls,
    Events,
}

pub(crate) async fn measure(stage: &Stage) -> Section {
    let is_there = can_run("valgrind", "--version");
    let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    // nginx's counts would be those of another program, read in another way; CPU time compares with it.
    for kind in stage.kinds().iter().filter(|kind| is_there && **kind != Kind::Nginx) {
        let call = each(stage, kind, Load::Calls).await;
        let event = each(stage, kind, Load::Events).await;
        let (shell_call, shell_event) =
            rows.first().map_or((call, event), |(_, row)| (row[0].unwrap(), row[2].unwrap()));
        let row = [call, call / shell_call, event, event / shell_event];
        rows.push((kind.name().to_owned(), row.map(Some).to_vec()));
    }
    let note = if is_there {
        format!(
            "callgrind, one worker thread; the difference of {FEW} and {MANY} calls on one connection, or events of one stream"
        )
    } else {
        "valgrind is not installed: not counted (`make bench` installs it)".to_owned()
    };
    Section { name: "instructions", note, columns: vec!["per call", "x shell", "per event", "x shell event"], rows }
}

/// Instructions of one call or event.
async fn each(stage: &Stage, kind: &Kind, load: Load) -> f64 {
    let (few, many) = (count(stage, kind, load, FEW).await, count(stage, kind, load, MANY).await);
    (many - few) / (MANY - FEW) as f64
}

/// Instructions of a whole process that passes so many on.
async fn count(stage: &Stage, kind: &Kind, load: Load, times: usize) -> f64 {
    let proxy = stage.start(kind, Setup { threads: Some(1), counted: Some(FILE), ..Setup::default() });
    let mut client = Client::connect(proxy.address).await;
    match load {
        Load::Calls => {
            let request = Ask::Answer.request();
            for _ in 0..times {
                client.call(&request).await;
            }
        }
        Load::Events => {
            let request = Ask::Stream { events: times, pause_us: PAUSE_US }.request();
            assert_eq!(client.stream(&request).await, times + LAST_EVENTS, "no event is lost");
        }
    }
    drop(client);
    proxy.child.end();
    let counted = fs::read_to_string(stage.file(FILE)).expect("callgrind wrote its counts");
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.trim().parse().expect("a figure")
}
