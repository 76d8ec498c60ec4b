//! Sources that read the traced program's memory beyond an argument: buffers, messages, structs.

use abi::{
    control::setting,
    record::{status, tag},
};

use crate::{
    collect::Call,
    kernel::{probe_user, setting},
    off,
};

/// Most buffers of a vector that are looked at; Falco's limit of bytes is reached before in all but odd cases.
const BUFFERS: u64 = 8;

/// `struct user_msghdr`.
struct Message {
    name: u64,
    name_len: u64,
    buffers: u64,
    count: u64,
    control: u64,
    control_len: u64,
}

/// Most bytes of data that a record has.
#[inline(always)]
fn limit() -> u64 {
    setting(setting::DATA)
}

impl Call {
    // ---- data

    /// What was sent or written: as many bytes as the call took, or was given when it failed.
    #[inline(always)]
    pub fn sent(&mut self, tag: u64, buffer: u32, len: u32) -> bool {
        let given = self.argument(len);
        let len = if self.result >= 0 { self.result as u64 } else { given };
        let buffer = self.argument(buffer);
        self.record.user_data(tag, buffer, len, limit());
        true
    }

    /// A buffer whose length is not the result.
    #[inline(always)]
    pub fn sent_whole(&mut self, tag: u64, buffer: u32, len: u32) -> bool {
        let (buffer, len) = (self.argument(buffer), self.argument(len));
        self.record.user_data(tag, buffer, len, limit());
        true
    }

    /// What was received or read: as many bytes as the result says.
    #[inline(always)]
    pub fn received(&mut self, tag: u64, buffer: u32) -> bool {
        if self.result > 0 {
            let buffer = self.argument(buffer);
            self.record.user_data(tag, buffer, self.result as u64, limit());
        }
        true
    }

    /// What was sent or written out of a vector of buffers.
    #[inline(always)]
    pub fn iov_sent(&mut self, tag: u64, buffers: u32, count: u32) -> bool {
        let (buffers, count) = (self.argument(buffers), self.argument(count));
        let most = if self.result >= 0 { self.result as u64 } else { u64::MAX };
        self.vector(tag, buffers, count, most);
        true
    }

    /// What was received or read into a vector of buffers.
    #[inline(always)]
    pub fn iov_received(&mut self, tag: u64, buffers: u32, count: u32) -> bool {
        if self.result > 0 {
            let (buffers, count) = (self.argument(buffers), self.argument(count));
            self.vector(tag, buffers, count, self.result as u64);
        }
        true
    }

    /// Size of all buffers of a vector.
    #[inline(always)]
    pub fn iov_size(&mut self, tag: u64, buffers: u32, count: u32) -> bool {
        let (buffers, count) = (self.argument(buffers), self.argument(count));
        self.vector_size(tag, buffers, count);
        true
    }

    /// What a message sends.
    #[inline(always)]
    pub fn msg_sent(&mut self, tag: u64, index: u32) -> bool {
        let most = if self.result >= 0 { self.result as u64 } else { u64::MAX };
        self.message_data(tag, index, most)
    }

    /// What a message received.
    #[inline(always)]
    pub fn msg_received(&mut self, tag: u64, index: u32) -> bool {
        self.result <= 0 || self.message_data(tag, index, self.result as u64)
    }

    /// The content of a message whose length is not the result.
    #[inline(always)]
    pub fn msg_whole(&mut self, tag: u64, index: u32) -> bool {
        self.message_data(tag, index, u64::MAX)
    }

    /// Size of all buffers of a message.
    #[inline(always)]
    pub fn msg_size(&mut self, tag: u64, index: u32) -> bool {
        match self.message(index) {
            Some(message) => self.vector_size(tag, message.buffers, message.count),
            None => self.record.absent(tag, status::FAULT),
        }
        true
    }

    /// Control data that came with a message.
    #[inline(always)]
    pub fn msg_control(&mut self, tag: u64, index: u32) -> bool {
        if self.result >= 0
            && let Some(message) = self.message(index)
            && message.control != 0
        {
            self.record.user_data(tag, message.control, message.control_len, limit());
        }
        true
    }

    #[inline(always)]
    fn message_data(&mut self, tag: u64, index: u32, most: u64) -> bool {
        match self.message(index) {
            Some(message) => self.vector(tag, message.buffers, message.count, most),
            None => self.record.absent(tag, status::FAULT),
        }
        true
    }

    #[inline(always)]
    fn message(&self, index: u32) -> Option<Message> {
        let address = self.argument(index);
        if self.compat {
            let [name, name_len, buffers, count, control, control_len] =
                probe_user::<[u32; 6]>(address)?.map(u64::from);
            return Some(Message { name, name_len, buffers, count, control, control_len });
        }
        let [name, name_len, buffers, count, control, control_len] = probe_user::<[u64; 6]>(address)?;
        Some(Message { name, name_len: name_len & 0xffff_ffff, buffers, count, control, control_len })
    }

