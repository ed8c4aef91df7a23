//! Trainers that are replicas on several ranks.

use super::communicator::mmopt_communicator;
use crate::error::{Error, Result};
use crate::ffi::core::args::{flag, reserved};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::ffi::core::tensor::mmopt_dtype;
use crate::ffi::trainer::create::mmopt_trainer;
use crate::train::{GradientDtype, LocalSteps, RankOptions};

/// How replicas keep together. mmopt_rank_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_rank_options {
    /// sizeof(mmopt_rank_options).
    pub struct_size: usize,
    /// Gradients are summed in buckets of so many bytes, at least 4, in the order of models and
    /// parameters; default 26214400 (25 MiB).
    pub bucket_bytes: usize,
    /// Before each step whose number is a multiple of this, checksums of all parameters are
    /// compared among the ranks; 0: never; default 100.
    pub check_every: u64,
    /// 0 (default): gradients are summed at every step. Else replicas take so many steps by
    /// themselves before they meet (local SGD, DiLoCo).
    pub sync_every: u64,
    /// With sync_every: the learning rate of the outer step, above 0; default 0.7, which with an
    /// outer_momentum of 0.9 is published for hundreds of meetings. Where a run has fewer than
    /// about a hundred, 0.5 with outer_momentum 0.5 trains better. 1, with outer_momentum 0:
    /// weights are averaged.
    pub outer_lr: f64,
    /// With sync_every: the Nesterov momentum of the outer step, in [0, 1); default 0.9.
    pub outer_momentum: f64,
    /// 1: each rank has the moments of some parameters and updates these; then all get their values
    /// (ZeRO stage 1). Not with sync_every or a placement. Default 0.
    pub shard_state: u32,
    /// Element type of gradients on the wire: MMOPT_DTYPE_F32 (default), or MMOPT_DTYPE_BF16, which
    /// halves their bytes and rounds them. Not with sync_every.
    pub gradient_dtype: u32,
    /// 1: in a pass of all models the gradients of each are summed as soon as its own pass has
    /// ended, while the others still run, and not in the step; the results have the same bits.
    /// Gradients that are read before the step are then those of all ranks. Not with sync_every, a
    /// placement, or gradient_accumulation_steps above 1. Default 0.
    pub overlap: u32,
    /// 0; for later versions.
    pub reserved: u32,
    /// With the option placement: the communicator of the ranks that run the same models as this
    /// one in other groups of ranks, in the order of groups. Then the trainer's own communicator
    /// joins the ranks of one group, which together run all models; a group is to the others what
    /// a replica is, and the gradients of a model are summed over the ranks that run it. Shared
    /// access; the trainer keeps it alive. NULL (default): one group.
    pub replicas: *const mmopt_communicator,
}

