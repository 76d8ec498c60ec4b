//! The only reader of kernel and user memory.
//!
//! Two ways lead into kernel structs. Through a *typed* pointer (a hook's argument, or the current task) a load is one
//! instruction: the verifier knows the type, checks the offset against BTF and turns a fault into zero. Where the
//! type is lost (`struct file **`, `container_of`) `bpf_probe_read_kernel` reads any address and fails softly.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use abi::control::setting;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user,
};

use crate::maps::SETTINGS;

/// The offset of a kernel member: a constant to the verifier.
#[macro_export]
macro_rules! off {
    ($field:ident) => {{
        let offsets = (&raw const $crate::maps::OFFSETS).cast::<abi::offsets::Offsets>();
        // SAFETY: `Global<T>` is a transparent cell around `T`; volatile, because the driver writes it after
        // compilation.
        unsafe { core::ptr::read_volatile(&raw const (*offsets).$field) }
    }};
}

/// One word of the settings.
#[inline(always)]
pub fn setting(index: usize) -> u64 {
    let words = (&raw const SETTINGS).cast::<u64>();
    // SAFETY: as in `off!`; every caller passes a constant below `setting::COUNT`.
    unsafe { ptr::read_volatile(words.add(index)) }
}

/// Whether typed pointers of the current task may be used.
#[inline(always)]
fn direct() -> bool {
    setting(setting::DIRECT) != 0
}

/// `x & M` that the compiler can neither see through nor move, so that the verifier sees the bound right where the value
/// is used. An empty asm block would put two line records on one instruction, which the kernel refuses.
#[inline(always)]
pub fn mask<const M: i32>(mut x: u64) -> u64 {
    // SAFETY: one instruction on one register; no memory, no stack.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) x, const M, options(pure, nomem, nostack));
    }
    x
}

/// A pointer into kernel memory.
#[derive(Clone, Copy)]
pub struct Ptr(*const c_void);

impl Ptr {
    /// Takes over a pointer that a hook or helper gave.
    #[inline(always)]
    pub fn new(pointer: *const c_void) -> Self {
        Self(pointer)
    }

    /// The current task.
    #[inline(always)]
    pub fn current() -> Self {
        if direct() {
            // SAFETY: the helper always returns the running task.
            Self(unsafe { bpf_get_current_task_btf() } as *const c_void)
        } else {
            // SAFETY: as above, without the type.
            Self(unsafe { bpf_get_current_task() } as *const c_void)
        }
    }

    /// Whether it is null.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address as a number.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// Loads through a hook's typed argument: allowed on every kernel that has the hook.
    #[inline(always)]
    pub fn typed<T: Copy>(self, offset: u64) -> T {
        // SAFETY: the verifier knows the pointer's type and checks offset and size against BTF; a fault reads as zero.
        unsafe { ptr::read_volatile(self.0.byte_add(offset as usize).cast::<T>()) }
    }

    /// Loads a value: directly where the pointer is typed, else by probe.
    #[inline(always)]
    pub fn get<T: Copy>(self, offset: u64) -> T {
        if direct() { self.typed(offset) } else { probe(self.address().wrapping_add(offset)) }
    }

    /// Loads a pointer.
    #[inline(always)]
    pub fn ptr(self, offset: u64) -> Self {
        Self(self.get(offset))
    }
}

/// Reads kernel memory at an address; zero where it can't be read.
#[inline(always)]
pub fn probe<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly `size_of::<T>()` bytes, zeros when the read fails; every `T` used is made of
    // integers.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void);
        value.assume_init()
    }
}

/// Reads user memory at an address that the traced program chose and may have made up.
#[inline(always)]
pub fn probe_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as in `probe`.
    unsafe {
        let failed = bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void);
        let value = value.assume_init();
        if failed == 0 { Some(value) } else { None }
    }
}
