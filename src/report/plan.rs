//! The sharing plan as a picture: the models side by side, in each its blocks, in each block the
//! roles that share, and a line between those of one group. Depths that share alike are one block.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::flow::family;
use super::markup::{capital, coordinate as xy, count, cut, details, escape, paragraph, table};

/// The most models, parts and rows that a picture shows.
const MOST_MODELS: usize = 12;
const MOST_ROWS: usize = 400;
/// The most rows of the table of what shares with nobody.
const MOST_LEFT_OUT: usize = 200;

const COLUMN: f64 = 200.0;
const GAP: f64 = 64.0;
const ROW: f64 = 22.0;

/// A role with the views of each model that share in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    role: String,
    /// `weight`, `bias`, both, or nothing where the role's name says neither.
    parts: String,
    /// By model: how many views, and whether one of them is transposed.
    models: BTreeMap<usize, (usize, bool)>,
}

/// A part of the models that is drawn as one block in each.
#[derive(Clone, Debug)]
struct Part {
    title: String,
    /// For each model the blocks as its parameters' names number them.
    blocks: BTreeMap<usize, BTreeSet<usize>>,
    rows: Vec<Row>,
}

/// The picture with its tables; a sentence if nothing is shared.
pub(super) fn html(plan: &Value, id: &str) -> String {
    let models: Vec<&str> = list(&plan["models"]).filter_map(Value::as_str).collect();
    let policy = plan["policy"].as_str().unwrap_or("unknown");
    let (groups, left_out) = (list(&plan["groups"]).count(), list(&plan["left_out"]).count());
    let mut out = paragraph(
        "",
        &format!(
            "Policy {policy}: groups of views that belong together: {}; views without a partner: \
             {}.",
            count(groups),
            count(left_out)
        ),
    );
    // What older versions wrote does not say it.
    if let (Some(gradients), Some(parameters)) =
        (plan["gradients"].as_str(), plan["parameters"].as_str())
    {
        let text = format!("Gradients of a group are {gradients}, its parameters {parameters}.");
        out += &paragraph("", &text);
    }
    let mutual = plan["mutual"].as_str().unwrap_or_default().trim();
    if !mutual.is_empty() {
        out += &paragraph("", &capital(mutual));
    }
    let parts = parts(plan, &models);
    let n_rows: usize = parts.iter().map(|p| p.rows.len()).sum();
    if parts.is_empty() || models.is_empty() {
        out += &paragraph("absent", "No views are in groups in this run.");
    } else if models.len() > MOST_MODELS || n_rows > MOST_ROWS {
        out += &paragraph("absent", "The plan is too large for a picture; the tables have it.");
    } else {
        out += &picture(plan, &models, &parts, id);
    }
    if !parts.is_empty() && !models.is_empty() {
        out += &details("The plan as a table", &rows_table(&models, &parts));
    }
    out + &left_out_table(plan)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The first number among the parts of a parameter's name: that of its block.
fn block_of(param: &str) -> Option<usize> {
    param.split(['.', '/', '_']).find_map(|part| part.parse().ok())
}

/// The role of a group's name, and whether it is of weights or biases.
fn split_name(name: &str) -> (&str, &str) {
    for part in ["weight", "bias"] {
        if let Some(role) = name.strip_suffix(part).map(str::trim_end).filter(|r| !r.is_empty()) {
            return (role.trim_end_matches('.'), part);
        }
    }
    (name, "")
}

/// Where a part stands: before the blocks, at a depth, after the blocks.
type Place = (u8, usize);

/// A row, and for each of its views the model and the block.
type BlockRow = (Row, Vec<(usize, Option<usize>)>);

/// What is drawn, from the top.
fn parts(plan: &Value, models: &[&str]) -> Vec<Part> {
    let mut places: BTreeMap<Place, Vec<BlockRow>> = BTreeMap::new();
    let mut n_slots = 0;
    for group in list(&plan["groups"]) {
        let name = group["name"].as_str().unwrap_or("unnamed");
        let place = match group["slot"].as_u64() {
            Some(slot) => (1, slot as usize),
            None if family(name) == "embeddings" || name.contains("embedding") => (0, 0),
            None => (2, 0),
        };
        n_slots = n_slots.max(group["slots"].as_u64().unwrap_or(0) as usize);
        let mut members: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
        let mut blocks = Vec::new();
        for member in list(&group["members"]) {
            let Some(i) = models.iter().position(|m| member["model"] == *m) else { continue };
            let entry = members.entry(i).or_default();
            *entry = (entry.0 + 1, entry.1 || member["transposed"] == true);
            blocks.push((i, block_of(member["param"].as_str().unwrap_or_default())));
        }
        let (role, part) = split_name(name);
        let mut role = role.to_owned();
        let rows = places.entry(place).or_default();
        let is_taken = |(row, _): &BlockRow| row.role == role && row.parts.contains(part);
        if rows.iter().any(is_taken) || place.0 == 2 && part.is_empty() {
            let _ = write!(role, " {}", shape(&group["shape"]));
        }
        // Weight and bias of a role are one row where the same models share both.
        let same = |(row, _): &&mut BlockRow| {
            let models = |m: &BTreeMap<usize, (usize, bool)>| m.keys().copied().collect::<Vec<_>>();
            row.role == role && row.parts != part && models(&row.models) == models(&members)
        };
        match rows.iter_mut().find(same) {
            Some((row, all)) => {
                row.parts = "weight and bias".to_owned();
                for (i, (_, transposed)) in members {
                    row.models.entry(i).or_default().1 |= transposed;
                }
                all.extend(blocks);
            }
            None => rows.push((Row { role, parts: part.to_owned(), models: members }, blocks)),
        }
    }
    together(places, n_slots)
}

/// Depths of the same rows together.
fn together(places: BTreeMap<Place, Vec<BlockRow>>, n_slots: usize) -> Vec<Part> {
    let mut parts: Vec<(Place, Vec<usize>, Part)> = Vec::new();
    for (place, rows) in places {
        let mut blocks: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (model, block) in rows.iter().flat_map(|r| &r.1) {
            blocks.entry(*model).or_default().extend(block);
        }
        let rows: Vec<Row> = rows.into_iter().map(|r| r.0).collect();
        let like = parts.iter_mut().find(|p| p.0.0 == 1 && place.0 == 1 && p.2.rows == rows);
        if let Some((_, slots, part)) = like {
            slots.push(place.1);
            for (model, of) in blocks {
                part.blocks.entry(model).or_default().extend(of);
            }
        } else {
            parts.push((place, vec![place.1], Part { title: String::new(), blocks, rows }));
        }
    }
    for ((kind, _), slots, part) in &mut parts {
        part.title = match kind {
            0 => "embeddings".to_owned(),
            1 => {
                format!("depth {} of {n_slots}", ranges(slots.iter().map(|s| s.saturating_add(1))))
            }
            _ => "outside of blocks".to_owned(),
        };
        if *kind != 1 {
            part.blocks.clear();
        }
    }
    parts.into_iter().map(|p| p.2).collect()
}

/// `1–3, 5`, and `0, 2, … 10` for four numbers or more that are as far apart.
fn ranges(numbers: impl Iterator<Item = usize>) -> String {
    let all: Vec<usize> = numbers.collect();
    if let [first, second, .., last] = all[..]
        && all.len() > 3
        && all.windows(2).all(|w| w[1].saturating_sub(w[0]) == second - first)
        && second - first > 1
    {
        return format!("{first}, {second}, … {last}");
    }
    let numbers = all.into_iter();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some(run) if run.1.checked_add(1) == Some(n) => run.1 = n,
            _ => runs.push((n, n)),
        }
    }
    let text = |&(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}–{b}") };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn shape(shape: &Value) -> String {
    let sizes: Vec<String> = list(shape).map(|n| n.to_string()).collect();
    sizes.join("×")
}

