//! Splits and samples the training data: stratified by label, and deterministic.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Default share of the examples for dev.
pub const DEFAULT_DEV_SHARE: f64 = 0.1;

/// Maximum number of dev examples from `default_dev_share`: with these, the accuracy is known to about a point, and more
/// would only slow down every evaluation.
pub const MOST_DEV_EXAMPLES: usize = 1000;

/// Number of dev examples, one of each label, that may exceed twice the share: with fewer, dev says nothing.
pub const MOST_FORCED: usize = 10;

/// The two parts of a split, as row indices in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The training rows.
    pub train: Vec<usize>,
    /// The development rows.
    pub dev: Vec<usize>,
}

/// The share of `n` examples for dev: a tenth, or the share that gives a thousand.
pub fn default_dev_share(n: usize) -> f64 {
    DEFAULT_DEV_SHARE.min(MOST_DEV_EXAMPLES as f64 / n.max(1) as f64)
}

/// Splits `share` of the examples off for dev, stratified by `labels[row]`. A label with a single example is in train; one
/// with more has at least one in each part, unless so many labels would take more than twice the share, and more than
/// [`MOST_FORCED`] examples: then dev has the share, and some labels none there. For data without labels, pass the same
/// label for all: `&[(); N]`.
pub fn stratified_split<L: Ord>(labels: &[L], share: f64, seed: u64) -> Split {
    let mut rows_of: BTreeMap<&L, Vec<usize>> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        rows_of.entry(label).or_default().push(row);
    }
    let mut groups: Vec<Vec<usize>> = rows_of.into_values().collect();
    let n_dev = dev_sizes(&groups, share, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut is_dev = vec![false; labels.len()];
    for (rows, n_dev) in groups.iter_mut().zip(n_dev) {
        draw_to_front(rows, n_dev, &mut rng);
        for &row in &rows[..n_dev] {
            is_dev[row] = true;
        }
    }
    let (dev, train) = (0..labels.len()).partition(|&row| is_dev[row]);
    Split { train, dev }
}

/// [`stratified_split`] of distinct texts, each with the label of its first row: all rows of a text go into the same part,
/// so that dev contains no training text. Without duplicates, the result is the same split.
pub fn split_texts<T: Hash + Eq, L: Ord>(texts: &[T], labels: &[L], share: f64, seed: u64) -> Split {
    let mut unit_of: HashMap<&T, usize> = HashMap::new();
    let mut unit_labels = Vec::new();
    let mut units = Vec::with_capacity(labels.len());
    for (text, label) in texts.iter().zip(labels) {
        let unit = *unit_of.entry(text).or_insert_with(|| {
            unit_labels.push(label);
            unit_labels.len() - 1
        });
        units.push(unit);
    }
    let mut is_dev = vec![false; unit_labels.len()];
    for unit in stratified_split(&unit_labels, share, seed).dev {
        is_dev[unit] = true;
    }
    let (dev, train) = (0..units.len()).partition(|&row| is_dev[units[row]]);
    Split { train, dev }
}

/// Samples `n` examples, as row indices in ascending order, stratified by label, with at least one per label if possible.
/// Returns all if there are no more than `n`.
pub fn stratified_sample<L: Ord>(labels: &[L], n: usize, seed: u64) -> Vec<usize> {
    let mut rows_of: BTreeMap<&L, Vec<usize>> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        rows_of.entry(label).or_default().push(row);
    }
    let mut groups: Vec<Vec<usize>> = rows_of.into_values().collect();
    let sizes = sample_sizes(&groups, n.min(labels.len()));
    let mut drawn = Vec::with_capacity(n.min(labels.len()));
    for ((group, rows), size) in (1..).zip(&mut groups).zip(sizes) {
        // A stream for each label: a larger sample with the same seed begins with the rows of a smaller one.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(group);
        draw_to_front(rows, size, &mut rng);
        drawn.extend_from_slice(&rows[..size]);
    }
    drawn.sort_unstable();
    drawn
}

/// Samples `n` examples of each label, or all if there are fewer, in rounds of one example per label: the rows of each
/// round, in random order. With the same seed, more rounds begin with the same ones.
pub fn rounds<L: Ord>(labels: &[L], n: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rows_of: BTreeMap<&L, Vec<usize>> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        rows_of.entry(label).or_default().push(row);
    }
    let mut groups: Vec<Vec<usize>> = rows_of.into_values().collect();
    for (group, rows) in (1..).zip(&mut groups) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(group);
        let n = n.min(rows.len());
        draw_to_front(rows, n, &mut rng);
        rows.truncate(n);
    }
    let n_rounds = groups.iter().map(Vec::len).max().unwrap_or(0);
    // A stream that no group uses.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let in_order = (0..n_rounds).map(|round| {
        let mut rows: Vec<usize> = groups.iter().filter_map(|rows| rows.get(round).copied()).collect();
        let n = rows.len();
        draw_to_front(&mut rows, n, &mut rng);
        rows
    });
    in_order.collect()
}

