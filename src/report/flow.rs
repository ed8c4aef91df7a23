//! How the gradients of models agree: a graph between the models, and a map by role and depth.
//!
//! A cosine of 1 means that two models would change what they share in the same direction, 0 that
//! they have nothing to do with each other, and -1 that they pull apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::log::Sharing;
use super::markup::{capital, coordinate as xy, cut, details, escape, number, table};
use super::plot::mark;

/// The most models of a graph that can be read.
pub(super) const MOST: usize = 12;
/// Numbers stand in cells of maps with at most so many columns.
const MOST_NUMBERED: usize = 24;

/// Cosines of one role between each pair of models.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub name: String,
    /// By depth slot, or at `None` outside of blocks: for each pair the mean cosine.
    pub cells: BTreeMap<Option<usize>, Vec<Option<f64>>>,
}

/// Mean cosines over the last half of the records.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreement {
    pub models: Vec<String>,
    /// Positions in `models`; the first of a pair is the smaller.
    pub pairs: Vec<(usize, usize)>,
    /// For each pair, over all that it shares.
    pub overall: Vec<Option<f64>>,
    pub roles: Vec<Role>,
    /// Depth slots.
    pub n_slots: usize,
    /// First and last step of the records.
    pub steps: (f64, f64),
}

#[derive(Clone, Copy, Default)]
struct Mean {
    sum: f64,
    n: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            (self.sum, self.n) = (self.sum + value, self.n + 1.0);
        }
    }

    fn value(self) -> Option<f64> {
        (self.n > 0.0).then(|| self.sum / self.n)
    }
}

