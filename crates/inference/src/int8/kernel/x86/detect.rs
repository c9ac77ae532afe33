//! Which kernels this CPU, and this process on it, can run.
#![expect(unsafe_code, reason = "asks the CPU and the kernel for the tile registers")]

#[cfg(target_os = "linux")]
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// AVX-512 with the dot product, byte and word operations.
pub(in super::super) fn has_avx512_vnni() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
}

/// Shuffles of bytes across a vector of 512 bits.
pub(in super::super) fn has_byte_tables() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi")
}

/// The tile multiplier, and the operating system's leave to use it, which this asks for.
pub(in super::super) fn has_amx_int8() -> bool {
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    let leaf = __cpuid_count(0, 0).eax;
    if leaf < 7 || !has_avx512_vnni() {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    features & (TILE | INT8) == TILE | INT8 && may_use_tiles()
}

#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: the call reads no memory of ours; it only enlarges what the kernel saves of the registers. An old
    // kernel answers with an error. The instruction overwrites rcx and r11, which are named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}
