//! RFC 6455 framing without a socket: tungstenite's state machine reads what it is fed and answers
//! into a buffer.
//!
//! Reading goes through tungstenite, for masking, fragments, UTF-8 and control frames are its
//! trade. Data frames of the server are written past it: they are unmasked, so one encoded frame
//! ([`text_frame`]) is shared by all sessions that receive it, and no session keeps a write buffer
//! of its own.

use std::io::{self, Read, Write};

use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::close::CloseReason;

/// What tungstenite reads into, per session, kept for the session's life; longer messages grow it.
/// Its default of 128 KiB is what makes idle sockets expensive.
const READ_BUFFER: usize = 128;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Text(String),
    /// A pong, or a ping that has been answered: a sign of life.
    Control,
    /// The client's half of the closing handshake.
    Close,
}

/// The reading half, and the control frames that go with it.
#[derive(Debug)]
pub struct Codec {
    context: WebSocketContext,
}

/// tungstenite's idea of a socket: a slice to read from, a buffer to answer into.
struct Bridge<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Bridge<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.input.read(buffer) }
    }
}

impl Write for Bridge<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Codec {
    /// A server's side that takes frames and messages up to `limit` bytes.
    pub fn server(limit: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_frame_size(Some(limit))
            .max_message_size(Some(limit));
        Self { context: WebSocketContext::new(Role::Server, Some(config)) }
    }

    /// Takes in bytes as they came; `inputs` gets what they complete, `output` what must be
    /// answered (pongs, the closing handshake). An error ends the session, with the code that RFC
    /// 6455 7.4.1 gives it.
    pub fn feed(&mut self, bytes: &[u8], inputs: &mut Vec<Input>, output: &mut Vec<u8>) -> Result<(), CloseReason> {
        let mut bridge = Bridge { input: bytes, output };
        loop {
            match self.context.read(&mut bridge) {
                Ok(Message::Text(text)) => inputs.push(Input::Text(text.as_str().to_owned())),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => inputs.push(Input::Control),
                Ok(Message::Binary(_)) => return Err(CloseReason::BinaryFrame),
                Ok(Message::Close(_)) => inputs.push(Input::Close),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    if inputs.last() != Some(&Input::Close) {
                        inputs.push(Input::Close);
                    }
                    return Ok(());
                }
                Err(Error::Utf8(_)) => return Err(CloseReason::NotUtf8),
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => return Err(CloseReason::TooBig),
                Err(Error::Protocol(ProtocolError::InvalidCloseSequence)) => return Err(CloseReason::ProtocolError),
                Err(_) => return Err(CloseReason::ProtocolError),
            }
        }
    }

    /// Begins the closing handshake from our side.
    pub fn close(&mut self, reason: CloseReason, output: &mut Vec<u8>) {
        let frame = CloseFrame { code: reason.code().into(), reason: reason.words().into() };
        // Fails only where the handshake is over already, and then there is nothing to say.
        let _ = self.context.close(&mut Bridge { input: &[], output }, Some(frame));
    }
}

/// One unmasked text frame (RFC 6455 5.2).
pub fn text_frame(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(0x81);
    match payload.len() {
        length @ 0..=125 => frame.put_u8(length as u8),
        length @ 126..=0xffff => {
            frame.put_u8(126);
            frame.put_u16(length as u16);
        }
        length => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    frame.put_slice(payload);
    frame.freeze()
}

/// The text in a frame that [`text_frame`] made.
pub fn frame_payload(frame: &Bytes) -> Bytes {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.slice(header.min(frame.len())..)
}

/// A ping without a payload: whatever library the client uses answers it.
pub const PING_FRAME: [u8; 2] = [0x89, 0x00];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client's frame, masked with zeros.
    fn masked(head: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![head, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    fn feed(bytes: &[u8]) -> (Result<(), CloseReason>, Vec<Input>, Vec<u8>) {
        let (mut inputs, mut output) = (Vec::new(), Vec::new());
        let result = Codec::server(100).feed(bytes, &mut inputs, &mut output);
        (result, inputs, output)
    }

    #[test]
    fn text_pings_and_the_closing_handshake() {
        let bytes = [masked(0x81, b"hi"), masked(0x89, b"p"), masked(0x88, &1000u16.to_be_bytes())].concat();
        let (result, inputs, output) = feed(&bytes);
        assert_eq!(result, Ok(()));
        assert_eq!(inputs, [Input::Text("hi".into()), Input::Control, Input::Close]);
        assert_eq!(output, [&[0x8a, 1, b'p'][..], &[0x88, 2, 0x03, 0xe8][..]].concat(), "a pong, then the close echoed");
    }

    #[test]
    fn what_is_wrong_has_its_code() {
        assert_eq!(feed(&masked(0x82, b"x")).0, Err(CloseReason::BinaryFrame));
        assert_eq!(feed(&masked(0x81, &[0xff])).0, Err(CloseReason::NotUtf8));
        assert_eq!(feed(&masked(0x81, &[b'x'; 101])).0, Err(CloseReason::TooBig));
        assert_eq!(feed(&[0x81, 2, b'h', b'i']).0, Err(CloseReason::ProtocolError), "unmasked");
        assert_eq!(feed(&masked(0xc1, b"x")).0, Err(CloseReason::ProtocolError), "reserved bit");
    }

    #[test]
    fn we_close_and_the_client_agrees() {
        let mut codec = Codec::server(100);
        let (mut inputs, mut output) = (Vec::new(), Vec::new());
        codec.close(CloseReason::Draining, &mut output);
        assert_eq!(&output[2..4], 4412u16.to_be_bytes());
        codec.feed(&masked(0x88, &4412u16.to_be_bytes()), &mut inputs, &mut output).unwrap();
        assert_eq!(inputs, [Input::Close]);
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(texts in proptest::collection::vec("[a-z]{0,90}", 1..6), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let bytes: Vec<u8> = texts.iter().flat_map(|t| masked(0x81, t.as_bytes())).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut codec = Codec::server(100);
            let (mut inputs, mut output) = (Vec::new(), Vec::new());
            for pair in cuts.windows(2) {
                codec.feed(&bytes[pair[0]..pair[1]], &mut inputs, &mut output).unwrap();
            }
            prop_assert_eq!(inputs, texts.into_iter().map(Input::Text).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = feed(&bytes);
        }

        #[test]
        fn a_frame_holds_its_payload(length in prop_oneof![0..300usize, 65_530..65_540usize]) {
            let payload = vec![b'x'; length];
            prop_assert_eq!(&frame_payload(&text_frame(&payload))[..], &payload[..]);
        }
    }
}
