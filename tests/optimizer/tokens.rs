//! Rows of token tables that stand for the same token: which are grouped, and how their gradients
//! mix.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::optim::{
    AdaptiveLr, Method, ModelSpec, ModelWeightLrScale, Optimizer, Options, ParamSpec, Plan,
    ShareGroup, ShareMember, SharePolicy, ShareRule, TokenEmbeddings,
};
use mmopt::tensor::DType;

const WIDTH: usize = 3;

/// A model with a token table of these tokens, one more row that has no token, and a vector.
fn model(name: &str, weight: f64, tokens: &[&str]) -> ModelSpec {
    let table = ParamSpec::new("embeddings.word_embeddings.weight", &[tokens.len() + 1, WIDTH]);
    let norm = ParamSpec::new("embeddings.LayerNorm.weight", &[WIDTH]);
    let tokens: Vec<String> = tokens.iter().map(|t| (*t).to_owned()).collect();
    ModelSpec { weight, tokens: Some(tokens.into()), ..ModelSpec::new(name, vec![table, norm]) }
}

/// Rows in several orders; `b` has a token twice, and one without a text.
fn three() -> Vec<ModelSpec> {
    vec![
        model("a", 1.0, &["x", "y", "z", "only a", "w"]),
        model("b", 2.0, &["y", "", "w", "x", "y"]),
        model("c", 1.0, &["z", "x", "v"]),
    ]
}

/// Plain descent without anything but what is looked at.
fn options() -> Options {
    Options {
        method: Method::Sgd,
        momentum: 0.0,
        learning_rate: 1.0,
        weight_decay: 0.0,
        adaptive_lr: AdaptiveLr::None,
        model_weight_lr_scale: ModelWeightLrScale::None,
        max_grad_norm: 0.0,
        share_rule: ShareRule::None,
        token_embeddings: TokenEmbeddings::Shared,
        n_threads: 1,
        ..Options::default()
    }
}

fn plan(options: Options, models: Vec<ModelSpec>) -> Plan {
    Optimizer::new(options, models).unwrap().plan().clone()
}

/// Of each group by token the rows of its members.
fn rows(plan: &Plan) -> Vec<Vec<(usize, Vec<usize>)>> {
    let of = |m: &mmopt::optim::Member| {
        let row = |r: usize| match &m.view.rows {
            Some(rows) => rows[r] as usize,
            None => m.view.offset / WIDTH + r,
        };
        (m.model, (0..m.view.runs).map(row).collect())
    };
    let groups = plan.groups().iter().filter(|g| g.by_token);
    groups.map(|g| g.members.iter().map(of).collect()).collect()
}

#[test]
fn rows_are_grouped_by_the_models_that_have_their_token() {
    let plan = plan(options(), three());
    let expected = [
        vec![(0, vec![1, 4]), (1, vec![0, 2])],
        vec![(0, vec![0]), (1, vec![3]), (2, vec![1])],
        vec![(0, vec![2]), (2, vec![0])],
    ];
    let mut found = rows(&plan);
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    let text = plan.to_string();
    assert!(text.contains("embeddings.word_embeddings.weight[2 rows, :]"), "{text}");
    let json = plan.to_json();
    let by_token = json["groups"].as_array().unwrap().iter().filter(|g| g["by_token"] == true);
    assert_eq!(by_token.count(), 3);
}

#[test]
fn one_vocabulary_is_one_slice() {
    let same = |name| model(name, 1.0, &["", "x", "y", "z"]);
    let plan = plan(options(), vec![same("a"), same("b")]);
    assert_eq!(rows(&plan), [vec![(0, vec![1, 2, 3]), (1, vec![1, 2, 3])]]);
    assert!(plan.groups().iter().flat_map(|g| &g.members).all(|m| m.view.rows.is_none()));
}

#[test]
fn what_does_not_fit_is_left_out_and_why_is_said() {
    let mut wide = model("b", 1.0, &["x"]);
    wide.params[0].shape[1] = 2 * WIDTH;
    let mut frozen = model("c", 1.0, &["x"]);
    frozen.params[0].trainable = false;
    let mut of_two = model("a", 1.0, &["x"]);
    of_two.params.push(ParamSpec::new("decoder.embed_tokens.weight", &[2, WIDTH]));
    let plan = plan(options(), vec![of_two, wide, frozen]);
    assert_eq!(rows(&plan), Vec::<Vec<(usize, Vec<usize>)>>::new());
    let why = |model, param| {
        let is_it = |l: &&mmopt::optim::LeftOut| (l.model, l.param) == (model, param);
        let left: Vec<_> = plan.left_out().iter().filter(is_it).collect();
        assert_eq!(left.len(), 1, "{model} {param}");
        left[0].reason.clone()
    };
    assert_eq!(why(0, 0), "no other fresh model has one of its tokens in a table of this width");
    assert_eq!(why(0, 2), "the model's tokens are the rows of embeddings.word_embeddings.weight");
    assert_eq!(why(1, 0), why(0, 0));
    assert_eq!(why(2, 0), "frozen");
}

