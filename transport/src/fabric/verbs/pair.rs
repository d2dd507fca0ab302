//! One reliable connection (an RC queue pair) with the memory of its two directions.

#![expect(unsafe_code, reason = "libibverbs is a C library, and the network card writes to memory")]

use std::{ffi::CStr, io, mem, ptr, sync::Arc};

use memmap2::{MmapOptions, MmapRaw};

use super::{
    Device, VerbsError,
    device::not_registered,
    ffi::{self, ibv_access_flags as Access, ibv_qp_attr_mask as Mask, ibv_qp_state as State},
    window::{Immediate, RING_BYTES},
    words::Offer,
};

/// Requests that may be under way. The window of pieces is smaller, and notes of what was taken few.
const SENDS: u32 = 256;
const RECEIVES: u32 = 256;

/// Each such request raises a completion: it tells that those before it are done, too.
const SIGNAL_EVERY: u32 = 16;

/// Asked for; what fits goes into the request itself, and the card need not fetch it.
const INLINE_BYTES: u32 = 128;

/// A dead peer is told after (timeout x tries): 4.096 us << 14 is 67 ms. Not 7 tries, which some
/// drivers take for "for ever".
const TIMEOUT: u8 = 14;
const TRIES: u8 = 3;

/// What a completion tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    /// The peer wrote, with this immediate.
    Came(Immediate),
    /// Requests have left.
    Left,
}

/// A queue pair, its completion queue, the ring that the peer writes to, and the memory to send from.
///
/// Dropping it is what revokes the peer's access: the queue pair goes to the error state, in which
/// nothing is taken from the wire, and the ring's key ends with its registration.
pub(super) struct Pair {
    device: Arc<Device>,
    queue: *mut ffi::ibv_cq,
    pair: *mut ffi::ibv_qp,
    ring: Memory,
    source: Memory,
    psn: u32,
    inline_bytes: usize,
    remote: Option<Offer>,
    /// Requests since the last signal, and all that are not known to be done.
    unsignalled: u32,
    under_way: u32,
    /// Receives to be posted again.
    used_receives: u32,
    /// Whether the next completion raises an event.
    pub(super) armed: bool,
}

// SAFETY: as for `Device`: no object of libibverbs is bound to a thread.
unsafe impl Send for Pair {}

/// Registered memory.
struct Memory {
    map: MmapRaw,
    region: *mut ffi::ibv_mr,
}

impl Memory {
    fn new(device: &Device, access: u32) -> Result<Self, VerbsError> {
        let map = MmapOptions::new().len(RING_BYTES).map_anon();
        let map = MmapRaw::from(map.map_err(|source| device.error("mmap", source))?);
        // SAFETY: the memory is mapped for as long as it is registered (see `Drop`), and no reference
        // to it is ever made: it is read and written through pointers.
        let region = unsafe {
            ffi::ibv_reg_mr(device.domain, map.as_mut_ptr().cast(), RING_BYTES, access as _)
        };
        if region.is_null() {
            return Err(not_registered(&device.at.name, RING_BYTES, io::Error::last_os_error()));
        }
        Ok(Self { map, region })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: registered once, deregistered once, before the memory is unmapped.
        unsafe { ffi::ibv_dereg_mr(self.region) };
    }
}

impl Pair {
    /// A queue pair that is ready to be connected, its receives posted.
    ///
    /// # Errors
    /// [`VerbsError`].
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, VerbsError> {
        let ring = Memory::new(
            device,
            Access::IBV_ACCESS_LOCAL_WRITE.0 | Access::IBV_ACCESS_REMOTE_WRITE.0,
        )?;
        let source = Memory::new(device, 0)?;
        let mut psn = [0; 4];
        getrandom::fill(&mut psn)
            .map_err(|error| device.error("getrandom", io::Error::other(error)))?;
        let entries = i32::try_from(SENDS + RECEIVES).expect("a small number");
        let mut pair = Self {
            device: Arc::clone(device),
            queue: ptr::null_mut(),
            pair: ptr::null_mut(),
            ring,
            source,
            psn: u32::from_le_bytes(psn) & 0xff_ffff,
            inline_bytes: 0,
            remote: None,
            unsignalled: 0,
            under_way: 0,
            used_receives: RECEIVES,
            armed: false,
        };
        // SAFETY: context and channel live as long as the device, which the pair holds.
        pair.queue = unsafe {
            ffi::ibv_create_cq(device.context, entries, ptr::null_mut(), device.channel, 0)
        };
        if pair.queue.is_null() {
            return Err(device.failure("ibv_create_cq"));
        }
        pair.create()?;
        pair.modify("ibv_modify_qp to INIT", |attributes| {
            attributes.qp_state = State::IBV_QPS_INIT;
            attributes.port_num = device.at.port;
            attributes.qp_access_flags = Access::IBV_ACCESS_REMOTE_WRITE.0 as _;
            Mask::IBV_QP_PKEY_INDEX.0 | Mask::IBV_QP_PORT.0 | Mask::IBV_QP_ACCESS_FLAGS.0
        })?;
        pair.post_receives()?;
        Ok(pair)
    }

