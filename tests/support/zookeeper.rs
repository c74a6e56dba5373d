//! A real ZooKeeper for a test, and a proxy in front of it that can cut and stall connections.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, watch};
use tokio::time::{sleep, timeout};

use super::fixtures::{free_port, server_jars};
use super::process::{end_at_exit, signal, spawn_tied};

const START: Duration = Duration::from_secs(60);

/// A standalone server on a free loopback port, with its data in a temporary folder. Dies with the test.
pub struct TestZookeeper {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl TestZookeeper {
    /// The one that all tests share, each under a chroot of its own; do not harm it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<TestZookeeper> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                let server = Self::start().await;
                end_at_exit(server.pid(), server.folder.path());
                server
            })
            .await
    }

    /// Starts a server and waits until it serves requests.
    pub async fn start() -> Self {
        // The port may be gone by the time it is used; then another one is tried.
        for _ in 0..3 {
            let folder = TempDir::new().expect("make a folder for ZooKeeper");
            let mut server = Self { folder, port: free_port(), server: None };
            server.write_settings();
            if server.launch().await {
                return server;
            }
        }
        panic!("ZooKeeper does not start");
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As `kill -9`: sessions and data survive on disk.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// A new process on the same port and data, ready when this returns.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(self.launch().await, "ZooKeeper does not start again");
    }

    /// Stops the process in its tracks (SIGSTOP): connections stay open and silent.
    pub fn freeze(&self) {
        signal(self.pid(), libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        signal(self.pid(), libc::SIGCONT);
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("a running server").id()
    }

    fn write_settings(&self) {
        let data = self.folder.path().join("data");
        let settings = format!(
            "tickTime=500\nminSessionTimeout=1000\nmaxSessionTimeout=60000\ndataDir={}\n\
             clientPort={}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\nadmin.enableServer=false\n\
             4lw.commands.whitelist=*\nforceSync=no\n",
            data.display(),
            self.port
        );
        let log = "log4j.rootLogger=WARN,O\nlog4j.appender.O=org.apache.log4j.ConsoleAppender\n\
                   log4j.appender.O.layout=org.apache.log4j.PatternLayout\n\
                   log4j.appender.O.layout.ConversionPattern=%d{ISO8601} %-5p [%t:%c{1}] %m%n\n";
        fs::write(self.folder.path().join("zoo.cfg"), settings).expect("write zoo.cfg");
        fs::write(self.folder.path().join("log4j.properties"), log).expect("write log4j.properties");
    }

    async fn launch(&mut self) -> bool {
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(folder.join("log")).expect("open the server's log");
        let mut java = Command::new("java");
        java.args(["-XX:TieredStopAtLevel=1", "-Xmx512m", "-XX:+UseSerialGC"])
            // One argument: java itself reads the asterisk.
            .arg("-cp")
            .arg(format!("{}/*", server_jars().display()))
            .arg(format!("-Dlog4j.configuration=file:{}", folder.join("log4j.properties").display()))
            // Plain Java properties: in zoo.cfg nothing would read them.
            .args(["-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.preAllocSize=4096"])
            .args(["-Dznode.container.checkIntervalMs=1000", "-Dznode.container.maxPerMinute=60000"])
            .arg("-Djute.maxbuffer=67108864")
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(folder.join("zoo.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log, again"))
            .stderr(log);
        self.server = Some(spawn_tied(java).expect("start java: is a JDK 17 installed?"));
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            // `ruok` would answer while the server is still loading.
            if self.ask("srvr").await.is_some_and(|answer| answer.contains("Mode:")) {
                return true;
            }
            if let Some(status) = self.server.as_mut().and_then(|server| server.try_wait().expect("its status")) {
                self.server = None;
                eprintln!("ZooKeeper has ended ({status}):\n{}", self.log());
                return false;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("ZooKeeper is not ready after {START:?}:\n{}", self.log());
    }

    /// Sends one of ZooKeeper's four-letter commands.
    pub async fn ask(&self, command: &str) -> Option<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            stream.write_all(command.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        timeout(Duration::from_secs(2), exchange).await.ok().flatten()
    }

    /// What the server has printed.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }
}

impl Drop for TestZookeeper {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What a [`Proxy`] does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Stall,
    Cut,
}

/// A TCP proxy: the network between one client and a server, with faults. Ending a session from outside takes
/// its password, so sessions are expired by keeping them away.
pub struct Proxy {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
}

impl Proxy {
    pub async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind the proxy");
        let address = listener.local_addr().expect("the proxy's address");
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let (server, modes) = (server.to_owned(), mode.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server.clone(), modes.subscribe()));
            }
        });
        Self { address, mode }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Lets everything through (again); what was stalled goes on.
    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    /// Connections stay open, and nothing goes through: what a dead network looks like.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    /// Connections are closed, new ones too.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }
}

async fn relay(client: TcpStream, server: String, mut modes: watch::Receiver<Mode>) {
    if *modes.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pump(from_client, to_server, modes.clone()) => {}
        () = pump(from_server, to_client, modes.clone()) => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if modes.wait_for(|mode| *mode == Mode::Pass).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
