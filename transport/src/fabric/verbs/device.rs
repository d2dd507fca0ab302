//! An opened RDMA device, with the channel on which its completions wake us.

#![expect(unsafe_code, reason = "libibverbs is a C library")]

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::fd::{BorrowedFd, RawFd},
    path::Path,
    ptr,
    sync::Arc,
};

use rustix::process::{Resource, getrlimit};

use super::{DeviceName, Why, ffi};

/// Why rows do not go by RDMA.
#[derive(Debug, thiserror::Error)]
pub enum VerbsError {
    /// No device is on the address.
    #[error(transparent)]
    None(#[from] Why),
    /// The kernel has the device; the library, or its driver for the device, is not installed.
    #[error(
        "RDMA device {0} is in /sys but not known to libibverbs: install the packages libibverbs1 and \
         ibverbs-providers"
    )]
    Unknown(String),
    /// The device is there, the permission is not.
    #[error(
        "RDMA device {device} may not be opened: let the user of this process read and write \
         /dev/infiniband/uverbs* (mode 0666 or its group, by a udev rule)"
    )]
    Permission {
        /// The device.
        device: String,
    },
    /// Memory that a network card writes to cannot be swapped, and that is limited.
    #[error(
        "{bytes} bytes of memory cannot be locked for RDMA; the limit of this process is {limit}: raise it \
         with `ulimit -l`, or LimitMEMLOCK=infinity in its systemd unit"
    )]
    Memlock {
        /// The bytes.
        bytes: usize,
        /// The limit in words.
        limit: String,
    },
    /// Any other failure of a call.
    #[error("{call} on RDMA device {device}: {source}")]
    Call {
        /// The call of libibverbs.
        call: &'static str,
        /// The device.
        device: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// Not even 256 bytes fit.
    #[error(
        "RDMA device {device} tells an MTU of code {mtu}: give its network interface an MTU of 1500 or more"
    )]
    Mtu {
        /// The device.
        device: String,
        /// The code: 1 is 256 bytes, 5 is 4096.
        mtu: u32,
    },
}

/// A device with a protection domain and a completion channel. Closed when the last user drops it.
pub(super) struct Device {
    pub(super) at: DeviceName,
    /// The code of the port's MTU: 1 is 256 bytes, 5 is 4096.
    pub(super) mtu: u32,
    pub(super) context: *mut ffi::ibv_context,
    pub(super) domain: *mut ffi::ibv_pd,
    pub(super) channel: *mut ffi::ibv_comp_channel,
}