    fn create(&mut self) -> Result<(), VerbsError> {
        // Not all devices take requests with data in them.
        for inline_bytes in [INLINE_BYTES, 0] {
            // SAFETY: all fields of the struct may be zero; domain and queue live.
            unsafe {
                let mut wanted: ffi::ibv_qp_init_attr = mem::zeroed();
                wanted.send_cq = self.queue;
                wanted.recv_cq = self.queue;
                wanted.qp_type = ffi::ibv_qp_type::IBV_QPT_RC;
                wanted.cap.max_send_wr = SENDS;
                wanted.cap.max_recv_wr = RECEIVES;
                wanted.cap.max_send_sge = 1;
                wanted.cap.max_recv_sge = 1;
                wanted.cap.max_inline_data = inline_bytes;
                self.pair = ffi::ibv_create_qp(self.device.domain, &raw mut wanted);
            }
            if !self.pair.is_null() {
                self.inline_bytes = inline_bytes as usize;
                return Ok(());
            }
        }
        Err(self.device.failure("ibv_create_qp"))
    }

    /// Changes the state, with the attributes whose mask `set` returns.
    fn modify(
        &mut self,
        call: &'static str,
        set: impl FnOnce(&mut ffi::ibv_qp_attr) -> u32,
    ) -> Result<(), VerbsError> {
        // SAFETY: all fields of the struct may be zero; the queue pair lives.
        let outcome = unsafe {
            let mut attributes: ffi::ibv_qp_attr = mem::zeroed();
            let mask = set(&mut attributes) | Mask::IBV_QP_STATE.0;
            ffi::ibv_modify_qp(self.pair, &raw mut attributes, mask as _)
        };
        match outcome {
            0 => Ok(()),
            error => Err(self.device.error(call, io::Error::from_raw_os_error(error))),
        }
    }

    /// What the peer has to know.
    pub(super) fn offer(&self, view: u64) -> Offer {
        // SAFETY: queue pair and region live.
        let (queue_pair, rkey) = unsafe { ((*self.pair).qp_num, (*self.ring.region).rkey) };
        Offer {
            view,
            address: self.ring.map.as_mut_ptr() as u64,
            rkey,
            queue_pair,
            psn: self.psn,
            mtu: self.device.mtu,
            gid: self.device.at.gid,
        }
    }

