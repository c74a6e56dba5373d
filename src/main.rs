//! The program: everything is in the library, but for the allocator, which is a program's choice.

/// glibc's malloc keeps what a burst needed: a 32 KiB event to each of 10,000 idle sessions of 4.3
/// KiB left 8 to 11 KiB a session, this leaves 4.5, and bursts take a quarter less CPU time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is unused for a second goes back to the system, by a thread of the allocator's own: without
/// it an idle node would never come to it. `_RJEM_MALLOC_CONF` in the environment wins over this.
/// Read by jemalloc as `char *`.
// SAFETY: the name is jemalloc's own, and what it points to is a constant that ends with a NUL.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static JEMALLOC_SETTINGS: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> std::process::ExitCode {
    mailpush::cli::main()
}
