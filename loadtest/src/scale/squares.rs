//! Least squares, of few unknowns.

/// How small a pivot may be beside the largest entry, before the unknowns cannot be told apart.
const PIVOT_MIN: f64 = 1e-9;

/// The factors, none below 0, with which the rows make their values: the sum of the squared errors, each as a share of its row's value, is the
/// least. None where the rows do not tell the unknowns apart.
///
/// Where a factor would be below 0, it or another is 0: no time is negative, and noise must not make one so.
pub(super) fn squares<const N: usize>(rows: impl Iterator<Item = ([f64; N], f64)>) -> Option<[f64; N]> {
    let rows: Vec<([f64; N], f64)> = rows.filter(|(_, value)| *value > 0.0).map(|(row, y)| (row.map(|x| x / y), 1.0)).collect();
    solve(&rows, &[true; N])?;
    // The least of all with some factors at 0: unknowns are few.
    let choices = (1..1_u32 << N).map(|choice| std::array::from_fn(|n| choice >> n & 1 == 1));
    let found = choices.filter_map(|used| solve(&rows, &used)).filter(|found| found.iter().all(|factor| *factor >= 0.0));
    let error = |found: &[f64; N]| {
        let off = |(row, value): &([f64; N], f64)| row.iter().zip(found).map(|(x, factor)| x * factor).sum::<f64>() - value;
        rows.iter().map(|row| off(row).powi(2)).sum::<f64>()
    };
    found.min_by(|one, other| error(one).total_cmp(&error(other)))
}

/// Solves the normal equations of the unknowns that are used; the others are 0.
fn solve<const N: usize>(rows: &[([f64; N], f64)], used: &[bool; N]) -> Option<[f64; N]> {
    // Each unknown in a unit of its own, so that pivots can be compared.
    let size = |n: usize| rows.iter().map(|(row, _)| row[n].abs()).fold(0.0, f64::max);
    let units: [f64; N] = std::array::from_fn(size);
    let mut matrix = [[0.0; N]; N];
    let mut right = [0.0; N];
    for n in 0..N {
        if !used[n] {
            matrix[n][n] = 1.0;
            continue;
        }
        if units[n] <= 0.0 {
            return None;
        }
        for m in (0..N).filter(|m| used[*m]) {
            matrix[n][m] = rows.iter().map(|(row, _)| row[n] / units[n] * row[m] / units[m]).sum();
        }
        right[n] = rows.iter().map(|(row, value)| row[n] / units[n] * value).sum();
    }
    let largest = matrix.iter().flatten().fold(0.0_f64, |most, entry| most.max(entry.abs()));
    for n in 0..N {
        let best = (n..N).max_by(|a, b| matrix[*a][n].abs().total_cmp(&matrix[*b][n].abs()))?;
        matrix.swap(n, best);
        right.swap(n, best);
        let pivot = matrix[n][n];
        if pivot.abs() <= PIVOT_MIN * largest {
            return None;
        }
        for m in (0..N).filter(|m| *m != n) {
            let factor = matrix[m][n] / pivot;
            let row = matrix[n];
            matrix[m].iter_mut().zip(row).for_each(|(entry, other)| *entry -= factor * other);
            right[m] -= factor * right[n];
        }
    }
    Some(std::array::from_fn(|n| if used[n] { right[n] / matrix[n][n] / units[n] } else { 0.0 }))
}

/// One part of another; 0 where there is none.
pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The value in the middle; between the two of an even count.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
    f64::midpoint(at(lower), at(upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, meant: f64) {
        assert!((found - meant).abs() < 1e-6 * meant.abs().max(1.0), "{found}, not {meant}");
    }

    #[test]
    fn factors_are_found_again() {
        let rows = [[1.0, 1.0], [1.0, 16.0], [1.0, 64.0], [200.0, 200.0]].map(|[a, b]| ([a, b], 16.4 * a + 3.9 * b));
        let [a, b] = squares(rows.into_iter()).expect("factors");
        close(a, 16.4);
        close(b, 3.9);
        let rows = [[1.0, 2.0, 2.0], [3.0, 2.0, 6.0], [2.0, 6.0, 12.0], [3.0, 6.0, 18.0]];
        let rows = rows.map(|[a, b, c]| ([a, b, c], 2_500.0 * a + 700.0 * b + 30.0 * c));
        let [a, b, c] = squares(rows.into_iter()).expect("factors");
        close(a, 2_500.0);
        close(b, 700.0);
        close(c, 30.0);
    }

    #[test]
    fn a_light_row_counts_as_much_as_a_heavy_one() {
        // One factor for rows of 1.1 and 0.9 times as much: by shares of the values it lies between, however heavy one of them is.
        let [a] = squares([([1.0], 1.1), ([1_000_000.0], 900_000.0)].into_iter()).expect("a factor");
        assert!((0.97..1.01).contains(&a), "{a}");
    }

    #[test]
    fn no_factor_is_below_zero() {
        let rows = [([1.0, 1.0], 10.0), ([1.0, 2.0], 9.0), ([1.0, 3.0], 8.0)];
        let [a, b] = squares(rows.into_iter()).expect("factors");
        assert!(b == 0.0 && (8.0..10.0).contains(&a), "{a}, {b}");
    }

    #[test]
    fn what_cannot_be_told_apart_is_not() {
        assert_eq!(squares([([1.0, 2.0], 5.0), ([2.0, 4.0], 10.0)].into_iter()), None);
        assert_eq!(squares([([0.0], 5.0)].into_iter()), None);
        assert_eq!(squares(std::iter::empty::<([f64; 1], f64)>()), None);
    }

    #[test]
    fn the_middle_is_found() {
        assert_eq!([median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0]), median(vec![])], [2.0, 2.5, 0.0]);
        assert_eq!([ratio(1.0, 2.0), ratio(1.0, 0.0)], [0.5, 0.0]);
    }
}