    /// Connects to the peer's queue pair. The path's MTU is the smaller of both ends'.
    ///
    /// # Errors
    /// [`VerbsError`], as with an offer that makes no sense.
    pub(super) fn connect(&mut self, offer: Offer) -> Result<(), VerbsError> {
        let (own, psn) = (self.device.at.clone(), self.psn);
        let mtu = self.device.mtu.min(offer.mtu);
        self.modify(
            "ibv_modify_qp to RTR (no route to the peer's GID, or an MTU that differs)",
            |to| {
                to.qp_state = State::IBV_QPS_RTR;
                to.path_mtu = mtu;
                to.dest_qp_num = offer.queue_pair;
                to.rq_psn = offer.psn;
                to.max_dest_rd_atomic = 1;
                to.min_rnr_timer = 12;
                to.ah_attr.is_global = 1;
                to.ah_attr.grh.dgid.raw = offer.gid;
                to.ah_attr.grh.sgid_index = own.gid_index;
                to.ah_attr.grh.hop_limit = 64;
                to.ah_attr.port_num = own.port;
                Mask::IBV_QP_AV.0
                    | Mask::IBV_QP_PATH_MTU.0
                    | Mask::IBV_QP_DEST_QPN.0
                    | Mask::IBV_QP_RQ_PSN.0
                    | Mask::IBV_QP_MAX_DEST_RD_ATOMIC.0
                    | Mask::IBV_QP_MIN_RNR_TIMER.0
            },
        )?;
        self.modify("ibv_modify_qp to RTS", |to| {
            to.qp_state = State::IBV_QPS_RTS;
            to.timeout = TIMEOUT;
            to.retry_cnt = TRIES;
            to.rnr_retry = 7; // For ever: a peer that lives but is slow is the concern of TCP's deadline.
            to.sq_psn = psn;
            to.max_rd_atomic = 1;
            Mask::IBV_QP_TIMEOUT.0
                | Mask::IBV_QP_RETRY_CNT.0
                | Mask::IBV_QP_RNR_RETRY.0
                | Mask::IBV_QP_SQ_PSN.0
                | Mask::IBV_QP_MAX_QP_RD_ATOMIC.0
        })?;
        self.remote = Some(offer);
        Ok(())
    }

    pub(super) fn is_connected(&self) -> bool {
        self.remote.is_some()
    }

    /// Whether a request is taken now.
    pub(super) fn has_room(&self) -> bool {
        self.under_way < SENDS
    }

    /// Writes bytes to the same place in the peer's ring, and tells it with an immediate.
    ///
    /// # Errors
    /// [`VerbsError`] if the queue pair is broken.
    ///
    /// # Panics
    /// If the pair is not connected, has no room, or the bytes would end beyond the ring.
    pub(super) fn write(
        &mut self,
        at: usize,
        bytes: &[u8],
        immediate: Immediate,
    ) -> Result<(), VerbsError> {
        let remote = self.remote.expect("connected");
        assert!(self.has_room() && at + bytes.len() <= RING_BYTES, "{} at {at}", bytes.len());
        self.unsignalled = (self.unsignalled + 1) % SIGNAL_EVERY;
        self.under_way += 1;
        let mut flags = 0;
        if self.unsignalled == 0 {
            flags |= ffi::ibv_send_flags::IBV_SEND_SIGNALED.0;
        }
        if !bytes.is_empty() && bytes.len() <= self.inline_bytes {
            flags |= ffi::ibv_send_flags::IBV_SEND_INLINE.0;
        }
        // SAFETY: the place is inside the mapping (asserted), and the card does not read there: the
        // window gives a place again only after the peer has taken what was written from it. The
        // request and its one entry live until the call returns, which copies them.
        let outcome = unsafe {
            let place = self.source.map.as_mut_ptr().add(at);
            ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            let mut entry: ffi::ibv_sge = mem::zeroed();
            entry.addr = place as u64;
            entry.length = bytes.len() as u32;
            entry.lkey = (*self.source.region).lkey;
            let mut request: ffi::ibv_send_wr = mem::zeroed();
            // How many requests are done when this one is.
            request.wr_id = u64::from(SIGNAL_EVERY);
            request.sg_list = &raw mut entry;
            request.num_sge = i32::from(!bytes.is_empty());
            request.opcode = ffi::ibv_wr_opcode::IBV_WR_RDMA_WRITE_WITH_IMM;
            request.send_flags = flags as _;
            request.imm_data_invalidated_rkey_union.imm_data = immediate.encode().to_be();
            request.wr.rdma.remote_addr = remote.address + at as u64;
            request.wr.rdma.rkey = remote.rkey;
            let mut refused = ptr::null_mut();
            ffi::ibv_post_send(self.pair, &raw mut request, &raw mut refused)
        };
        match outcome {
            0 => Ok(()),
            error => Err(self.device.error("ibv_post_send", io::Error::from_raw_os_error(error))),
        }
    }

