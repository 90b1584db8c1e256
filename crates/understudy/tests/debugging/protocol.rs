//! gdb's remote serial protocol (gdb manual, appendix E), spoken by the test itself.

use crate::guest::Recorded;
use crate::support::assembler::RAM;
use crate::support::{Process, error_text, run, wait_for};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A debugger without a user.
struct Client {
    stream: UnixStream,
}

impl Client {
    fn connect(socket: &Path) -> Client {
        let stream = wait_for("the debugger's socket", || UnixStream::connect(socket).ok());
        Client { stream }
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    fn send(&mut self, command: &str) {
        let sum = command.bytes().fold(0u8, u8::wrapping_add);
        self.stream
            .write_all(format!("${command}#{sum:02x}").as_bytes())
            .unwrap();
        assert_eq!(self.byte(), b'+', "{command}");
    }

    /// The next packet, runs of a character written out.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let times = self.byte() - 29;
                    let last = text.chars().last().unwrap();
                    (0..times).for_each(|_| text.push(last));
                }
                byte => text.push(byte.into()),
            }
        }
        let _checksum = [self.byte(), self.byte()];
        // It may have gone after its last word.
        let _acknowledged = self.stream.write_all(b"+");
        text
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.receive()
    }

    /// What `monitor COMMAND` prints.
    fn monitor(&mut self, command: &str) -> String {
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.send(&format!("qRcmd,{hex}"));
        let mut printed = String::new();
        loop {
            let answer = self.receive();
            match answer
                .strip_prefix('O')
                .filter(|hex| hex.len() % 2 == 0 && !hex.is_empty())
            {
                Some(hex) if answer != "OK" => printed += &String::from_utf8(bytes(hex)).unwrap(),
                _ => return printed,
            }
        }
    }

    fn program_counter(&mut self) -> u64 {
        let registers = bytes(&self.ask("g"));
        u64::from_le_bytes(registers[32 * 8..][..8].try_into().unwrap())
    }

    fn position(&mut self) -> u64 {
        let said = self.monitor("where");
        let number = said.strip_prefix("instruction ").unwrap().split(',').next();
        number.unwrap().parse().unwrap()
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn serve(recorded: &Recorded, options: &[&str]) -> (Process, Client) {
    let socket = recorded.directory().join("gdb");
    let address = format!("unix:{}", socket.display());
    let log = recorded.log();
    let command = ["replay", log.to_str().unwrap(), "--gdb", &address];
    let process = Process::start(&[&command, options].concat());
    let client = Client::connect(&socket);
    (process, client)
}

#[test]
fn a_debugger_goes_forward_and_back_and_changes_nothing() {
    let recorded = Recorded::new();
    let places = recorded.places;
    let counted = places.counted;
    let (mut process, mut client) = serve(&recorded, &["--at", "instruction:3000"]);
    let features = client.ask("qSupported:swbreak+;hwbreak+;xmlRegisters=riscv");
    for feature in [
        "ReverseContinue+",
        "ReverseStep+",
        "qXfer:features:read+",
        "swbreak+",
    ] {
        assert!(features.contains(feature), "{features}");
    }
    assert_eq!(client.position(), 3000);
    let description = client.ask("qXfer:features:read:target.xml:0,fff");
    assert!(
        description.starts_with('m') && description.contains("riscv:rv64"),
        "{description}"
    );
    assert!(client.ask("?").starts_with("T05"));
    assert_eq!(client.ask("qfThreadInfo"), "m01");
    client.ask("Hc1");
    let at_3000 = client.monitor("digest");

    // A breakpoint stops there, and memory is as if it were not there.
    assert_eq!(client.ask(&format!("Z0,{:x},4", places.store)), "OK");
    let stop = client.ask("c");
    assert!(
        stop.starts_with("T05") && stop.contains("swbreak"),
        "{stop}"
    );
    assert_eq!(client.program_counter(), places.store);
    let code = bytes(&client.ask(&format!("m{:x},4", places.store)));
    let program = fs::read(recorded.kernel()).unwrap();
    let offset = (places.store - RAM) as usize;
    assert!(
        program.windows(4).any(|word| word == code),
        "at {offset:#x}"
    );
    let first = client.position();
    assert!(first >= 3000);

    // The next one, back again, and back to the beginning.
    client.ask("c");
    let second = client.position();
    assert!(second > first);
    assert!(client.ask("bc").contains("swbreak"));
    assert_eq!(client.position(), first);
    assert!(client.ask("bs").starts_with("S05"));
    assert_eq!(client.position(), first - 1);
    assert!(client.ask("s").starts_with("S05"));
    assert_eq!(client.position(), first);
    assert_eq!(client.program_counter(), places.store);
    assert_eq!(client.ask(&format!("z0,{:x},4", places.store)), "OK");
    let begin = client.ask("bc");
    assert!(begin.contains("replaylog:begin"), "{begin}");
    assert_eq!(client.position(), 0);

    // The interrupt's handler, which no instruction jumps to.
    assert_eq!(client.ask(&format!("Z1,{:x},4", places.handler)), "OK");
    client.ask("c");
    assert_eq!(client.program_counter(), places.handler);
    client.ask(&format!("z1,{:x},4", places.handler));

    // A watchpoint, as gdb expects it on RISC-V: before the store on the way there, behind it on the way back.
    let watch = format!("2,{counted:x},4");
    assert_eq!(client.ask(&format!("Z{watch}")), "OK");
    let stop = client.ask("c");
    assert!(stop.contains(&format!("watch:{counted:x}")), "{stop}");
    assert_eq!(client.program_counter(), places.store);
    let before = (client.position(), client.ask(&format!("m{counted:x},4")));
    assert_eq!(client.ask(&format!("z{watch}")), "OK");
    client.ask("s");
    client.ask("s");
    assert_eq!(client.ask(&format!("Z{watch}")), "OK");
    assert!(client.ask("bc").contains("watch"));
    assert_eq!(client.position(), before.0 + 1);
    assert_ne!(client.ask(&format!("m{counted:x},4")), before.1);
    client.ask(&format!("z{watch}"));

    // Nothing can be changed, and there is nothing where nothing is.
    assert!(client.ask(&format!("M{counted:x},1:ff")).starts_with('E'));
    assert!(client.ask("m10,4").starts_with('E'));

    // To the end; and the machine at a moment is still the one of a plain replay.
    let end = client.ask("c");
    assert!(end.contains("replaylog:end"), "{end}");
    let moved = client.monitor("goto instruction:3000");
    assert!(moved.contains("instruction 3000"), "{moved}");
    assert_eq!(client.monitor("digest"), at_3000);
    let log = recorded.log();
    let plain = run(&["replay", log.to_str().unwrap(), "--at", "instruction:3000"]);
    assert!(error_text(&plain).contains(&format!("digest {} at 3000", at_3000.trim())));
    assert!(client.monitor("goto 99h").contains("beyond the end"));

    // The next debugger comes in where the first one left; the last one ends it.
    client.ask("D;1");
    drop(client);
    let mut client = Client::connect(&recorded.directory().join("gdb"));
    client.ask("?");
    client.send("k");
    let (status, said) = process.end();
    assert!(status.success(), "{said}");
    assert!(said.contains("for this user only"), "{said}");
    assert!(!recorded.directory().join("gdb").exists());
}

#[test]
fn what_cannot_be_debugged_is_refused() {
    let recorded = Recorded::new();
    let log = recorded.log();
    let log = log.to_str().unwrap();
    for (options, expected) in [
        (
            ["--gdb", "0.0.0.0:1234", "--engine", "jit"],
            "127.0.0.1:PORT",
        ),
        (
            ["--gdb", "127.0.0.1:0", "--engine", "paranoid"],
            "no breakpoints",
        ),
        (["--gdb", "127.0.0.1:0", "--at", "9h"], "beyond the end"),
        (
            ["--gdb", "127.0.0.1:0", "--until", "5"],
            "cannot be used with",
        ),
    ] {
        let output = run(&[&["replay", log], &options[..]].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(
            error_text(&output).contains(expected),
            "{}",
            error_text(&output)
        );
    }
}
