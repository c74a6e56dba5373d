//! The PROXY protocol, versions 1 and 2: whom a load balancer speaks for.
//!
//! Exactly the header is read, and not a byte behind it: that belongs to TLS or IMAP.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::ProxyHeader;

/// The longest header of version 1, its line end included.
const V1_BYTES: usize = 107;
/// The part of a version 2 header that is always there.
const V2_FIXED_BYTES: usize = 16;
/// The longest header of version 2 that is read: addresses and what load balancers add to them.
const V2_BYTES: usize = 4096;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("the connection ended or broke in its PROXY header: {0}")]
    Io(#[from] io::Error),
    #[error("the connection does not begin with a PROXY header")]
    Absent,
    #[error("its PROXY header is malformed")]
    Malformed,
}

/// Reads a header. `None`: the sender speaks for itself (`LOCAL`, `UNKNOWN`).
pub async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    // The shortest header of version 1, `PROXY UNKNOWN` and its line end, is longer than version
    // 2's signature.
    let mut bytes = vec![0; v2::PROTOCOL_PREFIX.len()];
    for at in 0..bytes.len() {
        bytes[at] = stream.read_u8().await?;
        let so_far = &bytes[..=at];
        if !v2::PROTOCOL_PREFIX.starts_with(so_far) && !begins_v1(so_far) {
            return Err(HeaderError::Absent);
        }
    }
    if bytes == v2::PROTOCOL_PREFIX { read_v2(stream, bytes).await } else { read_v1(stream, bytes).await }
}

fn begins_v1(bytes: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"PROXY ";
    let known = bytes.len().min(BEGINNING.len());
    bytes[..known] == BEGINNING[..known]
}

async fn read_v1(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Result<Option<SocketAddr>, HeaderError> {
    // Byte by byte, for the end is only known when it is there. The kernel holds them: these are
    // cheap calls.
    while !bytes.ends_with(b"\r\n") {
        if bytes.len() == V1_BYTES {
            return Err(HeaderError::Malformed);
        }
        bytes.push(stream.read_u8().await?);
    }
    match v1::Header::try_from(&bytes[..]).map_err(|_| HeaderError::Malformed)?.addresses {
        v1::Addresses::Tcp4(a) => Ok(Some((a.source_address, a.source_port).into())),
        v1::Addresses::Tcp6(a) => Ok(Some((a.source_address, a.source_port).into())),
        v1::Addresses::Unknown => Ok(None),
    }
}

async fn read_v2(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Result<Option<SocketAddr>, HeaderError> {
    let known = bytes.len();
    bytes.resize(V2_FIXED_BYTES, 0);
    stream.read_exact(&mut bytes[known..]).await?;
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if V2_FIXED_BYTES + length > V2_BYTES {
        return Err(HeaderError::Malformed);
    }
    bytes.resize(V2_FIXED_BYTES + length, 0);
    stream.read_exact(&mut bytes[V2_FIXED_BYTES..]).await?;
    let header = v2::Header::try_from(&bytes[..]).map_err(|_| HeaderError::Malformed)?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    match header.addresses {
        v2::Addresses::IPv4(a) => Ok(Some((a.source_address, a.source_port).into())),
        v2::Addresses::IPv6(a) => Ok(Some((a.source_address, a.source_port).into())),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Ok(None),
    }
}

/// The header that tells a mail server the client's address, and the one where it came in. Empty:
/// none is wanted.
pub fn header(version: ProxyHeader, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, local) = match (canonical(client), canonical(local)) {
        // Both must be of one family.
        (SocketAddr::V6(client), SocketAddr::V4(local)) => {
            (client.into(), SocketAddr::new(local.ip().to_ipv6_mapped().into(), local.port()))
        }
        (SocketAddr::V4(client), SocketAddr::V6(local)) => {
            (SocketAddr::new(client.ip().to_ipv6_mapped().into(), client.port()), local.into())
        }
        pair => pair,
    };
    match version {
        ProxyHeader::None => Vec::new(),
        ProxyHeader::V1 => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port()).into_bytes()
        }
        ProxyHeader::V2 => {
            let command = v2::Version::Two | v2::Command::Proxy;
            let built = v2::Builder::with_addresses(command, v2::Protocol::Stream, v2::Addresses::from((client, local))).build();
            // Fails only for payloads beyond 64 KiB; two addresses are not.
            built.unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is read of these bytes, and what is left behind them.
    async fn given(bytes: &[u8]) -> (Result<Option<String>, String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        sender.write_all(bytes).await.unwrap();
        drop(sender);
        let read = read(&mut receiver).await;
        let mut rest = Vec::new();
        receiver.read_to_end(&mut rest).await.unwrap();
        (read.map(|address| address.map(|a| a.to_string())).map_err(|error| error.to_string()), rest)
    }

    #[tokio::test]
    async fn exactly_the_header_is_read() {
        let (client, local) = ("192.0.2.7:4242".parse().unwrap(), "198.51.100.1:143".parse().unwrap());
        let (client6, local6) = ("[2001:db8::7]:4242".parse().unwrap(), "[2001:db8::1]:143".parse().unwrap());
        for version in [ProxyHeader::V1, ProxyHeader::V2] {
            for (client, local, told) in [
                (client, local, "192.0.2.7:4242"),
                (client6, local6, "[2001:db8::7]:4242"),
                (client6, local, "[2001:db8::7]:4242"),
            ] {
                let bytes = [header(version, client, local), b"a LOGIN".to_vec()].concat();
                assert_eq!(given(&bytes).await, (Ok(Some(told.to_owned())), b"a LOGIN".to_vec()), "{version:?}");
            }
        }
        assert_eq!(given(b"PROXY UNKNOWN\r\nx").await, (Ok(None), b"x".to_vec()));
        let local_command = [v2::PROTOCOL_PREFIX, &[0x20, 0, 0, 0], b"x"].concat();
        assert_eq!(given(&local_command).await, (Ok(None), b"x".to_vec()));
        assert!(header(ProxyHeader::None, client, local).is_empty());
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let absent = "the connection does not begin with a PROXY header";
        let malformed = "its PROXY header is malformed";
        let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        let huge = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat();
        let cases: [(&[u8], &str); 7] = [
            (b"a LOGIN bob secret\r\n", absent),
            (b"\x16\x03\x01\x02\x00", absent),
            (b"\r\n\r\nx", absent),
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 99999 1\r\n", malformed),
            (b"PROXY TCP4 2001:db8::1 198.51.100.1 1 1\r\n", malformed),
            (&long, malformed),
            (&huge, malformed),
        ];
        for (bytes, problem) in cases {
            // What is unread when the socket closes resets it: what is left is of no interest.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut receiver, _) = listener.accept().await.unwrap();
            sender.write_all(bytes).await.unwrap();
            assert_eq!(read(&mut receiver).await.unwrap_err().to_string(), problem, "{bytes:?}");
        }
        let (read, _) = given(b"PROXY TCP4 1").await;
        assert!(read.unwrap_err().contains("ended or broke"));
    }
}