impl Agreement {
    /// `None` without records of two models or more.
    pub(super) fn new(records: &[Sharing]) -> Option<Self> {
        let last = records.last()?;
        let late = &records[records.len() / 2..];
        let late: Vec<&Sharing> = late.iter().filter(|r| r.models == last.models).collect();
        let n = last.models.len();
        let pairs: Vec<(usize, usize)> =
            (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect();
        if pairs.is_empty() {
            return None;
        }
        let mut overall = vec![Mean::default(); pairs.len()];
        let mut order: Vec<&str> = Vec::new();
        let mut roles: BTreeMap<&str, BTreeMap<Option<usize>, Vec<Mean>>> = BTreeMap::new();
        let mut n_slots = 0;
        for record in &late {
            for (mean, &(i, j)) in overall.iter_mut().zip(&pairs) {
                mean.add(record.cosine[i][j]);
            }
            for group in &record.groups {
                if !roles.contains_key(group.name.as_str()) {
                    order.push(&group.name);
                }
                let cells = roles.entry(&group.name).or_default();
                let cell = cells
                    .entry(group.depth.map(|d| d.0))
                    .or_insert_with(|| vec![Mean::default(); pairs.len()]);
                n_slots = n_slots.max(group.depth.map_or(0, |d| d.1.max(d.0.saturating_add(1))));
                for (a, &i) in group.members.iter().enumerate() {
                    for (b, &j) in group.members.iter().enumerate().skip(a + 1) {
                        let pair = pairs.iter().position(|&p| p == (i.min(j), i.max(j)));
                        if let Some(pair) = pair {
                            cell[pair].add(group.cosine[a][b]);
                        }
                    }
                }
            }
        }
        let values = |means: &Vec<Mean>| means.iter().map(|m| m.value()).collect();
        let role = |name: &&str| Role {
            name: (*name).to_owned(),
            cells: roles[*name].iter().map(|(slot, means)| (*slot, values(means))).collect(),
        };
        Some(Self {
            models: last.models.clone(),
            overall: overall.into_iter().map(Mean::value).collect(),
            roles: order.iter().map(role).collect(),
            n_slots: n_slots.min(1000),
            steps: (late.first()?.step, last.step),
            pairs,
        })
    }

    /// `a – b`.
    pub(super) fn pair_name(&self, pair: usize) -> String {
        let (i, j) = self.pairs[pair];
        format!("{} – {}", self.models[i], self.models[j])
    }

    /// Means over the roles of one family, with its name; families without a role are left out.
    fn families(&self) -> Vec<(&'static str, Vec<Option<f64>>)> {
        let mean = |family: &str| {
            let mut means = vec![Mean::default(); self.pairs.len()];
            for role in self.roles.iter().filter(|r| self::family(&r.name) == family) {
                for values in role.cells.values() {
                    means.iter_mut().zip(values).for_each(|(m, v)| m.add(v.unwrap_or(f64::NAN)));
                }
            }
            means.into_iter().map(Mean::value).collect::<Vec<_>>()
        };
        FAMILIES
            .iter()
            .map(|&name| (name, mean(name)))
            .filter(|(_, values)| values.iter().any(Option::is_some))
            .collect()
    }

    /// A graph of all that is shared, and small ones of its families; `styles` has each model's.
    pub(super) fn graphs(&self, id: &str, styles: &[usize]) -> String {
        let graph = |id: &str, title: &str, values: &[Option<f64>], size: (f64, f64)| {
            self.graph(id, title, values, styles, size)
        };
        let mut out = "<div class=\"graphs\">\n".to_owned();
        let all = ("All that is shared", &self.overall);
        out += &graph(&format!("{id}-all"), all.0, all.1, (320.0, 190.0));
        for (i, (name, values)) in self.families().iter().enumerate() {
            out += &graph(&format!("{id}-{i}"), &capital(name), values, (250.0, 150.0));
        }
        out + "</div>\n"
    }

    fn graph(
        &self,
        id: &str,
        title: &str,
        values: &[Option<f64>],
        styles: &[usize],
        (width, height): (f64, f64),
    ) -> String {
        let half = |name: &String| 3.7 * cut(name, 13).chars().count() as f64 + 13.0;
        let widest = self.models.iter().map(half).fold(0.0, f64::max);
        let places = places(self.models.len(), (widest + 3.0, width - widest - 3.0), height);
        let mut description = String::new();
        let (mut edges, mut labels) = (String::new(), String::new());
        for (pair, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (a, b) = (places[self.pairs[pair].0], places[self.pairs[pair].1]);
            let _ = write!(description, "{}: {}. ", self.pair_name(pair), number(*value, 2));
            let _ = writeln!(
                edges,
                "<path class=\"edge {}\" stroke-width=\"{}\" d=\"M{} {}L{} {}\"/>",
                sign(*value),
                xy(1.5 + 10.0 * value.abs()),
                xy(a.0),
                xy(a.1),
                xy(b.0),
                xy(b.1)
            );
            // Edges of many models cross in their middles: labels stand nearer to one end.
            let part = if self.models.len() > 3 { 0.36 } else { 0.5 };
            let (x, y) = (a.0 + part * (b.0 - a.0), a.1 + part * (b.1 - a.1));
            let text = fixed(*value);
            let half = 4.0 * text.chars().count() as f64 + 3.0;
            let _ = writeln!(
                labels,
                "<rect class=\"plate\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"18\" rx=\"4\"/>\
                 <text class=\"value\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                xy(x - half),
                xy(y - 9.0),
                xy(2.0 * half),
                xy(x),
                xy(y + 4.5)
            );
        }
        let mut nodes = String::new();
        for (i, name) in self.models.iter().enumerate() {
            let ((x, y), half) = (places[i], half(name));
            let name = cut(name, 13);
            let style = styles.get(i).copied().unwrap_or(i);
            let _ = writeln!(
                nodes,
                "<rect class=\"node s{0}\" x=\"{1}\" y=\"{2}\" width=\"{3}\" height=\"26\" \
                 rx=\"13\"/><path class=\"mark s{0}\" d=\"{4}\"/>\
                 <text class=\"name\" x=\"{5}\" y=\"{6}\" text-anchor=\"middle\">{7}</text>",
                style % 8,
                xy(x - half),
                xy(y - 13.0),
                xy(2.0 * half),
                mark(style, x - half + 13.0, y),
                xy(x + 6.0),
                xy(y + 4.5),
                escape(&name)
            );
        }
        if description.is_empty() {
            description.push_str("No pair of models shares here.");
        }
        format!(
            "<figure class=\"graph\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{0}: cosines between the \
             models' gradients</title><desc id=\"{id}-d\">{1}</desc>\n{edges}{labels}{nodes}</svg>\
             <figcaption>{0}</figcaption></figure>\n",
            escape(title),
            escape(description.trim_end())
        )
    }

    /// For each pair of models a map of roles by depth, and all numbers as a table.
    pub(super) fn maps(&self, id: &str) -> String {
        if self.roles.is_empty() {
            return String::new();
        }
        let maps: String = (0..self.pairs.len().min(MOST * (MOST - 1) / 2))
            .filter(|&p| self.roles.iter().any(|r| r.cells.values().any(|v| v[p].is_some())))
            .map(|p| self.map(&format!("{id}-map{p}"), p))
            .collect();
        let key = "<p class=\"key\" aria-hidden=\"true\"><span>−1: pull apart\
                   </span><span class=\"bar\"></span><span>1: agree</span></p>\n";
        format!("<div class=\"maps\">\n{maps}</div>\n{key}") + &details("Numbers", &self.table())
    }

    fn columns(&self, roles: &[&Role], pair: usize) -> Vec<Option<usize>> {
        let is_outside = |r: &&Role| r.cells.get(&None).is_some_and(|v| v[pair].is_some());
        let outside = roles.iter().any(is_outside).then_some(None);
        outside.into_iter().chain((0..self.n_slots).map(Some)).collect()
    }

    fn map(&self, id: &str, pair: usize) -> String {
        const ROW: f64 = 20.0;
        let is_shared = |r: &&Role| r.cells.values().any(|v| v[pair].is_some());
        let roles: Vec<&Role> = self.roles.iter().filter(is_shared).collect();
        let columns = self.columns(&roles, pair);
        let is_numbered = columns.len() <= MOST_NUMBERED;
        let cell = if is_numbered { 29.0 } else { 14.0 };
        let longest = roles.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).min(34);
        let left = 6.4 * longest as f64 + 12.0;
        let (width, height) =
            (left + cell * columns.len() as f64 + 4.0, 24.0 + ROW * roles.len() as f64);
        let mut out = format!(
            "<figure class=\"map\"><figcaption>{0}</figcaption><div class=\"scroll\" \
             tabindex=\"0\" role=\"region\" aria-label=\"Map of {0}\"><svg viewBox=\"0 0 {1} {2}\" \
             style=\"width:{1}px\" role=\"img\" aria-labelledby=\"{id}-t\"><title id=\"{id}-t\">\
             Cosines between the gradients of {0}, by role and depth; the table below has the \
             numbers</title>\n",
            escape(&self.pair_name(pair)),
            xy(width),
            xy(height)
        );
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{}\" y=\"13\" text-anchor=\"end\">depth</text>",
            xy(left - 8.0)
        );
        for (c, slot) in columns.iter().enumerate() {
            let every = if is_numbered { 1 } else { 5 };
            let head = match slot {
                None => "none".to_owned(),
                Some(s) if s % every == 0 => (s + 1).to_string(),
                Some(_) => continue,
            };
            let x = left + cell * (c as f64 + 0.5);
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{}\" y=\"13\" text-anchor=\"middle\">{head}</text>",
                xy(x)
            );
        }
        for (r, role) in roles.iter().enumerate() {
            let y = 20.0 + ROW * r as f64;
            let _ = write!(
                out,
                "\n<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                xy(left - 8.0),
                xy(y + 14.0),
                escape(&cut(&role.name, 34))
            );
            for (c, slot) in columns.iter().enumerate() {
                let Some(Some(value)) = role.cells.get(slot).map(|v| v[pair]) else { continue };
                let x = left + cell * c as f64;
                let _ = write!(
                    out,
                    "<rect class=\"heat {}\" fill-opacity=\"{:.2}\" x=\"{}\" y=\"{}\" \
                     width=\"{}\" height=\"{}\"/>",
                    sign(value),
                    0.06 + 0.72 * value.abs().min(1.0),
                    xy(x),
                    xy(y),
                    xy(cell - 1.0),
                    ROW - 1.0
                );
                if is_numbered || value < 0.0 {
                    let text = if is_numbered { fixed(value) } else { "−".to_owned() };
                    let (x, y) = (xy(x + cell / 2.0 - 0.5), xy(y + 13.5));
                    let _ = write!(
                        out,
                        "<text class=\"cell\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">\
                         {text}</text>"
                    );
                }
            }
        }
        out + "</svg></div></figure>\n"
    }

    fn table(&self) -> String {
        const MOST_ROWS: usize = 400;
        let mut rows = Vec::new();
        for role in &self.roles {
            for (slot, values) in &role.cells {
                let depth = slot.map_or("–".to_owned(), |s| {
                    format!("{} of {}", s.saturating_add(1), self.n_slots)
                });
                let cell = |v: &Option<f64>| v.map_or("–".to_owned(), |v| number(v, 3));
                let head = [role.name.clone(), depth];
                rows.push(head.into_iter().chain(values.iter().map(cell)).collect());
            }
        }
        let rest = match rows.len() > MOST_ROWS {
            true => format!(" (the first {MOST_ROWS} of {})", rows.len()),
            false => String::new(),
        };
        rows.truncate(MOST_ROWS);
        let pairs = (0..self.pairs.len()).map(|p| self.pair_name(p));
        let heads: Vec<String> =
            ["role".to_owned(), "depth".to_owned()].into_iter().chain(pairs).collect();
        table(&format!("Cosines between gradients by role and depth{rest}"), &heads, &rows)
    }
}

