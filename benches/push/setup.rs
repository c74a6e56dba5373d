//! Where the numbers come from: the machine and the versions, printed above the table.

use std::fs;
use std::process::Command;

use super::server;
use super::support::fixtures::server_jars;

/// Prints what a reader needs to judge the numbers.
pub fn print(sockets: usize) {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned()
    };
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("date       {}", said("date", &["-u", "+%F %R UTC"]));
    println!("machine    {cores} cores of {}, {}", first("/proc/cpuinfo", "model name"), first("/proc/meminfo", "MemTotal"));
    println!("kernel     {}", said("uname", &["-sr"]));
    println!("load       {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    println!("program    {}", server::binary());
    println!("allocator  {}", allocator());
    println!("sockets    {sockets} descriptors a process");
    let jars = fs::read_dir(server_jars()).into_iter().flatten().flatten();
    let names = jars.map(|jar| jar.file_name().to_string_lossy().into_owned());
    let is_server = |name: &String| name.starts_with("kafka_2") || name.starts_with("zookeeper-3");
    println!("servers    {}\n", names.filter(is_server).collect::<Vec<_>>().join(", "));
}

/// The allocator of the measured program, told by the names it was linked with.
fn allocator() -> &'static str {
    let program = fs::read(server::binary()).unwrap_or_default();
    let holds = |name: &[u8]| program.windows(name.len()).any(|window| window == name);
    if holds(b"mi_malloc") {
        "mimalloc"
    } else if holds(b"jemalloc") {
        "jemalloc"
    } else {
        "the system's malloc"
    }
}

/// Raises the soft limit of open files to the hard one; returns it.
pub fn raise_descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a struct that outlives them.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}
