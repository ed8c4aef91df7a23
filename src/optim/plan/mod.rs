//! The sharing plan: which views of which models form groups, and what is left out and why.
//!
//! Models are in order of name, so that the plan does not depend on the order of adding them.
//! Blocks are matched by relative depth: with B the largest number of blocks among the models
//! that have a role, block b of a model with n blocks falls into slot ⌊(b + ½) · B / n⌋.

pub(in crate::optim) mod class;
pub(in crate::optim) mod classify;
pub(in crate::optim) mod pattern;
pub(in crate::optim) mod role;
pub(in crate::optim) mod spec;
mod tokens;
pub(in crate::optim) mod view;

use crate::error::{Error, Result, count};
use crate::optim::options::{
    Options, ShareGroup, ShareMember, SharePolicy, ShareRule, TokenEmbeddings,
};
use crate::optim::plan::class::paper_class;
use crate::optim::plan::classify::{Naming, RoleView, classify_in};
use crate::optim::plan::role::{Role, Stack, Usage, WeightOrBias};
use crate::optim::plan::spec::ModelSpec;
use crate::optim::plan::view::{View, matrix_shape};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

/// One view in a group; indices are into [`Plan::models`] and that model's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Model, in order of name.
    pub model: usize,
    /// Parameter of that model.
    pub param: usize,
    /// Its elements that take part.
    pub view: View,
}

/// Views that belong together: [`Plan::gradients`] and [`Plan::parameters`] say what is done with
/// their gradients and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Role and part, the paper's class, or the host's name.
    pub name: String,
    /// Depth slot and number of slots, for roles inside blocks.
    pub slot: Option<(usize, usize)>,
    /// Logical shape of all members.
    pub shape: [usize; 2],
    /// Two members or more.
    pub members: Vec<Member>,
    /// Whether rows of token tables follow the mean of their gradients, whatever `share_rule` is.
    pub by_token: bool,
    /// Why they belong together.
    pub reason: String,
}

/// A view that shares with nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Model, in order of name.
    pub model: usize,
    /// Parameter of that model.
    pub param: usize,
    /// The view; the whole parameter where no role was found.
    pub view: View,
    /// Why.
    pub reason: String,
}

/// Who shares with whom. `Display` prints it for people, [`Plan::to_json`] for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    policy: &'static str,
    /// What is done with the gradients of a group, in words.
    gradients: String,
    /// What is done with its parameters, in words.
    parameters: String,
    /// Whether any group has an effect on training.
    is_used: bool,
    models: Vec<String>,
    params: Vec<Vec<(String, Vec<usize>)>>,
    groups: Vec<Group>,
    left_out: Vec<LeftOut>,
}

/// What must agree for two views to share under `aligned`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    stack: Stack,
    role: Role,
    part: WeightOrBias,
    shape: [usize; 2],
    tag: String,
}

/// A view that could share, with the number of blocks of its stack.
struct Candidate {
    member: Member,
    block: Option<usize>,
    blocks: usize,
}

impl Plan {
    /// Plans for models that are already in order of name.
    pub(crate) fn new(options: &Options, models: &[ModelSpec]) -> Result<Self> {
        let mut plan = Self {
            policy: match options.share_policy {
                SharePolicy::None => "none",
                SharePolicy::Paper => "paper",
                SharePolicy::Aligned => "aligned",
                SharePolicy::Custom => "custom",
            },
            gradients: use_of_gradients(options),
            parameters: use_of_parameters(options),
            is_used: mixes_gradients(options) || options.sync_every > 0 || shares_tokens(options),
            models: models.iter().map(|m| m.name.clone()).collect(),
            params: models
                .iter()
                .map(|m| m.params.iter().map(|p| (p.name.clone(), p.shape.clone())).collect())
                .collect(),
            groups: Vec::new(),
            left_out: Vec::new(),
        };
        match options.share_policy {
            SharePolicy::None => {}
            SharePolicy::Paper => plan.by_class(models),
            SharePolicy::Aligned => plan.by_role(models, shares_tokens(options)),
            SharePolicy::Custom => plan.by_host(models, &options.share_groups)?,
        }
        if shares_tokens(options) {
            plan.by_token(models);
        }
        Ok(plan)
    }

    /// Names of the models, in the order that member indices count.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// The groups, each of two members or more.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The views outside all groups.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// What is done with the gradients of a group, e.g. `not shared (share_rule none)`.
    pub fn gradients(&self) -> &str {
        &self.gradients
    }

