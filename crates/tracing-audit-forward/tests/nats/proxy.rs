//! A proxy between a client and a server that cuts or silences the connection.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

/// What the proxy does.
#[derive(Default)]
pub(crate) struct Faults {
    /// Drops the next acknowledgement, and closes the connection.
    pub(crate) cut_at_acknowledgement: AtomicBool,
    /// Drops all acknowledgements.
    pub(crate) drop_acknowledgements: AtomicBool,
    /// Closes the connection when a client publishes records.
    pub(crate) cut_before_records: AtomicBool,
    /// Cuts the next message of a consumer in the middle, and closes the connection.
    pub(crate) cut_at_message: AtomicBool,
    /// Drops all answers of the server.
    pub(crate) silence: AtomicBool,
    /// The number of times that something was dropped.
    pub(crate) cuts: AtomicU32,
}

/// Opens a port that leads to `server`. Its threads end with the test.
pub(crate) fn start(server: u16) -> (u16, Arc<Faults>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let faults = Arc::new(Faults::default());
    let for_threads = Arc::clone(&faults);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
            let ((from, to), (back, again)) =
                ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
            let faults = Arc::clone(&for_threads);
            thread::spawn(move || {
                carry(from, to, |bytes| {
                    let is_record = contains(bytes, b"Nats-Msg-Id");
                    if is_record && faults.cut_before_records.load(Ordering::SeqCst) {
                        faults.cuts.fetch_add(1, Ordering::SeqCst);
                        return What::Cut;
                    }
                    What::Pass
                });
            });
            let faults = Arc::clone(&for_threads);
            thread::spawn(move || {
                carry(back, again, |bytes| {
                    let is_acknowledgement =
                        contains(bytes, br#"{"stream":"#) || contains(bytes, br#""seq":0}"#);
                    if is_acknowledgement && faults.cut_at_acknowledgement.swap(false, Ordering::SeqCst) {
                        faults.cuts.fetch_add(1, Ordering::SeqCst);
                        return What::Cut;
                    }
                    if is_acknowledgement && faults.drop_acknowledgements.load(Ordering::SeqCst) {
                        faults.cuts.fetch_add(1, Ordering::SeqCst);
                        return What::Swallow;
                    }
                    if contains(bytes, b"$JS.ACK.") && faults.cut_at_message.swap(false, Ordering::SeqCst) {
                        faults.cuts.fetch_add(1, Ordering::SeqCst);
                        return What::Cut;
                    }
                    if faults.silence.load(Ordering::SeqCst) { What::Swallow } else { What::Pass }
                });
            });
        }
    });
    (port, faults)
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}

enum What {
    Pass,
    Swallow,
    Cut,
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut judge: impl FnMut(&[u8]) -> What) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..length];
        match judge(bytes) {
            What::Pass if to.write_all(bytes).is_ok() => {}
            What::Swallow => {}
            What::Pass | What::Cut => break,
        }
    }
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