    /// Address and length of a buffer of a vector.
    #[inline(always)]
    fn buffer(&self, buffers: u64, index: u64) -> Option<[u64; 2]> {
        if self.compat {
            Some(probe_user::<[u32; 2]>(buffers + 8 * index)?.map(u64::from))
        } else {
            probe_user::<[u64; 2]>(buffers + 16 * index)
        }
    }

    /// Appends the first bytes of a vector of buffers, at most `most`.
    #[inline(always)]
    fn vector(&mut self, tag: u64, buffers: u64, count: u64, most: u64) {
        let limit = if most < limit() { most } else { limit() };
        let Some(at) = self.record.begin_pieces() else { return };
        for i in 0..BUFFERS {
            if i >= count {
                break;
            }
            let Some([address, len]) = self.buffer(buffers, i) else {
                self.record.state().status = u64::from(status::FAULT);
                break;
            };
            if !self.record.piece(at, address, len, limit) {
                break;
            }
        }
        self.record.end_pieces(at, tag);
    }

    #[inline(always)]
    fn vector_size(&mut self, tag: u64, buffers: u64, count: u64) {
        let mut size = 0;
        for i in 0..BUFFERS {
            if i >= count {
                break;
            }
            let Some([_, len]) = self.buffer(buffers, i) else { break };
            size += len;
        }
        self.record.int(tag, size);
    }

    // ---- integers in memory

    #[inline(always)]
    fn user<T: Copy + Into<i64>>(&mut self, tag: u64, index: u32, offset: u64) -> bool {
        let address = self.argument(index);
        if address == 0 {
            self.record.absent(tag, status::NULL);
            return true;
        }
        match probe_user::<T>(address + offset) {
            Some(value) => self.record.int(tag, value.into() as u64),
            None => self.record.absent(tag, status::FAULT),
        }
        true
    }

    /// An `int` at an address in an argument.
    #[inline(always)]
    pub fn user_i32(&mut self, tag: u64, index: u32, offset: u64) -> bool {
        self.user::<i32>(tag, index, offset)
    }

    /// An `unsigned int`.
    #[inline(always)]
    pub fn user_u32(&mut self, tag: u64, index: u32, offset: u64) -> bool {
        self.user::<u32>(tag, index, offset)
    }

    /// A `short`.
    #[inline(always)]
    pub fn user_i16(&mut self, tag: u64, index: u32, offset: u64) -> bool {
        self.user::<i16>(tag, index, offset)
    }

    /// An `unsigned short`.
    #[inline(always)]
    pub fn user_u16(&mut self, tag: u64, index: u32, offset: u64) -> bool {
        self.user::<u16>(tag, index, offset)
    }

    /// A number of 64 bits.
    #[inline(always)]
    pub fn user_u64(&mut self, tag: u64, index: u32, offset: u64) -> bool {
        self.user::<i64>(tag, index, offset)
    }

    /// A member of `struct rlimit64` that is passed in; 0 when there is none.
    #[inline(always)]
    pub fn limit64(&mut self, tag: u64, index: u32, offset: u64) -> bool {
        let value = probe_user::<u64>(self.argument(index) + offset).unwrap_or_default();
        self.record.int(tag, value);
        true
    }

    /// A member of `struct rlimit64` that is passed out; -1 after a failure.
    #[inline(always)]
    pub fn limit64_out(&mut self, tag: u64, index: u32, offset: u64) -> bool {
        if self.result < 0 {
            self.record.int(tag, u64::MAX);
            return true;
        }
        self.limit64(tag, index, offset)
    }

    /// A member of `struct rlimit`, by its number; 0 when it cannot be read.
    #[inline(always)]
    pub fn limit(&mut self, tag: u64, index: u32, member: u64) -> bool {
        if self.compat {
            let value = probe_user::<u32>(self.argument(index) + 4 * member).unwrap_or_default();
            self.record.int(tag, u64::from(value));
            return true;
        }
        self.limit64(tag, index, 8 * member)
    }

    /// A member of `struct rlimit` that is passed out; -1 after a failure.
    #[inline(always)]
    pub fn limit_out(&mut self, tag: u64, index: u32, member: u64) -> bool {
        if self.result < 0 {
            self.record.int(tag, u64::MAX);
            return true;
        }
        self.limit(tag, index, member)
    }

