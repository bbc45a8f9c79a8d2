//! Inserts the values of headers into a request below the HTTP client.
//!
//! The client writes everything that it sends to the `log` crate at `trace`. So it gets as many asterisks as
//! a value has bytes, which are replaced on the way to the socket, or to TLS.

use std::{fmt, sync::Arc};

use ureq::{
    Error,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport},
};

use super::headers::Line;

/// Wraps each connection so that it replaces these lines.
pub(super) struct Unmask(Arc<[Line]>);

impl Unmask {
    pub(super) fn new(lines: Vec<Line>) -> Self {
        Self(lines.into())
    }
}

impl<In: Transport> Connector<In> for Unmask {
    type Out = Unmasked<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Unmasked { inner, lines: Arc::clone(&self.0), is_in_head: true }))
    }
}

impl fmt::Debug for Unmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unmask").finish_non_exhaustive()
    }
}

/// A connection on which the values of headers are sent in place of their masks.
pub(super) struct Unmasked<In> {
    inner: In,
    lines: Arc<[Line]>,
    /// Whether the next byte to send belongs to the head of a request. A body is never changed: its content
    /// is chosen by others, and must not be completed by a credential.
    is_in_head: bool,
}

impl<In: Transport> Transport for Unmasked<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.is_in_head
            && let Some(output) = self.inner.buffers().output().get_mut(..amount)
        {
            let end = find(output, b"\r\n\r\n").map(|at| at + 4);
            // A long head is sent in several calls; the body begins after the first empty line.
            self.is_in_head = end.is_none();
            if let Some(head) = output.get_mut(..end.unwrap_or(amount)) {
                self.lines.iter().for_each(|line| replace(head, line));
            }
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // After an answer, the head of the next request follows.
        self.is_in_head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<In> fmt::Debug for Unmasked<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unmasked").finish_non_exhaustive()
    }
}

/// Replaces a masked line. If it is not found, the mask is sent, and the receiver does not accept it.
fn replace(head: &mut [u8], line: &Line) {
    if let Some(at) = find(head, &line.masked) {
        for (byte, real) in head.iter_mut().skip(at).zip(&line.real) {
            *byte = *real;
        }
    }
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_line_is_replaced() {
        let line = Line { masked: b"\r\nx-key: ***\r\n".to_vec(), real: b"\r\nx-key: abc\r\n".to_vec() };
        let mut head = b"POST / HTTP/1.1\r\ny-x-key: ***\r\nx-key: ****\r\nx-key: ***\r\n\r\n".to_vec();
        replace(&mut head, &line);
        let expected = b"POST / HTTP/1.1\r\ny-x-key: ***\r\nx-key: ****\r\nx-key: abc\r\n\r\n";
        assert_eq!(head, expected);
    }
}