impl Default for mmopt_rank_options {
    fn default() -> Self {
        let (ranks, local) = (RankOptions::default(), LocalSteps::default());
        Self {
            struct_size: size_of::<Self>(),
            bucket_bytes: ranks.bucket_bytes,
            check_every: ranks.check_every,
            sync_every: 0,
            outer_lr: local.outer_lr,
            outer_momentum: local.outer_momentum,
            shard_state: 0,
            gradient_dtype: mmopt_dtype::F32 as u32,
            overlap: 0,
            reserved: 0,
            replicas: std::ptr::null(),
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers and a pointer.
unsafe impl Options for mmopt_rank_options {
    const NAME: &'static str = "mmopt_rank_options";
}

impl mmopt_rank_options {
    fn checked(&self) -> Result<RankOptions> {
        let &Self { bucket_bytes, check_every, sync_every, outer_lr, outer_momentum, .. } = self;
        let local = LocalSteps { sync_every: sync_every.max(1), outer_lr, outer_momentum };
        // Also where replicas meet at every step: a number out of range is a mistake.
        local.check()?;
        let local = (sync_every > 0).then_some(local);
        let gradient_dtype = match self.gradient_dtype {
            n if n == mmopt_dtype::F32 as u32 => GradientDtype::F32,
            n if n == mmopt_dtype::Bf16 as u32 => GradientDtype::Bf16,
            n => {
                return Err(Error::invalid(format!(
                    "gradient_dtype is {n}; it must be MMOPT_DTYPE_F32 or MMOPT_DTYPE_BF16"
                )));
            }
        };
        let shard_state = flag(self.shard_state, "shard_state")?;
        let overlap = flag(self.overlap, "overlap")?;
        reserved(self.reserved == 0, "reserved")?;
        Ok(RankOptions { bucket_bytes, check_every, local, shard_state, gradient_dtype, overlap })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_rank_options_init(options: *mut mmopt_rank_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// Makes a trainer one of several replicas, one on each rank, which train as one: each runs its
/// part of every batch (n_ranks of a loader deals it out), and gradients are summed over the ranks
/// before each step. All ranks call this with the same models and options at the same step, and get
/// the weights of rank 0. Dropout is drawn anew on each rank.
///
/// From then on all ranks make the same passes, steps, checkpoints and resumes in the same order.
/// Losses and counts that they return are those of all ranks together, weighted by the labels that
/// count. Skipping, clipping and synchronisation are decided by sums over all ranks; callbacks must
/// decide alike on every rank. A call that fails on one rank fails on all, with CANCELLED on the
/// others. After COMMUNICATION gradients since the last step are lost, and weights and moments are
/// those of the last step: NULL in place of the communicator lets the trainer write a checkpoint by
/// itself. Checkpoints are written by rank 0, while all wait; all resume from the same directory,
/// with any number of ranks. mmopt_trainer_fit and mmopt_trainer_find_learning_rate are UNSUPPORTED
/// on more than one rank.
///
/// With sync_every passes and steps are those of each rank alone, and so are losses. After each
/// sync_every steps the weights become those of an outer step: with D the weights of the last
/// meeting less the mean of all replicas, u = outer_momentum * u + D, and the weights of the last
/// meeting less outer_lr * (outer_momentum * u + D) (Douillard et al. 2023). Checkpoints are
/// possible only then, and have the moments of rank 0.
///
/// With shard_state each rank has the moments of some parameters and updates these; then all get
/// their values. With the option placement of the trainer, the rank of each model (options_json,
/// docs/options.md), ranks are no replicas: all read the same batches, each runs and updates its
/// own models, and the results are those of one process; evaluating, reading and saving a model is
/// for its rank, or after mmopt_trainer_gather_models. With replicas there are several groups of
/// such ranks: each reads its part of every batch (rank and n_ranks of the loader are the number of
/// the group and of groups), and the results are those of as many replicas.
///
/// Errors: INVALID_ARGUMENT for an option out of range, for a rank with other models or options
/// than rank 0, for a placement that does not name every model or names a rank that there is not,
/// and for replicas without a communicator or a placement on several ranks, or that join ranks with
/// different numbers in their groups; CANCELLED where a rank of another group cannot join;
/// NOT_FOUND for a placement of a model that there is not; STATE for a rank at another step,
/// between a pass and its step, while another call uses the communicator, and after a step with
/// placement or shard_state, whose ranks cannot be left; UNSUPPORTED for sync_every with running
/// means of weights, placement, shard_state or gradient_dtype, for shard_state with placement, and
/// for placement with the teacher peers_before, and for overlap with sync_every, placement or
/// gradient_accumulation_steps above 1; COMMUNICATION.
///
/// @param[in,out] trainer exclusive access.
/// @param[in] communicator shared access; may be NULL: the trainer trains by itself again. The
/// trainer keeps it alive.
/// @param[in] options NULL: the defaults.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_communicator(
    trainer: *mut mmopt_trainer,
    communicator: *const mmopt_communicator,
    options: *const mmopt_rank_options,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let raw = self::options(options)?;
        let [communicator, replicas] =
            [communicator, raw.replicas].map(|one| match one.is_null() {
                true => Ok(None),
                false => shared(one).map(|one| Some(one.clone())),
            });
        let joined = trainer.trainer.set_groups(communicator?, replicas?, raw.checked()?);
        trainer.trainer.log_error("joining the ranks", joined)
    })
}

/// Gives every rank the weights of the models that other ranks train (option placement), so that
/// they can be evaluated, read and saved on any rank until the next step. All ranks call it. Does
/// nothing where models are not on different ranks.
///
/// Errors: STATE with the running means in the place of the weights; CANCELLED where another rank
/// fails; COMMUNICATION.
///
/// @param[in,out] trainer exclusive access.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_gather_models(
    trainer: *mut mmopt_trainer,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let gathered = trainer.trainer.gather_models();
        trainer.trainer.log_error("gathering models", gathered)
    })
}