/// What a chip says: `attention query` and marks for several or transposed views.
fn chip(row: &Row, model: usize) -> Option<String> {
    let &(n, transposed) = row.models.get(&model)?;
    let parts = match row.parts.as_str() {
        "weight" => " w",
        "bias" => " b",
        "weight and bias" => " w b",
        _ => "",
    };
    let times = if n > 1 { format!(" ({n})") } else { String::new() };
    let mark = if transposed { " ᵀ" } else { "" };
    let room = 26usize.saturating_sub(parts.len() + times.len() + mark.chars().count());
    Some(format!("{}{parts}{mark}{times}", cut(&row.role, room)))
}

fn picture(plan: &Value, models: &[&str], parts: &[Part], id: &str) -> String {
    let width = 8.0 + models.len() as f64 * (COLUMN + GAP) - GAP;
    let column = |i: usize| 4.0 + i as f64 * (COLUMN + GAP);
    let (mut y, mut boxes, mut lines, mut chips) =
        (34.0, String::new(), String::new(), String::new());
    for part in parts {
        let head = if part.blocks.is_empty() { 24.0 } else { 40.0 };
        let height = head + 6.0 + ROW * part.rows.len() as f64;
        for (i, _) in models.iter().enumerate() {
            if !part.rows.iter().any(|r| r.models.contains_key(&i)) {
                continue;
            }
            let own = part.blocks.get(&i).filter(|b| !b.is_empty()).map(|b| {
                let name = if b.len() == 1 { "block" } else { "blocks" };
                format!("{name} {}", ranges(b.iter().copied()))
            });
            let _ = writeln!(
                boxes,
                "<rect class=\"box\" x=\"{}\" y=\"{}\" width=\"{COLUMN}\" height=\"{}\" rx=\"8\"/>",
                xy(column(i)),
                xy(y),
                xy(height)
            );
            for (line, title) in own.into_iter().chain([part.title.clone()]).enumerate() {
                let _ = writeln!(
                    boxes,
                    "<text class=\"part\" x=\"{}\" y=\"{}\">{}</text>",
                    xy(column(i) + 10.0),
                    xy(y + 16.0 + 16.0 * line as f64),
                    escape(&cut(&title, 30))
                );
            }
        }
        for (r, row) in part.rows.iter().enumerate() {
            let top = y + head + ROW * r as f64;
            let kind = family(&row.role).split(' ').next().unwrap_or_default().to_lowercase();
            for i in 0..models.len() {
                let Some(text) = chip(row, i) else { continue };
                let _ = writeln!(
                    chips,
                    "<rect class=\"chip {kind}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"18\" \
                     rx=\"4\"/><text class=\"chiptext\" x=\"{}\" y=\"{}\">{}</text>",
                    xy(column(i) + 8.0),
                    xy(top),
                    COLUMN - 16.0,
                    xy(column(i) + 16.0),
                    xy(top + 13.0),
                    escape(&text)
                );
            }
            let members: Vec<usize> = row.models.keys().copied().collect();
            for pair in members.windows(2) {
                let link = |into: &mut String, from: f64, to: f64| {
                    let (from, to, y) = (xy(from), xy(to), xy(top + 9.0));
                    let _ = writeln!(into, "<path class=\"link {kind}\" d=\"M{from} {y}H{to}\"/>");
                };
                // Behind the boxes of models between, and in front of its own.
                let (from, to) = (column(pair[0]) + COLUMN, column(pair[1]));
                link(&mut lines, from, to);
                link(&mut chips, from - 8.0, from);
                link(&mut chips, to, to + 8.0);
            }
        }
        y += height + 10.0;
    }
    let mut heads = String::new();
    for (i, name) in models.iter().enumerate() {
        let _ = writeln!(
            heads,
            "<text class=\"head\" x=\"{}\" y=\"20\" text-anchor=\"middle\">{}</text>",
            xy(column(i) + COLUMN / 2.0),
            escape(&cut(name, 22))
        );
        let alone = list(&plan["left_out"]).filter(|l| l["model"] == *name).count();
        if alone > 0 {
            let views = if alone == 1 { "view shares" } else { "views share" };
            let _ = writeln!(
                heads,
                "<rect class=\"box alone\" x=\"{}\" y=\"{}\" width=\"{COLUMN}\" height=\"30\" \
                 rx=\"8\"/><text class=\"part\" x=\"{}\" y=\"{}\">{} {views} with nobody</text>",
                xy(column(i)),
                xy(y),
                xy(column(i) + 10.0),
                xy(y + 20.0),
                count(alone)
            );
        }
    }
    y += 34.0;
    format!(
        "<figure class=\"plan\"><div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Picture of the sharing plan\"><svg viewBox=\"0 0 {0} {1}\" \
         style=\"width:{0}px\" role=\"img\" aria-labelledby=\"{id}-t\"><title id=\"{id}-t\">\
         Which parts of the models belong together; the table below says the same</title>\n\
         {heads}{lines}{boxes}{chips}</svg></div>\n\
         <p class=\"note\">A line joins views of one group. w: weights, b: biases, ᵀ: stored \
         transposed, (n): so many views of one model. Depths that are grouped alike are one block; \
         blocks are numbered as in the parameters' names.</p></figure>\n",
        xy(width),
        xy(y)
    )
}