    /// What is done with the parameters of a group, e.g. `not synchronised (sync_every 0)`.
    pub fn parameters(&self) -> &str {
        &self.parameters
    }

    /// The models that were meant to share and share nothing, with the commonest reason; none where
    /// groups have no effect.
    pub fn alone(&self) -> Vec<(&str, String)> {
        if self.policy == "none" || !self.is_used || self.models.len() < 2 {
            return Vec::new();
        }
        let in_group = |i: usize| self.groups.iter().flat_map(|g| &g.members).any(|m| m.model == i);
        let why = |i: usize| {
            let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
            for left in self.left_out.iter().filter(|l| l.model == i) {
                *reasons.entry(&left.reason).or_default() += 1;
            }
            let most = reasons.into_iter().max_by_key(|(_, n)| *n);
            most.map_or_else(|| "it is in no group".to_owned(), |(reason, _)| reason.to_owned())
        };
        let names = self.models.iter().enumerate().filter(|(i, _)| !in_group(*i));
        names.map(|(i, name)| (name.as_str(), why(i))).collect()
    }

    /// Name of a parameter.
    pub fn param_name(&self, model: usize, param: usize) -> &str {
        &self.params[model][param].0
    }

    /// A view as text: `name`, `name[0:8, :]`, `name[:, 8:16]^T`.
    pub fn view_text(&self, model: usize, param: usize, view: &View) -> String {
        let (name, shape) = &self.params[model][param];
        let [rows, cols] = matrix_shape(shape);
        let mut text = name.clone();
        if view.rows.is_some() {
            let _ = write!(text, "[{} rows, :]", view.runs);
        } else if view.runs < rows {
            let start = view.offset / cols.max(1);
            let _ = write!(text, "[{start}:{}, :]", start + view.runs);
        } else if view.run_len < cols {
            let (start, end) = (view.offset, view.offset + view.run_len);
            let lead = if shape.len() > 1 { ":, " } else { "" };
            let _ = write!(text, "[{lead}{start}:{end}]");
        }
        if view.transposed {
            text.push_str("^T");
        }
        text
    }

    fn leave(&mut self, model: usize, param: usize, view: View, reason: impl Into<String>) {
        self.left_out.push(LeftOut { model, param, view, reason: reason.into() });
    }

    /// The published grouping: class string and exact shape, over all float parameters.
    fn by_class(&mut self, models: &[ModelSpec]) {
        let mut classes: BTreeMap<(String, Vec<usize>), Vec<Member>> = BTreeMap::new();
        for (model, spec) in models.iter().enumerate() {
            for (param, p) in spec.params.iter().enumerate() {
                let view = View::whole(&p.shape);
                if p.dtype != DType::F32 {
                    self.leave(model, param, view, format!("element type {}", p.dtype));
                    continue;
                }
                let key = (paper_class(&p.name), p.shape.clone());
                classes.entry(key).or_default().push(Member { model, param, view });
            }
        }
        for ((class, shape), members) in classes {
            if members.len() < 2 {
                let m = members[0].clone();
                self.leave(m.model, m.param, m.view, format!("alone in class {class} {shape:?}"));
                continue;
            }
            self.groups.push(Group {
                reason: format!("class '{class}' and shape {shape:?}"),
                name: class,
                slot: None,
                shape: matrix_shape(&shape),
                members,
                by_token: false,
            });
        }
    }

    /// Token tables whose tokens are known are left to [`Plan::by_token`] where `by_token` says so.
    fn by_role(&mut self, models: &[ModelSpec], by_token: bool) {
        let mut keys: BTreeMap<Key, Vec<Candidate>> = BTreeMap::new();
        for (model, spec) in models.iter().enumerate() {
            let views = self.roles(model, spec);
            let mut blocks: BTreeMap<Stack, usize> = BTreeMap::new();
            for (_, p) in &views {
                let n = blocks.entry(p.stack).or_default();
                *n = (*n).max(p.block.map_or(0, |b| b + 1));
            }
            for (param, p) in views {
                if by_token && p.role == Role::TokenEmbedding && spec.tokens.is_some() {
                    continue;
                }
                let Some(tag) = self.tag(model, param, &p, spec) else { continue };
                let shape = p.view.shape();
                let key = Key { stack: p.stack, role: p.role, part: p.part, shape, tag };
                keys.entry(key).or_default().push(Candidate {
                    member: Member { model, param, view: p.view },
                    block: p.block,
                    blocks: blocks[&p.stack],
                });
            }
        }
        let shapes: Vec<(Role, WeightOrBias, [usize; 2], BTreeSet<usize>)> = keys
            .iter()
            .map(|(k, c)| (k.role, k.part, k.shape, c.iter().map(|c| c.member.model).collect()))
            .collect();
        for (key, candidates) in keys {
            self.match_depths(&key, candidates, &shapes);
        }
    }

