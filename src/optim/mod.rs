//! The coordinated optimizer: several models' parameters are updated in one sweep over memory,
//! sharing gradients and drawing parameters towards each other on the way.
//!
//! It works on raw host memory and knows neither graphs nor runtimes. docs/optimizer.md holds
//! the formulas; [`Options`] the hyper-parameters; [`Plan`] tells who shares with whom.

mod admit;
mod bind;
mod coefficient;
mod converge;
mod dense;
mod hook;
mod kernel;
mod lane;
mod layout;
mod memory;
mod metrics;
mod mixing;
mod muon;
mod optimizer;
mod options;
mod options_page;
mod pack;
mod paper;
mod pattern;
mod place;
mod plan;
mod pool;
mod product;
mod rates;
mod role;
mod schedule;
mod schema;
mod share;
mod spec;
mod state;
mod step;
mod sweep;
mod synchronise;
mod validate;
mod validation;
mod view;

pub use bind::{Buffers, Places};
pub use converge::{Trend, relative_factor, trend};
pub use hook::{GradientAction, GradientCallback, GradientView};
pub use metrics::{GroupMetrics, Metrics};
pub use optimizer::{Moment, Optimizer, RateCallback, Rates, StepReport};
pub use options::{
    AdaptiveLr, EpsPlacement, GradientAccumulation, Influence, InstructionSet, LrSchedule, Method,
    ModelWeightLrScale, MomentDtype, Mutual, NonFinite, OneCycle, Options, ParamGroup, Plateau,
    PublishedMultiplier, ShareGroup, ShareMember, SharePolicy, ShareRule, Weighting,
};
pub use options_page::options_markdown;
pub use paper::{paper_class, paper_multiplier, paper_rate, paper_rate_factor, paper_scale};
pub use pattern::matches;
pub use place::Place;
pub use plan::{Group, LeftOut, Member, Plan};
pub use role::{Layout, Part, Placed, Role, RoleOverride, Stack, Usage, UseKind, classify};
pub use schedule::{PlateauState, factor as schedule_factor};
pub use schema::options_schema;
pub use spec::{ModelSpec, ParamSpec};
pub use state::{SavedTensor, StateTensor};
pub use view::{View, matrix_shape};
