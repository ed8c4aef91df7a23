//! The coordinated optimizer: several models' parameters are updated in one sweep over memory,
//! sharing gradients and drawing parameters towards each other on the way.
//!
//! It works on raw host memory and knows neither graphs nor runtimes. docs/optimizer.md holds
//! the formulas; [`Options`] the hyper-parameters; [`Plan`] tells who shares with whom.

mod kernel;
mod memory;
mod optimizer;
mod options;
mod plan;
mod pool;
mod rates;
mod sweep;

pub use memory::bind::{Buffers, Places};
pub use memory::strided::Place;
pub use optimizer::callback::{GradientAction, GradientCallback, GradientView};
pub use optimizer::metrics::{GroupMetrics, Metrics};
pub use optimizer::saved_state::{SavedTensor, StateTensor};
pub use optimizer::{Moment, Optimizer, RateCallback, Rates, StepReport};
pub use options::{
    Accumulate, Clip, Convergence, CustomGroup, CustomMember, Decay, EpsForm, Influence, Isa,
    Method, MomentType, Multiplier, Mutual, NonFinite, Options, ParamGroup, Policy, RateScale,
    Rule, Schedule, Weighting,
};
pub use plan::pattern::matches;
pub use plan::role::{Layout, Part, Placed, Role, RoleOverride, Stack, Usage, UseKind, classify};
pub use plan::spec::{ModelSpec, ParamSpec};
pub use plan::view::{View, matrix_shape};
pub use plan::{Group, LeftOut, Member, Plan};
pub use rates::adaptive::{Trend, relative_factor, trend};
pub use rates::paper::{paper_class, paper_multiplier, paper_rate, paper_rate_factor, paper_scale};
pub use rates::schedule::{PlateauState, factor as schedule_factor};
