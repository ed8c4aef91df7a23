//! Instruction sets: which build of the kernels runs, and the macro that compiles a kernel once for
//! each.

use crate::error::{Error, Result};
use crate::optim::options::InstructionSet;

/// A kernel build that the running processor has; only [`Build::choose`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Build(InstructionSet);

impl Build {
    /// The build asked for, or the widest there is; an error when the processor lacks it.
    pub fn choose(isa: InstructionSet) -> Result<Self> {
        let (avx2, avx512) = detect();
        match isa {
            InstructionSet::Auto if avx512 => Ok(Self(InstructionSet::Avx512)),
            InstructionSet::Auto if avx2 => Ok(Self(InstructionSet::Avx2)),
            InstructionSet::Auto | InstructionSet::Portable => Ok(Self(InstructionSet::Portable)),
            InstructionSet::Avx2 if avx2 => Ok(Self(isa)),
            InstructionSet::Avx512 if avx512 => Ok(Self(isa)),
            InstructionSet::Avx2 | InstructionSet::Avx512 => Err(Error::unsupported(format!(
                "option 'isa': this processor has no {isa:?}; use auto or portable"
            ))),
        }
    }

    /// Which instruction set it is.
    pub fn isa(self) -> InstructionSet {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> (bool, bool) {
    let avx2 = is_x86_feature_detected!("avx2");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq");
    (avx2, avx2 && avx512)
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> (bool, bool) {
    (false, false)
}

/// Function multiversioning: defines `$name(build, …)`, which runs the `#[inline(always)]` function
/// `$body` in the build's instruction set. With `avx2 only` first, AVX-512 runs AVX2's version.
macro_rules! multiversion {
    ($(#[$doc:meta])* $name:ident = $body:path, ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name(build: $crate::optim::kernel::simd::Build, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
                use $crate::optim::options::InstructionSet as Set;
                match build.isa() {
                    // SAFETY: a `Build` of this kind exists only where the processor has it.
                    Set::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Set::Avx2 => return unsafe { avx2($($arg),*) },
                    _ => {}
                }
            }
            let _ = build;
            $body($($arg),*)
        }
    };
    (avx2 only $(#[$doc:meta])* $name:ident = $body:path, ($($arg:ident: $ty:ty),* $(,)?)) => {
        $(#[$doc])*
        pub(crate) fn $name(build: $crate::optim::kernel::simd::Build, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) { $body($($arg),*) }
                if build.isa() != $crate::optim::options::InstructionSet::Portable {
                    // SAFETY: every other `Build` exists only where the processor has AVX2.
                    return unsafe { avx2($($arg),*) };
                }
            }
            let _ = build;
            $body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
pub(crate) fn builds_here() -> Vec<Build> {
    [InstructionSet::Portable, InstructionSet::Avx2, InstructionSet::Avx512]
        .into_iter()
        .filter_map(|i| Build::choose(i).ok())
        .collect()
}
