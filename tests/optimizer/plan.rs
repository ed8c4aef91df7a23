//! The sharing plan of the three base configurations: its text, and that every matrix of every
//! block has a partner in each model.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::optim::{Optimizer, Options, Plan, SharePolicy, ShareRule, TokenEmbeddings};
use std::collections::BTreeSet;

fn plan(share_policy: SharePolicy) -> Plan {
    let options =
        Options { share_policy, n_threads: 1, share_rule: ShareRule::Mean, ..Options::default() };
    Optimizer::new(options, mmopt_tools::base_models::base()).unwrap().plan().clone()
}

fn golden(name: &str, text: &str) {
    let path = format!("tests/data/plans/{name}.txt");
    if std::env::var_os("MMOPT_BLESS").is_some() {
        std::fs::create_dir_all("tests/data/plans").unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap();
    for (i, (got, want)) in text.lines().zip(want.lines()).enumerate() {
        assert_eq!(got, want, "{path}, line {}", i + 1);
    }
    assert_eq!(text.lines().count(), want.lines().count());
}

/// The plan says whether its groups have an effect; models without a partner are told of only then.
#[test]
fn what_is_done_with_groups_is_told() {
    let alone = |options: Options| {
        let own = mmopt::optim::ModelSpec::new("own", Vec::new());
        let models = mmopt_tools::base_models::base().into_iter().chain([own]).collect();
        let plan = Optimizer::new(Options { n_threads: 1, ..options }, models).unwrap();
        let plan = plan.plan();
        let told = plan.to_string();
        let json = plan.to_json();
        for (key, text) in [("gradients", plan.gradients()), ("parameters", plan.parameters())] {
            assert!(told.contains(&format!("{key} of a group are {text}\n")), "{told}");
            assert_eq!(json[key], text);
        }
        let warned = told.contains("warning: model 'own' shares nothing");
        (plan.gradients().to_owned(), plan.parameters().to_owned(), warned)
    };
    let synced = "synchronised (sync_beta 0.1) every 10 steps";
    let unsynced = "not synchronised (sync_every 0)";
    let gated = Options { share_rule: ShareRule::Gated, ..Options::default() };
    for (options, gradients, parameters, warned) in [
        (Options::default(), "not shared (share_rule none)", unsynced, false),
        (gated.clone(), "shared (share_rule gated, share_alpha 0.2) in every step", unsynced, true),
        (
            Options { share_every: 0, ..gated.clone() },
            "not shared (share_every 0)",
            unsynced,
            false,
        ),
        (
            Options { share_every: 3, ..gated },
            "shared (share_rule gated, share_alpha 0.2) every 3 steps",
            unsynced,
            true,
        ),
        (
            Options { sync_every: 10, ..Options::default() },
            "not shared (share_rule none)",
            synced,
            true,
        ),
        (
            Options {
                token_embeddings: TokenEmbeddings::Shared,
                token_alpha: 0.5,
                ..Options::default()
            },
            "not shared (share_rule none); in every step rows of one token follow the mean of \
             theirs (token_alpha 0.5)",
            unsynced,
            true,
        ),
    ] {
        assert_eq!(alone(options), (gradients.into(), parameters.into(), warned));
    }
}

#[test]
fn every_block_matrix_meets_all_three_models() {
    let plan = plan(SharePolicy::Aligned);
    let mut met: BTreeSet<(String, String)> = BTreeSet::new();
    for group in plan.groups() {
        let models: BTreeSet<usize> = group.members.iter().map(|m| m.model).collect();
        assert_eq!(models.len(), group.members.len(), "one view per model");
        assert!(group.members.iter().all(|m| m.view.shape() == group.shape));
        for m in &group.members {
            let name = plan.view_text(m.model, m.param, &m.view);
            if models.len() == 3 {
                met.insert((plan.models()[m.model].clone(), name));
            }
        }
    }
    let mut wanted = Vec::new();
    for i in 0..12 {
        for model in ["bert", "roberta"] {
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                wanted.push((model, format!("{model}.encoder.layer.{i}.attention.{part}.weight")));
            }
            for part in ["intermediate", "output"] {
                wanted.push((model, format!("{model}.encoder.layer.{i}.{part}.dense.weight")));
            }
        }
        let at = format!("transformer.h.{i}");
        for slice in ["0:768", "768:1536", "1536:2304"] {
            wanted.push(("gpt2", format!("{at}.attn.c_attn.weight[:, {slice}]^T")));
        }
        for part in ["attn.c_proj", "mlp.c_fc", "mlp.c_proj"] {
            wanted.push(("gpt2", format!("{at}.{part}.weight^T")));
        }
    }
    for (model, name) in wanted {
        assert!(met.contains(&(model.to_string(), name.clone())), "{model}: {name}");
    }
}

#[test]
fn texts_are_as_committed() {
    golden("aligned", &plan(SharePolicy::Aligned).to_string());
    golden("paper", &plan(SharePolicy::Paper).to_string());
}

#[test]
fn json_says_the_same_as_the_text() {
    let plan = plan(SharePolicy::Aligned);
    let json = plan.to_json();
    assert_eq!(json["groups"].as_array().unwrap().len(), plan.groups().len());
    assert_eq!(json["left_out"].as_array().unwrap().len(), plan.left_out().len());
    let text = plan.to_string();
    for group in json["groups"].as_array().unwrap() {
        for member in group["members"].as_array().unwrap() {
            assert!(text.contains(member["view"].as_str().unwrap()));
        }
    }
    for left in json["left_out"].as_array().unwrap() {
        assert!(!left["reason"].as_str().unwrap().is_empty());
    }
}

/// Every parameter of the state dicts at hand has a role.
#[test]
fn published_state_dicts_have_roles() {
    let Ok(folders) = std::fs::read_dir("../shared/oracle") else {
        println!("not run: no folder ../shared/oracle");
        return;
    };
    for folder in folders {
        let Ok(bytes) = std::fs::read(folder.unwrap().path().join("params.safetensors")) else {
            continue;
        };
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in tensors.tensors() {
            let spec = mmopt::optim::ParamSpec::new(name.clone(), view.shape());
            let placed = mmopt::optim::classify(&spec, 0);
            let size: usize = placed.iter().map(|p| p.view.len()).sum();
            assert_eq!(size, view.shape().iter().product::<usize>(), "{name}");
        }
    }
}
