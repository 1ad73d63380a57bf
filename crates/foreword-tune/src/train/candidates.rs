//! The candidates of a run: explicit settings stay, the others are varied.

use crate::settings::{CandidateCount, Init, LearningRate, Method};

/// The init and the training settings of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Variation {
    /// The init.
    pub init: Init,
    /// The learning rate.
    pub learning_rate: LearningRate,
    /// P.
    pub n_virtual: usize,
    /// Seed of its init and of the order of its examples.
    pub seed: u64,
}

/// The explicit and default settings; only those that are not explicit are varied.
#[derive(Clone, Debug)]
pub struct Stated<'a> {
    /// The method, which determines the learning rates to try.
    pub method: Method,
    /// The explicit init.
    pub init: Option<&'a Init>,
    /// The default init.
    pub default_init: Init,
    /// The explicit learning rate.
    pub learning_rate: Option<LearningRate>,
    /// The explicit P.
    pub n_virtual: Option<usize>,
    /// The default P.
    pub default_n_virtual: usize,
    /// Whether the init `labels` is possible.
    pub has_labels: bool,
    /// The seed of the first round.
    pub seed: u64,
}

/// An init of the list below.
#[derive(Clone, Copy)]
enum Begin {
    Default,
    Labels,
    Vocab,
}

/// A learning rate of the list below.
#[derive(Clone, Copy)]
enum Rate {
    Auto,
    Lower,
    Higher,
    Highest,
}

impl Rate {
    /// From a third to five or ten times the rate of `auto`: the range of the best rates observed.
    fn of(self, method: Method) -> LearningRate {
        match (self, method) {
            (Self::Auto, _) => LearningRate::Auto,
            (Self::Lower, Method::Prompt) => LearningRate::Share(0.02),
            (Self::Higher, Method::Prompt) => LearningRate::Share(0.15),
            (Self::Highest, Method::Prompt) => LearningRate::Share(0.3),
            (Self::Lower, Method::Prefix) => LearningRate::Share(0.003),
            (Self::Higher, Method::Prefix) => LearningRate::Share(0.03),
            (Self::Highest, Method::Prefix) => LearningRate::Share(0.1),
        }
    }
}

/// One round: (learning rate, init, whether P is doubled). The first is that of a run without candidates; longer prompts
/// come last, since they cost more.
const ROUND: [(Rate, Begin, bool); 10] = [
    (Rate::Auto, Begin::Default, false),
    (Rate::Higher, Begin::Default, false),
    (Rate::Auto, Begin::Labels, false),
    (Rate::Higher, Begin::Labels, false),
    (Rate::Auto, Begin::Vocab, false),
    (Rate::Higher, Begin::Vocab, false),
    (Rate::Lower, Begin::Default, false),
    (Rate::Highest, Begin::Default, false),
    (Rate::Auto, Begin::Default, true),
    (Rate::Higher, Begin::Default, true),
];

/// The first `n` variations, at most [`CandidateCount::MOST`], all different: each round has another seed.
#[must_use]
pub fn variations(n: usize, stated: &Stated<'_>) -> Vec<Variation> {
    let mut found: Vec<Variation> = Vec::new();
    let rounds = (0..CandidateCount::MOST as u64).flat_map(|round| ROUND.iter().map(move |of| (round, of)));
    for (round, &(rate, begin, doubled)) in rounds {
        if found.len() >= n.min(CandidateCount::MOST) {
            break;
        }
        let init = match (stated.init, begin) {
            (Some(init), _) => init.clone(),
            (None, Begin::Default) => stated.default_init.clone(),
            (None, Begin::Labels) if !stated.has_labels => continue,
            (None, Begin::Labels) => Init::Labels,
            (None, Begin::Vocab) => Init::Vocab,
        };
        let longer = if doubled { 2 } else { 1 };
        let variation = Variation {
            init,
            learning_rate: stated.learning_rate.unwrap_or(rate.of(stated.method)),
            n_virtual: stated.n_virtual.unwrap_or(longer * stated.default_n_virtual),
            seed: stated.seed.wrapping_add(round),
        };
        if !found.contains(&variation) {
            found.push(variation);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(init: Option<&Init>) -> Stated<'_> {
        Stated {
            method: Method::Prompt,
            init,
            default_init: Init::Text("Say which.".to_owned()),
            learning_rate: None,
            n_virtual: None,
            default_n_virtual: 20,
            has_labels: true,
            seed: 7,
        }
    }

    #[test]
    fn the_first_is_the_run_without_candidates_and_no_two_are_alike() {
        for n in [1, CandidateCount::AUTO, 30, CandidateCount::MOST, 1000] {
            let all = variations(n, &stated(None));
            assert_eq!(all.len(), n.min(CandidateCount::MOST));
            let first = &all[0];
            assert_eq!((first.learning_rate, first.n_virtual, first.seed), (LearningRate::Auto, 20, 7));
            assert_eq!(first.init, Init::Text("Say which.".to_owned()));
            assert!((1..all.len()).all(|i| !all[..i].contains(&all[i])));
        }
        assert!(
            variations(CandidateCount::AUTO, &stated(None)).iter().all(|v| v.n_virtual == 20 && v.seed == 7)
        );
    }

    #[test]
    fn what_is_stated_is_kept() {
        let all = variations(12, &stated(Some(&Init::Random)));
        assert!(all.iter().all(|v| v.init == Init::Random));
        let rate = Some(LearningRate::Value(0.5));
        let fixed = Stated { learning_rate: rate, n_virtual: Some(3), ..stated(Some(&Init::Vocab)) };
        let all = variations(4, &fixed);
        let same = |v: &Variation| v.learning_rate == LearningRate::Value(0.5) && v.n_virtual == 3;
        assert!(all.iter().all(same));
        assert_eq!(all.iter().map(|v| v.seed).collect::<Vec<_>>(), [7, 8, 9, 10]);
        let prefix = variations(CandidateCount::AUTO, &Stated { method: Method::Prefix, ..stated(None) });
        let most = |v: &[Variation]| {
            let shares = v.iter().filter_map(|v| match v.learning_rate {
                LearningRate::Share(share) => Some(share),
                LearningRate::Auto | LearningRate::Value(_) => None,
            });
            shares.fold(0.0, f64::max)
        };
        assert!(most(&prefix) < most(&variations(CandidateCount::AUTO, &stated(None))));
        let unlabelled = Stated { has_labels: false, ..stated(None) };
        assert!(variations(30, &unlabelled).iter().all(|v| v.init != Init::Labels));
    }
}
