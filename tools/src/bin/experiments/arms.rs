//! The arms: ways of training the three models.

use crate::grid::{Kind, Regime, Task};

/// A way of training.
pub struct Arm {
    pub name: &'static str,
    /// `joint_train --mode`.
    pub mode: &'static str,
    /// `joint_train --options`; empty for the preset as it is.
    pub options: &'static str,
    /// Whether it learns from examples without labels.
    pub is_semi_supervised: bool,
    /// Forward passes of each model in a step beside its own forward and backward pass.
    pub further_passes: f64,
    /// Whether trained models of the arm `independent`, of the same seed, teach.
    pub has_teachers: bool,
    /// One of the two that the targets compare.
    pub is_compared: bool,
    /// Has three quarters of the others' epochs; the learning rate ends with them.
    pub is_short: bool,
    pub what: &'static str,
}

impl Arm {
    /// Whether the arm means anything there.
    pub fn fits(&self, regime: Regime, task: &Task) -> bool {
        match self.name {
            "mutual_memory" => task.kind == Kind::Classification,
            // Whose epochs are too few to part.
            _ if self.is_short => regime != Regime::FewLabels,
            "start_aligned" => regime != Regime::OnePretrained,
            "start_pretrained" | "start_pretrained_mutual" => regime == Regime::OnePretrained,
            _ => true,
        }
    }
}

const fn arm(name: &'static str, mode: &'static str, options: &'static str) -> Arm {
    Arm {
        name,
        mode,
        options,
        is_semi_supervised: false,
        further_passes: 0.0,
        has_teachers: false,
        is_compared: false,
        is_short: false,
        what: "",
    }
}

// What the default preset had before: gradients of aligned parameters shared, and other teachers.
const GATED: &str = r#"{"share_rule":"gated"}"#;
const MEAN_TEACHER: &str =
    r#"{"share_rule":"gated","mutual":{"teacher":"mean_teacher","weight":1,"ramp_up_fraction":0}}"#;
const ONLINE: &str = r#"{"share_rule":"gated","mutual":{"weight":1,"ramp_up_fraction":0}}"#;
const WEIGHT_3: &str = r#"{"share_rule":"gated","mutual":{"weight":3}}"#;

pub const ARMS: [Arm; 27] = [
    Arm {
        is_compared: true,
        what: "each model by itself",
        ..arm("independent", "independent", "")
    },
    Arm {
        is_compared: true,
        is_semi_supervised: true,
        what: "the default preset",
        ..arm("default", "joint", "")
    },
    Arm {
        is_short: true,
        what: "each model by itself, for three quarters of the epochs",
        ..arm("independent_short", "independent", "")
    },
    Arm {
        is_short: true,
        is_semi_supervised: true,
        what: "the default preset, for three quarters of the epochs",
        ..arm("default_short", "joint", "")
    },
    Arm {
        is_semi_supervised: true,
        what: "the default preset with gated sharing of gradients, which it had before",
        ..arm("default_gated", "joint", GATED)
    },
    Arm {
        is_short: true,
        is_semi_supervised: true,
        what: "that for three quarters of the epochs",
        ..arm("default_gated_short", "joint", GATED)
    },
    Arm {
        is_semi_supervised: true,
        further_passes: 1.0,
        what: "gated sharing, and mean teachers, weight 1",
        ..arm("default_mean_teacher", "joint", MEAN_TEACHER)
    },
    Arm {
        is_short: true,
        is_semi_supervised: true,
        further_passes: 1.0,
        what: "that for three quarters of the epochs",
        ..arm("default_mean_teacher_short", "joint", MEAN_TEACHER)
    },
    Arm {
        is_semi_supervised: true,
        what: "gated sharing, and weight 1 from the first step",
        ..arm("default_online", "joint", ONLINE)
    },
    Arm {
        is_short: true,
        is_semi_supervised: true,
        what: "that for three quarters of the epochs",
        ..arm("default_online_short", "joint", ONLINE)
    },
    Arm {
        is_semi_supervised: true,
        further_passes: 1.0 / 3.0,
        what: "gated sharing, and mean teachers, weight 1, in turn, one in each step",
        ..arm(
            "default_turns",
            "joint",
            r#"{"share_rule":"gated","mutual":{"teacher":"mean_teacher","teachers_per_step":1,"weight":1,"ramp_up_fraction":0}}"#,
        )
    },
    Arm {
        is_semi_supervised: true,
        what: "gated sharing, and weight 3, which entities had at first",
        ..arm("default_weight_3", "joint", WEIGHT_3)
    },
    Arm {
        is_short: true,
        is_semi_supervised: true,
        what: "that for three quarters of the epochs",
        ..arm("default_weight_3_short", "joint", WEIGHT_3)
    },
    Arm { what: "the published rules", ..arm("paper", "paper", "") },
    Arm {
        what: "gradients of aligned parameters are averaged in part",
        ..arm(
            "aligned_mean",
            "independent",
            r#"{"share_policy":"aligned","share_rule":"mean","share_every":1}"#,
        )
    },
    Arm {
        what: "as far as they point in one direction",
        ..arm(
            "aligned_gated",
            "independent",
            r#"{"share_policy":"aligned","share_rule":"gated","share_every":1}"#,
        )
    },
    Arm {
        what: "without what conflicts",
        ..arm(
            "aligned_project",
            "independent",
            r#"{"share_policy":"aligned","share_rule":"project","share_every":1}"#,
        )
    },
    Arm {
        is_semi_supervised: true,
        what: "predictions of the models that ran before in the step",
        ..arm("mutual_peers_before", "independent", r#"{"mutual":{"teacher":"peers_before"}}"#)
    },
    Arm {
        is_semi_supervised: true,
        further_passes: 1.0,
        what: "predictions of all other models",
        ..arm("mutual_peers", "independent", r#"{"mutual":{"teacher":"peers"}}"#)
    },
    Arm {
        is_semi_supervised: true,
        what: "predictions of all other models' own training passes, which meet half-way",
        ..arm("mutual_online", "independent", r#"{"mutual":{"teacher":"online"}}"#)
    },
    Arm {
        is_semi_supervised: true,
        further_passes: 1.0,
        what: "predictions of the running means of all other models",
        ..arm("mutual_mean_teacher", "independent", r#"{"mutual":{"teacher":"mean_teacher"}}"#)
    },
    Arm {
        is_semi_supervised: true,
        further_passes: 1.0,
        what: "those and that of its own",
        ..arm(
            "mutual_mean_teacher_self",
            "independent",
            r#"{"mutual":{"teacher":"mean_teacher","include_self":true}}"#,
        )
    },
    Arm {
        is_semi_supervised: true,
        what: "all models' past predictions of the example",
        ..arm("mutual_memory", "independent", r#"{"mutual":{"teacher":"memory"}}"#)
    },
    Arm {
        what: "aligned parameters start equal",
        ..arm("start_aligned", "independent", r#"{"start":"aligned"}"#)
    },
    Arm {
        what: "token tables start from the pretrained model's",
        ..arm("start_pretrained", "independent", r#"{"start":"pretrained"}"#)
    },
    Arm {
        is_semi_supervised: true,
        further_passes: 1.0,
        what: "that, and predictions of all other models",
        ..arm(
            "start_pretrained_mutual",
            "independent",
            r#"{"start":"pretrained","mutual":{"teacher":"peers"}}"#,
        )
    },
    Arm {
        is_semi_supervised: true,
        further_passes: 3.0,
        has_teachers: true,
        what: "predictions of the three models that the arm independent trained before",
        ..arm("distillation", "independent", r#"{"mutual":{"teacher":"frozen"}}"#)
    },
];
