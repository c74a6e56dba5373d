//! Server-Sent Events (WHATWG HTML 9.2): the same pushes as on a WebSocket, for `curl -N` and
//! `EventSource`.

use bytes::{BufMut, Bytes, BytesMut};

/// One event of the stream: `data` is one push, a JSON text without line breaks.
pub fn event(name: &str, pos: Option<&str>, data: &[u8]) -> Bytes {
    debug_assert!(!data.contains(&b'\n') && !data.contains(&b'\r'));
    let mut text = BytesMut::with_capacity(data.len() + name.len() + 80);
    if let Some(pos) = pos {
        text.put_slice(b"id: ");
        text.put_slice(pos.as_bytes());
        text.put_u8(b'\n');
    }
    text.put_slice(b"event: ");
    text.put_slice(name.as_bytes());
    text.put_slice(b"\ndata: ");
    text.put_slice(data);
    text.put_slice(b"\n\n");
    text.freeze()
}

/// A comment: nothing for the page, and a sign of life for everything in between.
pub fn heartbeat() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// How long `EventSource` waits before it comes back.
pub fn retry(milliseconds: u64) -> Bytes {
    format!("retry: {milliseconds}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_the_stream() {
        assert_eq!(&event("event", Some("q@1"), b"{}")[..], b"id: q@1\nevent: event\ndata: {}\n\n");
        assert_eq!(&event("resync", None, b"{}")[..], b"event: resync\ndata: {}\n\n");
        assert_eq!(&retry(1500)[..], b"retry: 1500\n\n");
    }
}