    /// Roles of a model's parameters; what has none is left out.
    fn roles(&mut self, model: usize, spec: &ModelSpec) -> Vec<(usize, RoleView)> {
        let (nth, naming) = (orders(spec), Naming::of(spec));
        let mut views = Vec::new();
        for (param, p) in spec.params.iter().enumerate() {
            let view = View::whole(&p.shape);
            if p.dtype != DType::F32 {
                self.leave(model, param, view, format!("element type {}", p.dtype));
            } else if !p.trainable {
                self.leave(model, param, view, "frozen");
            } else {
                let found = classify_in(p, nth[param], naming);
                if found.is_empty() {
                    let host = p.role.is_some_and(|r| r.role.is_none());
                    let reason = if host { "kept out by the host" } else { "role unknown" };
                    self.leave(model, param, view, reason);
                }
                views.extend(found.into_iter().map(|f| (param, f)));
            }
        }
        views
    }

    /// What else must agree: the vocabulary of token tables, the task of heads.
    fn tag(
        &mut self,
        model: usize,
        param: usize,
        p: &RoleView,
        spec: &ModelSpec,
    ) -> Option<String> {
        let (tag, what) = match p.role {
            Role::TokenEmbedding => (&spec.vocabulary, "token table; no vocabulary named"),
            Role::Head => (&spec.task, "head; no task named"),
            _ => return Some(String::new()),
        };
        if tag.is_none() {
            self.leave(model, param, p.view.clone(), what);
        }
        tag.clone()
    }

    fn match_depths(
        &mut self,
        key: &Key,
        candidates: Vec<Candidate>,
        shapes: &[(Role, WeightOrBias, [usize; 2], BTreeSet<usize>)],
    ) {
        let deepest = candidates.iter().map(|c| c.blocks).max().unwrap_or(0);
        let mut slots: BTreeMap<Option<usize>, Vec<Member>> = BTreeMap::new();
        for c in candidates {
            let slot = c.block.map(|b| (2 * b + 1) * deepest / (2 * c.blocks.max(1)));
            let members = slots.entry(slot).or_default();
            if members.iter().any(|m| m.model == c.member.model) {
                let text = "another view of this model has the same role";
                self.leave(c.member.model, c.member.param, c.member.view, text);
            } else {
                members.push(c.member);
            }
        }
        let name = format!("{} {}", key.role.name(), key.part.name());
        for (slot, members) in slots {
            if let [m] = &members[..] {
                let reason = no_partner(key, &name, m.model, slot, shapes);
                self.leave(m.model, m.param, m.view.clone(), reason);
                continue;
            }
            let depth = if slot.is_some() { ", same relative depth" } else { "" };
            self.groups.push(Group {
                name: name.clone(),
                slot: slot.map(|s| (s, deepest)),
                shape: key.shape,
                members: untransposed(members),
                by_token: false,
                reason: format!("same role and view shape{depth}"),
            });
        }
    }

    fn by_host(&mut self, models: &[ModelSpec], groups: &[ShareGroup]) -> Result<()> {
        let mut used: BTreeMap<(usize, usize), Vec<View>> = BTreeMap::new();
        for group in groups {
            let wrong =
                |text: String| Err(Error::invalid(format!("group '{}': {text}", group.name)));
            let mut members = Vec::new();
            for m in &group.members {
                let member =
                    find(models, m).map_err(|e| e.context(format!("group '{}'", group.name)))?;
                let views = used.entry((member.model, member.param)).or_default();
                if views.iter().any(|v| v.overlaps(&member.view)) {
                    return wrong(format!("'{}' of '{}' is in two groups", m.param, m.model));
                }
                views.push(member.view.clone());
                members.push(member);
            }
            members.sort_by_key(|m| (m.model, m.param, m.view.offset));
            let [first, _, ..] = &members[..] else {
                return wrong("needs at least two members".into());
            };
            let shape = first.view.shape();
            if let Some(m) = members.iter().find(|m| m.view.shape() != shape) {
                let text = self.view_text(m.model, m.param, &m.view);
                let other = m.view.shape();
                return wrong(format!("{text} has shape {other:?}, the first member {shape:?}"));
            }
            self.groups.push(Group {
                name: group.name.clone(),
                slot: None,
                shape,
                members: untransposed(members),
                by_token: false,
                reason: "named by the host".into(),
            });
        }
        Ok(())
    }