    /// Appends what is at a place of the own ring, which the peer has written and told of.
    ///
    /// # Panics
    /// If the bytes end beyond the ring.
    pub(super) fn read(&self, at: usize, bytes: usize, out: &mut Vec<u8>) {
        assert!(at + bytes <= RING_BYTES, "{bytes} at {at}");
        let start = out.len();
        out.reserve(bytes);
        // SAFETY: source and destination are mapped and do not overlap. The completion of this piece
        // was taken, so the card has written it; a peer that keeps the rules does not write there
        // before it is told that it was taken. One that breaks them only changes the bytes that are
        // copied (they are decoded from the copy): no reference to the ring is ever made.
        unsafe {
            let from = self.ring.map.as_mut_ptr().add(at);
            ptr::copy_nonoverlapping(from, out.as_mut_ptr().add(start), bytes);
            out.set_len(start + bytes);
        }
    }

    /// Takes the next completion, if there is one.
    ///
    /// # Errors
    /// In words, if the queue pair is broken.
    pub(super) fn next(&mut self) -> Result<Option<Completion>, String> {
        // SAFETY: the queue lives, and `done` has room for the one entry that is asked for.
        let (found, done) = unsafe {
            let mut done: ffi::ibv_wc = mem::zeroed();
            (ffi::ibv_poll_cq(self.queue, 1, &raw mut done), done)
        };
        match found {
            0 => return Ok(None),
            1 => {}
            error => return Err(format!("ibv_poll_cq: {error}")),
        }
        if done.status != ffi::ibv_wc_status::IBV_WC_SUCCESS {
            return Err(status_words(done.status));
        }
        if done.opcode != ffi::ibv_wc_opcode::IBV_WC_RECV_RDMA_WITH_IMM {
            self.under_way -= u32::try_from(done.wr_id).expect("ours");
            return Ok(Some(Completion::Left));
        }
        self.used_receives += 1;
        // SAFETY: any bits are a number; with this opcode it is the immediate.
        let number = unsafe { done.imm_data_invalidated_rkey_union.imm_data };
        let immediate = Immediate::decode(u32::from_be(number));
        immediate.map(|immediate| Some(Completion::Came(immediate))).ok_or_else(|| {
            format!("the peer wrote with {:#x}, which means nothing", u32::from_be(number))
        })
    }

    /// Posts the receives that were used again, in one call, once they are worth it.
    ///
    /// # Errors
    /// [`VerbsError`] if the queue pair is broken.
    pub(super) fn post_receives(&mut self) -> Result<(), VerbsError> {
        if self.used_receives < RECEIVES / 8 {
            return Ok(());
        }
        // SAFETY: all fields of the struct may be zero: a receive without memory, for immediates only.
        let empty: ffi::ibv_recv_wr = unsafe { mem::zeroed() };
        let mut requests = vec![empty; self.used_receives as usize];
        let first = requests.as_mut_ptr();
        for index in 1..requests.len() {
            // SAFETY: `index` is inside the vector, which does not move until the call has returned.
            unsafe { (*first.add(index - 1)).next = first.add(index) };
        }
        let mut refused = ptr::null_mut();
        // SAFETY: the queue pair lives, the list is linked within the vector and ends with null.
        match unsafe { ffi::ibv_post_recv(self.pair, first, &raw mut refused) } {
            0 => self.used_receives = 0,
            error => {
                return Err(self
                    .device
                    .error("ibv_post_recv", io::Error::from_raw_os_error(error)));
            }
        }
        Ok(())
    }

    /// Lets the next completion raise an event. What came before is to be looked for once more.
    pub(super) fn arm(&mut self) {
        if !self.armed {
            // SAFETY: the queue lives. It fails for no queue that does.
            unsafe { ffi::ibv_req_notify_cq(self.queue, 0) };
            self.armed = true;
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !self.pair.is_null() {
            // In the error state nothing more is taken from the wire; destroying comes to the same.
            _ = self.modify("ibv_modify_qp to ERR", |to| {
                to.qp_state = State::IBV_QPS_ERR;
                0
            });
            // SAFETY: made once, destroyed once, before its queue; the regions go after both.
            unsafe { ffi::ibv_destroy_qp(self.pair) };
        }
        if !self.queue.is_null() {
            // SAFETY: no queue pair uses it any more, and its events were acknowledged as they came.
            unsafe { ffi::ibv_destroy_cq(self.queue) };
        }
    }
}

fn status_words(status: ffi::ibv_wc_status::Type) -> String {
    // SAFETY: the library returns a constant string for any number.
    let words = unsafe { CStr::from_ptr(ffi::ibv_wc_status_str(status)) };
    format!("{} (status {status})", words.to_string_lossy())
}
