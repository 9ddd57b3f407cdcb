//! Starting a child that does not outlive us.
//!
//! Linux can send a child a signal when its parent dies, and means the parent *thread*: a child spawned from a thread
//! of a pool dies as soon as the pool shrinks. So one thread, which never ends, spawns them all.

// `pre_exec` is unsafe because its closure runs between fork and exec. Ours makes two system calls and allocates nothing.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;

use nix::sys::signal::Signal;

struct Request {
    command: Command,
    reply: SyncSender<io::Result<Child>>,
}

static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();

/// Spawns a child in its own process group, so that Ctrl-C reaches us and not it,
/// and with `on_our_death` as the signal it gets when we are gone (Linux only).
///
/// # Errors
/// When the child cannot be started.
pub fn spawn(mut command: Command, on_our_death: Signal) -> io::Result<Child> {
    command.process_group(0);
    die_with_us(&mut command, on_our_death);
    let (reply, answer) = sync_channel(1);
    let gone = || io::Error::other("the thread that spawns the servers is gone");
    spawner()?.send(Request { command, reply }).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn spawner() -> io::Result<&'static Sender<Request>> {
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender);
    }
    let (sender, requests) = channel::<Request>();
    // Two callers at once may both start a thread; the one whose sender is dropped ends before it has spawned anything.
    thread::Builder::new().name("embedded-spawn".to_owned()).spawn(move || {
        for mut request in requests {
            let _ = request.reply.send(request.command.spawn());
        }
    })?;
    Ok(SPAWNER.get_or_init(|| sender))
}

#[cfg(target_os = "linux")]
fn die_with_us(command: &mut Command, signal: Signal) {
    use nix::errno::Errno;
    use nix::sys::prctl;
    use nix::unistd::{Pid, getppid};

    let us = Pid::this();
    // The standard library runs this after the change of user, which would clear the setting.
    let in_child = move || {
        prctl::set_pdeathsig(signal)?;
        // We may have died before the line above: then nobody would ever send the signal.
        if getppid() == us { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
    };
    // SAFETY: see above; the closure only makes system calls.
    unsafe {
        command.pre_exec(in_child);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_us(_command: &mut Command, _signal: Signal) {}