const FAMILIES: [&str; 5] = ["attention", "MLP", "norms", "embeddings", "head and others"];

/// The family of a group's name.
pub(super) fn family(name: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    match () {
        () if has(&["norm"]) => FAMILIES[2],
        () if has(&["attention", "query", "key", "value", "cross"]) => FAMILIES[0],
        () if has(&["mlp", "feed", "ffn"]) => FAMILIES[1],
        () if has(&["embed", "class token", "relative position"]) => FAMILIES[3],
        () => FAMILIES[4],
    }
}

/// Where `n` models stand: two side by side, more on a circle from its top, stretched to fill the
/// picture from the least to the greatest x.
fn places(n: usize, (left, right): (f64, f64), height: f64) -> Vec<(f64, f64)> {
    let turn = if n == 2 { -0.5 } else { -0.25 };
    let angle = |i: usize| std::f64::consts::TAU * (i as f64 / n as f64 + turn);
    let circle: Vec<(f64, f64)> = (0..n).map(|i| (angle(i).cos(), angle(i).sin())).collect();
    let stretch = |value: f64, all: &dyn Fn(&(f64, f64)) -> f64, from: f64, to: f64| {
        let low = circle.iter().map(all).fold(f64::INFINITY, f64::min);
        let high = circle.iter().map(all).fold(f64::NEG_INFINITY, f64::max);
        if high - low < 1e-9 {
            return (from + to) / 2.0;
        }
        from + (value - low) / (high - low) * (to - from)
    };
    let place = |&(x, y): &(f64, f64)| {
        (stretch(x, &|p| p.0, left, right), stretch(y, &|p| p.1, 18.0, height - 18.0))
    };
    circle.iter().map(place).collect()
}