    /// The plan as one JSON object: `policy`, `gradients` and `parameters` (what is done with those
    /// of a group, in words), `models`, `groups` (`name`, `slot`, `slots`, `shape`, `reason`,
    /// `by_token`, `members`), `left_out` (`model`, `param`, `view`, `reason`). Runs of a member of
    /// a group by token are rows that may be in another order, and not equally far apart.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::json;
        let view = |model: usize, param: usize, v: &View| {
            json!({
                "model": self.models[model],
                "param": self.param_name(model, param),
                "view": self.view_text(model, param, v),
                "offset": v.offset, "runs": v.runs, "run_length": v.run_len, "stride": v.ld,
                "transposed": v.transposed,
            })
        };
        let group = |g: &Group| {
            json!({
                "name": g.name,
                "slot": g.slot.map(|s| s.0),
                "slots": g.slot.map(|s| s.1),
                "shape": g.shape,
                "reason": g.reason,
                "by_token": g.by_token,
                "members":
                    g.members.iter().map(|m| view(m.model, m.param, &m.view)).collect::<Vec<_>>(),
            })
        };
        let left = |l: &LeftOut| {
            let mut value = view(l.model, l.param, &l.view);
            value["reason"] = json!(l.reason);
            value
        };
        json!({
            "policy": self.policy,
            "gradients": self.gradients,
            "parameters": self.parameters,
            "models": self.models,
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
            "left_out": self.left_out.iter().map(left).collect::<Vec<_>>(),
        })
    }
}

/// Whether gradients of groups are mixed in some step.
fn mixes_gradients(options: &Options) -> bool {
    options.share_rule != ShareRule::None && options.share_every > 0
}

fn use_of_gradients(options: &Options) -> String {
    let tokens = match options.token_embeddings {
        TokenEmbeddings::Own => String::new(),
        TokenEmbeddings::Shared => format!(
            "; in every step rows of one token follow the mean of theirs (token_alpha {})",
            options.token_alpha
        ),
    };
    use_of_other_gradients(options) + &tokens
}

fn use_of_other_gradients(options: &Options) -> String {
    match (options.share_rule, options.share_every) {
        (ShareRule::None, _) => "not shared (share_rule none)".to_owned(),
        (_, 0) => "not shared (share_every 0)".to_owned(),
        (rule, every) => {
            let rule = serde_json::to_value(rule).unwrap_or_default();
            let rule = rule.as_str().unwrap_or_default();
            let alpha = match options.share_rule {
                ShareRule::Influence => String::new(),
                _ => format!(", share_alpha {}", options.share_alpha),
            };
            format!("shared (share_rule {rule}{alpha}) {}", in_steps(every))
        }
    }
}

fn use_of_parameters(options: &Options) -> String {
    match options.sync_every {
        0 => "not synchronised (sync_every 0)".to_owned(),
        every => format!("synchronised (sync_beta {}) {}", options.sync_beta, in_steps(every)),
    }
}

fn in_steps(every: u64) -> String {
    if every == 1 { "in every step".to_owned() } else { format!("every {every} steps") }
}

/// Whether rows of token tables are grouped by their tokens. Host and paper name all groups
/// themselves.
fn shares_tokens(options: &Options) -> bool {
    options.token_embeddings == TokenEmbeddings::Shared
        && matches!(options.share_policy, SharePolicy::Aligned | SharePolicy::None)
}

/// The views of a model's f32 parameters, each with the parameter's index, whatever is trained.
/// Parameters whose role is unknown have none.
pub fn role_views(spec: &ModelSpec) -> Vec<(usize, RoleView)> {
    let naming = Naming::of(spec);
    let params = spec.params.iter().zip(orders(spec)).enumerate();
    let f32s = params.filter(|(_, (p, _))| p.dtype == DType::F32);
    f32s.flat_map(|(i, (p, nth))| classify_in(p, nth, naming).into_iter().map(move |v| (i, v)))
        .collect()
}