/// The number of examples that each group gives to a sample of `n`: its share rounded down and at least one, then one by
/// one to the group furthest from its share. They sum to `n`.
fn sample_sizes(groups: &[Vec<usize>], n: usize) -> Vec<usize> {
    let total: usize = groups.iter().map(Vec::len).sum();
    let quota: Vec<f64> =
        groups.iter().map(|rows| rows.len() as f64 * n as f64 / total.max(1) as f64).collect();
    let least = usize::from(n >= groups.len());
    let mut sizes: Vec<usize> = quota.iter().map(|quota| (quota.floor() as usize).max(least)).collect();
    let far = |sizes: &[usize], group: usize| quota[group] - sizes[group] as f64;
    loop {
        let sum: usize = sizes.iter().sum();
        let all = 0..groups.len();
        if sum < n {
            let with_room = all.filter(|&group| sizes[group] < groups[group].len());
            let Some(group) = with_room.max_by(|&a, &b| far(&sizes, a).total_cmp(&far(&sizes, b))) else {
                break;
            };
            sizes[group] += 1;
        } else if sum > n {
            let larger = all.filter(|&group| sizes[group] > least);
            let Some(group) = larger.min_by(|&a, &b| far(&sizes, a).total_cmp(&far(&sizes, b))) else {
                break;
            };
            sizes[group] -= 1;
        } else {
            break;
        }
    }
    sizes
}

/// The number of examples that each group gives to dev: whole numbers that sum to the total share, rounding up the largest
/// remainders first; then one of every group, if that is not too many.
fn dev_sizes(groups: &[Vec<usize>], share: f64, seed: u64) -> Vec<usize> {
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let quota: Vec<f64> = groups.iter().map(|rows| rows.len() as f64 * share).collect();
    let mut sizes: Vec<usize> = quota.iter().map(|quota| quota.floor() as usize).collect();
    let n_whole = quota.iter().sum::<f64>().round() as usize;
    let n_left = n_whole.saturating_sub(sizes.iter().sum());
    let within = |(size, rows): (usize, &Vec<usize>)| match rows.len() {
        0 | 1 => 0,
        n => size.clamp(1, n - 1),
    };
    let forced = |sizes: &[usize]| -> Vec<usize> { sizes.iter().copied().zip(groups).map(within).collect() };
    let is_forced = forced(&sizes).iter().sum::<usize>() <= (2 * n_whole).max(MOST_FORCED);
    let mut by_remainder: Vec<usize> = (0..groups.len()).collect();
    if !is_forced {
        // Which of the labels with equal remainders have an example is left to chance, not to their names.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        let n = by_remainder.len();
        draw_to_front(&mut by_remainder, n, &mut rng);
        by_remainder.retain(|&group| groups[group].len() > 1);
    }
    by_remainder.sort_by(|&a, &b| quota[b].fract().total_cmp(&quota[a].fract()));
    for &group in by_remainder.iter().take(n_left) {
        sizes[group] += 1;
    }
    if is_forced { forced(&sizes) } else { sizes }
}

