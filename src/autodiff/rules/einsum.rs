//! Sums of products over named axes.
//!
//! *label*: the letter of an axis; axes under an ellipsis get unused letters. *term*: the
//! labels of one input.

use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::{Attribute, Build, ValueId};

pub(in crate::autodiff) const ROWS: &[Row] = &[rule("Einsum", 12, einsum).with(&["equation"])];

/// An equation whose every axis has a label.
struct Equation {
    terms: Vec<Vec<char>>,
    output: Vec<char>,
    sizes: Vec<(char, usize)>,
}

impl Equation {
    fn read(text: &str, shapes: &[Vec<usize>]) -> Result<Self> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let parts: Vec<&str> = left.split(',').collect();
        if parts.len() != shapes.len() {
            return Err(Error::data(format!("'{text}' for {} inputs", shapes.len())));
        }
        let mut n_dots = 0;
        for (part, shape) in parts.iter().zip(shapes) {
            if part.contains("...") {
                n_dots = n_dots.max(shape.len().saturating_sub(part.len() - 3));
            }
        }
        let free = ('a'..='z').chain('A'..='Z').filter(|c| !text.contains(*c));
        let dots: Vec<char> = free.take(n_dots).collect();
        if dots.len() < n_dots {
            return Err(Error::unsupported(format!("'{text}' has too many axes")));
        }
        let mut equation = Self { terms: Vec::new(), output: Vec::new(), sizes: Vec::new() };
        for (part, shape) in parts.iter().zip(shapes) {
            let own = shape.len().saturating_sub(part.len().saturating_sub(3)).min(n_dots);
            let term = spelled(part, &dots[n_dots - own..])?;
            equation.size(&term, shape)?;
            equation.terms.push(term);
        }
        equation.output = match right {
            Some(right) => spelled(right, &dots)?,
            None => equation.implied(left, &dots),
        };
        Ok(equation)
    }

    /// Without an arrow: what the ellipsis covers, then the letters that occur once, in order.
    fn implied(&self, left: &str, dots: &[char]) -> Vec<char> {
        let mut once: Vec<char> = left
            .chars()
            .filter(|c| c.is_ascii_alphabetic() && left.matches(*c).count() == 1)
            .collect();
        once.sort_unstable();
        dots.iter().copied().chain(once).collect()
    }

    fn size(&mut self, term: &[char], shape: &[usize]) -> Result<()> {
        if term.len() != shape.len() {
            return Err(Error::shape(format!("{} labels for {shape:?}", term.len())));
        }
        for (&label, &size) in term.iter().zip(shape) {
            match self.sizes.iter_mut().find(|(l, _)| *l == label) {
                Some((_, known)) if *known == 1 => *known = size,
                Some(_) => {}
                None => self.sizes.push((label, size)),
            }
        }
        Ok(())
    }

    fn shape(&self, term: &[char]) -> Vec<usize> {
        let size = |c: &char| self.sizes.iter().find(|(l, _)| l == c).map_or(1, |(_, n)| *n);
        term.iter().map(size).collect()
    }
}

/// The result shape of `equation` for inputs of these shapes.
pub(crate) fn einsum_shape(equation: &str, shapes: &[Vec<usize>]) -> Result<Vec<usize>> {
    let equation = Equation::read(equation, shapes)?;
    Ok(equation.shape(&equation.output))
}

/// The labels of a term with `dots` in the place of its ellipsis.
fn spelled(part: &str, dots: &[char]) -> Result<Vec<char>> {
    let term = match part.split_once("...") {
        Some((before, after)) => {
            before.chars().chain(dots.iter().copied()).chain(after.chars()).collect()
        }
        None => part.chars().collect::<Vec<char>>(),
    };
    if term.iter().all(char::is_ascii_alphabetic) {
        return Ok(term);
    }
    Err(Error::data(format!("the term '{part}'")))
}

/// y = Σ x₀ x₁ … over the labels that y lacks
///
/// dxᵢ = Σ dy xⱼ… over the labels that xᵢ lacks (j ≠ i), repeated over those that only xᵢ has, and
/// kept on the diagonal of those that it has twice.
fn einsum(cx: &mut RuleCx) -> Result<()> {
    let n = cx.node().inputs.len();
    let shapes = (0..n).map(|i| cx.x_shape(i)).collect::<Result<Vec<_>>>()?;
    let text = cx.node().string("equation").unwrap_or_default().to_owned();
    let equation = Equation::read(&text, &shapes)?;
    let dy = cx.dy()?;
    let xs = (0..n).map(|i| cx.x(i)).collect::<Result<Vec<_>>>()?;
    for i in 0..n {
        cx.add_grad(i, |g| {
            let mut factors = vec![(equation.output.clone(), dy)];
            for j in (0..n).filter(|&j| j != i) {
                let term = &equation.terms[j];
                factors.push((term.clone(), g.expand(xs[j], &equation.shape(term))?));
            }
            back(g, &equation, &equation.terms[i], factors)
        })?;
    }
    Ok(())
}

/// The product of `factors` as a tensor with the labels of `term`.
fn back(
    g: &mut Build,
    equation: &Equation,
    term: &[char],
    factors: Vec<(Vec<char>, ValueId)>,
) -> Result<ValueId> {
    let (scalars, tensors): (Vec<_>, Vec<_>) = factors.into_iter().partition(|f| f.0.is_empty());
    let mut known: Vec<char> = Vec::new();
    for &label in term {
        if !known.contains(&label) && tensors.iter().any(|(t, _)| t.contains(&label)) {
            known.push(label);
        }
    }
    let mut product = None;
    if !tensors.is_empty() {
        let left: Vec<String> = tensors.iter().map(|(t, _)| t.iter().collect()).collect();
        let text = format!("{}->{}", left.join(","), known.iter().collect::<String>());
        let inputs: Vec<ValueId> = tensors.iter().map(|(_, v)| *v).collect();
        let ty = (g.dtype(inputs[0])?, &equation.shape(&known)[..]);
        let equation = [("equation", Attribute::String(text))];
        product = Some(g.emit("Einsum", &inputs, ty, equation));
    }
    for (_, scalar) in scalars {
        product = Some(product.map_or(Ok(scalar), |p| g.mul(p, scalar))?);
    }
    let product = product.ok_or_else(|| Error::internal("a product of nothing"))?;
    let shape = equation.shape(term);
    let first = |i: usize| !term[..i].contains(&term[i]);
    let apart: Vec<usize> = (0..term.len())
        .map(|i| if first(i) && known.contains(&term[i]) { shape[i] } else { 1 })
        .collect();
    let product = g.reshape(product, &apart)?;
    let mut whole = g.expand(product, &shape)?;
    for i in (0..term.len()).filter(|&i| !first(i)) {
        let j = term.iter().position(|l| *l == term[i]).unwrap_or(i);
        let diagonal = diagonal(g, whole, (j, i), &shape)?;
        whole = g.mul(whole, diagonal)?;
    }
    Ok(whole)
}

/// 1 where the places along two axes are equal, else 0; to multiply with x of `shape`.
fn diagonal(g: &mut Build, x: ValueId, (a, b): (usize, usize), shape: &[usize]) -> Result<ValueId> {
    let dtype = g.dtype(x)?;
    let mut along = |axis: usize| -> Result<ValueId> {
        let mut apart = vec![1; shape.len()];
        apart[axis] = shape[axis];
        let at = g.positions(shape[axis])?;
        g.reshape(at, &apart)
    };
    let (rows, columns) = (along(a)?, along(b)?);
    let same = g.compare("Equal", rows, columns)?;
    g.cast(same, dtype)
}
