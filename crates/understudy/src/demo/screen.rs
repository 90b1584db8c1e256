//! The demonstration's live status in the terminal.

use crate::status::{self, Status};
use replica::events::Event;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// What is shown.
#[derive(Clone, Debug)]
pub struct View {
    /// The replicas, forwards and events.
    pub status: Status,
    /// Where clients connect, once it is known.
    pub address: Option<std::net::SocketAddr>,
    /// Whether the service has answered.
    pub ready: bool,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// The state directory.
    pub directory: String,
    /// Whether a kill waits for its confirmation.
    pub asks: bool,
}

/// Draws the screen anew. The terminal is in raw mode: lines end with CR LF.
pub fn draw(view: &View) {
    let size = rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    let text = fit(&render(view), rows.into(), columns.into()).replace('\n', "\x1b[K\r\n");
    let mut stdout = io::stdout().lock();
    // A terminal that has gone is noticed by reading keys.
    let _drawn = write!(stdout, "\x1b[H{text}\x1b[J").and_then(|()| stdout.flush());
}

/// As much of the text as the terminal shows without scrolling: long lines are cut, and of the story
/// below the last empty line the oldest events go first.
fn fit(text: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().take(columns).collect())
        .collect();
    let rows = rows.saturating_sub(1); // the cursor's own line
    let story = lines.iter().rposition(String::is_empty).unwrap_or(0) + 1;
    let left_out = lines.len().saturating_sub(rows);
    let shown = lines.iter().enumerate().filter(|(index, _)| {
        *index < rows.min(story) || *index >= story + left_out && *index >= story
    });
    shown.map(|(_, line)| format!("{line}\n")).collect()
}

fn render(view: &View) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "understudy demo: Debian and Redis on a protected pair, {} s",
        view.uptime_seconds
    );
    let _ = writeln!(text, "state in {}\n", view.directory);
    for replica in &view.status.replicas {
        let _ = writeln!(
            text,
            "{:8} {:11} pid {:<7} generation {:<3} {:>7.1} MIPS  {:>14} instructions  {}",
            replica.role,
            replica.state,
            replica.pid,
            replica.generation,
            replica.mips,
            replica.instruction_count,
            replica.engine
        );
    }
    if let Some(primary) = view
        .status
        .replicas
        .iter()
        .find(|replica| replica.role == "primary")
    {
        let _ = writeln!(text, "\n{}", status::describe_pair(primary));
    }
    match (view.address, view.ready) {
        (Some(address), true) => {
            let _ = writeln!(text, "\nRedis answers: redis-cli -p {}", address.port());
        }
        (Some(address), false) => {
            let _ = writeln!(
                text,
                "\nthe guest boots; Redis will be at port {}",
                address.port()
            );
        }
        (None, _) => {
            let _ = writeln!(text, "\nstarting");
        }
    }
    let primary_pid = view
        .status
        .replicas
        .iter()
        .find(|r| r.role == "primary")
        .map(|r| r.pid);
    if let Some(pid) = primary_pid {
        let _ = writeln!(text, "kill the primary: key k, or kill -9 {pid}");
    }
    if view.asks {
        let _ = writeln!(
            text,
            "NOT PROTECTED: no backup could take over yet; this kill ends the machine. y: do it"
        );
    }
    let _ = writeln!(text, "keys: k kill primary   b kill backup   q quit\n");
    text.push_str(&story(&view.status.events));
    text
}

/// The newest events, each with its distance to the last kill before it.
fn story(events: &[Event]) -> String {
    let mut text = String::new();
    let newest = events.len().saturating_sub(14);
    let mut killed_at = None;
    for (index, event) in events.iter().enumerate() {
        if event.event == "killed" {
            killed_at = Some(event.unix_ns);
        }
        if index < newest {
            continue;
        }
        let after = match killed_at {
            Some(killed_at)
                if event.unix_ns >= killed_at && event.unix_ns - killed_at < 60_000_000_000 =>
            {
                format!("+{:.1} ms", (event.unix_ns - killed_at) as f64 / 1e6)
            }
            _ => String::new(),
        };
        let _ = writeln!(text, "{}  {after}", status::describe_event(event));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: &str, unix_ns: u64) -> Event {
        Event {
            unix_ns,
            time: String::new(),
            pid: 1,
            event: event.into(),
            generation: 2,
            instruction_count: 3,
            detail: String::new(),
        }
    }

    #[test]
    fn events_after_a_kill_tell_how_long_after() {
        let text = story(&[
            event("joined", 1),
            event("killed", 5_000_000),
            event("live", 17_500_000),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(!lines[0].contains('+'));
        assert!(
            lines[2].contains("live") && lines[2].ends_with("+12.5 ms"),
            "{text}"
        );
    }

    #[test]
    fn on_a_small_terminal_the_title_stays_and_the_oldest_events_go() {
        let head: String = (0..10).map(|n| format!("head {n}\n")).collect();
        let story: String = (0..30)
            .map(|n| format!("event {n} {}\n", "x".repeat(100)))
            .collect();
        let shown = fit(&format!("{head}\n{story}"), 24, 80);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 23);
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
        assert_eq!(lines[0], "head 0");
        assert!(lines[22].starts_with("event 29 "), "{}", lines[22]);
        assert!(lines[11].starts_with("event 18 "), "{}", lines[11]);
        assert_eq!(fit("head\n\nevent\n", 24, 80), "head\n\nevent\n");
    }
}