/// The first `n` steps of a Fisher–Yates shuffle, on the generator's own 64-bit numbers: the same sample on every machine
/// and with every version of rand.
fn draw_to_front(rows: &mut [usize], n: usize, rng: &mut ChaCha8Rng) {
    for at in 0..n {
        let n_left = (rows.len() - at) as u128;
        // Takes the high word of the product; the bias is below n_left / 2^64.
        let drawn = (u128::from(rng.next_u64()) * n_left) >> 64;
        rows.swap(at, at + drawn as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_same_seed_draws_the_same_rows_for_ever() {
        let labels = ["a", "b", "a", "b", "a", "b", "a", "b", "a", "c"];
        let split = stratified_split(&labels, 0.4, 7);
        assert_eq!(split, stratified_split(&labels, 0.4, 7));
        assert_eq!(split.dev, [0, 2, 5, 7]);
        assert!((0..32).any(|seed| stratified_split(&labels, 0.4, seed) != split));
    }

    #[test]
    fn the_default_share_is_a_tenth_and_at_most_a_thousand() {
        assert_eq!(default_dev_share(500), 0.1);
        for n in [20_000, 33_333, 1_000_003] {
            let split = stratified_split(&vec![(); n], default_dev_share(n), 0);
            assert_eq!(split.dev.len(), 1000);
        }
        assert_eq!(default_dev_share(0), 0.1);
        assert_eq!(stratified_split::<usize>(&[], 0.1, 0), Split { train: vec![], dev: vec![] });
    }

    #[test]
    fn many_labels_do_not_take_more_than_the_share() {
        let labels: Vec<usize> = (0..450).map(|row| row % 150).collect();
        let split = stratified_split(&labels, 0.1, 3);
        assert_eq!((split.dev.len(), split.train.len()), (45, 405));
        let drawn: Vec<usize> = split.dev.iter().map(|&row| labels[row]).collect();
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!(distinct.len(), 45, "one each");
        assert!(drawn.iter().any(|&label| label > 100), "not the first ones: {drawn:?}");
        assert_ne!(stratified_split(&labels, 0.1, 4), split);
        // Single examples stay in train, and common labels give their share.
        let skewed: Vec<usize> = (0..1000).map(|row| if row < 100 { row } else { 1000 }).collect();
        let split = stratified_split(&skewed, 0.1, 3);
        assert_eq!(split.dev.iter().filter(|&&row| row >= 100).count(), 90);
        assert!(split.dev.iter().all(|&row| row >= 100));
        // Few examples of few labels: one of each.
        let few = stratified_split(&[0, 1, 2, 0, 1, 2, 0, 1, 2], 0.1, 0);
        assert_eq!(few.dev.len(), 3);
    }

    #[test]
    fn rows_of_one_text_stay_together() {
        let texts: Vec<usize> = (0..300).map(|row| row % 100).collect();
        let labels: Vec<usize> = texts.iter().map(|text| text % 2).collect();
        let split = split_texts(&texts, &labels, 0.1, 1);
        assert_eq!((split.dev.len(), split.train.len()), (30, 270));
        let of =
            |rows: &[usize]| rows.iter().map(|&row| texts[row]).collect::<std::collections::BTreeSet<_>>();
        assert!(of(&split.train).is_disjoint(&of(&split.dev)));
        let distinct: Vec<usize> = (0..300).collect();
        assert_eq!(split_texts(&distinct, &labels, 0.1, 1), stratified_split(&labels, 0.1, 1));
    }

    #[test]
    fn rounds_have_one_of_each_label_and_begin_alike() {
        let labels = ["a", "b", "a", "b", "c", "a", "b", "a"];
        let three = rounds(&labels, 3, 5);
        let of = |rows: &[usize]| {
            let mut of: Vec<_> = rows.iter().map(|&row| labels[row]).collect();
            of.sort_unstable();
            of
        };
        assert_eq!(
            three.iter().map(|rows| of(rows)).collect::<Vec<_>>(),
            [vec!["a", "b", "c"], vec!["a", "b"], vec!["a", "b"],]
        );
        let mut all: Vec<usize> = three.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 7, "no row twice");
        assert_eq!(rounds(&labels, 2, 5), three[..2]);
        assert!((0..20).any(|seed| rounds(&labels, 3, seed) != three));
        assert_eq!(rounds::<u8>(&[], 3, 0), Vec::<Vec<usize>>::new());
        assert_eq!(rounds(&labels, 0, 0), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn a_sample_of_a_sorted_file_has_every_label() {
        let labels: Vec<usize> = (0..1000).map(|row| row / 500).collect();
        let sample = stratified_sample(&labels, 10, 3);
        assert_eq!((sample.len(), sample.iter().filter(|&&row| row < 500).count()), (10, 5));
        assert_eq!(sample, stratified_sample(&labels, 10, 3));
        assert_ne!(sample, stratified_sample(&labels, 10, 4));
        let larger = stratified_sample(&labels, 40, 3);
        assert!(sample.iter().all(|row| larger.contains(row)));
    }

    proptest! {
        #[test]
        fn a_sample_has_the_asked_size_and_every_label_it_has_room_for(
            labels in proptest::collection::vec(0_usize..6, 0..200), n in 0_usize..250, seed: u64,
        ) {
            let sample = stratified_sample(&labels, n, seed);
            prop_assert_eq!(sample.len(), n.min(labels.len()));
            prop_assert!(sample.is_sorted_by(|a, b| a < b) && sample.iter().all(|&row| row < labels.len()));
            let of = |rows: &mut dyn Iterator<Item = usize>| rows.map(|row| labels[row]).collect::<std::collections::BTreeSet<_>>();
            let (all, drawn) = (of(&mut (0..labels.len())), of(&mut sample.iter().copied()));
            prop_assert!(n < all.len() || all == drawn);
        }

        #[test]
        fn every_label_is_in_both_parts_and_every_row_in_one(
            labels in proptest::collection::vec(0_usize..6, 0..200), share in 0.0..1.0_f64, seed: u64,
        ) {
            let split = stratified_split(&labels, share, seed);
            let mut all = [split.train.clone(), split.dev.clone()].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
            prop_assert!(split.train.is_sorted() && split.dev.is_sorted());
            for label in 0..6 {
                let n = |rows: &[usize]| rows.iter().filter(|&&row| labels[row] == label).count();
                let (n_train, n_dev) = (n(&split.train), n(&split.dev));
                if n_train + n_dev >= 2 {
                    prop_assert!(n_train >= 1 && n_dev >= 1);
                    prop_assert!((n_dev as f64 - share * (n_train + n_dev) as f64).abs() <= 1.0 + 1e-9);
                } else {
                    prop_assert_eq!(n_dev, 0);
                }
            }
        }
    }
}