/// How many earlier uses of the same kind and part each parameter has in its graph.
fn orders(spec: &ModelSpec) -> Vec<usize> {
    let rank = |i: usize| {
        let Some(mine) = spec.params[i].usage else { return 0 };
        let earlier =
            |u: &Usage| u.kind == mine.kind && u.part == mine.part && u.order < mine.order;
        spec.params.iter().filter(|p| p.usage.as_ref().is_some_and(earlier)).count()
    };
    (0..spec.params.len()).map(rank).collect()
}

fn no_partner(
    key: &Key,
    name: &str,
    model: usize,
    slot: Option<usize>,
    shapes: &[(Role, WeightOrBias, [usize; 2], BTreeSet<usize>)],
) -> String {
    let same =
        |s: &&(Role, WeightOrBias, [usize; 2], BTreeSet<usize>)| s.0 == key.role && s.1 == key.part;
    let others =
        |s: &(Role, WeightOrBias, [usize; 2], BTreeSet<usize>)| s.3.iter().any(|&m| m != model);
    if slot.is_some() && shapes.iter().filter(same).any(|s| s.2 == key.shape && others(s)) {
        return format!("no partner for {name} at this depth");
    }
    let elsewhere: Vec<String> = shapes
        .iter()
        .filter(same)
        .filter(|s| s.2 != key.shape && others(s))
        .map(|s| format!("{:?}", s.2))
        .collect();
    if elsewhere.is_empty() {
        return format!("no other model has {name}");
    }
    format!("{name} of other models has shape {}", elsewhere.join(", "))
}

/// Views that are all transposed are all taken as stored: nothing has to be transposed then.
fn untransposed(mut members: Vec<Member>) -> Vec<Member> {
    if members.iter().all(|m| m.view.transposed) {
        members.iter_mut().for_each(|m| m.view = m.view.clone().transpose());
    }
    members
}

fn find(models: &[ModelSpec], m: &ShareMember) -> Result<Member> {
    let model = models
        .iter()
        .position(|s| s.name == m.model)
        .ok_or_else(|| Error::not_found(format!("no model is named '{}'", m.model)))?;
    let param = models[model].params.iter().position(|p| p.name == m.param).ok_or_else(|| {
        Error::not_found(format!("model '{}' has no parameter '{}'", m.model, m.param))
    })?;
    let p = &models[model].params[param];
    if p.dtype != DType::F32 {
        return Err(Error::unsupported(format!("'{}' has element type {}", m.param, p.dtype)));
    }
    let view = match m.slice {
        None => View::whole(&p.shape),
        Some([axis, start, length]) => {
            View::slice(&p.shape, axis, start, length).ok_or_else(|| {
                Error::shape(format!(
                    "slice (axis {axis}, start {start}, length {length}) does not fit '{}' {:?}",
                    m.param, p.shape
                ))
            })?
        }
    };
    Ok(Member { model, param, view: if m.transpose { view.transpose() } else { view } })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.models.iter().map(String::len).max().unwrap_or(0);
        writeln!(
            f,
            "sharing plan: policy {}, {}, {}, {} left out",
            self.policy,
            count(self.models.len(), "model"),
            count(self.groups.len(), "group"),
            count(self.left_out.len(), "view")
        )?;
        writeln!(f, "gradients of a group are {}", self.gradients)?;
        writeln!(f, "parameters of a group are {}", self.parameters)?;
        for (name, why) in self.alone() {
            writeln!(f, "warning: model '{name}' shares nothing: {why}")?;
        }
        for g in &self.groups {
            write!(f, "{}", g.name)?;
            if let Some((slot, slots)) = g.slot {
                write!(f, ", depth {}/{slots}", slot + 1)?;
            }
            writeln!(f, " {:?}: {}", g.shape, g.reason)?;
            for m in &g.members {
                let view = self.view_text(m.model, m.param, &m.view);
                writeln!(f, "  {:width$}  {view}", self.models[m.model])?;
            }
        }
        if !self.left_out.is_empty() {
            writeln!(f, "left out")?;
        }
        for l in &self.left_out {
            let view = self.view_text(l.model, l.param, &l.view);
            writeln!(f, "  {:width$}  {view}: {}", self.models[l.model], l.reason)?;
        }
        Ok(())
    }
}
