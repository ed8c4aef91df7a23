//! Patterns on names: `*` stands for any text, `?` for one character, everything else for itself.

/// Whether the whole of `name` matches `pattern`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (p, n) = (pattern.as_bytes(), name.as_bytes());
    let (mut i, mut j) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while j < n.len() {
        match p.get(i) {
            Some(b'*') => {
                retry = Some((i + 1, j));
                i += 1;
            }
            Some(&c) if c == b'?' || c == n[j] => {
                i += 1;
                j += 1;
            }
            _ => match retry {
                Some((after_star, at)) => {
                    retry = Some((after_star, at + 1));
                    (i, j) = (after_star, at + 1);
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        let check = |p: &str, n: &str, expected: bool| assert_eq!(matches(p, n), expected, "{p}");
        check("*", "", true);
        check("*.bias", "h.0.bias", true);
        check("*.bias", "h.0.bias2", false);
        check("h.?.*.weight", "h.3.attn.c_attn.weight", true);
        check("h.?.*.weight", "h.13.attn.weight", false);
        check("a*b*c", "a__b_b__c", true);
        check("a*b*c", "a__b_b__", false);
        check("abc", "ab", false);
        check("", "x", false);
    }
}