fn rows_table(models: &[&str], parts: &[Part]) -> String {
    let heads: Vec<String> =
        ["place", "role", "parts"].iter().chain(models).map(|s| (*s).to_owned()).collect();
    let mut rows = Vec::new();
    for part in parts {
        for row in part.rows.iter().take(MOST_ROWS) {
            let cell = |i: usize| match row.models.get(&i) {
                None => "–".to_owned(),
                Some((n, transposed)) => {
                    let views =
                        if *n == 1 { "in the group".to_owned() } else { format!("{n} views") };
                    views + if *transposed { ", transposed" } else { "" }
                }
            };
            let head = [part.title.clone(), row.role.clone(), row.parts.clone()];
            rows.push(head.into_iter().chain((0..models.len()).map(cell)).collect());
        }
    }
    table("Which views are grouped", &heads, &rows)
}

fn left_out_table(plan: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("–").to_owned();
    let n = list(&plan["left_out"]).count();
    if n == 0 {
        return String::new();
    }
    let rows: Vec<Vec<String>> = list(&plan["left_out"])
        .take(MOST_LEFT_OUT)
        .map(|l| vec![text(&l["view"]), text(&l["model"]), text(&l["reason"])])
        .collect();
    let rest = match n > MOST_LEFT_OUT {
        true => format!(" (the first {MOST_LEFT_OUT} of {})", count(n)),
        false => String::new(),
    };
    let heads = ["view", "model", "reason"].map(str::to_owned);
    let table = table(&format!("Views that share with nobody{rest}"), &heads, &rows);
    details("What shares with nobody, and why", &table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan() -> Value {
        let member = |model: &str, param: String, transposed: bool| {
            let view = "v";
            json!({"model": model, "param": param, "view": view, "transposed": transposed})
        };
        let mut groups = vec![json!({
            "name": "embedding norm weight", "slot": null, "slots": null, "shape": [1, 8],
            "members": [member("<a>", "ln.weight".into(), false), member("c", "n".into(), false)]
        })];
        for slot in 0..4 {
            for part in ["weight", "bias"] {
                let a = member("<a>", format!("layer.{slot}.query.{part}"), false);
                let b = member("b", format!("h.{}.attn.{part}", slot / 2), part == "weight");
                let c = member("c", format!("layer.{slot}.query.{part}"), false);
                let members = if slot % 2 == 0 { vec![a, b, c] } else { vec![a, c] };
                groups.push(json!({
                    "name": format!("attention query {part}"), "slot": slot, "slots": 4,
                    "shape": [8, 8], "members": members
                }));
            }
        }
        json!({
            "policy": "aligned", "models": ["<a>", "b", "c"], "groups": groups, "mutual": "none<",
            "left_out": [{"model": "b", "view": "<v>", "reason": "no other"}]
        })
    }

    #[test]
    fn depths_that_share_alike_are_one_part() {
        let plan = plan();
        let parts = parts(&plan, &["<a>", "b", "c"]);
        let titles: Vec<&str> = parts.iter().map(|p| p.title.as_str()).collect();
        assert_eq!(titles, ["embeddings", "depth 1, 3 of 4", "depth 2, 4 of 4"]);
        assert_eq!(parts[1].rows.len(), 1);
        assert_eq!(parts[1].rows[0].parts, "weight and bias");
        assert_eq!(chip(&parts[1].rows[0], 1).unwrap(), "attention query w b ᵀ");
        assert_eq!(parts[1].blocks[&1], BTreeSet::from([0, 1]));
        assert_eq!(ranges([1, 2, 3, 7].into_iter()), "1–3, 7");
        assert_eq!(ranges([0, 2, 4, 6].into_iter()), "0, 2, … 6");
        assert_eq!(ranges([0, 1, 2, 3].into_iter()), "0–3");
    }

    #[test]
    fn the_picture_has_models_blocks_and_lines() {
        let html = html(&plan(), "p");
        for part in [
            "&lt;a&gt;</text>",
            ">blocks 0–1</text>",
            ">depth 1, 3 of 4</text>",
            "1 view shares with",
            "None&lt;",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
        // Embeddings one, depths 1 and 3 two, depths 2 and 4 one.
        assert_eq!(html.matches("class=\"link").count(), 3 * 4);
        assert!(!html.contains("<a>") && !html.contains("<v>"));
    }

    #[test]
    fn odd_plans_do_no_harm() {
        assert!(
            html(&json!({"policy": "none", "models": ["a"]}), "p")
                .contains("No views are in groups")
        );
        for plan in [json!(null), json!([1]), json!({"groups": 7, "models": {}, "left_out": "x"})] {
            assert!(html(&plan, "p").contains("No views are in groups"));
        }
        let odd = json!({"models": ["a"], "groups": [{"members": [{"model": "z"}]}, 7]});
        assert!(html(&odd, "p").contains("<svg"));
    }
}