    /// A `struct timespec` in nanoseconds; absent for 32-bit calls, which have it in two forms.
    #[inline(always)]
    pub fn timespec(&mut self, tag: u64, index: u32) -> bool {
        let address = self.argument(index);
        if address == 0 || self.compat {
            self.record.absent(tag, status::NULL);
            return true;
        }
        match probe_user::<[u64; 2]>(address) {
            Some([seconds, nanoseconds]) => {
                self.record.int(tag, seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds));
            }
            None => self.record.absent(tag, status::FAULT),
        }
        true
    }

    /// A number in two arguments of 32 bits.
    #[inline(always)]
    pub fn two_words(&mut self, tag: u64, low: u32, high: u32) -> bool {
        let value = self.argument(high) << 32 | self.argument(low) & 0xffff_ffff;
        self.record.int(tag, value);
        true
    }

    /// What Falco gives as 0.
    #[inline(always)]
    pub fn zero(&mut self, tag: u64) -> bool {
        self.record.int(tag, 0);
        true
    }

    // ---- what depends on another argument

    /// The flags of clone without the signal that its low byte is.
    #[inline(always)]
    pub fn clone_flags(&mut self, tag: u64, index: u32) -> bool {
        let flags = self.argument(index) & 0xffff_ff00;
        self.record.int(tag, flags);
        true
    }

    /// `clone_args.flags`. In the child the memory is a copy, so it says the same.
    #[inline(always)]
    pub fn clone3_flags(&mut self, tag: u64, index: u32) -> bool {
        self.user_u64(tag, index, 0)
    }

    /// The name that prctl sets or asks for.
    #[inline(always)]
    pub fn prctl_text(&mut self, tag: u64, option: u32, index: u32) -> bool {
        const PR_SET_NAME: u32 = 15;
        const PR_GET_NAME: u32 = 16;
        if matches!(self.argument(option) as u32, PR_SET_NAME | PR_GET_NAME) {
            let address = self.argument(index);
            self.record.user_text(tag, address);
        }
        true
    }

    /// The second argument of prctl as a number, or the number that it points to.
    #[inline(always)]
    pub fn prctl_int(&mut self, tag: u64, option: u32, index: u32) -> bool {
        const PR_SET_NAME: u32 = 15;
        const PR_GET_NAME: u32 = 16;
        const PR_GET_CHILD_SUBREAPER: u32 = 37;
        match self.argument(option) as u32 {
            PR_SET_NAME | PR_GET_NAME => self.zero(tag),
            PR_GET_CHILD_SUBREAPER => self.user_i32(tag, index, 0),
            _ => {
                let value = self.argument(index);
                self.record.int(tag, value);
                true
            }
        }
    }

    /// The value that fsconfig sets, when it is a string.
    #[inline(always)]
    pub fn fsconfig_text(&mut self, tag: u64, command: u32, index: u32) -> bool {
        const SET_STRING: u32 = 1;
        const SET_PATH: u32 = 3;
        const SET_PATH_EMPTY: u32 = 4;
        if matches!(self.argument(command) as u32, SET_STRING | SET_PATH | SET_PATH_EMPTY) {
            let address = self.argument(index);
            self.record.user_text(tag, address);
        }
        true
    }

    // ---- the task

    /// Capabilities of the task: inheritable, permitted, effective.
    #[inline(always)]
    pub fn capabilities(&mut self, tag: u64, which: u32) -> bool {
        let cred = self.task.ptr(off!(task_cred));
        let set: u64 = match which {
            0 => cred.get(off!(cred_cap_inheritable)),
            1 => cred.get(off!(cred_cap_permitted)),
            _ => cred.get(off!(cred_cap_effective)),
        };
        self.record.int(tag, set);
        true
    }

    /// Mapped memory of the task in KiB.
    #[inline(always)]
    pub fn vm_size(&mut self, tag: u64) -> bool {
        let mm = self.task.ptr(off!(task_mm));
        let pages: u64 = if mm.is_null() { 0 } else { mm.get(off!(mm_total_vm)) };
        self.record.int(tag, pages << 2);
        true
    }

    // ---- facts

    /// The address that the call was given.
    #[inline(always)]
    pub fn address(&mut self, index: u32, len: u32) {
        let (address, len) = (self.argument(index), self.argument(len) & 0xffff_ffff);
        if address != 0 {
            self.record.user_bytes(u64::from(tag::ADDRESS), address, len);
        }
    }

    /// The address that the call returned, with its length behind a pointer.
    #[inline(always)]
    pub fn address_out(&mut self, index: u32, len: u32) {
        let address = self.argument(index);
        if self.result >= 0
            && address != 0
            && let Some(len) = probe_user::<u32>(self.argument(len))
        {
            self.record.user_bytes(u64::from(tag::ADDRESS), address, u64::from(len));
        }
    }

    /// The address in a message.
    #[inline(always)]
    pub fn msg_address(&mut self, index: u32) {
        if let Some(message) = self.message(index)
            && message.name != 0
        {
            self.record.user_bytes(u64::from(tag::ADDRESS), message.name, message.name_len);
        }
    }
}
