//! The Unix socket through which peers hand over files: their memory and their bell.
//!
//! Its name is in the abstract namespace (nothing to clean up), is 128 random bits, and is told to
//! peers over their authenticated links only, with a token of each link: that shows the receiver
//! whose gift it is. The giver asks the kernel who listens: only a process of the same user is given
//! memory, should somebody else have taken the name of a peer that just died.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
        bind, connect, listen, recvmsg, sendmsg, socket_with, sockopt::socket_peercred,
    },
    process::geteuid,
};

use super::words::Random;

/// Visitors that have not said yet what they bring; the oldest goes when there are more.
const VISITORS_MAX: usize = 64;

/// What a peer hands over: which link it is for, of which view, and the files.
#[derive(Debug)]
pub(super) struct Gift {
    pub(super) token: Random,
    pub(super) view: u64,
    pub(super) memory: OwnedFd,
    pub(super) bell: OwnedFd,
}

/// Why nothing could be handed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// Later it may work.
    #[error("the peer's socket is busy")]
    Busy,
    #[error("its socket is not on this host, or in another network namespace")]
    Elsewhere,
    #[error("it runs in another process-id namespace")]
    OtherSpace,
    #[error("it runs as user {0}, not as this process's user")]
    Stranger(u32),
    #[error("handing over memory: {0}")]
    Io(#[from] io::Error),
}

/// The socket, and who stands before it.
#[derive(Debug)]
pub(super) struct Door {
    name: Random,
    socket: OwnedFd,
    visitors: VecDeque<OwnedFd>,
}

fn address(name: &Random) -> io::Result<SocketAddrUnix> {
    let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(SocketAddrUnix::new_abstract_name(format!("tradewind-{hex}").as_bytes())?)
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// The namespace of this process's id, by which two processes know whether the kernel can tell them
/// of each other; 0 if it cannot be known.
pub(super) fn process_space() -> u64 {
    rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

/// Random bytes from the kernel.
pub(super) fn random() -> io::Result<Random> {
    let mut bytes = Random::default();
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

impl Door {
    /// Opens a socket and has `token` told when somebody is there.
    pub(super) fn open(registry: &Registry, token: Token) -> io::Result<Self> {
        let name = random()?;
        let socket = stream()?;
        bind(&socket, &address(&name)?)?;
        listen(&socket, 64)?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { name, socket, visitors: VecDeque::new() })
    }

    pub(super) fn name(&self) -> Random {
        self.name
    }

    /// Takes what visitors bring, as far as it is there; `token` tells when there is more.
    pub(super) fn receive(&mut self, registry: &Registry, token: Token) -> Vec<Gift> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        while let Ok(visitor) = accept_with(&self.socket, flags) {
            let listen_to = |visitor: &OwnedFd| {
                registry.register(&mut SourceFd(&visitor.as_raw_fd()), token, Interest::READABLE)
            };
            if listen_to(&visitor).is_ok() {
                self.visitors.push_back(visitor);
            }
            if self.visitors.len() > VISITORS_MAX {
                self.visitors.pop_front();
            }
        }
        let mut gifts = Vec::new();
        self.visitors.retain(|visitor| match take(visitor) {
            Ok(gift) => {
                gifts.extend(gift);
                false
            }
            Err(error) => error == Errno::AGAIN || error == Errno::INTR,
        });
        gifts
    }
}

/// Reads one gift; `None` if it is none.
fn take(visitor: impl AsFd) -> Result<Option<Gift>, Errno> {
    let mut bytes = [0; 24];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(visitor, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let (Some(memory), Some(bell), None) = (files.next(), files.next(), files.next()) else {
        return Ok(None);
    };
    if received.bytes != bytes.len() {
        return Ok(None);
    }
    let (token, view) = bytes.split_at(16);
    let token = token.try_into().expect("sixteen bytes");
    let view = u64::from_le_bytes(view.try_into().expect("eight bytes"));
    Ok(Some(Gift { token, view, memory, bell }))
}

/// Hands files over to the peer whose door has this name.
pub(super) fn give(
    name: &Random,
    token: &Random,
    view: u64,
    files: [BorrowedFd<'_>; 2],
) -> Result<(), Closed> {
    let visitor = stream()?;
    match connect(&visitor, &address(name)?) {
        Ok(()) => {}
        Err(Errno::AGAIN | Errno::INTR) => return Err(Closed::Busy),
        Err(Errno::CONNREFUSED | Errno::NOENT) => return Err(Closed::Elsewhere),
        Err(error) => return Err(Closed::Io(error.into())),
    }
    let other = socket_peercred(&visitor).map_err(io::Error::from)?;
    if other.uid != geteuid() {
        return Err(Closed::Stranger(other.uid.as_raw()));
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)), "there is space for two files");
    let view = view.to_le_bytes();
    let data = [IoSlice::new(token), IoSlice::new(&view)];
    match sendmsg(&visitor, &data, &mut control, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(()),
        Err(Errno::AGAIN | Errno::INTR) => Err(Closed::Busy),
        Err(error) => Err(Closed::Io(error.into())),
    }
}
