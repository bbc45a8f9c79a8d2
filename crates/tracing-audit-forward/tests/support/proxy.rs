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
    /// Passes the next `COMMIT`, or the text given to [`start_for`], to the server, and drops the answer.
    pub(crate) cut_after_commit: AtomicBool,
    /// Drops all answers of the server.
    pub(crate) silence: AtomicBool,
    /// The number of answers to a `COMMIT` that were dropped.
    pub(crate) cuts: AtomicU32,
}

/// Opens a port that leads to `server`. Its threads end with the test.
pub(crate) fn start(server: u16) -> (u16, Arc<Faults>) {
    start_for(server, b"; COMMIT")
}

/// Opens a port as [`start`] does, but counts requests with this text.
pub(crate) fn start_for(server: u16, text: &'static [u8]) -> (u16, Arc<Faults>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let faults = Arc::new(Faults::default());
    let for_threads = Arc::clone(&faults);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
            let is_cut = Arc::new(AtomicBool::new(false));
            let (there, back) =
                ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
            let (faults, cut) = (Arc::clone(&for_threads), Arc::clone(&is_cut));
            thread::spawn(move || {
                carry(there.0, there.1, |bytes| {
                    if bytes.windows(text.len()).any(|word| word == text)
                        && faults.cut_after_commit.swap(false, Ordering::SeqCst)
                    {
                        cut.store(true, Ordering::SeqCst);
                    }
                    What::Pass
                });
            });
            let faults = Arc::clone(&for_threads);
            thread::spawn(move || {
                carry(back.0, back.1, |_| {
                    if is_cut.load(Ordering::SeqCst) {
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