// SAFETY: libibverbs lets any thread use its objects, also several at once; none is bound to the
// thread that made it.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Opens a device.
    ///
    /// # Errors
    /// [`VerbsError`].
    pub(super) fn open(at: DeviceName) -> Result<Arc<Self>, VerbsError> {
        let context = open_context(&at.name)?;
        // From here on dropping frees what was made.
        let mut device =
            Self { at, mtu: 0, context, domain: ptr::null_mut(), channel: ptr::null_mut() };
        // SAFETY: `context` is open until `device` is dropped. `ibv_query_port` fills the fields that
        // were there in its first version (all that is read here), of a struct that is larger.
        unsafe {
            device.domain = ffi::ibv_alloc_pd(context);
            if device.domain.is_null() {
                return Err(device.failure("ibv_alloc_pd"));
            }
            device.channel = ffi::ibv_create_comp_channel(context);
            if device.channel.is_null() {
                return Err(device.failure("ibv_create_comp_channel"));
            }
            let mut port: ffi::ibv_port_attr = std::mem::zeroed();
            if ffi::ibv_query_port(context, device.at.port, (&raw mut port).cast()) != 0 {
                return Err(device.failure("ibv_query_port"));
            }
            device.mtu = port.active_mtu;
        }
        check_mtu(&device.at.name, device.mtu)?;
        rustix::fs::fcntl_setfl(device.channel_fd(), rustix::fs::OFlags::NONBLOCK)
            .map_err(|_| device.failure("fcntl"))?;
        Ok(Arc::new(device))
    }

    /// What the last call that failed has left in `errno`, in words.
    pub(super) fn failure(&self, call: &'static str) -> VerbsError {
        self.error(call, io::Error::last_os_error())
    }

    pub(super) fn error(&self, call: &'static str, source: io::Error) -> VerbsError {
        VerbsError::Call { call, device: self.at.name.clone(), source }
    }

    /// The completion channel, for epoll.
    pub(super) fn channel_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel and its descriptor live as long as `self`.
        unsafe { BorrowedFd::borrow_raw((*self.channel).fd) }
    }

    /// Takes and acknowledges all events of the channel: which queue they are of does not matter.
    pub(super) fn take_events(&self) {
        loop {
            let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: the channel lives, does not block, and tells of queues that live: those that
            // were destroyed have taken their events with them.
            unsafe {
                if ffi::ibv_get_cq_event(self.channel, &raw mut queue, &raw mut context) != 0 {
                    return;
                }
                ffi::ibv_ack_cq_events(queue, 1);
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: what was made is freed once, in the reverse order; pairs hold the device, so none is left.
        unsafe {
            if !self.channel.is_null() {
                ffi::ibv_destroy_comp_channel(self.channel);
            }
            if !self.domain.is_null() {
                ffi::ibv_dealloc_pd(self.domain);
            }
            ffi::ibv_close_device(self.context);
        }
    }
}

fn open_context(name: &str) -> Result<*mut ffi::ibv_context, VerbsError> {
    let mut count = 0;
    // SAFETY: the list is of `count` devices, ends with null, and is freed once, after the device of
    // that name was opened: an open device does not need it.
    let (found, context, error) = unsafe {
        let list = ffi::ibv_get_device_list(&raw mut count);
        if list.is_null() {
            return Err(not_listed(name.to_owned(), io::Error::last_os_error()));
        }
        let mut devices = (0..usize::try_from(count).unwrap_or(0)).map(|index| *list.add(index));
        let known = |device: &*mut ffi::ibv_device| {
            CStr::from_ptr(ffi::ibv_get_device_name(*device)).to_bytes() == name.as_bytes()
        };
        let found = devices.find(known);
        let context = found.map_or(ptr::null_mut(), |device| ffi::ibv_open_device(device));
        let error = io::Error::last_os_error();
        ffi::ibv_free_device_list(list);
        (found.is_some(), context, error)
    };
    let device = name.to_owned();
    match (found, context.is_null()) {
        (false, _) => Err(VerbsError::Unknown(device)),
        (true, false) => Ok(context),
        (true, true) => Err(not_opened(device, refusal(name).unwrap_or(error))),
    }
}

/// Why the kernel does not let the device's file be opened. Asked anew: libibverbs looks for the file elsewhere when it is
/// refused, and keeps the error of that.
fn refusal(name: &str) -> Option<io::Error> {
    let mut files = fs::read_dir("/sys/class/infiniband_verbs").ok()?.flatten();
    let file = files.find(|file| {
        fs::read_to_string(file.path().join("ibdev")).is_ok_and(|device| device.trim() == name)
    })?;
    let file = Path::new("/dev/infiniband").join(file.file_name());
    File::options().read(true).write(true).open(file).err()
}

fn not_listed(device: String, source: io::Error) -> VerbsError {
    match source.kind() {
        // So says a program that opens the library only when it is there (`verbs-dlopen`).
        io::ErrorKind::Unsupported => VerbsError::Unknown(device),
        _ => VerbsError::Call { call: "ibv_get_device_list", device, source },
    }
}

fn not_opened(device: String, source: io::Error) -> VerbsError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => VerbsError::Permission { device },
        _ => VerbsError::Call { call: "ibv_open_device", device, source },
    }
}

/// Whether the code of an MTU is one of those that the specification has.
fn check_mtu(device: &str, mtu: u32) -> Result<(), VerbsError> {
    match mtu {
        1..=5 => Ok(()),
        _ => Err(VerbsError::Mtu { device: device.to_owned(), mtu }),
    }
}

/// Why memory was not registered.
pub(super) fn not_registered(device: &str, bytes: usize, source: io::Error) -> VerbsError {
    if source.kind() != io::ErrorKind::OutOfMemory {
        return VerbsError::Call { call: "ibv_reg_mr", device: device.to_owned(), source };
    }
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    VerbsError::Memlock { bytes, limit }
}

/// The descriptor for mio.
pub(super) fn raw(device: &Device) -> RawFd {
    use std::os::fd::AsRawFd as _;
    device.channel_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_permitted_is_said_with_the_remedy() {
        let denied = io::Error::from_raw_os_error(13);
        let words = not_opened("rxe0".to_owned(), denied).to_string();
        assert!(words.contains("read and write /dev/infiniband/uverbs*"), "{words}");
        let no_library = io::Error::from_raw_os_error(95);
        let words = not_listed("rxe0".to_owned(), no_library).to_string();
        assert!(words.ends_with("packages libibverbs1 and ibverbs-providers"), "{words}");
        let no_memory = || io::Error::from_raw_os_error(12);
        let words = not_registered("rxe0", 1 << 20, no_memory()).to_string();
        assert!(words.starts_with("1048576 bytes of memory cannot be locked"), "{words}");
        assert!(words.contains("`ulimit -l`, or LimitMEMLOCK=infinity"), "{words}");
        let words = check_mtu("rxe0", 0).unwrap_err().to_string();
        assert!(words.ends_with("give its network interface an MTU of 1500 or more"), "{words}");
        check_mtu("rxe0", 3).unwrap();
        let other = not_opened("rxe0".to_owned(), no_memory()).to_string();
        assert!(other.starts_with("ibv_open_device on RDMA device rxe0: "), "{other}");
    }

    #[test]
    fn a_device_that_is_not_there_is_not_opened() {
        let at = DeviceName { name: "none0".to_owned(), port: 1, gid_index: 0, gid: [0; 16] };
        assert!(Device::open(at).is_err());
    }
}
