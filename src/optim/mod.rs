//! The coordinated optimizer: several models' parameters are updated in one sweep over memory,
//! sharing gradients and drawing parameters towards each other on the way.
//!
//! It works on raw host memory and knows neither graphs nor runtimes. docs/optimizer.md holds
//! the formulas; [`Options`] the hyper-parameters; [`Plan`] tells who shares with whom.
//!
//! - `options`: hyper-parameters and their ranges
//! - `plan`: who shares with whom: declared models, roles, views, groups
//! - `rates`: schedules, adaptive rates, the factors of a learning rate
//! - `kernel`: the formulas over contiguous memory, compiled per instruction set
//! - `sweep`: the one pass over memory: tiles, mixing, synchronisation, Muon's matrices
//! - `memory`: parameters in the host's memory, their dense copies, moments
//! - `optimizer`: the parts together, and what the host calls

mod kernel;
mod memory;
mod optimizer;
mod options;
mod plan;
mod pool;
mod rates;
mod sweep;

pub use memory::host_buffers::{Buffers, StridedBuffers};
pub(crate) use memory::pieces::Pieces;
pub use memory::strided::StridedBuffer;
pub(crate) use optimizer::accumulate::PassWeight;
pub use optimizer::callback::{GradientAction, GradientCallback, GradientView, RateCallback};
pub(crate) use optimizer::peers::{Distribution, Peers, Stage};
pub(crate) use optimizer::saved_state::MAX_COUNT;
pub use optimizer::saved_state::{SavedTensor, StateTensor};
pub(crate) use optimizer::snapshot::OptimizerSnapshot;
pub use optimizer::{Moment, Optimizer, StepReport};
pub use options::page::options_markdown;
pub use options::schema::options_schema;
pub use options::{
    AdaptiveLr, AttentionForm, EpsPlacement, GradientAccumulation, Influence, InstructionSet,
    LrSchedule, Method, ModelWeightLrScale, MomentDtype, Mutual, NonFinite, OneCycle, Options,
    ParamGroup, Plateau, Precision, PublishedMultiplier, ShareGroup, ShareMember, SharePolicy,
    ShareRule, Start, Teacher, TeacherWeights, TokenEmbeddings, Weighting,
};
pub use plan::class::paper_class;
pub use plan::classify::{RoleView, classify};
pub use plan::pattern::matches;
pub use plan::role::{Role, RoleOverride, Stack, Usage, UseKind, WeightLayout, WeightOrBias};
pub use plan::spec::{ModelSpec, ParamSpec};
pub use plan::view::{View, matrix_shape};
pub use plan::{Group, LeftOut, Member, Plan, role_views};
pub use rates::adaptive::{Trend, relative_factor, trend};
pub use rates::factors::Rates;
pub use rates::paper::{paper_multiplier, paper_rate, paper_rate_factor, paper_scale};
pub use rates::schedule::{PlateauState, factor as schedule_factor};
pub use sweep::metrics::{GroupMetrics, Metrics};