fn sign(value: f64) -> &'static str {
    if value < 0.0 { "neg" } else { "pos" }
}

/// Two decimals, without the 0 before them: `.31`, `−.05`, `1`.
fn fixed(value: f64) -> String {
    let text = format!("{value:.2}").replace('-', "−");
    match text.as_str() {
        "1.00" => "1".to_owned(),
        "−1.00" => "−1".to_owned(),
        "0.00" | "−0.00" => "0".to_owned(),
        _ => text.replacen("0.", ".", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::SharingGroup;
    use super::*;

    fn square(n: usize, value: f64) -> Vec<Vec<f64>> {
        let at = |i: usize, j: usize| if i == j { 1.0 } else { value };
        (0..n).map(|i| (0..n).map(|j| at(i, j)).collect()).collect()
    }

    fn record(step: f64, value: f64) -> Sharing {
        let group = |name: &str, depth, members: Vec<usize>, value| SharingGroup {
            name: name.to_owned(),
            depth,
            cosine: square(members.len(), value),
            distance: square(members.len(), 1.0),
            members,
        };
        Sharing {
            step,
            models: vec!["a<b".to_owned(), "b".to_owned(), "c".to_owned()],
            cosine: square(3, value),
            distance: square(3, 1.0),
            groups: vec![
                group("query weight", Some((0, 2)), vec![0, 2], value),
                group("query weight", Some((1, 2)), vec![0, 1, 2], -0.25),
                group("embedding norm bias", None, vec![1, 2], f64::NAN),
            ],
        }
    }

    #[test]
    fn the_last_half_is_averaged_by_pair_role_and_depth() {
        let records = [record(1.0, 0.9), record(2.0, 0.2), record(3.0, 0.4)];
        let all = Agreement::new(&records).unwrap();
        assert_eq!(all.pairs, [(0, 1), (0, 2), (1, 2)]);
        assert!((all.overall[0].unwrap() - 0.3).abs() < 1e-12);
        assert_eq!((all.n_slots, all.steps), (2, (2.0, 3.0)));
        let query = &all.roles[0].cells;
        assert!(query[&Some(0)][0].is_none() && (query[&Some(0)][1].unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(query[&Some(1)], [Some(-0.25); 3]);
        assert_eq!(all.roles[1].cells[&None], [None; 3]);
        assert!(Agreement::new(&[]).is_none());
    }

    #[test]
    fn pictures_have_their_parts() {
        let all = Agreement::new(&[record(1.0, 0.4)]).unwrap();
        let graphs = all.graphs("g", &[0, 1, 2]);
        assert_eq!(graphs.matches("<svg").count(), 2, "all, and attention");
        assert!(graphs.contains("a&lt;b – b: 0.4.") && !graphs.contains("a<b"));
        assert!(graphs.contains("edge pos") && graphs.contains("edge neg"));
        let maps = all.maps("g");
        assert_eq!(maps.matches("<svg").count(), 3);
        assert!(maps.contains(">−.25</text>") && maps.contains("heat neg"), "{maps}");
    }

    #[test]
    fn families_are_told_from_names() {
        assert_eq!(family("norm before attention weight"), "norms");
        assert_eq!(family("bert_attention"), "attention");
        assert_eq!(family("mlp up bias"), "MLP");
        assert_eq!(family("token embedding weight"), "embeddings");
        assert_eq!(family("pooler"), "head and others");
        assert_eq!(
            [fixed(0.314), fixed(-0.05), fixed(-0.001), fixed(1.0)],
            [".31", "−.05", "0", "1"]
        );
    }
}