/// Host and paper name all groups themselves.
#[test]
fn policies_that_name_their_groups_have_no_others() {
    let norms = ["a", "b"].map(|model| ShareMember {
        model: model.to_owned(),
        param: "embeddings.LayerNorm.weight".to_owned(),
        slice: None,
        transpose: false,
    });
    let has = |share_policy, token_embeddings| {
        let custom = share_policy == SharePolicy::Custom;
        let group = ShareGroup { name: "norms".to_owned(), members: norms.to_vec() };
        let share_groups = if custom { vec![group] } else { Vec::new() };
        let options = Options { share_policy, token_embeddings, share_groups, ..options() };
        let plan = plan(options, three());
        plan.groups().iter().any(|g| g.by_token)
    };
    assert!(has(SharePolicy::Aligned, TokenEmbeddings::Shared));
    assert!(has(SharePolicy::None, TokenEmbeddings::Shared));
    assert!(!has(SharePolicy::Paper, TokenEmbeddings::Shared));
    assert!(!has(SharePolicy::Custom, TokenEmbeddings::Shared));
    assert!(!has(SharePolicy::Aligned, TokenEmbeddings::Own));
}

/// Gradients are 1000 · model + element, so that every element tells where it came from.
fn stepped(options: Options, without: Option<usize>) -> Vec<Vec<f32>> {
    let specs = three();
    let mut o = Optimizer::new(options, specs.clone()).unwrap();
    for m in 0..specs.len() {
        o.bind_owned(m, DType::F32).unwrap();
        let gradient = o.gradient_mut(m, 0).unwrap().as_mut_slice::<f32>().unwrap();
        gradient.iter_mut().enumerate().for_each(|(i, g)| *g = (1000 * m + i) as f32);
        if without == Some(m) {
            gradient[0] = f32::NAN;
        }
    }
    o.step().unwrap();
    (0..specs.len()).map(|m| o.values(m, 0).unwrap().to_vec()).collect()
}

#[test]
fn rows_follow_the_weighted_mean() {
    let weights = [1.0, 2.0, 1.0];
    let groups = rows(&plan(options(), three()));
    for (alpha, without) in [(1.0, None), (0.25, None), (1.0, Some(1)), (0.0, None)] {
        // With and without other groups, whose rule is another.
        for share_rule in [ShareRule::None, ShareRule::Gated, ShareRule::Sum] {
            for share_policy in [SharePolicy::Aligned, SharePolicy::None] {
                let options = Options { token_alpha: alpha, share_rule, share_policy, ..options() };
                let values = stepped(options, without);
                for (m, values) in values.iter().enumerate() {
                    for (i, &value) in values.iter().enumerate() {
                        let (row, column) = (i / WIDTH, i % WIDTH);
                        let own = (1000 * m + i) as f64;
                        let group = groups.iter().find_map(|members| {
                            let mine = members.iter().find(|(model, _)| *model == m)?;
                            let at = mine.1.iter().position(|&r| r == row)?;
                            Some(members.iter().map(move |(model, rows)| (*model, rows[at])))
                        });
                        let members =
                            group.into_iter().flatten().filter(|(m, _)| without != Some(*m));
                        let members: Vec<_> = members.collect();
                        let mean = || {
                            let total: f64 = members.iter().map(|(m, _)| weights[*m]).sum();
                            let g = |&(m, row): &(usize, usize)| {
                                weights[m] * (1000 * m + row * WIDTH + column) as f64
                            };
                            members.iter().map(g).sum::<f64>() / total
                        };
                        let mixed = match members.len() {
                            0 | 1 => own,
                            _ => (1.0 - alpha) * own + alpha * mean(),
                        };
                        let expected = if without == Some(m) { 0.0 } else { -mixed };
                        let text = format!("alpha {alpha}, {share_rule:?}, model {m}, element {i}");
                        assert!((f64::from(value) - expected).abs() < 1e-3, "{text}: {value}");
                    }
                }
            }
        }
    }
}
